"""Lengths of periods, and their boundaries in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from itertools import count, takewhile
from numbers import Number
from typing import Literal, get_args

import numpy as np
import pandas as pd

from llmrec.data.interactions import Interactions
from llmrec.errors import DataError
from llmrec.types import TimeArray

_ISO_PATTERN = re.compile(r"\s*\d{4}(-\d{2}|\d{4}\b|\s*$)", re.ASCII)
_MONTH_NAME = re.compile("jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE)
_YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)", re.ASCII)
MILLISECOND, DAY = np.timedelta64(1, "ms"), np.timedelta64(1, "D")
FIRST_MONDAY = np.datetime64("1970-01-05", "ms")  # where periods of days are counted from
MIN_RUNNING_SHARE = 0.25  # of its length, from which on a running period is one of its own
Anchor = Literal["cutoff", "calendar"]
_LENGTH_PATTERN = re.compile(
    r"\s*(\d{1,6})\s*(D|W|M|days?|months?|events?)\s*", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class PeriodLength:
    """How long a period is: days, calendar months, or a number of events.

    Parse one with `parse`: "28D", "2W", "1M", "10 events", or what ``str`` gives.

    Attributes
    ----------
    anchor
        Where periods of days or months begin: they are counted back from a cutoff; or at fixed
        times, "calendar": days from Monday, 5 January 1970 on, months from January on, in UTC.
    """

    n: int
    unit: Literal["days", "months", "events"]
    anchor: Anchor = "cutoff"

    def __post_init__(self) -> None:
        """DataError if the anchor is none."""
        if self.anchor not in get_args(Anchor):
            raise DataError(f"anchor is {self.anchor!r}; it should be 'cutoff' or 'calendar'")

    @classmethod
    def parse(cls, spec: str | PeriodLength) -> PeriodLength:
        """Parse a period length; DataError if it is none."""
        if isinstance(spec, PeriodLength):
            return spec
        found = _LENGTH_PATTERN.fullmatch(str(spec))
        if not found or int(found[1]) < 1:
            raise DataError(
                f"period {spec!r} is not understood; write '28D', '2W', '1M' or '10 events'."
            )
        n, unit = int(found[1]), found[2].upper()[0]
        if unit == "W":
            return cls(7 * n, "days")
        if unit == "D":
            return cls(n, "days")
        return cls(n, "months" if unit == "M" else "events")

    def shift(self, time: np.datetime64, steps: int) -> np.datetime64:
        """Move a time by a number of (calendar) periods; a month later than 31 Jan is 28 Feb."""
        if self.unit == "days":
            return time + np.timedelta64(self.n * steps, "D")
        return to_datetime64(pd.Timestamp(time) + pd.DateOffset(months=self.n * steps))

    def ahead(self, time: np.datetime64, horizon: int = 1) -> Period:
        """Give the (calendar) period of that number after a time; 1 starts there."""
        return Period(self.shift(time, horizon - 1), self.shift(time, horizon))

    def start_of(self, time: np.datetime64) -> np.datetime64:
        """Give the start of the (calendar) period that a time is in, with fixed boundaries."""
        if self.unit == "months":
            month = time.astype("datetime64[M]")
            month -= month.astype(np.int64) % self.n  # the first one of 1970 has the number 0
            return np.datetime64(month, "ms")
        return time - (time - FIRST_MONDAY) % np.timedelta64(self.n, "D")

    def __str__(self) -> str:
        """In words: "28 days"."""
        return f"{self.n} {self.unit if self.n > 1 else self.unit[:-1]}"


@dataclass(frozen=True)
class Period:
    """A half-open span of time: start <= t < end."""

    start: np.datetime64
    end: np.datetime64


def to_datetime64(value: date | np.datetime64 | str) -> np.datetime64:
    """Give a datetime64[ms] in UTC; DataError if the value is no time, such as a number.

    Texts are ISO 8601, or name the month and the year, and not before 1970. Nobody knows which
    month it is in 05.04.2024, nor which year in 5 April.
    """
    wrong = DataError(f"{value!r} is not a time; write it as 2017-11-05.")
    if isinstance(value, str) and not (_ISO_PATTERN.match(value) or _names_month(value)):
        raise wrong
    try:
        time = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if isinstance(value, Number) or pd.isna(time):
        raise wrong
    if time.tzinfo is not None:
        time = time.tz_convert("UTC").tz_localize(None)
    found: np.datetime64 = time.to_datetime64().astype("datetime64[ms]")
    if isinstance(value, str) and found < np.datetime64(0, "ms"):
        raise DataError(f"{value!r} is before 1970: logs hold nothing of that time.")
    return found


def _names_month(text: str) -> bool:
    return bool(_MONTH_NAME.search(text) and _YEAR.search(text))


def parse_cutoff(text: str, day_first: bool | None) -> np.datetime64:
    """Read a time that somebody wrote: ISO 8601, with its month's name, or in the log's order.

    Parameters
    ----------
    day_first
        Whether the log's texts have days before months, see `Interactions.day_first`; None: it does
        not say, and a time in numbers must be one in either order only, such as 13/04/2024.

    Raises
    ------
    DataError
        If it is no time, could be several, or is before 1970.
    """
    from llmrec.data.text_times import date_order, parse_written

    if _ISO_PATTERN.match(text):
        return to_datetime64(text)
    series = pd.Series([text.strip()], dtype="str")
    try:
        time = parse_written(series, "cutoff", date_order(day_first)).times[0]
    except DataError:
        time = pd.NaT
    return to_datetime64(text if pd.isna(time) else str(time))


def period_boundaries(log: Interactions, period: str | PeriodLength) -> TimeArray:
    """Boundaries of the calendar periods that lie entirely inside the log, oldest first.

    The grid starts at the first event (months: at the first of its month). Each boundary but the
    last can be a cutoff with a complete period after it.
    """
    length = PeriodLength.parse(period)
    if length.unit == "events":
        raise DataError("periods of events have no common boundaries; a cutoff may be any time.")
    first, last = log.timestamp.min(), log.timestamp.max()
    if length.unit == "months":
        first = first.astype("datetime64[M]").astype("datetime64[ms]")
    grid = [first]
    while (following := length.shift(first, len(grid))) <= last + MILLISECOND:
        grid.append(following)
    return np.array(grid, dtype="datetime64[ms]")


def boundaries_up_to(start: np.datetime64, length: PeriodLength, end: np.datetime64) -> TimeArray:
    """Boundaries back from ``end`` until ``start`` is covered, oldest first.

    With fixed boundaries only the newest period, which is the running one, ends at ``end``. A
    running period of less than `MIN_RUNNING_SHARE` of its length is a part of the one before: of a
    few hours nothing can be said, and nothing is fitted on such periods.
    """
    if length.anchor == "calendar":
        first = length.start_of(min(start, end - MILLISECOND))
        begins = takewhile(lambda time: time < end, (length.shift(first, n) for n in count()))
        found = [*begins]
        whole = length.shift(found[-1], 1) - found[-1]
        if len(found) > 1 and end - found[-1] < MIN_RUNNING_SHARE * whole:
            found.pop()
        return np.array([*found, end], dtype="datetime64[ms]")
    found = [end, length.shift(end, -1)]
    while found[-1] > start:
        found.append(length.shift(end, -len(found)))
    return np.array(found[::-1], dtype="datetime64[ms]")


def divide_periods(bounds: TimeArray, length: PeriodLength, n: int) -> TimeArray:
    """(n_periods * n + 1,) boundaries of n equal parts of each period.

    Running periods with fixed boundaries are divided as the whole ones that they will be: there are
    more boundaries then, and the last ones are after the end.
    """
    if length.anchor == "calendar":  # the newest period may be one and a part of the next
        ahead = [length.shift(bounds[-2], steps) for steps in (1, 2)]
        bounds = np.append(bounds[:-1], np.array(ahead, dtype=bounds.dtype))
    starts, lengths = bounds[:-1, None], np.diff(bounds)[:, None]
    return np.append((starts + lengths * np.arange(n) // n).ravel(), bounds[-1])
