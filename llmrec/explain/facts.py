"""Facts behind claims: cited events, numbers and dates as text, conditions of each kind."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy import sparse

from llmrec.data.calendar import PeriodLength
from llmrec.data.names import clean_text
from llmrec.data.periods import History, Window
from llmrec.errors import DataError
from llmrec.forecast import STATEMENT_KINDS, Forecast, Source, StatementKind
from llmrec.types import BoolArray, FloatArray, IntArray

MAX_SENTENCE_TITLE_LENGTH = 60  # a sentence stays readable with two titles of this length
MAX_EVENTS_SHOWN = 3
MIN_CHANGE = 0.01  # one percentage point; or one category's even share where that is less
MIN_RELATIVE_CHANGE = 0.15  # 30% to 32% is noise, 5% to 6% is a change
MIN_SHARE = 0.01  # of a forecast arrival: less is within the error of a smoothed forecast
MIN_PRESENCE = 0.5  # share of the periods that a steady category is in, at least
SITTING_GAP = np.timedelta64(30, "m")  # events no further apart belong to one sitting
MAX_CLAIMS = 4  # of a forecast line, and statements of a description


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
    taken = _category_columns(history)
    column = slice(*taken.indptr[category : category + 2].tolist())
    events = np.sort(taken.indices[column][taken.data[column] > 0])[::-1]
    return np.asarray(events, dtype=np.int64) + int(history.offsets[0])


def _category_columns(history: History) -> sparse.csc_array:
    """(n_events, n_categories) shares of the categories of each event, stored with the history."""
    if history not in _COLUMNS:
        _COLUMNS[history] = sparse.csc_array(history.catalog.category_shares[history.item_idx])
    return _COLUMNS[history]


def history_shares(history: History) -> FloatArray:
    """(n_categories,) each category's share of all events; zeros for an empty history."""
    counts = history.category_counts.sum(axis=0)
    return np.asarray(counts / max(counts.sum(), 1), dtype=np.float64)


def format_percent(share: float) -> str:
    """Format a share as a percentage of two significant digits: "9.1%"."""
    value = 100 * share
    if 0 < value < 0.01:
        return "under 0.01%"
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.2g}%"


def format_day(date: datetime.date) -> str:
    """Format a date: "12 Nov 2017"."""
    return f"{date.day} {date:%b %Y}"


def to_date(time: np.datetime64) -> datetime.date:
    """Give the (UTC) day of a time."""
    date: datetime.date = time.astype("datetime64[D]").item()
    return date


def format_horizon(length: PeriodLength) -> str:
    """Format a period length as it follows "the next": "28 days", "month"."""
    return str(length) if length.n > 1 else str(length).removeprefix("1 ")


