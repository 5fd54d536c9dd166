"""Events of somebody who is not in a log, and of many people at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.event_order import sort_events
from llmrec.data.interactions import Interactions
from llmrec.data.periods import truncate_log
from llmrec.data.report import CleaningReport
from llmrec.data.text_times import date_order
from llmrec.data.validation import TIMESTAMP
from llmrec.errors import DataError
from llmrec.types import IntArray, TimeArray

_ROW = "row of the frame"


def events_of_new_user(
    table: pd.DataFrame,
    log: Interactions,
    catalog: Catalog,
    cutoff: np.datetime64,
    dates: str | None,
    is_clean: bool,
    allow_empty: bool,
) -> Interactions:
    """Give the log of one new user's events before a cutoff, aligned with the catalog.

    ``log`` is that of the others; the rest is as of `Dataset.new_user_history`, which says what is
    raised, too.
    """
    if dates is None and not pd.api.types.is_numeric_dtype(table[TIMESTAMP].dtype):
        dates = date_order(log.day_first)
    if is_clean:
        table = table.assign(**{_ROW: np.arange(len(table))})
    # One person is no population, of which somebody or some day could stand out.
    everything = Interactions.from_frame(
        table,
        dates=dates,
        identity=[_ROW] if is_clean else (),
        bot_events_per_day=None,
        keep_outliers=True,
        in_file_order=is_clean,
    )
    if everything.n_users > 1:
        raise DataError(f"these are events of {everything.n_users} users: give those of one.")
    (user,) = everything.user_ids
    if user in log.user_ids:
        raise DataError(
            f"user {user!r} is in the log: give the id to use the log's events, or another "
            "user_id for somebody new."
        )
    events = everything.align_to(catalog)
    if allow_empty and events.timestamp.min() >= cutoff:
        report = events.report.with_dropped("at or after the cutoff", events.source_row)
        return Interactions.empty(catalog.item_ids, [user], report)
    return truncate_log(events, cutoff)


def log_of_people(
    user_ids: pd.Index[str],
    user_idx: IntArray,
    item_idx: IntArray,
    timestamp: TimeArray,
    rows: IntArray,
    catalog: Catalog,
    is_clean: bool,
) -> Interactions:
    """Give the log of people's events that were read before, aligned with the catalog.

    Parameters
    ----------
    user_ids
        (n_users,) sorted; ``user_idx`` points into them.
    user_idx, item_idx, timestamp, rows
        (n_events,) in any order: of the catalog's items, and where each was read.
    is_clean
        As of `Dataset.new_user_history`.
    """
    ties = rows if is_clean else np.argsort(np.argsort(catalog.ids))[item_idx]
    order = sort_events(user_idx, timestamp, ties)
    if not is_clean and len(order):
        keys = (each[order] for each in (user_idx, timestamp, item_idx))
        again = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
        order = order[np.concatenate(([True], ~again))]
    counts = np.bincount(user_idx[order], minlength=len(user_ids))
    return Interactions(
        user_ids=user_ids,
        item_ids=catalog.item_ids,
        user_offsets=np.concatenate(([0], np.cumsum(counts))),
        item_idx=item_idx[order].astype(np.int64),
        timestamp=timestamp[order].astype("datetime64[ms]"),
        source_row=rows[order],
        rating=None,
        report=CleaningReport(len(rows)),
    )
