"""Forecasts from what people take together or in turn: EASE over categories, a Markov chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from llmrec.data.counts import normalize_rows, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.sparse_counts import (
    sparse_age_weighted_counts,
    sparse_row_shares,
    sparse_target_counts,
)
from llmrec.data.stored import Stored
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import fit_interpolation, interpolate, make_forecasts
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.stored_values import (
    fit_values,
    read_fit,
    read_matrix,
    read_number,
    refuse_broken,
)
from llmrec.types import FloatArray

RECENCY_DECAY = 0.9  # weight of a period relative to the next newer one
PENALTIES = (10.0, 100.0, 1e3, 1e4)  # of CategoryEASE
MAX_SQUARE_CATEGORIES = 4_000  # of more, a square of them takes minutes and gigabytes
MAX_SOLVED_PART = 0.75  # of a matrix with empty columns: more would need room for a second one
POWERS = (1.0, 1.5, 2.0)
RECENCY_DECAYS = (0.0, 0.5, 0.8)  # of CategoryMarkov
PSEUDO_EVENTS = 20.0  # of the mix of all targets, in each row of the transition


@dataclass(frozen=True, eq=False)
class CategoryEASE:
    """q = (1 - share) * counting + share * normalised max(x @ item_item, 0)^power.

    x are a person's log(1 + decayed counts), and ``item_item`` (n_categories, n_categories) are the
    weights of EASE over the training histories (`solve_ease`). For `MAX_SQUARE_CATEGORIES` at most.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    power: float = 1.0
    share: float = 0.0
    item_item: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryEASE:
        """Solve on training histories; penalty, power and share are those of least loss.

        Raises
        ------
        DataError
            If there are no windows, or the catalog has more than `MAX_SQUARE_CATEGORIES`.
        """
        _check_size("CategoryEASE", validation)
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = prior.category_weights(histories)
        x = _log_counts([window.history for window in training])
        gram, x = (x.T @ x).toarray(), _log_counts(histories)
        best, least = self, np.inf
        for penalty in PENALTIES:
            item_item = solve_ease(gram.copy(), penalty)
            scores = x @ item_item
            for power in POWERS:
                predicted = _distribution(scores, power)
                share, loss = fit_interpolation(counted, predicted, targets)
                if loss < least:
                    best = replace(self, power=power, share=share, item_item=item_item)
                    least = loss
        best = replace(
            best,
            prior=prior,
            fitted=TrainingSpan.of_windows(training, validation).union(prior.fitted),
        )
        weights = best.category_weights(histories)
        return replace(best, spread=fit_dispersion(validation, weights))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        self._check_fitted()
        predicted = _distribution(_log_counts(histories) @ self.item_item, self.power)
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source("CategoryEASE", "counting"), histories, weights, self.spread)

    def stored(self) -> Stored:
        """Give the weights, and the prior as a part; TrainingError before a fit."""
        self._check_fitted()
        values = {"power": self.power, "share": self.share}
        values |= fit_values(self.spread, self.fitted)
        arrays, parts = {"item_item": self.item_item}, {"prior": self.prior.stored()}
        return Stored("CategoryEASE", values, arrays, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored) -> CategoryEASE:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "CategoryEASE"):
            return cls(
                GlobalDrift.from_stored(stored.parts["prior"]),
                power=read_number(stored, "power"),
                share=read_number(stored, "share", high=1.0),
                item_item=read_matrix(stored, "item_item"),
                **read_fit(stored),
            )

    def _check_fitted(self) -> None:
        if not len(self.item_item):
            raise TrainingError("CategoryEASE has no weights yet: fit it")


