"""Worlds where who has understood the past knows the next period, and counting cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.windows import make_windows
from llmrec.forecast import Forecaster
from llmrec.metrics import log_loss
from tests.worlds import START, catalog

Takes = Callable[[int, int], int | None]
N_EVENTS = 8  # that somebody takes in a period
N_PERIODS = 10  # of the longest world


def successive(user: int, period: int) -> int:
    """Action, then Drama for good; or Comedy, then Horror, as do the odd users."""
    return user % 2 + 2 * (period > 0)


def fashion(user: int, period: int) -> int | None:
    """Everybody takes the same, by turns, and each person comes only once."""
    return period % 2 if user % N_PERIODS == period else None


def windows_by_target(takes: Takes, n_users: int, n_periods: int) -> list[list[Window]]:
    """Windows whose target is the second 7-day period, the third, and so on to the last.

    ``takes(user, period)`` is the category that a user then takes, or None for no event.
    """
    rows = [
        (f"u{user:03d}", f"i{category + 5 * (event % 5):03d}", START + _after(period, event))
        for user in range(n_users)
        for period in range(n_periods)
        if (category := takes(user, period)) is not None
        for event in range(N_EVENTS)
    ]
    items = catalog()
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events = Interactions.from_frame(frame).align_to(items)
    first = events.timestamp.min()
    return [
        make_windows(events, items, "7D", first + _after(period, 0), min_periods=0)
        for period in range(1, n_periods)
    ]


def loss_of(forecaster: Forecaster, windows: Sequence[Window]) -> float:
    """Mean nats per event."""
    forecasts = forecaster.forecast([window.history for window in windows])
    weights = np.stack([forecast.category_weights for forecast in forecasts])
    targets = np.stack([window.target.category_counts for window in windows])
    return float(log_loss(weights, targets).mean())


def _after(period: int, hours: int) -> np.timedelta64:
    return np.timedelta64(24 * 7 * period + hours, "h")
