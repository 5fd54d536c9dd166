"""Item-to-item scorers: a matrix of item similarities applied to a recency-weighted history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.forecasters.collaborative import solve_ease
from llmrec.ranking.scorers import item_counts, require_positive
from llmrec.types import FloatArray

# Of a dense matrix: 1.6 GB in float32. Its fit holds 25 bytes an entry and takes 9 s of one thread
# at 6,000 items (measured); memory grows with their square, time with their cube: 10 GB and five
# minutes here.
MAX_DENSE_ITEMS = 20_000
_PAIRS_PER_BATCH = 1_000_000  # of a person's items: bounds the similarities held in memory
Matrix = Any  # a dense array, or a sparse one of scipy's


class ItemSimilarity(Protocol):
    """A way to learn how strongly one item predicts another."""

    @property
    def name(self) -> str:
        """Its name in explanations."""
        ...

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items), from the item taken (row) to the item scored (column)."""
        ...


@dataclass(frozen=True)
class Ease:
    """EASE, the shallow autoencoder of Steck (2019, arXiv 1905.03375), equation 8.

    B = I - P / diag(P) with P the inverse of X'X + regularization * I: the linear map of a person's
    items to themselves that may not use an item for itself.

    Parameters
    ----------
    regularization
        > 0; the larger, the more frequent pairs dominate.
    counts
        X holds 1 for what was taken ("binary"), or log(1 + how often) ("log").
    """

    regularization: float = 300.0
    counts: Literal["binary", "log"] = "binary"
    name: ClassVar[str] = "goes with what was taken"

    def __post_init__(self) -> None:
        require_positive(regularization=self.regularization)

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items) float32, dense; ValueError if the catalog is too large for that."""
        n_items = histories[0].catalog.n_items
        if n_items > MAX_DENSE_ITEMS:
            raise ValueError(
                f"Ease inverts a matrix of {n_items} x {n_items} items; it can take at most "
                f"{MAX_DENSE_ITEMS}: use Cosine or SequentialRules, which store few pairs an item."
            )
        taken = scale_counts(item_counts(histories), self.counts)
        gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
        return np.asarray(solve_ease(gram, self.regularization), dtype=np.float32)


@dataclass(frozen=True)
class Cosine:
    """Cosine similarity of the people who took two items (Sarwar et al. 2001).

    Parameters
    ----------
    neighbours
        Nearest items that each item is scored by.
    counts
        As for `Ease`.
    """

    neighbours: int = 50
    counts: Literal["binary", "log"] = "binary"
    name: ClassVar[str] = "taken by those who took what was taken"

    def __post_init__(self) -> None:
        require_positive(neighbours=self.neighbours)

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items) sparse, ``neighbours`` in each column at most."""
        taken = scale_counts(item_counts(histories), self.counts)
        norms = np.sqrt(np.asarray(taken.multiply(taken).sum(axis=0)).ravel())
        scale = sparse.diags_array(1 / np.maximum(norms, 1e-12))
        nearest = self._nearest_items(sparse.csr_array(taken @ scale))
        return sparse.csr_array(sparse.vstack(list(nearest)).T)

    def _nearest_items(self, unit: sparse.csr_array) -> Iterator[sparse.csr_array]:
        """Give the nearest items of each as rows, batch by batch: all pairs would not fit."""
        across = sparse.csr_array(unit.T)
        for start, stop in _batches_of_pairs(unit):
            similarity = across[start:stop] @ unit
            similarity.setdiag(0.0, k=start)
            similarity.eliminate_zeros()
            yield _largest_entries(similarity, self.neighbours)


