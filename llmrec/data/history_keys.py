"""What identifies a history: predictions are stored and looked up under it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llmrec.data.periods import History


class HistoryKey(NamedTuple):
    """What identifies a history, in its log and in any shorter or longer one of the same people.

    ``n_events`` counts all of the person's events before the cutoff, also those that a shortened
    history leaves out: with periods of events several may end at one time.
    """

    user_id: str
    n_events: int
    cutoff: np.datetime64


def history_key(history: History) -> HistoryKey:
    """Give what identifies a history: predictions are stored and looked up under it."""
    first = int(history.log.user_offsets[history.user_idx])
    return HistoryKey(history.user_id, history.event_ids.stop - first, history.cutoff)
