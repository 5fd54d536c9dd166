"""Dropping the rows that are no interactions, each counted under the first reason that hit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.frames import ITEM_ID, RATING, TIMESTAMP, USER_ID


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

    def adding(self, reason: str, rows: npt.NDArray[Any]) -> CleaningReport:
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


def clean(
    table: pd.DataFrame,
    leave_out: Mapping[str, npt.NDArray[np.bool_]],
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


def _drop(
    table: pd.DataFrame,
    report: CleaningReport,
    rows: pd.Series[bool] | npt.NDArray[np.bool_],
    reason: str,
) -> tuple[pd.DataFrame, CleaningReport]:
    if not rows.any():
        return table, report
    return table[~rows], report.adding(reason, table.index[rows].to_numpy())
