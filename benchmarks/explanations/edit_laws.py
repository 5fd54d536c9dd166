"""Whether edits do what `llmrec.ranking.effects` proves: every law, on made-up and on real people.

Run: python -m benchmarks.explanations.edit_laws
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from benchmarks.explanations.edit_cases import Case, random_case, real_cases
from benchmarks.harness.results import record
from llmrec.data.readers import load_dataset
from llmrec.errors import EditError
from llmrec.ranking.edit_parser import edit_sentences, parse_edits
from llmrec.ranking.edits import Edit, muted_item_mask
from llmrec.ranking.effects import TOLERANCE
from llmrec.ranking.rank import Ranking
from llmrec.types import BoolArray, FloatArray, IntArray

REAL = 300  # people of each log
LEFT = 1e-4  # to the others of a locked share: to divide by less loses digits


def foretold(case: Case) -> bool:
    """Scores, order and directions are those foretold, also where the strength changes."""
    return case.effect().verify().holds and case.effect(strength=0.7).verify().holds


def monotone(case: Case) -> bool:
    """Raise a factor: no item of the category alone falls against any other item."""
    edit, others = _free(case)
    low = case.ranked(*others, replace(edit, factor=edit.factor / 3))
    high = case.ranked(*others, edit)
    by_item = high.item_idx.argsort()
    gain = high.scores[by_item] - low.scores[low.item_idx.argsort()]
    alone = (
        case.catalog.category_shares[high.item_idx[by_item]][:, [_index(case, edit)]].toarray()[
            :, 0
        ]
        == 1
    )
    rank = by_item[alone]  # 0-based
    allowed = _last_ranks(low, muted_item_mask(others, case.catalog, case.history.cutoff))[alone]
    return bool(
        (gain[alone] >= gain.max(initial=-np.inf) - TOLERANCE).all() and (rank <= allowed).all()
    )


def muted(case: Case) -> bool:
    """Every item with a share of a muted category stands below every item with none."""
    edit, others = _free(case)
    ranking = case.ranked(Edit(edit.category, 0.0), *(e for e in others if e.factor > 0))
    shares = case.catalog.category_shares[ranking.item_idx][:, [_index(case, edit)]].toarray()[:, 0]
    return bool((np.diff((shares > 0).astype(np.int64)) >= 0).all())


def additive(case: Case) -> bool:
    """Unlocked edits at once are one after the other, in either order."""
    edits = [replace(edit, lock=False) for edit in case.edits]
    at_once = case.scores(*edits)
    forecasts = [case.forecast, case.forecast]
    for forward, backward in zip(edits, edits[::-1], strict=True):
        forecasts[0] = case.edited(forward, forecast=forecasts[0])
        forecasts[1] = case.edited(backward, forecast=forecasts[1])
    return all(_close(case.scores(forecast=forecast), at_once) for forecast in forecasts)


def undoable(case: Case) -> bool:
    """Apply a factor and then one over it, locked or not: the scores are those of before."""
    forecast = case.forecast
    changes = [edit for edit in case.edits if edit.factor > 0]
    for edit in changes:
        there = case.edited(edit, forecast=forecast)
        shares = [f.category_weights[_index(case, edit)] for f in (forecast, there)]
        if edit.lock and max(shares) > 1 - LEFT:
            continue
        forecast = case.edited(replace(edit, factor=1 / edit.factor), forecast=there)
    return _close(case.scores(forecast=forecast), case.scores())


def idempotent(case: Case) -> bool:
    """Edits listed twice, in another order, give the same bytes."""
    return _same(case.ranked(*case.edits[::-1], *case.edits), case.ranked(*case.edits))


def removable(case: Case) -> bool:
    """Without its edits a ranking is the one of before, to the byte; so it is with ended ones."""
    before = case.ranked()
    case.ranked(*case.edits)
    ended = [replace(edit, until=case.history.cutoff) for edit in case.edits]
    return _same(case.ranked(), before) and _same(case.ranked(*ended), before)


def locked(case: Case) -> bool:
    """Lock a share: it is the forecast's times the factor, to the last bit."""
    edit, others = _free(case)
    share = min(edit.factor, 1.0)
    forecast = case.edited(replace(edit, factor=share, lock=True), *others)
    category = _index(case, edit)
    expected = case.forecast.category_weights[category] * share
    return bool(forecast.category_weights[category] == expected)


