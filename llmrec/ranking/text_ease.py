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
        _require_options(self)

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
        vectors, taken = _vectors_and_taken(self, histories)
        trust = trust_of(takers_of(histories))
        nearest = nearest_titles(vectors, trust, self.temperature, self.neighbours)
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
        _require_options(self)

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
        vectors, taken = _vectors_and_taken(self, histories)
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


def _require_options(ease: EaseByText | EaseWithText) -> None:
    require_projection(ease.projection)
    require_source(ease.encoder, ease.features)
    if not ease.half_life > 0:
        raise ValueError(f"half_life must be > 0, not {ease.half_life}")


def _vectors_and_taken(
    ease: EaseByText | EaseWithText, histories: Sequence[History]
) -> tuple[Vectors, Any]:
    """(n_items, d) vectors and (n_users, n_items) X, sparse; ValueError for too many items."""
    catalog = histories[0].catalog
    if catalog.n_items > MAX_ITEMS:
        raise ValueError(
            f"{type(ease).__name__} inverts a matrix of {catalog.n_items} x {catalog.n_items} "
            f"items; it can take at most {MAX_ITEMS}: use TitleKernel, which stores vectors only."
        )
    vectors = title_vectors(
        catalog,
        sets_taken(histories),
        encoder=ease.encoder,
        projection=ease.projection,
        features=ease.features,
    )
    taken = recency_weighted(histories, ease.half_life, "days", "binary")
    taken.data = np.sqrt(taken.data)
    return vectors, taken
