"""A gated mixture of forecasters: how much each one counts, person by person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from llmrec.data.counts import age_weighted_counts, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.calibration import (
    DEFAULT_DISPERSION,
    Dispersion,
    fit_dispersion,
    make_forecasts,
)
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.precomputed import (
    HeldOutPredictions,
    out_of_sample_weights,
    predict_weights,
)
from llmrec.metrics import mean_log_loss
from llmrec.types import FloatArray, IntArray

N_FOLDS = 5
SHRINKAGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the gate's parameters, chosen by cross-validation
HISTORIES_PER_BATCH = 1_024


class GatedMixture:
    """q = sum_e gate_e(history) q_e, the gate a softmax of linear functions of the history.

    Its features are the numbers of events and periods, how long ago the last event was, the entropy
    of the interests, and how much the experts disagree.

    Parameters
    ----------
    experts
        Fitted forecasters by name. The gate is fitted on their held-out predictions of the
        validation windows (`out_of_sample_weights`).
    """

    def __init__(self, experts: Mapping[str, Forecaster]) -> None:
        if len(experts) < 2:
            raise DataError(f"a mixture needs two experts at least, not {list(experts)}")
        self.experts = dict(sorted(experts.items()))
        self.parameters: FloatArray = np.empty((0, 0))
        self.scale: FloatArray = np.empty((0, 0))
        self.spread: Dispersion = DEFAULT_DISPERSION
        self.fitted: TrainingSpan | None = None
        self.held_out: HeldOutPredictions | None = None

    def fit(self, validation: Sequence[Window], seed: int = 0) -> GatedMixture:
        """Fit the gate by maximum likelihood on validation windows.

        The shrinkage is that of least loss in five-fold cross-validation over users, which also
        gives the ``held_out`` weights of the mixture itself.
        """
        fitted = _training_span(validation, self.experts)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        weights = np.stack(
            [out_of_sample_weights(e, validation) for e in self.experts.values()], axis=1
        )
        features = _features(histories, weights)
        self.scale = np.stack((features.mean(axis=0), features.std(axis=0) + 1e-9))
        x = self._standardize(features)
        folds = np.random.default_rng(seed).permutation(len(x)) % N_FOLDS
        held_out = {s: _cross_validate(x, weights, targets, folds, s) for s in SHRINKAGES}
        losses = {s: mean_log_loss(mixed, targets) for s, mixed in held_out.items()}
        best = min(losses, key=lambda s: losses[s])
        self.held_out = HeldOutPredictions.of(validation, held_out[best])
        self.parameters = _fit_gate(x, weights, targets, best)
        self.spread = fit_dispersion(histories, held_out[best], targets)
        self.fitted = fitted
        return self

    def gate_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_experts) weight of each expert; rows sum to 1."""
        return self._gate_weights(histories, self._predict(histories))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1."""
        batches = []
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            weights = self._predict(part)
            gates = self._gate_weights(part, weights)
            batches.append(np.einsum("ne,nec->nc", gates, weights))
        return np.concatenate(batches)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("GatedMixture", "counting", f"of {', '.join(self.experts)}")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def _predict(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_experts, n_categories) weights of each expert."""
        return np.stack([predict_weights(e, histories) for e in self.experts.values()], axis=1)

    def _gate_weights(self, histories: Sequence[History], weights: FloatArray) -> FloatArray:
        if not len(self.parameters):
            raise TrainingError("GatedMixture has no gate yet: fit it")
        if not np.isfinite(self.parameters).all():
            raise TrainingError("GatedMixture: a parameter of the gate is not finite; fit it again")
        return _gate(self._standardize(_features(histories, weights)), self.parameters)

    def _standardize(self, features: FloatArray) -> FloatArray:
        mean, deviation = self.scale
        constant = np.ones((len(features), 1))
        return np.concatenate((constant, np.clip((features - mean) / deviation, -3, 3)), axis=1)


def _training_span(validation: Sequence[Window], experts: Mapping[str, Any]) -> TrainingSpan:
    """Give what gate and experts were fitted on; the gate's windows must be the newest."""
    fitted = TrainingSpan.of_windows(validation)
    spans = {name: getattr(expert, "fitted", None) for name, expert in experts.items()}
    for name, span in spans.items():
        if span is not None and span.before > fitted.before:
            raise DataError(f"expert {name} was fitted on events after the gate's windows")
    return fitted.union(*spans.values())


def _features(histories: Sequence[History], weights: FloatArray) -> FloatArray:
    """(n, 5 + n_experts) features of the gate."""
    events = np.array([history.n_events for history in histories], dtype=np.float64)
    sizes = [np.diff(history.offsets) for history in histories]
    periods = np.array([np.count_nonzero(size) for size in sizes], dtype=np.float64)
    periods_since = [
        float(np.argmax(size[::-1] > 0)) if size.any() else len(size) for size in sizes
    ]
    recent = row_shares(age_weighted_counts(histories, age_weights(0.9)))
    mean = weights.mean(axis=1, keepdims=True)
    disagreement = np.abs(weights - mean).sum(axis=2)
    columns = [
        np.log1p(events),
        np.log1p(periods),
        np.log1p(np.array([size[-1] for size in sizes], dtype=np.float64)),
        np.log1p(np.array(periods_since)),
        special.entr(recent).sum(axis=1),
    ]
    return np.concatenate((np.stack(columns, axis=1), disagreement), axis=1)


def _gate(x: FloatArray, parameters: FloatArray) -> FloatArray:
    return np.asarray(special.softmax(x @ parameters, axis=1))


def _fit_gate(
    x: FloatArray, weights: FloatArray, targets: FloatArray, shrinkage: float
) -> FloatArray:
    """(n_features, n_experts) parameters of least penalised loss; the constant is not shrunk."""
    rows, columns = np.nonzero(targets)
    shares = row_shares(targets)[rows, columns] / len(x)
    likelihood = weights[rows, :, columns]  # (n_cells, n_experts)
    shape = (x.shape[1], weights.shape[1])
    shrunk = np.ones(shape)
    shrunk[0] = 0.01

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        parameters = flat.reshape(shape)
        gate = _gate(x, parameters)
        mixed = (gate[rows] * likelihood).sum(axis=1)
        value = -(shares * np.log(mixed)).sum()
        slope = np.zeros_like(gate)
        np.add.at(slope, rows, -(shares / mixed)[:, None] * likelihood)
        through = gate * (slope - (gate * slope).sum(axis=1, keepdims=True))
        gradient = x.T @ through + shrinkage * shrunk * parameters
        penalty = shrinkage * (shrunk * parameters**2).sum() / 2
        return float(value + penalty), gradient.ravel()

    found = optimize.minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    return np.asarray(found.x.reshape(shape))


def _cross_validate(
    x: FloatArray, weights: FloatArray, targets: FloatArray, folds: IntArray, shrinkage: float
) -> FloatArray:
    """(n, n_categories) weights of each window under a gate fitted without it."""
    result = np.empty(targets.shape)
    for fold in range(N_FOLDS):
        out = folds == fold
        parameters = _fit_gate(x[~out], weights[~out], targets[~out], shrinkage)
        result[out] = np.einsum("ne,nec->nc", _gate(x[out], parameters), weights[out])
    return result
