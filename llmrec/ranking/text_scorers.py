"""Item scorers by vectors of titles, or of features, which items have before anybody takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.data.stored import Stored, sparse_arrays, sparse_matrix
from llmrec.ranking.contributions import Contributions, past_items
from llmrec.ranking.fitted import (
    parameters_from,
    refusing,
    require_shape,
    rows_of_items,
    settings_of,
    span_before,
    stored_cutoff,
)
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.scorers import RecentPopularity, require_positive
from llmrec.ranking.text_projection import Projection, Vectors, require_projection, sets_taken
from llmrec.ranking.text_vectors import (
    TitleEncoder,
    averages_by_title,
    name_by_source,
    nearest_titles,
    require_source,
    takers_of,
    title_vectors,
    trust_of,
)
from llmrec.types import FloatArray, IntArray

MIN_TEMPERATURE = 0.01  # below it the kernel of titles far apart is 0 in double precision
_ITEMS_PER_SUM = 256  # neighbours in the catalog whose weights are summed first
_VALUES_PER_BLOCK = 2_000_000  # of the kernel that are in memory: 16 MB
_MIN_ITEMS_PER_BLOCK = 64


def on_grid(vectors: Vectors) -> Vectors:
    """Give unit vectors as whole multiples of 2**-22, which is nearly as exact as float32 is.

    Single precision holds them to the bit. Their products have no rounding in double precision:
    each is a multiple of 2**-44 and their absolute values sum to at most 1, so that every partial
    sum fits into 53 bits. Whatever the size of a matrix product, and the order of its sums, the
    result is the same to the bit.
    """
    return np.asarray(np.rint(vectors * np.float32(2**22)) / np.float32(2**22))


@dataclass
class TitleKernel:
    """Scores items by how close their titles are to those of a person's items.

    p_i = s_i / sum(s) with s_i = sum_j w_j exp((cos_ij - 1) / temperature): a kernel density of the
    history in the space of `title_vectors`, w_j the decayed count of item j. A person without an
    event gets equal scores.

    Parameters
    ----------
    temperature
        >= `MIN_TEMPERATURE`; the smaller, the more only the nearest titles count.
    half_life
        Days after which an event counts half; infinite: never.
    encoder, projection, features
        See `title_vectors`; an encoder is stored by its name.
    """

    temperature: float = 0.3
    half_life: float = 84.0
    encoder: TitleEncoder | str | None = None
    projection: Projection = "discriminant"
    features: str | None = None
    name: str = field(default="", init=False)
    _vectors: Vectors | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)
        require_projection(self.projection)
        require_source(self.encoder, self.features)
        self.name = name_by_source(self.features, "what was taken")
        if self.temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature must be >= {MIN_TEMPERATURE}, not {self.temperature}")
        if not self.half_life > 0:
            raise ValueError(f"half_life must be > 0, not {self.half_life}")

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> TitleKernel:
        """Find the vectors by the items taken before the cutoff (default: all events).

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        """
        self._fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        self._vectors = title_vectors(
            catalog,
            sets_taken(histories),
            encoder=self.encoder,
            projection=self.projection,
            features=self.features,
        )
        vars(self).pop("_exact", None)  # of an earlier fit
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or on events that are not in a history.
        """
        require_fitted(self._fitted, self.name, histories)
        found = self.raw_scores(histories)
        if not histories:
            return found
        found[found.sum(axis=1) == 0] = 1.0
        found /= found.sum(axis=1, keepdims=True)
        return np.asarray(np.log(found, out=found), dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) s, of a fitted scorer."""
        assert self._vectors is not None
        n_items = len(self._vectors)
        if not histories:
            return np.empty((0, n_items))
        weights = sparse.csr_array(recency_weighted(histories, self.half_life, "days"))
        taken, own = np.unique(weights.indices, return_inverse=True)
        # First of each group of items, then of the groups, the same for everybody: sums do not
        # round by who else is asked.
        groups = weights.indices // _ITEMS_PER_SUM
        by_group, group_sums = _sums_by_group(weights.data, own, weights.indptr, groups)
        found, vectors = np.empty(weights.shape), self._exact_of(taken)
        size = max(_MIN_ITEMS_PER_BLOCK, _VALUES_PER_BLOCK // max(1, len(own)))
        for start in range(0, n_items, size):
            block = slice(start, start + size)
            found[:, block] = group_sums @ (by_group @ self._kernel(vectors, block))
        return found

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items: w_j times the kernel of past item j."""
        past = past_items(history)
        weights = recency_weighted([history], self.half_life, "days").toarray()[0, past]
        parts = weights[:, None] * self._kernel(self._exact_of(past), items)
        return Contributions(past, parts.T, np.zeros(len(items)))

    @property
    def vectors(self) -> Vectors:
        """(n_items, d) the fitted unit vectors of titles; zeros for one without a known word."""
        assert self._vectors is not None
        return self._vectors

    def cosines(self, history: History, items: IntArray) -> FloatArray:
        """(n_items, n_past) of the titles of items and of `past_items`."""
        vectors = self.vectors.astype(np.float64)
        return np.asarray(vectors[items] @ vectors[past_items(history)].T)

    @cached_property
    def _exact(self) -> Vectors:
        """(n_items, d) the vectors `on_grid`."""
        return on_grid(self.vectors)

    def _exact_of(self, items: IntArray | slice) -> FloatArray:
        """(n, d) the vectors of items, on the grid, in double precision."""
        return self._exact[items].astype(np.float64)

    def _kernel(self, vectors: FloatArray, items: IntArray | slice) -> FloatArray:
        """(n, n_items) exp((cos - 1) / temperature), the same whatever else is asked for."""
        cosines = vectors @ self._exact_of(items).T
        cosines -= 1.0
        cosines /= self.temperature
        return np.asarray(np.exp(cosines, out=cosines))

    def stored(self) -> Stored:
        """Give the parameters and the vectors; ValueError before `fit`."""
        values = settings_of(self) | {"before": stored_cutoff(self._fitted, self.name)}
        assert self._vectors is not None
        return Stored("TitleKernel", values, {"vectors": self._vectors})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> TitleKernel:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one."""
        with refusing(stored.kind):
            made = cls(**parameters_from(stored.values, "before"))
            made._vectors = rows_of_items("vectors", stored, catalog).astype(np.float32)
            made._fitted = span_before(stored.values["before"], catalog)
        return made


def _sums_by_group(
    weights: FloatArray, columns: IntArray, offsets: IntArray, groups: IntArray
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Give a sparse matrix of weights as a product: sums by a row's groups, then of these.

    Parameters
    ----------
    weights, columns, offsets
        The matrix: entries, their columns, and (n_rows + 1,) where each row's start.
    groups
        The group of each entry; rising in a row.
    """
    is_first = np.ones(len(groups), dtype=np.bool_)
    is_first[1:] = np.diff(groups) != 0
    is_first[offsets[:-1][np.diff(offsets) > 0]] = True
    starts = np.append(np.flatnonzero(is_first), len(groups))
    n_groups, n_columns = len(starts) - 1, int(columns.max(initial=-1)) + 1
    within = sparse.csr_array((weights, columns, starts), shape=(n_groups, n_columns))
    of_rows = np.searchsorted(starts, offsets)
    entries = (np.ones(n_groups), np.arange(n_groups), of_rows)
    return within, sparse.csr_array(entries, shape=(len(offsets) - 1, n_groups))


