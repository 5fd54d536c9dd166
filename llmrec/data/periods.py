"""Cutting histories into periods: the only file that compares events' times with a cutoff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from llmrec.contracts import IntArray
from llmrec.data.calendar import (
    INSTANT,
    Period,
    PeriodLength,
    as_time,
    boundaries_before,
    cutoffs,
)
from llmrec.data.catalog import Catalog
from llmrec.data.counts import (
    category_counts_between,
    common_counts,
    item_counts_between,
    period_counts,
    target_counts,
    weighted_counts,
)
from llmrec.data.histories import History, Target, Window
from llmrec.data.interactions import Interactions
from llmrec.data.timestamps import TimeArray
from llmrec.errors import DataError

__all__ = [
    "History",
    "Period",
    "PeriodLength",
    "Target",
    "TimeArray",
    "Window",
    "category_counts_between",
    "common_counts",
    "cutoffs",
    "events_before",
    "holdout_cutoff",
    "holdout_windows",
    "item_counts_between",
    "latest_windows",
    "log_before",
    "make_histories",
    "make_windows",
    "period_counts",
    "target_counts",
    "tick_cutoffs",
    "ticks",
    "timelines",
    "weighted_counts",
    "windows_after",
]
Time = datetime | np.datetime64 | str
TICKS = 4  # parts that a calendar period is cut into


def make_windows(
    log: Interactions,
    catalog: Catalog,
    period: str | PeriodLength,
    cutoff: Time | None = None,
    *,
    back: int = 0,
    min_periods: int = 1,
    min_target_events: int = 1,
) -> list[Window]:
    """Cut every user's log at a cutoff into a history and the period that follows.

    Parameters
    ----------
    period
        "28D", "2W", "1M": calendar periods, counted back from the cutoff. "10 events": periods of
        that many events, counted from a user's first event (ties in time: order in the file).
    cutoff
        Start of the target period. None: the last complete period is the target; with periods of
        events that is each user's last complete one.
    back
        With ``cutoff=None``: how many periods before the last complete one the target lies.
    min_periods
        Non-empty periods that a history must have.
    min_target_events
        Events that a target must have.

    Raises
    ------
    DataError
        If the period is not understood, or the log is too short for it.
    """
    log, length = log.aligned(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        end = None if cutoff is None else as_time(cutoff)
        windows = _event_windows(log, catalog, length, end, back)
    elif cutoff is None:
        grid = cutoffs(log, length)
        if len(grid) < 3 + back:
            raise DataError(
                f"the log spans {len(grid) - 1} whole periods of {length}; a history and a target "
                f"{back} periods back need {back + 2}. Choose shorter periods, or give a cutoff."
            )
        windows = _calendar_windows(log, catalog, length, grid[-2 - back])
    else:
        windows = _calendar_windows(log, catalog, length, as_time(cutoff))
    return [
        window
        for window in windows
        if np.count_nonzero(np.diff(window.history.offsets)) >= min_periods
        and window.target.n_events >= min_target_events
    ]


def latest_windows(log: Interactions, catalog: Catalog, period: str | PeriodLength) -> list[Window]:
    """Cut windows whose target is the newest stretch of one period's length.

    Calendar: the period that ends with the log's last event. Events: each user's last complete one.
    """
    log, length = log.aligned(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        return make_windows(log, catalog, length)
    return make_windows(log, catalog, length, holdout_cutoff(log, length))


def holdout_cutoff(log: Interactions, period: str | PeriodLength) -> np.datetime64:
    """One time for everybody that leaves something to forecast after it.

    Calendar: a period before the log's end; months of unequal length may leave a day or two of it
    out. Events: the time before which 90 % of all events lie.
    """
    length = PeriodLength.parse(period)
    if length.unit != "events":
        return length.shift(log.timestamp.max() + INSTANT, -1)
    cutoff: np.datetime64 = np.sort(log.timestamp)[int(0.9 * len(log))]
    return cutoff


def holdout_windows(
    log: Interactions, catalog: Catalog, period: str | PeriodLength, min_target_events: int = 5
) -> list[Window]:
    """Cut everybody at `holdout_cutoff`; the same as `latest_windows` for calendar periods."""
    cutoff = holdout_cutoff(log, period)
    return make_windows(log, catalog, period, cutoff, min_target_events=min_target_events)


def make_histories(
    log: Interactions,
    catalog: Catalog,
    period: str | PeriodLength,
    cutoff: Time | None = None,
    users: Sequence[int] | None = None,
) -> list[History]:
    """Cut users' whole past before a cutoff (default: just after the log's last event).

    ``users`` are user indices into ``log.aligned(catalog)`` (default: all). A user without an
    event before the cutoff gets a history of empty periods.
    """
    log, length = log.aligned(catalog), PeriodLength.parse(period)
    end = log.timestamp.max() + INSTANT if cutoff is None else as_time(cutoff)
    chosen = range(log.n_users) if users is None else [int(user) for user in users]
    if length.unit == "events":
        stops = [_position(log, user, end) for user in chosen]
        return [
            _event_history(log, catalog, length, user, stop, end)
            for user, stop in zip(chosen, stops, strict=True)
        ]
    bounds = boundaries_before(log, length, end)
    return [
        History(log, catalog, user, _positions(log, user, bounds), bounds, end, length)
        for user in chosen
    ]


def windows_after(histories: Sequence[History]) -> list[Window | None]:
    """Put to each history the period that follows it in its log; None if it has not fully passed.

    Calendar periods have passed when the log reaches their end, periods of n events when the person
    has taken n more. Histories are of one log.
    """
    if not histories:
        return []
    end = histories[0].log.timestamp.max() + INSTANT
    return [
        Window(history, target) if (target := _target_by(end, history)) else None
        for history in histories
    ]


def _target_by(end: np.datetime64, history: History) -> Target | None:
    """Give what follows a history, if that has passed by ``end``."""
    log, length, user, start = history.log, history.length, history.user_idx, history.event_ids.stop
    if length.unit == "events":
        stop = start + length.n
        if stop > log.user_offsets[user + 1]:
            return None
        span = Period(log.timestamp[start], log.timestamp[stop - 1] + INSTANT)
    else:
        span = Period(history.cutoff, length.shift(history.cutoff, 1))
        if span.end > end:
            return None
        stop = _position(log, user, span.end)
    return Target(log, history.catalog, start, stop, span)


def ticks(history: History) -> tuple[TimeArray, IntArray]:
    """Cut a history finer than into periods, from the tick of its first event on.

    Calendar periods have `TICKS` equal parts; with periods of events every event is a tick.

    Returns
    -------
    starts, offsets
        (n_ticks,) times, and (n_ticks + 1,): events of tick ``t`` are the log positions
        ``offsets[t]:offsets[t + 1]``. No tick if there is no event.
    """
    log, events = history.log, history.event_ids
    if history.length.unit == "events" or not events:
        offsets = np.arange(events.start, events.stop + 1)
        return log.timestamp[offsets[:-1]], offsets
    starts, lengths = history.bounds[:-1, None], np.diff(history.bounds)[:, None]
    edges = (starts + lengths * np.arange(TICKS) // TICKS).ravel()
    offsets = np.append(_positions(log, history.user_idx, edges), events.stop)
    first = int(np.argmax(np.diff(offsets) > 0))
    return edges[first:], offsets[first:]


def tick_cutoffs(log: Interactions, period: str | PeriodLength, before: np.datetime64) -> TimeArray:
    """Cutoffs on the grid of ``before``, oldest first, whose target period ends by then.

    They are a tick apart (with months, whose ticks differ in length, a period).
    """
    length = PeriodLength.parse(period)
    grid = boundaries_before(log, length, before)[1:-1]
    if length.unit == "months":
        return grid
    tick = np.timedelta64(length.n, "D").astype("timedelta64[ms]") // TICKS
    return np.unique(grid[:, None] - tick * np.arange(TICKS))


def timelines(
    log: Interactions,
    catalog: Catalog,
    period: str | PeriodLength,
    before: np.datetime64 | Sequence[int],
    *,
    min_target_events: int = 1,
) -> list[list[Window]]:
    """Cut each person's past at the end of every tick: windows, oldest first, person by person.

    Parameters
    ----------
    before
        Calendar periods: a time that no target reaches beyond. Periods of events: for each user the
        log position before which their targets end.
    min_target_events
        Events that a target must have.

    Returns
    -------
    list[list[Window]]
        Of everybody with a window. One with an empty history stands first at most.
    """
    log, length = log.aligned(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        ends = np.asarray(before, dtype=np.int64)
        return [found for found in _event_timelines(log, catalog, length, ends) if found]
    assert isinstance(before, np.datetime64)
    people: dict[int, list[Window]] = {}
    for cutoff in tick_cutoffs(log, length, before):
        for window in _calendar_windows(log, catalog, length, cutoff):
            if window.target.n_events < min_target_events:
                continue
            found = people.setdefault(window.history.user_idx, [])
            if not window.history.n_events:
                found.clear()  # only the newest without a past is kept
            found.append(window)
    return list(people.values())


def _event_timelines(
    log: Interactions, catalog: Catalog, length: PeriodLength, ends: IntArray
) -> Iterator[list[Window]]:
    for user, end in enumerate(ends):
        found = []
        for start in range(int(log.user_offsets[user]), int(end) - length.n + 1):
            stop = start + length.n
            span = Period(log.timestamp[start], log.timestamp[stop - 1] + INSTANT)
            history = _event_history(log, catalog, length, user, start, span.start)
            found.append(Window(history, Target(log, catalog, start, stop, span)))
        yield found


def events_before(log: Interactions, cutoff: Time) -> Interactions:
    """Give the log as it was just before a cutoff; DataError if it was empty."""
    return log.without({"at or after the cutoff": log.timestamp >= as_time(cutoff)})


def log_before(windows: Sequence[Window]) -> Interactions:
    """Give the log to fit something on that windows will judge: nothing of their targets is in it.

    Where one time cuts all windows, nothing of anybody at or after it is. Where periods are counted
    in events and each person is cut at their own one, "before" holds person by person, as in
    `Fitted`: what others took later in time stays.
    """
    log = windows[0].history.log
    cutoff = min(window.history.cutoff for window in windows)
    if cutoff == max(window.history.cutoff for window in windows):
        return events_before(log, cutoff)
    stops = log.user_offsets[1:].copy()
    users = [window.history.user_idx for window in windows]
    np.minimum.at(stops, users, [window.target.start for window in windows])
    return log.without({"from the target on": np.arange(len(log)) >= stops[log.user_idx]})


def _positions(log: Interactions, user: int, times: TimeArray) -> IntArray:
    """(n_times,) log position of the user's first event at or after each time."""
    first, last = log.user_offsets[user : user + 2]
    found = np.searchsorted(log.timestamp[first:last], times, side="left")
    return np.asarray(first + found, dtype=np.int64)


