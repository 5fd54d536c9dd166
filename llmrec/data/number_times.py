"""Times written as numbers: epochs, spreadsheet days, years, and dates written together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.report import Finding
from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, TimeArray

_MS_PER_DAY = 86_400_000
_EXCEL_1970 = 25_569  # 1 January 1970, in days after 30 December 1899
_SECONDS_1980, _SECONDS_2100 = 315_532_800, 4_102_444_800
_TICKS_1970 = 621_355_968_000_000_000  # 1 January 1970, in 100 ns after the year 1
_TICKS = (_TICKS_1970, 662_380_416_000_000_000)  # up to 2100
_MIXED_SINCE = np.datetime64("1990-01-01", "ms").astype(np.int64)
_LARGEST = 2.0**62


@dataclass(frozen=True)
class NumberKind:
    """One way to write times as numbers.

    Attributes
    ----------
    what
        What the numbers are, in words.
    low, high
        Numbers of a column of this kind lie in [low, high).
    to_ms
        Maps (n,) numbers within them to milliseconds after 1970, NaN where one is no date.
    is_guessed
        Whether a column is taken for this kind by the size of its numbers.
    """

    what: str
    low: float
    high: float
    to_ms: Callable[[FloatArray], FloatArray]
    is_guessed: bool = True


def _epoch(what: str, per_second: float) -> NumberKind:
    """Give a unit of time since 1970; whole columns of it lie between 1980 and 2100."""
    return NumberKind(
        f"{what} since 1970",
        _SECONDS_1980 * per_second,
        _SECONDS_2100 * per_second,
        lambda values: values * (1000 / per_second),
    )


def _written(what: str, low: int, high: int, divisors: tuple[int, ...]) -> NumberKind:
    """Give dates whose parts are written together, largest first, as one whole number.

    ``divisors`` are of the parts after the year: 20240403 has (100, 1) for month and day.
    """

    def to_ms(values: FloatArray) -> FloatArray:
        whole = values.astype(np.int64)
        year = whole // (divisors[0] * 100 if divisors else 1)
        parts = [whole // divisor % 100 for divisor in divisors]
        missing = [np.full(len(whole), fill) for fill in (1, 1, 0, 0, 0)]
        month, day, hour, minute, second = parts + missing[len(parts) :]
        millis = to_milliseconds(year, month, day)
        valid = (values == whole) & (hour < 24) & (minute < 60) & (second < 60)
        return np.where(valid, millis + ((hour * 60 + minute) * 60 + second) * 1000, np.nan)

    return NumberKind(what, low, high, to_ms)


NUMBER_KINDS: dict[str, NumberKind] = {
    "s": _epoch("seconds", 1),
    "ms": _epoch("milliseconds", 1e3),
    "us": _epoch("microseconds", 1e6),
    "ns": _epoch("nanoseconds", 1e9),
    "ticks": NumberKind(
        "ticks of .NET",
        *_TICKS,
        lambda values: values / 1e4 - _TICKS_1970 / 1e4,
        is_guessed=False,
    ),
    "days": NumberKind("days since 1970", 0, 1e6, lambda v: v * _MS_PER_DAY, is_guessed=False),
    "excel": NumberKind(
        "days of a spreadsheet", _EXCEL_1970, 73_051, lambda v: (v - _EXCEL_1970) * _MS_PER_DAY
    ),
    "year": _written("years", 1900, 2101, ()),
    "yyyymm": _written("years and months, written together", 190_001, 210_013, (1,)),
    "yyyymmdd": _written("dates, written together", 19_000_101, 21_001_232, (100, 1)),
    "yyyymmddhhmm": _written(
        "dates and times, written together",
        1_900_01_01_00_00,
        2_100_12_31_24_00,
        (1_000_000, 10_000, 100, 1),
    ),
    "yyyymmddhhmmss": _written(
        "dates and times, written together",
        1_900_01_01_00_00_00,
        2_100_12_31_24_00_00,
        (100_000_000, 1_000_000, 10_000, 100, 1),
    ),
}
_KNOWN_BY_SIZE = (
    "seconds, milliseconds, microseconds or nanoseconds since 1970; days of a spreadsheet; years; "
    "or dates written together, such as 202404, 20240403 or 20240403180009"
)
_GUESSED = [kind for kind, about in NUMBER_KINDS.items() if about.is_guessed]


def has_too_many_unread(unread: int, present: int) -> bool:
    """Whether so many values of a column are no times that the column was taken for another.

    A few are broken, and dropped: one in twenty, rounded up, and at most half. More would drop the
    rows of some times and not of others, such as all those of May.
    """
    return unread > min(math.ceil(present / 20), present / 2)


def are_plausible(values: FloatArray, end: np.datetime64) -> BoolArray:
    """(n,) whether numbers are times from 1990 to ``end`` in a kind that is known by its size."""
    possible = np.isfinite(values) & (values > 0)
    found = [_is_recent(kind, values, possible, end) for kind in _GUESSED]
    return np.logical_or.reduce(found)  # type: ignore[no-any-return]


def to_milliseconds(year: Any, month: Any, day: Any) -> FloatArray:
    """(n,) midnights in milliseconds after 1970; NaN where year, month and day are no date."""
    year, month, day = (np.asarray(part, dtype=np.int64) for part in (year, month, day))
    possible = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = (year - 1970) * 12 + np.where(possible, month, 1) - 1
    dates = months.astype("datetime64[M]").astype("datetime64[D]") + (
        np.where(possible, day, 1) - 1
    )
    possible &= dates.astype("datetime64[M]").astype(np.int64) == months
    return np.where(possible, dates.astype(np.int64) * float(_MS_PER_DAY), np.nan)


@dataclass(frozen=True)
class NumberTimes:
    """(n,) times of a column of numbers, NaT where one is none, and what the numbers are."""

    times: TimeArray
    findings: list[Finding]

    @classmethod
    def of(cls, column: pd.Series[Any], kind: str | None, end: np.datetime64) -> NumberTimes:
        """Read numbers as times of a kind, or of the one that their size tells.

        A number that is of no such kind becomes NaT.

        Raises
        ------
        DataError
            If they are of no kind, or of several, or if too many are no such times.
        """
        values = column.to_numpy(np.float64, na_value=np.nan)
        # A time of 0 is a missing one in all units but days, where counting may begin with it.
        possible = np.isfinite(values) & ((values > 0) | ((values == 0) & (kind == "days")))
        if not possible.any():
            return cls(_to_times(np.full(len(values), np.nan)), [])
        found = kind or _guess_kind(column.name, values, possible, end)
        millis = _milliseconds(found, values, possible, bounded=False)
        unread = possible & np.isnan(millis)
        if has_too_many_unread(int(unread.sum()), int(possible.sum())):
            row = int(unread.argmax())
            raise DataError(
                f"column {column.name!r}, row {row}: {values[row]:.15g} is not what the "
                f"others are, {NUMBER_KINDS[found].what} ({unread.sum():,} of {possible.sum():,} "
                "are not). Correct such cells or leave them empty, or say what the numbers are: "
                "dates=, or --dates."
            )
        row = int((~np.isnan(millis)).argmax())
        time = str(_to_times(millis[row : row + 1])[0]).removesuffix(".000")
        example = f"row {row}: {values[row]:.15g} is {time.removesuffix('T00:00:00')}"
        what = f"numbers in column {column.name!r} are {NUMBER_KINDS[found].what}"
        return cls(_to_times(millis), [Finding(what, int(possible.sum()), example, "read")])


def _milliseconds(
    kind: str, values: FloatArray, possible: BoolArray, *, bounded: bool = True
) -> FloatArray:
    """(n,) milliseconds of numbers of a kind; NaN where not possible or, if bounded, not of it."""
    about = NUMBER_KINDS[kind]
    inside = possible & (values < _LARGEST)
    # Dates written together need all their digits; of the others any number is some time.
    if bounded or kind.startswith("y"):
        inside &= (values >= about.low) & (values < about.high)
    return np.where(inside, about.to_ms(np.where(inside, values, about.low)), np.nan)


def _to_times(millis: FloatArray) -> TimeArray:
    possible = np.abs(millis) < _LARGEST  # NaN is not
    whole = np.where(possible, np.round(millis), 0).astype(np.int64).view("datetime64[ms]")
    return np.where(possible, whole, np.datetime64("NaT", "ms"))


def _guess_kind(name: object, values: FloatArray, possible: BoolArray, end: np.datetime64) -> str:
    """Find the kind that most of the numbers are of."""
    present = values[possible]
    low, high = present.min(), present.max()
    for kind in _GUESSED:  # most columns are of one kind throughout
        about = NUMBER_KINDS[kind]
        if about.low <= low and high < about.high and not kind.startswith("y"):
            _require_no_ticks(name, values, possible, low, high)
            return kind
    fits = {kind: ~np.isnan(_milliseconds(kind, values, possible)) for kind in _GUESSED}
    main = max(_GUESSED, key=lambda kind: int(fits[kind].sum()))
    if fits[main].sum() < len(present) / 2:
        row = int(possible.argmax())
        raise DataError(
            f"column {name!r} holds numbers from {low:.15g} to {high:.15g} (row {row}: "
            f"{values[row]:.15g}), which are no times known here: not {_KNOWN_BY_SIZE}. Write "
            "times as 2024-04-03, or say what the numbers are: dates=, or --dates, such as days."
        )
    # A stray number is a broken time, unless its own kind makes it a plausible date: then the
    # column mixes units, and guessing would be wrong for some rows.
    for kind in _GUESSED:
        stray = _is_recent(kind, values, possible & ~fits[main], end)
        if kind != main and stray.any():
            row = int(stray.argmax())
            raise DataError(
                f"column {name!r} mixes units: most rows look like {NUMBER_KINDS[main].what}, row "
                f"{row} ({values[row]:.15g}) like {NUMBER_KINDS[kind].what}. Convert it, or say "
                f"what the numbers are: dates={main!r}, or --dates {main}."
            )
    return main


def _is_recent(kind: str, values: FloatArray, possible: BoolArray, end: np.datetime64) -> BoolArray:
    """(n,) whether numbers that are possible are of a kind, and from 1990 to ``end`` in it."""
    millis = _milliseconds(kind, values, possible)
    last = end.astype("datetime64[ms]").astype(np.int64)
    recent: BoolArray = (millis >= _MIXED_SINCE) & (millis <= last)
    return recent


def _require_no_ticks(
    name: object, values: FloatArray, possible: BoolArray, low: float, high: float
) -> None:
    """Raise a DataError for numbers that are nanoseconds in 1990, or ticks of .NET in our time."""
    if not (low >= _TICKS[0] and high < _TICKS[1]):
        return
    row = int(possible.argmax())
    meanings = (
        f"{NUMBER_KINDS[kind].what}, {_to_times(NUMBER_KINDS[kind].to_ms(values[[row]]))[0]}"
        for kind in ("ns", "ticks")
    )
    raise DataError(
        f"column {name!r}, row {row}: {values[row]:.18g} may be {' or '.join(meanings)}. Say "
        "which: dates='ticks', or --dates ticks; dates='ns', or --dates ns."
    )
