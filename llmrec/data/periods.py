"""Histories and targets of one person; this file alone compares times of events with a cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from llmrec.data.calendar import (
    DAY,
    MILLISECOND,
    Period,
    PeriodLength,
    boundaries_up_to,
    divide_periods,
    to_datetime64,
)
from llmrec.data.catalog import Catalog, category_sums
from llmrec.data.interactions import Interactions
from llmrec.data.own_parts import hash_item_ids, point_to_catalog, select_own_parts
from llmrec.data.population import Population
from llmrec.data.versions import MOVED_NAMES
from llmrec.errors import DataError
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray

ABSENCE_PERIODS = 2  # one period without is chance, two are a pause
TICKS_PER_PERIOD = 4  # parts that a calendar period is cut into
TimeLike = datetime | np.datetime64 | str


@dataclass(frozen=True, eq=False)
class History:
    """One person's events before a cutoff, cut into periods, oldest first.

    Pickled it carries this person's events and the items of these alone; an engine, or `attach`,
    gives it catalog and population again.

    Attributes
    ----------
    offsets
        (n_periods + 1,) events of period ``p`` are the log positions ``offsets[p]:offsets[p + 1]``.
    bounds
        (n_periods + 1,) datetime64[ms]: calendar periods end where the next begins, the newest at
        the cutoff, where it may be running still (`PeriodLength.anchor`); with periods of n events
        a bound is the time of the first event at or after it.
    cutoff
        The forecast is about a period that starts here. Calendar: no event at or after it. Events:
        ties in time are ordered by their items (embedded logs: as in their files).
    verb
        What the person did with the items, as in `Dataset`; for sentences alone.
    given_population
        What everybody took, where the log does not hold it; see `population`.
    n_left_out
        Events of the person that it was made without, see `without_items`.
    sent_from
        Hash of the item ids of the catalog that it was pickled without; "" if it has it.
    """

    log: Interactions
    catalog: Catalog
    user_idx: int
    offsets: IntArray
    bounds: TimeArray
    cutoff: np.datetime64
    period_length: PeriodLength
    verb: str = "taken"
    given_population: Population | None = field(default=None, repr=False)
    n_left_out: int = 0
    sent_from: str = ""

    @property
    def population(self) -> Population:
        """What everybody took: the one given, or that of the log; DataError if it was unpickled."""
        if self.sent_from:
            raise DataError(
                f"the history of user {self.user_id!r} was sent without what everybody took: give "
                "it to an engine, or history.attach(dataset.catalog, dataset.everybody)."
            )
        return self.given_population or Population.of(self.log)

    @cached_property
    def user_id(self) -> str:
        """Id of the person in the log."""
        return str(self.log.user_ids[self.user_idx])

    @property
    def n_periods(self) -> int:
        """Number of periods, empty ones included."""
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def event_ids(self) -> range:
        """Log positions of the events, oldest first."""
        return range(int(self.offsets[0]), int(self.offsets[-1]))

    @property
    def item_idx(self) -> IntArray:
        """(n_events,) items taken, oldest first."""
        return self.log.item_idx[self.offsets[0] : self.offsets[-1]]

    @property
    def days_ago(self) -> FloatArray:
        """(n_events,) days from each event to the cutoff, oldest first."""
        times = self.log.timestamp[self.offsets[0] : self.offsets[-1]]
        return np.asarray((self.cutoff - times) / DAY, dtype=np.float64)

    @property
    def periods(self) -> tuple[Period, ...]:
        """The spans of time behind the offsets."""
        return tuple(Period(a, b) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True))

    @property
    def category_counts(self) -> FloatArray:
        """(n_periods, n_categories) events by category; an item counts 1 over its categories.

        They are counted each time: of many people and categories they would fill the memory.
        """
        rows = np.repeat(np.arange(self.n_periods), np.diff(self.offsets))
        return category_sums(self.catalog, rows, self.item_idx, self.n_periods)

    @property
    def recently_absent(self) -> BoolArray:
        """(n_categories,) whether the newest `ABSENCE_PERIODS` non-empty periods lack it."""
        counts = self.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        return np.asarray(~counts[-ABSENCE_PERIODS:].any(axis=0))

    def attach(self, catalog: Catalog, population: Population) -> History:
        """Give an unpickled history the catalog and what everybody took; any other is as it is.

        Its log, and the ids of its events, stay its own. DataError if the catalog is another one.
        """
        if not self.sent_from:
            return self
        if hash_item_ids(catalog) != self.sent_from:
            raise DataError(f"the history of user {self.user_id!r} is of another catalog than this")
        log = point_to_catalog(self.log, catalog)
        return replace(self, log=log, catalog=catalog, given_population=population, sent_from="")

    def __getstate__(self) -> dict[str, Any]:
        first, stop = int(self.log.user_offsets[self.user_idx]), self.event_ids.stop
        log, catalog = select_own_parts(self.log, self.catalog, self.user_idx, stop)
        own = {"log": log, "catalog": catalog, "user_idx": 0, "offsets": self.offsets - first}
        sent_from = self.sent_from or hash_item_ids(self.catalog)
        return vars(self) | own | {"given_population": None, "sent_from": sent_from}

    def without_items(self, items: IntArray) -> History:
        """Give the history as if the person had never taken these items (indices).

        Periods, cutoff and what everybody took stay. Its log holds the other events alone.
        """
        kept = ~np.isin(self.item_idx, items)
        return replace(
            self,
            log=self.log.select_person(self.user_idx, self.offsets[0] + np.flatnonzero(kept)),
            user_idx=0,
            offsets=np.concatenate(([0], kept.cumsum()))[self.offsets - self.offsets[0]],
            given_population=self.population,
            n_left_out=self.n_left_out + int((~kept).sum()),
        )


@dataclass(frozen=True, eq=False)
class Target:
    """The events of the period after a cutoff: log positions ``start:stop``."""

    log: Interactions
    catalog: Catalog
    start: int
    stop: int
    period: Period

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.stop - self.start

    @property
    def item_idx(self) -> IntArray:
        """(n_events,) items taken, oldest first."""
        return self.log.item_idx[self.start : self.stop]

    @property
    def category_counts(self) -> FloatArray:
        """(n_categories,) events by category, counted each time."""
        rows = np.zeros(self.n_events, dtype=np.int64)
        counts: FloatArray = category_sums(self.catalog, rows, self.item_idx, 1)[0]
        return counts


@dataclass(frozen=True, eq=False)
class Window:
    """A history and the target that follows; the two never overlap."""

    history: History
    target: Target

    def __post_init__(self) -> None:
        if self.history.offsets[-1] > self.target.start:
            raise DataError(
                f"window of user {self.history.user_id!r} overlaps its cutoff: the history ends at "
                f"event {self.history.offsets[-1]}, the target starts at event {self.target.start}."
            )


def make_histories(
    log: Interactions,
    catalog: Catalog,
    period: str | PeriodLength,
    cutoff: TimeLike | None = None,
    users: Sequence[int] | None = None,
    verb: str = "taken",
    population: Population | None = None,
) -> list[History]:
    """Give users' whole past before a cutoff (default: just after everybody's last event).

    ``users`` are user indices into ``log.align_to(catalog)`` (default: all). A user without an
    event before the cutoff gets a history of empty periods. ``population`` is what everybody took,
    of the catalog's items, where the log does not hold it (default: that of the log): calendar
    periods go back to its first event, or to the log's.
    """
    log, length = log.align_to(catalog), PeriodLength.parse(period)
    everybody = population or Population.of(log)
    end = everybody.end if cutoff is None else to_datetime64(cutoff)
    user_idx = range(log.n_users) if users is None else [int(user) for user in users]
    if length.unit == "events":
        stops = [event_position(log, user, end) for user in user_idx]
        return [
            make_event_history(log, catalog, length, user, stop, end, verb, population)
            for user, stop in zip(user_idx, stops, strict=True)
        ]
    start = everybody.start
    if population is not None and len(log):
        start = min(start, log.timestamp.min())
    bounds = boundaries_up_to(start, length, end)
    offsets = [_positions(log, user, bounds) for user in user_idx]
    return [
        History(log, catalog, user, own, bounds, end, length, verb, population)
        for user, own in zip(user_idx, offsets, strict=True)
    ]


def observed_windows(
    histories: Sequence[History], end: np.datetime64 | None = None
) -> list[Window | None]:
    """Give each history the period that follows it in its log; None if it has not fully passed.

    Calendar periods have passed when the log reaches their end, periods of n events when the person
    has taken n more. Histories are of one log; ``end`` says how far it reaches where its last
    events were dropped.
    """
    if not histories:
        return []
    if end is None:
        end = histories[0].log.timestamp.max() + MILLISECOND
    return [
        Window(history, target) if (target := _observed_target(history, end)) else None
        for history in histories
    ]


def _observed_target(history: History, end: np.datetime64) -> Target | None:
    """Give the target after a history, if its period has passed by ``end``."""
    log, length = history.log, history.period_length
    user, start = history.user_idx, history.event_ids.stop
    if length.unit == "events":
        stop = start + length.n
        if stop > log.user_offsets[user + 1]:
            return None
        span = Period(log.timestamp[start], log.timestamp[stop - 1] + MILLISECOND)
    else:
        span = Period(history.cutoff, length.shift(history.cutoff, 1))
        if span.end > end:
            return None
        stop = event_position(log, user, span.end)
    return Target(log, history.catalog, start, stop, span)


def split_into_ticks(history: History) -> tuple[TimeArray, IntArray]:
    """Cut a history into ticks, which are finer than periods, from that of its first event on.

    A calendar period has `TICKS_PER_PERIOD` equal ticks; with periods of events every event is one.
    A tick that is running at the cutoff is left out until it holds an event.

    Returns
    -------
    starts, offsets
        (n_ticks,) times, and (n_ticks + 1,): events of tick ``t`` are the log positions
        ``offsets[t]:offsets[t + 1]``. No tick if there is no event.
    """
    log, events, length = history.log, history.event_ids, history.period_length
    if length.unit == "events" or not events:
        offsets = np.arange(events.start, events.stop + 1)
        return log.timestamp[offsets[:-1]], offsets
    edges = divide_periods(history.bounds, length, TICKS_PER_PERIOD)
    offsets = np.minimum(_positions(log, history.user_idx, edges), events.stop)
    n = int(np.count_nonzero(edges[1:] <= history.cutoff))
    n += offsets[n] < events.stop
    first = int(np.argmax(np.diff(offsets) > 0))
    return edges[first:n], offsets[first : n + 1]


def truncate_log(log: Interactions, cutoff: TimeLike) -> Interactions:
    """Give the log as it was just before a cutoff; DataError if it was empty."""
    return log.drop_events({"at or after the cutoff": log.timestamp >= to_datetime64(cutoff)})


def _positions(log: Interactions, user: int, times: TimeArray) -> IntArray:
    """(n_times,) log position of the user's first event at or after each time."""
    first, last = log.user_offsets[user : user + 2]
    return np.asarray(first + np.searchsorted(log.timestamp[first:last], times), dtype=np.int64)


def event_position(log: Interactions, user: int, time: np.datetime64) -> int:
    """Give the log position of the user's first event at or after a time."""
    return int(_positions(log, user, np.array([time]))[0])


def make_event_history(
    log: Interactions,
    catalog: Catalog,
    length: PeriodLength,
    user: int,
    stop: int,
    cutoff: np.datetime64,
    verb: str = "taken",
    population: Population | None = None,
) -> History:
    """Give a history of periods of n events up to position ``stop``; the newest may be shorter."""
    first = int(log.user_offsets[user])
    offsets = np.append(np.arange(first, max(stop, first + 1), length.n), stop)
    # A user without an event before the cutoff has one empty period, which starts and ends there.
    starts = log.timestamp[offsets[:-1]] if stop > first else np.array([cutoff])
    bounds = np.append(starts, cutoff)
    return History(log, catalog, user, offsets, bounds, cutoff, length, verb, population)


def __getattr__(name: str) -> Any:
    if name == "make_windows":
        raise ImportError(f"{__name__}.{name} of version 0.1 is {MOVED_NAMES[name]}: import that")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
