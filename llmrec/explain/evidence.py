"""Events of a history that statements and reasons cite."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from llmrec.data.calendar import MILLISECOND
from llmrec.data.names import clean_text
from llmrec.data.periods import History
from llmrec.explain.facts import format_horizon
from llmrec.types import IntArray

MAX_SENTENCE_TITLE_LENGTH = 60  # a sentence stays readable with two titles of this length
MAX_EVENTS_SHOWN = 3


@dataclass(frozen=True)
class Evidence:
    """An event of the history that a claim cites; ``event_id`` is its log position."""

    event_id: int
    item_id: str
    title: str
    date: datetime.date

    def __str__(self) -> str:
        """Title and day: "Cola on 12 Nov 2017"."""
        return f"{clean_text(self.title, MAX_SENTENCE_TITLE_LENGTH)} on {format_day(self.date)}"


def category_evidence(
    category: int, history: History, limit: int = MAX_EVENTS_SHOWN
) -> tuple[Evidence, ...]:
    """Cite events of a category, newest first; further events of an item come after all items."""
    events = category_event_ids(category, history)
    _, first = np.unique(history.log.item_idx[events], return_index=True)
    repeats = np.ones(len(events), dtype=np.bool_)
    repeats[first] = False
    distinct_first = events[np.argsort(repeats, kind="stable")]
    return cite_events(distinct_first[:limit].tolist(), history)


def cite_events(event_ids: Sequence[int], history: History) -> tuple[Evidence, ...]:
    """Cite the events at these log positions."""
    return tuple(_cite_event(event, history) for event in event_ids)


def parse_evidence(rows: Sequence[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    """Make events of their fields as JSON has them."""
    return tuple(
        Evidence(**{**row, "date": datetime.date.fromisoformat(row["date"])}) for row in rows
    )


def distinct_evidence(event_ids: Sequence[int], history: History) -> tuple[Evidence, ...]:
    """Cite the first event of each distinct item among these log positions, in their order."""
    by_item: dict[int, Evidence] = {}
    for event in event_ids:
        by_item.setdefault(int(history.log.item_idx[event]), _cite_event(event, history))
    return tuple(by_item.values())


def join_evidence(events: Sequence[Evidence]) -> str:
    """Join events to text; a day they share is written once: "Cola and Soda on 12 Nov 2017"."""
    if len({event.date for event in events}) > 1:
        return " and ".join(map(str, events))
    titles = [clean_text(event.title, MAX_SENTENCE_TITLE_LENGTH) for event in events[:-1]]
    return " and ".join([*titles, str(events[-1])])


def category_event_ids(category: int, history: History) -> IntArray:
    """(n,) log positions of the history's events of a category, newest first."""
    categories, events = _events_by_category(history)
    some = slice(*np.searchsorted(categories, (category, category + 1)).tolist())
    return events[some][::-1] + int(history.offsets[0])


def format_day(date: datetime.date) -> str:
    """Format a date: "12 Nov 2017"."""
    return f"{date.day} {date:%b %Y}"


def format_period_ahead(history: History, horizon: int = 1) -> str:
    """Name the period that a forecast is of, as it follows "forecast of": "the next 28 days".

    Later ones have their first and last day, or with periods of events the numbers of theirs.
    """
    length = history.period_length
    if horizon == 1:
        return f"the next {format_horizon(length)}"
    if length.unit == "events":
        last = length.n * horizon
        return f"events {last - length.n + 1} to {last} from then on"
    period = length.ahead(history.cutoff, horizon)
    first, last_day = to_date(period.start), to_date(period.end - MILLISECOND)
    return f"the period from {format_day(first)} to {format_day(last_day)}"


def to_date(time: np.datetime64) -> datetime.date:
    """Give the (UTC) day of a time."""
    date: datetime.date = time.astype("datetime64[D]").item()
    return date


def _events_by_category(history: History) -> tuple[IntArray, IntArray]:
    """Categories of the history's events, ascending, and the event of each (0: the oldest).

    An event is there once for each of its categories. They are stored with the history.
    """
    if history not in _EVENTS:
        shares = history.catalog.category_shares[history.item_idx]
        events = np.repeat(np.arange(history.n_events), np.diff(shares.indptr))[shares.data > 0]
        categories = shares.indices[shares.data > 0]
        order = np.argsort(categories, kind="stable")
        _EVENTS[history] = categories[order], events[order]
    return _EVENTS[history]


def _cite_event(event: int, history: History) -> Evidence:
    item = int(history.log.item_idx[event])
    return Evidence(
        event_id=event,
        item_id=history.catalog.ids[item],
        title=history.catalog.titles[item],
        date=to_date(history.log.timestamp[event]),
    )


_EVENTS: WeakKeyDictionary[History, tuple[IntArray, IntArray]] = WeakKeyDictionary()
