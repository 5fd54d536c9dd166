"""Exponential decay: the weighted mean of a person's interest vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.counts import category_sums
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts
from llmrec.forecasters.counting import Mix, common_mix, mixes
from llmrec.forecasters.mixing import mean_loss
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMOOTHINGS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SLICE = 256


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
        Weight of the common mix, in (0, 1).
    mix
        Where the common mix is from, as with `DecayedDirichlet`.
    """

    decay: float = 0.9
    smoothing: float = 0.5
    mix: Mix = "last period"
    spread: Spread = UNFITTED
    fitted: Fitted | None = field(default=None, compare=False)

    def fit(self, windows: Sequence[Window]) -> ExponentialDecay:
        """Give the setting with the least log-loss on windows, by grid search."""
        fitted, histories = Fitted.on(windows), [window.history for window in windows]
        targets = target_counts(windows)
        best, least = self, np.inf
        for mix, decay in itertools.product(mixes(histories), DECAYS):
            own, common = _averages(histories, decay), common_mix(histories, mix)
            for smoothing in SMOOTHINGS:
                loss = mean_loss(_smoothed(own, common, smoothing), targets)
                if loss < least:
                    best = replace(self, decay=decay, smoothing=smoothing, mix=mix)
                    least = loss
        spread = fit_spread(histories, best.category_weights(histories), targets)
        return replace(best, spread=spread, fitted=fitted)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        own = _averages(histories, self.decay)
        return _smoothed(own, common_mix(histories, self.mix), self.smoothing)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return forecasts_of(Source("ExponentialDecay", "counting"), histories, weights, self.spread)


def _averages(histories: Sequence[History], decay: float) -> FloatArray:
    """(n, n_categories) decayed means of the shares of non-empty periods; 0 where there is none."""
    slices = (histories[start : start + SLICE] for start in range(0, len(histories), SLICE))
    return np.concatenate([_averages_of(part, decay) for part in slices])


def _averages_of(histories: Sequence[History], decay: float) -> FloatArray:
    row = np.repeat(np.arange(len(histories)), [history.n_periods for history in histories])
    sizes = np.concatenate([np.diff(history.offsets) for history in histories])
    row, sizes = row[sizes > 0], sizes[sizes > 0]
    newer = np.searchsorted(row, row, side="right") - 1 - np.arange(len(row))  # periods after it
    weights = np.power(decay, newer, dtype=np.float64)
    weights /= np.bincount(row, weights)[row] * sizes  # of each event of the period
    items = np.concatenate([history.item_idx for history in histories])
    rows, weights = np.repeat(row, sizes), np.repeat(weights, sizes)
    return category_sums(histories[0].catalog, rows, items, len(histories), weights)


def _smoothed(own: FloatArray, common: FloatArray, smoothing: float) -> FloatArray:
    known = own.sum(axis=1, keepdims=True)  # 0 for a person without events, else 1
    return np.asarray((1 - smoothing) * own + (1 - (1 - smoothing) * known) * common)
