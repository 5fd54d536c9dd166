"""Neighbouring users: what people of like interests took next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts, weighted_counts
from llmrec.errors import TrainingError
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.mixing import HeldOut, fit_share, mixed, shares_of
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

RECENCY = 0.9  # weight of a period relative to the next newer one
SHARPNESSES = (10.0, 20.0, 40.0, 80.0)
SLICE = 256  # histories compared with all others at a time


@dataclass(frozen=True, eq=False)
class NeighbouringUsers:
    """q = (1 - share) * counting + share * weighted mean of what others took next.

    Others are histories of the training windows; their weights are the softmax of ``sharpness``
    times the likeness of the interest vectors (Bhattacharyya coefficient, 0..1). All of them count,
    the near ones most, so that no rounding decides who is a neighbour.

    Attributes
    ----------
    theirs
        (n_windows, n_categories) square roots of the others' interest vectors.
    next_shares
        (n_windows, n_categories) what they took in the period after.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    sharpness: float = 20.0
    share: float = 0.0
    theirs: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    next_shares: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    spread: Spread = UNFITTED
    fitted: Fitted | None = None
    held_out: HeldOut | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> NeighbouringUsers:
        """Remember the training windows; sharpness and share are those of least validation loss.

        Afterwards the validation windows are remembered as well. ``held_out`` are the weights that
        they got before.
        """
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        targets = target_counts(validation)
        histories = [window.history for window in validation]
        counted = prior.category_weights(histories)
        own, theirs = _roots(histories), _roots([window.history for window in training])
        taken = shares_of(target_counts(training))
        best, least, weights = self, np.inf, counted
        for sharpness in SHARPNESSES:
            near = _neighbours_took(own, theirs, taken, sharpness)
            share, loss = fit_share(counted, near, targets)
            if loss < least:
                best, least = replace(self, sharpness=sharpness, share=share), loss
                weights = mixed(counted, near, share)
        return replace(
            best,
            prior=prior,
            theirs=np.concatenate((theirs, own)),
            next_shares=np.concatenate((taken, shares_of(targets))),
            spread=fit_spread(histories, weights, targets),
            fitted=Fitted.on(training, validation).joined(prior.fitted),
            held_out=HeldOut.of(validation, weights),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        if not len(self.theirs):
            raise TrainingError("NeighbouringUsers knows nobody yet: fit it")
        own = _roots(histories)
        near = _neighbours_took(own, self.theirs, self.next_shares, self.sharpness)
        return mixed(self.prior.category_weights(histories), near, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("NeighbouringUsers", "counting")
        return forecasts_of(source, histories, self.category_weights(histories), self.spread)


def _roots(histories: Sequence[History]) -> FloatArray:
    """(n, n_categories) square roots of decayed shares: of length 1, or 0 without events."""
    return np.sqrt(shares_of(weighted_counts(histories, age_weights(RECENCY))))


def _neighbours_took(
    own: FloatArray, theirs: FloatArray, taken: FloatArray, sharpness: float
) -> FloatArray:
    """(n, n_categories) weighted mean of what others took; 0 for a person without events."""
    found = [
        special.softmax(sharpness * (own[start : start + SLICE] @ theirs.T), axis=1) @ taken
        for start in range(0, len(own), SLICE)
    ]
    known = own.sum(axis=1, keepdims=True) > 0
    return np.asarray(np.concatenate(found) * known)
