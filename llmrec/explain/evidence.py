"""Why an item stands where it stands: what it scored, and the events behind it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from llmrec.contracts import FloatArray, Forecast, IntArray
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History, PeriodLength

if TYPE_CHECKING:
    from llmrec.ranking.tilt import Ranking

TITLE_IN_SENTENCE = 60  # a sentence stays readable with two titles of this length
CATEGORIES_IN_SENTENCE = 2
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


@dataclass(frozen=True)
class ItemExplanation:
    """Everything behind one position of a ranking.

    Attributes
    ----------
    rank
        1-based.
    score
        The sum of all ``scorer_parts`` and ``category_parts``, to 1e-9.
    scorer_parts
        Scorer name to its part of the score.
    category_parts
        Category name to the part that the forecast's tilt adds.
    forecast_shares, past_shares
        Share of each of the item's categories: forecast, and over the whole history; largest
        forecast first.
    times_taken, last_taken
        How often the history holds this very item, and the day of the last time.
    evidence
        Events of the item, newest first; if there are none, events of its categories.
    horizon
        What the forecast is about: "28 days".
    """

    item_id: str
    title: str
    rank: int
    score: float
    scorer_parts: Mapping[str, float]
    category_parts: Mapping[str, float]
    forecast_shares: Mapping[str, float]
    past_shares: Mapping[str, float]
    times_taken: int
    last_taken: datetime.date | None
    evidence: tuple[Evidence, ...]
    horizon: str

    @property
    def text(self) -> str:
        """One to three sentences that say only what is in the numbers (plain text, no markup)."""
        parts = (self._past_sentence(), self._forecast_sentence(), self._scorers_sentence())
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields and the text, ready for JSON; days are ISO strings."""
        fields = asdict(self)
        fields["last_taken"] = self.last_taken and self.last_taken.isoformat()
        fields["evidence"] = [
            {**event, "date": event["date"].isoformat()} for event in fields["evidence"]
        ]
        return {**fields, "text": self.text}

    def _past_sentence(self) -> str:
        if self.last_taken is not None:
            if self.times_taken == 1:
                return f"Taken once before, on {day(self.last_taken)}."
            return f"Taken {self.times_taken} times before, last on {day(self.last_taken)}."
        if self.evidence:
            category = next(name for name, share in self.past_shares.items() if share > 0)
            return f"Not taken before; the latest of {category}: {self.evidence[0]}."
        return "Neither it nor anything of its categories was taken before."

    def _forecast_sentence(self) -> str:
        if not self.forecast_shares:
            return ""
        named = list(self.forecast_shares)[:CATEGORIES_IN_SENTENCE]
        shares = [
            f"{percent(self.forecast_shares[name])} ({percent(self.past_shares[name])} so far)"
            for name in named
        ]
        subject = "Its category" if len(self.forecast_shares) == 1 else "Of its categories,"
        verb = "is" if len(named) == 1 else "are"
        sentence = (
            f"{subject} {' and '.join(named)} {verb} forecast at {' and '.join(shares)} "
            f"for the next {self.horizon}"
        )
        tilt = sum(self.category_parts.values())
        if not tilt:
            return f"{sentence}."
        direction = "lifts" if tilt > 0 else "lowers"
        return f"{sentence}; the forecast {direction} its score by {abs(tilt):.2g}."

    def _scorers_sentence(self) -> str:
        if any(self.category_parts.values()):
            return ""
        scorers = ", ".join(self.scorer_parts)
        reason = "The forecast adds nothing to its score" if self.forecast_shares else "No category"
        return f"{reason}: its rank rests on the scorers ({scorers})."


def explain_item(
    ranking: Ranking, position: int, history: History, forecast: Forecast
) -> ItemExplanation:
    """Explain one position (0-based) of a ranking.

    ``forecast`` is the one that was ranked by: where there are edits, after them.

    Raises
    ------
    ValueError
        If the ranking has no such position.
    """
    if not 0 <= position < len(ranking.item_idx):
        raise ValueError(f"position {position} is outside a ranking of {len(ranking.item_idx)}")
    catalog, item = history.catalog, int(ranking.item_idx[position])
    names, past, ahead = catalog.categories, past_shares(history), forecast.category_weights
    tilts = _row(ranking.category_parts, position)
    about = sorted(_row(catalog.shares, item), key=lambda category: -ahead[category])
    same = [event for event in history.event_ids[::-1] if history.log.item_idx[event] == item]
    evidence = tuple(_evidence(event, history) for event in same[:EVENTS_SHOWN])
    nearest = (evidence_for(category, history) for category in about)
    return ItemExplanation(
        item_id=str(catalog.item_ids[item]),
        title=catalog.titles[item],
        rank=position + 1,
        score=float(ranking.scores[position]),
        scorer_parts=dict(
            zip(ranking.scorer_names, ranking.scorer_parts[position].tolist(), strict=True)
        ),
        category_parts={names[category]: part for category, part in tilts.items()},
        forecast_shares={names[category]: float(ahead[category]) for category in about},
        past_shares={names[category]: float(past[category]) for category in about},
        times_taken=len(same),
        last_taken=evidence[0].date if evidence else None,
        evidence=evidence or next((events for events in nearest if events), ()),
        horizon=horizon(history.length),
    )


def evidence_for(
    category: int, history: History, limit: int = EVENTS_SHOWN
) -> tuple[Evidence, ...]:
    """Events of a category, newest first; further events of the same item come after all items."""
    events = events_of(category, history)
    _, first = np.unique(history.log.item_idx[events], return_index=True)
    repeats = np.ones(len(events), dtype=np.bool_)
    repeats[first] = False
    distinct_first = events[np.argsort(repeats, kind="stable")]
    return tuple(_evidence(int(event), history) for event in distinct_first[:limit])


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


def _row(matrix: sparse.csr_array, row: int) -> dict[int, float]:
    """Give the stored entries of one row, by column."""
    start, stop = matrix.indptr[row : row + 2]
    return dict(
        zip(matrix.indices[start:stop].tolist(), matrix.data[start:stop].tolist(), strict=True)
    )
