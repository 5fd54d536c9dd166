"""The list of an engine: scorers and trees fitted on past lists, and weighed by the newest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.errors import LlmrecError
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend, PrecomputedScorer
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.weights import BestItems, choose_weights_of
from llmrec.types import FloatArray, RepeatPolicy

TREES = "GBDTReranker"  # its name among the members
LIST_LENGTH = 10  # items by which members are judged
MIN_TREE_FOLDS = 3  # two to learn from, one to judge by
# Scorers x windows x items of one fold: half a gigabyte in single precision, and twice as much
# while weights are fitted.
MAX_FOLD_SCORES = 120_000_000
# What leaves a member out, with the reason in the report, instead of ending the fit.
MEMBER_ERRORS = (LlmrecError, ValueError, ImportError)
FitScorer = Callable[[str, Interactions, np.datetime64 | None], ItemScorer]


@dataclass(frozen=True)
class ListMember:
    """What a scorer is worth in the list, by NDCG@10 on the last period.

    Attributes
    ----------
    ndcg
        Of the member alone; None if it could not be fitted.
    weight
        Its weight in the blend; 0 if trees alone use it.
    loss_without
        What the blend loses with a weight of 0 instead, all else as it is.
    kept, reason
        Whether the engine keeps it, and why.
    """

    name: str
    ndcg: float | None
    weight: float
    loss_without: float
    kept: bool
    reason: str


@dataclass(frozen=True, eq=False)
class ListSelection:
    """The blend that was chosen, for lists from now on, and the figures by which it was.

    Attributes
    ----------
    blend
        Fitted on the whole log.
    validation_blend, windows
        The same with scorers that have not seen the windows' targets, scored for them.
    ndcg
        Its NDCG@10 on the windows.
    """

    blend: Blend
    validation_blend: Blend
    windows: Sequence[Window]
    ndcg: float
    members: tuple[ListMember, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the figures."""
        return {"ndcg": self.ndcg, "members": [asdict(member) for member in self.members]}


@dataclass(eq=False)
class _Fold:
    windows: Sequence[Window]
    scorers: Mapping[str, ItemScorer]


