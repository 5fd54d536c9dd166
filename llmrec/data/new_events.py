"""Events that come in after a log was read: checked row by row, and ready to be added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.ids import read_ids
from llmrec.data.text_times import date_order
from llmrec.data.times import parse_timestamps
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    USER_ID,
    RowCleaner,
    require_columns,
    to_float,
    to_pandas,
)
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray


@dataclass(frozen=True, eq=False)
class NewEvents:
    """Events in the order of their rows, each once.

    Attributes
    ----------
    user_ids, item_ids
        (n,) of each event.
    timestamp
        (n,) datetime64[ms], UTC.
    row
        (n,) number of the row that it was read from.
    rating
        (n,) float64; NaN where there is none.
    left_out
        Reason to the numbers of the rows that are no event, or not one to add.
    """

    user_ids: pd.Index[str]
    item_ids: pd.Index[str]
    timestamp: TimeArray
    row: IntArray
    rating: FloatArray
    left_out: Mapping[str, IntArray]

    @classmethod
    def read(
        cls, frame: Any, *, latest: np.datetime64 | None = None, day_first: bool | None = None
    ) -> NewEvents:
        """Read a frame of events by the rules of `Interactions.from_frame`, but for outliers.

        A few new events are no population, of which somebody or some day could stand out.

        Parameters
        ----------
        frame
            pandas or polars frame, or a ``datasets.Dataset``, with columns user_id, item_id and
            timestamp, and perhaps rating; it may have no row.
        latest
            Times after this (default: tomorrow) are impossible.
        day_first
            Whether texts of times have days before months, as those of the log.

        Raises
        ------
        DataError
            If a column is missing, or ids or times cannot be read at all; see `read_ids` and
            `parse_timestamps`.
        """
        frame = to_pandas(frame).reset_index(drop=True)
        needed = {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)}
        require_columns(frame, needed, optional=[RATING])
        if not len(frame):
            nothing, no_rows = pd.Index([], dtype="str"), np.empty(0, np.int64)
            no_times = np.empty(0, "datetime64[ms]")
            return cls(nothing, nothing, no_times, no_rows, np.empty(0), {})
        is_number = pd.api.types.is_numeric_dtype(frame[TIMESTAMP].dtype)
        dates = None if is_number else date_order(day_first)
        users, items = read_ids(frame[USER_ID]), read_ids(frame[ITEM_ID])
        times = parse_timestamps(frame[TIMESTAMP], dates, latest)
        table: dict[str, Any] = {USER_ID: users.codes, ITEM_ID: items.codes, TIMESTAMP: times.times}
        if RATING in frame:
            table[RATING] = to_float(frame[RATING])
        cleaner = RowCleaner.of(pd.DataFrame(table))
        cleaner.drop_invalid(times.unusable, frame[TIMESTAMP], frame[[]])
        clean = cleaner.table
        return cls(
            users.labels[clean[USER_ID].to_numpy()],
            items.labels[clean[ITEM_ID].to_numpy()],
            clean[TIMESTAMP].to_numpy("datetime64[ms]"),
            clean.index.to_numpy(np.int64),
            clean[RATING].to_numpy() if RATING in clean else np.full(len(clean), np.nan),
            cleaner.dropped_rows,
        )

    def __len__(self) -> int:
        """Count the events."""
        return len(self.row)

    def leave_out(self, reason: str, rows: BoolArray) -> NewEvents:
        """Give the events without some, an (n,) mask, under a reason."""
        if not rows.any():
            return self
        kept = ~rows
        before = self.left_out.get(reason, np.empty(0, np.int64))
        return replace(
            self,
            user_ids=self.user_ids[kept],
            item_ids=self.item_ids[kept],
            timestamp=self.timestamp[kept],
            row=self.row[kept],
            rating=self.rating[kept],
            left_out={**self.left_out, reason: np.append(before, self.row[rows])},
        )


def read_item_rows(items: Any) -> pd.DataFrame | None:
    """Give a frame of items that come in with events; DataError if it is none, or has no ids."""
    if items is None:
        return None
    frame = to_pandas(items)
    if len(frame):
        require_columns(frame, {ITEM_ID: ITEM_ID})
    return frame


def rows_of_items(events: Any, new: NewEvents) -> pd.DataFrame | None:
    """Give what the rows of events say of their items; None if they say no categories."""
    frame = to_pandas(events)
    if CATEGORIES not in frame:
        return None
    said = [name for name in (ITEM_ID, TITLE, CATEGORIES) if name in frame]
    return frame[said].iloc[new.row]
