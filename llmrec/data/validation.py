"""Checks of every frame that comes in: columns, ids, times; invalid rows dropped and counted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray

USER_ID, ITEM_ID, TIMESTAMP, RATING = "user_id", "item_id", "timestamp", "rating"
TITLE, CATEGORIES = "title", "categories"
# A number of this size or more is no longer in the unit before it (seconds reach year 5138).
_UNIT_LIMITS = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": np.inf}
_PER_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
# Neither pattern uses \s: with it, matching leaves Arrow for Python and takes ten times as long.
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_ZONED = r".*:\d{2}(?:\.\d+)? ?(?:[AaPp][Mm])? ?(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_MAX_FORMAT_TEXTS = 500  # texts that formats are inferred from


@dataclass(frozen=True)
class CleaningReport:
    """How many rows were read, kept, and dropped for which reason.

    Attributes
    ----------
    rows_read
        Rows of the frame that was given.
    dropped
        Reason to number of rows; each dropped row counts once, under the first reason that hit.
    examples
        Reason to the first few row numbers (0-based, in the frame's order).
    """

    rows_read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def rows_kept(self) -> int:
        """Rows that survived."""
        return self.rows_read - sum(self.dropped.values())

    def with_dropped(self, reason: str, rows: npt.NDArray[Any]) -> CleaningReport:
        """Give a report that also counts these (n,) row numbers under a reason."""
        if not len(rows):
            return self
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + len(rows)}
        first = (*self.examples.get(reason, ()), *(int(row) for row in rows[:5]))[:5]
        return replace(self, dropped=dropped, examples={**self.examples, reason: first})

    def __str__(self) -> str:
        """One line a reason, with the first rows it hit."""
        lines = [f"{self.rows_read:,} rows read, {self.rows_kept:,} kept"]
        for reason, count in self.dropped.items():
            rows = ", ".join(map(str, self.examples[reason]))
            lines.append(f"  {count:,} dropped: {reason} (rows {rows}{', ...' * (count > 5)})")
        return "\n".join(lines)


def is_frame(value: object) -> bool:
    """Whether something is a table: a pandas or polars frame, or a ``datasets.Dataset``."""
    return isinstance(value, pd.DataFrame) or hasattr(value, "to_pandas")


def to_pandas(frame: Any) -> pd.DataFrame:
    """Give a pandas frame for a pandas or polars frame or a ``datasets.Dataset``."""
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(frame, "to_pandas"):
        return pd.DataFrame(frame.to_pandas())
    raise DataError(f"expected a pandas or polars frame or a datasets.Dataset, not {type(frame)}")


def require_columns(frame: pd.DataFrame, needed: Mapping[str, str]) -> None:
    """Raise a DataError if a needed column is missing or occurs twice.

    ``needed`` maps our name of a column to the frame's.
    """
    for ours, theirs in needed.items():
        found = int((frame.columns == theirs).sum())
        if found != 1:
            names = ", ".join(map(str, frame.columns)) or "none"
            raise DataError(
                f"column {theirs!r} is {'missing' if not found else 'there more than once'} "
                f"(columns found: {names[:500]}). Rename it, or map it: "
                f"columns={{{ours!r}: 'its name'}}."
            )


def format_id(value: object) -> str:
    """Write an id as text: whole numbers without a decimal point, so that 7, 7.0 and "7" agree."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        return str(int(value))
    return str(value)


def lookup_id(ids: pd.Index[str], wanted: object, what: str, titles: Sequence[str] = ()) -> int:
    """Look an id up; a DataError names near ids, and near ones of the titles."""
    from difflib import get_close_matches

    text = format_id(wanted)
    found = int(ids.get_indexer(pd.Index([text]))[0])
    if found < 0:
        names = [*ids[:100_000], *titles[:100_000]]
        near = get_close_matches(text, names, n=3, cutoff=0.5) or list(ids[:3])
        raise DataError(
            f"{what} {text[:80]!r} is not known ({len(ids):,} {what}s; for example "
            f"{', '.join(repr(str(one)[:80]) for one in near)})."
        )
    return found


def factorize_ids(column: pd.Series[Any]) -> tuple[IntArray, pd.Index[str]]:
    """Give (n_rows,) ids as numbers 0..n-1 in the order of their strings, and the strings.

    So row order cannot matter. Missing and empty ids are -1.
    """
    try:
        codes, uniques = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"column {column.name!r} holds lists or objects, not ids.") from error
    strings = pd.Index([format_id(value) for value in uniques], dtype="str")
    again, labels = pd.factorize(strings.where(strings.str.strip() != ""), sort=True)
    return np.append(again, -1)[codes].astype(np.int64), pd.Index(labels, dtype="str")


