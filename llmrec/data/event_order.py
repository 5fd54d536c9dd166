"""The order of a log's events: by user, time, and what tells equal ones apart."""

from __future__ import annotations

import numpy as np

from llmrec.types import IntArray, TimeArray


def sort_events(users: IntArray, times: TimeArray, ties: IntArray) -> IntArray:
    """(n,) the rows in the order of users (0..n_users-1), then times, then ties; equal ones stay.

    User and time are sorted as one number, which takes a third of the time of sorting thrice; only
    rows that are equal in it are sorted again.
    """
    millis = times.astype("datetime64[ms]").view(np.int64)
    if not len(millis):
        return np.empty(0, dtype=np.int64)
    first, n_users = int(millis.min()), int(users.max()) + 1
    span = int(millis.max()) - first + 1
    if span * n_users >= 2**63:  # the one number would not fit
        return np.lexsort((ties, millis, users))
    keys = users.astype(np.int64) * span + (millis - first)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    again = np.concatenate(([False], keys[1:] == keys[:-1]))
    tied = np.flatnonzero(again | np.append(again[1:], False))
    rows = order[tied]
    order[tied] = rows[np.lexsort((ties[rows], keys[tied]))]
    return order
