"""Reference forecasts: updated by half of the target, and the best one of a synthetic world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import category_sums
from llmrec.data.periods import History, Window
from llmrec.data.synthetic import SyntheticWorld
from llmrec.forecast import Forecast, Source
from llmrec.metrics import log_loss
from llmrec.types import FloatArray

INFORMED_PRIORS = tuple(float(value) for value in np.geomspace(5, 5_000, 25))  # in events


@dataclass(frozen=True)
class OracleForecaster:
    """The best forecaster of a synthetic world: it knows how the log was made."""

    world: SyntheticWorld

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff.

        Raises
        ------
        DataError
            If a history is not cut at a boundary of the world's periods.
        """
        source = Source("Optimum", "counting")
        weights, concentrations = self.world.expected_shares(histories)
        return [
            Forecast(row, concentration, "", (), source)
            for row, concentration in zip(weights, concentrations.tolist(), strict=True)
        ]


def split_targets(windows: Sequence[Window], seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Split each target in two halves at random.

    Returns
    -------
    shown, hidden
        (n_windows, n_categories) counts. Events of one time stay together; a target of one time is
        left out (both 0).
    """
    events, sides = [], []
    for window in windows:
        target, user = window.target, window.history.user_idx
        times, basket = np.unique(
            target.log.timestamp[target.start : target.stop], return_inverse=True
        )
        order = np.random.default_rng((seed, user)).permutation(len(times))
        side = np.where(order[basket] < len(times) // 2, 0, 1)
        events.append(target.item_idx)
        sides.append(side if len(times) > 1 else np.full(len(side), 2))
    row = np.repeat(np.arange(len(windows)), [len(part) for part in events])
    cells = 3 * row + np.concatenate(sides)
    sums = category_sums(
        windows[0].target.catalog, cells, np.concatenate(events), 3 * len(windows)
    ).reshape(len(windows), 3, -1)
    return sums[:, 0], sums[:, 1]


def informed_losses(
    category_weights: FloatArray, shown: FloatArray, hidden: FloatArray
) -> FloatArray:
    """(n,) log-loss on the hidden half of the forecast updated by the shown half.

    q' = (n q + shown) / (n + n_shown). The prior's n is the best of a grid on these very windows:
    the reference is to be as strong as it can be.
    """
    totals = shown.sum(axis=1, keepdims=True)
    by_prior = [
        log_loss((n * category_weights + shown) / (n + totals), hidden) for n in INFORMED_PRIORS
    ]
    return min(by_prior, key=lambda losses: float(np.nansum(losses)))
