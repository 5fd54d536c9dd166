"""Times of any column: numbers by their size, texts by their form, days and months in one order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.column_errors import naming_column
from llmrec.data.given_format import parse_format
from llmrec.data.ids import MISSING_WORDS
from llmrec.data.number_times import (
    NUMBER_KINDS,
    NumberTimes,
    are_plausible,
    has_too_many_unread,
)
from llmrec.data.report import Finding
from llmrec.data.text_times import ORDERS, are_written, parse_written
from llmrec.errors import DataError
from llmrec.types import BoolArray, TimeArray

DATE_KINDS = (*ORDERS, *NUMBER_KINDS)
NOT_A_TIME = np.datetime64("NaT", "ms")
MISSING = "missing time"
NOT_UNDERSTOOD = "time that is not understood"
IMPOSSIBLE = "impossible time: before 1970, or in the future"
# None of the patterns uses \s: with it, matching leaves Arrow for Python and takes ten times as
# long.
_NUMBER = (
    r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|\d{5},\d+|/Date\(\d+(?:[+-]\d{4})?\)/"  # 44929,3446 and what JSON of .NET has
)
_ZONE = r"(?:Z|z|UTC|utc|GMT|gmt|(?:UTC|GMT)?[+-]\d{2}(?::?\d{2})?)"
_ZONED = (
    # 18:00:09 +0200, 6:30 PM UTC, T180009Z, 08.16.14 AM +01:00, and a name in brackets after it
    r".*(?::\d{2}|T\d{2,6}| \d{1,2}[.h]\d{2}(?:\.\d{2})?)(?:[.,]\d+)?"
    "[ \u00a0\u202f]?"
    rf"(?:[AaPp]\.?[Mm]\.?)? ?(?:{_ZONE}(?: ?[(\[][^()\[\]]*[)\]])?|\((?:UTC|GMT)\))\]?"
    rf"|.*:\d{{2}} {_ZONE} \d{{4}}"  # of posts, the year at their end
)
_NAMED_ZONE = re.compile(
    r":\d{2}(?:[.,]\d+)?\s*(?:[AP]\.?M\.?)?\s*[(\[]?(?!(?:AM|PM|UTC|GMT)\b)"
    r"([A-Z]{2,5}|[A-Z][A-Za-z]+/[A-Za-z_/]+)[)\]]?$"
)
_SOME_TIME = datetime(2001, 12, 31, 13, 58, 59, tzinfo=UTC)


@dataclass(frozen=True)
class ParsedTimes:
    """The times of a column.

    Attributes
    ----------
    times
        (n,) datetime64[ms] in UTC, NaT where a row has none.
    unusable
        Reason to (n,) mask of the rows without a time; a row is under one reason only.
    day_first
        Whether days come before months in the column's texts; None where that is not the question.
    findings
        How the column was read, where it could have been read otherwise.
    """

    times: TimeArray
    unusable: Mapping[str, BoolArray]
    day_first: bool | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Parsed:
    """Times of a column before impossible ones are taken out."""

    times: TimeArray
    day_first: bool | None = None
    findings: list[Finding] = field(default_factory=list)


def parse_timestamps(
    column: pd.Series[Any], dates: str | None = None, latest: np.datetime64 | None = None
) -> ParsedTimes:
    """Read a column of times; naive ones are taken as UTC.

    Parameters
    ----------
    dates
        How they are written, where that is ambiguous: a unit of numbers ("s", "ms", "us", "ns",
        "ticks", "days", "excel", "year", "yyyymm", "yyyymmdd", "yyyymmddhhmm", "yyyymmddhhmmss"),
        the order of numbers in texts ("day-first", "month-first", "year-first"), or a format of
        `strptime` ("%d.%m.%Y"). None: found from all rows.
    latest
        Times after this (default: tomorrow) are impossible, as are those before 1970.

    Raises
    ------
    DataError
        If the column holds booleans, or numbers or texts of which more than one in twenty (rounded
        up) are no times known here; if it mixes units, numbers and texts, or times with and without
        a zone; or if days and months could be in either order.
    """
    check_dates(dates)
    end = np.datetime64("now", "ms") + np.timedelta64(1, "D") if latest is None else latest
    with naming_column(column.name):
        return _parse_column(column.reset_index(drop=True), dates, end)


def _parse_column(column: pd.Series[Any], dates: str | None, end: np.datetime64) -> ParsedTimes:
    kind = pd.api.types
    if kind.is_bool_dtype(column.dtype):
        raise DataError(f"column {column.name!r} holds booleans, not times.")
    missing = column.isna().to_numpy()
    if kind.is_datetime64_any_dtype(column.dtype):
        parsed = _Parsed(_utc_milliseconds(pd.to_datetime(column, utc=True)))
    elif kind.is_numeric_dtype(column.dtype):
        parsed = _parse_numbers(column, dates, end)
    else:
        texts = _to_texts(column)
        missing = missing | ((texts == "") | texts.isin(MISSING_WORDS)).to_numpy(bool)
        parsed = _parse_objects(texts[~missing], column, dates, end)
    times = parsed.times
    absent = np.isnat(times)
    impossible = (times < np.datetime64(0, "ms")) | (times > end)
    unusable = {
        MISSING: absent & missing,
        NOT_UNDERSTOOD: absent & ~missing,
        IMPOSSIBLE: impossible,
    }
    times = np.where(impossible, NOT_A_TIME, times)
    return ParsedTimes(times, unusable, parsed.day_first, tuple(parsed.findings))


def check_dates(dates: str | None) -> None:
    """Raise a DataError if ``dates`` is no way to write times: a kind, or a format with a day."""
    if dates is not None and dates not in DATE_KINDS and not _is_format_of_days(dates):
        raise DataError(
            f"dates {dates!r} is no way to write times; write one of {', '.join(DATE_KINDS)}, or a "
            "format with year, month and day such as %d/%m/%Y."
        )


def _is_format_of_days(text: str) -> bool:
    """Whether a text is a format, for Python and for pandas, that brings a day back."""
    try:
        pd.to_datetime(["2024"], errors="coerce", format=text)
        back = datetime.strptime(_SOME_TIME.strftime(text), text)
    except (ValueError, re.error):
        return False
    return "%" in text and back.date() == _SOME_TIME.date()


def _utc_milliseconds(column: pd.Series[Any]) -> TimeArray:
    times: TimeArray = column.dt.tz_localize(None).to_numpy("datetime64[ms]")
    return times


def _parse_numbers(column: pd.Series[Any], dates: str | None, end: np.datetime64) -> _Parsed:
    if dates in ORDERS or (dates and "%" in dates):
        texts = column.dropna().map("{:.0f}".format).astype("str")
        return _parse_texts(texts, column, dates)
    found = NumberTimes.of(column, dates, end)
    return _Parsed(found.times, None, found.findings)


def _to_texts(column: pd.Series[Any]) -> pd.Series[str]:
    try:
        return column.astype("str").str.strip()
    except UnicodeEncodeError as error:
        row, value = next((row, one) for row, one in enumerate(column) if error.object in str(one))
        raise DataError(
            f"column {column.name!r}, row {row}: {ascii(value)[:80]} is no time: it has half a "
            "character in it (a lone surrogate)."
        ) from None


def _parse_objects(
    present: pd.Series[str], column: pd.Series[Any], dates: str | None, end: np.datetime64
) -> _Parsed:
    if dates is None or dates in NUMBER_KINDS:
        are_numbers = present.str.fullmatch(_NUMBER)
        numbers, others = present[are_numbers], present[~are_numbers]
        if dates is None:
            _require_one_way(numbers, others, column.name, end)
        if dates in NUMBER_KINDS or len(numbers) >= max(1, len(others)):
            _require_numbers(others, len(present), column.name, dates)
            values = _to_numbers(numbers).reindex(column.index)
            values.name = column.name
            return _parse_numbers(values, dates, end)
    return _parse_texts(present, column, dates)


def _to_numbers(texts: pd.Series[str]) -> pd.Series[Any]:
    """Give numbers of texts that are one, 44929,3446 and /Date(1672733774000)/ among them."""
    values = pd.to_numeric(texts, errors="coerce")
    if values.isna().any():
        digits = texts.str.extract(r"(\d+(?:,\d+)?)", expand=False).str.replace(",", ".")
        values = values.fillna(pd.to_numeric(digits, errors="coerce"))
    return values


def _require_one_way(
    numbers: pd.Series[str], others: pd.Series[str], name: object, end: np.datetime64
) -> None:
    """Raise a DataError if both the numbers and the other texts of a column hold times."""
    if numbers.empty or others.empty:
        return
    recent = are_plausible(_to_numbers(numbers).to_numpy(np.float64), end)
    written = _parse_iso(others).notna() | are_written(others)
    if recent.any() and written.any():
        (row, number), (other_row, text) = (
            next(some[mask].items()) for some, mask in ((numbers, recent), (others, written))
        )
        raise DataError(
            f"column {name!r} mixes numbers and written times: row {row} is {number[:80]!r}, row "
            f"{other_row} is {text[:80]!r}. Write all of them in one way."
        )


def _require_numbers(
    others: pd.Series[str], n_present: int, name: object, dates: str | None
) -> None:
    """Raise a DataError if too many texts of a column of numbers are none."""
    if has_too_many_unread(len(others), n_present):
        why = "most others are" if dates is None else f"dates={dates!r} is a unit of numbers"
        raise DataError(
            f"column {name!r}, row {others.index[0]}: {others.iloc[0][:80]!r} is no number, and "
            f"{why}. Correct such cells, or leave them empty."
        )


def _parse_texts(present: pd.Series[str], column: pd.Series[Any], dates: str | None) -> _Parsed:
    """Read the texts of a column: in the given format, else ISO 8601, else another known form."""
    if dates and "%" in dates:
        times = parse_format(present, dates)
        day_first = None
        rule = f"times in column {column.name!r} are read as {dates}"
        findings = [Finding(rule, len(present), "", "read")]
    else:
        _require_one_zone(present, column.name)
        times = _parse_iso(present)
        others = present[times.isna()]
        written = parse_written(others, column.name, dates)
        day_first, findings = written.day_first, written.findings
        times = times.fillna(written.times)
    _require_times(present, times.isna().to_numpy(bool), column.name, dates)
    return _Parsed(_utc_milliseconds(times.reindex(column.index)), day_first, findings)


def _require_times(
    texts: pd.Series[str], unread: BoolArray, name: object, dates: str | None
) -> None:
    """Raise a DataError if too many texts are no times, or one of them names its zone."""
    others = texts[unread]
    for row, text in others.items():
        if zone := _NAMED_ZONE.search(text):
            raise DataError(
                f"column {name!r}, row {row}: {text[:80]!r} names its time zone, {zone[1]}, and "
                "what hours that means may depend on the day. Write the hours: +01:00."
            )
    if not has_too_many_unread(len(others), len(texts)):
        return
    row, count = others.index[0], f"{len(others):,} of {len(texts):,}"
    where = f"column {name!r}, row {row}: {texts[row][:80]!r}"
    if dates is not None:
        raise DataError(
            f"{where} does not fit dates={dates!r} ({count} do not). Say how times are written; "
            "without dates=, or --dates, the one order of day and month that fits all is found."
        )
    raise DataError(
        f"{where} is no time in a format known here ({count} are none). Write times as 2024-04-03 "
        "18:00:09, or with the month's name; leave a cell without a time empty; name another "
        "column; or say how times are written: dates=, or --dates, such as %d.%m.%Y."
    )


def _parse_iso(texts: pd.Series[str]) -> pd.Series[Any]:
    """Read the texts that are ISO 8601, the others become NaT."""
    begins = texts.str.match(r"\d{4}")  # pandas takes "now" and "today", too, by the clock
    fixed = texts if begins.all() else texts.where(begins)
    times = pd.to_datetime(fixed, errors="coerce", utc=True, format="ISO8601")
    return times.astype("datetime64[ms, UTC]")


def _require_one_zone(texts: pd.Series[str], name: object) -> None:
    """Raise a DataError if some times carry a zone and others do not."""
    zoned = texts.str.fullmatch(_ZONED).to_numpy(bool)
    if zoned.any() and not zoned.all():
        row = int(texts.index[(zoned != zoned[0]).argmax()])
        raise DataError(
            f"column {name!r} mixes times with and without a time zone: row {row} is "
            f"{texts[row][:80]!r}, row {texts.index[0]} is {texts.iloc[0][:80]!r}. Give "
            "every time a zone, or none."
        )
