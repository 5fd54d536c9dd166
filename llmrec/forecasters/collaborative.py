"""Forecasts from other people: EASE over categories, a Markov chain, neighbouring users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special
from scipy.linalg import lapack

from llmrec.data.counts import age_weighted_counts, normalize_rows, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import (
    DEFAULT_DISPERSION,
    Dispersion,
    fit_dispersion,
    fit_interpolation,
    interpolate,
    make_forecasts,
)
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.types import FloatArray

RECENCY_DECAY = 0.9  # weight of a period relative to the next newer one
PENALTIES = (10.0, 100.0, 1e3, 1e4)  # of CategoryEASE
POWERS = (1.0, 1.5, 2.0)
RECENCY_DECAYS = (0.0, 0.5, 0.8)  # of CategoryMarkov
PSEUDO_EVENTS = 20.0  # of the mix of all targets, in each row of the transition
SHARPNESSES = (10.0, 20.0, 40.0, 80.0)  # of NeighbouringUsers
HISTORIES_PER_BATCH = 256  # histories compared with all others at a time


@dataclass(frozen=True, eq=False)
class CategoryEASE:
    """q = (1 - share) * counting + share * normalised max(x @ item_item, 0)^power.

    x are a person's log(1 + decayed counts), and ``item_item`` (n_categories, n_categories) are the
    weights of EASE over the training histories (`solve_ease`).
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    power: float = 1.0
    share: float = 0.0
    item_item: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Dispersion = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryEASE:
        """Solve on training histories; penalty, power and share are those of least loss."""
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = prior.category_weights(histories)
        x = _log_counts([window.history for window in training])
        gram = x.T @ x
        best, least = self, np.inf
        for penalty in PENALTIES:
            item_item = solve_ease(gram.copy(), penalty)
            for power in POWERS:
                predicted = _distribution(_log_counts(histories) @ item_item, power)
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
        return replace(best, spread=fit_dispersion(histories, weights, targets))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.item_item):
            raise TrainingError("CategoryEASE has no weights yet: fit it")
        predicted = _distribution(_log_counts(histories) @ self.item_item, self.power)
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source("CategoryEASE", "counting"), histories, weights, self.spread)


@dataclass(frozen=True, eq=False)
class CategoryMarkov:
    """q = (1 - share) * counting + share * recent interests @ transition.

    ``transition`` (n_categories, n_categories) has rows that sum to 1: the mix that people took in
    the period after one in which they took the row's category. ``recency`` is the weight of a
    period relative to the next newer one in the recent interests (0: the last period alone).
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    recency: float = 0.5
    share: float = 0.0
    transition: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Dispersion = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryMarkov:
        """Learn the transition on training windows, recency and share on validation windows."""
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = TrainingSpan.of_windows(training, validation).union(prior.fitted)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        best, least = self, np.inf
        for recency in RECENCY_DECAYS:
            transition = _transition(training, recency)
            candidate = replace(
                self, prior=prior, recency=recency, transition=transition, fitted=fitted
            )
            counted, predicted = prior.category_weights(histories), candidate._predict(histories)
            share, loss = fit_interpolation(counted, predicted, targets)
            if loss < least:
                best, least = replace(candidate, share=share), loss
        weights = best.category_weights(histories)
        return replace(best, spread=fit_dispersion(histories, weights, targets))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.transition):
            raise TrainingError("CategoryMarkov has no transition yet: fit it")
        return interpolate(
            self.prior.category_weights(histories), self._predict(histories), self.share
        )

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source("CategoryMarkov", "counting"), histories, weights, self.spread)

    def _predict(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) recent interests @ transition; 0 where there are none."""
        recent = row_shares(age_weighted_counts(histories, age_weights(self.recency)))
        return np.asarray(recent @ self.transition)


