"""Item-to-item scorers: a matrix of item similarities applied to a recency-weighted history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.data.stored import Stored, sparse_arrays, sparse_matrix
from llmrec.forecasters.collaborative import solve_ease
from llmrec.ranking.contributions import Contributions, past_items
from llmrec.ranking.fitted import (
    parameters_from,
    popularity_from,
    popularity_of,
    refusing,
    require_shape,
    settings_of,
    span_before,
    stored_cutoff,
)
from llmrec.ranking.history_matrix import (
    Counts,
    log_shares,
    recency_weighted,
    require_counts,
    scale_counts,
    sum_of_rows,
)
from llmrec.ranking.largest import largest_entries, largest_of_rows
from llmrec.ranking.next_items import NextItems
from llmrec.ranking.scorers import item_counts, require_positive
from llmrec.ranking.text_ease import EaseByText, EaseWithText
from llmrec.types import FloatArray, IntArray

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
    keep
        Weights that stay of each item taken, the largest in size; None: all of them. A matrix with
        few of them is sparse: it takes less memory, and less room on disk.
    """

    regularization: float = 300.0
    counts: Literal["binary", "log"] = "binary"
    keep: int | None = None
    name: ClassVar[str] = "goes with what was taken"

    def __post_init__(self) -> None:
        require_positive(regularization=self.regularization, keep=self.keep)
        require_counts(self.counts, "binary", "log")

    def matrix(self, histories: Sequence[History]) -> Matrix:
        """(n_items, n_items) float32, dense, or sparse with ``keep`` weights in each row.

        Raises
        ------
        ValueError
            If the catalog is too large for the dense one.
        """
        n_items = histories[0].catalog.n_items
        if n_items > MAX_DENSE_ITEMS:
            raise ValueError(
                f"Ease inverts a matrix of {n_items} x {n_items} items; it can take at most "
                f"{MAX_DENSE_ITEMS}: use Cosine or SequentialRules, which store few pairs an item."
            )
        taken = scale_counts(item_counts(histories), self.counts)
        gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
        dense = np.asarray(solve_ease(gram, self.regularization), dtype=np.float32)
        return dense if self.keep is None else largest_of_rows(dense, self.keep)


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
        require_counts(self.counts, "binary", "log")

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
            yield largest_entries(similarity, self.neighbours)


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
    keep
        Entries that stay of each item taken, the largest; None: all of them.
    """

    window: int = 10
    fade: float = 0.9
    power: float = 0.8
    keep: int | None = None
    name: ClassVar[str] = "taken after what was taken"

    def __post_init__(self) -> None:
        require_positive(window=self.window, fade=self.fade, keep=self.keep)
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
        return found if self.keep is None else largest_entries(found, self.keep)


_KINDS: tuple[type[ItemSimilarity], ...] = (
    Ease,
    Cosine,
    SequentialRules,
    NextItems,
    EaseByText,
    EaseWithText,
)
SIMILARITIES: Mapping[str, type[ItemSimilarity]] = {kind.__name__: kind for kind in _KINDS}


@dataclass
class ItemToItem:
    """Scores items by their similarity to a person's items, of which the newer ones count more.

    p_i = (1 - floor) * s_i / sum(s) + floor * share of all events, with s = max(0, w B), w the
    recency-weighted history and B the matrix of ``similarity``.

    Parameters
    ----------
    similarity
        How B is learned: one of `SIMILARITIES`.
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
    counts: Counts = "binary"
    floor: float = 1e-3
    _matrix: Matrix | None = field(default=None, init=False, repr=False)
    _popularity: FloatArray | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(floor=self.floor)
        require_counts(self.counts, "binary", "count", "log")
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
        self._matrix = self.similarity.matrix(histories).astype(np.float32)
        self._popularity = popularity_of(item_counts(histories))
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
            return np.empty((0, len(self._popularity)))
        found = sum_of_rows(self._weights(histories), self._matrix)
        return log_shares(found, self.floor, self._popularity)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) w B, of a fitted scorer; what is below 0 counts as 0."""
        assert self._matrix is not None
        if not histories:
            return np.empty((0, self._matrix.shape[1]))
        product = sum_of_rows(self._weights(histories), self._matrix)
        dense = product.toarray() if sparse.issparse(product) else product
        return np.asarray(dense, dtype=np.float64)

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items: w_j B_ji of each past item j."""
        assert self._matrix is not None
        past = past_items(history)
        weights = self._weights([history]).toarray()[0, past]
        is_sparse = sparse.issparse(self._matrix)
        similar = (
            self._matrix[past][:, items].toarray()
            if is_sparse
            else self._matrix[np.ix_(past, items)]
        )
        parts = weights[:, None] * similar.astype(np.float64)
        return Contributions(past, parts.T, np.zeros(len(items)))

    def _weights(self, histories: Sequence[History]) -> sparse.csr_matrix:
        """(n_users, n_items) w: the recency-weighted histories."""
        return recency_weighted(histories, self.half_life, self.per, self.counts)

    def stored(self) -> Stored:
        """Give the parameters, the similarities and the popularity; ValueError before `fit`."""
        values = settings_of(self) | {
            "similarity": _stored_similarity(self.similarity),
            "before": stored_cutoff(self._fitted, self.name),
        }
        assert self._matrix is not None
        assert self._popularity is not None
        is_sparse = sparse.issparse(self._matrix)
        matrix = sparse_arrays("matrix", self._matrix) if is_sparse else {"matrix": self._matrix}
        return Stored("ItemToItem", values, matrix | {"popularity": self._popularity})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> ItemToItem:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one."""
        with refusing(stored.kind):
            similarity = _make_similarity(stored.values["similarity"])
            options = parameters_from(stored.values, "similarity", "before")
            made = cls(similarity, **options)
            is_dense = "matrix" in stored.arrays
            matrix = stored.arrays["matrix"] if is_dense else sparse_matrix("matrix", stored.arrays)
            require_shape("matrix", matrix, (catalog.n_items, catalog.n_items))
            made._matrix = matrix.astype(np.float32, copy=False)
            made._popularity = popularity_from(stored, catalog)
            made._fitted = span_before(stored.values["before"], catalog)
        return made


def _stored_similarity(similarity: ItemSimilarity) -> dict[str, Any]:
    """Give the kind and the parameters of a similarity; ValueError for one of somebody else's."""
    kind = type(similarity).__name__
    if SIMILARITIES.get(kind) is not type(similarity):
        raise ValueError(f"a similarity {kind} cannot be stored: {', '.join(SIMILARITIES)} can")
    return {"kind": kind} | settings_of(similarity)


def _make_similarity(values: dict[str, Any]) -> Any:
    return SIMILARITIES[values["kind"]](**parameters_from(values, "kind"))


def _batches_of_pairs(taken: sparse.csr_array) -> Iterator[tuple[int, int]]:
    """Give spans of items with `_PAIRS_PER_BATCH` pairs each, or one item's more."""
    sizes = np.diff(taken.indptr)  # items of each person
    pairs = np.bincount(taken.indices, np.repeat(sizes, sizes), minlength=taken.shape[1])
    batch = pairs.cumsum() // _PAIRS_PER_BATCH
    edges = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(batch)]
    yield from pairwise(edges)