@dataclass(frozen=True, eq=False)
class ClaimFacts:
    """The numbers that statements are checked against; arrays are (n_categories,)."""

    past: FloatArray  # share of all events
    expected: FloatArray  # share in the forecast
    trend: FloatArray  # share in the recent half of the non-empty periods minus in the earlier
    n_periods_with: npt.NDArray[np.int64]  # number of periods that it is in
    recently_absent: BoolArray
    in_last_sitting: BoolArray  # whether the newest events, no pause between them, hold it
    n_periods: int  # non-empty ones
    noise: FloatArray  # standard deviation of (expected - past)
    verb: str = "taken"

    @classmethod
    def of(cls, history: History, forecast: Forecast) -> ClaimFacts:
        """Compare a history with a forecast, or with `observed_forecast`; stored with these."""
        known = _FACTS.get(forecast)
        if known is None or known[0]() is not history:
            known = _FACTS[forecast] = ref(history), cls.compare(history, forecast)
        return known[1]

    @classmethod
    def compare(cls, history: History, forecast: Forecast) -> ClaimFacts:
        """Compute them."""
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        past, expected = history_shares(history), forecast.category_weights
        earlier, recent = np.split(counts, [len(counts) // 2])
        variance = past * (1 - past) / max(history.n_events, 1)
        variance = variance + expected * (1 - expected) / (forecast.concentration + 1)
        return cls(
            past=past,
            expected=expected,
            trend=_period_shares(recent) - _period_shares(earlier),
            n_periods_with=np.count_nonzero(counts, axis=0),
            recently_absent=history.recently_absent,
            in_last_sitting=_in_last_sitting(history),
            n_periods=len(counts),
            noise=np.sqrt(np.maximum(variance, 1e-12)),
            verb=history.verb,
        )

    @property
    def change(self) -> FloatArray:
        """Expected share minus past share."""
        return self.expected - self.past

    @property
    def min_change(self) -> FloatArray:
        """Smallest change that is more than noise."""
        smallest = min(MIN_CHANGE, 1 / len(self.past))
        return np.maximum(smallest, MIN_RELATIVE_CHANGE * self.past)

    def conditions(self, kind: StatementKind) -> tuple[tuple[BoolArray, str], ...]:
        """Conditions of a kind: (n_categories,) where each holds, and the reason if not."""
        size, verb = len(self.past), self.verb
        taken = (self.n_periods_with > 0, f"it was never {verb}")
        lately = f"{verb} in the last two non-empty periods"
        compared = (np.full(size, self.n_periods >= 2), "two non-empty periods are needed")
        arrives = max(MIN_SHARE, 1 / size) if kind == "new" else MIN_SHARE
        forecast = (self.expected >= arrives, f"less than {format_percent(arrives)} is forecast")
        rules: dict[StatementKind, tuple[tuple[BoolArray, str], ...]] = {
            "rising": (
                (self.change >= self.min_change, "the forecast is not clearly above the past"),
                (self.trend >= 0, "its share fell within the history"),
                (~self.recently_absent, f"it was not {lately}"),
                taken,
                compared,
            ),
            "fading": (
                (self.change <= -self.min_change, "the forecast is not clearly below the past"),
                (self.trend <= 0, "its share rose within the history"),
                compared,
            ),
            "steady": (
                (np.abs(self.change) < self.min_change, "the forecast clearly leaves the past"),
                (
                    (self.n_periods_with >= MIN_PRESENCE * self.n_periods) & taken[0],
                    "it is missing from more than half of the non-empty periods",
                ),
            ),
            "new": ((~taken[0], f"it was {verb} before"), forecast),
            "returning": (
                taken,
                (self.recently_absent, f"it was {lately}"),
                (~self.in_last_sitting, f"it was {verb} in the sitting of the newest event"),
                compared,
                forecast,
            ),
        }
        return rules[kind]

    def supported(self, kind: StatementKind) -> BoolArray:
        """(n_categories,) where a statement of this kind is true."""
        masks = np.stack([mask for mask, _ in self.conditions(kind)])
        return np.asarray(masks.all(axis=0), dtype=np.bool_)

    def top_claims(self, weight: FloatArray, limit: int) -> list[tuple[StatementKind, int]]:
        """Choose true (kind, category) claims: one a category, the kinds in turn.

        Each kind gives its claim of largest ``weight`` (n_categories,) in turn, rising and fading
        first, up to the limit. The claims are sorted by weight; steady ones are last, by share.
        """

        def order(claim: tuple[StatementKind, int]) -> tuple[float, float, int]:
            kind, category = claim
            size = 0.0 if kind == "steady" else float(weight[category])
            return -size, -float(self.expected[category]), -STATEMENT_KINDS.index(kind)

        true = [
            (kind, int(c)) for kind in STATEMENT_KINDS for c in np.flatnonzero(self.supported(kind))
        ]
        true.sort(key=order)
        turns: dict[tuple[StatementKind, int], tuple[int, bool]] = {}
        n_of_kind: Counter[StatementKind] = Counter()
        for kind, category in true:
            turns[kind, category] = (n_of_kind[kind], kind not in ("rising", "fading"))
            n_of_kind[kind] += 1
        chosen: dict[int, StatementKind] = {}
        for kind, category in sorted(true, key=turns.__getitem__):
            if len(chosen) < limit:
                chosen.setdefault(category, kind)
        return sorted(((kind, category) for category, kind in chosen.items()), key=order)


def observed_forecast(window: Window) -> Forecast:
    """Give the observed shares of the target as a forecast, as concentrated as it has events.

    Raises
    ------
    DataError
        If no event of the target has a category.
    """
    counts = window.target.category_counts
    if not counts.any():
        raise DataError(
            f"user {window.history.user_id!r}: no event of the period from "
            f"{window.target.period.start} has a category, so no claim is supported; leave the "
            "window out."
        )
    source = Source("observed", "counting")
    return Forecast(counts / counts.sum(), float(window.target.n_events), "", (), source)


def seeded_rng(*values: object) -> np.random.Generator:
    """Give a random generator seeded by these values alone."""
    return np.random.default_rng(crc32(repr([str(value) for value in values]).encode()))


def _cite_event(event: int, history: History) -> Evidence:
    item = int(history.log.item_idx[event])
    return Evidence(
        event_id=event,
        item_id=str(history.catalog.item_ids[item]),
        title=history.catalog.titles[item],
        date=to_date(history.log.timestamp[event]),
    )


def _in_last_sitting(history: History) -> BoolArray:
    """(n_categories,) whether it is among the newest events, back to the last longer pause."""
    times = history.log.timestamp[history.offsets[0] : history.offsets[-1]]
    pauses = np.flatnonzero(np.diff(times) > SITTING_GAP)
    items = history.item_idx[pauses[-1] + 1 if len(pauses) else 0 :]
    shares = history.catalog.category_shares[items]
    return np.asarray(shares.sum(axis=0) > 0, dtype=np.bool_).ravel()


def _period_shares(counts: FloatArray) -> FloatArray:
    """(n_categories,) shares of (n_periods, n_categories) counts; zeros if there are none."""
    totals = counts.sum(axis=0)
    return np.asarray(totals / (totals.sum() or 1.0), dtype=np.float64)


_COLUMNS: WeakKeyDictionary[History, sparse.csc_array] = WeakKeyDictionary()
_FACTS: WeakKeyDictionary[Forecast, tuple[ReferenceType[History], ClaimFacts]] = WeakKeyDictionary()
