"""EASE that knows titles, so that items nobody has taken have weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from llmrec.data.periods import History
from llmrec.forecasters.collaborative import solve_ease
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.largest import largest_of_rows
from llmrec.ranking.scorers import require_positive
from llmrec.ranking.text_projection import Projection, require_projection, sets_taken
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

MAX_ITEMS = 10_000  # of a dense matrix in double precision: .8 GB, and two of them at a time


@dataclass(frozen=True)
class EaseByText:
    """Weights of EASE (Steck 2019) that an item gets from the items of the nearest titles.

    M = B N', B the weights of EASE for X'X + regularization * I, with X the square root of
    2^(-age / half_life) of a person's newest event of an item, and N the `averages_by_title` of the
    items that were taken. An item's own weights have no part in it: blend it with `Ease`. An item
    without a known word, or without features, gets the average of all.

    Parameters
    ----------
    regularization
        > 0; the larger, the more frequent pairs dominate.
    half_life
        Days after which an event of the fit counts half; infinite: never.
    temperature, neighbours
        See `nearest_titles`.
    encoder, projection, features
        See `title_vectors`; an encoder is stored by its name.
    keep
        Weights that stay of each item taken, the largest in size; None: all of them.
    """

    regularization: float = 100.0
    half_life: float = 14.0
    temperature: float = 0.1
    neighbours: int = 100
    encoder: TitleEncoder | str | None = None
    projection: Projection = "none"
    features: str | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        require_positive(
            regularization=self.regularization,
            temperature=self.temperature,
            neighbours=self.neighbours,
            keep=self.keep,
        )
        require_projection(self.projection)
        require_source(self.encoder, self.features)
        if not self.half_life > 0:
            raise ValueError(f"half_life must be > 0, not {self.half_life}")

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return name_by_source(self.features, "what goes with what was taken")

    def matrix(self, histories: Sequence[History]) -> Any:
        """(n_items, n_items) float32, dense, or sparse with ``keep`` weights in each row.

        Raises
        ------
        ValueError
            If the catalog is too large.
        """
        catalog = histories[0].catalog
        _require_dense(type(self).__name__, catalog.n_items)
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
        taken = recency_weighted(histories, self.half_life, "days", "binary")
        taken.data = np.sqrt(taken.data)
        gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
        weights = solve_ease(gram, self.regularization)
        carried = averages_by_title(nearest, trust, weights.T).T
        dense = np.ascontiguousarray(carried, dtype=np.float32)
        return dense if self.keep is None else largest_of_rows(dense, self.keep)


@dataclass(frozen=True)
class EaseWithText:
    """EASE (Steck 2019) in which the directions of title vectors count like people.

    Weights for X'X + weight * E E' + regularization * I over the items that were taken, with X the
    square root of 2^(-age / half_life) of a person's newest event of an item, and E their
    `title_vectors`: a direction is somebody who took every item as far as its title points there.
    The weights of an item that nobody has taken are those of the ridge regression of its vector on
    theirs, weight * (X'X + weight * E E' + regularization * I)^-1 E e; without a vector they are 0.

    Parameters
    ----------
    weight
        Of titles, > 0: that of a person who took one item is 1.
    regularization, half_life, encoder, projection, features, keep
        As for `EaseByText`.
    """

    weight: float = 5.0
    regularization: float = 100.0
    half_life: float = 84.0
    encoder: TitleEncoder | str | None = None
    projection: Projection = "none"
    features: str | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        require_positive(weight=self.weight, regularization=self.regularization, keep=self.keep)
        require_projection(self.projection)
        require_source(self.encoder, self.features)
        if not self.half_life > 0:
            raise ValueError(f"half_life must be > 0, not {self.half_life}")

    @property
    def name(self) -> str:
        """Its name in explanations."""
        kind = "titled" if self.features is None else self.features
        return f"goes with, or is {kind} like, what was taken"

    def matrix(self, histories: Sequence[History]) -> Any:
        """(n_items, n_items) float32, dense, or sparse with ``keep`` weights in each row.

        Raises
        ------
        ValueError
            If the catalog is too large.
        """
        _require_dense(type(self).__name__, histories[0].catalog.n_items)
        vectors = title_vectors(
            histories[0].catalog,
            sets_taken(histories),
            encoder=self.encoder,
            projection=self.projection,
            features=self.features,
        )
        taken = recency_weighted(histories, self.half_life, "days", "binary")
        taken.data = np.sqrt(taken.data)
        is_taken = np.diff(taken.tocsc().indptr) > 0
        known, new = np.flatnonzero(is_taken), np.flatnonzero(~is_taken)
        taken, of_known = taken[:, known], vectors[known].astype(np.float64)
        gram = np.asarray((taken.T @ taken).todense(), dtype=np.float64)
        gram += self.weight * (of_known @ of_known.T)
        of_new = np.empty((len(known), 0))
        if len(new):
            penalized = gram.copy()
            penalized[np.diag_indices_from(penalized)] += self.regularization
            targets = self.weight * of_known
            maps = linalg.solve(penalized, targets, assume_a="pos", overwrite_a=True)
            of_new = maps @ vectors[new].T
            del penalized
        among_known = solve_ease(gram, self.regularization)
        dense = np.zeros((len(vectors), len(vectors)), np.float32)
        dense[np.ix_(known, new)], dense[np.ix_(known, known)] = of_new, among_known
        return dense if self.keep is None else largest_of_rows(dense, self.keep)


def _require_dense(name: str, n_items: int) -> None:
    if n_items > MAX_ITEMS:
        raise ValueError(
            f"{name} inverts a matrix of {n_items} x {n_items} items; it can take at most "
            f"{MAX_ITEMS}: use TitleKernel, which stores vectors only."
        )
