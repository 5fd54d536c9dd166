"""Why an item is not on the list, and what would change that: always by ranking again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.explain.evidence import percent
from llmrec.ranking.edits import MAX_FACTOR, Edit
from llmrec.ranking.tilt import Ranking

Rerank = Callable[[Sequence[Edit]], Ranking]
LOSSES_NAMED = 3


@dataclass(frozen=True)
class WhyNot:
    """Why an item is not among the first k, and what would bring it there.

    Attributes
    ----------
    rank
        1-based, among all items that may be ranked; None if this one may not, and ``reason`` says
        why.
    gap
        Score of the k-th item minus its own: positive off the list, 0 or less on it.
    losses
        Parts of the score in which the k-th item is ahead, largest first: a scorer's name, or
        "forecast of" a category for its part of the tilt.
    factor
        The smallest factor on all its categories, to 1 %, that brings it into the first k; None if
        no factor up to 100 does. ``rank_after`` is the rank that ranking again gave with it.
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

    @property
    def text(self) -> str:
        """One to three sentences (plain text, no markup)."""
        if self.rank is None:
            return f"{self.title} cannot be on the list: {self.reason}."
        if self.rank <= self.k:
            return f"{self.title} is on the list of {self.k}, at rank {self.rank}."
        behind = ", ".join(f"{name} (by {loss:.2g})" for name, loss in self.losses[:LOSSES_NAMED])
        where = f"{self.title} is at rank {self.rank}, {self.gap:.2g} in score below rank {self.k}"
        lost = f", behind most in: {behind}" if behind else ""
        return f"{where}{lost}. {self._remedy()}"

    def _remedy(self) -> str:
        if not self.categories:
            return "It has no category, so no change of the forecast can move it."
        named = " and ".join(self.categories)
        if self.factor is None:
            return f"No factor up to {MAX_FACTOR:g} on {named} brings it into the first {self.k}."
        return f"{self.factor:.2f} times as much {named} would bring it to rank {self.rank_after}."


@dataclass(frozen=True)
class WhatRemoves:
    """The smallest change of one category that takes an item off the first k.

    Attributes
    ----------
    rank
        1-based; None if the item may not be ranked.
    category, factor
        Times ``factor`` (below 1, to 0.01) on this category takes it off; None if no single
        category of it does. ``rank_after`` is the rank that ranking again gave.
    """

    title: str
    k: int
    rank: int | None
    category: str | None = None
    factor: float | None = None
    rank_after: int | None = None

    @property
    def text(self) -> str:
        """One sentence (plain text, no markup)."""
        if self.rank is None or self.rank > self.k:
            return f"{self.title} is not on the list of {self.k}."
        if self.category is None or self.factor is None:
            return f"No single category takes {self.title} off the list, not even when muted."
        change = f"at {percent(self.factor)} of its forecast" if self.factor else "muted"
        return f"With {self.category} {change}, {self.title} drops to rank {self.rank_after}."


def why_not(
    item_idx: int, rerank: Rerank, k: int, catalog: Catalog, history: History | None = None
) -> WhyNot:
    """Say why an item is not among the first k, by ranking again with edits of its categories.

    Parameters
    ----------
    rerank
        Ranks *all* items that may be ranked, under the given edits.
    history
        Tells an item that was left out because it was taken from one left out otherwise.
    """
    title, names = catalog.titles[item_idx], catalog.categories_of(item_idx)
    now = rerank(())
    rank = _rank(now, item_idx)
    if rank is None:
        return WhyNot(title, names, k, None, _why_left_out(item_idx, history))
    position, last = rank - 1, min(k, len(now.item_idx)) - 1
    gap = float(now.scores[last] - now.scores[position])
    if rank <= k:
        return WhyNot(title, names, k, rank, gap=gap)
    losses = _losses(now, last, position, catalog)
    factor, after = _smallest_factor(item_idx, rerank, k, names)
    return WhyNot(title, names, k, rank, "", gap, losses, factor, after)


def what_removes(item_idx: int, rerank: Rerank, k: int, catalog: Catalog) -> WhatRemoves:
    """Find the least change of one of an item's categories that takes it off the first k.

    Found by bisection and verified by ranking again; an item of several categories need not fall
    evenly, so a yet smaller change may exist there.
    """
    title, rank = catalog.titles[item_idx], _rank(rerank(()), item_idx)
    if rank is None or rank > k or catalog.n_categories == 1:
        return WhatRemoves(title, k, rank)  # a lone category keeps all of the forecast
    found = [
        (factor, after, name)
        for name in catalog.categories_of(item_idx)
        for factor, after in _largest_factor(item_idx, rerank, k, name)
    ]
    if not found:
        return WhatRemoves(title, k, rank)
    factor, after, name = max(found)
    return WhatRemoves(title, k, rank, name, factor, after)


def _rank(ranking: Ranking, item_idx: int) -> int | None:
    found = np.flatnonzero(ranking.item_idx == item_idx)
    return int(found[0]) + 1 if len(found) else None


def _why_left_out(item_idx: int, history: History | None) -> str:
    if history is None:
        return "it was taken before, or it is not among the candidates"
    if item_idx in history.item_idx:
        return "it was taken before, and items taken before are left out here"
    return "it is not among the candidates"


def _losses(
    ranking: Ranking, ahead: int, behind: int, catalog: Catalog
) -> tuple[tuple[str, float], ...]:
    names = (*ranking.scorer_names, *(f"forecast of {name}" for name in catalog.categories))
    scorers = ranking.scorer_parts[ahead] - ranking.scorer_parts[behind]
    tilts = (ranking.category_parts[[ahead]] - ranking.category_parts[[behind]]).toarray()[0]
    parts = zip(names, [*scorers.tolist(), *tilts.tolist()], strict=True)
    return tuple(sorted((part for part in parts if part[1] > 0), key=lambda part: -part[1]))


def _smallest_factor(
    item_idx: int, rerank: Rerank, k: int, names: Sequence[str]
) -> tuple[float | None, int | None]:
    """Bisect the logarithm of the factor on a grid of 0.01: the text's factor is one that ran."""

    def rank_with(factor: float) -> int | None:
        return _rank(rerank([Edit(name, factor) for name in names]), item_idx)

    low, high = 1.0, MAX_FACTOR
    after = rank_with(high) if names else None
    if after is None or after > k:
        return None, None
    while high / low > 1.01:
        middle = round(sqrt(low * high), 2)
        rank = rank_with(middle)
        if rank is not None and rank <= k:
            high, after = middle, rank
        else:
            low = middle
    return high, after


def _largest_factor(item_idx: int, rerank: Rerank, k: int, name: str) -> list[tuple[float, int]]:
    """Give the factor on one category and the rank it gives, or nothing if muting is not enough."""

    def rank_with(hundredths: int) -> int:
        rank = _rank(rerank([Edit(name, hundredths / 100)]), item_idx)
        assert rank is not None, "edits never decide which items may be ranked"
        return rank

    off, on = 0, 100
    after = rank_with(off)
    if after <= k:
        return []
    while on - off > 1:
        middle = (on + off) // 2
        rank = rank_with(middle)
        if rank > k:
            off, after = middle, rank
        else:
            on = middle
    return [(off / 100, after)]
