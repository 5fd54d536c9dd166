"""Ridge autoregression: the next interest vector as a linear map of the past ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg

from llmrec.data.counts import normalised, shares_of, target_counts, weighted_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import Fitted
from llmrec.errors import TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import UNFITTED, Spread, fit_spread, forecasts_of
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.precomputed import HeldOut
from llmrec.metrics import mean_loss
from llmrec.types import FloatArray

RATES = (0.0, 0.7, 1.0)  # decays of the interest vectors that are regressed on
PENALTIES = tuple(float(10 ** (power / 2)) for power in range(13))  # 1 to 1e6
FLOOR = 0.1  # least weight of a category, as a part of what counting gives it
SLICE = 2_048


@dataclass(frozen=True, eq=False)
class RidgeAutoregression:
    """q = counting + sqrt(counting) * (features @ map), cut off below and normalised.

    What is regressed is (target - counting) / sqrt(counting): near counting the log-loss is half
    the square of this (Pearson) residual, and rare categories weigh as much as frequent ones.
    Features are the square roots of the shares of the last period, of the recent ones and of all,
    and of counting. ``map`` is (n_features, n_categories).
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    map: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = UNFITTED
    fitted: Fitted | None = None
    held_out: HeldOut | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> RidgeAutoregression:
        """Solve for the map in closed form; the penalty is that of least validation loss.

        With that penalty the map is solved for once more on all windows. ``held_out`` are the
        weights that the validation windows got before.
        """
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = Fitted.on(training, validation).joined(prior.fitted)
        squares, products = _normal_equations(training, prior)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        features, counted = _features(histories, prior)
        losses = {}
        for penalty in PENALTIES:
            weights = _cut(counted, features @ _solve(squares, products, penalty))
            losses[penalty] = mean_loss(weights, targets)
        best = min(losses, key=lambda penalty: losses[penalty])
        held_out = _cut(counted, features @ _solve(squares, products, best))
        more = _normal_equations(validation, prior)
        solved = _solve(squares + more[0], products + more[1], best)
        spread = fit_spread(histories, held_out, targets)
        return replace(
            self,
            prior=prior,
            map=solved,
            spread=spread,
            fitted=fitted,
            held_out=HeldOut.of(validation, held_out),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.map):
            raise TrainingError("RidgeAutoregression has no map yet: fit it")
        features, counted = _features(histories, self.prior)
        return _cut(counted, features @ self.map)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("RidgeAutoregression", "counting")
        return forecasts_of(source, histories, self.category_weights(histories), self.spread)


def _features(histories: Sequence[History], prior: GlobalDrift) -> tuple[FloatArray, FloatArray]:
    """(n, n_features) of a batch, and its (n, n_categories) counting."""
    counted = prior.category_weights(histories)
    taken = [shares_of(weighted_counts(histories, age_weights(rate))) for rate in RATES]
    return np.sqrt(np.concatenate([*taken, counted], axis=1)), counted


def _normal_equations(
    windows: Sequence[Window], prior: GlobalDrift
) -> tuple[FloatArray, FloatArray]:
    """X'X and X'Y, summed over slices of the windows."""
    squares, products = np.zeros(()), np.zeros(())
    for start in range(0, len(windows), SLICE):
        part = windows[start : start + SLICE]
        features, counted = _features([window.history for window in part], prior)
        targets = shares_of(target_counts(part))
        squares = squares + features.T @ features
        products = products + features.T @ ((targets - counted) / np.sqrt(counted))
    return squares, products


def _solve(squares: FloatArray, products: FloatArray, penalty: float) -> FloatArray:
    penalised = squares + penalty * np.eye(len(squares))
    return np.asarray(linalg.solve(penalised, products, assume_a="pos"))


def _cut(counted: FloatArray, change: FloatArray) -> FloatArray:
    return normalised(np.maximum(counted + np.sqrt(counted) * change, FLOOR * counted))