def select_list(
    log: Interactions,
    catalog: Catalog,
    folds: Sequence[Sequence[Window]],
    names: Sequence[str],
    fit_scorer: FitScorer,
    *,
    cutoff: np.datetime64 | None,
    repeat: RepeatPolicy,
    seed: int = 0,
    without: Sequence[str] = (),
    before_trees: Callable[[], None] = lambda: None,
) -> ListSelection:
    """Fit scorers on each fold's past and on the whole log, trees over the folds, and weights.

    The newest fold's windows decide on the weights: trees that have not seen it are judged on it,
    then fitted on all folds.

    Parameters
    ----------
    folds
        Windows of the last period, of the one before it, and so on. Trees need `MIN_TREE_FOLDS`.
    names
        Of the scorers. One that fails anywhere is left out, and the reason is kept.
    cutoff
        The scorers of lists from now on are fitted up to it; None: on the whole log.
    fit_scorer
        Gives the scorer of a name fitted on a log up to a time (None: all of it), or raises.
    without
        Members not to use; `TREES` are one.
    before_trees
        Called when all scorers are fitted and trees begin.

    Raises
    ------
    LlmrecError
        If no scorer is left; it says why each failed.
    """
    wanted = [name for name in names if name not in without]
    if not wanted:
        raise LlmrecError(f"no item scorer is left without {', '.join(without)}: leave one in")
    failed: dict[str, str] = {}
    limit = max(MIN_FIT_WINDOWS, MAX_FOLD_SCORES // (len(wanted) * catalog.n_items))
    made = []
    for windows in folds:
        before = training_log_for(windows).align_to(catalog)
        sample = sample_windows(windows, limit, seed)
        fitted = _fit_all(wanted, before, None, fit_scorer, failed)
        histories = [window.history for window in sample]
        stored = {
            name: _in_single(PrecomputedScorer.of(scorer, histories))
            for name, scorer in fitted.items()
        }
        made.append(_Fold(sample, stored))
    final = _fit_all(wanted, log, cutoff, fit_scorer, failed)
    if not final:
        raise LlmrecError("no item scorer could be fitted: " + "; ".join(failed.values()))
    if TREES not in without:
        before_trees()
    return _weigh(made, final, failed, TREES not in without, repeat, seed)


def _fit_all(
    names: Sequence[str],
    log: Interactions,
    cutoff: np.datetime64 | None,
    fit_scorer: FitScorer,
    failed: dict[str, str],
) -> dict[str, ItemScorer]:
    """Fit scorers on a log; why one fails goes into ``failed``, and it is not tried again."""
    found = {}
    for name in names:
        if name in failed:
            continue
        try:
            found[name] = fit_scorer(name, log, cutoff)
        except MEMBER_ERRORS as error:
            failed[name] = f"{name}: {error}"
    return found


def _weigh(
    folds: Sequence[_Fold],
    final: Mapping[str, ItemScorer],
    failed: Mapping[str, str],
    wants_trees: bool,
    repeat: RepeatPolicy,
    seed: int,
) -> ListSelection:
    names = list(final)  # those that failed nowhere
    newest = folds[0]
    histories = [window.history for window in newest.windows]
    parts = [newest.scorers[name] for name in names]
    past = [RankingFold([f.scorers[n] for n in names], f.windows) for f in folds[::-1]]
    trees, reason = None, f"trees need {MIN_TREE_FOLDS} past periods, and there are {len(folds)}"
    if wants_trees and len(folds) >= MIN_TREE_FOLDS:
        trees, reason = _fit_trees(past, repeat, seed)
    if trees is not None:  # those that have not seen the newest lists are judged on them
        judged, reason = _fit_trees(past[:-1], repeat, seed)
        trees = trees if judged else None
        if judged is not None:
            first = np.stack([part.scores(histories) for part in parts])
            rows = zip(_keys(parts[0]), judged.second_scores(first, histories), strict=True)
            parts = [*parts, PrecomputedScorer(judged.name, dict(rows))]
    best = BestItems.of(parts, newest.windows, repeat, LIST_LENGTH)
    weights = choose_weights_of(best)
    validation = Blend(parts, weights)
    of_trees = weights[len(names)] if len(weights) > len(names) else 0.0
    kept_trees = trees if of_trees else None
    if kept_trees is None:  # without trees a scorer of weight 0 is not used at all
        used = [name for name, weight in zip(names, weights, strict=False) if weight]
    else:
        used = names
    by_name = dict(zip(names, weights, strict=False))
    blend = Blend(
        [final[name] for name in used], [by_name[name] for name in used], kept_trees, of_trees
    )
    labels = [*names, TREES][: len(parts)]
    members = _figures(labels, best, np.array(weights), kept_trees is not None)
    missing = [ListMember(name, None, 0.0, 0.0, False, why) for name, why in failed.items()]
    if wants_trees and len(parts) == len(names):
        missing.append(ListMember(TREES, None, 0.0, 0.0, False, reason))
    ndcg = best.ndcg(np.array(weights)) if best.n else 0.0
    return ListSelection(blend, validation, newest.windows, ndcg, (*members, *missing))


def _fit_trees(
    folds: Sequence[RankingFold], repeat: RepeatPolicy, seed: int
) -> tuple[GBDTReranker | None, str]:
    """Fit trees on folds, oldest first; None and the reason if they cannot be fitted."""
    try:
        return GBDTReranker(repeat=repeat, seed=seed).fit(folds), ""
    except MEMBER_ERRORS as error:
        return None, str(error)


def _figures(
    names: Sequence[str], best: BestItems, weights: FloatArray, has_trees: bool
) -> list[ListMember]:
    whole = best.ndcg(weights) if best.n else 0.0
    members = []
    for place, (name, weight) in enumerate(zip(names, weights.tolist(), strict=True)):
        alone = np.eye(len(names))[place]
        loss = 0.0
        if best.n and weight and (weights > 0).sum() > 1:
            loss = whole - best.ndcg(weights * (1 - alone))
        kept = weight > 0 or (has_trees and name != TREES)
        reason = "in the blend" if weight else "for the trees alone" if kept else "adds nothing"
        ndcg = best.ndcg(alone) if best.n else 0.0
        members.append(ListMember(name, ndcg, weight, loss, kept, reason))
    return members


def _in_single(scorer: PrecomputedScorer) -> PrecomputedScorer:
    """Give the same in half of the memory: trees split in single precision anyway."""
    rows: Any = {key: row.astype(np.float32) for key, row in scorer.rows.items()}
    return PrecomputedScorer(scorer.name, rows)


def _keys(scorer: ItemScorer) -> list[Any]:
    assert isinstance(scorer, PrecomputedScorer)
    return list(scorer.rows)
