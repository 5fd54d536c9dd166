"""Rankings of one person as if they had never taken some of their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend, rankable_items
from llmrec.ranking.contributions import (
    AdditiveScorer,
    past_items,
    removal_contributions,
)
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import rank
from llmrec.types import FloatArray, IntArray, RepeatPolicy, Shelf

_HISTORIES_PER_BATCH = 16  # whose rankings with all their parts are in memory
N_NEWEST = 12  # past items that are removed one by one where no scorer is additive


@dataclass(frozen=True, eq=False)
class RankedItems:
    """Everything that may be ranked, best first, with its scores; (n,) each."""

    item_idx: IntArray
    scores: FloatArray

    def rank_of(self, item_idx: int) -> int:
        """Give an item's rank (1-based); 0 if it is not ranked."""
        places = np.flatnonzero(self.item_idx == item_idx)
        return int(places[0]) + 1 if len(places) else 0


@dataclass(frozen=True, eq=False)
class RemovalRanker:
    """Ranks one person's items again, without the events of some past items.

    What was learned from everybody, the popularity of the items and the forecast stay as they are,
    and what was taken stays out of a list that leaves it out. Parameters are those of `rank`.
    Rankings are stored: what is asked for twice is ranked once.
    """

    history: History
    forecast: Forecast
    blend: Blend
    strength: float
    edit_strength: float
    repeat: RepeatPolicy
    edits: Sequence[Edit] = ()
    candidates: IntArray | None = None
    shelf: Shelf = "all"  # which of them are ranked
    _rankings: dict[tuple[int, ...], RankedItems] = field(
        default_factory=dict, init=False, repr=False
    )

    def rankings(self, removed: Sequence[Sequence[int]]) -> list[RankedItems]:
        """Rank everything that may be ranked without each of these sets of past items."""
        keys = [tuple(sorted(items)) for items in removed]
        missing = [key for key in dict.fromkeys(keys) if key not in self._rankings]
        for start in range(0, len(missing), _HISTORIES_PER_BATCH):
            part = missing[start : start + _HISTORIES_PER_BATCH]
            self._rankings.update(zip(part, self._rank(part), strict=True))
        return [self._rankings[key] for key in keys]

    def _rank(self, removed: Sequence[tuple[int, ...]]) -> list[RankedItems]:
        possible = np.flatnonzero(rankable_items(self.history, self.repeat))
        if self.candidates is not None:
            possible = np.intersect1d(possible, self.candidates)
        histories = [self.history.without_items(np.array(key, dtype=np.int64)) for key in removed]
        found = rank(
            [self.forecast] * len(histories),
            histories,
            self.blend,
            k=self.history.catalog.n_items,
            strength=self.strength,
            edit_strength=self.edit_strength,
            repeat=self.repeat,
            candidates=possible,
            edits=self.edits,
        )
        return [RankedItems(one.item_idx, one.scores) for one in found]

    def effects(self, items: IntArray) -> tuple[IntArray, FloatArray]:
        """Give past items, and (n_items, n_past) what each adds to the items' scores, in nats.

        It is the weighted sum over the blend's additive scorers, those that select for its trees
        included: exact for these, and a guide for the whole, which `rankings` settles. Nets and
        language models have no say in it. Without an additive scorer, the newest past items are
        removed one by one.
        """
        weights = _first_stage_weights(self.blend)
        additive = [
            (scorer, weight)
            for scorer, weight in zip(self.blend.scorers, weights, strict=True)
            if weight > 0 and isinstance(scorer, AdditiveScorer)
        ]
        past = past_items(self.history)
        total = np.zeros((len(items), len(past)))
        for scorer, weight in additive:
            total += weight * scorer.contributions(self.history, items).effects
        if total.any() or not len(past):
            return past, total
        newest = past[:N_NEWEST]
        found = removal_contributions(self.blend, self.history, items, newest)
        return newest, found.parts


def _first_stage_weights(blend: Blend) -> FloatArray:
    """(n_scorers,) weights of the scorers, with what the trees select by."""
    weights = np.array(blend.weights, dtype=np.float64)
    first = np.array(getattr(blend.trees, "first_weights", ()), dtype=np.float64)
    weights[: len(first)] += blend.trees_weight * first
    return weights
