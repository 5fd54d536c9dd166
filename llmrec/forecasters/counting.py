"""Decayed Dirichlet counting: the honest baseline, the prior and the fallback of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.periods import History, Window, category_counts_between, weighted_counts
from llmrec.errors import DataError

DECAYS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
STRENGTHS = (5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 180.0, 270.0)
MAX_PERIODS = 512


@dataclass(frozen=True)
class DecayedDirichlet:
    """Category weights = decayed own counts + strength * what everybody took lately.

    Attributes
    ----------
    decay
        Weight of a period relative to the next newer one, in (0, 1].
    strength
        Pseudo-events that the common mix is worth (> 0).
    mix
        The common mix is what everybody took in the "last period" before the cutoff, or "all" that
        they took before it (the choice for periods counted in events).
    concentration
        Dirichlet concentration of the forecasts (> 0).
    """

    decay: float = 0.9
    strength: float = 120.0
    mix: Literal["last period", "all"] = "last period"
    concentration: float = 50.0

    def fit(self, windows: Sequence[Window]) -> DecayedDirichlet:
        """Give the setting with the least log-loss on windows, by grid search.

        The concentration is then fitted to the spread of the targets around the forecasts.
        """
        if not windows:
            raise DataError("no window to fit on")
        histories = [window.history for window in windows]
        targets = np.stack([window.target.category_counts for window in windows])
        shares = targets / targets.sum(axis=1, keepdims=True)
        mixes: tuple[Literal["last period", "all"], ...] = ("last period", "all")
        if histories[0].length.unit == "events":
            mixes = ("all",)
        best, least = self, np.inf
        for mix, decay in itertools.product(mixes, DECAYS):
            own = weighted_counts(histories, _age_weights(decay))
            common = common_mix(histories, mix)
            for strength in STRENGTHS:
                loss = -(shares * np.log(_normalised(own + strength * common))).sum(axis=1).mean()
                if loss < least:
                    best, least = replace(self, decay=decay, strength=strength, mix=mix), loss
        weights = best.category_weights(histories)
        return replace(best, concentration=fit_concentration(weights, targets))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        own = weighted_counts(histories, _age_weights(self.decay))
        return _normalised(own + self.strength * common_mix(histories, self.mix))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("DecayedDirichlet", "counting")
        return [
            Forecast(weights, self.concentration, "", (), source)
            for weights in self.category_weights(histories)
        ]


def common_mix(histories: Sequence[History], mix: Literal["last period", "all"]) -> FloatArray:
    """(n_histories, n_categories) what all users took before each cutoff; rows sum to 1, all > 0.

    Half an event is added to each category, so that a category nobody took stays possible.
    """
    log, catalog = histories[0].log, histories[0].catalog
    ends = np.array([history.cutoff for history in histories], dtype="datetime64[ms]")
    starts = np.full_like(ends, log.timestamp.min())
    if mix == "last period":
        starts = np.array([history.bounds[-2] for history in histories], dtype="datetime64[ms]")
    spans, inverse = np.unique(np.stack((starts, ends), axis=1), axis=0, return_inverse=True)
    counts = category_counts_between(log, catalog, spans[:, 0], spans[:, 1])
    return _normalised(counts + 0.5)[inverse]


def fit_concentration(category_weights: FloatArray, targets: FloatArray) -> float:
    """Dirichlet concentration whose variance is that of the observed shares around the forecasts.

    By moments: E sum_c (share_c - w_c)^2 = (1 - sum_c w_c^2) / (concentration + 1). The spread so
    includes the noise of a period's few events. ``category_weights`` and ``targets`` (counts) are
    (n, n_categories).
    """
    shares = targets / targets.sum(axis=1, keepdims=True)
    spread = ((shares - category_weights) ** 2).sum()
    largest = (1 - (category_weights**2).sum(axis=1)).sum()
    return float(np.clip(largest / max(spread, 1e-12) - 1, 0.5, 1e6))


def _age_weights(decay: float) -> FloatArray:
    return np.power(decay, np.arange(MAX_PERIODS), dtype=np.float64)


def _normalised(counts: FloatArray) -> FloatArray:
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
