"""A log-linear pool of forecasters: their corrections of each other add up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
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
from llmrec.forecasters.precomputed import HeldOutPredictions, out_of_sample_weights
from llmrec.forecasters.target_cells import row_blocks
from llmrec.types import FloatArray, IntArray

N_FOLDS = 5
SHRINKAGE = 1e-3  # of the exponents, towards the geometric mean of the experts
MIN_WEIGHT = 1e-12  # a smaller weight of an expert counts as this
MAX_STEPS, TOLERANCE = 50, 1e-10  # of Newton's method; the latter in nats per event
# Most windows x experts x categories that the exponents, a few numbers, are fitted on.
MAX_CELLS = 6_000_000


class LogLinearPool:
    """q = softmax(sum_e exponent_e log q_e) (Genest and Zidek 1986, section 3.3).

    Exponents may be negative: of two experts that correct the same counting one may take away what
    both have of it. Their sum is above 1 where the experts are too cautious.

    Parameters
    ----------
    experts
        Fitted forecasters by name. The exponents are fitted on their held-out predictions of the
        validation windows (`out_of_sample_weights`).
    """

    def __init__(self, experts: Experts) -> None:
        self.experts = sorted_experts(experts)
        self.exponents: FloatArray = np.empty(0)
        self.spread: Spread = DEFAULT_DISPERSION
        self.fitted: TrainingSpan | None = None
        self.held_out: HeldOutPredictions | None = None

    @property
    def mean_weights(self) -> FloatArray:
        """(n_experts,) the exponents: they are the same for everybody."""
        return self.exponents

    def fit(
        self, validation: Sequence[Window], seed: int = 0, known: ExpertWeights | None = None
    ) -> LogLinearPool:
        """Fit the exponents by maximum likelihood on validation windows; returns itself.

        The ``held_out`` weights are those of five-fold cross-validation over users. ``known`` are
        the experts' out-of-sample weights of the windows where these are known already.
        """
        fitted = joint_span(validation, self.experts)
        known = known or {n: out_of_sample_weights(e, validation) for n, e in self.experts.items()}
        shares = row_shares(target_counts(validation))
        rng = np.random.default_rng(seed)
        folds = rng.permutation(len(validation)) % N_FOLDS
        n_experts, n_categories = len(self.experts), shares.shape[1]
        most = max(1, MAX_CELLS // (n_experts * n_categories))
        rows = np.sort(rng.permutation(len(validation))[:most])
        weights = [known[name] for name in self.experts]
        whole = _fit_exponents(weights, shares, rows, np.full(n_experts, 1 / n_experts))
        by_fold = np.stack(
            [_fit_exponents(weights, shares, rows[folds[rows] != n], whole) for n in range(N_FOLDS)]
        )
        held_out = np.empty(shares.shape)
        for block, found in out_of_sample_blocks(self.experts, validation, known):
            held_out[block] = _pool(found, by_fold[folds[block]])
        self.held_out = HeldOutPredictions.of(validation, held_out)
        self.spread = fit_dispersion(validation, held_out)
        self.exponents, self.fitted = whole, fitted
        return self

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1."""
        if not len(self.exponents):
            raise TrainingError("LogLinearPool has no exponents yet: fit it")
        if not np.isfinite(self.exponents).all():
            raise TrainingError("LogLinearPool: an exponent is not finite; fit it again")
        blocks = predicted_blocks(self.experts, histories)
        return np.concatenate([_pool(found, self.exponents[None]) for _, found in blocks])

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("LogLinearPool", "counting", f"of {', '.join(self.experts)}")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def stored(self) -> Stored:
        """Give the exponents, and the experts as parts."""
        if self.fitted is None:
            raise TrainingError("LogLinearPool has no exponents yet: fit it before saving")
        values = {"spread": list(self.spread), "fitted": self.fitted.time_only().to_dict()}
        arrays = {"exponents": self.exponents}
        return Stored("LogLinearPool", values, arrays, parts=stored_experts(self.experts))

    @classmethod
    def from_stored(cls, stored: Stored, load: ForecasterLoader) -> LogLinearPool:
        """Make the pool of `stored` again; ``load`` makes each of its experts.

        Raises
        ------
        ModelLoadError
            If it is of something else, or the exponents are not finite or not one an expert.
        """
        shapes = {"exponents": [(len(stored.parts),)]}
        arrays, spread, fitted = restored_arrays(stored, "LogLinearPool", shapes)
        pool = cls({name: load(part) for name, part in stored.parts.items()})
        pool.exponents, pool.spread, pool.fitted = arrays["exponents"], spread, fitted
        return pool


def _pool(weights: FloatArray, exponents: FloatArray) -> FloatArray:
    """(n, n_categories) pooled (n, n_experts, n_categories) weights; exponents (n or 1, n_experts).

    Sums go expert by expert, so that the other rows of a batch change no bit.
    """
    logs = np.log(np.maximum(weights, MIN_WEIGHT))
    scores = np.zeros((len(weights), weights.shape[2]))
    for expert in range(weights.shape[1]):
        scores += exponents[:, expert, None] * logs[:, expert]
    return np.asarray(special.softmax(scores, axis=1))


def _fit_exponents(
    weights: Sequence[FloatArray], shares: FloatArray, rows: IntArray, start: FloatArray
) -> FloatArray:
    """(n_experts,) exponents of least penalised log-loss on some rows, by Newton's method.

    The loss is convex. ``weights`` are those of each expert and ``shares`` the targets', both
    (n_windows, n_categories).
    """
    found = start
    loss, gradient, curvature = _derivatives(weights, shares, rows, found)
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < TOLERANCE:
            break
        size = 1.0
        while True:
            after = _derivatives(weights, shares, rows, found - size * step)
            if after[0] <= loss or size < 1e-6:
                break
            size /= 2
        found = found - size * step
        loss, gradient, curvature = after
    return found


def _derivatives(
    weights: Sequence[FloatArray], shares: FloatArray, rows: IntArray, exponents: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Penalised mean log-loss on some rows, its gradient and second derivatives."""
    n_experts = len(weights)
    loss, gradient, curvature = 0.0, np.zeros(n_experts), np.zeros((n_experts, n_experts))
    for block in row_blocks(len(rows), n_experts * shares.shape[1]):
        part = rows[block]
        logs = np.log(np.maximum(np.stack([one[part] for one in weights]), MIN_WEIGHT))
        target = shares[part] * 1.0
        known = target.sum(axis=1, keepdims=True)  # 0 where a target has no events
        log_q = special.log_softmax(np.tensordot(exponents, logs, 1), axis=1)
        q = known * np.exp(log_q)
        loss -= (target * log_q).sum()
        flat = logs.reshape(n_experts, -1)
        gradient += flat @ (q - target).ravel()
        means = (logs * q).sum(axis=2)  # (n_experts, n_rows)
        curvature += (flat * q.ravel()) @ flat.T - means @ means.T
    change = exponents - 1 / n_experts
    n = max(1, len(rows))
    return (
        loss / n + SHRINKAGE * (change**2).sum() / 2,
        gradient / n + SHRINKAGE * change,
        curvature / n + SHRINKAGE * np.eye(n_experts),
    )
