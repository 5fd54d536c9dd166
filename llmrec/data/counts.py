"""Counting events by category and by item, for many histories or spans of time at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse

from llmrec.contracts import FloatArray, IntArray
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.timestamps import TimeArray

if TYPE_CHECKING:
    from llmrec.data.histories import History

_TIMELINES: WeakKeyDictionary[Interactions, tuple[TimeArray, IntArray]] = WeakKeyDictionary()


def category_sums(
    catalog: Catalog,
    rows: IntArray,
    items: IntArray,
    n_rows: int,
    weights: FloatArray | None = None,
) -> FloatArray:
    """(n_rows, n_categories) sums of the category shares of (n_events,) items, row by row."""
    values = np.ones(len(items)) if weights is None else weights
    taken = sparse.csr_array((values, (rows, items)), shape=(n_rows, catalog.n_items))
    return np.asarray((taken @ catalog.shares).toarray(), dtype=np.float64)


def weighted_counts(histories: Sequence[History], age_weights: FloatArray) -> FloatArray:
    """(n_histories, n_categories) category counts, each event weighted by its period's age.

    ``age_weights[0]`` weighs the period before the cutoff; periods older than the array get its
    last value. One sparse product for all histories.
    """
    if not histories:
        return np.empty((0, 0))
    ages = [np.arange(history.n_periods)[::-1] for history in histories]
    sizes = [np.diff(history.offsets) for history in histories]
    age = np.repeat(np.concatenate(ages), np.concatenate(sizes))
    items = np.concatenate([history.item_idx for history in histories])
    rows = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    weights = age_weights[np.minimum(age, len(age_weights) - 1)]
    return category_sums(histories[0].catalog, rows, items, len(histories), weights)


def item_counts_between(log: Interactions, starts: TimeArray, ends: TimeArray) -> FloatArray:
    """(n_spans, n_items) events of all users with start <= time < end, by item.

    Spans may repeat; one that ends before it starts is empty. The log is sorted by time once, and
    that is kept as long as the log is.
    """
    spans = _Spans.of(log, starts, ends)
    n_items, n_edges = len(log.item_ids), spans.n_edges
    flat = np.bincount(spans.edge * n_items + spans.items, minlength=n_edges * n_items)
    return spans.differences(flat.reshape(n_edges, n_items).astype(np.float64))


def category_counts_between(
    log: Interactions, catalog: Catalog, starts: TimeArray, ends: TimeArray
) -> FloatArray:
    """(n_spans, n_categories) the same by category: no array is as wide as the catalog."""
    spans = _Spans.of(log, starts, ends)
    return spans.differences(category_sums(catalog, spans.edge, spans.items, spans.n_edges))


@dataclass(frozen=True, eq=False)
class _Spans:
    """Events between the first and the last edge of some spans, each with the edge after it."""

    first: IntArray  # (n_spans,) edge where a span starts
    last: IntArray  # (n_spans,) edge where it ends
    edge: IntArray  # (n_events,) next edge after an event
    items: IntArray  # (n_events,)
    n_edges: int

    @classmethod
    def of(cls, log: Interactions, starts: TimeArray, ends: TimeArray) -> _Spans:
        if log not in _TIMELINES:
            order = np.argsort(log.timestamp, kind="stable")
            _TIMELINES[log] = (log.timestamp[order], log.item_idx[order])
        times, items = _TIMELINES[log]
        edges, inverse = np.unique(np.stack((starts, ends)), return_inverse=True)
        first, last = inverse.reshape(2, -1)
        positions = np.searchsorted(times, edges, side="left")
        edge = np.repeat(np.arange(1, len(edges)), np.diff(positions))
        return cls(first, last, edge, items[positions[0] : positions[-1]], len(edges))

    def differences(self, counts: FloatArray) -> FloatArray:
        """(n_spans, n) counts inside each span, from the (n_edges, n) counts up to each edge."""
        before = counts.cumsum(axis=0)
        # A sum of shares may come out as -1e-16.
        inside: FloatArray = before[np.maximum(self.first, self.last)] - before[self.first]
        return np.maximum(inside, 0.0)
