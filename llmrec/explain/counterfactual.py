"""Counterfactuals: the edits that put an item on a list, or take it off, by ranking again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.explain.factor_search import FactorSearch
from llmrec.explain.facts import format_percent
from llmrec.ranking.edits import MAX_FACTOR, Edit, active_edits
from llmrec.ranking.ranking import Ranking, Reranker, listed_rank, rank_of, validate_k

MAX_LOSSES_NAMED = 3


@dataclass(frozen=True)
class WhyNot:
    """Why an item is not among the first k, and the edits that would bring it there.

    Attributes
    ----------
    rank
        1-based, among all items that may be listed; None if it may not be listed, and ``reason``
        says why.
    gap
        Score of the k-th item minus its own: positive off the list, 0 or less on it.
    losses
        Parts of the score in which the k-th item is ahead, largest first: a scorer's name, or
        "forecast of" a category, or "edited forecast of" it, for its part of the tilt.
    factor
        The smallest factor on all its categories, to 1 %, that brings it into the first k, on top
        of the given edits; None if no factor up to ``most`` does. ``rank_after`` is its rank when
        ranked again with the factor.
    most
        The largest factor that can be applied: 100, or less where edits allow no more.
    edits
        All edits that bring it into the first k: the given ones, with the factor on top. () where
        nothing does, or it is on the list.
    """

    title: str
    categories: tuple[str, ...]
    k: int
    rank: int | None
    reason: str = ""
    gap: float = 0.0
    losses: tuple[tuple[str, float], ...] = ()
    factor: float | None = None
    rank_after: int | None = None
    most: float = MAX_FACTOR
    edits: tuple[Edit, ...] = ()

    @property
    def text(self) -> str:
        """One to three sentences (plain text, no markup)."""
        if self.rank is None:
            return f"{self.title} cannot be on the list: {self.reason}."
        if self.rank <= self.k:
            return f"{self.title} is on the list of {self.k}, at rank {self.rank}."
        behind = ", ".join(
            f"{name} (by {loss:.2g})" for name, loss in self.losses[:MAX_LOSSES_NAMED]
        )
        place = f"{self.title} is at rank {self.rank}, {self.gap:.2g} in score below rank {self.k}"
        losses = f", behind most in: {behind}" if behind else ""
        return f"{place}{losses}. {self._remedy()}"

    def _remedy(self) -> str:
        if not self.categories:
            return "It has no category, so the forecast of none can lift it."
        names = " and ".join(self.categories)
        if self.factor is None and self.most <= 1:
            return f"The edits leave no room for more of {names}."
        if self.factor is None:
            limit = ", all that the edits leave room for," * (self.most < MAX_FACTOR)
            factors = f"No factor up to {self.most:g} on {names}{limit}"
            return f"{factors} brings it into the first {self.k}."
        return f"{self.factor:.2f} times as much {names} would bring it to rank {self.rank_after}."


@dataclass(frozen=True)
class RemovalCounterfactual:
    """The smallest change of one of an item's categories that takes it off the first k.

    Attributes
    ----------
    rank
        1-based; None if the item may not be listed.
    categories, factor
        The category that needs the least change, alone: times ``factor`` (below 1, to 0.01; 0 mutes
        it, and a muted item is not listed, whatever its rank), on top of the given edits. None if
        nothing takes it off, and ``reason`` says why. ``rank_after`` is its rank when ranked again.
    edits
        All edits that take it off: the given ones, with the factor on top. () where nothing does,
        or it is not on the list.
    """

    title: str
    k: int
    rank: int | None
    categories: tuple[str, ...] = ()
    factor: float | None = None
    rank_after: int | None = None
    reason: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def text(self) -> str:
        """One sentence (plain text, no markup)."""
        if self.rank is None or self.rank > self.k:
            return f"{self.title} is not on the list of {self.k}."
        if self.factor is None:
            return f"Less of its categories does not take {self.title} off the list: {self.reason}."
        (name,) = self.categories
        if self.factor == 0:
            return f"With {name} muted, {self.title} is not listed."
        is_edited = self.edits != (Edit(name, self.factor),)
        less = (
            f"With {name} at {format_percent(self.factor)} of its {'edited ' * is_edited}forecast"
        )
        return f"{less}, {self.title} drops to rank {self.rank_after}."


def why_not(
    item_idx: int,
    rerank: Reranker,
    k: int,
    catalog: Catalog,
    history: History | None = None,
    edits: Sequence[Edit] = (),
) -> WhyNot:
    """Explain why an item is not among the first k, by ranking again with edits of its categories.

    Parameters
    ----------
    rerank
        Ranks the items that may be ranked, under edits.
    k
        Length of the list, >= 1.
    history
        Decides whether an item is left out because it was taken, and which edits have ended before
        its cutoff (None: none has).
    edits
        Those of the ranking; the factor comes on top of them.

    Raises
    ------
    ValueError
        If k < 1, or the edits cannot be applied.
    """
    validate_k(k)
    title, names = catalog.titles[item_idx], catalog.categories_of(item_idx)
    now = rerank(edits)
    rank = listed_rank(now, item_idx)
    if rank is None:
        return WhyNot(title, names, k, None, _explain_exclusion(item_idx, now, history))
    position, last = rank - 1, min(k, int((~now.muted).sum())) - 1
    gap = float(now.scores[last] - now.scores[position])
    if rank <= k:
        return WhyNot(title, names, k, rank, gap=gap)
    at = history.cutoff if history else None
    label = "edited forecast" if active_edits(edits, catalog, at) else "forecast"
    losses = _losses(now, last, position, catalog, label)
    found = WhyNot(title, names, k, rank, "", gap, losses)
    if not names:
        return found
    return _with_factor(found, FactorSearch(item_idx, k, rerank, now, catalog, edits, at))


def find_removal(
    item_idx: int,
    rerank: Reranker,
    k: int,
    catalog: Catalog,
    history: History | None = None,
    edits: Sequence[Edit] = (),
) -> RemovalCounterfactual:
    """Find the smallest change of one of an item's categories that takes it off the first k.

    Parameters and errors are those of `why_not`.
    """
    validate_k(k)
    title, names = catalog.titles[item_idx], catalog.categories_of(item_idx)
    now = rerank(edits)
    rank = listed_rank(now, item_idx)
    if rank is None or rank > k:
        return RemovalCounterfactual(title, k, rank)
    if not names:
        return RemovalCounterfactual(title, k, rank, reason="it has none")
    at = history.cutoff if history else None
    search = FactorSearch(item_idx, k, rerank, now, catalog, edits, at)
    found = search.smallest_change(names)
    if found is None:
        locked = any(edit.lock for edit in edits)
        reason = (
            "the others are locked, or have none" if locked else "all of the forecast is theirs"
        )
        return RemovalCounterfactual(title, k, rank, reason=reason)
    name, factor = found
    composed = search.compose((name,), factor)
    after = rank_of(rerank(composed), item_idx)
    return RemovalCounterfactual(title, k, rank, (name,), factor, after, edits=composed)


def _with_factor(why: WhyNot, search: FactorSearch) -> WhyNot:
    """Add the smallest factor on the item's categories that lists it, if there is one."""
    most = search.largest_factor(why.categories)
    factor = search.smallest_factor(why.categories, most)
    if factor is None:
        return replace(why, most=most)
    composed = search.compose(why.categories, factor)
    after = rank_of(search.rerank(composed), search.item_idx)
    return replace(why, factor=factor, rank_after=after, most=most, edits=composed)


