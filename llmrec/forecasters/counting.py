"""Decayed Dirichlet counting: the honest baseline, the prior and the fallback of the rest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.fitted import Fitted
from llmrec.data.periods import (
    History,
    TimeArray,
    Window,
    category_counts_between,
    target_counts,
    weighted_counts,
)
from llmrec.forecasters.mixing import mean_loss
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

DECAYS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
STRENGTHS = (5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 180.0, 270.0)
MAX_PERIODS = 512
Mix = Literal["last period", "all"]


@dataclass(frozen=True)
class DecayedDirichlet:
    """Category weights = decayed own counts + strength * what everybody took lately.

    Attributes
    ----------
    decay
        Weight of a period relative to the next newer one, in [0, 1].
    strength
        Pseudo-events that the common mix is worth (> 0).
    mix
        The common mix is what everybody took in the "last period" before the cutoff, or "all" that
        they took before it (the choice for periods counted in events).
    spread
        How far observed shares scatter around the forecasts.
    name
        What tables call it.
    fitted
        What the fit has seen; None if nothing was fitted.
    """

    decay: float = 0.9
    strength: float = 120.0
    mix: Mix = "last period"
    spread: Spread = UNFITTED
    name: str = "DecayedDirichlet"
    fitted: Fitted | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", Spread(*self.spread))  # JSON makes it a list

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``DecayedDirichlet(**values)`` is the same setting, unfitted."""
        found = {name: getattr(self, name) for name in ("decay", "strength", "mix", "name")}
        return found | {"spread": list(self.spread)}

    def fit(self, windows: Sequence[Window], decays: Sequence[float] = DECAYS) -> DecayedDirichlet:
        """Give the setting with the least log-loss on windows, by grid search.

        With the one decay 0 that is the smoothed last period, with 1 the smoothed mean of all that
        was taken. The spread of the targets around the forecasts is fitted after it.
        """
        fitted = Fitted.on(windows)
        histories = [window.history for window in windows]
        targets = target_counts(windows)
        best, least = self, np.inf
        for mix, decay in itertools.product(mixes(histories), decays):
            own = weighted_counts(histories, age_weights(decay))
            common = common_mix(histories, mix)
            for strength in STRENGTHS:
                loss = mean_loss(normalised(own + strength * common), targets)
                if loss < least:
                    best, least = replace(self, decay=decay, strength=strength, mix=mix), loss
        spread = fit_spread(histories, best.category_weights(histories), targets)
        return replace(best, spread=spread, fitted=fitted)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        own = weighted_counts(histories, age_weights(self.decay))
        return normalised(own + self.strength * common_mix(histories, self.mix))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return forecasts_of(Source(self.name, "counting"), histories, weights, self.spread)


def mixes(histories: Sequence[History]) -> tuple[Mix, ...]:
    """Give the common mixes worth trying: periods of events have no last one that all share."""
    return ("all",) if histories[0].length.unit == "events" else ("last period", "all")


def common_mix(histories: Sequence[History], mix: Mix) -> FloatArray:
    """(n_histories, n_categories) what all users took before each cutoff; rows sum to 1."""
    ends = np.array([history.cutoff for history in histories], dtype="datetime64[ms]")
    starts = np.full_like(ends, histories[0].log.timestamp.min())
    if mix == "last period":
        starts = np.array([history.bounds[-2] for history in histories], dtype="datetime64[ms]")
    return mix_between(histories, starts, ends)


def mix_between(histories: Sequence[History], starts: TimeArray, ends: TimeArray) -> FloatArray:
    """(n_histories, n_categories) what all users took in a span of time a history.

    Half an event is added to each category, so that a category nobody took stays possible.
    """
    log, catalog = histories[0].log, histories[0].catalog
    spans, inverse = np.unique(np.stack((starts, ends), axis=1), axis=0, return_inverse=True)
    counts = category_counts_between(log, catalog, spans[:, 0], spans[:, 1])
    return normalised(counts + 0.5)[inverse]


def age_weights(decay: float) -> FloatArray:
    """(MAX_PERIODS,) weights of a period by its age, the newest first; an age of 0 weighs 1."""
    return np.power(decay, np.arange(MAX_PERIODS), dtype=np.float64)


def normalised(counts: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum."""
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
