"""A log and what everybody took, with events added or a person removed; the old ones stay valid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import NO_CATEGORY, UNKNOWN_ITEM, Interactions
from llmrec.data.new_events import NewEvents
from llmrec.data.population import Population
from llmrec.data.validation import DUPLICATE
from llmrec.types import BoolArray, IntArray, TimeArray

_MAX_PIECES = 64


@dataclass(frozen=True, eq=False)
class GrownLog:
    """A log with events added to it, as if all had been read at once.

    Attributes
    ----------
    log
        Aligned with the catalog. Events of one person and time are in the order of their items,
        among those of before wherever these are.
    events
        Those that were added; the others are among its ``left_out``.
    is_first
        (n_added,) whether nobody's event with the same person and item is earlier, in the order of
        ``added_items``.
    added_items, added_times
        (n_added,) in the log's order.
    later_items, later_times
        (n,) events of the log that were a person's first with an item, and no longer are.
    """

    log: Interactions
    events: NewEvents
    added_items: IntArray
    added_times: TimeArray
    is_first: BoolArray
    later_items: IntArray
    later_times: TimeArray

    def extend(self, population: Population) -> Population:
        """Give the population, that of the log as it was, with the added events."""
        first = population.is_first_of_person
        if len(self.later_items):
            first = first.copy()
            for item, moment in zip(self.later_items, self.later_times, strict=True):
                same = _places_of(population, item, moment)
                first[same[first[same]][0]] = False  # whose it is makes no difference
        order = np.argsort(self.added_times, kind="stable")
        times = self.added_times[order]
        places = np.searchsorted(population.timestamp, times, side="right")
        return Population(
            insert(population.item_idx, places, self.added_items[order]),
            insert(population.timestamp, places, times),
            insert(population.is_last_of_moment, places, np.ones(len(order), dtype=bool)),
            insert(first, places, self.is_first[order]),
            len(self.log.item_ids),
        )


def add_events(log: Interactions, events: NewEvents, catalog: Catalog) -> GrownLog:
    """Add events to a log, in time proportional to them and to the past of their people.

    Beyond that the log's arrays are copied once, and its list of people if one is new. Events of
    items that the catalog does not know, or knows without a category, are left out, and so are
    those that the log has.

    Parameters
    ----------
    log
        Aligned with the catalog, or with one that has the first of its items.
    """
    events, items = _known_items(events, catalog)
    user_ids, old_place, users = _merge_people(log.user_ids, events.user_ids)
    n_before = np.zeros(len(user_ids), dtype=np.int64)  # events of each person
    n_before[old_place] = np.diff(log.user_offsets)
    whose = np.unique(users)
    past = _past_of(log, old_place, whose)
    n_past = len(past.rows)
    table = np.stack(
        (
            np.concatenate((past.users, users)),
            np.concatenate((log.item_idx[past.rows], items)),
            np.concatenate((log.timestamp[past.rows], events.timestamp)).view(np.int64),
        )
    )
    again = _is_repeated(table)
    again[:n_past] = False
    events, table = events.leave_out(DUPLICATE, again[n_past:]), table[:, ~again]
    users, items, _ = table[:, n_past:]
    order = _order(table, n_past, catalog.item_ids)
    is_old = order < n_past
    added = order[~is_old] - n_past
    # Of a person's past, which comes before an event; people follow each other in the order.
    n_old = np.cumsum(is_old)[~is_old]
    before = np.concatenate(([0], np.cumsum(n_before[whose])))[np.searchsorted(whose, users[added])]
    places = np.cumsum(n_before)[users[added]] - n_before[users[added]] + n_old - before
    n_after = n_before + np.bincount(users, minlength=len(user_ids))
    kept = n_after > 0
    grown = replace(
        _with_rows(log, places, items[added], events, added),
        user_ids=user_ids if kept.all() else user_ids[kept],
        item_ids=catalog.item_ids,
        user_offsets=np.concatenate(([0], np.cumsum(n_after[kept]))),
    )
    is_first, later = _first_events(table, order, n_past)
    _, later_items, later_times = table[:, order[later]]
    return GrownLog(
        grown,
        events,
        items[added],
        events.timestamp[added],
        is_first[~is_old],
        later_items,
        later_times.view("datetime64[ms]"),
    )


def remove_person(log: Interactions, user_idx: int) -> Interactions:
    """Give a log without a person; it may be empty then."""
    start, stop = log.user_offsets[user_idx : user_idx + 2]
    own = slice(int(start), int(stop))
    offsets = np.delete(log.user_offsets, user_idx + 1)
    offsets[user_idx + 1 :] -= stop - start
    return replace(
        log,
        user_ids=log.user_ids.delete(user_idx),
        user_offsets=offsets,
        item_idx=np.delete(log.item_idx, own),
        timestamp=np.delete(log.timestamp, own),
        source_row=np.delete(log.source_row, own),
        rating=None if log.rating is None else np.delete(log.rating, own),
        price=None if log.price is None else np.delete(log.price, own),
    )


def without_person(population: Population, log: Interactions, user_idx: int) -> Population:
    """Give what everybody took, without what a person of a log took.

    For a population that is not that of the log: of this one make the log's anew.

    Raises
    ------
    DataError
        If nothing is left.
    """
    own = slice(*log.user_offsets[user_idx : user_idx + 2])
    items, times = log.item_idx[own], log.timestamp[own]
    is_first = ~_is_repeated(items[None])
    is_left = np.ones(population.n_events, dtype=bool)
    for item, moment, first in zip(items, times, is_first, strict=True):
        same = _places_of(population, item, moment)
        own = is_left[same] & (population.is_first_of_person[same] == first)
        is_left[same[own][0]] = False
    return population.select(is_left)


def insert(array: npt.NDArray[Any], places: IntArray, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give an array with values before these (n,) places of it, which never fall.

    Few values cost one copy of the array, which `numpy.insert` makes through a mask.
    """
    if len(places) > _MAX_PIECES:
        return np.insert(array, places, values)
    found = np.empty(len(array) + len(places), dtype=array.dtype)
    edges = [0, *places.tolist(), len(array)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        found[start + number : stop + number] = array[start:stop]
        if number < len(places):
            found[stop + number] = values[number]
    return found


def _known_items(events: NewEvents, catalog: Catalog) -> tuple[NewEvents, IntArray]:
    """Give the events of items that the catalog has with a category, and these (n,) items."""
    items = catalog.item_ids.get_indexer(events.item_ids).astype(np.int64)
    is_unknown = items < 0
    is_bare = ~is_unknown & ~catalog.has_category[items]
    events = events.leave_out(UNKNOWN_ITEM, is_unknown)
    return events.leave_out(NO_CATEGORY, is_bare[~is_unknown]), items[~is_unknown & ~is_bare]


def _with_rows(
    log: Interactions, places: IntArray, items: IntArray, events: NewEvents, added: IntArray
) -> Interactions:
    """Give a log with rows of (n_added,) events before places of its own; people are as before."""
    n_rows, price = log.report.rows_read, log.price
    return replace(
        log,
        item_idx=insert(log.item_idx, places, items),
        timestamp=insert(log.timestamp, places, events.timestamp[added]),
        source_row=insert(log.source_row, places, n_rows + added),
        rating=None if log.rating is None else insert(log.rating, places, events.rating[added]),
        price=None if price is None else insert(price, places, np.full(len(added), np.nan)),
        report=replace(log.report, rows_read=n_rows + len(added)),
    )


def _first_events(table: IntArray, order: IntArray, n_past: int) -> tuple[BoolArray, BoolArray]:
    """(n_events,) in an order, which are a person's first with an item, and which no longer are."""
    is_old = order < n_past
    was_first = ~_is_repeated(table[:2, :n_past])
    is_first = ~_is_repeated(table[:2, order])
    later = is_old & ~is_first
    later[is_old] &= was_first  # the past has the same order alone and among the added events
    return is_first, later


def _is_repeated(columns: IntArray) -> BoolArray:
    """(n,) whether an earlier one of (k, n) columns is equal."""
    order = np.lexsort(columns)  # of equal ones the earlier comes first
    found = np.zeros(columns.shape[1], dtype=bool)
    found[order[1:]] = (columns[:, order[1:]] == columns[:, order[:-1]]).all(axis=0)
    return found


@dataclass(frozen=True, eq=False)
class _Past:
    """Events of some people: (n,) rows of a log, and whose each is."""

    rows: IntArray
    users: IntArray


def _past_of(log: Interactions, old_place: IntArray, whose: IntArray) -> _Past:
    """Give the past of (n,) people of a merged list, of which the log's have ``old_place``."""
    found = np.searchsorted(old_place, whose)
    known = found < len(old_place)
    known[known] = old_place[found[known]] == whose[known]
    people = found[known]
    starts, sizes = log.user_offsets[people], np.diff(log.user_offsets)[people]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return _Past(np.repeat(starts, sizes) + within, np.repeat(whose[known], sizes))


def _merge_people(
    old: pd.Index[str], added: pd.Index[str]
) -> tuple[pd.Index[str], IntArray, IntArray]:
    """Give the ids of all, where the (n_old,) are among them, and whose each added event is.

    New ids are put where they belong if the old ones are sorted, as those of a frame are, and else
    at the end.
    """
    places = old.get_indexer(added).astype(np.int64)
    is_new = places < 0
    if not is_new.any():
        return old, np.arange(len(old)), places
    codes, new = pd.factorize(added[is_new], sort=True)
    together = old.append(pd.Index(new, dtype="str"))
    order = np.arange(len(together))
    if old.is_monotonic_increasing:
        among = np.asarray(old.searchsorted(new), dtype=np.int64)
        order = insert(order[: len(old)], among, order[len(old) :])
        together = together[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    users = np.empty(len(added), dtype=np.int64)
    users[~is_new], users[is_new] = place[places[~is_new]], place[len(old) + codes]
    return together, place[: len(old)], users


def _order(table: IntArray, n_past: int, item_ids: pd.Index[str]) -> IntArray:
    """(n_events,) the order by person, time and item, in which the past keeps its own.

    A log may have a person's events of one time in the order of its file. An added event comes
    before the first of them that has a later item, or a later one before it.
    """
    users, items, times = table
    used, codes = np.unique(items, return_inverse=True)
    rank = np.empty(len(used), dtype=np.int64)
    rank[np.argsort(item_ids[used].to_numpy(dtype=object), kind="stable")] = np.arange(len(used))
    ties = rank[codes]
    if n_past:
        changed = (np.diff(users[:n_past]) != 0) | (np.diff(times[:n_past]) != 0)
        group = np.concatenate(([0], np.cumsum(changed)))
        highest = np.maximum.accumulate(group * len(used) + ties[:n_past])
        ties[:n_past] = highest - group * len(used)
    return np.lexsort((ties, times, users))


def _places_of(population: Population, item: int, moment: np.datetime64) -> IntArray:
    """(n,) the places of the events of an item and time."""
    start, stop = np.searchsorted(population.timestamp, [moment, moment + MILLISECOND])
    return np.asarray(start + np.flatnonzero(population.item_idx[start:stop] == item))
