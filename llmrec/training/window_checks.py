"""Checks of windows and of people: no target but the next period, nobody under two names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from llmrec.data.periods import Window
from llmrec.errors import DataError

if TYPE_CHECKING:
    from llmrec.data.interactions import Interactions


MIN_SHARED_EVENTS = 10  # fewer may be shared by chance
MAX_SHARED_PART = 0.8  # of the events of one person that another one has, too
# An event of more people than this says little about who they are, and their pairs are many.
MAX_PEOPLE_OF_EVENT = 50


def check_windows(people: Sequence[Sequence[Window]], validation: Sequence[Window]) -> None:
    """Check that targets begin where their histories end, and training ends before validation.

    Parameters
    ----------
    people
        Each person's windows to train on, oldest first.
    validation
        The windows that choose when to stop; none if they are trained on, too.

    Raises
    ------
    DataError
        Naming the person and the events.
    """
    for window in [*(window for windows in people for window in windows), *validation]:
        stop, start = window.history.event_ids.stop, window.target.start
        if start != stop:  # a `Window` itself refuses one that holds its target
            raise DataError(
                f"a history of user {window.history.user_id!r} ends before the period of its "
                f"target: at event {stop} of the log, and the target begins at {start}; cut both "
                "at one event"
            )
    held_out = {window.history.user_id: window for window in validation}
    for windows in people:
        newest, seen = windows[-1], held_out.get(windows[-1].history.user_id)
        if seen is not None and _stop(newest) > _start(seen):
            raise DataError(
                f"user {newest.history.user_id!r} has a training target that ends at their event "
                f"{_stop(newest)}, and their validation target begins at {_start(seen)}: give "
                "training windows that end before validation begins, see split_timelines"
            )
    _check_calendar(people, validation)


def _check_calendar(people: Sequence[Sequence[Window]], validation: Sequence[Window]) -> None:
    """Refuse calendar training targets that end after a validation target begins."""
    if not people or not validation or validation[0].history.period_length.unit == "events":
        return
    end = max(windows[-1].target.period.end for windows in people)
    start = min(window.target.period.start for window in validation)
    if end > start:
        raise DataError(
            f"training targets end at {end}, after the validation targets begin at {start}: give "
            "training windows that end before validation begins, see split_timelines"
        )


def _start(window: Window) -> int:
    """Give the number of the person's events before the target."""
    history = window.history
    return window.target.start - int(history.log.user_offsets[history.user_idx])


def _stop(window: Window) -> int:
    return _start(window) + window.target.n_events


def check_people(log: Interactions) -> None:
    """Refuse a log in which one person has two names.

    Two people are taken for one if `MAX_SHARED_PART` of the events of one of them, and at least
    `MIN_SHARED_EVENTS`, are also events of the other: the same item at the same time. If each
    event of two people coincided by chance with probability p, 8 of 10 would with 45 p^8: at p = 1
    % that is one in 10^14, and below one in 100 million in a log of a thousand people.

    Raises
    ------
    DataError
        Naming both.
    """
    times, items = log.timestamp.astype(np.int64), log.item_idx.astype(np.int64)
    order = np.lexsort((items, times))
    changes = (np.diff(times[order]) != 0) | (np.diff(items[order]) != 0)
    key = np.empty(len(log), dtype=np.int64)
    key[order] = np.concatenate([[0], np.cumsum(changes)])
    n_users = len(log.user_offsets) - 1
    shape = (n_users, int(key.max(initial=0)) + 1)
    taken = sparse.csr_array((np.ones(len(log)), (log.user_idx, key)), shape)
    taken.data[:] = 1.0  # an event that a person has twice
    n_people = np.asarray(taken.sum(axis=0)).ravel()
    taken = taken[:, n_people <= MAX_PEOPLE_OF_EVENT]
    sizes = np.asarray(taken.sum(axis=1)).ravel()
    pairs = sparse.triu(taken @ taken.T, k=1).tocoo()
    part = pairs.data / np.minimum(sizes[pairs.row], sizes[pairs.col])
    same = (part >= MAX_SHARED_PART) & (pairs.data >= MIN_SHARED_EVENTS)
    if same.any():
        pair = int(np.argmax(np.where(same, part, 0)))
        first, second = (str(log.user_ids[at[pair]]) for at in (pairs.row, pairs.col))
        raise DataError(
            f"users {first!r} and {second!r} share {part[pair]:.0%} of their events "
            f"({pairs.data[pair]:.0f}), one of {int(same.sum())} such pairs: one person under two "
            "names would be trained on and validated on; give both the same id, or drop one"
        )
