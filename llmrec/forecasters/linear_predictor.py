"""Linear functions of features that stay within what their fit has seen, and logistic ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from llmrec.types import BoolArray, FloatArray

SAME = 1e-6  # standard deviation of a feature below which it has no part in a fit


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """constant + sum of slope * (feature - mean) / deviation, each feature within its range.

    Attributes
    ----------
    coefficients
        (1 + n_features,) the constant and the slopes.
    scaling
        (4, n_features) mean, standard deviation, smallest and largest value on the data of the fit.
        A feature that was constant there has the deviation 0 and no part in the prediction.
    """

    coefficients: FloatArray
    scaling: FloatArray

    @classmethod
    def fit(
        cls, features: FloatArray, fit_scaled: Callable[[FloatArray], FloatArray]
    ) -> LinearPredictor:
        """Fit on (n, n_features) features.

        ``fit_scaled`` is given them with mean 0 and deviation 1, and gives the coefficients.
        """
        if not len(features):
            scaling = np.zeros((4, features.shape[1]))
        else:
            deviation = features.std(axis=0)
            deviation = np.where(deviation > SAME, deviation, 0.0)
            low, high = features.min(axis=0), features.max(axis=0)
            scaling = np.stack((features.mean(axis=0), deviation, low, high))
        predictor = cls(np.zeros(1 + features.shape[1]), scaling)
        scaled = [predictor._scale(n, column) for n, column in enumerate(features.T)]
        return cls(fit_scaled(np.stack(scaled, axis=1)), scaling)

    def predict(self, features: Sequence[FloatArray]) -> FloatArray:
        """Predict from one array a feature, of shapes that broadcast."""
        found: FloatArray = np.asarray(self.coefficients[0])
        for n, feature in enumerate(features):
            found = found + self.coefficients[1 + n] * self._scale(n, feature)
        return found

    def arrays(self, name: str) -> dict[str, FloatArray]:
        """Give the arrays it is made again from, by names that begin with ``name``."""
        return {f"{name}.coefficients": self.coefficients, f"{name}.scaling": self.scaling}

    @classmethod
    def from_arrays(
        cls, name: str, arrays: Mapping[str, FloatArray], n_features: int
    ) -> LinearPredictor:
        """Make it again; ValueError if the arrays are of other shapes."""
        coefficients, scaling = arrays[f"{name}.coefficients"], arrays[f"{name}.scaling"]
        if coefficients.shape != (1 + n_features,) or scaling.shape != (4, n_features):
            raise ValueError(f"{name} is not of {n_features} features")
        return cls(coefficients, scaling)

    def _scale(self, n: int, feature: FloatArray) -> FloatArray:
        mean, deviation, low, high = self.scaling[:, n]
        if not deviation:
            return np.zeros(np.shape(feature))
        return np.asarray((np.clip(feature, low, high) - mean) / deviation)


def fit_logistic(
    features: FloatArray, outcomes: BoolArray, *, shrinkage: float = 1e-4, rising: bool = False
) -> LinearPredictor:
    """Fit the logit of a probability on (n, n_features) features by penalised likelihood.

    Parameters
    ----------
    outcomes
        (n,) what came true.
    shrinkage
        Of the squared coefficients, per mean log-likelihood; without it a constant outcome would
        have an infinite one.
    rising
        Whether no slope may be negative.
    """
    y = outcomes.astype(np.float64)

    def fit(scaled: FloatArray) -> FloatArray:
        x = np.concatenate((np.ones((len(scaled), 1)), scaled), axis=1)
        size = max(1, len(x))

        def loss(found: FloatArray) -> tuple[float, FloatArray]:
            logits = x @ found
            value = (np.logaddexp(0, logits) - y * logits).sum() / size
            gradient = x.T @ (special.expit(logits) - y) / size
            return (
                float(value + shrinkage * (found**2).sum() / 2),
                gradient + shrinkage * found,
            )

        bounds = [(None, None)] + [(0.0 if rising else None, None)] * scaled.shape[1]
        start = np.zeros(x.shape[1])
        solved = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
        return np.asarray(solved.x)

    return LinearPredictor.fit(features, fit)
