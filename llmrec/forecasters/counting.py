"""Decayed Dirichlet counting, the default prior and fallback; exponential decay."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from llmrec.data.catalog import category_sums
from llmrec.data.counts import age_weighted_counts, normalize_rows
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion, read_spread
from llmrec.forecasters.stored_values import (
    SMALLEST,
    fit_values,
    read_choice,
    read_fit,
    read_number,
    refuse_broken,
)
from llmrec.forecasters.target_cells import TargetCells, row_blocks
from llmrec.types import FloatArray, IntArray, TimeArray

PopulationMix = Literal["last period", "all"]
MAX_PERIODS = 512
DECAYS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)  # of DecayedDirichlet
STRENGTHS = (5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 180.0, 270.0)
AVERAGE_DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of ExponentialDecay
SMOOTHINGS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HISTORIES_PER_BATCH = 256  # histories averaged at a time


@dataclass(frozen=True)
class DecayedDirichlet:
    """Category weights = decayed own counts + strength * what everybody took lately.

    Attributes
    ----------
    decay
        Weight of a period relative to the next newer one, in [0, 1].
    strength
        Pseudo-events that the population mix counts as (> 0).
    mix
        The population mix is what everybody took in the "last period" before the cutoff, or "all"
        that they took before it (the choice for periods counted in events).
    spread
        How far observed shares scatter around the forecasts.
    name
        What tables call it.
    fitted
        Which events it was fitted on; None if it was not.
    """

    decay: float = 0.9
    strength: float = 120.0
    mix: PopulationMix = "last period"
    spread: Spread = DEFAULT_DISPERSION
    name: str = "DecayedDirichlet"
    fitted: TrainingSpan | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", read_spread(self.spread))  # JSON makes it a list

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``DecayedDirichlet(**values)`` is the same setting, unfitted."""
        found = {name: getattr(self, name) for name in ("decay", "strength", "mix", "name")}
        return found | {"spread": list(self.spread)}

    def fit(self, windows: Sequence[Window], decays: Sequence[float] = DECAYS) -> DecayedDirichlet:
        """Give the setting with the least log-loss on windows, by grid search.

        The one decay 0 gives the smoothed last period, the one decay 1 the smoothed mean of all
        periods. The spread of the targets around the forecasts is fitted last.
        """
        fitted = TrainingSpan.of_windows(windows)
        best, least = self, np.inf
        for (decay, strength, mix), loss in setting_losses(windows, decays).items():
            if loss < least:
                best, least = replace(self, decay=decay, strength=strength, mix=mix), loss
        spread = fit_dispersion(windows, best.category_weights)
        return replace(best, spread=spread, fitted=fitted)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        own = age_weighted_counts(histories, age_weights(self.decay))
        return normalize_rows(own + self.strength * population_mix(histories, self.mix))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(Source(self.name, "counting"), histories, weights, self.spread)

    def stored(self) -> Stored:
        """Give the setting; of the fit only the time before which its events lie."""
        return Stored("DecayedDirichlet", self.to_dict() | fit_values(self.spread, self.fitted))

    @classmethod
    def from_stored(cls, stored: Stored) -> DecayedDirichlet:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "DecayedDirichlet"):
            if not isinstance(name := stored.values["name"], str):
                raise ValueError(f"name is {name!r}, no text")
            return cls(
                decay=read_number(stored, "decay", high=1.0),
                strength=read_number(stored, "strength", SMALLEST),
                mix=read_choice(stored, "mix", get_args(PopulationMix)),
                name=name,
                **read_fit(stored),
            )


