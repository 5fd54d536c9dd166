"""Item scorers by factors of a matrix of users and items; a person's are found from their history.

Scoring needs the items' factors only, so new people are scored too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import svds
from scipy.special import log_softmax

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.data.stored import Stored
from llmrec.errors import MissingExtraError
from llmrec.ranking.contributions import Contributions, past_items
from llmrec.ranking.fitted import (
    parameters_from,
    popularity_from,
    popularity_of,
    refusing,
    rows_of_items,
    settings_of,
    span_before,
    stored_cutoff,
)
from llmrec.ranking.history_matrix import (
    log_shares,
    recency_weighted,
    require_counts,
    scale_counts,
)
from llmrec.ranking.scorers import item_counts, require_positive
from llmrec.types import FloatArray, IntArray


@dataclass
class PureSVD:
    """Truncated singular value decomposition of users by items (Cremonesi et al. 2010, PureSVD).

    p_i = (1 - floor) * s_i / sum(s) + floor * share of all events, with s = max(0, w V V'), w the
    recency-weighted history and V the items' factors.

    Parameters
    ----------
    factors
        Singular vectors, at most; > 0.
    counts
        What X and w hold of an item: 1 ("binary"), or log(1 + how often) ("log").
    half_life
        Days after which an item of the history counts half; infinite: never.
    floor
        In (0, 1): weight of popularity, so that no item is impossible.
    """

    factors: int = 30
    counts: Literal["binary", "log"] = "binary"
    half_life: float = np.inf
    floor: float = 1e-3
    _item_factors: FloatArray | None = field(default=None, init=False, repr=False)
    _popularity: FloatArray | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(factors=self.factors, floor=self.floor)
        require_counts(self.counts, "binary", "log")
        if not self.half_life > 0 or self.floor >= 1:
            raise ValueError(f"half_life must be > 0 and floor < 1: {self}")

    @property
    def name(self) -> str:
        """Its name in explanations; it differs by half-life, as one blend may have both."""
        return "like what was taken" + ("" if np.isinf(self.half_life) else " lately")

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> PureSVD:
        """Find the factors of all users' events before the cutoff (default: all events).

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        """
        self._fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        taken = item_counts(histories)
        vectors = _singular_vectors(scale_counts(taken, self.counts), self.factors)
        # Stored in single precision: before saving they are what they are after loading.
        self._item_factors = vectors.astype(np.float32).astype(np.float64)
        self._popularity = popularity_of(taken)
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
        return log_shares(self.raw_scores(histories), self.floor, self._popularity)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) w V V', of a fitted scorer; what is below 0 counts as 0."""
        assert self._item_factors is not None
        users = sparse.csr_array(self._weights(histories)) @ self._item_factors
        return row_products(self._item_factors, users)

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items: w_j V_j V_i' of each past item j."""
        assert self._item_factors is not None
        past = past_items(history)
        weights = self._weights([history]).toarray()[0, past]
        parts = self._item_factors[items] @ (weights[:, None] * self._item_factors[past]).T
        return Contributions(past, parts, np.zeros(len(items)))

    def _weights(self, histories: Sequence[History]) -> sparse.csr_matrix:
        """(n_users, n_items) w: the recency-weighted histories."""
        return recency_weighted(histories, self.half_life, "days", self.counts)

    def stored(self) -> Stored:
        """Give the parameters, the items' factors and popularity; ValueError before `fit`."""
        values = settings_of(self) | {"before": stored_cutoff(self._fitted, self.name)}
        assert self._item_factors is not None
        assert self._popularity is not None
        factors: npt.NDArray[Any] = self._item_factors.astype(np.float32)
        arrays = {"factors": factors, "popularity": self._popularity}
        return Stored("PureSVD", values, arrays)

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> PureSVD:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one."""
        with refusing(stored.kind):
            made = cls(**parameters_from(stored.values, "before"))
            made._item_factors = rows_of_items("factors", stored, catalog)
            made._popularity = popularity_from(stored, catalog)
            made._fitted = span_before(stored.values["before"], catalog)
        return made


@dataclass
class ImplicitALS:
    """Implicit-feedback matrix factorisation, with the person's factors from their history.

    Hu, Koren & Volinsky (2008), with confidence ``alpha * log2(1 + count)``. A person's factors
    are solved from the history that is scored (equation 4), so new people are scored too.

    Parameters
    ----------
    factors, regularization, alpha, iterations, seed
        Of ``implicit.als.AlternatingLeastSquares``, trained in float32 on one thread. The default
        regularization suits logs of a thousand people or more; choose less for a handful.
    temperature
        The factorisation predicts preferences in about [0, 1]; they are divided by this (> 0)
        before the softmax: undivided they would make all items nearly equally likely.
    """

    factors: int = 64
    regularization: float = 10.0
    alpha: float = 1.0
    iterations: int = 15
    seed: int = 0
    temperature: float = 0.1
    name: str = field(default="people with similar taste", init=False)
    _item_factors: FloatArray | None = field(default=None, init=False, repr=False)
    _gram: FloatArray | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)

    def fit(
        self,
        log: Interactions,
        catalog: Catalog,
        cutoff: np.datetime64 | str | None = None,
    ) -> ImplicitALS:
        """Learn item factors from all users' events before the cutoff (default: all events).

        Raises
        ------
        MissingExtraError
            If the package ``implicit`` is not installed.
        ValueError
            If no event lies before the cutoff.
        """
        als, threadpoolctl = _import_als()
        fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        counts = item_counts(histories)
        with threadpoolctl.threadpool_limits(1, "blas"):
            model = als.AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                num_threads=1,
                random_state=self.seed,
            )
            model.fit(_damp_counts(counts), show_progress=False)
        self._use_factors(model.item_factors.astype(np.float64))
        self._fitted = fitted
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; a person without events gets equal ones.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or fitted on events at or after a cutoff.
        """
        require_fitted(self._fitted, self.name, histories)
        if not histories:
            return np.empty((0, 0))
        return np.asarray(log_softmax(self.raw_scores(histories), axis=1), dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) predicted preferences over the temperature, of a fitted scorer."""
        users = self.user_factors(histories)
        return row_products(self.item_factors, users) / self.temperature

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items (Hu et al. 2008, equation 7)."""
        past, solved = self.user_parts(history)
        parts = self.item_factors[items] @ solved / self.temperature
        return Contributions(past, parts, np.zeros(len(items)), "log")

    @property
    def item_factors(self) -> FloatArray:
        """(n_items, n_factors) float64, of a fitted scorer."""
        assert self._item_factors is not None
        return self._item_factors

    def user_factors(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_factors) of these people, of a fitted scorer; zeros without an event."""
        return self._user_factors(_damp_counts(item_counts(histories)))

    def user_parts(self, history: History) -> tuple[IntArray, FloatArray]:
        """(n_past,) distinct past items; (n_factors, n_past) what each adds to the factors."""
        past = past_items(history)
        own = self.item_factors[past]
        confidence = self.alpha * _damp_counts(item_counts([history])).toarray()[0, past]
        confidence = confidence.astype(np.float64)
        squares = (own * (confidence - 1)[:, None]).T @ own
        return past, np.linalg.solve(self._gram + squares, (confidence[:, None] * own).T)

    def stored(self) -> Stored:
        """Give the parameters and the items' factors; ValueError before `fit`."""
        values = settings_of(self) | {"before": stored_cutoff(self._fitted, self.name)}
        assert self._item_factors is not None
        return Stored("ImplicitALS", values, {"factors": self._item_factors.astype(np.float32)})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> ImplicitALS:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one.

        The package ``implicit`` is not needed.
        """
        with refusing(stored.kind):
            made = cls(**parameters_from(stored.values, "before"))
            made._use_factors(rows_of_items("factors", stored, catalog))
            made._fitted = span_before(stored.values["before"], catalog)
        return made

    def _use_factors(self, items: FloatArray) -> None:
        """Score with these (n_items, n_factors) factors, in double precision."""
        # Without BLAS, whose rounding may depend on its number of threads.
        squares = np.einsum("if,ig->fg", items, items)
        self._gram = squares + self.regularization * np.eye(items.shape[1])
        self._item_factors = items

    def _user_factors(self, counts: sparse.csr_matrix) -> FloatArray:
        """(n_users, n_factors) solve equation 4 for each row of counts; zeros for an empty one."""
        items, gram = self._item_factors, self._gram
        assert items is not None
        assert gram is not None
        found = np.zeros((counts.shape[0], items.shape[1]))
        for row, (start, stop) in enumerate(pairwise(counts.indptr)):
            if start == stop:
                continue
            own = items[counts.indices[start:stop]]
            confidence = self.alpha * counts.data[start:stop].astype(np.float64)
            squares = (own * (confidence - 1)[:, None]).T @ own
            found[row] = np.linalg.solve(gram + squares, confidence @ own)
        return found


def row_products(items: FloatArray, users: FloatArray) -> FloatArray:
    """(n_users, n_items) products of factors, one person at a time.

    A product for a batch would round differently with the size of the batch.
    """
    found = np.empty((len(users), len(items)))
    for row, user in zip(found, users, strict=True):
        row[:] = items @ user
    return found


def _singular_vectors(taken: sparse.csr_matrix, n: int) -> FloatArray:
    """(n_items, n) right singular vectors of the largest values; fewer of a small matrix."""
    matrix = taken.astype(np.float64)
    if n >= min(matrix.shape):
        vectors: FloatArray = np.linalg.svd(matrix.toarray(), full_matrices=False)[2]
    else:
        start = np.full(min(matrix.shape), min(matrix.shape) ** -0.5)
        vectors = svds(matrix, k=n, v0=start)[2]
    return np.ascontiguousarray(vectors.T)


def _damp_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Scale counts to log2(1 + count), so that frequent items do not dominate."""
    found = counts.astype(np.float32)
    found.data = np.log2(1 + found.data)
    return found


def _import_als() -> tuple[Any, Any]:
    try:
        return importlib.import_module("implicit.cpu.als"), importlib.import_module("threadpoolctl")
    except ImportError as error:
        raise MissingExtraError(
            "implicit ALS needs the package implicit: pip install 'llmrec[als]'"
        ) from error
