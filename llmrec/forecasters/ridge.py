"""Ridge autoregression: the next interest vector as a linear map of the past ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg

from llmrec.data.counts import age_weighted_counts, normalize_rows, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.forecasters.stored_values import fit_values, read_fit, read_matrix, refuse_broken
from llmrec.forecasters.target_cells import TargetCells
from llmrec.types import FloatArray

FEATURE_DECAYS = (0.0, 0.7, 1.0)  # decays of the interest vectors that are regressed on
PENALTIES = tuple(float(10 ** (power / 2)) for power in range(13))  # 1 to 1e6
MIN_RELATIVE_WEIGHT = 0.1  # least weight of a category relative to that of counting
WINDOWS_PER_BATCH = 2_048
MAX_CATEGORIES = 1_000  # of more, the square of four features each takes minutes and gigabytes


@dataclass(frozen=True, eq=False)
class RidgeAutoregression:
    """q = counting + sqrt(counting) * (features @ map), cut off below and normalised.

    What is regressed is (target - counting) / sqrt(counting): near counting the log-loss is half
    the square of this (Pearson) residual, and rare categories weigh as much as frequent ones.
    Features are the square roots of the shares of the last period, of the recent ones and of all,
    and of counting. ``coefficients`` is (n_features, n_categories). For `MAX_CATEGORIES` at most.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    coefficients: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None
    held_out: HeldOutPredictions | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> RidgeAutoregression:
        """Solve for the map in closed form; the penalty is that of least validation loss.

        With that penalty the map is solved for again on all windows. ``held_out`` are the weights
        of the validation windows from before.

        Raises
        ------
        DataError
            If there is no window, or the catalog has more than `MAX_CATEGORIES`.
        """
        fitted = TrainingSpan.of_windows(training, validation)
        _check_size((*training, *validation)[0].history.catalog.n_categories)
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = fitted.union(prior.fitted)
        squares, products = _normal_equations(training, prior)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        features, counted = _features(histories, prior)
        cells, losses = TargetCells.of(targets), {}
        for penalty in PENALTIES:
            weights = _apply_change(counted, features @ _solve(squares, products, penalty))
            losses[penalty] = cells.mean_log_loss(cells.take(weights))
        best = min(losses, key=lambda penalty: losses[penalty])
        held_out = _apply_change(counted, features @ _solve(squares, products, best))
        of_validation = _normal_equations(validation, prior)
        solved = _solve(squares + of_validation[0], products + of_validation[1], best)
        spread = fit_dispersion(validation, held_out)
        return replace(
            self,
            prior=prior,
            coefficients=np.ascontiguousarray(solved),  # as when loaded, to the bit
            spread=spread,
            fitted=fitted,
            held_out=HeldOutPredictions.of(validation, held_out),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        self._check_fitted()
        features, counted = _features(histories, self.prior)
        return _apply_change(counted, features @ self.coefficients)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("RidgeAutoregression", "counting")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def stored(self) -> Stored:
        """Give the map, and the prior as a part; TrainingError before a fit."""
        self._check_fitted()
        values, arrays = fit_values(self.spread, self.fitted), {"coefficients": self.coefficients}
        return Stored("RidgeAutoregression", values, arrays, parts={"prior": self.prior.stored()})

    @classmethod
    def from_stored(cls, stored: Stored) -> RidgeAutoregression:
        """Make it again, without held-out weights; ModelLoadError if a value cannot be."""
        with refuse_broken(stored, "RidgeAutoregression"):
            prior = GlobalDrift.from_stored(stored.parts["prior"])
            coefficients = read_matrix(stored, "coefficients", len(FEATURE_DECAYS) + 1)
            return cls(prior, coefficients, **read_fit(stored))

    def _check_fitted(self) -> None:
        if not len(self.coefficients):
            raise TrainingError("RidgeAutoregression has no map yet: fit it")


def _check_size(n_categories: int) -> None:
    if n_categories > MAX_CATEGORIES:
        raise DataError(
            f"RidgeAutoregression solves for {len(FEATURE_DECAYS) + 1} features of each category, "
            f"of {MAX_CATEGORIES:,} categories at most, not {n_categories:,}: use CategoryEASE or "
            "NeighbouringUsers, as `mixture_experts` does, or put categories together"
        )


def _features(histories: Sequence[History], prior: GlobalDrift) -> tuple[FloatArray, FloatArray]:
    """(n, n_features) features of histories, and their (n, n_categories) weights of counting."""
    counted = prior.category_weights(histories)
    shares = [
        row_shares(age_weighted_counts(histories, age_weights(decay))) for decay in FEATURE_DECAYS
    ]
    return np.sqrt(np.concatenate([*shares, counted], axis=1)), counted


def _normal_equations(
    windows: Sequence[Window], prior: GlobalDrift
) -> tuple[FloatArray, FloatArray]:
    """X'X and X'Y, summed over batches of the windows."""
    squares, products = np.zeros(()), np.zeros(())
    for start in range(0, len(windows), WINDOWS_PER_BATCH):
        part = windows[start : start + WINDOWS_PER_BATCH]
        features, counted = _features([window.history for window in part], prior)
        targets = row_shares(target_counts(part))
        squares = squares + features.T @ features
        products = products + features.T @ ((targets - counted) / np.sqrt(counted))
    return squares, products


def _solve(squares: FloatArray, products: FloatArray, penalty: float) -> FloatArray:
    penalised = squares + penalty * np.eye(len(squares))
    return np.asarray(linalg.solve(penalised, products, assume_a="pos"))


def _apply_change(counted: FloatArray, change: FloatArray) -> FloatArray:
    """(n, n_categories) counting + sqrt(counting) * change, limited below; rows sum to 1."""
    return normalize_rows(
        np.maximum(counted + np.sqrt(counted) * change, MIN_RELATIVE_WEIGHT * counted)
    )
