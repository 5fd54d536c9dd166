"""Times written as texts in other forms than ISO 8601: days, months and years in any order."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from llmrec.data.number_times import to_milliseconds
from llmrec.data.report import Finding
from llmrec.data.written_days import (
    MONTH_PATTERN,
    MONTHS,
    WEEKDAY_PATTERN,
    week_day_to_milliseconds,
    year_day_to_milliseconds,
)
from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, IntArray

ORDERS = ("day-first", "month-first", "year-first")
DAY_FIRST = {"day-first": True, "month-first": False}  # whether days come before months
_PLACES = {  # of month, day and year
    "day-first": "bac",
    "month-first": "abc",
    "year-first": "bca",
    "year-day-month": ("day", "month", "year"),
}
_CENTURY_START = 69  # as in strptime: 69 to 99 are 1969 to 1999, 00 to 68 are 2000 to 2068
# A text may end with a time of the day and a zone.
_MONTH = rf"(?P<name>{MONTH_PATTERN})\.?"
_CLOCK = (
    r"(?P<hour>\d{1,2})(?P<sign_of_hour>[:.h])(?P<minute>\d{2})"
    r"(?:(?P<sign_of_minute>[:.])(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?(?:\s*uhr)?"
)
# Where a zone has its hours, its name in brackets tells nothing more.
_ZONE = (
    r"(?P<zone>(?:z|utc|gmt|(?:utc|gmt)?[+-]\d{2}(?::?\d{2})?)(?:\s*[(\[][^()\[\]]*[)\]])?"
    r"|\((?:utc|gmt)\))?"
)
_TIME = rf"(?:(?:,?\s+|t|:|,?\s+(?:at|a|um|om)\s+){_CLOCK}\s*{_ZONE})?"
_NUMBERS = (  # 3/4/2024
    r"(?P<a>\d{1,2})(?P<sign>[/.\-]|\s)(?P<b>\d{1,2})(?:[/.\-]|,?\s)(?P<c>\d{4}|\d{2})"
    rf"{_TIME}"
)
_YEAR_FIRST = rf"(?P<year>\d{{4}})[/.\-](?P<month>\d{{1,2}})[/.\-](?P<day>\d{{1,2}}){_TIME}"
_DAY_OF_MONTH = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|re|e|o|a)?"
_FORMS = (
    _YEAR_FIRST,
    rf"{_DAY_OF_MONTH}[\s/.\-]*(?:de\s+)?{_MONTH}(?:\s+del?\s+|[\s/.\-,]*)(?P<year>\d{{4}}|\d{{2}})"
    rf"{_TIME}",
    rf"{_MONTH}[\s.\-]*{_DAY_OF_MONTH},?[\s\-]+(?P<year>\d{{4}}){_TIME}",
    rf"{_MONTH}\s+(?P<day>\d{{1,2}})\s+{_CLOCK}\s*{_ZONE}\s+(?P<year>\d{{4}})",  # of posts
    rf"(?P<year>\d{{4}})年(?P<month>\d{{1,2}})月(?P<day>\d{{1,2}})日{_TIME}",
    rf"(?P<year>\d{{4}})-?w(?P<week>\d{{2}})-?(?P<weekday>\d){_TIME}",
    rf"(?P<year>\d{{4}})-(?P<year_day>\d{{3}}){_TIME}",
    r"(?P<month>\d{1,2})[/\-](?P<year>\d{4})",  # the first of a month
    rf"{_MONTH}[\s\-,]+(?P<year>\d{{4}})",
)
# What stands before the date: the name of its day (mar is March unless a date comes), or a clock.
_WEEKDAY = rf"(?i)^(?:{WEEKDAY_PATTERN})\.?,?\s+"
_TUESDAY = (
    r"(?i)^mar\.?,?\s+(\d{1,2}(?:[/.\-]\d{1,2}[/.\-]"
    rf"|(?:er|\.)?[\s/.\-]*(?:de\s+)?(?:{MONTH_PATTERN})\b))"
)
_CLOCK_FIRST = r"(?i)^(\d{1,2}[:h]\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*[ap]\.?m\.?)?),?\s+(\S.*)$"


def date_order(day_first: bool | None) -> str | None:
    """Name one of `ORDERS` by whether days come before months; None where that is not known."""
    return next((name for name, first in DAY_FIRST.items() if first is day_first), None)


@dataclass(frozen=True)
class WrittenTimes:
    """Times of texts: a series like the texts, NaT where one is in none of the forms known here.

    ``day_first`` is None where no text has its day and its month as numbers in either order.
    """

    times: pd.Series[Any]
    day_first: bool | None
    findings: list[Finding]


def parse_written(texts: pd.Series[str], column: object, dates: str | None) -> WrittenTimes:
    """Read texts such as 25/12/23, 3 Apr 2024 6:30 PM or Tue Apr 03 18:00:09 +0000 2012.

    Parameters
    ----------
    texts
        Without white space at their ends, none missing; the index gives the rows for messages.
    column
        Name of the column, for messages.
    dates
        One of `ORDERS`, for days, months and years that are all numbers; None: the only one that
        fits every row.

    Raises
    ------
    DataError
        If several orders of day and month fit all rows, or none does; or if a day stands between
        its year and its month.
    """
    millis = np.full(len(texts), np.nan)
    # Times repeat, and each text is read once; its row is the first that has it.
    codes, distinct = pd.factorize(texts)
    first, rows = np.empty(len(distinct), np.int64), np.arange(len(texts))
    first[codes[::-1]] = rows[::-1]  # of several values for one place numpy keeps the last
    counts = np.bincount(codes)
    millis, day_first, findings = _parse_distinct(texts.iloc[first], counts, column, dates)
    return WrittenTimes(_to_series(millis[codes], texts), day_first, findings)


def are_written(texts: pd.Series[str]) -> BoolArray:
    """(n,) whether texts are in one of the forms known here."""
    words = _tidy(texts)
    matched = [_Parts(words, form).matched for form in (_NUMBERS, *_FORMS)]
    return np.logical_or.reduce(matched)  # type: ignore[no-any-return]


def _parse_distinct(
    texts: pd.Series[str], counts: IntArray, column: object, dates: str | None
) -> tuple[FloatArray, bool | None, list[Finding]]:
    """Give (n,) milliseconds of different texts that (n,) rows have, and how they were read."""
    words, millis = _tidy(texts), np.full(len(texts), np.nan)
    numbers = _Parts(words, _NUMBERS)
    rows, left = np.flatnonzero(numbers.matched), np.flatnonzero(~numbers.matched)
    day_first, findings = None, []
    if len(rows):
        some = _Parts(words.take(pa.array(rows)), _NUMBERS)
        millis[rows], day_first, said = _parse_numbers(
            some, texts.iloc[rows], counts[rows], column, dates
        )
        findings.append(said)
    for form in _FORMS:
        if len(left):
            parts = _Parts(words.take(pa.array(left)), form)
            millis[left] = parts.milliseconds()
            if form == _YEAR_FIRST and dates != "year-first":
                _require_months_first(parts, texts.iloc[left], column)
            left = left[~parts.matched]
    return millis, day_first, findings


def _parse_numbers(
    numbers: _Parts, texts: pd.Series[str], counts: IntArray, column: object, dates: str | None
) -> tuple[FloatArray, bool | None, Finding]:
    """Give (n,) milliseconds of dates that are all numbers, the year at an end of two digits."""
    tried = (dates,) if dates in ORDERS else _possible_orders(numbers)
    readings = {one: numbers.milliseconds(one) for one in tried}
    order = dates if dates in ORDERS else _find_order(readings, texts, column)
    millis = readings[order]
    row = int((~np.isnan(millis)).argmax())
    example = f"row {texts.index[row]}: {texts.iloc[row]} is {_day(millis[row])}"
    rule = f"dates in column {column!r} are read {order.replace('-', ' ')}"
    day_first = DAY_FIRST.get(order)
    if dates is None and np.array_equal(
        readings["day-first"], readings["month-first"], equal_nan=True
    ):
        day_first = None  # 03/03/2024 alone does not tell
    return millis, day_first, Finding(rule, int(counts.sum()), example, "read")


def _require_months_first(parts: _Parts, texts: pd.Series[str], column: object) -> None:
    """Raise a DataError for the first date whose day stands between its year and its month."""
    swapped = np.isnan(parts.milliseconds()) & ~np.isnan(parts.milliseconds("year-day-month"))
    if swapped.any():
        row = int(swapped.argmax())
        text = texts.iloc[row]
        form = f"%Y{text[4]}%d{text[7]}%m"
        raise DataError(
            f"column {column!r}, row {texts.index[row]}: {text!r} has its day before its month. If "
            f"all are written so, give the format, with that of the hours where there are any: "
            f"dates={form!r}, or --dates {form}. If it is a mistake: dates='year-first', or "
            "--dates year-first, leaves it out."
        )


class _Parts:
    """The parts of the texts that are in one form, as numbers; -1 where there is no such part."""

    def __init__(self, words: pa.Array, form: str) -> None:
        self._found = pc.extract_regex(words, f"(?i)^(?:{form})$")
        self._names = {one.name for one in self._found.type}
        self.matched: BoolArray = np.asarray(pc.is_valid(self._found))

    def number(self, name: str, missing: int = -1) -> IntArray:
        """(n,) a part as whole numbers."""
        if name not in self._names:
            return np.full(len(self.matched), missing)
        texts = pc.struct_field(self._found, name)
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        return np.asarray(pc.fill_null(pc.cast(texts, pa.int64()), missing))

    def text(self, name: str) -> pa.Array:
        """(n,) a part as lower-case text, "" where there is none."""
        if name not in self._names:
            return pa.array([""] * len(self.matched))
        return pc.fill_null(pc.utf8_lower(pc.struct_field(self._found, name)), "")

    def milliseconds(self, order: str = "") -> FloatArray:
        """(n,) milliseconds after 1970; NaN where a text is in another form, or no time."""
        if not self.matched.any():
            return np.full(len(self.matched), np.nan)
        places = _PLACES.get(order, ("month", "day", "year"))
        month, day, year = (self.number(place, 1) for place in places)
        if "name" in self._names:
            place = pc.index_in(self.text("name"), pa.array(list(MONTHS)))
            month = np.array([*MONTHS.values(), 0])[np.asarray(pc.fill_null(place, -1))]
        two_digits = np.asarray(pc.equal(pc.utf8_length(self.text(places[2])), 2))
        year = np.where(two_digits, year + np.where(year < _CENTURY_START, 2000, 1900), year)
        if "week" in self._names:
            days = week_day_to_milliseconds(year, self.number("week"), self.number("weekday"))
        elif "year_day" in self._names:
            days = year_day_to_milliseconds(year, self.number("year_day"))
        else:
            days = to_milliseconds(year, month, day)
        known = self.matched & (year >= 1000)
        return np.where(known, days + self._clock, np.nan)

    @cached_property
    def _clock(self) -> FloatArray:
        """(n,) milliseconds since midnight in UTC; NaN where there is no such time of the day."""
        hour, minute, second = (self.number(name, 0) for name in ("hour", "minute", "second"))
        half = pc.utf8_slice_codeunits(self.text("half"), 0, 1)
        morning, evening = (np.asarray(pc.equal(half, letter)) for letter in "ap")
        fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(self.text("fraction"), 3, "0"), 0, 3)
        millis = np.asarray(pc.cast(fraction, pa.int64()))
        # 24:00 is the midnight that ends a day, and 23:59:60 a second that clocks were stopped for.
        ends = (hour == 24) & (minute + second + millis == 0) & ~morning & ~evening
        valid = ((hour < 24) | ends) & (minute < 60) & (second <= 60)
        # Clocks of 24 hours write 20:08 PM and 00:16 AM.
        valid &= ~(morning & (hour > 12) | evening & (hour == 0))
        signs = self.text("sign_of_minute")
        same = pc.or_(pc.equal(signs, ""), pc.equal(signs, self.text("sign_of_hour")))
        valid &= np.asarray(same)
        hour = np.where(morning | evening, hour % 12 + 12 * evening, hour)
        time = ((hour * 60 + minute) * 60 + second) * 1000 + millis - self._offset() * 60_000
        return np.where(valid, time, np.nan)

    def _offset(self) -> IntArray:
        """(n,) minutes that a text's zone is ahead of UTC."""
        zone = pc.replace_substring_regex(self.text("zone"), r"\s*[(\[].*$|[^0-9+-]", "")
        zone = pc.if_else(pc.equal(zone, ""), "+0000", zone)
        minutes = pc.utf8_rpad(pc.utf8_slice_codeunits(zone, 1), 4, "0")  # +01 is +0100
        digits = np.asarray(pc.cast(minutes, pa.int64()))
        ahead = np.where(np.asarray(pc.starts_with(zone, "-")), -1, 1)
        return np.asarray(ahead * (digits // 100 * 60 + digits % 100), dtype=np.int64)


def _possible_orders(numbers: _Parts) -> tuple[str, ...]:
    """Give the orders in which dates may be written.

    A year of two digits comes first only where dashes stand between: 24-04-03.
    """
    is_short = np.asarray(pc.equal(pc.utf8_length(numbers.text("c")), 2))
    is_dashed = np.asarray(pc.equal(numbers.text("sign"), "-"))
    return ORDERS if (is_short & is_dashed).all() else ORDERS[:2]


def _find_order(readings: dict[str, FloatArray], texts: pd.Series[str], column: object) -> str:
    """Find the one order of day, month and year that fits all rows.

    ``readings`` are (n,) milliseconds in each order, NaN where a text is no date in it.
    """
    fits = {order: ~np.isnan(millis) for order, millis in readings.items()}
    most = max(int(rows.sum()) for rows in fits.values())
    best = [order for order, rows in fits.items() if rows.sum() == most]
    only = [fits[one] & ~fits[other] for one, other in (ORDERS[:2], ORDERS[1::-1])]
    if best[0] != "year-first" and all(rows.any() for rows in only):
        one, two = (int(rows.argmax()) for rows in only)
        raise DataError(
            f"column {column!r} has days and months in two orders: row {texts.index[one]} is "
            f"{texts.iloc[one]!r}, row {texts.index[two]} is {texts.iloc[two]!r}. Write them in "
            "one, or as 2024-04-03."
        )
    differ = np.any([fits[best[0]] & (readings[one] != readings[best[0]]) for one in best], axis=0)
    if differ.any():
        row = int(differ.argmax())
        meanings = " or ".join(dict.fromkeys(_day(readings[order][row]) for order in best))
        raise DataError(
            f"column {column!r}, row {texts.index[row]}: {texts.iloc[row]!r} may be {meanings}, "
            f"and no row decides between {' and '.join(best)}. Say which: "
            f"{'; '.join(f'dates={one!r}, or --dates {one}' for one in best)}."
        )
    return best[0]


def _day(millis: float) -> str:
    return "no date" if np.isnan(millis) else str(np.datetime64(int(millis), "ms"))[:10]


def _tidy(texts: pd.Series[str]) -> pa.Array:
    """Give texts without accents, weekdays and the brackets of server logs, the clock last."""
    words = pa.array(texts.to_numpy(object), pa.string())
    if not pc.all(pc.string_is_ascii(words), min_count=0).as_py():
        words = pa.array([_without_accents(word) for word in words.to_pylist()], pa.string())
    if pc.any(pc.starts_with(words, "["), min_count=0).as_py():
        words = pc.replace_substring_regex(words, r"^\[([^\[\]]*)\]$", r"\1")
    if pc.any(pc.match_substring_regex(words, "^[A-Za-z]"), min_count=0).as_py():
        words = pc.replace_substring_regex(words, _WEEKDAY, "")
        words = pc.replace_substring_regex(words, _TUESDAY, r"\1")
    if pc.any(pc.match_substring_regex(words, r"^\d{1,2}[:hH]"), min_count=0).as_py():
        words = pc.replace_substring_regex(words, _CLOCK_FIRST, r"\2 \1")
    return words


def _without_accents(text: str) -> str:
    """Give plain letters, digits and spaces where Unicode has others of the same meaning."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _to_series(millis: FloatArray, texts: pd.Series[str]) -> pd.Series[Any]:
    possible = np.where(np.isnan(millis), 0, millis).astype(np.int64).view("datetime64[ms]")
    times = np.where(np.isnan(millis), np.datetime64("NaT", "ms"), possible)
    return pd.Series(pd.DatetimeIndex(times, tz="UTC"), index=texts.index)