@dataclass
class TextPopularity:
    """Scores items by what everybody took lately, of them and of items of the nearest titles.

    p is proportional to q + strength * N q: q are the smoothed shares of `RecentPopularity`, N q
    their `averages_by_title` over the items taken before the fit.

    Parameters
    ----------
    popularity
        The shares of what was taken lately.
    strength
        Weight of the neighbours, > 0.
    temperature, neighbours
        See `nearest_titles`.
    encoder, projection, features
        See `title_vectors`; an encoder is stored by its name.
    """

    popularity: RecentPopularity = field(default_factory=lambda: RecentPopularity(14.0, 0.1))
    strength: float = 1.0
    temperature: float = 0.1
    neighbours: int = 100
    encoder: TitleEncoder | str | None = None
    projection: Projection = "none"
    features: str | None = None
    name: str = field(default="", init=False)
    _nearest: sparse.csr_array | None = field(default=None, init=False, repr=False)
    _trust: FloatArray | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(
            strength=self.strength, temperature=self.temperature, neighbours=self.neighbours
        )
        require_projection(self.projection)
        require_source(self.encoder, self.features)
        self.name = name_by_source(self.features, "what is popular")

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> TextPopularity:
        """Find the nearest titles by the items taken before the cutoff (default: all events).

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        """
        self._fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        takers = takers_of(histories)
        vectors = title_vectors(
            catalog,
            sets_taken(histories),
            encoder=self.encoder,
            projection=self.projection,
            features=self.features,
        )
        trust = trust_of(takers)
        nearest = nearest_titles(vectors, trust, self.temperature, self.neighbours)
        self._nearest, self._trust = nearest, trust
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or on events that are not in a history.
        """
        require_fitted(self._fitted, self.name, histories)
        found = self.raw_scores(histories)
        return np.asarray(np.log(found, out=found), dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) p, of a fitted scorer; rows sum to 1."""
        if not histories:
            return np.empty((0, 0))
        cutoffs = np.array([history.cutoff for history in histories])
        _, first, row = np.unique(cutoffs, return_index=True, return_inverse=True)
        shares = self.popularity.raw_scores([histories[place] for place in first])
        return np.stack([self._smoothed(one) for one in shares])[row]

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the raw scores of these items: nothing in them is of the person."""
        past = past_items(history)
        parts = np.zeros((len(items), len(past)))
        return Contributions(past, parts, self.raw_scores([history])[0, items])

    def _smoothed(self, shares: FloatArray) -> FloatArray:
        """(n_items,) shares and those of the neighbours, scaled to sum to 1."""
        assert self._nearest is not None
        assert self._trust is not None
        found = shares + self.strength * averages_by_title(self._nearest, self._trust, shares)
        return np.asarray(found / found.sum())

    def stored(self) -> Stored:
        """Give the parameters and the nearest titles; ValueError before `fit`."""
        values = settings_of(self) | {"before": stored_cutoff(self._fitted, self.name)}
        del values["popularity"]
        assert self._nearest is not None
        assert self._trust is not None
        arrays = sparse_arrays("nearest", self._nearest) | {"trust": self._trust}
        parts = {"popularity": self.popularity.stored()}
        return Stored("TextPopularity", values, arrays, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> TextPopularity:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one."""
        with refusing(stored.kind):
            popularity = RecentPopularity.from_stored(stored.parts["popularity"], catalog)
            made = cls(popularity, **parameters_from(stored.values, "before"))
            made._nearest = sparse_matrix("nearest", stored.arrays)
            require_shape("nearest", made._nearest, (catalog.n_items, catalog.n_items))
            made._trust = np.array(stored.arrays["trust"], dtype=np.float64)
            require_shape("trust", made._trust, (catalog.n_items,))
            if not (made._trust >= 0).all() or not made._trust.any():
                raise ValueError("an item's trust is below 0, or none is above it")
            made._fitted = span_before(stored.values["before"], catalog)
        return made
