"""Events of somebody who is not in a log."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import truncate_log
from llmrec.data.text_times import date_order
from llmrec.data.validation import TIMESTAMP
from llmrec.errors import DataError

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