def to_float(column: pd.Series[Any]) -> FloatArray:
    """(n_rows,) numbers, missing ones NaN; DataError names the first row that is none."""
    numbers = pd.to_numeric(column, errors="coerce")
    invalid = (numbers.isna() & column.notna()).to_numpy()
    if invalid.any():
        row = int(invalid.argmax())
        raise DataError(
            f"column {column.name!r}, row {row}: {str(column.iloc[row])[:80]!r} is not a number. "
            "Correct it, or drop the column."
        )
    return numbers.to_numpy(np.float64, na_value=np.nan)


def parse_timestamps(
    column: pd.Series[Any], unit: str | None = None, latest: np.datetime64 | None = None
) -> TimeArray:
    """Give (n,) datetime64[ms] in UTC; naive times are taken as UTC.

    Missing times and impossible ones (not finite, before 1970, after ``latest``, which is tomorrow
    by default) become NaT. Texts that are not ISO 8601 are read in the one format that fits most
    of them.

    Raises
    ------
    DataError
        If numeric times mix units, some times carry a zone and others do not, the unit is unknown,
        or the column holds booleans.
    """
    if unit is not None and unit not in _PER_MS:
        raise DataError(f"unit {unit!r} is not one of {', '.join(map(repr, _PER_MS))}.")
    end = np.datetime64("now", "ms") + np.timedelta64(1, "D") if latest is None else latest
    kind = pd.api.types
    if kind.is_bool_dtype(column.dtype):
        raise DataError(f"column {column.name!r} holds booleans, not times.")
    if kind.is_datetime64_any_dtype(column.dtype):
        times = _utc_milliseconds(pd.to_datetime(column, utc=True))
    elif kind.is_numeric_dtype(column.dtype):
        times = _parse_numbers(column, unit, end)
    else:
        times = _parse_objects(column, unit, end)
    impossible = (times < np.datetime64(0, "ms")) | (times > end)
    return np.where(impossible, np.datetime64("NaT", "ms"), times)


def drop_invalid_rows(
    table: pd.DataFrame,
    leave_out: Mapping[str, BoolArray],
    bot_events_per_day: int | None,
) -> tuple[pd.DataFrame, CleaningReport]:
    """Drop rows: those to leave out, without ids or time, duplicates, and bots.

    Parameters
    ----------
    table
        user_id and item_id as numbers (-1: missing), timestamp, and what else tells events apart.
    leave_out
        Reason to (n_rows,) mask.
    bot_events_per_day
        Users with more events than this on any one UTC day are bots; None: nobody is.
    """
    report = CleaningReport(len(table))
    for reason, rows in leave_out.items():
        table, report = _drop(table, report, rows[table.index], reason)
    for name in (USER_ID, ITEM_ID):
        table, report = _drop(table, report, table[name] < 0, f"missing {name}")
    table, report = _drop(table, report, table[TIMESTAMP].isna(), "missing or impossible time")
    again = table.duplicated([name for name in table if name != RATING])
    table, report = _drop(table, report, again, "duplicate")
    if bot_events_per_day is None:
        return table, report
    day = table[TIMESTAMP].to_numpy().astype("datetime64[D]")
    per_day = table.groupby([table[USER_ID], day])[TIMESTAMP].transform("size")
    bots = table[USER_ID].isin(table.loc[per_day > bot_events_per_day, USER_ID])
    return _drop(table, report, bots, f"bot: more than {bot_events_per_day:,} events in one day")