@dataclass(frozen=True)
class ExponentialDecay:
    """(1 - smoothing) * decayed mean of the period shares + smoothing * what everybody took.

    Unlike with `DecayedDirichlet` a period counts the same however many events it holds, and a
    person of few events is smoothed like one of many.

    Attributes
    ----------
    decay
        Weight of a period relative to the next newer non-empty one, in (0, 1].
    smoothing
        Weight of the population mix, in (0, 1).
    mix
        The population mix, as of `DecayedDirichlet`.
    """

    decay: float = 0.9
    smoothing: float = 0.5
    mix: PopulationMix = "last period"
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = field(default=None, compare=False)

    def fit(self, windows: Sequence[Window]) -> ExponentialDecay:
        """Give the setting with the least log-loss on windows, by grid search."""
        fitted, histories = TrainingSpan.of_windows(windows), [window.history for window in windows]
        cells = TargetCells.of_windows(windows)
        own = {d: cells.collect(partial(_shares_of_rows, histories, d)) for d in AVERAGE_DECAYS}
        best, least = self, np.inf
        for mix in candidate_mixes(histories):
            common = _population_cells(histories, cells, mix)
            for decay, smoothing in itertools.product(AVERAGE_DECAYS, SMOOTHINGS):
                loss = cells.mean_log_loss(_smooth(*own[decay], common, smoothing))
                if loss < least:
                    best = replace(self, decay=decay, smoothing=smoothing, mix=mix)
                    least = loss
        spread = fit_dispersion(windows, best.category_weights)
        return replace(best, spread=spread, fitted=fitted)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        own, common = (
            _decayed_mean_shares(histories, self.decay),
            population_mix(histories, self.mix),
        )
        return _smooth(own, own.sum(axis=1, keepdims=True), common, self.smoothing)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return make_forecasts(
            Source("ExponentialDecay", "counting"), histories, weights, self.spread
        )

    def stored(self) -> Stored:
        """Give the setting; of the fit only the time before which its events lie."""
        values = {name: getattr(self, name) for name in ("decay", "smoothing", "mix")}
        return Stored("ExponentialDecay", values | fit_values(self.spread, self.fitted))

    @classmethod
    def from_stored(cls, stored: Stored) -> ExponentialDecay:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "ExponentialDecay"):
            return cls(
                decay=read_number(stored, "decay", SMALLEST, 1.0),
                smoothing=read_number(stored, "smoothing", SMALLEST, 1.0),
                mix=read_choice(stored, "mix", get_args(PopulationMix)),
                **read_fit(stored),
            )


def setting_losses(
    windows: Sequence[Window], decays: Sequence[float] = DECAYS
) -> dict[tuple[float, float, PopulationMix], float]:
    """Give the log-loss on windows of each setting (decay, strength, mix) of `DecayedDirichlet`."""
    histories = [window.history for window in windows]
    cells, losses = TargetCells.of_windows(windows), {}
    own = {d: cells.collect(partial(_counts_of_rows, histories, d)) for d in decays}
    for mix in candidate_mixes(histories):
        common = _population_cells(histories, cells, mix)
        for decay, strength in itertools.product(decays, STRENGTHS):
            counted, total = own[decay]
            weights = (counted + strength * common) / (total + strength)
            losses[decay, strength, mix] = cells.mean_log_loss(weights)
    return losses


def _counts_of_rows(histories: Sequence[History], decay: float, rows: slice) -> FloatArray:
    return age_weighted_counts(histories[rows], age_weights(decay))


def _population_cells(
    histories: Sequence[History], cells: TargetCells, mix: PopulationMix
) -> FloatArray:
    """(n_cells,) what `population_mix` gives to the categories that targets hold."""
    spans, which = _distinct_spans(*_mix_spans(histories, mix))
    found, span_of_cell = np.empty(len(cells.rows)), which[cells.rows]
    for some in row_blocks(len(spans), histories[0].catalog.n_categories):
        mixes = _mixes_of_spans(histories, spans[some])
        inside = (span_of_cell >= some.start) & (span_of_cell < some.stop)
        found[inside] = mixes[span_of_cell[inside] - some.start, cells.columns[inside]]
    return found


def candidate_mixes(histories: Sequence[History]) -> tuple[PopulationMix, ...]:
    """Give the mixes worth trying: with periods of events people share no last period."""
    return ("all",) if histories[0].period_length.unit == "events" else ("last period", "all")


