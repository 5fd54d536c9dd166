"""The events that claims point at, and numbers and dates as they are written."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.contracts import FloatArray, IntArray
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History, PeriodLength

TITLE_IN_SENTENCE = 60  # a sentence stays readable with two titles of this length
EVENTS_SHOWN = 3


@dataclass(frozen=True)
class Evidence:
    """One event of the history that a claim points at; ``event_id`` is its log position."""

    event_id: int
    item_id: str
    title: str
    date: datetime.date

    def __str__(self) -> str:
        """Title and day: "Cola on 12 Nov 2017"."""
        return f"{clean_text(self.title, TITLE_IN_SENTENCE)} on {day(self.date)}"


def evidence_for(
    category: int, history: History, limit: int = EVENTS_SHOWN
) -> tuple[Evidence, ...]:
    """Events of a category, newest first; further events of the same item come after all items."""
    events = events_of(category, history)
    _, first = np.unique(history.log.item_idx[events], return_index=True)
    repeats = np.ones(len(events), dtype=np.bool_)
    repeats[first] = False
    distinct_first = events[np.argsort(repeats, kind="stable")]
    return cited(distinct_first[:limit].tolist(), history)


def cited(event_ids: Sequence[int], history: History) -> tuple[Evidence, ...]:
    """Cite the events at these log positions."""
    return tuple(_evidence(event, history) for event in event_ids)


def evidence_at(event_ids: Sequence[int], history: History) -> tuple[Evidence, ...]:
    """Cite the first event of each distinct item among these log positions, in their order."""
    by_item: dict[int, Evidence] = {}
    for event in event_ids:
        by_item.setdefault(int(history.log.item_idx[event]), _evidence(event, history))
    return tuple(by_item.values())


def events_of(category: int, history: History) -> IntArray:
    """(n,) log positions of the history's events of a category, newest first."""
    shares = history.catalog.shares[history.item_idx][:, [category]].toarray()[:, 0]
    return np.flatnonzero(shares)[::-1] + int(history.offsets[0])


def past_shares(history: History) -> FloatArray:
    """(n_categories,) each category's share of all events; zeros for an empty history."""
    counts = history.category_counts.sum(axis=0)
    return np.asarray(counts / max(counts.sum(), 1), dtype=np.float64)


def listed(events: Sequence[Evidence]) -> str:
    """Write events in words; a day they share is said once: "Cola and Soda on 12 Nov 2017"."""
    if len({event.date for event in events}) > 1:
        return " and ".join(map(str, events))
    titles = [clean_text(event.title, TITLE_IN_SENTENCE) for event in events[:-1]]
    return " and ".join([*titles, str(events[-1])])


def percent(share: float) -> str:
    """Write a share as a percentage of two significant digits: "9.1%"."""
    value = 100 * share
    if 0 < value < 0.01:
        return "under 0.01%"
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.2g}%"


def day(date: datetime.date) -> str:
    """Write a date in words: "12 Nov 2017"."""
    return f"{date.day} {date:%b %Y}"


def day_of(time: np.datetime64) -> datetime.date:
    """Give the (UTC) day of a time."""
    date: datetime.date = time.astype("datetime64[D]").item()
    return date


def horizon(length: PeriodLength) -> str:
    """Write a period length as it follows "the next": "28 days", "month"."""
    return str(length) if length.n > 1 else str(length).removeprefix("1 ")


def _evidence(event: int, history: History) -> Evidence:
    item = int(history.log.item_idx[event])
    return Evidence(
        event_id=event,
        item_id=str(history.catalog.item_ids[item]),
        title=history.catalog.titles[item],
        date=day_of(history.log.timestamp[event]),
    )
