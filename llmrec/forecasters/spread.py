"""How far what people then take scatters around a forecast, and the forecasts that say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

from llmrec.contracts import FloatArray, Forecast, Source
from llmrec.data.periods import History

# Bounds of the variance: concentrations of 1e6 and 0.5.
SURE, UNSURE = 1e-6, 2 / 3


class Spread(NamedTuple):
    """Variance of an observed share around its forecast w: w (1 - w) (latent + sampling / m).

    ``latent`` is what nobody could know, ``sampling`` the noise of a period's few events: m is the
    mean number of events in the non-empty periods of the person's history (1 for an empty one).
    """

    latent: float = 0.02
    sampling: float = 0.0

    def concentration(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories,) Dirichlet concentrations with that variance, in 0.5..1e6."""
        variance = self.latent + self.sampling / _events_a_period(histories)
        return np.asarray(1 / np.clip(variance, SURE, UNSURE) - 1)


UNFITTED = Spread()


def fit_spread(
    histories: Sequence[History], category_weights: FloatArray, targets: FloatArray
) -> Spread:
    """Fit a spread by moments to what was observed.

    With a Dirichlet, E sum_c (share_c - w_c)^2 = (1 - sum_c w_c^2) / (concentration + 1); both
    parts of the variance are found by non-negative least squares over users. ``category_weights``
    and ``targets`` (counts) are (n_histories, n_categories); targets without events are left out.
    """
    totals = targets.sum(axis=1)
    seen = totals > 0
    shares = targets[seen] / totals[seen, None]
    weights = category_weights[seen]
    largest = np.maximum(1 - (weights**2).sum(axis=1), 1e-9)
    found = ((shares - weights) ** 2).sum(axis=1) / largest
    causes = np.stack((np.ones(len(found)), 1 / _events_a_period(histories)[seen]), axis=1)
    (latent, sampling), _ = optimize.nnls(causes, found)
    return Spread(float(latent), float(sampling))


def forecasts_of(
    source: Source, histories: Sequence[History], category_weights: FloatArray, spread: Spread
) -> list[Forecast]:
    """Dress (n_histories, n_categories) weights as forecasts without words."""
    return [
        Forecast(weights, concentration, "", (), source)
        for weights, concentration in zip(
            category_weights, spread.concentration(histories).tolist(), strict=True
        )
    ]


def _events_a_period(histories: Sequence[History]) -> FloatArray:
    n_periods = np.array([history.n_periods for history in histories])
    last = (n_periods + 1).cumsum()
    sizes = np.diff(np.concatenate([history.offsets for history in histories]))
    sizes = np.delete(sizes, last[:-1] - 1)  # events of each period
    starts = n_periods.cumsum() - n_periods
    periods = np.add.reduceat(sizes > 0, starts, dtype=np.int64)
    return np.asarray(np.maximum(np.add.reduceat(sizes, starts) / np.maximum(periods, 1), 1.0))