@dataclass(frozen=True)
class SequentialRules:
    """Counts of ordered pairs of items taken one soon after the other, like a long Markov chain.

    N[i, j] = sum over events of j at most ``window`` positions after one of i of
    fade^(positions - 1), over (1 + number of events of i) ^ power.

    Parameters
    ----------
    window, fade
        Positions that a pair may be apart, and the factor of each position more, in (0, 1].
    power
        0 weighs items by their frequency, 1 weighs all items alike.
    """

    window: int = 10
    fade: float = 0.9
    power: float = 0.8
    name: ClassVar[str] = "taken after what was taken"

    def __post_init__(self) -> None:
        require_positive(window=self.window, fade=self.fade)
        if self.fade > 1 or self.power < 0:
            raise ValueError(f"fade must lie in (0, 1] and power be >= 0: {self}")

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items) sparse."""
        n_items = histories[0].catalog.n_items
        items = np.concatenate([history.item_idx for history in histories]).astype(np.int32)
        users = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
        found = sparse.csr_array((n_items, n_items))
        for gap in range(1, self.window + 1):
            same = users[:-gap] == users[gap:]
            pairs = (items[:-gap][same], items[gap:][same])
            values = np.full(len(pairs[0]), self.fade ** (gap - 1))
            found = found + sparse.csr_array((values, pairs), shape=found.shape)
        taken = 1.0 + np.bincount(items, minlength=n_items)
        found.data *= np.repeat(taken**-self.power, np.diff(found.indptr))
        return found


@dataclass
class ItemToItem:
    """Scores items by their similarity to a person's items, of which the newer ones count more.

    p_i = (1 - floor) * s_i / sum(s) + floor * share of all events, with s = max(0, w B), w the
    recency-weighted history and B the matrix of ``similarity``.

    Parameters
    ----------
    similarity
        How B is learned: `Ease`, `Cosine` or `SequentialRules`.
    half_life, per
        Events, or days, after which an item counts half; infinite: never.
    counts
        w holds for each item the weight of its newest event ("binary"), the sum over its events
        ("count"), or log(1 + that sum) ("log").
    floor
        In (0, 1): weight of popularity, so that no item is impossible.
    """

    similarity: ItemSimilarity = field(default_factory=Ease)
    half_life: float = np.inf
    per: Literal["events", "days"] = "events"
    counts: Literal["binary", "count", "log"] = "binary"
    floor: float = 1e-3
    _matrix: Matrix | None = field(default=None, init=False, repr=False)
    _popularity: FloatArray | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(floor=self.floor)
        if not self.half_life > 0 or self.floor >= 1:
            raise ValueError(f"half_life must be > 0 and floor < 1: {self}")

    @property
    def name(self) -> str:
        """Its name in explanations; it differs by half-life, as one blend may have both."""
        return (
            self.similarity.name if np.isinf(self.half_life) else f"{self.similarity.name} lately"
        )

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> ItemToItem:
        """Fit the similarities on all users' events before the cutoff (default: all events).

        Raises
        ------
        ValueError
            If no event lies before the cutoff, or the catalog is too large.
        """
        self._fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        self._matrix = self.similarity.matrix(histories)
        taken = 1.0 + np.asarray(item_counts(histories).sum(axis=0)).ravel()
        self._popularity = taken / taken.sum()
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or on events that are not in a history.
        """
        require_fitted(self._fitted, self.name, histories)
        assert self._popularity is not None
        if not histories:
            return np.empty((0, 0))
        weights = recency_weighted(histories, self.half_life, self.per, self.counts)
        product = sparse.csr_array(weights) @ self._matrix
        dense = product.toarray() if sparse.issparse(product) else product
        found = np.maximum(np.asarray(dense, dtype=np.float64), 0.0)
        totals = found.sum(axis=1, keepdims=True)
        floor = np.where(totals > 0, self.floor, 1.0)
        found /= np.where(totals > 0, totals, 1.0)
        found *= 1 - floor
        found += floor * self._popularity
        return np.asarray(np.log(found, out=found), dtype=np.float64)


def recency_weighted(
    histories: Sequence[History],
    half_life: float,
    per: Literal["events", "days"],
    counts: Literal["binary", "count", "log"] = "count",
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


def _batches_of_pairs(taken: sparse.csr_array) -> Iterator[tuple[int, int]]:
    """Give spans of items with `_PAIRS_PER_BATCH` pairs each, or one item's more."""
    sizes = np.diff(taken.indptr)  # items of each person
    pairs = np.bincount(taken.indices, np.repeat(sizes, sizes), minlength=taken.shape[1])
    batch = pairs.cumsum() // _PAIRS_PER_BATCH
    edges = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(batch)]
    yield from pairwise(edges)


def _largest_entries(similarity: sparse.csr_array, n: int) -> sparse.csr_array:
    """Select the n largest entries of each row; of equal ones those of smaller index."""
    sizes = np.diff(similarity.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((similarity.indices, -similarity.data, rows))
    position = np.arange(len(order)) - np.repeat(similarity.indptr[:-1], sizes)
    selected = order[position < n]
    offsets = np.append(0, np.minimum(sizes, n).cumsum()).astype(similarity.indptr.dtype)
    entries = (similarity.data[selected], similarity.indices[selected], offsets)
    found = sparse.csr_array(entries, shape=similarity.shape)
    found.sort_indices()
    return found