def _position(log: Interactions, user: int, time: np.datetime64) -> int:
    return int(_positions(log, user, np.array([time]))[0])


def _calendar_windows(
    log: Interactions, catalog: Catalog, length: PeriodLength, cutoff: np.datetime64
) -> list[Window]:
    following = Period(cutoff, length.shift(cutoff, 1))
    windows = []
    for history in make_histories(log, catalog, length, cutoff):
        start, stop = history.event_ids.stop, _position(log, history.user_idx, following.end)
        windows.append(Window(history, Target(log, catalog, start, stop, following)))
    return windows


def _event_history(
    log: Interactions,
    catalog: Catalog,
    length: PeriodLength,
    user: int,
    stop: int,
    cutoff: np.datetime64,
) -> History:
    """Periods of n events from the user's first to position ``stop``, the newest maybe shorter."""
    first = int(log.user_offsets[user])
    offsets = np.append(np.arange(first, max(stop, first + 1), length.n), stop)
    # A user whose first event is not before the cutoff has one empty period, which ends there.
    bounds = np.append(np.minimum(log.timestamp[offsets[:-1]], cutoff), cutoff)
    return History(log, catalog, user, offsets, bounds, cutoff, length)


def _event_windows(
    log: Interactions,
    catalog: Catalog,
    length: PeriodLength,
    cutoff: np.datetime64 | None,
    back: int,
) -> list[Window]:
    windows = []
    for user in range(log.n_users):
        first, last = (int(position) for position in log.user_offsets[user : user + 2])
        if cutoff is None:
            start = first + length.n * ((last - first) // length.n - 1 - back)
        else:
            start = _position(log, user, cutoff)
        stop = start + length.n
        if start <= first or stop > last:
            continue
        period = Period(log.timestamp[start], log.timestamp[stop - 1] + INSTANT)
        end = period.start if cutoff is None else cutoff
        history = _event_history(log, catalog, length, user, start, end)
        windows.append(Window(history, Target(log, catalog, start, stop, period)))
    return windows
