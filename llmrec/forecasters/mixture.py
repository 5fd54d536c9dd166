"""A gated mixture of forecasters: how much each one counts, person by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from llmrec.data.counts import age_weighted_counts, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.experts import (
    Experts,
    ExpertWeights,
    ForecasterLoader,
    joint_span,
    out_of_sample_blocks,
    predicted_blocks,
    restored_arrays,
    sorted_experts,
    stored_experts,
)
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.types import BoolArray, FloatArray, IntArray

N_FOLDS = 5
SHRINKAGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the gate's parameters, chosen by cross-validation
N_HISTORY_FEATURES = 5  # of the gate, beside the constant and one an expert


class GatedMixture:
    """q = sum_e gate_e(history) q_e, the gate a softmax of linear functions of the history.

    Its features are the numbers of events and periods, how long ago the last event was, the entropy
    of the interests, and how much the experts disagree.

    Parameters
    ----------
    experts
        Fitted forecasters by name. The gate is fitted on their held-out predictions of the
        validation windows (`out_of_sample_weights`).
    constant
        Whether the gate has no features: everybody's experts have the same weights.
    """

    def __init__(self, experts: Experts, *, constant: bool = False) -> None:
        self.experts, self.constant = sorted_experts(experts), constant
        self.parameters: FloatArray = np.empty((0, 0))
        self.scale: FloatArray = np.empty((2, 0))
        self.spread: Spread = DEFAULT_DISPERSION
        self.fitted: TrainingSpan | None = None
        self.held_out: HeldOutPredictions | None = None
        self.mean_weights: FloatArray = np.empty(0)

    def fit(
        self, validation: Sequence[Window], seed: int = 0, known: ExpertWeights | None = None
    ) -> GatedMixture:
        """Fit the gate by maximum likelihood on validation windows.

        The shrinkage is that of least loss in five-fold cross-validation over users, which also
        gives the ``held_out`` weights of the mixture itself, and the ``mean_weights`` of the
        experts. ``known`` are the experts' out-of-sample weights of the windows where these are
        known already; experts may have been fitted on later events then.
        """
        fitted = joint_span(validation, self.experts, may_be_later=known is not None)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        blocks, cells = [], []
        for rows, weights in out_of_sample_blocks(self.experts, validation, known):
            if not self.constant:
                blocks.append(_features(histories[rows], weights))
            cells.append(TargetCells.of(weights, targets[rows]))
        features = np.concatenate(blocks) if blocks else np.empty((len(validation), 0))
        self.scale = np.stack((features.mean(axis=0), features.std(axis=0) + 1e-9))
        x, joined = self._standardize(features), TargetCells.join(cells)
        folds = np.random.default_rng(seed).permutation(len(x)) % N_FOLDS
        shrinkages = SHRINKAGES[:1] if self.constant else SHRINKAGES
        gates = {s: _cross_validate(x, joined, folds, s) for s in shrinkages}
        best = min(gates, key=lambda s: joined.loss(gates[s]))
        self.parameters, self.mean_weights = _fit_gate(x, joined, best), gates[best].mean(axis=0)
        held_out = np.empty(targets.shape)
        for rows, weights in out_of_sample_blocks(self.experts, validation, known):
            held_out[rows] = _mix(gates[best][rows], weights)
        self.held_out = HeldOutPredictions.of(validation, held_out)
        self.spread = fit_dispersion(validation, held_out)
        self.fitted = fitted
        return self

    def gate_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_experts) weight of each expert; rows sum to 1."""
        blocks = predicted_blocks(self.experts, histories)
        return np.concatenate([self._gate_weights(part, weights) for part, weights in blocks])

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1."""
        blocks = predicted_blocks(self.experts, histories)
        return np.concatenate(
            [_mix(self._gate_weights(part, weights), weights) for part, weights in blocks]
        )

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("GatedMixture", "counting", f"of {', '.join(self.experts)}")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def stored(self) -> Stored:
        """Give the gate, and the experts as parts."""
        if self.fitted is None:
            raise TrainingError("GatedMixture has no gate yet: fit it before saving")
        values = {
            "constant": self.constant,
            "spread": list(self.spread),
            "fitted": self.fitted.time_only().to_dict(),
        }
        arrays = {"parameters": self.parameters, "scale": self.scale}
        return Stored("GatedMixture", values, arrays, parts=stored_experts(self.experts))

    @classmethod
    def from_stored(cls, stored: Stored, load: ForecasterLoader) -> GatedMixture:
        """Make the mixture of `stored` again; ``load`` makes each of its experts.

        Raises
        ------
        ModelLoadError
            If it is of something else, or the gate is not finite or not of these experts.
        """
        constant, n_experts = stored.values.get("constant") is True, len(stored.parts)
        n_features = 0 if constant else N_HISTORY_FEATURES + n_experts
        shapes = {"parameters": [(1 + n_features, n_experts)], "scale": [(2, n_features)]}
        arrays, spread, fitted = restored_arrays(stored, "GatedMixture", shapes)
        experts = {name: load(part) for name, part in stored.parts.items()}
        mixture = cls(experts, constant=constant)
        mixture.parameters, mixture.scale = arrays["parameters"], arrays["scale"]
        mixture.spread, mixture.fitted = spread, fitted
        return mixture

    def _gate_weights(self, histories: Sequence[History], weights: FloatArray) -> FloatArray:
        if not len(self.parameters):
            raise TrainingError("GatedMixture has no gate yet: fit it")
        if not np.isfinite(self.parameters).all():
            raise TrainingError("GatedMixture: a parameter of the gate is not finite; fit it again")
        if self.constant:
            return _gate(self._standardize(np.empty((len(histories), 0))), self.parameters)
        return _gate(self._standardize(_features(histories, weights)), self.parameters)

    def _standardize(self, features: FloatArray) -> FloatArray:
        mean, deviation = self.scale
        constant = np.ones((len(features), 1))
        return np.concatenate((constant, np.clip((features - mean) / deviation, -3, 3)), axis=1)


@dataclass(frozen=True, eq=False)
class TargetCells:
    """What the experts gave to the categories that people then took: all that a gate is fitted on.

    Attributes
    ----------
    n
        Number of windows.
    row
        (n_cells,) window of each category taken, ascending.
    share
        (n_cells,) its share of the target.
    likelihood
        (n_cells, n_experts) weight that each expert gave it.
    """

    n: int
    row: IntArray
    share: FloatArray
    likelihood: FloatArray

    @classmethod
    def of(cls, weights: FloatArray, targets: FloatArray) -> TargetCells:
        """Take the cells of (n, n_experts, n_categories) weights and (n, n_categories) targets."""
        row, column = np.nonzero(targets)
        return cls(len(targets), row, row_shares(targets)[row, column], weights[row, :, column])

    @classmethod
    def join(cls, blocks: Sequence[TargetCells]) -> TargetCells:
        """Give the cells of blocks of windows one after the other."""
        first = np.cumsum([0, *(block.n for block in blocks)])
        return cls(
            int(first[-1]),
            np.concatenate([block.row + n for n, block in zip(first, blocks, strict=False)]),
            np.concatenate([block.share for block in blocks]),
            np.concatenate([block.likelihood for block in blocks]),
        )

    def of_windows(self, chosen: BoolArray) -> TargetCells:
        """Give the cells of the windows chosen by an (n,) mask, which are then counted anew."""
        kept = chosen[self.row]
        row = (np.cumsum(chosen) - 1)[self.row[kept]]
        return TargetCells(int(chosen.sum()), row, self.share[kept], self.likelihood[kept])

    def loss(self, gate: FloatArray) -> float:
        """Mean log-loss of the windows under (n, n_experts) gate weights."""
        mixed = (gate[self.row] * self.likelihood).sum(axis=1)
        return float(-(self.share * np.log(mixed)).sum() / self.n)


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


def _mix(gate: FloatArray, weights: FloatArray) -> FloatArray:
    """(n, n_categories) mixed (n, n_experts, n_categories) weights."""
    return np.asarray(np.einsum("ne,nec->nc", gate, weights))


def _fit_gate(x: FloatArray, cells: TargetCells, shrinkage: float) -> FloatArray:
    """(n_features, n_experts) parameters of least penalised loss; the constant is hardly shrunk."""
    rows, likelihood, shares = cells.row, cells.likelihood, cells.share / cells.n
    starts = np.flatnonzero(np.diff(rows, prepend=-1))  # of each window's cells
    shape = (x.shape[1], likelihood.shape[1])
    shrunk = np.ones(shape)
    shrunk[0] = 0.01

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        parameters = flat.reshape(shape)
        gate = _gate(x, parameters)
        mixed = (gate[rows] * likelihood).sum(axis=1)
        value = -(shares * np.log(mixed)).sum()
        slope = np.zeros_like(gate)
        by_cell = -(shares / mixed)[:, None] * likelihood
        slope[rows[starts]] = np.add.reduceat(by_cell, starts, axis=0)
        through = gate * (slope - (gate * slope).sum(axis=1, keepdims=True))
        gradient = x.T @ through + shrinkage * shrunk * parameters
        penalty = shrinkage * (shrunk * parameters**2).sum() / 2
        return float(value + penalty), gradient.ravel()

    found = optimize.minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    return np.asarray(found.x.reshape(shape))


def _cross_validate(
    x: FloatArray, cells: TargetCells, folds: IntArray, shrinkage: float
) -> FloatArray:
    """(n, n_experts) gate weights of each window, of a gate fitted without it."""
    result = np.empty((len(x), cells.likelihood.shape[1]))
    for fold in range(N_FOLDS):
        out = folds == fold
        parameters = _fit_gate(x[~out], cells.of_windows(~out), shrinkage)
        result[out] = _gate(x[out], parameters)
    return result
