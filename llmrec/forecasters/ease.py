"""EASE over categories: what goes with what a person took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts, weighted_counts
from llmrec.errors import TrainingError
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.mixing import fit_share, mixed, shares_of
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

RECENCY = 0.9  # weight of a period relative to the next newer one
PENALTIES = (10.0, 100.0, 1e3, 1e4)
POWERS = (1.0, 1.5, 2.0)


@dataclass(frozen=True, eq=False)
class CategoryEASE:
    """q = (1 - share) * counting + share * normalised max(x @ item_item, 0)^power.

    x are a person's log(1 + decayed counts). ``item_item`` (n_categories, n_categories) has a
    diagonal of 0: -P_ij / P_jj with P = (X'X + penalty I)^-1 (Steck 2019, eq. 8), over the training
    histories.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    power: float = 1.0
    share: float = 0.0
    item_item: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = UNFITTED
    fitted: Fitted | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> CategoryEASE:
        """Solve on training histories; penalty, power and share are those of least loss."""
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = prior.category_weights(histories)
        taken = _log_counts([window.history for window in training])
        squares = taken.T @ taken
        best, least = self, np.inf
        for penalty in PENALTIES:
            item_item = solve(squares, penalty)
            for power in POWERS:
                learned = _distribution(_log_counts(histories) @ item_item, power)
                share, loss = fit_share(counted, learned, targets)
                if loss < least:
                    best = replace(self, power=power, share=share, item_item=item_item)
                    least = loss
        best = replace(
            best, prior=prior, fitted=Fitted.on(training, validation).joined(prior.fitted)
        )
        weights = best.category_weights(histories)
        return replace(best, spread=fit_spread(histories, weights, targets))

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.item_item):
            raise TrainingError("CategoryEASE has no weights yet: fit it")
        learned = _distribution(_log_counts(histories) @ self.item_item, self.power)
        return mixed(self.prior.category_weights(histories), learned, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        weights = self.category_weights(histories)
        return forecasts_of(Source("CategoryEASE", "counting"), histories, weights, self.spread)


def solve(squares: FloatArray, penalty: float) -> FloatArray:
    """EASE's weights from X'X: least squares of each column on the others, diagonal 0."""
    inverse = np.linalg.inv(squares + penalty * np.eye(len(squares)))
    weights: FloatArray = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def _log_counts(histories: Sequence[History]) -> FloatArray:
    return np.log1p(weighted_counts(histories, age_weights(RECENCY)))


def _distribution(scores: FloatArray, power: float) -> FloatArray:
    return shares_of(np.maximum(scores, 0.0) ** power)