def _utc_milliseconds(column: pd.Series[Any]) -> TimeArray:
    times: TimeArray = column.dt.tz_localize(None).to_numpy("datetime64[ms]")
    return times


def _parse_numbers(column: pd.Series[Any], unit: str | None, end: np.datetime64) -> TimeArray:
    values = column.to_numpy(np.float64, na_value=np.nan)
    possible = np.isfinite(values) & (values >= 0)
    unit = unit or _guess_unit(column, values, possible, end)
    with np.errstate(over="ignore"):
        millis = np.where(possible, values, 0) * _PER_MS[unit]
    possible &= millis < 2**62
    times = np.where(possible, millis, 0).astype(np.int64).view("datetime64[ms]")
    return np.where(possible, times, np.datetime64("NaT", "ms"))


def _guess_unit(
    column: pd.Series[Any],
    values: FloatArray,
    possible: BoolArray,
    end: np.datetime64,
) -> str:
    units = list(_UNIT_LIMITS)
    found = np.searchsorted(list(_UNIT_LIMITS.values()), values, side="right").clip(max=3)
    if not possible.any():
        return "s"
    main = int(np.bincount(found[possible]).argmax())
    # A stray number is a broken time, unless its own unit makes it a plausible date:
    # then the column mixes units, and guessing would be wrong for some rows.
    per_ms = np.array([_PER_MS[name] for name in units])[found]
    since = np.datetime64("1990-01-01", "ms").astype(np.int64)
    millis = np.where(possible, values, 0) * per_ms
    stray = possible & (found != main) & (millis >= since) & (millis <= end.astype(np.int64))
    if stray.any():
        row = int(stray.argmax())
        raise DataError(
            f"column {column.name!r} mixes units: most rows look like {units[main]!r}, row {row} "
            f"({values[row]:.0f}) like {units[int(found[row])]!r}. Convert it, or pass unit=."
        )
    return units[main]


def _parse_objects(column: pd.Series[Any], unit: str | None, end: np.datetime64) -> TimeArray:
    column = column.reset_index(drop=True)
    present = column.dropna().astype("str").str.strip()
    if present.str.fullmatch(_NUMBER).sum() >= max(1, len(present) / 2):
        numbers = pd.to_numeric(column.astype("object"), errors="coerce")
        return _parse_numbers(numbers, unit, end)
    zoned = present.str.fullmatch(_ZONED).to_numpy(bool)
    if zoned.any() and not zoned.all():
        row = int(present.index[(zoned != zoned[0]).argmax()])
        raise DataError(
            f"column {column.name!r} mixes times with and without a time zone: row {row} is "
            f"{present[row][:80]!r}, row {present.index[0]} is {present.iloc[0][:80]!r}. Give "
            "every time a zone, or none."
        )
    return _utc_milliseconds(_parse_texts(present).reindex(column.index))


def _parse_texts(texts: pd.Series[str]) -> pd.Series[Any]:
    """ISO 8601 where it is, else the one format that fits most of the other texts."""
    times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    others = texts[times.isna()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # days first are fine here: the best format wins
        formats = sorted(
            {guess_datetime_format(text) or "" for text in others[:_MAX_FORMAT_TEXTS]} - {""}
        )
    parsed = [pd.to_datetime(others, errors="coerce", utc=True, format=one) for one in formats]
    if not parsed:
        return times
    return times.fillna(max(parsed, key=lambda column: int(column.notna().sum())))


def _drop(
    table: pd.DataFrame,
    report: CleaningReport,
    rows: pd.Series[bool] | BoolArray,
    reason: str,
) -> tuple[pd.DataFrame, CleaningReport]:
    if not rows.any():
        return table, report
    return table[~rows], report.with_dropped(reason, table.index[rows].to_numpy())
