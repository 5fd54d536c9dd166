"""How far to trust what the model read: fitted on validation, never worse than the prior."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special

from llmrec.contracts import FloatArray, IntArray
from llmrec.data.files import write_text
from llmrec.errors import DataError
from llmrec.forecasters.mixing import shares_of
from llmrec.forecasters.spread import UNFITTED, Spread

FOLDS = 5
SHRINKAGES = (0.001, 0.01, 0.1, 1.0)  # of the bias, per mean loss; chosen by cross-validation
MIN_WINDOWS = 50


@dataclass(frozen=True, eq=False)
class Calibration:
    """q = softmax(log prior + a * (z - center) + bias), z the centred scores the model read.

    Attributes
    ----------
    a
        How far the reading is trusted (>= 0). 0: the model is asked and not believed, because on
        held-out validation users it did not lower the loss (the never-worse fallback).
    center, bias
        (n_categories,) mean score and correction of each category.
    gain
        What reading adds on held-out validation users over the prior with bias, nats per event, as
        (mean, low, high) with a 95 % interval.
    bias_gain
        The same for the bias alone over the bare prior.
    n
        Validation windows.
    spread
        How far observed shares scatter around the calibrated forecasts.
    model
        Fingerprint of the base model whose readings these are.
    """

    a: float
    center: FloatArray
    bias: FloatArray
    gain: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bias_gain: tuple[float, float, float] = (0.0, 0.0, 0.0)
    n: int = 0
    spread: Spread = UNFITTED
    model: str = ""
    categories: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.a == 0 and self.bias.any():
            raise ValueError("where the reading is not trusted (a = 0) the bias must be 0")

    def apply(self, prior: FloatArray, scores: FloatArray) -> FloatArray:
        """Give (n, n_categories) calibrated weights from a prior and centred scores."""
        return softmax_update(prior, scores - self.center, self.a, self.bias)

    @property
    def trusted(self) -> bool:
        """Whether the reading moves the numbers."""
        return self.a > 0

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        values = asdict(self) | {"center": self.center.tolist(), "bias": self.bias.tolist()}
        write_text(path, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path, categories: Sequence[str]) -> Calibration:
        """Read a calibration; DataError if it was fitted for other categories."""
        try:
            return cls._from_values(json.loads(path.read_text(encoding="utf-8")), categories)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no calibration for this log: {error}. Fit it again: engine.fit()."
            ) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any], categories: Sequence[str]) -> Calibration:
        if values["categories"] != list(categories):
            raise ValueError(
                f"it knows {len(values['categories'])} other categories than the "
                f"{len(categories)} of this catalog"
            )
        for name in ("center", "bias"):
            values[name] = np.array(values[name])
        for name in ("gain", "bias_gain", "categories"):
            values[name] = tuple(values[name])
        values["spread"] = Spread(*values["spread"])
        return cls(**values)


def softmax_update(
    prior: FloatArray, scores: FloatArray, a: float, bias: FloatArray | float
) -> FloatArray:
    """softmax(log prior + a * scores + bias) by row: (n, n_categories)."""
    return np.asarray(special.softmax(np.log(prior) + a * scores + bias, axis=1))


def fit_calibration(
    prior: FloatArray, scores: FloatArray, targets: FloatArray, *, seed: int = 0
) -> Calibration:
    """Fit a and the bias; nothing is changed unless the reading helps users it was not fitted on.

    Five-fold cross-validation over users compares the bare prior, the prior with a bias, and both
    with the reading. Where the 95 % interval of what reading adds reaches below 0, a and the bias
    are 0 and the forecast is the prior itself: a bias alone is the season of one period, not
    anything the model read.

    Parameters
    ----------
    prior, scores, targets
        (n, n_categories): the prior's weights, the model's centred scores, and what was taken
        (counts or shares), one row a validation window.
    """
    n = len(prior)
    if n < MIN_WINDOWS:
        raise DataError(f"{n} validation windows are too few to calibrate on; give {MIN_WINDOWS}.")
    shares = shares_of(targets)  # a target without events adds no loss, whatever is fitted
    center = scores.mean(axis=0)
    z = scores - center
    folds = np.random.default_rng(seed).permutation(n) % FOLDS
    bare = _losses(prior, shares)
    shrinkage, with_bias = _best_shrinkage(prior, z, shares, folds, reading=False)
    bias_gain = _interval(bare - with_bias)
    keep_bias = bias_gain[1] > 0
    if not keep_bias:
        shrinkage, with_bias = np.inf, bare
    read = _held_out(prior, z, shares, folds, shrinkage, reading=True)
    gain = _interval(with_bias - read)
    if gain[1] <= 0:
        return Calibration(0.0, center, np.zeros_like(center), gain, bias_gain, n)
    a, bias = _fit(prior, z, shares, shrinkage, reading=True)
    return Calibration(a, center, bias, gain, bias_gain, n)


def _best_shrinkage(
    prior: FloatArray, z: FloatArray, shares: FloatArray, folds: IntArray, *, reading: bool
) -> tuple[float, FloatArray]:
    tried = {s: _held_out(prior, z, shares, folds, s, reading=reading) for s in SHRINKAGES}
    best = min(tried, key=lambda s: float(tried[s].mean()))
    return best, tried[best]


def _held_out(
    prior: FloatArray,
    z: FloatArray,
    shares: FloatArray,
    folds: IntArray,
    shrinkage: float,
    *,
    reading: bool,
) -> FloatArray:
    """(n,) loss of each window under a fit that did not see it."""
    losses = np.empty(len(prior))
    for fold in range(FOLDS):
        out = folds == fold
        a, bias = _fit(prior[~out], z[~out], shares[~out], shrinkage, reading=reading)
        losses[out] = _losses(softmax_update(prior[out], z[out], a, bias), shares[out])
    return losses


def _fit(
    prior: FloatArray, z: FloatArray, shares: FloatArray, shrinkage: float, *, reading: bool
) -> tuple[float, FloatArray]:
    """Give a (0 unless reading) and the bias (0 if shrinkage is infinite) of least loss; convex."""
    n, n_categories = prior.shape
    bias_free = np.isfinite(shrinkage)

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        q = softmax_update(prior, z, x[0], x[1:])
        residual = q - shares
        penalty = shrinkage if bias_free else 0.0
        value = float(_losses(q, shares).mean() + penalty * (x[1:] ** 2).sum() / 2)
        slope_a = (residual * z).sum() / n
        return value, np.append(slope_a, residual.mean(axis=0) + penalty * x[1:])

    bounds = [(0.0, None if reading else 0.0)] + [
        (None, None) if bias_free else (0.0, 0.0)
    ] * n_categories
    found = optimize.minimize(
        loss, np.zeros(n_categories + 1), jac=True, bounds=bounds, method="L-BFGS-B"
    )
    return float(found.x[0]), np.asarray(found.x[1:])


def _losses(q: FloatArray, shares: FloatArray) -> FloatArray:
    return -np.asarray((shares * np.log(np.maximum(q, 1e-300))).sum(axis=1))


def _interval(gains: FloatArray) -> tuple[float, float, float]:
    """Mean and its 95 % normal interval."""
    mean, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return mean, mean - 1.96 * error, mean + 1.96 * error
