"""Whether edits obey the laws that `llmrec.ranking.effects` proves, on random and on real people.

Random cases have random scores, and others those of trees and a net that learned from made-up logs;
people of real logs have the forecasts and scores of the logs' engines.

Run: python -m benchmarks.explanations.edit_laws
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from benchmarks.explanations.edit_cases import EditCase, learned_case, random_case, real_cases
from benchmarks.harness.labels import LEARNED
from benchmarks.harness.logs import available_logs, benchmark_dataset
from benchmarks.harness.results import record_results
from llmrec.errors import EditError
from llmrec.ranking.edit_parser import edit_sentences, parse_edits
from llmrec.ranking.edits import Edit, muted_item_mask
from llmrec.ranking.effects import TOLERANCE
from llmrec.ranking.ranking import Ranking
from llmrec.types import BoolArray, FloatArray, IntArray

REAL_CASES = 300  # people of each log
MIN_REMAINDER = 1e-4  # left to the others of a locked share: to divide by less loses digits


def predicted(case: EditCase) -> bool:
    """Scores, order and directions are as predicted, with other strengths."""
    others: list[dict[str, float]] = [{}, {"strength": 0.7}, {"edit_strength": 1.3}]
    return all(case.effect(**strengths).verify().holds for strengths in others)


def monotone(case: EditCase) -> bool:
    """With a larger factor no item of the category alone falls against any other item."""
    edit, others = _last_unlocked(case)
    low = case.rank(*others, replace(edit, factor=edit.factor / 3))
    high = case.rank(*others, edit)
    by_item = high.item_idx.argsort()
    gain = high.scores[by_item] - low.scores[low.item_idx.argsort()]
    alone = _category_shares(case, edit, high.item_idx[by_item]) == 1
    ranks = by_item[alone]  # 0-based
    allowed = _last_ranks(low, muted_item_mask(others, case.catalog, case.history.cutoff))[alone]
    return bool(
        (gain[alone] >= gain.max(initial=-np.inf) - TOLERANCE).all() and (ranks <= allowed).all()
    )


def muted(case: EditCase) -> bool:
    """Every item with a share of a muted category stands below every item with none."""
    edit, others = _last_unlocked(case)
    ranking = case.rank(Edit(edit.category, 0.0), *(e for e in others if e.factor > 0))
    shares = _category_shares(case, edit, ranking.item_idx)
    return bool((np.diff((shares > 0).astype(np.int64)) >= 0).all())


def additive(case: EditCase) -> bool:
    """Unlocked edits together give the scores of one after the other, in either order."""
    edits = [replace(edit, lock=False) for edit in case.edits]
    together = case.scores(*edits)
    forecasts = [case.forecast, case.forecast]
    for forward, backward in zip(edits, edits[::-1], strict=True):
        forecasts[0] = case.apply(forward, forecast=forecasts[0])
        forecasts[1] = case.apply(backward, forecast=forecasts[1])
    return all(_is_close(case.scores(forecast=forecast), together) for forecast in forecasts)


def undoable(case: EditCase) -> bool:
    """Apply a factor and then its inverse, locked or not: the scores are those of before."""
    forecast = case.forecast
    changes = [edit for edit in case.edits if edit.factor > 0]
    for edit in changes:
        edited = case.apply(edit, forecast=forecast)
        shares = [f.category_weights[_category_index(case, edit)] for f in (forecast, edited)]
        if edit.lock and max(shares) > 1 - MIN_REMAINDER:
            continue
        forecast = case.apply(replace(edit, factor=1 / edit.factor), forecast=edited)
    return _is_close(case.scores(forecast=forecast), case.scores())


def idempotent(case: EditCase) -> bool:
    """Edits listed twice, in another order, give the same ranking, to the bit."""
    return _is_same(case.rank(*case.edits[::-1], *case.edits), case.rank(*case.edits))


def removable(case: EditCase) -> bool:
    """Without its edits, or with ended ones, a ranking is the one of before, to the bit."""
    before = case.rank()
    case.rank(*case.edits)
    ended = [replace(edit, until=case.history.cutoff) for edit in case.edits]
    return _is_same(case.rank(), before) and _is_same(case.rank(*ended), before)


def locked(case: EditCase) -> bool:
    """Lock a share: it is the forecast's times the factor, to the last bit."""
    edit, others = _last_unlocked(case)
    share = min(edit.factor, 1.0)
    forecast = case.apply(replace(edit, factor=share, lock=True), *others)
    category = _category_index(case, edit)
    expected = case.forecast.category_weights[category] * share
    return bool(forecast.category_weights[category] == expected)