@dataclass(frozen=True, eq=False)
class CategoryMarkov:
    """q = (1 - share) * counting + share * recent interests @ transition.

    ``transition`` (n_categories, n_categories) has rows that sum to 1: the mix that people took in
    the period after one in which they took the row's category. ``recency`` is the weight of a
    period relative to the next newer one in the recent interests (0: the last period alone). For
    `MAX_SQUARE_CATEGORIES` at most.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    recency: float = 0.5
    share: float = 0.0
    transition: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryMarkov:
        """Learn the transition on training windows, recency and share on validation windows.

        Raises
        ------
        DataError
            If there are no windows, or the catalog has more than `MAX_SQUARE_CATEGORIES`.
        """
        _check_size("CategoryMarkov", validation)
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = TrainingSpan.of_windows(training, validation).union(prior.fitted)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted, following = prior.category_weights(histories), sparse_target_counts(training)
        best, least = self, np.inf
        for recency in RECENCY_DECAYS:
            recent = _recent_shares([window.history for window in training], recency)
            candidate = replace(
                self,
                prior=prior,
                recency=recency,
                transition=_transition(recent, following),
                fitted=fitted,
            )
            predicted = candidate._predict(histories)
            share, loss = fit_interpolation(counted, predicted, targets)
            if loss < least:
                best, least = replace(candidate, share=share), loss
        weights = best.category_weights(histories)
        return replace(best, spread=fit_dispersion(validation, weights))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        self._check_fitted()
        return interpolate(
            self.prior.category_weights(histories), self._predict(histories), self.share
        )

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source("CategoryMarkov", "counting"), histories, weights, self.spread)

    def stored(self) -> Stored:
        """Give the transition, and the prior as a part; TrainingError before a fit."""
        self._check_fitted()
        values = {"recency": self.recency, "share": self.share}
        values |= fit_values(self.spread, self.fitted)
        arrays, parts = {"transition": self.transition}, {"prior": self.prior.stored()}
        return Stored("CategoryMarkov", values, arrays, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored) -> CategoryMarkov:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "CategoryMarkov"):
            transition = read_matrix(stored, "transition")
            if transition.min() < 0 or np.abs(transition.sum(axis=1) - 1).max() > 1e-6:
                raise ValueError("a row of transition is no distribution")
            return cls(
                GlobalDrift.from_stored(stored.parts["prior"]),
                recency=read_number(stored, "recency", high=1.0),
                share=read_number(stored, "share", high=1.0),
                transition=transition,
                **read_fit(stored),
            )

    def _predict(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) recent interests @ transition; 0 where there are none."""
        return np.asarray(_recent_shares(histories, self.recency) @ self.transition)

    def _check_fitted(self) -> None:
        if not len(self.transition):
            raise TrainingError("CategoryMarkov has no transition yet: fit it")


def _check_size(name: str, windows: Sequence[Window]) -> None:
    n_categories = windows[0].history.catalog.n_categories if windows else 0
    if n_categories > MAX_SQUARE_CATEGORIES:
        raise DataError(
            f"{name} has a number for each pair of categories, of {MAX_SQUARE_CATEGORIES:,} "
            f"categories at most, not {n_categories:,}: use NeighbouringUsers, or put categories "
            "together"
        )


def solve_ease(gram: FloatArray, penalty: float) -> FloatArray:
    """(n, n) weights of EASE, by rows: least squares of each column of X on the others, diagonal 0.

    B = I - P / diag(P) with P = (X'X + penalty I)^-1 (Steck 2019, arXiv 1905.03375, equation 8).
    The inverse is made of the Cholesky factor, in place and in half the time. Where many columns of
    X are 0, as of items that a young log's people have not taken, those stay out of it: their
    weights are 0.

    Parameters
    ----------
    gram
        (n, n) X'X; it is overwritten, since of many items there is no room for a second matrix.
    penalty
        > 0; the larger, the more only common pairs count.
    """
    some = np.flatnonzero(np.diag(gram))
    if len(some) < MAX_SOLVED_PART * len(gram):
        places = np.ix_(some, some)
        weights = solve_ease(gram[places], penalty) if len(some) else 0.0
        gram[:] = 0.0
        gram[places] = weights
        return gram
    gram[np.diag_indices(len(gram))] += penalty
    factor, _ = lapack.dpotrf(gram.T, lower=True, overwrite_a=True)  # zeros above the diagonal
    weights, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    weights += np.tril(weights, -1).T
    weights = weights.T  # symmetric, so the same numbers, but row by row as when loaded
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def _log_counts(histories: Sequence[History]) -> sparse.csr_array:
    """(n, n_categories) log(1 + decayed counts)."""
    return sparse_age_weighted_counts(histories, age_weights(RECENCY_DECAY)).log1p()


def _distribution(scores: FloatArray, power: float) -> FloatArray:
    """(n, n_categories) positive scores to a power, as shares; 0 where none is positive."""
    return row_shares(np.maximum(scores, 0.0) ** power)


def _recent_shares(histories: Sequence[History], recency: float) -> sparse.csr_array:
    """(n, n_categories) decayed shares; 0 for a person without events."""
    return sparse_row_shares(sparse_age_weighted_counts(histories, age_weights(recency)))


def _transition(recent: sparse.csr_array, following: sparse.csr_array) -> FloatArray:
    """(n_categories, n_categories) mix taken after each recent category; rows sum to 1."""
    moves = (recent.T @ following).toarray()
    overall = normalize_rows(following.sum(axis=0)[None] + 0.5)
    return normalize_rows(moves + PSEUDO_EVENTS * overall)