@dataclass(frozen=True, eq=False)
class NeighbouringUsers:
    """q = (1 - share) * counting + share * weighted mean of what others took next.

    Others are histories of the training windows; their weights are the softmax of ``sharpness``
    times the similarity of the interest vectors (Bhattacharyya coefficient, 0..1). All of them
    count, the most similar ones most, so that no rounding decides who is a neighbour.

    Attributes
    ----------
    neighbour_interests
        (n_windows, n_categories) square roots of the others' interest vectors.
    neighbour_next_shares
        (n_windows, n_categories) what they took in the period after.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    sharpness: float = 20.0
    share: float = 0.0
    neighbour_interests: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    neighbour_next_shares: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Dispersion = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None
    held_out: HeldOutPredictions | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> NeighbouringUsers:
        """Store the training windows; sharpness and share are those of least validation loss.

        Afterwards the validation windows are stored as well. ``held_out`` are their weights from
        before.
        """
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        targets = target_counts(validation)
        histories = [window.history for window in validation]
        counted = prior.category_weights(histories)
        own = _interest_vectors(histories)
        others = _interest_vectors([window.history for window in training])
        next_shares = row_shares(target_counts(training))
        best, least, weights = self, np.inf, counted
        for sharpness in SHARPNESSES:
            predicted = _neighbour_means(own, others, next_shares, sharpness)
            share, loss = fit_interpolation(counted, predicted, targets)
            if loss < least:
                best, least = replace(self, sharpness=sharpness, share=share), loss
                weights = interpolate(counted, predicted, share)
        return replace(
            best,
            prior=prior,
            neighbour_interests=np.concatenate((others, own)),
            neighbour_next_shares=np.concatenate((next_shares, row_shares(targets))),
            spread=fit_dispersion(histories, weights, targets),
            fitted=TrainingSpan.of_windows(training, validation).union(prior.fitted),
            held_out=HeldOutPredictions.of(validation, weights),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.neighbour_interests):
            raise TrainingError("NeighbouringUsers has no neighbours yet: fit it")
        own = _interest_vectors(histories)
        predicted = _neighbour_means(
            own, self.neighbour_interests, self.neighbour_next_shares, self.sharpness
        )
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("NeighbouringUsers", "counting")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)


def solve_ease(gram: FloatArray, penalty: float) -> FloatArray:
    """(n, n) weights of EASE: least squares of each column of X on the others, diagonal 0.

    B = I - P / diag(P) with P = (X'X + penalty I)^-1 (Steck 2019, arXiv 1905.03375, equation 8).
    The inverse is made of the Cholesky factor, in place and in half the time.

    Parameters
    ----------
    gram
        (n, n) X'X; it is overwritten, since of many items there is no room for a second matrix.
    penalty
        > 0; the larger, the more only common pairs count.
    """
    gram[np.diag_indices(len(gram))] += penalty
    factor, _ = lapack.dpotrf(gram.T, lower=True, overwrite_a=True)  # zeros above the diagonal
    weights, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    weights += np.tril(weights, -1).T
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def _log_counts(histories: Sequence[History]) -> FloatArray:
    """(n, n_categories) log(1 + decayed counts)."""
    return np.log1p(age_weighted_counts(histories, age_weights(RECENCY_DECAY)))


def _distribution(scores: FloatArray, power: float) -> FloatArray:
    """(n, n_categories) positive scores to a power, as shares; 0 where none is positive."""
    return row_shares(np.maximum(scores, 0.0) ** power)


def _transition(windows: Sequence[Window], recency: float) -> FloatArray:
    """(n_categories, n_categories) mix taken after each recent category; rows sum to 1."""
    recent = row_shares(age_weighted_counts([w.history for w in windows], age_weights(recency)))
    targets = target_counts(windows)
    moves = recent.T @ targets
    overall = normalize_rows(targets.sum(axis=0, keepdims=True) + 0.5)
    return normalize_rows(moves + PSEUDO_EVENTS * overall)


def _interest_vectors(histories: Sequence[History]) -> FloatArray:
    """(n, n_categories) square roots of decayed shares: of length 1, or 0 without events."""
    return np.sqrt(row_shares(age_weighted_counts(histories, age_weights(RECENCY_DECAY))))


def _neighbour_means(
    own: FloatArray, others: FloatArray, next_shares: FloatArray, sharpness: float
) -> FloatArray:
    """(n, n_categories) weighted means of others' next shares; 0 for a person without events."""
    means = [
        special.softmax(sharpness * (own[start : start + HISTORIES_PER_BATCH] @ others.T), axis=1)
        @ next_shares
        for start in range(0, len(own), HISTORIES_PER_BATCH)
    ]
    known = own.sum(axis=1, keepdims=True) > 0
    return np.asarray(np.concatenate(means) * known)
