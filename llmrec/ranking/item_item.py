"""What goes with what a person took: a matrix over pairs of items, applied to a fading history."""

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
_PAIRS_AT_ONCE = 1_000_000  # of a person's items: bounds the likeness that is held at once
Matrix = Any  # a dense array, or a sparse one of scipy's


class ItemSimilarity(Protocol):
    """A way of learning how much an item speaks for another one."""

    @property
    def name(self) -> str:
        """What explanations call it."""
        ...

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items), from the item taken (row) to the item scored (column)."""
        ...


@dataclass(frozen=True)
class Ease:
    """Embarrassingly shallow autoencoder (Steck 2019, arXiv 1905.03375, equation 8).

    B = I - P / diag(P) with P the inverse of X'X + regularization * I: the linear map of a person's
    items to themselves that may not use an item for itself.

    Parameters
    ----------
    regularization
        > 0; the larger, the more only common pairs count.
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
                f"Ease inverts a matrix of {n_items} x {n_items} items, and at most "
                f"{MAX_DENSE_ITEMS} are sensible: use Cosine or SequentialRules, which keep a few "
                "pairs an item."
            )
        taken = scale_counts(item_counts(histories), self.counts)
        gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
        return np.asarray(solve_ease(gram, self.regularization), dtype=np.float32)


@dataclass(frozen=True)
class Cosine:
    """Items taken by the same people: cosine of their columns (Sarwar et al. 2001).

    Parameters
    ----------
    neighbours
        Items that one speaks for, those most like it.
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
        nearest = self._nearest(sparse.csr_array(taken @ scale))
        return sparse.csr_array(sparse.vstack(list(nearest)).T)

    def _nearest(self, unit: sparse.csr_array) -> Iterator[sparse.csr_array]:
        """Give, part by part, the rows of the items most like each; all likeness is too much."""
        across = sparse.csr_array(unit.T)
        for start, stop in _parts_of_pairs(unit):
            likeness = across[start:stop] @ unit
            likeness.setdiag(0.0, k=start)
            likeness.eliminate_zeros()
            yield _heaviest(likeness, self.neighbours)


@dataclass(frozen=True)
class SequentialRules:
    """What people took soon after: counts of ordered pairs, a Markov chain with a long memory.

    N[i, j] = sum over events of j at most ``window`` places after one of i of fade^(places - 1),
    over (1 + how often i was taken) ^ power.

    Parameters
    ----------
    window, fade
        Places that a pair may be apart, and the worth of each place more, in (0, 1].
    power
        0 lets frequent items speak louder, 1 lets each item speak alike.
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
        for apart in range(1, self.window + 1):
            same = users[:-apart] == users[apart:]
            pairs = (items[:-apart][same], items[apart:][same])
            values = np.full(len(pairs[0]), self.fade ** (apart - 1))
            found = found + sparse.csr_array((values, pairs), shape=found.shape)
        taken = 1.0 + np.bincount(items, minlength=n_items)
        found.data *= np.repeat(taken**-self.power, np.diff(found.indptr))
        return found