def proportional(case: Case) -> bool:
    """Change the strength: changes of scores grow with it; at 0 there are none."""
    unit = case.scores(*case.edits, strength=1) - case.scores(strength=1)
    change = case.scores(*case.edits, strength=2.5) - case.scores(strength=2.5)
    none = case.scores(*case.edits, strength=0) - case.scores(strength=0)
    return _close(change, 2.5 * unit) and not none.any()


def readable(case: Case) -> bool:
    """Read the sentences that say edits: they are the same edits."""
    text = " ".join(edit_sentences(case.edits, case.catalog))
    read = parse_edits(text, case.catalog, case.history.cutoff)
    return set(read.edits) == set(case.edits) and not (read.issues or read.assumed)


LAWS: dict[str, Callable[[Case], bool]] = {
    law.__name__: law
    for law in (
        *(foretold, monotone, muted, additive, undoable),
        *(idempotent, removable, locked, proportional, readable),
    )
}


def holds(law: Callable[[Case], bool], case: Case) -> bool | None:
    """Whether a law holds for a case; None if what it asks cannot be applied there."""
    try:
        return law(case) if case.edits else None
    except EditError:
        return None


def main() -> None:
    """Count, for each law, the cases it was tried on and those where it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="made-up cases a law")
    arguments = parser.parse_args()
    rows = list(_judged("made up", map(random_case, range(10**9)), arguments.cases))
    for name in ("ml-100k", "completejourney"):
        cases = real_cases(load_dataset(name), 2 * REAL)
        rows += _judged(name, cases, REAL)
    record("edit_laws", rows)


def _judged(dataset: str, cases: Iterable[Case], n: int) -> Iterator[dict[str, object]]:
    """Try every law on cases until each was applicable n times."""
    tried, broken = dict.fromkeys(LAWS, 0), dict.fromkeys(LAWS, 0)
    progress = tqdm(total=n * len(LAWS), disable=None, desc=dataset)
    for case in cases:
        for name, law in LAWS.items():
            if tried[name] < n and (held := holds(law, case)) is not None:
                tried[name] += 1
                broken[name] += not held
                progress.update()
        if min(tried.values()) == n:
            break
    for name, count in broken.items():
        yield {
            "dataset": dataset,
            "split": "all",
            "model": name,
            "metric": "violations",
            "value": count,
            "low": None,
            "high": None,
            "n": tried[name],
            "seeds": [0],
        }


def _free(case: Case) -> tuple[Edit, list[Edit]]:
    """Split off the last edit, as one that counts, and is unlocked and no muting one."""
    *others, edit = case.edits
    return Edit(edit.category, edit.factor or 2.0), others


def _index(case: Case, edit: Edit) -> int:
    return case.catalog.categories.index(edit.category)


def _close(one: FloatArray, other: FloatArray) -> bool:
    return bool((np.abs(one - other) <= TOLERANCE).all())


def _same(one: Ranking, other: Ranking) -> bool:
    arrays = [
        (r.item_idx, r.scores, r.scorer_parts, r.category_parts.toarray()) for r in (one, other)
    ]
    return all(a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True))


def _last_ranks(ranking: Ranking, muted: BoolArray) -> IntArray:
    """(n,) the last 0-based rank that ties leave to each item not muted, in the catalog's order."""
    above = np.sort(ranking.scores[~muted[ranking.item_idx]])
    scores = ranking.scores[ranking.item_idx.argsort()]
    return len(above) - np.searchsorted(above, scores - 2 * TOLERANCE) - 1


if __name__ == "__main__":
    main()
