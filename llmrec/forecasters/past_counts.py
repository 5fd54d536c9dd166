"""What statements about the next period are compared with: counts of earlier periods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from llmrec.data.catalog import category_sums
from llmrec.data.counts import row_shares
from llmrec.data.periods import ABSENCE_PERIODS, History
from llmrec.types import BoolArray, FloatArray, IntArray

CELLS_PER_BATCH = 2**20  # most counts (period, category) in memory at a time
MIN_PERIODS_OF_A_MEAN = 20


@dataclass(frozen=True, eq=False)
class PastCounts:
    """A block of histories in numbers.

    Attributes
    ----------
    shares
        (n_histories, n_categories) share of each category in all events.
    is_recent
        (n_histories, n_categories) whether one of the newest two non-empty periods holds it.
    n_periods_with
        (n_histories, n_categories) number of periods that hold it.
    n_periods
        (n_histories,) number of non-empty periods.
    """

    shares: FloatArray
    is_recent: BoolArray
    n_periods_with: FloatArray
    n_periods: FloatArray

    @classmethod
    def of(cls, histories: Sequence[History]) -> PastCounts:
        """Count a block of histories of one catalog."""
        catalog = histories[0].catalog
        sizes = np.concatenate([np.diff(history.offsets) for history in histories])
        owner = np.repeat(np.arange(len(histories)), [one.n_periods for one in histories])
        items = np.concatenate([history.item_idx for history in histories])
        periods = np.repeat(np.arange(len(sizes)), sizes)
        counts = category_sums(catalog, periods, items, len(sizes))
        kept = counts.any(axis=1)  # an event without a category makes no period non-empty
        counts, owner = counts[kept], owner[kept]
        n_periods = np.bincount(owner, minlength=len(histories))
        newest = n_periods.cumsum()[owner] - np.arange(len(owner)) <= ABSENCE_PERIODS
        return cls(
            row_shares(_sum_by_owner(counts, owner, len(histories))),
            _sum_by_owner(counts * newest[:, None], owner, len(histories)) > 0,
            _sum_by_owner(counts > 0, owner, len(histories)),
            n_periods.astype(np.float64),
        )

    @property
    def was_taken(self) -> BoolArray:
        """(n_histories, n_categories) whether a category was ever taken."""
        return np.asarray(self.shares > 0)


def blocks_of_histories(histories: Sequence[History]) -> Iterator[slice]:
    """Yield the rows of blocks whose `PastCounts` hold `CELLS_PER_BATCH` counts at most."""
    if not histories:
        return
    longest = max(1, max(history.n_periods for history in histories))
    size = max(1, CELLS_PER_BATCH // (longest * histories[0].catalog.n_categories))
    for start in range(0, len(histories), size):
        yield slice(start, start + size)


def burstiness(histories: Sequence[History]) -> FloatArray:
    """(n_categories,) log of the mean number of a category's events in the periods that hold it.

    0 for a category that few periods hold. The likeliest reason that a category comes in numbers,
    or alone (Church and Gale 1995, of words in documents).
    """
    catalog = histories[0].catalog
    n_events, n_holding = np.zeros(catalog.n_categories), np.zeros(catalog.n_categories)
    flags = sparse.csr_array(catalog.category_shares > 0, dtype=np.float64)
    for rows in blocks_of_histories(histories):
        part = histories[rows]
        sizes = np.concatenate([np.diff(history.offsets) for history in part])
        items = np.concatenate([history.item_idx for history in part])
        starts = np.concatenate(([0], np.cumsum(sizes)))
        shape = (len(sizes), catalog.n_items)
        counts = sparse.csr_array((np.ones(len(items)), items, starts), shape) @ flags
        n_events += np.asarray(counts.sum(axis=0)).ravel()
        n_holding += np.bincount(counts.indices, minlength=catalog.n_categories)
    known = n_holding >= MIN_PERIODS_OF_A_MEAN
    return np.where(known, np.log(np.maximum(n_events, 1) / np.maximum(n_holding, 1)), 0.0)


def _sum_by_owner(values: FloatArray | BoolArray, owner: IntArray, n: int) -> FloatArray:
    """(n, n_categories) sums of (n_rows, n_categories) values over the rows of an owner."""
    shape = (n, len(owner))
    ones = np.ones(len(owner))
    which = sparse.csr_array((ones, (owner, np.arange(len(owner)))), shape)
    return np.asarray(which @ values.astype(np.float64))
