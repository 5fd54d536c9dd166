"""What puts an item on the list and what takes it off: always by ranking again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from llmrec.contracts import Forecast
from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.explain.evidence import percent
from llmrec.ranking.blend import Asked, Blend, Repeat
from llmrec.ranking.edits import MAX_FACTOR, Edit
from llmrec.ranking.tilt import Ranking
from llmrec.ranking.tilt import rank as rank_items

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
    def edits(self) -> tuple[Edit, ...]:
        """What brings it into the first k; nothing where nothing does."""
        return _edits(self.categories, self.factor)

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
            return "It has no category, so the forecast of none can lift it."
        named = " and ".join(self.categories)
        if self.factor is None:
            return f"No factor up to {MAX_FACTOR:g} on {named} brings it into the first {self.k}."
        return f"{self.factor:.2f} times as much {named} would bring it to rank {self.rank_after}."


@dataclass(frozen=True)
class WhatRemoves:
    """The smallest change of an item's categories that takes it off the first k.

    Attributes
    ----------
    rank
        1-based; None if the item may not be ranked.
    categories, factor
        Times ``factor`` (below 1, to 0.01) on these categories takes it off: the one that needs
        the least change or, where no single one does, all of the item's. None if nothing does,
        and ``reason`` says why. ``rank_after`` is the rank that ranking again gave.
    """

    title: str
    k: int
    rank: int | None
    categories: tuple[str, ...] = ()
    factor: float | None = None
    rank_after: int | None = None
    reason: str = ""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What takes it off; nothing where nothing does."""
        return _edits(self.categories, self.factor)

    @property
    def text(self) -> str:
        """One sentence (plain text, no markup)."""
        if self.rank is None or self.rank > self.k:
            return f"{self.title} is not on the list of {self.k}."
        if self.factor is None:
            return f"Less of its categories does not take {self.title} off the list: {self.reason}."
        whose = "its" if len(self.categories) == 1 else "their"
        change = f"at {percent(self.factor)} of {whose} forecast" if self.factor else "muted"
        named = " and ".join(self.categories)
        return f"With {named} {change}, {self.title} drops to rank {self.rank_after}."


def ranks_again(
    history: History, forecast: Forecast, blend: Blend, *, strength: float, repeat: Repeat
) -> Rerank:
    """Rank all items of one person under edits as often as asked; they are scored once.

    The parameters are those of `rank`.
    """
    asked = [Asked.of(scorer, [history]) for scorer in blend.scorers]
    kept, n_items = Blend(asked, blend.weights), history.catalog.n_items

    def rerank(edits: Sequence[Edit]) -> Ranking:
        return rank_items(
            [forecast], [history], kept, k=n_items, strength=strength, repeat=repeat, edits=edits
        )[0]

    return rerank


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
    rank = rank_in(now, item_idx)
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
    """Find the least change of an item's categories that takes it off the first k."""
    title, names, now = catalog.titles[item_idx], catalog.categories_of(item_idx), rerank(())
    rank = rank_in(now, item_idx)
    if rank is None or rank > k:
        return WhatRemoves(title, k, rank)
    if not names or k >= len(now.item_idx):
        reason = "the list holds all there is" if names else "it has none"
        return WhatRemoves(title, k, rank, reason=reason)

    def rank_with(changed: Sequence[str], hundredths: int) -> int:
        after = rank_in(rerank(_edits(changed, hundredths / 100)), item_idx)
        assert after is not None, "edits never decide which items may be ranked"
        return after

    failed = ["muting them is not enough"]

    def removes(changed: Sequence[str], hundredths: int) -> bool:
        try:
            return rank_with(changed, hundredths) > k
        except ValueError:  # where they are muted, no other category has any of it
            failed.append("all of the forecast is theirs")
            return False

    found = _least_change(names, removes)
    if found is None:
        return WhatRemoves(title, k, rank, reason=failed[-1])
    changed, hundredths = found
    return WhatRemoves(title, k, rank, changed, hundredths / 100, rank_with(changed, hundredths))


def rank_in(ranking: Ranking, item_idx: int) -> int | None:
    """Give an item's rank (1-based), or None if it is not in the ranking."""
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
        return rank_in(rerank(_edits(names, factor)), item_idx)

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


def _least_change(
    names: tuple[str, ...], removes: Callable[[Sequence[str], int], bool]
) -> tuple[tuple[str, ...], int] | None:
    """Give the categories, one or all of them, and the most hundredths that remove the item."""
    if len(names) > 1:
        # What has more of a category falls faster than the item: a rank may rise as well as fall
        # with one of several, so all hundredths are tried.
        tried = (((name,), hundredths) for hundredths in range(99, -1, -1) for name in names)
        found = next((change for change in tried if removes(*change)), None)
        if found:
            return found
    if not removes(names, 0):
        return None
    off, on = 0, 100
    while on - off > 1:
        middle = (on + off) // 2
        off, on = (middle, on) if removes(names, middle) else (off, middle)
    return names, off


def _edits(names: Sequence[str], factor: float | None) -> tuple[Edit, ...]:
    return () if factor is None else tuple(Edit(name, factor) for name in names)
