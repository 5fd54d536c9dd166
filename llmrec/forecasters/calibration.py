"""Calibration of predictions on validation windows: dispersion, interpolation, softmax update."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special

from llmrec.data.counts import row_shares
from llmrec.data.files import atomic_write_text
from llmrec.data.json_values import UNREADABLE, read_json_object
from llmrec.data.periods import History
from llmrec.data.versions import FIRST_VERSION, __version__, unknown_keys
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, read_spread
from llmrec.forecasters.dispersion import Dispersion as Dispersion
from llmrec.forecasters.selective import GainGroup, group_gains, normal_interval
from llmrec.forecasters.target_cells import TargetCells
from llmrec.types import FloatArray, IntArray

INTERPOLATION_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
N_FOLDS = 5
MAX_LOSS_DIFFERENCE = 0.001  # nats per event that another precision may change
SHRINKAGES = (0.001, 0.01, 0.1, 1.0)  # of the bias, per mean loss; chosen by cross-validation


def make_forecasts(
    source: Source, histories: Sequence[History], category_weights: FloatArray, spread: Spread
) -> list[Forecast]:
    """Make forecasts without words of (n_histories, n_categories) weights."""
    return [
        Forecast(weights, concentration, "", (), source)
        for weights, concentration in zip(
            category_weights, spread.concentration(histories).tolist(), strict=True
        )
    ]


def interpolate(prior: FloatArray, predicted: FloatArray, share: float) -> FloatArray:
    """(1 - share) * prior + share * predicted by row; the prior alone where predicted is all 0."""
    return _mix(prior, predicted, predicted.sum(axis=1, keepdims=True), share)


def _mix(prior: FloatArray, predicted: FloatArray, known: FloatArray, share: float) -> FloatArray:
    return np.asarray((1 - share * known) * prior + share * predicted)


def fit_interpolation(
    prior: FloatArray, predicted: FloatArray, targets: FloatArray
) -> tuple[float, float]:
    """Give the share of least log-loss, and this loss; all arrays are (n, n_categories)."""
    cells = TargetCells.of(targets)
    totals = predicted.sum(axis=1)
    return fit_interpolation_of_cells(cells, cells.take(prior), cells.take(predicted), totals)


def fit_interpolation_of_cells(
    cells: TargetCells, prior: FloatArray, predicted: FloatArray, totals: FloatArray
) -> tuple[float, float]:
    """Give the same of (n_cells,) weights and the (n_windows,) sums of all that are predicted."""
    known = totals[cells.rows]
    losses = {
        share: cells.mean_log_loss(_mix(prior, predicted, known, share))
        for share in INTERPOLATION_WEIGHTS
    }
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]


@dataclass(frozen=True, eq=False)
class Calibration:
    """q = softmax(log prior + a * (z - center) + bias), z the model's centred category scores.

    Attributes
    ----------
    a
        Calibration weight of the scores (>= 0). 0: they are not used, because on held-out
        validation users they did not lower the loss (the never-worse fallback).
    center, bias
        (n_categories,) mean score and correction of each category.
    gain
        What the scores take off the loss of held-out validation users, over the prior with bias,
        in nats per event: (mean, low, high) of a 95 % interval.
    bias_gain
        The same for the bias alone over the bare prior.
    n
        Validation windows.
    spread
        How far observed shares scatter around the calibrated forecasts.
    model
        Fingerprint of the base model that gave the scores.
    groups
        What the model's scores and titles gain by the number of past events; none if not known.
    equivalents
        Fingerprints of the same model in other precisions, and what reading in them added to the
        log-loss of validation windows, in nats per event.
    """

    a: float
    center: FloatArray
    bias: FloatArray
    gain: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bias_gain: tuple[float, float, float] = (0.0, 0.0, 0.0)
    n: int = 0
    spread: Spread = DEFAULT_DISPERSION
    model: str = ""
    categories: tuple[str, ...] = field(default=())
    groups: tuple[GainGroup, ...] = ()
    equivalents: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.a == 0 and self.bias.any():
            raise ValueError("where the scores are not used (a = 0) the bias must be 0")

    def apply(self, prior: FloatArray, scores: FloatArray) -> FloatArray:
        """Give (n, n_categories) calibrated weights from a prior and centred scores."""
        return softmax_update(prior, scores - self.center, self.a, self.bias)

    @property
    def is_trusted(self) -> bool:
        """Whether the scores change the forecast."""
        return self.a > 0

    def suits(self, fingerprint: str) -> bool:
        """Whether it is of this model, or of one measured to forecast as well within .001 nats."""
        difference = self.equivalents.get(fingerprint, math.inf)
        return fingerprint == self.model or abs(difference) <= MAX_LOSS_DIFFERENCE

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        arrays = {"center": self.center.tolist(), "bias": self.bias.tolist()}
        values = {"version": __version__} | asdict(self) | arrays
        atomic_write_text(path, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path, categories: Sequence[str]) -> Calibration:
        """Read a calibration; DataError if it was fitted for other categories."""
        try:
            return cls._from_values(read_json_object(path), categories)
        except UNREADABLE as error:
            raise DataError(
                f"{path} is no calibration for this log: {error}. Fit it again: engine.fit()."
            ) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any], categories: Sequence[str]) -> Calibration:
        version = values.pop("version", FIRST_VERSION)
        if unknown := unknown_keys(values, (one.name for one in fields(cls)), version):
            raise ValueError(unknown)
        if values["categories"] != list(categories):
            raise ValueError(
                f"it knows {len(values['categories'])} other categories than the "
                f"{len(categories)} of this catalog"
            )
        for name in ("center", "bias"):
            values[name] = np.array(values[name])
        for name in ("gain", "bias_gain", "categories"):
            values[name] = tuple(values[name])
        for name, added in values.get("equivalents", {}).items():
            if type(added) not in (int, float):
                raise ValueError(f"what {name!r} adds to the log-loss is {added!r:.40}, no number")
        values["spread"] = read_spread(values["spread"])
        values["groups"] = tuple(GainGroup.from_values(one) for one in values.get("groups", ()))
        return cls(**values)


def softmax_update(
    prior: FloatArray, scores: FloatArray, a: float, bias: FloatArray | float
) -> FloatArray:
    """softmax(log prior + a * scores + bias) by row: (n, n_categories)."""
    return np.asarray(special.softmax(np.log(prior) + a * scores + bias, axis=1))


def fit_calibration(
    prior: FloatArray,
    scores: FloatArray,
    targets: FloatArray,
    *,
    seed: int = 0,
    n_events: IntArray | None = None,
    gain_before: FloatArray | float = 0.0,
) -> Calibration:
    """Fit a and the bias; both are 0 unless the scores help users that they were not fitted on.

    Five-fold cross-validation over users compares the bare prior, the prior with a bias, and both
    with the scores. Where the 95 % interval of the gain reaches below 0, a and the bias are 0 and
    the forecast is the prior itself: a bias alone is the season of one period, nothing that the
    model knows.

    Parameters
    ----------
    prior, scores, targets
        (n, n_categories): the prior's weights, the model's centred scores, and what was taken
        (counts or shares), one row a validation window.
    n_events
        (n,) past events of each window's person, by which the gains are grouped.
    gain_before
        (n,) what the model has given the prior already: its titles.
    """
    n = len(prior)
    if n < MIN_CALIBRATION_WINDOWS:
        raise DataError(
            f"{n} validation windows are too few to calibrate on; give {MIN_CALIBRATION_WINDOWS}."
        )
    shares = row_shares(targets)  # a target without events adds no loss under any parameters
    center = scores.mean(axis=0)
    z = scores - center
    folds = np.random.default_rng(seed).permutation(n) % N_FOLDS
    without = _losses(prior, shares)
    shrinkage, with_bias = _best_shrinkage(prior, z, shares, folds)
    bias_gain = normal_interval(without - with_bias)
    if bias_gain[1] <= 0:
        shrinkage, with_bias = np.inf, without
    with_scores = _held_out_losses(prior, z, shares, folds, shrinkage, use_scores=True)
    gain = normal_interval(with_bias - with_scores)
    a, bias, gains = 0.0, np.zeros_like(center), np.zeros(n) + gain_before
    if gain[1] > 0:
        a, bias = _fit(prior, z, shares, shrinkage, use_scores=True)
        gains += without - with_scores
    groups = () if n_events is None else group_gains(n_events, gains)
    return Calibration(a, center, bias, gain, bias_gain, n, groups=groups)


def _best_shrinkage(
    prior: FloatArray, z: FloatArray, shares: FloatArray, folds: IntArray
) -> tuple[float, FloatArray]:
    """Give the shrinkage of a bias of least held-out loss, and its (n,) losses."""
    losses = {
        shrinkage: _held_out_losses(prior, z, shares, folds, shrinkage, use_scores=False)
        for shrinkage in SHRINKAGES
    }
    best = min(losses, key=lambda shrinkage: float(losses[shrinkage].mean()))
    return best, losses[best]


def _held_out_losses(
    prior: FloatArray,
    z: FloatArray,
    shares: FloatArray,
    folds: IntArray,
    shrinkage: float,
    *,
    use_scores: bool,
) -> FloatArray:
    """(n,) loss of each window under a fit without it."""
    losses = np.empty(len(prior))
    for fold in range(N_FOLDS):
        out = folds == fold
        a, bias = _fit(prior[~out], z[~out], shares[~out], shrinkage, use_scores=use_scores)
        losses[out] = _losses(softmax_update(prior[out], z[out], a, bias), shares[out])
    return losses


def _fit(
    prior: FloatArray, z: FloatArray, shares: FloatArray, shrinkage: float, *, use_scores: bool
) -> tuple[float, FloatArray]:
    """Give a (0 without scores) and the bias (0 if shrinkage is infinite) of least loss; convex."""
    n, n_categories = prior.shape
    has_bias = np.isfinite(shrinkage)

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        q = softmax_update(prior, z, x[0], x[1:])
        residual = q - shares
        penalty = shrinkage if has_bias else 0.0
        value = float(_losses(q, shares).mean() + penalty * (x[1:] ** 2).sum() / 2)
        slope_a = (residual * z).sum() / n
        return value, np.append(slope_a, residual.mean(axis=0) + penalty * x[1:])

    bounds = [(0.0, None if use_scores else 0.0)] + [
        (None, None) if has_bias else (0.0, 0.0)
    ] * n_categories
    found = optimize.minimize(
        loss, np.zeros(n_categories + 1), jac=True, bounds=bounds, method="L-BFGS-B"
    )
    return float(found.x[0]), np.asarray(found.x[1:])


def _losses(q: FloatArray, shares: FloatArray) -> FloatArray:
    return -np.asarray((shares * np.log(np.maximum(q, 1e-300))).sum(axis=1))


def center_rows(scores: FloatArray) -> FloatArray:
    """Subtract each row's mean from (n, n_categories) scores; softmax does not see it."""
    means: FloatArray = scores.mean(axis=1, keepdims=True)
    return scores - means
