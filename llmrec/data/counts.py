"""Counting events by category, for many histories at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog, category_sums
from llmrec.data.periods import History, Window
from llmrec.data.population import Population
from llmrec.types import FloatArray, IntArray

HISTORIES_PER_BATCH = 256  # whose events fit the processor's cache


def target_counts(windows: Sequence[Window]) -> FloatArray:
    """(n_windows, n_categories) category counts of each target."""
    rows = np.repeat(np.arange(len(windows)), [window.target.n_events for window in windows])
    items = np.concatenate([window.target.item_idx for window in windows])
    return category_sums(windows[0].target.catalog, rows, items, len(windows))


def target_events(windows: Sequence[Window]) -> FloatArray:
    """(n_windows, n_categories) number of each target's events that have a category.

    An event of several categories counts 1 for each; in `target_counts` it is divided over them.
    """
    items = [window.target.item_idx for window in windows]
    starts = np.cumsum([0, *map(len, items)])
    shape = (len(windows), windows[0].history.catalog.n_items)
    taken = sparse.csr_array((np.ones(starts[-1]), np.concatenate(items), starts), shape)
    return np.asarray((taken @ _category_flags(windows[0].history.catalog)).toarray())


def events_per_share(histories: Sequence[History]) -> FloatArray:
    """(n_categories,) how many events have a category, per event and per unit of its share.

    1 where each item has one category. A share times this is that of the events with the category.
    A category is smoothed by one event, which counts alike for both.
    """
    catalog = histories[0].catalog
    items = np.concatenate([history.item_idx for history in histories])
    taken = np.bincount(items, minlength=catalog.n_items).astype(np.float64)
    counts = catalog.category_shares.T @ taken
    having = _category_flags(catalog).T @ taken
    categorized = float(taken[catalog.has_category].sum() / max(taken.sum(), 1.0))
    return np.asarray((having + 1) / (counts + 1) * (categorized if taken.any() else 1.0))


def _category_flags(catalog: Catalog) -> sparse.csr_array:
    """(n_items, n_categories) ones where an item has a category."""
    shares = catalog.category_shares
    return sparse.csr_array((np.ones(shares.nnz), shares.indices, shares.indptr), shares.shape)


def age_weighted_counts(histories: Sequence[History], age_weights: FloatArray) -> FloatArray:
    """(n_histories, n_categories) category counts, each event weighted by its period's age.

    ``age_weights[0]`` weighs the period before the cutoff; periods older than the array get its
    last value.
    """
    if not histories:
        return np.empty((0, 0))
    sums = []
    for start in range(0, len(histories), HISTORIES_PER_BATCH):
        part = histories[start : start + HISTORIES_PER_BATCH]
        row, age, items = event_ages(part)
        weights = age_weights[np.minimum(age, len(age_weights) - 1)]
        sums.append(category_sums(part[0].catalog, row, items, len(part), weights))
    return np.concatenate(sums)


def period_counts(histories: Sequence[History], n: int) -> FloatArray:
    """(n_histories, n, n_categories) category counts of the last n periods, newest last.

    A history of fewer periods has zeros first; what is older than n periods is left out.
    """
    catalog = histories[0].catalog
    row, age, items = event_ages(histories)
    recent = age < n
    cells = row[recent] * n + (n - 1 - age[recent])
    sums = category_sums(catalog, cells, items[recent], len(histories) * n)
    return sums.reshape(len(histories), n, catalog.n_categories)


def population_counts(histories: Sequence[History], n: int) -> tuple[FloatArray, IntArray]:
    """Count everybody's events by category in the last n periods of each history.

    Returns
    -------
    counts, which
        (n_spans, n_categories) counts of the distinct spans of time, and (n_histories, n) the span
        of each period, newest last. Periods before a history's first have an empty span.
    """
    # People of one cutoff share their periods.
    rows: dict[bytes, int] = {}
    row = [rows.setdefault(history.bounds[-n - 1 :].tobytes(), len(rows)) for history in histories]
    spans = np.zeros((len(rows), n, 2), dtype="datetime64[ms]")
    for position, found in enumerate(rows):
        bounds = np.frombuffer(found, dtype="datetime64[ms]")
        spans[position, n + 1 - len(bounds) :] = np.stack((bounds[:-1], bounds[1:]), axis=1)
    distinct, which = np.unique(spans.reshape(-1, 2), axis=0, return_inverse=True)
    counts = histories[0].population.category_counts(
        histories[0].catalog, distinct[:, 0], distinct[:, 1]
    )
    return counts, which.reshape(len(rows), n)[row]


def event_ages(histories: Sequence[History]) -> tuple[IntArray, IntArray, IntArray]:
    """(n_events,) each event's row in the batch, age of its period (0: the newest), and item."""
    offsets = np.concatenate([history.offsets for history in histories])
    n_bounds = np.array([len(history.offsets) for history in histories])
    last = n_bounds.cumsum()
    sizes = np.delete(np.diff(offsets), last[:-1] - 1)  # events of each period
    row = np.repeat(np.arange(len(histories)), n_bounds - 1)
    age = np.repeat((n_bounds - 1).cumsum(), n_bounds - 1) - 1 - np.arange(len(sizes))
    items = np.concatenate([history.item_idx for history in histories])
    return np.repeat(row, sizes), np.repeat(age, sizes), items


def shared_population(histories: Sequence[History]) -> Population:
    """Give the population that all histories share; ValueError if there are several."""
    population = histories[0].population
    if any(history.population is not population for history in histories):
        raise ValueError(
            "the histories come from different logs: align the log once "
            "(log = log.align_to(catalog)) and make all histories from it."
        )
    return population


def batches_by_log(histories: Sequence[History], size: int) -> Iterator[list[int]]:
    """Give the positions of at most ``size`` histories at a time, all of one population."""
    by_log: dict[int, list[int]] = {}
    for position, history in enumerate(histories):
        by_log.setdefault(id(history.population), []).append(position)
    for positions in by_log.values():
        yield from (positions[start : start + size] for start in range(0, len(positions), size))


def normalize_rows(counts: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum."""
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def row_shares(counts: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum; rows of 0 stay 0."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(totals > 0, totals, 1.0))
