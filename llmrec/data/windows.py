"""Windows of many people: a history, and the period after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from llmrec.data.calendar import (
    MILLISECOND,
    Period,
    PeriodLength,
    boundaries_up_to,
    period_boundaries,
    to_datetime64,
)
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import (
    TICKS_PER_PERIOD,
    Target,
    TimeLike,
    Window,
    event_position,
    make_event_history,
    make_histories,
)
from llmrec.errors import DataError
from llmrec.types import IntArray, TimeArray

MIN_FIT_WINDOWS = 10  # on fewer nothing of an engine is chosen
MIN_CALIBRATION_WINDOWS = 50  # on fewer the scores of a language model have no weight


def make_windows(
    log: Interactions,
    catalog: Catalog,
    period: str | PeriodLength,
    cutoff: TimeLike | None = None,
    *,
    back: int = 0,
    horizon: int = 1,
    min_periods: int = 1,
    min_target_events: int = 1,
) -> list[Window]:
    """Cut every user's log at a cutoff into a history and a period that follows.

    Parameters
    ----------
    period
        "28D", "2W", "1M": calendar periods, counted back from the cutoff. "10 events": periods of
        that many events, counted from a user's first event (ties in time: order of their items).
    cutoff
        End of the history. None: the last complete period is the target; with periods of events
        that is each user's last complete one.
    back
        With ``cutoff=None``: how many periods before the last complete one the target lies.
    horizon
        Which period after the history the target is: 1 is the next one.
    min_periods
        Non-empty periods that a history must have.
    min_target_events
        Events that a target must have.

    Raises
    ------
    DataError
        If the period is not understood, or the log is too short for it.
    """
    log, length = log.align_to(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        end = None if cutoff is None else to_datetime64(cutoff)
        windows = _event_windows(log, catalog, length, end, back, horizon)
    elif cutoff is None:
        grid = period_boundaries(log, length)
        if len(grid) < 2 + back + horizon:
            raise DataError(
                f"the log spans {len(grid) - 1} whole periods of {length}; a history and a target "
                f"{back} periods back need {back + horizon + 1}. Choose shorter periods, or give a "
                "cutoff."
            )
        windows = _calendar_windows(log, catalog, length, grid[-1 - back - horizon], horizon)
    else:
        windows = _calendar_windows(log, catalog, length, to_datetime64(cutoff), horizon)
    return [
        window
        for window in windows
        if np.count_nonzero(np.diff(window.history.offsets)) >= min_periods
        and window.target.n_events >= min_target_events
    ]


def last_period_windows(
    log: Interactions, catalog: Catalog, period: str | PeriodLength
) -> list[Window]:
    """Cut windows whose target is the last period of the log.

    Calendar: the period that ends with the log's last event. Events: each user's last complete one.
    """
    log, length = log.align_to(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        return make_windows(log, catalog, length)
    return make_windows(log, catalog, length, holdout_cutoff(log, length))


def holdout_cutoff(log: Interactions, period: str | PeriodLength) -> np.datetime64:
    """Give one cutoff for everybody that leaves events to forecast after it.

    Calendar: a period before the log's end; months of unequal length may leave a day or two of it
    out. Events: the time before which 90 % of all events lie.
    """
    length = PeriodLength.parse(period)
    if length.unit != "events":
        return length.shift(log.timestamp.max() + MILLISECOND, -1)
    cutoff: np.datetime64 = np.sort(log.timestamp)[int(0.9 * len(log))]
    return cutoff


def holdout_windows(
    log: Interactions, catalog: Catalog, period: str | PeriodLength, min_target_events: int = 5
) -> list[Window]:
    """Cut everybody at `holdout_cutoff`; the same as `last_period_windows` for calendar periods."""
    cutoff = holdout_cutoff(log, period)
    return make_windows(log, catalog, period, cutoff, min_target_events=min_target_events)


def tick_cutoffs(log: Interactions, period: str | PeriodLength, before: np.datetime64) -> TimeArray:
    """Cutoffs on the grid of ``before``, oldest first, whose target period ends by then.

    They are a tick apart (with months, whose ticks differ in length, a period).
    """
    length = PeriodLength.parse(period)
    grid = boundaries_up_to(log.timestamp.min(), length, before)[1:-1]
    if length.unit == "months":
        return grid
    tick = np.timedelta64(length.n, "D").astype("timedelta64[ms]") // TICKS_PER_PERIOD
    return np.unique(grid[:, None] - tick * np.arange(TICKS_PER_PERIOD))


def rolling_windows(
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
        Of everybody with a window. Only the first may have an empty history.
    """
    log, length = log.align_to(catalog), PeriodLength.parse(period)
    if length.unit == "events":
        ends = np.asarray(before, dtype=np.int64)
        return [found for found in _rolling_event_windows(log, catalog, length, ends) if found]
    assert isinstance(before, np.datetime64)
    people: dict[int, list[Window]] = {}
    for cutoff in tick_cutoffs(log, length, before):
        for window in _calendar_windows(log, catalog, length, cutoff):
            if window.target.n_events < min_target_events:
                continue
            found = people.setdefault(window.history.user_idx, [])
            if not window.history.n_events:
                found.clear()  # of those without a past only the newest stays
            found.append(window)
    return list(people.values())


def _rolling_event_windows(
    log: Interactions, catalog: Catalog, length: PeriodLength, ends: IntArray
) -> Iterator[list[Window]]:
    """Cut each user's past at every event, user by user."""
    for user, end in enumerate(ends):
        found = []
        for start in range(int(log.user_offsets[user]), int(end) - length.n + 1):
            stop = start + length.n
            span = Period(log.timestamp[start], log.timestamp[stop - 1] + MILLISECOND)
            history = make_event_history(log, catalog, length, user, start, span.start)
            found.append(Window(history, Target(log, catalog, start, stop, span)))
        yield found


def _calendar_windows(
    log: Interactions,
    catalog: Catalog,
    length: PeriodLength,
    cutoff: np.datetime64,
    horizon: int = 1,
) -> list[Window]:
    ahead = length.ahead(cutoff, horizon)
    windows = []
    for history in make_histories(log, catalog, length, cutoff):
        start, stop = (
            event_position(log, history.user_idx, end) for end in (ahead.start, ahead.end)
        )
        windows.append(Window(history, Target(log, catalog, start, stop, ahead)))
    return windows


def _event_windows(
    log: Interactions,
    catalog: Catalog,
    length: PeriodLength,
    cutoff: np.datetime64 | None,
    back: int,
    horizon: int,
) -> list[Window]:
    windows = []
    for user in range(log.n_users):
        first, last = (int(position) for position in log.user_offsets[user : user + 2])
        if cutoff is None:
            seen = first + length.n * ((last - first) // length.n - back - horizon)
        else:
            seen = event_position(log, user, cutoff)
        start = seen + length.n * (horizon - 1)
        stop = start + length.n
        if seen <= first or stop > last:
            continue
        period = Period(log.timestamp[start], log.timestamp[stop - 1] + MILLISECOND)
        end = log.timestamp[seen] if cutoff is None else cutoff
        history = make_event_history(log, catalog, length, user, seen, end)
        windows.append(Window(history, Target(log, catalog, start, stop, period)))
    return windows
