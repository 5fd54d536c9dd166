"""Forecasts for a log that nobody has trained on: nets of other logs correct counting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from llmrec.data.counts import batches_by_log, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.splits import sample_windows
from llmrec.data.stored import Stored
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS, MIN_FIT_WINDOWS
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.category_events import CategoryEvents, PopulationMixes
from llmrec.forecasters.category_lifts import CategoryLifts
from llmrec.forecasters.cell_features import N_LOG, CellFeatures, compute_features, describe_log
from llmrec.forecasters.cell_nets import CellNets, shipped_nets
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.forecasters.stored_values import fit_values, read_fit, read_number, refuse_broken
from llmrec.forecasters.target_cells import row_blocks
from llmrec.types import FloatArray, IntArray

GATES = tuple(step / 10 for step in range(11))
CELLS_PER_BATCH = 10_000  # histories x categories whose features are in memory at a time
BATCHES_PER_COUNT = 100  # batches for which what everybody took is counted together
MAX_PEOPLE = 5_000  # whose past the lifts are counted in
TUNING_STEPS, TUNING_RATE = 120, 1e-3
MAX_TUNING_CELLS = 500_000  # histories x categories that nets are tuned on


@dataclass(frozen=True, eq=False)
class FittedCounts:
    """What is counted in the past of a log: all that the nets need to know of it.

    Attributes
    ----------
    prior
        Counting, fitted on the windows.
    lifts
        What people take together or in turn.
    log_features
        (N_LOG,) numbers of the log.
    """

    prior: DecayedDirichlet
    lifts: CategoryLifts
    log_features: FloatArray

    @classmethod
    def fit(
        cls, windows: Sequence[Window], prior: DecayedDirichlet, *, with_targets: bool = True
    ) -> FittedCounts:
        """Count in windows; ``with_targets``: lifts count their targets, too."""
        # Of a person's windows the newest; without targets the oldest, which knows none of them.
        ordered = sorted(windows, key=lambda w: w.target.stop, reverse=not with_targets)
        people = {window.history.user_idx: window for window in ordered}
        chosen = sample_windows(list(people.values()), MAX_PEOPLE)
        histories = [_append_target(w) if with_targets else w.history for w in chosen]
        newest = max(histories, key=lambda history: history.cutoff)
        mix = PopulationMixes.of([newest]).recent[0]
        lifts = CategoryLifts.fit(CategoryEvents.of(histories), mix[1], mix[-1])
        return cls(prior, lifts, describe_log(windows, prior))

    def features(self, histories: Sequence[History]) -> CellFeatures:
        """Compute the features of at least one history."""
        ((_, features),) = self.batches(histories, len(histories))
        return features

    def batches(
        self, histories: Sequence[History], size: int
    ) -> Iterator[tuple[slice, CellFeatures]]:
        """Yield rows of histories of one log, at most ``size``, and their features."""
        mixes = PopulationMixes.of(histories)  # the whole log is read here, once for all
        log_prior = np.log(self.prior.category_weights(histories))
        for start in range(0, len(histories), size):
            rows = slice(start, start + size)
            yield (
                rows,
                compute_features(
                    histories[rows],
                    log_prior[rows],
                    mixes.take(rows),
                    self.lifts,
                    self.log_features,
                ),
            )


@dataclass(frozen=True, eq=False)
class PretrainedForecaster:
    """q = softmax(log counting + gate * what nets of other logs add to each category).

    No parameter of the nets is trained on the log, unless `fit` is given windows to tune on. It
    counts in the log's past, and chooses the gate there: 0 is counting alone. The nets are those
    that come with the package, and of these the ones that were not trained on this log.

    Attributes
    ----------
    prior
        The counting that is corrected; `fit` fits it if it is not yet.
    nets
        The nets; None before `fit`.
    gate
        What their correction is multiplied by, in [0, 1].
    """

    prior: DecayedDirichlet = field(default_factory=DecayedDirichlet)
    nets: CellNets | None = None
    counts: FittedCounts | None = None
    gate: float = 0.0
    categories: tuple[str, ...] = ()
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None
    held_out: HeldOutPredictions | None = None

    def fit(
        self, windows: Sequence[Window], *, tune: Sequence[Window] = (), seed: int = 0
    ) -> PretrainedForecaster:
        """Count in windows of the past and choose the gate on them.

        The gate and the ``held_out`` weights are of counts without the windows' targets. On fewer
        than `MIN_FIT_WINDOWS` the gate is 0.

        Parameters
        ----------
        windows
            Of past periods, such as the first two of `past_windows`. Of several the gate is the
            least that is best in any.
        tune
            Windows of earlier periods, on which the nets are trained `TUNING_STEPS` steps further;
            they stay as they were if that does not lower the loss on ``windows``. Needs torch.
        """
        fitted = TrainingSpan.of_windows(windows)
        prior = self.prior if self.prior.fitted else self.prior.fit(windows)
        catalog, histories = windows[0].history.catalog, [window.history for window in windows]
        counts = FittedCounts.fit(windows, prior, with_targets=False)
        untuned = replace(
            self,
            prior=prior,
            nets=self.nets or shipped_nets().choose(catalog),
            counts=counts,
            categories=catalog.categories,
            fitted=fitted,
        )
        log_prior, correction = untuned._log_prior_and_correction(histories)
        targets, periods = target_counts(windows), _period_numbers(windows)
        found, gate, loss = untuned, 0.0, 0.0
        if len(windows) >= MIN_FIT_WINDOWS:
            gate, loss = choose_gate(log_prior, correction, targets, periods)
        if min(len(tune), len(windows)) >= MIN_FIT_WINDOWS:
            tuned = untuned._tune(tune, seed)
            _, other = tuned._log_prior_and_correction(histories)
            other_gate, other_loss = choose_gate(log_prior, other, targets, periods)
            if other_loss < loss:
                found, gate, correction = tuned, other_gate, other
        weights = special.softmax(log_prior + gate * correction, axis=1)
        return replace(
            found,
            counts=FittedCounts.fit(windows, prior),
            gate=gate,
            spread=fit_dispersion(windows, weights),
            held_out=HeldOutPredictions.of(windows, weights),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        log_prior, correction = self._log_prior_and_correction(histories)
        return np.asarray(special.softmax(log_prior + self.gate * correction, axis=1))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        source = Source("PretrainedForecaster", "counting")
        return make_forecasts(source, histories, weights, self.spread)

    def stored(self) -> Stored:
        """Give the nets and what was counted; TrainingError before a fit."""
        nets, counts = self._require_fitted()
        values = {"gate": self.gate, "categories": list(self.categories)}
        values |= fit_values(self.spread, self.fitted)
        parts = {
            "prior": self.prior.stored(),
            "nets": nets.stored(),
            "lifts": counts.lifts.stored(),
        }
        arrays = {"log_features": counts.log_features}
        return Stored("PretrainedForecaster", values, arrays, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored) -> PretrainedForecaster:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "PretrainedForecaster"):
            prior = DecayedDirichlet.from_stored(stored.parts["prior"])
            lifts = CategoryLifts.from_stored(stored.parts["lifts"])
            numbers = np.asarray(stored.arrays["log_features"])
            if numbers.shape != (N_LOG,) or not np.isfinite(numbers).all():
                raise ValueError(f"log_features are of shape {numbers.shape}, no {N_LOG} numbers")
            if numbers.dtype != np.float64:
                raise ValueError(f"log_features are {numbers.dtype}, not float64")
            categories = stored.values["categories"]
            if not categories or not all(isinstance(name, str) for name in categories):
                raise ValueError("categories are no names")
            if lifts and len(lifts.together) != len(categories):
                raise ValueError(f"lifts are not of the {len(categories)} categories")
            return cls(
                prior,
                CellNets.from_stored(stored.parts["nets"]),
                FittedCounts(prior, lifts, numbers),
                gate=read_number(stored, "gate", high=1.0),
                categories=tuple(categories),
                **read_fit(stored),
            )

    def _tune(self, windows: Sequence[Window], seed: int) -> PretrainedForecaster:
        """Train the nets a little further on windows, of counts without their targets."""
        from llmrec.forecasters.cell_training import (
            CellTrainingPlan,
            PanelInMemory,
            tune_cell_nets,
        )

        assert self.nets is not None
        windows = sample_windows(windows, max(1, MAX_TUNING_CELLS // len(self.categories)), seed)
        counts = FittedCounts.fit(windows, self.prior, with_targets=False)
        features = counts.features([window.history for window in windows])
        panel = PanelInMemory(features, row_shares(target_counts(windows)))
        plan = CellTrainingPlan(steps=TUNING_STEPS, learning_rate=TUNING_RATE, seed=seed)
        return replace(self, nets=tune_cell_nets(self.nets, panel, plan))

    def _log_prior_and_correction(
        self, histories: Sequence[History]
    ) -> tuple[FloatArray, FloatArray]:
        """(n_histories, n_categories) log weights of counting, and what the nets add to them.

        To a person without events nothing is added: there is nobody to tell apart.
        """
        nets, counts = self._require_fitted()
        catalog = histories[0].catalog
        if catalog.categories != self.categories:
            raise DataError(
                "PretrainedForecaster was fitted on other categories, or another order of them, "
                f"than the {catalog.n_categories} of this catalog: fit it on this log"
            )
        log_prior = np.empty((len(histories), catalog.n_categories))
        correction = np.zeros_like(log_prior)
        size = max(1, CELLS_PER_BATCH // catalog.n_categories)
        for positions in batches_by_log(histories, size * BATCHES_PER_COUNT):
            part = [histories[position] for position in positions]
            for rows, features in counts.batches(part, size):
                known = np.array([history.n_events > 0 for history in part[rows]])
                log_prior[positions[rows]] = features.prior
                correction[positions[rows]] = nets.correct(features) * known[:, None]
        return log_prior, correction

    def _require_fitted(self) -> tuple[CellNets, FittedCounts]:
        if self.nets is None or self.counts is None:
            raise TrainingError("PretrainedForecaster has counted nothing yet: fit it")
        return self.nets, self.counts


def choose_gate(
    log_prior: FloatArray, correction: FloatArray, targets: FloatArray, periods: IntArray
) -> tuple[float, float]:
    """Give the gate, and the log-loss that it has; arrays are (n_windows, n_categories).

    It is the least of those that are best in each period, so that what helped in one of them alone
    is not trusted; the best in all together where a period has few windows.

    Parameters
    ----------
    periods
        (n_windows,) number of each window's period.
    """
    losses = np.empty((len(GATES), len(targets)))
    for rows in row_blocks(*targets.shape):
        for position, gate in enumerate(GATES):
            log_weights = special.log_softmax(log_prior[rows] + gate * correction[rows], axis=1)
            losses[position, rows] = _cross_entropy(log_weights, targets[rows])
    groups = [np.flatnonzero(periods == period) for period in np.unique(periods)]
    if min(map(len, groups)) < MIN_CALIBRATION_WINDOWS:
        groups = [np.arange(len(targets))]
    best = min(int(losses[:, rows].mean(axis=1).argmin()) for rows in groups)
    return GATES[best], float(losses[best].mean())


def _cross_entropy(log_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n_windows,) nats per event; 0 for a target without events."""
    return np.asarray(-(row_shares(targets) * log_weights).sum(axis=1))


def _period_numbers(windows: Sequence[Window]) -> IntArray:
    """(n_windows,) equal where cutoffs are; all equal with periods of events."""
    if windows[0].history.period_length.unit == "events":
        return np.zeros(len(windows), dtype=np.int64)
    ends = np.array([window.history.cutoff for window in windows], dtype="datetime64[ms]")
    return np.asarray(np.unique(ends, return_inverse=True)[1], dtype=np.int64)


def _append_target(window: Window) -> History:
    """Give the history as it is after the window's target."""
    history, target = window.history, window.target
    return replace(
        history,
        offsets=np.append(history.offsets, target.stop),
        bounds=np.append(history.bounds, target.period.end),
        cutoff=target.period.end,
    )
