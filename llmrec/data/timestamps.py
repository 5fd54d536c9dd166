"""Times of any kind into UTC milliseconds; the impossible ones into NaT."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from llmrec.errors import DataError

TimeArray = npt.NDArray[np.datetime64]
# A number of this size or more is no longer in the unit before it (seconds reach year 5138).
_UNIT_LIMITS = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": np.inf}
_PER_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
# Neither pattern uses \s: with it, matching leaves Arrow for Python and takes ten times as long.
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_ZONED = r".*:\d{2}(?:\.\d+)? ?(?:[AaPp][Mm])? ?(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"
_GUESSES = 500


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
        times = _from_numbers(column, unit, end)
    else:
        times = _from_objects(column, unit, end)
    impossible = (times < np.datetime64(0, "ms")) | (times > end)
    return np.where(impossible, np.datetime64("NaT", "ms"), times)


def _utc_milliseconds(column: pd.Series[Any]) -> TimeArray:
    times: TimeArray = column.dt.tz_localize(None).to_numpy("datetime64[ms]")
    return times


def _from_numbers(column: pd.Series[Any], unit: str | None, end: np.datetime64) -> TimeArray:
    values = column.to_numpy(np.float64, na_value=np.nan)
    possible = np.isfinite(values) & (values >= 0)
    unit = unit or _unit_of(column, values, possible, end)
    with np.errstate(over="ignore"):
        millis = np.where(possible, values, 0) * _PER_MS[unit]
    possible &= millis < 2**62
    times = np.where(possible, millis, 0).astype(np.int64).view("datetime64[ms]")
    return np.where(possible, times, np.datetime64("NaT", "ms"))


def _unit_of(
    column: pd.Series[Any],
    values: npt.NDArray[np.float64],
    possible: npt.NDArray[np.bool_],
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


def _from_objects(column: pd.Series[Any], unit: str | None, end: np.datetime64) -> TimeArray:
    column = column.reset_index(drop=True)
    present = column.dropna().astype("str").str.strip()
    if present.str.fullmatch(_NUMBER).sum() >= max(1, len(present) / 2):
        numbers = pd.to_numeric(column.astype("object"), errors="coerce")
        return _from_numbers(numbers, unit, end)
    zoned = present.str.fullmatch(_ZONED).to_numpy(bool)
    if zoned.any() and not zoned.all():
        row = int(present.index[(zoned != zoned[0]).argmax()])
        raise DataError(
            f"column {column.name!r} mixes times with and without a time zone: row {row} is "
            f"{present[row][:80]!r}, row {present.index[0]} is {present.iloc[0][:80]!r}. Give "
            "every time a zone, or none."
        )
    return _utc_milliseconds(_from_texts(present).reindex(column.index))


def _from_texts(texts: pd.Series[str]) -> pd.Series[Any]:
    """ISO 8601 where it is, else the one format that fits most of the other texts."""
    times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    others = texts[times.isna()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # days first are fine here: the best reading wins
        formats = sorted({guess_datetime_format(text) or "" for text in others[:_GUESSES]} - {""})
    readings = [
        pd.to_datetime(others, errors="coerce", utc=True, format=guess) for guess in formats
    ]
    if not readings:
        return times
    return times.fillna(max(readings, key=lambda reading: int(reading.notna().sum())))