def proportional(case: EditCase) -> bool:
    """Change the strength: changes of scores are proportional to it; at 0 there are none."""
    unit = case.scores(*case.edits, strength=1) - case.scores(strength=1)
    change = case.scores(*case.edits, strength=2.5) - case.scores(strength=2.5)
    none = case.scores(*case.edits, strength=0) - case.scores(strength=0)
    return _is_close(change, 2.5 * unit) and not none.any()


def parseable(case: EditCase) -> bool:
    """Parse the sentences of edits: they are the same edits."""
    text = " ".join(edit_sentences(case.edits, case.catalog))
    parsed = parse_edits(text, case.catalog, case.history.cutoff)
    return set(parsed.edits) == set(case.edits) and not (parsed.issues or parsed.assumed)


LAWS: dict[str, Callable[[EditCase], bool]] = {
    law.__name__: law
    for law in (
        *(predicted, monotone, muted, additive, undoable),
        *(idempotent, removable, locked, proportional, parseable),
    )
}


def holds(law: Callable[[EditCase], bool], case: EditCase) -> bool | None:
    """Whether a law holds for a case; None if its edits cannot be applied there."""
    try:
        return law(case) if case.edits else None
    except EditError:
        return None


def main() -> None:
    """Count, for each law, the cases it was tested on and those where it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="random cases a law")
    arguments = parser.parse_args()
    rows = list(_law_rows("synthetic", map(random_case, range(10**9)), arguments.cases))
    learned = map(learned_case, range(10**9))
    rows += _law_rows("synthetic", learned, arguments.cases, LEARNED)
    for name in available_logs():
        cases = real_cases(benchmark_dataset(name), 2 * REAL_CASES)
        rows += _law_rows(name, cases, REAL_CASES)
    record_results("explanations/edit_laws", rows)


def _law_rows(
    dataset: str, cases: Iterable[EditCase], n: int, split: str = "all"
) -> Iterator[dict[str, object]]:
    """Test every law on cases until each was applicable n times."""
    tested, violated = dict.fromkeys(LAWS, 0), dict.fromkeys(LAWS, 0)
    progress = tqdm(total=n * len(LAWS), disable=None, desc=f"{dataset}, {split}")
    for case in cases:
        for name, law in LAWS.items():
            if tested[name] < n and (result := holds(law, case)) is not None:
                tested[name] += 1
                violated[name] += not result
                progress.update()
        if min(tested.values()) == n:
            break
    for name, count in violated.items():
        yield {
            "dataset": dataset,
            "split": split,
            "model": name,
            "metric": "violations",
            "value": count,
            "low": None,
            "high": None,
            "n": tested[name],
            "seeds": [0],
        }


def _last_unlocked(case: EditCase) -> tuple[Edit, list[Edit]]:
    """Split off the last edit, unlocked, and with a factor that does not mute."""
    *others, edit = case.edits
    return Edit(edit.category, edit.factor or 2.0), others


def _category_index(case: EditCase, edit: Edit) -> int:
    return case.catalog.categories.index(edit.category)


def _category_shares(case: EditCase, edit: Edit, items: IntArray) -> FloatArray:
    """(n_items,) shares of the items in the edit's category."""
    category = _category_index(case, edit)
    shares: FloatArray = case.catalog.category_shares[items][:, [category]].toarray()[:, 0]
    return shares


def _is_close(one: FloatArray, other: FloatArray) -> bool:
    return bool((np.abs(one - other) <= TOLERANCE).all())


def _is_same(one: Ranking, other: Ranking) -> bool:
    arrays = [
        (r.item_idx, r.scores, r.scorer_parts, r.category_parts.toarray()) for r in (one, other)
    ]
    return all(a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True))


def _last_ranks(ranking: Ranking, muted: BoolArray) -> IntArray:
    """(n,) lowest place (0-based) that ties allow each item not muted, in the catalog's order."""
    above = np.sort(ranking.scores[~muted[ranking.item_idx]])
    scores = ranking.scores[ranking.item_idx.argsort()]
    return len(above) - np.searchsorted(above, scores - 2 * TOLERANCE) - 1


if __name__ == "__main__":
    main()
