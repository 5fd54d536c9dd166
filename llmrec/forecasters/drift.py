"""Counting adjusted by the population: its drift since a history, and the season."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from llmrec.data.counts import normalize_rows, population_counts, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.counting import (
    DecayedDirichlet,
    age_weights,
    population_mix,
    population_mix_between,
)
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.stored_values import fit_values, read_fit, read_number, refuse_broken
from llmrec.forecasters.target_cells import TargetCells
from llmrec.types import BoolArray, FloatArray, TimeArray

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
TRENDS = (0.0, 0.25, 0.5)
MAX_PERIODS_BACK = 24  # periods of a history that the drift is measured over
SPAN_CELLS_PER_BATCH = 2**26  # most counts (span of time, category) made at a time: half a GB
YEAR, SEASON_LENGTH = np.timedelta64(365, "D"), np.timedelta64(28, "D")


@dataclass(frozen=True)
class GlobalDrift:
    """q ~ counting * (now / then)^power * (now / before)^trend.

    *Now* is the population mix of the last period, *before* that of the one before it. *Then* is
    the forecast of counting for a person with as many events in each period who took what everybody
    took: each period weighs as its decayed events do, and the population mix as its pseudo-events.
    """

    prior: DecayedDirichlet = field(default_factory=DecayedDirichlet)
    power: float = 0.75
    trend: float = 0.25
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = field(default=None, compare=False)

    def fit(self, windows: Sequence[Window]) -> GlobalDrift:
        """Give the powers with the least log-loss on windows, by grid search."""
        fitted, histories = TrainingSpan.of_windows(windows), [window.history for window in windows]
        cells = TargetCells.of_windows(windows)
        prior = self.prior if self.prior.fitted else self.prior.fit(windows)
        pairs = list(itertools.product(POWERS, TRENDS))
        found = {pair: np.empty(len(cells.rows)) for pair in pairs}
        for block, own, places in cells.blocks():
            weights = prior.category_weights(histories[block])
            since, lately = _drifts(histories[block], prior)
            for power, trend in pairs:
                adjusted = _adjust(weights, power * since + trend * lately)
                found[power, trend][own] = adjusted[places]
        power, trend = min(pairs, key=lambda pair: cells.mean_log_loss(found[pair]))
        fitted = fitted.union(prior.fitted)
        best = replace(self, prior=prior, power=power, trend=trend, fitted=fitted)
        return replace(best, spread=fit_dispersion(windows, best.category_weights))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        since, lately = _drifts(histories, self.prior)
        weights = self.prior.category_weights(histories)
        return _adjust(weights, self.power * since + self.trend * lately)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source("GlobalDrift", "counting"), histories, weights, self.spread)

    def stored(self) -> Stored:
        """Give the powers, and the prior as a part."""
        values = {"power": self.power, "trend": self.trend}
        values |= fit_values(self.spread, self.fitted)
        return Stored("GlobalDrift", values, parts={"prior": self.prior.stored()})

    @classmethod
    def from_stored(cls, stored: Stored) -> GlobalDrift:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "GlobalDrift"):
            return cls(
                DecayedDirichlet.from_stored(stored.parts["prior"]),
                power=read_number(stored, "power"),
                trend=read_number(stored, "trend"),
                **read_fit(stored),
            )


@dataclass(frozen=True)
class SameSeason:
    """q ~ counting * (a year before the period to forecast / the year until now)^power.

    With periods of events the length in time is unknown: the season is the 28 days that start a
    year before the cutoff. Where the log does not reach back a year before the cutoff, the forecast
    is that of counting, and the source says so.
    """

    prior: DecayedDirichlet = field(default_factory=DecayedDirichlet)
    power: float = 0.5
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = field(default=None, compare=False)

    def fit(self, windows: Sequence[Window]) -> SameSeason:
        """Give the power with the least log-loss on windows; 0 in a log of less than a year."""
        fitted, histories = TrainingSpan.of_windows(windows), [window.history for window in windows]
        targets = target_counts(windows)
        cells = TargetCells.of(targets)
        prior = self.prior if self.prior.fitted else self.prior.fit(windows)
        weights, season = prior.category_weights(histories), _season_shifts(histories)
        losses = {
            power: cells.mean_log_loss(cells.take(_adjust(weights, power * season)))
            for power in POWERS
        }
        power = min(losses, key=lambda power: losses[power])
        spread = fit_dispersion(windows, _adjust(weights, power * season))
        return replace(
            self, prior=prior, power=power, spread=spread, fitted=fitted.union(prior.fitted)
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        weights = self.prior.category_weights(histories)
        return _adjust(weights, self.power * _season_shifts(histories))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        forecasts = make_forecasts(
            Source("SameSeason", "counting"), histories, weights, self.spread
        )
        fallback = Source(
            "SameSeason", "fallback", "the log does not reach back a year before the cutoff"
        )
        return [
            forecast if known else replace(forecast, source=fallback)
            for forecast, known in zip(forecasts, _has_year(histories), strict=True)
        ]

    def stored(self) -> Stored:
        """Give the power, and the prior as a part."""
        values = {"power": self.power} | fit_values(self.spread, self.fitted)
        return Stored("SameSeason", values, parts={"prior": self.prior.stored()})

    @classmethod
    def from_stored(cls, stored: Stored) -> SameSeason:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "SameSeason"):
            prior = DecayedDirichlet.from_stored(stored.parts["prior"])
            return cls(prior, power=read_number(stored, "power"), **read_fit(stored))


def _drifts(histories: Sequence[History], prior: DecayedDirichlet) -> tuple[FloatArray, FloatArray]:
    """Two (n, n_categories) arrays: log now / then, and log now / before."""
    n_cells = MAX_PERIODS_BACK * histories[0].catalog.n_categories  # at most, of a history
    size = max(1, SPAN_CELLS_PER_BATCH // n_cells)
    since, lately = zip(
        *(
            _drifts_of_batch(histories[start : start + size], prior)
            for start in range(0, len(histories), size)
        ),
        strict=True,
    )
    return np.concatenate(since), np.concatenate(lately)


def _drifts_of_batch(
    histories: Sequence[History], prior: DecayedDirichlet
) -> tuple[FloatArray, FloatArray]:
    spans, which = population_counts(histories, MAX_PERIODS_BACK)
    mixes, known = normalize_rows(spans + 0.5), spans.sum(axis=1) > 0
    own = np.zeros(which.shape)
    for row, history in enumerate(histories):
        sizes = np.diff(history.offsets)[-MAX_PERIODS_BACK:]
        own[row, MAX_PERIODS_BACK - len(sizes) :] = sizes
    own *= age_weights(prior.decay)[MAX_PERIODS_BACK - 1 :: -1]
    starts = np.arange(len(histories) + 1) * MAX_PERIODS_BACK
    taken = sparse.csr_array((own.ravel(), which.ravel(), starts), (len(histories), len(spans)))
    then = normalize_rows(taken @ mixes + prior.strength * population_mix(histories, prior.mix))
    now = np.where(known[which[:, -1], None], mixes[which[:, -1]], then)  # else without events
    before = np.where(known[which[:, -2], None], mixes[which[:, -2]], now)
    return np.log(now / then), np.log(now / before)


def _season_shifts(histories: Sequence[History]) -> FloatArray:
    """(n, n_categories) log of the coming season's mix a year ago / the last year's mix."""
    cutoffs = np.array([history.cutoff for history in histories], dtype="datetime64[ms]")
    ends = np.array([_next_boundary(history) for history in histories], dtype="datetime64[ms]")
    # A period longer than a year would end, a year earlier, after the cutoff.
    season = population_mix_between(
        histories, _year_before(cutoffs), np.minimum(_year_before(ends), cutoffs)
    )
    past = population_mix_between(histories, _year_before(cutoffs), cutoffs)
    return np.where(_has_year(histories)[:, None], np.log(season / past), 0.0)


def _year_before(times: TimeArray) -> TimeArray:
    return np.asarray(times - YEAR, dtype="datetime64[ms]")


def _next_boundary(history: History) -> np.datetime64:
    if history.period_length.unit == "events":
        return history.cutoff + SEASON_LENGTH
    return history.period_length.shift(history.cutoff, 1)


def _has_year(histories: Sequence[History]) -> BoolArray:
    """(n,) whether what everybody took reaches back a year before the cutoff."""
    first = histories[0].population.start + YEAR
    return np.array([history.cutoff >= first for history in histories])


def _adjust(weights: FloatArray, shift: FloatArray) -> FloatArray:
    """(n, n_categories) weights * exp(shift), rows summing to 1."""
    return normalize_rows(weights * np.exp(shift))