def _explain_exclusion(item_idx: int, now: Ranking, history: History | None) -> str:
    if rank_of(now, item_idx) is not None:
        return "a category of it is muted"
    if history is None:
        return "it was taken before, or it is not among the candidates"
    verb, missing = history.verb, history.catalog.has_category.copy()
    missing[now.item_idx] = False
    # Were others left out as well, the list would be of candidates, whatever the person took.
    if item_idx in history.item_idx and np.isin(np.flatnonzero(missing), history.item_idx).all():
        return f"it was {verb} before, and items {verb} before are left out here"
    if not history.catalog.has_category[item_idx]:
        return "it has no category, so no log tells who took it, or it is not among the candidates"
    return "it is not among the candidates"


def _losses(
    ranking: Ranking, ahead: int, behind: int, catalog: Catalog, label: str
) -> tuple[tuple[str, float], ...]:
    """Give the parts of the score in which one position is ahead of another, largest first."""
    names = (*ranking.scorer_names, *(f"{label} of {name}" for name in catalog.categories))
    scorers = ranking.scorer_parts[ahead] - ranking.scorer_parts[behind]
    tilts = (ranking.category_parts[[ahead]] - ranking.category_parts[[behind]]).toarray()[0]
    parts = zip(names, [*scorers.tolist(), *tilts.tolist()], strict=True)
    return tuple(sorted((part for part in parts if part[1] > 0), key=lambda part: -part[1]))
