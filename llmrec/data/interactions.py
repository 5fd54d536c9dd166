"""A validated event log, sorted by user and time, with a report of what cleaning dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.event_order import sort_events
from llmrec.data.ids import Ids, find_id, format_id, lookup_id, read_ids
from llmrec.data.outliers import BOT_EVENTS_PER_DAY
from llmrec.data.report import CleaningReport
from llmrec.data.times import ParsedTimes, parse_timestamps
from llmrec.data.validation import (
    ITEM_ID,
    RATING,
    TIMESTAMP,
    USER_ID,
    RowCleaner,
    require_columns,
    to_float,
    to_pandas,
)
from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray

# Among the reasons of a report.
UNKNOWN_ITEM, NO_CATEGORY = "item not in the catalog", "item without a category"


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log of events, sorted by user, then time, then item, so that no file order matters.

    An event's position in this order is its *event id*. Build one with `from_frame`; `empty` holds
    no event, where only what everybody took is known.

    Attributes
    ----------
    user_ids, item_ids
        (n_users,) and (n_items,) string ids; ``user_idx`` and ``item_idx`` point into them.
    user_offsets
        (n_users + 1,) events of user ``u`` are ``user_offsets[u]:user_offsets[u + 1]``.
    item_idx
        (n_events,) 0..n_items-1.
    timestamp
        (n_events,) datetime64[ms], UTC.
    source_row
        (n_events,) row number in the frame the event came from.
    rating
        (n_events,) float64, or None where the log has none.
    price
        (n_events,) float64, of one piece, as Online Retail has it; None elsewhere. No forecast and
        no list depends on it.
    report
        How it was read, and what cleaning dropped.
    day_first
        Whether the log's own texts have days before months; None where that is not the question.
    left_out
        Reason to the ids of the people of whom it left no event.
    """

    user_ids: pd.Index[str]
    item_ids: pd.Index[str]
    user_offsets: IntArray
    item_idx: IntArray
    timestamp: TimeArray
    source_row: IntArray
    rating: FloatArray | None
    report: CleaningReport
    day_first: bool | None = None
    left_out: Mapping[str, pd.Index[str]] = field(default_factory=dict, repr=False)
    price: FloatArray | None = None

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Mapping[str, str] | None = None,
        *,
        dates: str | None = None,
        latest: np.datetime64 | None = None,
        identity: Sequence[str] = (),
        details: Sequence[str] = (),
        leave_out: Mapping[str, BoolArray] | None = None,
        bot_events_per_day: int | None = BOT_EVENTS_PER_DAY,
        keep_outliers: bool = False,
        in_file_order: bool = False,
    ) -> Interactions:
        """Validate, clean and sort a frame of interactions.

        Parameters
        ----------
        frame
            pandas or polars frame, or a ``datasets.Dataset``, one row an event.
        columns
            Our name to the frame's name, for those of user_id, item_id, timestamp, rating that
            differ: ``{"user_id": "household"}``.
        dates, latest
            How times are written, where that is ambiguous, and the last possible one; see
            `parse_timestamps`.
        identity
            Further columns that tell two events of one user, item and time apart; without them
            the second such row is a duplicate.
        details
            Columns that decide which one of equal rows counts if ratings do not: the first text.
        leave_out
            Reason to (n_rows,) mask of rows that are no interactions; they are counted under it.
        bot_events_per_day, keep_outliers
            Users with more events than this on any one UTC day are set aside as bots (None: no
            limit), and so are stray dates and one-day bursts; see `llmrec.data.outliers`.
        in_file_order
            Whether events of one user and time stay in the order of the rows; otherwise they are in
            that of their items, whatever the order of the rows.

        Raises
        ------
        DataError
            If a column is missing, an id or the times cannot be read (see `read_ids` and
            `parse_timestamps`), or no row survives.
        """
        frame = to_pandas(frame).reset_index(drop=True)
        names = {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)} | dict(columns or {})
        require_columns(frame, names | {n: n for n in (*identity, *details)}, optional=[RATING])
        users, items = read_ids(frame[names[USER_ID]]), read_ids(frame[names[ITEM_ID]])
        times = parse_timestamps(frame[names[TIMESTAMP]], dates, latest)
        cleaner = RowCleaner.of(_make_table(frame, names, identity, users, items, times))
        for reason, rows in (leave_out or {}).items():
            cleaner.drop(reason, np.asarray(rows)[cleaner.table.index])
        cleaner.drop_invalid(times.unusable, frame[names[TIMESTAMP]], frame[list(details)])
        cleaner.set_outliers_aside(bot_events_per_day, keep_outliers=keep_outliers)
        notes = (*users.findings, *items.findings, *times.findings)
        cleaner.report = cleaner.report.with_notes(*notes)
        log = cls._from_clean(cleaner, users.labels, items.labels, in_file_order)
        return replace(log, day_first=times.day_first)

    @classmethod
    def _from_clean(
        cls,
        cleaner: RowCleaner,
        all_users: pd.Index[str],
        all_items: pd.Index[str],
        in_file_order: bool,
    ) -> Interactions:
        table = cleaner.table
        if not len(table):
            raise DataError(f"no interaction survived cleaning.\n{cleaner.report}")
        user_idx, user_ids = _drop_unused(table[USER_ID].to_numpy(), all_users)
        item_idx, item_ids = _drop_unused(table[ITEM_ID].to_numpy(), all_items)
        times, rows = table[TIMESTAMP].to_numpy(), table.index.to_numpy()
        ties = rows if in_file_order else item_idx  # equal ones stay in the order of the rows
        order = sort_events(user_idx, times, ties)
        return cls(
            user_ids=user_ids,
            item_ids=item_ids,
            user_offsets=np.concatenate(([0], np.cumsum(np.bincount(user_idx)))),
            item_idx=item_idx[order],
            timestamp=times[order],
            source_row=rows[order],
            rating=table[RATING].to_numpy()[order] if RATING in table else None,
            report=cleaner.report,
            left_out=_people_without_events(all_users, user_ids, cleaner),
        )

    @classmethod
    def empty(
        cls,
        item_ids: pd.Index[str],
        user_ids: Sequence[str] = (),
        report: CleaningReport | None = None,
        day_first: bool | None = None,
    ) -> Interactions:
        """Give a log without events, of these users (default: of nobody)."""
        return cls(
            user_ids=pd.Index(list(user_ids), dtype="str"),
            item_ids=item_ids,
            user_offsets=np.zeros(len(user_ids) + 1, dtype=np.int64),
            item_idx=np.empty(0, dtype=np.int64),
            timestamp=np.empty(0, dtype="datetime64[ms]"),
            source_row=np.empty(0, dtype=np.int64),
            rating=None,
            report=report or CleaningReport(0),
            day_first=day_first,
        )

    def __repr__(self) -> str:
        """Say how much it holds, in a line."""
        if not len(self):
            return f"Interactions(no events, {len(self.item_ids):,} items)"
        first, last = (str(time)[:10] for time in (self.timestamp.min(), self.timestamp.max()))
        return f"Interactions({len(self):,} events of {self.n_users:,} users, {first} to {last})"

    def __len__(self) -> int:
        """Count the events."""
        return len(self.item_idx)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @cached_property
    def user_idx(self) -> IntArray:
        """(n_events,) user of each event."""
        return np.repeat(np.arange(self.n_users), np.diff(self.user_offsets))

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of the log's content: who took what, when."""
        digest = hashlib.sha256("\x1f".join([*self.user_ids, "\x1e", *self.item_ids]).encode())
        for array in (self.user_offsets, self.item_idx, self.timestamp.view(np.int64)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def user_index(self, user_id: object) -> int:
        """Look a user up by id.

        Raises
        ------
        DataError
            If no event of this user is in the log: it says which rule dropped them all, names
            similar ids, or says that the log holds nobody.
        """
        if not self.n_users:
            raise DataError(
                "this engine holds no log: give the person's events, session(frame), not an id."
            )
        text = format_id(user_id)
        if (found := find_id(self.user_ids, text)) >= 0:
            return found
        for reason, ids in self.left_out.items():
            if find_id(ids, text) >= 0:
                raise DataError(
                    f"user {text[:80]!r} has no event here: all were left out ({reason})."
                )
        return lookup_id(self.user_ids, user_id, "user")

    def align_to(self, catalog: Catalog) -> Interactions:
        """Give the log with ``item_idx`` pointing into the catalog.

        Events of items that the catalog does not know, or knows without a category, are dropped
        and counted in the report.
        """
        if self.item_ids is catalog.item_ids:
            return self
        item_idx = catalog.item_ids.get_indexer(self.item_ids)[self.item_idx].astype(np.int64)
        unknown = item_idx < 0
        uncategorized = ~unknown & ~catalog.has_category[item_idx]
        aligned = replace(self, item_ids=catalog.item_ids, item_idx=item_idx)
        return aligned.drop_events({UNKNOWN_ITEM: unknown, NO_CATEGORY: uncategorized})

    def drop_events(self, leave_out: Mapping[str, BoolArray]) -> Interactions:
        """Give the log without some events, and without the users that then have none.

        Parameters
        ----------
        leave_out
            Reason to (n_events,) mask of the events to drop; no event under two reasons.

        Raises
        ------
        DataError
            If nothing is left of its events.
        """
        if not any(rows.any() for rows in leave_out.values()) and np.diff(self.user_offsets).all():
            return self  # no second copy of a large log
        report, keep = self.report, np.ones(len(self), dtype=bool)
        for reason, rows in leave_out.items():
            report = report.with_dropped(reason, self.source_row[rows])
            keep &= ~rows
        if len(self) and not keep.any():
            raise DataError(f"no event is left.\n{report}")
        counts = np.bincount(self.user_idx[keep], minlength=self.n_users)
        gone = {
            reason: self.user_ids[np.setdiff1d(self.user_idx[rows], self.user_idx[keep])]
            for reason, rows in leave_out.items()
            if not (counts > 0).all()
        }
        return replace(
            self,
            user_ids=self.user_ids[counts > 0],
            user_offsets=np.concatenate(([0], np.cumsum(counts[counts > 0]))),
            item_idx=self.item_idx[keep],
            timestamp=self.timestamp[keep],
            source_row=self.source_row[keep],
            rating=None if self.rating is None else self.rating[keep],
            price=None if self.price is None else self.price[keep],
            report=report,
            left_out={**gone, **self.left_out},
        )

    def select_person(self, user_idx: int, event_ids: IntArray) -> Interactions:
        """Give the log of one person alone, with these of their events; there may be none."""
        return replace(
            self,
            user_ids=self.user_ids[[user_idx]],
            user_offsets=np.array([0, len(event_ids)]),
            item_idx=self.item_idx[event_ids],
            timestamp=self.timestamp[event_ids],
            source_row=self.source_row[event_ids],
            rating=None if self.rating is None else self.rating[event_ids],
            price=None if self.price is None else self.price[event_ids],
            left_out={},
        )


def _make_table(
    frame: pd.DataFrame,
    names: Mapping[str, str],
    identity: Sequence[str],
    users: Ids,
    items: Ids,
    times: ParsedTimes,
) -> pd.DataFrame:
    """Give the table that `RowCleaner` cleans; DataError if there is no row, or a broken rating."""
    if not len(frame):
        raise DataError("the log is empty: 0 rows. Give at least one interaction.")
    table = pd.DataFrame({USER_ID: users.codes, ITEM_ID: items.codes, TIMESTAMP: times.times})
    if (rating := names.get(RATING, RATING)) in frame:
        table[RATING] = to_float(frame[rating])
    for name in identity:
        table[f"identity {name}"] = frame[name].array
    return table


def _people_without_events(
    labels: pd.Index[str], kept: pd.Index[str], cleaner: RowCleaner
) -> dict[str, pd.Index[str]]:
    """Give the people of whom cleaning left no event, by the reason of their last dropped row."""
    lost = np.flatnonzero(~labels.isin(kept))
    if not len(lost):
        return {}
    found = {}
    for reason, users in reversed(cleaner.dropped_users.items()):
        if len(people := np.intersect1d(users, lost)):
            found[reason], lost = labels[people], np.setdiff1d(lost, people)
    return found


def _drop_unused(positions: IntArray, ids: pd.Index[str]) -> tuple[IntArray, pd.Index[str]]:
    """Drop the ids that no event has; the order of the others stays."""
    used = np.bincount(positions, minlength=len(ids)) > 0
    return (np.cumsum(used) - 1)[positions], ids[used]
