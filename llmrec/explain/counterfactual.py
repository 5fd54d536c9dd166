"""What puts an item on the list and what takes it off: always by ranking again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from llmrec.contracts import Forecast
from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.errors import EditError
from llmrec.explain.evidence import percent
from llmrec.ranking.blend import Asked, Blend, Repeat
from llmrec.ranking.edits import MAX_FACTOR, Edit, apply_edits
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
        1-based, among all items that may be listed; None if this one may not, and ``reason`` says
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
    """The smallest change of one of an item's categories that takes it off the first k.

    Attributes
    ----------
    rank
        1-based; None if the item may not be listed.
    categories, factor
        The category that needs the least change, alone: times ``factor`` (below 1, to 0.01; 0 mutes
        it, and what is muted is not listed, whatever its rank). None if nothing takes it off, and
        ``reason`` says why. ``rank_after`` is the rank that ranking again gave.
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
        (name,) = self.categories
        if self.factor == 0:
            return f"With {name} muted, {self.title} is not listed."
        less = f"With {name} at {percent(self.factor)} of its forecast"
        return f"{less}, {self.title} drops to rank {self.rank_after}."


def ranks_again(
    history: History,
    forecast: Forecast,
    blend: Blend,
    *,
    strength: float,
    repeat: Repeat,
    edits: Sequence[Edit] = (),
) -> Rerank:
    """Rank all items of one person under edits as often as asked; they are scored once.

    The parameters are those of `rank`. What is then asked for comes on top of ``edits``: it changes
    the forecast that they left, and what they mute stays muted.
    """
    asked = [Asked.of(scorer, [history]) for scorer in blend.scorers]
    kept, n_items = Blend(asked, blend.weights), history.catalog.n_items
    edited = apply_edits(forecast, edits, history.catalog, history.cutoff)
    mutes = [edit for edit in edits if edit.factor == 0]

    def rerank(more: Sequence[Edit]) -> Ranking:
        changed = [*mutes, *more]
        return rank_items(
            [edited], [history], kept, k=n_items, strength=strength, repeat=repeat, edits=changed
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
    rank = rank_listed(now, item_idx)
    if rank is None:
        return WhyNot(title, names, k, None, _why_left_out(item_idx, now, history))
    position, last = rank - 1, min(k, int((~now.muted).sum())) - 1
    gap = float(now.scores[last] - now.scores[position])
    if rank <= k:
        return WhyNot(title, names, k, rank, gap=gap)
    losses = _losses(now, last, position, catalog)
    factor, after = _smallest_factor(item_idx, rerank, k, names)
    return WhyNot(title, names, k, rank, "", gap, losses, factor, after)


def what_removes(item_idx: int, rerank: Rerank, k: int, catalog: Catalog) -> WhatRemoves:
    """Find the least change of a category of an item that takes it off the first k."""
    title, names = catalog.titles[item_idx], catalog.categories_of(item_idx)
    rank = rank_listed(rerank(()), item_idx)
    if rank is None or rank > k:
        return WhatRemoves(title, k, rank)
    if not names:
        return WhatRemoves(title, k, rank, reason="it has none")

    def removes(name: str, hundredths: int) -> bool:
        try:
            after = rank_listed(rerank(_edits((name,), hundredths / 100)), item_idx)
        except EditError:  # no other category has any of the forecast, so it cannot be muted
            return False
        return after is None or after > k

    found = _least_change(names, removes)
    if found is None:
        return WhatRemoves(title, k, rank, reason="all of the forecast is theirs")
    name, hundredths = found
    after = rank_in(rerank(_edits((name,), hundredths / 100)), item_idx)
    return WhatRemoves(title, k, rank, (name,), hundredths / 100, after)


def rank_listed(ranking: Ranking, item_idx: int) -> int | None:
    """Give an item's rank (1-based), or None if no list can show it: left out, or muted."""
    rank = rank_in(ranking, item_idx)
    return None if rank is None or ranking.muted[rank - 1] else rank


def rank_in(ranking: Ranking, item_idx: int) -> int | None:
    """Give an item's rank (1-based), or None if it is not in the ranking."""
    found = np.flatnonzero(ranking.item_idx == item_idx)
    return int(found[0]) + 1 if len(found) else None


def _why_left_out(item_idx: int, now: Ranking, history: History | None) -> str:
    if rank_in(now, item_idx) is not None:
        return "a category of it is muted"
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
    names: tuple[str, ...], removes: Callable[[str, int], bool]
) -> tuple[str, int] | None:
    """Give the category, and the most hundredths of it, that remove the item."""
    if len(names) > 1:
        # What has more of a category falls faster than the item: a rank may rise as well as fall
        # with one of several, so all hundredths are tried.
        tried = ((name, hundredths) for hundredths in range(99, -1, -1) for name in names)
        return next((change for change in tried if removes(*change)), None)
    (name,) = names
    if not removes(name, 0):
        return None
    off, on = 0, 100
    while on - off > 1:
        middle = (on + off) // 2
        off, on = (middle, on) if removes(name, middle) else (off, middle)
    return name, off


def _edits(names: Sequence[str], factor: float | None) -> tuple[Edit, ...]:
    return () if factor is None else tuple(Edit(name, factor) for name in names)