@dataclass
class ItemToItem:
    """Scores the items that go with a person's items, of which the newer ones count more.

    p_i = (1 - floor) * s_i / sum(s) + floor * share of all events, with s = max(0, w B), w the
    fading history and B the matrix of ``pairs``.

    Parameters
    ----------
    similarity
        How B is learned: `Ease`, `Cosine` or `SequentialRules`.
    half_life, per
        Events, or days, after which an item counts half; infinite: never.
    counts
        w holds 1 - the newest event's worth - for each item ("binary"), the sum over its events
        ("count"), or log(1 + that) ("log").
    floor
        In (0, 1): what popularity is worth, so that no item is impossible.
    """

    similarity: ItemSimilarity = field(default_factory=Ease)
    half_life: float = np.inf
    per: Literal["events", "days"] = "events"
    counts: Literal["binary", "count", "log"] = "binary"
    floor: float = 1e-3
    _matrix: Matrix | None = field(default=None, init=False, repr=False)
    _popular: FloatArray | None = field(default=None, init=False, repr=False)
    _learned: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(floor=self.floor)
        if not self.half_life > 0 or self.floor >= 1:
            raise ValueError(f"half_life must be > 0 and floor < 1: {self}")

    @property
    def name(self) -> str:
        """What explanations call it: two that fade differently may be in one blend."""
        return (
            self.similarity.name if np.isinf(self.half_life) else f"{self.similarity.name} lately"
        )

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> ItemToItem:
        """Learn the pairs from all users' events before the cutoff (default: all events).

        Raises
        ------
        ValueError
            If no event lies before the cutoff, or the catalog is too large for the pairs.
        """
        self._learned, histories = TrainingSpan.of_log(log, catalog, cutoff)
        self._matrix = self.similarity.matrix(histories)
        taken = 1.0 + np.asarray(item_counts(histories).sum(axis=0)).ravel()
        self._popular = taken / taken.sum()
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or on events that a history does not hold.
        """
        require_fitted(self._learned, self.name, histories)
        assert self._popular is not None
        if not histories:
            return np.empty((0, 0))
        faded = sparse.csr_array(recency_weighted(histories, self.half_life, self.per, self.counts))
        product = faded @ self._matrix
        dense = product.toarray() if sparse.issparse(product) else product
        found = np.maximum(np.asarray(dense, dtype=np.float64), 0.0)
        totals = found.sum(axis=1, keepdims=True)
        floor = np.where(totals > 0, self.floor, 1.0)
        found /= np.where(totals > 0, totals, 1.0)
        found *= 1 - floor
        found += floor * self._popular
        return np.asarray(np.log(found, out=found), dtype=np.float64)


def recency_weighted(
    histories: Sequence[History],
    half_life: float,
    per: Literal["events", "days"],
    counts: Literal["binary", "count", "log"] = "count",
) -> sparse.csr_matrix:
    """(n_users, n_items) each event worth 2^(-age / half_life), its age in events or days."""
    ages = [
        history.days_ago if per == "days" else np.arange(history.n_events - 1, -1, -1.0)
        for history in histories
    ]
    worth = np.exp2(-np.concatenate([np.empty(0), *ages]) / half_life)
    if counts == "binary":
        return _newest(histories, worth)
    return scale_counts(item_counts(histories, worth), counts)


def scale_counts(taken: sparse.csr_matrix, counts: str) -> sparse.csr_matrix:
    """Turn counts into what ``counts`` says: 1, the count, or log(1 + count)."""
    found = taken.copy()
    if counts == "binary":
        found.data = np.ones_like(found.data)
    elif counts == "log":
        found.data = np.log1p(found.data)
    return found


def _newest(histories: Sequence[History], worth: FloatArray) -> sparse.csr_matrix:
    """(n_users, n_items) the worth of a person's newest event of each item."""
    found = item_counts(histories).astype(np.float64)
    found.sort_indices()
    users = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    items = np.concatenate([np.empty(0, np.int64), *(history.item_idx for history in histories)])
    order = np.lexsort((-worth, items, users))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(users[order]) != 0) | (np.diff(items[order]) != 0)
    found.data = worth[order][first]
    return found


def _parts_of_pairs(taken: sparse.csr_array) -> Iterator[tuple[int, int]]:
    """Give spans of items that make `_PAIRS_AT_ONCE` pairs with all items, or one item's more."""
    of_a_person = np.diff(taken.indptr)
    pairs = np.bincount(
        taken.indices, np.repeat(of_a_person, of_a_person), minlength=taken.shape[1]
    )
    part = pairs.cumsum() // _PAIRS_AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(part)]
    yield from pairwise(edges)


def _heaviest(likeness: sparse.csr_array, n: int) -> sparse.csr_array:
    """Keep the n largest entries of each row; of equal ones those of smaller index."""
    sizes = np.diff(likeness.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((likeness.indices, -likeness.data, rows))
    place = np.arange(len(order)) - np.repeat(likeness.indptr[:-1], sizes)
    kept = order[place < n]
    offsets = np.append(0, np.minimum(sizes, n).cumsum()).astype(likeness.indptr.dtype)
    entries = (likeness.data[kept], likeness.indices[kept], offsets)
    heaviest = sparse.csr_array(entries, shape=likeness.shape)
    heaviest.sort_indices()
    return heaviest
