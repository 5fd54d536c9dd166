"""Checks of every frame that comes in: its columns; invalid rows dropped and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data import outliers
from llmrec.data.column_errors import naming_column
from llmrec.data.ids import MISSING_WORDS
from llmrec.data.names import clean_text
from llmrec.data.report import CleaningReport
from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, IntArray

USER_ID, ITEM_ID, TIMESTAMP, RATING = "user_id", "item_id", "timestamp", "rating"
TITLE, CATEGORIES = "title", "categories"
SHORT_NAMES = {  # of columns, as they are written in a command
    USER_ID: "user",
    ITEM_ID: "item",
    TIMESTAMP: "time",
    TITLE: "title",
    CATEGORIES: "categories",
    RATING: "rating",
}
DUPLICATE = "duplicate"
# A number or a date where the name of a column should be.
_DATA = re.compile(r"[-+]?\d+([.,]\d+)?$|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b")
# Signs in a name of a column that stand for letters of another encoding.
_MISREAD = re.compile(
    r"[\xa1-\xa9\xab-\xaf\xb1-\xb4\xb6-\xb9\xbb-\xbf\u0192\u2020-\u203a\ufffd]|[\xc0-\xff]{3}"
)
_DECIMAL_COMMA = r"[-+]?[0-9]+,[0-9]+"


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


def require_columns(
    frame: pd.DataFrame,
    needed: Mapping[str, str],
    *,
    optional: Sequence[str] = (),
    can_map: bool = True,
) -> None:
    """Raise a DataError if a needed column is missing, or one occurs twice.

    ``needed`` maps our name of a column to the frame's; those of ``optional`` may be missing;
    ``can_map`` says whether other names can be given.
    """
    names = list(map(str, frame.columns))
    shown = f"(columns found: {', '.join(names)[:500] or 'none'})"
    for theirs in (*needed.values(), *optional):
        if int((frame.columns == theirs).sum()) > 1:
            raise DataError(
                f"column {theirs!r} is there more than once {shown}. Rename one of them."
            )
    missing = {ours: theirs for ours, theirs in needed.items() if theirs not in frame.columns}
    if missing:
        *others, last = map(repr, missing.values())
        what = f"column {last} is missing"
        if others:
            what = f"columns {', '.join(others)} and {last} are missing"
        raise DataError(f"{what} {shown}. {_way_to_columns(names, missing, can_map=can_map)}")


def _way_to_columns(names: Sequence[str], missing: Mapping[str, str], *, can_map: bool) -> str:
    """Say what to do where columns are missing, by what the names of those found look like."""
    if any(map(_DATA.match, names)):
        return "The first line looks like data, not like names of columns: write names above it."
    if other := [name for name in names if _MISREAD.search(name)]:
        return f"Names such as {other[0][:40]!r} look like another encoding: save it as UTF-8."
    if len(names) == 1 and not re.fullmatch(r"[\w.-]+", names[0]):
        return (
            "No separator was found in its first line (commas, semicolons, tabs, bars and double "
            "colons were tried): put one of them between the values."
        )
    if not can_map:
        return "Give it this name in the file."
    pairs = ", ".join(f"{ours!r}: 'its name'" for ours in missing)
    short = ",".join(f"{SHORT_NAMES.get(ours, ours)}=ITS_NAME" for ours in missing)
    it = "it" if len(missing) == 1 else "them"
    return f"Rename {it}, or map {it}: columns={{{pairs}}}, or --columns {short}."


def to_float(column: pd.Series[Any]) -> FloatArray:
    """(n_rows,) numbers, missing ones NaN; DataError names the first row that is none.

    Where no value has a point and some have a comma, the comma is the decimal one: 4,5.
    """
    with naming_column(column.name):
        return _to_float(column)


def _to_float(column: pd.Series[Any]) -> FloatArray:
    if pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype):
        texts = column.astype("str").str.strip()
        column = column.mask((texts == "") | texts.isin(MISSING_WORDS))
    numbers = pd.to_numeric(column, errors="coerce")
    invalid = (numbers.isna() & column.notna()).to_numpy()
    if invalid.any() and column[invalid].astype("str").str.fullmatch(_DECIMAL_COMMA).all():
        texts = column[column.notna()].astype("str")
        if not texts.str.contains(".", regex=False).any():
            return _to_float(texts.str.replace(",", ".", regex=False).reindex(column.index))
    if invalid.any():
        row = int(invalid.argmax())
        raise DataError(
            f"column {column.name!r}, row {row}: {str(column.iloc[row])[:80]!r} is not a number. "
            "Correct it, or drop the column."
        )
    return numbers.to_numpy(np.float64, na_value=np.nan)


@dataclass
class RowCleaner:
    """A table of events whose rows are dropped step by step, each under a reason.

    ``table`` has user_id and item_id as numbers (-1: missing), timestamp, and what else tells
    events apart; its index are the row numbers of the frame that was read. ``dropped_users`` are
    the users of the rows that each reason dropped, and ``dropped_rows`` their numbers.
    """

    table: pd.DataFrame
    report: CleaningReport
    dropped_users: dict[str, IntArray] = field(default_factory=dict)
    dropped_rows: dict[str, IntArray] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pd.DataFrame) -> RowCleaner:
        """Begin with all rows."""
        return cls(table, CleaningReport(len(table)))

    def drop(self, reason: str, rows: pd.Series[bool] | BoolArray, values: Any = None) -> None:
        """Drop the rows of an (n_rows_left,) mask; ``values`` are what their column held."""
        self._drop(reason, rows, "dropped", values)

    def drop_invalid(
        self, unusable_times: Mapping[str, BoolArray], times: Any, details: pd.DataFrame
    ) -> None:
        """Drop rows without ids or time, and all but one of equal ones: that of highest rating.

        Parameters
        ----------
        unusable_times
            Reason to an (n_rows_read,) mask.
        times
            (n_rows_read,) what the column of times held.
        details
            Columns of (n_rows_read,): of equal rows of one rating the one whose text there comes
            first is left.
        """
        for name in (USER_ID, ITEM_ID):
            self.drop(f"missing {name}", self.table[name] < 0)
        for reason, rows in unusable_times.items():
            self.drop(reason, rows[self.table.index], times)
        self.drop(DUPLICATE, self._duplicates(details))

    def _duplicates(self, details: pd.DataFrame) -> BoolArray:
        """(n_rows_left,) the rows that another one of the same event stands for."""
        if len(self.table) < 2:  # an event that comes in alone
            return np.zeros(len(self.table), dtype=bool)
        keys = [name for name in self.table if name != RATING]
        # Equal rows have equal hashes: few rows are left to compare, and those that differ go then.
        hashes = pd.util.hash_pandas_object(self.table[keys], index=False)
        equal = self.table[hashes.duplicated(keep=False)]
        for name in reversed(list(details)):  # stable sorts: the last one weighs most
            values = details[name][equal.index]
            # As objects: Arrow has no order of lists.
            texts = pd.Series(list(values), values.index, dtype=object).map(
                repr, na_action="ignore"
            )
            equal = equal.loc[texts.sort_values(kind="stable").index]
        if RATING in equal:
            equal = equal.sort_values(RATING, ascending=False, kind="stable")
        again = equal.index[equal.duplicated(keys)]
        return np.asarray(self.table.index.isin(again))

    def set_outliers_aside(self, bot_events_per_day: int | None, *, keep_outliers: bool) -> None:
        """Set aside stray dates and one-day bursts, unless kept, and bots if there is a limit.

        The events of a bot make no burst, kept or not: the others of that day did not come at once.
        """
        if not keep_outliers:
            when = self.table[TIMESTAMP]
            self._drop(
                outliers.STRAY_RULE, outliers.find_stray_dates(when.to_numpy()), "set aside", when
            )
        keep_bots = bot_events_per_day is None
        limit = outliers.BOT_EVENTS_PER_DAY if bot_events_per_day is None else bot_events_per_day
        users, times = self.table[USER_ID].to_numpy(), self.table[TIMESTAMP].to_numpy()
        bots = outliers.find_bots(users, times, limit)
        if not keep_bots:
            self._drop(outliers.BOT_RULE.format(limit), bots, "set aside", None)
            bots = np.zeros(len(self.table), dtype=bool)
        if not keep_outliers:
            when = self.table[TIMESTAMP]
            burst = ~bots
            burst[burst] = outliers.find_burst(when.to_numpy()[burst])
            self._drop(outliers.BURST_RULE, burst, "set aside", when)

    def _drop(
        self, reason: str, rows: pd.Series[bool] | BoolArray, effect: Any, values: Any
    ) -> None:
        mask = np.asarray(rows)
        if not mask.any():
            return
        dropped = self.table.index[mask].to_numpy()
        value = None if values is None else values[dropped[0]]
        value = clean_text(value, 80)  # "" where it is missing: "nan" would say nothing
        self.report = self.report.with_dropped(reason, dropped, value, effect=effect)
        self.dropped_users[reason] = self.table[USER_ID].to_numpy()[mask]
        self.dropped_rows[reason] = dropped
        self.table = self.table[~mask]
