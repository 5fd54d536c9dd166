"""A Markov chain over categories: what people take after what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts, weighted_counts
from llmrec.errors import TrainingError
from llmrec.forecasters.counting import age_weights, normalised
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.mixing import fit_share, mixed, shares_of
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

RECENCIES = (0.0, 0.5, 0.8)
PSEUDO_EVENTS = 20.0  # of the mix of all targets, in each row of the transition


@dataclass(frozen=True, eq=False)
class CategoryMarkov:
    """q = (1 - share) * counting + share * recent interests @ transition.

    ``transition`` (n_categories, n_categories) has rows that sum to 1: the mix that people took in
    the period after one in which they took the row's category. ``recency`` is the weight of a
    period relative to the next newer one in the recent interests (0: the last period alone).
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    recency: float = 0.5
    share: float = 0.0
    transition: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = UNFITTED
    fitted: Fitted | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryMarkov:
        """Learn the transition on training windows, recency and share on validation windows."""
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = Fitted.on(training, validation).joined(prior.fitted)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        best, least = self, np.inf
        for recency in RECENCIES:
            transition = _transition(training, recency)
            tried = replace(
                self, prior=prior, recency=recency, transition=transition, fitted=fitted
            )
            counted, followed = prior.category_weights(histories), tried._followed(histories)
            share, loss = fit_share(counted, followed, targets)
            if loss < least:
                best, least = replace(tried, share=share), loss
        weights = best.category_weights(histories)
        return replace(best, spread=fit_spread(histories, weights, targets))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.transition):
            raise TrainingError("CategoryMarkov has no transition yet: fit it")
        return mixed(self.prior.category_weights(histories), self._followed(histories), self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return forecasts_of(Source("CategoryMarkov", "counting"), histories, weights, self.spread)

    def _followed(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) what follows recent interests; 0 where there are none."""
        return shares_of(weighted_counts(histories, age_weights(self.recency))) @ self.transition


def _transition(windows: Sequence[Window], recency: float) -> FloatArray:
    recent = shares_of(weighted_counts([w.history for w in windows], age_weights(recency)))
    targets = target_counts(windows)
    moves = recent.T @ targets
    overall = normalised(targets.sum(axis=0, keepdims=True) + 0.5)
    return normalised(moves + PSEUDO_EVENTS * overall)
