"""How far to trust a prediction, fitted on validation windows; how far targets scatter around."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from llmrec.data.counts import row_shares
from llmrec.data.files import atomic_write_text
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Source
from llmrec.metrics import mean_log_loss
from llmrec.types import FloatArray, IntArray

INTERPOLATION_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)


def interpolate(counted: FloatArray, learned: FloatArray, share: float) -> FloatArray:
    """(1 - share) * counted + share * learned by row; counted alone where learned is all 0."""
    believed = share * learned.sum(axis=1, keepdims=True)
    return np.asarray((1 - believed) * counted + share * learned)


def fit_interpolation(
    counted: FloatArray, learned: FloatArray, targets: FloatArray
) -> tuple[float, float]:
    """Give the share of least log-loss, and this loss; all arrays are (n, n_categories)."""
    losses = {
        share: mean_log_loss(interpolate(counted, learned, share), targets)
        for share in INTERPOLATION_WEIGHTS
    }
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]


# Bounds of the variance: concentrations of 1e6 and 0.5.
MIN_VARIANCE, MAX_VARIANCE = 1e-6, 2 / 3


class Dispersion(NamedTuple):
    """Variance of an observed share around its forecast w: w (1 - w) (latent + sampling / m).

    ``latent`` is what nobody could know, ``sampling`` the noise of a period's few events: m is the
    mean number of events in the non-empty periods of the person's history (1 for an empty one).
    """

    latent: float = 0.02
    sampling: float = 0.0

    def concentration(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories,) Dirichlet concentrations with that variance, in 0.5..1e6."""
        variance = self.latent + self.sampling / _events_a_period(histories)
        return np.asarray(1 / np.clip(variance, MIN_VARIANCE, MAX_VARIANCE) - 1)


DEFAULT_DISPERSION = Dispersion()


def fit_dispersion(
    histories: Sequence[History], category_weights: FloatArray, targets: FloatArray
) -> Dispersion:
    """Fit a spread by moments to what was observed.

    With a Dirichlet, E sum_c (share_c - w_c)^2 = (1 - sum_c w_c^2) / (concentration + 1); both
    parts of the variance are found by non-negative least squares over users. ``category_weights``
    and ``targets`` (counts) are (n_histories, n_categories); targets without events are left out.
    """
    totals = targets.sum(axis=1)
    seen = totals > 0
    shares = targets[seen] / totals[seen, None]
    weights = category_weights[seen]
    largest = np.maximum(1 - (weights**2).sum(axis=1), 1e-9)
    found = ((shares - weights) ** 2).sum(axis=1) / largest
    causes = np.stack((np.ones(len(found)), 1 / _events_a_period(histories)[seen]), axis=1)
    (latent, sampling), _ = optimize.nnls(causes, found)
    return Dispersion(float(latent), float(sampling))


def make_forecasts(
    source: Source, histories: Sequence[History], category_weights: FloatArray, spread: Dispersion
) -> list[Forecast]:
    """Dress (n_histories, n_categories) weights as forecasts without words."""
    return [
        Forecast(weights, concentration, "", (), source)
        for weights, concentration in zip(
            category_weights, spread.concentration(histories).tolist(), strict=True
        )
    ]


def _events_a_period(histories: Sequence[History]) -> FloatArray:
    n_periods = np.array([history.n_periods for history in histories])
    last = (n_periods + 1).cumsum()
    sizes = np.diff(np.concatenate([history.offsets for history in histories]))
    sizes = np.delete(sizes, last[:-1] - 1)  # events of each period
    starts = n_periods.cumsum() - n_periods
    periods = np.add.reduceat(sizes > 0, starts, dtype=np.int64)
    return np.asarray(np.maximum(np.add.reduceat(sizes, starts) / np.maximum(periods, 1), 1.0))


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
    spread: Dispersion = DEFAULT_DISPERSION
    model: str = ""
    categories: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.a == 0 and self.bias.any():
            raise ValueError("where the reading is not trusted (a = 0) the bias must be 0")

    def apply(self, prior: FloatArray, scores: FloatArray) -> FloatArray:
        """Give (n, n_categories) calibrated weights from a prior and centred scores."""
        return softmax_update(prior, scores - self.center, self.a, self.bias)

    @property
    def is_trusted(self) -> bool:
        """Whether the reading moves the numbers."""
        return self.a > 0

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        values = asdict(self) | {"center": self.center.tolist(), "bias": self.bias.tolist()}
        atomic_write_text(path, json.dumps(values, indent=1, ensure_ascii=False))

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
        values["spread"] = Dispersion(*values["spread"])
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
    shares = row_shares(targets)  # a target without events adds no loss, whatever is fitted
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


def center_rows(scores: FloatArray) -> FloatArray:
    """Subtract each row's mean from (n, n_categories) scores; softmax does not see it."""
    means: FloatArray = scores.mean(axis=1, keepdims=True)
    return scores - means
