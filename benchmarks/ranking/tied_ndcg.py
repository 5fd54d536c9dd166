"""NDCG of lists of few items, expected where scores are equal, and its spread over the items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.ranking.splits import K
from llmrec.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class TiedRanking:
    """Everybody's ranking of the same items, where those of equal score share their ranks.

    Attributes
    ----------
    order
        (n_lists, n_items) items, best first.
    first, last
        (n_lists, n_items) positions in ``order`` between which the scores are that of a position;
        ``last`` is the one behind them.
    relevant
        (n_lists, n_items) whether the item at a position of ``order`` is.
    """

    order: IntArray
    first: IntArray
    last: IntArray
    relevant: BoolArray

    @classmethod
    def of(cls, scores: FloatArray, relevant: BoolArray) -> TiedRanking:
        """Rank the items by (n_lists, n_items) scores, of which some may be -inf."""
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        differs = ranked[:, 1:] != ranked[:, :-1]
        ends = np.ones((len(scores), 1), dtype=bool)
        place = np.arange(scores.shape[1])
        starts = np.where(np.hstack((ends, differs)), place, 0)
        stops = np.where(np.hstack((differs, ends)), place + 1, scores.shape[1])
        first = np.maximum.accumulate(starts, axis=1)
        last = np.minimum.accumulate(stops[:, ::-1], axis=1)[:, ::-1]
        return cls(order, first, last, np.take_along_axis(relevant, order, axis=1))

    def ndcg(self, copies: IntArray | None = None) -> FloatArray:
        """(n_lists,) expected NDCG@10 over the orders of equal scores; NaN if nothing is relevant.

        Parameters
        ----------
        copies
            (n_items,) how often each item is in the list, its copies next to each other (default:
            once).
        """
        n_items = self.order.shape[1]
        copies = np.ones(n_items, dtype=np.int64) if copies is None else copies
        of_place = copies[self.order]
        behind = np.hstack((np.zeros((len(of_place), 1), np.int64), of_place.cumsum(axis=1)))
        start = np.take_along_axis(behind, self.first, axis=1)
        stop = np.take_along_axis(behind, self.last, axis=1)
        gains = _gains_up_to(int(copies.sum()))
        wanted = of_place * self.relevant
        found = wanted * (gains[stop] - gains[start]) / np.maximum(stop - start, 1)
        ideal = gains[wanted.sum(axis=1)]
        out = np.full(len(ideal), np.nan)
        np.divide(found.sum(axis=1), ideal, out=out, where=ideal > 0)
        return out

    def resampled(self, draws: int, seed: int = 0) -> FloatArray:
        """(draws, 2) sum of NDCG@10 and lists that have one, each time of items drawn again.

        As many items as there are, with replacement; the draws of a seed are the same ones for all
        rankings of as many items.
        """
        rng, n_items = np.random.default_rng(seed), self.order.shape[1]
        out = np.empty((draws, 2))
        for row in out:
            values = self.ndcg(np.bincount(rng.integers(n_items, size=n_items), minlength=n_items))
            row[:] = np.nansum(values), np.isfinite(values).sum()
        return out


def _gains_up_to(n: int) -> FloatArray:
    """(n + 1,) sums of 1 / log2(rank + 1) over the first ranks, of which the first ten count."""
    gains = np.zeros(n + 1)
    best = np.arange(1, min(n, K) + 1)
    gains[best] = 1 / np.log2(best + 1)
    return gains.cumsum()
