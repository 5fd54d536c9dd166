"""A person's history as one row of a matrix of items, and log-probabilities from item scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse

from llmrec.data.periods import History
from llmrec.ranking.scorers import item_counts
from llmrec.types import FloatArray

Counts = Literal["binary", "count", "log"]


def recency_weighted(
    histories: Sequence[History],
    half_life: float,
    per: Literal["events", "days"],
    counts: Counts = "count",
) -> sparse.csr_matrix:
    """(n_users, n_items) events weighted by 2^(-age / half_life), their age in events or days."""
    ages = [
        history.days_ago if per == "days" else np.arange(history.n_events - 1, -1, -1.0)
        for history in histories
    ]
    weights = np.exp2(-np.concatenate([np.empty(0), *ages]) / half_life)
    if counts == "binary":
        return _newest_weights(histories, weights)
    return scale_counts(item_counts(histories, weights), counts)


def sum_of_rows(weights: sparse.csr_matrix, matrix: Any) -> Any:
    """(n_users, n_columns) weights times a matrix, in double precision; sparse if that is.

    Of the rows that nobody has a weight for no copy is made.
    """
    taken = np.unique(weights.indices)
    return sparse.csr_array(weights)[:, taken] @ matrix[taken]


def scale_counts(taken: sparse.csr_matrix, counts: str) -> sparse.csr_matrix:
    """Scale counts: "binary" to 1, "count" not at all, "log" to log(1 + count)."""
    found = taken.copy()
    if counts == "binary":
        found.data = np.ones_like(found.data)
    elif counts == "log":
        found.data = np.log1p(found.data)
    return found


def _newest_weights(histories: Sequence[History], weights: FloatArray) -> sparse.csr_matrix:
    """(n_users, n_items) the weight of a person's newest event of each item."""
    found = item_counts(histories).astype(np.float64)
    found.sort_indices()
    users = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    items = np.concatenate([np.empty(0, np.int64), *(history.item_idx for history in histories)])
    order = np.lexsort((-weights, items, users))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    found.data = weights[order][first]
    return found


def log_shares(
    found: FloatArray | sparse.csr_array, floor: float, popularity: FloatArray
) -> FloatArray:
    """(n_users, n_items) log of (1 - floor) * share + floor * popularity, in the given array.

    The share is that of an item's score among all positive scores of the person. Somebody without
    a positive score gets the popularity alone. Of sparse scores it is the same, to the bit.
    """
    if sparse.issparse(found):
        return _sparse_log_shares(found, floor, popularity)
    np.maximum(found, 0.0, out=found)
    totals = found.sum(axis=1, keepdims=True)
    floors = np.where(totals > 0, floor, 1.0)
    found /= np.where(totals > 0, totals, 1.0)
    found *= 1 - floors
    found += floors * popularity
    return np.asarray(np.log(found, out=found), dtype=np.float64)


def _sparse_log_shares(
    scores: sparse.csr_array, floor: float, popularity: FloatArray
) -> FloatArray:
    """(n_users, n_items) `log_shares` of sparse scores, with few logarithms.

    Where a person has no score there is the floor alone, whose logarithms are the same for all.
    """
    np.maximum(scores.data, 0.0, out=scores.data)
    found = scores.toarray()
    totals = found.sum(axis=1)  # in dense order: another one would round differently
    found[totals == 0] = np.log(popularity)
    floors = floor * popularity
    of_floors = np.log(floors)
    for place in np.flatnonzero(totals != 0):  # what is not finite stays so, to be refused
        own = slice(*scores.indptr[place : place + 2])
        items = scores.indices[own]
        values = scores.data[own] / totals[place]
        values *= 1 - floor
        values += floors[items]
        found[place] = of_floors
        found[place, items] = np.log(values, out=values)
    return np.asarray(found, dtype=np.float64)


def require_counts(counts: str, *known: str) -> None:
    """Raise ValueError for a way to count that is not among the known ones."""
    if counts not in known:
        raise ValueError(f"counts must be {' or '.join(map(repr, known))}, not {counts!r}")
