"""What a person had taken and then took, beside what was forecast, as plain values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from llmrec.data.calendar import MILLISECOND
from llmrec.data.dataset import Dataset
from llmrec.data.ids import find_id
from llmrec.data.periods import (
    History,
    Window,
    make_event_history,
    make_histories,
    observed_windows,
)
from llmrec.evaluation.track_record import realized_statements
from llmrec.explain.evidence import distinct_evidence, format_day, to_date
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.session import UserSession
from llmrec.types import FloatArray

MAX_PAST_ITEMS = 12


@dataclass(frozen=True)
class PastItem:
    """Something that the person took: the newest day of it."""

    item_id: str
    title: str
    day: str


@dataclass(frozen=True)
class StatementView:
    """A statement of the forecast, and whether it came true; None where that is not known."""

    text: str
    came_true: bool | None


@dataclass(frozen=True)
class HindsightView:
    """What happened in the period that was forecast.

    Attributes
    ----------
    days
        The period's first and last day.
    taken
        The items of the period, the first one first.
    hits
        Ids of these that are on the list.
    n_inside, n_intervals
        How many of the shown categories were taken as often as their 80 % interval says, of how
        many.
    """

    days: str
    n_events: int
    taken: tuple[PastItem, ...]
    hits: frozenset[str]
    n_inside: int
    n_intervals: int

    @classmethod
    def of(cls, window: Window, listed: Collection[str], inside: Collection[bool]) -> HindsightView:
        """Compare with the ids of a list, and with which of some intervals hold their count."""
        target, catalog = window.target, window.target.catalog
        times = target.log.timestamp[target.start : target.stop]
        events = [
            PastItem(catalog.ids[item], catalog.titles[item], format_day(to_date(time)))
            for item, time in zip(target.item_idx.tolist(), times, strict=True)
        ]
        taken = {one.item_id: one for one in reversed(events)}
        first, last = to_date(target.period.start), to_date(target.period.end - MILLISECOND)
        days = [format_day(first), format_day(last)]
        return cls(
            days=" to ".join(dict.fromkeys(days)),
            n_events=target.n_events,
            taken=tuple(reversed(taken.values())),
            hits=frozenset(listed) & taken.keys(),
            n_inside=sum(inside),
            n_intervals=len(inside),
        )


def find_window(whole: Dataset, history: History) -> Window | None:
    """Give the period after a history's cutoff from a log that goes on; None if it has not passed.

    The log's items are those of the history's catalog; what the person took besides is left out.
    """
    log = whole.log.align_to(history.catalog)
    user = find_id(log.user_ids, history.user_id)
    if user < 0:
        return None
    length, verb = history.period_length, history.verb
    if length.unit == "events":
        stop = int(log.user_offsets[user]) + history.n_events
        rest = stop, history.cutoff, verb
        return observed_windows([make_event_history(log, history.catalog, length, user, *rest)])[0]
    again = make_histories(log, history.catalog, length, history.cutoff, [user], verb)
    return observed_windows(again)[0]


def past_items(history: History, also: Collection[str] = ()) -> tuple[PastItem, ...]:
    """Give the newest distinct items of a history, newest first, and older ones of some ids."""
    newest = distinct_evidence(list(reversed(history.event_ids)), history)
    shown = [one for n, one in enumerate(newest) if n < MAX_PAST_ITEMS or one.item_id in also]
    return tuple(PastItem(one.item_id, one.title, format_day(one.date)) for one in shown)


def statement_views(session: UserSession, window: Window | None) -> tuple[StatementView, ...]:
    """Give the forecast's statements; with the window, whether each came true."""
    history, forecast = session.history, session.forecast
    found = []
    for one in forecast.statements:
        true = [] if window is None else realized_statements(window, [one])
        text = statement_sentence(one, history, forecast)
        found.append(StatementView(text, true[0] if true else None))
    return tuple(found)


def observed_shares(window: Window) -> FloatArray | None:
    """(n_categories,) shares of the period; None if nothing of it has a category."""
    counts = window.target.category_counts
    return counts / counts.sum() if counts.any() else None