def population_mix(histories: Sequence[History], mix: PopulationMix) -> FloatArray:
    """(n_histories, n_categories) mix that all users took before each cutoff; rows sum to 1."""
    return population_mix_between(histories, *_mix_spans(histories, mix))


def population_mix_between(
    histories: Sequence[History], starts: TimeArray, ends: TimeArray
) -> FloatArray:
    """(n_histories, n_categories) mix that all users took in a span of time a history.

    Half an event is added to each category, so that a category nobody took stays possible.
    """
    spans, which = _distinct_spans(starts, ends)
    return _mixes_of_spans(histories, spans)[which]


def _mix_spans(histories: Sequence[History], mix: PopulationMix) -> tuple[TimeArray, TimeArray]:
    """(n_histories,) starts and ends of the time whose mix `population_mix` gives."""
    ends = np.array([history.cutoff for history in histories], dtype="datetime64[ms]")
    starts = np.full_like(ends, histories[0].population.start)
    if mix == "last period":
        starts = np.array([history.bounds[-2] for history in histories], dtype="datetime64[ms]")
    return starts, ends


def _distinct_spans(starts: TimeArray, ends: TimeArray) -> tuple[TimeArray, IntArray]:
    """(n_spans, 2) distinct spans of time, and (n_histories,) the span of each history."""
    spans = np.stack((starts, ends), axis=1)
    if len(spans) == 1:  # one person alone, to whom the search would matter
        return spans, np.zeros(1, dtype=np.int64)
    spans, which = np.unique(spans, axis=0, return_inverse=True)
    return spans, which


def _mixes_of_spans(histories: Sequence[History], spans: TimeArray) -> FloatArray:
    """(n_spans, n_categories) mixes that all users took in spans of time."""
    counts = histories[0].population.category_counts(histories[0].catalog, spans[:, 0], spans[:, 1])
    return normalize_rows(counts + 0.5)


def age_weights(decay: float) -> FloatArray:
    """(MAX_PERIODS,) weights of a period by its age, the newest first; an age of 0 weighs 1."""
    return np.power(decay, np.arange(MAX_PERIODS), dtype=np.float64)


def _decayed_mean_shares(histories: Sequence[History], decay: float) -> FloatArray:
    """(n, n_categories) decayed means of the shares of non-empty periods; 0 where there is none."""
    batches = (
        histories[start : start + HISTORIES_PER_BATCH]
        for start in range(0, len(histories), HISTORIES_PER_BATCH)
    )
    return np.concatenate([_decayed_mean_shares_of_batch(part, decay) for part in batches])


def _decayed_mean_shares_of_batch(histories: Sequence[History], decay: float) -> FloatArray:
    row = np.repeat(np.arange(len(histories)), [history.n_periods for history in histories])
    sizes = np.concatenate([np.diff(history.offsets) for history in histories])
    row, sizes = row[sizes > 0], sizes[sizes > 0]
    newer = np.searchsorted(row, row, side="right") - 1 - np.arange(len(row))  # periods after it
    weights = np.power(decay, newer, dtype=np.float64)
    weights /= np.bincount(row, weights)[row] * sizes  # of each event of the period
    items = np.concatenate([history.item_idx for history in histories])
    rows, weights = np.repeat(row, sizes), np.repeat(weights, sizes)
    return category_sums(histories[0].catalog, rows, items, len(histories), weights)


def _shares_of_rows(histories: Sequence[History], decay: float, rows: slice) -> FloatArray:
    return _decayed_mean_shares(histories[rows], decay)


def _smooth(own: FloatArray, known: FloatArray, common: FloatArray, smoothing: float) -> FloatArray:
    """Mix own averages with the population mix; known is 0 for a person without events, else 1."""
    return np.asarray((1 - smoothing) * own + (1 - (1 - smoothing) * known) * common)
