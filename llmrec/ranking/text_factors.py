"""Factors of items predicted from their titles, so that items nobody has taken have some too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.data.stored import Stored
from llmrec.ranking.contributions import Contributions
from llmrec.ranking.factors import ImplicitALS, row_products
from llmrec.ranking.fitted import (
    parameters_from,
    refusing,
    rows_of_items,
    settings_of,
    span_before,
    stored_cutoff,
)
from llmrec.ranking.scorers import require_positive
from llmrec.ranking.text_projection import Projection, Vectors, require_projection, sets_taken
from llmrec.ranking.text_vectors import (
    TitleEncoder,
    name_by_source,
    require_source,
    takers_of,
    title_vectors,
    trust_of,
)
from llmrec.types import FloatArray, IntArray

_VALUES_PER_BLOCK = 10_000_000  # of weighted vectors that are in memory: 80 MB
_MIN_COLUMNS = 96  # whole tiles of the product, so that sums round as those of all columns do


@dataclass
class FactorsFromText:
    """Scores items by a person's factors and those that the items' titles predict.

    p = softmax(V W u / temperature): u are the person's factors by `ImplicitALS`, V the vectors of
    `title_vectors` and W the ridge regression of the items' factors Y on them,
    W = (V'TV + ridge * I)^-1 V'TY, T the trust of `trust_of` in each item's factors
    (attribute-to-feature maps of Gantner et al. 2010, by least squares).

    Parameters
    ----------
    als
        The factors of people and of the items that were taken; `fit` fits it. It needs the package
        ``implicit``; what is stored does not.
    ridge
        > 0; the larger, the closer to 0 the predicted factors.
    encoder, projection, features
        See `title_vectors`; an encoder is stored by its name.
    """

    als: ImplicitALS = field(default_factory=ImplicitALS)
    ridge: float = 3.0
    encoder: TitleEncoder | str | None = None
    projection: Projection = "none"
    features: str | None = None
    name: str = field(default="", init=False)
    _predicted: Vectors | None = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(ridge=self.ridge)
        require_projection(self.projection)
        require_source(self.encoder, self.features)
        self.name = name_by_source(self.features, "what people with similar taste take")

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None = None
    ) -> FactorsFromText:
        """Learn factors, and to predict them, from the events before the cutoff (default: all).

        Raises
        ------
        MissingExtraError
            If the package ``implicit`` is not installed.
        ValueError
            If no event lies before the cutoff.
        """
        self.als = self.als.fit(log, catalog, cutoff)
        self._fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        takers = takers_of(histories)
        vectors = title_vectors(
            catalog,
            sets_taken(histories),
            encoder=self.encoder,
            projection=self.projection,
            features=self.features,
        ).astype(np.float64)
        trust, factors = trust_of(takers), self.als.item_factors
        squares, targets = _weighted_products(trust, vectors, factors)
        squares += self.ridge * np.eye(len(squares))
        self._predicted = (vectors @ np.linalg.solve(squares, targets)).astype(np.float32)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; a person without events gets equal ones.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or on events that are not in a history.
        """
        require_fitted(self._fitted, self.name, histories)
        if not histories:
            return np.empty((0, 0))
        return np.asarray(log_softmax(self.raw_scores(histories), axis=1), dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) predicted preferences over the temperature, of a fitted scorer."""
        users = self.als.user_factors(histories)
        return row_products(self._item_factors(), users) / self.als.temperature

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items (Hu et al. 2008, equation 7)."""
        past, solved = self.als.user_parts(history)
        parts = self._item_factors()[items] @ solved / self.als.temperature
        return Contributions(past, parts, np.zeros(len(items)), "log")

    def _item_factors(self) -> FloatArray:
        """(n_items, n_factors) float64, the predicted ones."""
        assert self._predicted is not None
        return self._predicted.astype(np.float64)

    def stored(self) -> Stored:
        """Give the parameters, predicted factors and the fit of ALS; ValueError before `fit`."""
        values = settings_of(self) | {"before": stored_cutoff(self._fitted, self.name)}
        del values["als"]
        assert self._predicted is not None
        arrays = {"predicted": self._predicted}
        return Stored("FactorsFromText", values, arrays, parts={"als": self.als.stored()})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> FactorsFromText:
        """Make it again for the catalog of its fit; ModelLoadError for what is not of this one."""
        with refusing(stored.kind):
            predicted = rows_of_items("predicted", stored, catalog)
            als = ImplicitALS.from_stored(stored.parts["als"], catalog)
            if predicted.shape != als.item_factors.shape:
                raise ValueError(f"'predicted' has shape {predicted.shape}, unlike its factors")
            made = cls(als, **parameters_from(stored.values, "before"))
            made._predicted = predicted.astype(np.float32)
            made._fitted = span_before(stored.values["before"], catalog)
        return made


def _weighted_products(
    trust: FloatArray, vectors: FloatArray, factors: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(d, d) V'TV and (d, n_factors) V'TY; of a large catalog few columns of TV at a time."""
    n_items, d = vectors.shape
    squares, targets = np.empty((d, d)), np.empty((d, factors.shape[1]))
    size = max(_MIN_COLUMNS, _VALUES_PER_BLOCK // n_items // _MIN_COLUMNS * _MIN_COLUMNS)
    for start in range(0, d, size):
        block = slice(start, start + size)
        weighted = trust[:, None] * vectors[:, block]
        squares[block], targets[block] = weighted.T @ vectors, weighted.T @ factors
    return squares, targets
