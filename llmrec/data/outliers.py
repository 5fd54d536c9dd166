"""Rows that are no part of a log's life: stray dates, one-day bursts, bots."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.types import BoolArray, IntArray, TimeArray

BOT_EVENTS_PER_DAY = 1_000
MIN_EVENTS = 20  # in a smaller log no date is called a stray one
MAX_STRAY_SHARE = 0.01  # of the events, on either side
STRAY_GAP_DAYS, STRAY_GAP_SHARE = 180, 0.25
MIN_DAYS_FOR_BURST, MIN_BURST_EVENTS = 28, 1_000
BURST_SHARE, BURST_RATIO = 0.2, 20

BOT_RULE = "bot: more than {:,} events in one day"
STRAY_RULE = (
    f"stray date: at most {MAX_STRAY_SHARE:.0%} of the events, apart from all others by more than "
    f"a quarter of the time that those span, and by more than {STRAY_GAP_DAYS} days"
)
BURST_RULE = (
    f"one-day burst: more than {BURST_SHARE:.0%} of the events on one day, and more than "
    f"{BURST_RATIO} times those of the median day"
)


def find_stray_dates(times: TimeArray) -> BoolArray:
    """(n,) the events that stray far before or after all others, see `STRAY_RULE`.

    One event may always be a stray one. A log of fewer than `MIN_EVENTS` events has none.
    """
    stray = np.zeros(len(times), dtype=bool)
    if len(times) < MIN_EVENTS:
        return stray
    days = times.astype("datetime64[D]").astype(np.int64)
    first = days.min()
    counts = np.bincount(days - first)
    found = np.flatnonzero(counts)
    bounds = _core(found, counts[found], max(1.0, MAX_STRAY_SHARE * len(times)))
    return np.asarray((days - first < bounds[0]) | (days - first > bounds[1]))


def find_burst(times: TimeArray) -> BoolArray:
    """(n,) the events of a day on which the log was filled at once, see `BURST_RULE`.

    A log with events on fewer than `MIN_DAYS_FOR_BURST` days has none, nor has a day of no more
    than `MIN_BURST_EVENTS` events.
    """
    if not len(times):
        return np.zeros(0, dtype=bool)
    days = times.astype("datetime64[D]").astype(np.int64)
    counts = np.bincount(days - days.min())
    filled = counts[counts > 0]
    limit = max(MIN_BURST_EVENTS, BURST_SHARE * len(times), BURST_RATIO * float(np.median(filled)))
    is_burst = (counts > limit) & (len(filled) >= MIN_DAYS_FOR_BURST)
    return np.asarray(is_burst[days - days.min()])


def find_bots(users: IntArray, times: TimeArray, events_per_day: int) -> BoolArray:
    """(n,) the events of users with more than so many on any one UTC day."""
    if not len(times):
        return np.zeros(0, dtype=bool)
    days = times.astype("datetime64[D]").astype(np.int64)
    span = int(days.max() - days.min()) + 1
    per_user = np.bincount(users)
    busy = per_user[users] > events_per_day  # nobody else can have as many on a day
    cells = users[busy] * span + (days[busy] - days.min())
    codes, cells = pd.factorize(cells)
    bots = np.unique(cells[np.bincount(codes, minlength=len(cells)) > events_per_day] // span)
    return np.asarray(np.isin(users, bots))


def _core(days: npt.NDArray[np.int64], counts: IntArray, most: float) -> tuple[int, int]:
    """Give the first and the last day that are no stray ones, of the days that have events."""
    total, low, high = np.concatenate(([0], np.cumsum(counts))), 0, len(days) - 1
    moved = True
    while moved and high > low:
        moved = False
        gaps = np.diff(days[low : high + 1])
        for at in np.flatnonzero(gaps > STRAY_GAP_DAYS) + low:  # the gap after days[at]
            gap = days[at + 1] - days[at]
            if total[at + 1] <= most and gap > (days[high] - days[at + 1]) * STRAY_GAP_SHARE:
                low, moved = int(at + 1), True
                break
            if total[-1] - total[at + 1] <= most and gap > (days[at] - days[low]) * STRAY_GAP_SHARE:
                high, moved = int(at), True
                break
    return int(days[low]), int(days[high])
