"""The list of an engine: scorers and trees fitted on past lists, and weighed by the newest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.errors import LlmrecError
from llmrec.forecast import ItemScorer
from llmrec.ranking.best_items import BestItems
from llmrec.ranking.blend import Blend
from llmrec.ranking.folds import ListFold
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.weights import choose_weights_of, more_scorers_help
from llmrec.types import FloatArray, RepeatPolicy

TREES = "GBDTReranker"  # its name among the members
LIST_LENGTH = 10  # items by which members are judged
MIN_TREE_FOLDS = 3  # two to learn from, one to judge by
OPTIONAL = ("PopularityTrend",)  # in the blend only if it helps, as texts are
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
        The same with scorers that have not seen the windows' targets, to score these.
    ndcg
        Its NDCG@10 on the windows.
    text_scorers, validation_text_scorers
        Text scorers by name, whether the blend has them or not: fitted on the whole log, and those
        that have not seen the windows' targets.
    """

    blend: Blend
    validation_blend: Blend
    windows: Sequence[Window]
    ndcg: float
    members: tuple[ListMember, ...]
    text_scorers: Mapping[str, ItemScorer] = field(default_factory=dict)
    validation_text_scorers: Mapping[str, ItemScorer] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the figures."""
        return {"ndcg": self.ndcg, "members": [asdict(member) for member in self.members]}


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
    text_names: Sequence[str] = (),
    new_item_names: Sequence[str] = (),
    before_trees: Callable[[], None] = lambda: None,
) -> ListSelection:
    """Fit scorers on each fold's past and on the whole log, trees over the folds, and weights.

    The newest fold's windows decide on weights; trees are judged there, then fitted on it, too.

    Parameters
    ----------
    folds
        Windows of the last period, of the one before it, and so on. Trees need `MIN_TREE_FOLDS`.
    names
        Of the scorers; one that fails is left out, and why is kept. Trees do not see `OPTIONAL`.
    fit_scorer, cutoff
        Gives the scorer of a name fitted on a log up to a time (None: all); the time of the list.
    without
        Members not to use; `TREES` are one.
    text_names, new_item_names
        Of scorers by title: for the blend, if they help as trends have to; of new items.
    before_trees
        Called when all scorers are fitted and trees begin.

    Raises
    ------
    LlmrecError
        If no scorer is left; it says why each failed.
    """
    wanted, text, new = (_omit(without, one) for one in (names, text_names, new_item_names))
    if not wanted:
        raise LlmrecError(f"no item scorer is left without {', '.join(without)}: leave one in")
    failed: dict[str, str] = {}
    fit = partial(_fit_all, fit_scorer=fit_scorer, failed=failed)
    everything = [*dict.fromkeys([*wanted, *text, *new])]
    with_trees = TREES not in without and len(folds) >= MIN_TREE_FOLDS
    made = [
        ListFold.fit(windows, catalog, wanted if place else everything, seed, fit, with_trees)
        for place, windows in enumerate(folds)  # texts have a part in the newest fold alone
    ]
    final = fit(everything, log, cutoff)
    names = [name for name in wanted if name in final]
    if not names:
        raise LlmrecError("no item scorer could be fitted: " + "; ".join(failed.values()))
    if TREES not in without:
        before_trees()
    first = _omit(OPTIONAL, names) or names
    trends, text = _omit(first, names), [name for name in text if name in final]
    weighing = _Weighing(made, final, first, trends, text, repeat, seed)
    return weighing.select(failed, TREES not in without)


def _omit(without: Sequence[str], names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in without]


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


@dataclass(eq=False)
class _Weighing:
    """Scorers fitted on the whole log and on each fold's past, to be weighed."""

    folds: Sequence[ListFold]
    final: Mapping[str, ItemScorer]
    names: Sequence[str]  # of the scorers that failed nowhere, but for those that have to help
    trend_names: Sequence[str]
    text_names: Sequence[str]
    repeat: RepeatPolicy
    seed: int

    def select(self, failed: Mapping[str, str], wants_trees: bool) -> ListSelection:
        newest, names = self.folds[0], self.names
        parts = {name: newest.scorers[name] for name in names}
        trees, judged, reason = self._trees(wants_trees)
        if judged is not None:
            parts[TREES] = newest.scored_by_trees(judged, names)
        groups = self.trend_names, self.text_names
        more = [{name: newest.scorers[name] for name in group} for group in groups]
        best_of = self._best_items(parts, more)
        parts = self._with_helpful(parts, more, best_of)
        best = best_of[tuple(parts)]
        weights = choose_weights_of(best)
        by_name = dict.fromkeys(names, 0.0) | dict(zip(parts, weights, strict=True))
        of_trees = by_name.pop(TREES, 0.0)
        kept_trees = trees if of_trees else None
        # Without trees a scorer of weight 0 is not used at all.
        used = [name for name in by_name if by_name[name] or (kept_trees and name in names)]
        blend = Blend(
            [self.final[name] for name in used],
            [by_name[name] for name in used],
            kept_trees,
            of_trees,
        )
        members = _figures(list(parts), best, np.array(weights), kept_trees is not None)
        missing = [ListMember(name, None, 0.0, 0.0, False, why) for name, why in failed.items()]
        if wants_trees and TREES not in parts:
            missing.append(ListMember(TREES, None, 0.0, 0.0, False, reason))
        for group in more:
            if group and not group.keys() <= parts.keys():
                alone = best_of[tuple(group)]
                missing += _figures(list(group), alone, np.zeros(len(group)), False)
        ndcg = best.ndcg(np.array(weights)) if best.n else 0.0
        by_title = [name for name in self.final if name not in (*names, *self.trend_names)]
        return ListSelection(
            blend,
            Blend([*parts.values()], weights),
            newest.windows,
            ndcg,
            (*members, *missing),
            {name: self.final[name] for name in by_title},
            {name: newest.scorers[name] for name in by_title},
        )

    def _trees(self, wants_trees: bool) -> tuple[GBDTReranker | None, GBDTReranker | None, str]:
        """Fit trees on all folds, and those to judge, which have not seen the newest."""
        n, repeat, seed = len(self.folds), self.repeat, self.seed
        reason = f"trees need {MIN_TREE_FOLDS} past periods, and there are {n}"
        if not wants_trees or n < MIN_TREE_FOLDS:
            return None, None, reason
        past = [
            RankingFold([f.scorers[n] for n in self.names], f.windows) for f in self.folds[::-1]
        ]
        trees, reason = _fit_trees(past, repeat, seed)
        if trees is None:
            return None, None, reason
        judged, reason = _fit_trees(past[:-1], repeat, seed, past[-1].scorers)
        return trees if judged else None, judged, reason

    def _best_items(
        self, parts: Mapping[str, ItemScorer], more: Sequence[Mapping[str, ItemScorer]]
    ) -> Mapping[tuple[str, ...], BestItems]:
        """Give the best items of the parts with any of the groups of more, and of each group."""
        wanted, every = [tuple(parts)], {**parts}
        for group in filter(None, more):
            wanted += [(*names, *group) for names in wanted]
            every |= group
        wanted += [tuple(group) for group in more if group]
        places = {name: place for place, name in enumerate(every)}
        groups = [[places[name] for name in names] for names in wanted]
        scorers, windows = [*every.values()], self.folds[0].windows
        found = BestItems.of_groups(scorers, groups, windows, self.repeat, LIST_LENGTH)
        return dict(zip(wanted, found, strict=True))

    def _with_helpful(
        self,
        parts: dict[str, ItemScorer],
        more: Sequence[Mapping[str, ItemScorer]],
        best_of: Mapping[tuple[str, ...], BestItems],
    ) -> dict[str, ItemScorer]:
        """Give the parts with each group of more scorers that helps."""
        for group in filter(None, more):
            every = {**parts, **group}
            if more_scorers_help(best_of[tuple(every)], len(parts), self.seed):
                parts = every
        return parts


def _fit_trees(
    folds: Sequence[RankingFold],
    repeat: RepeatPolicy,
    seed: int,
    scorers: Sequence[ItemScorer] = (),
) -> tuple[GBDTReranker | None, str]:
    """Fit trees on folds, oldest first; None and the reason if they cannot be fitted."""
    try:
        return GBDTReranker(repeat=repeat, seed=seed).fit(folds, scorers), ""
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
