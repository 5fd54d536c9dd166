"""What a forecast claims in words, and the deterministic checker that every claim must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmrec.contracts import KINDS, FloatArray, Forecast, Kind, Statement
from llmrec.data.periods import History
from llmrec.explain.evidence import events_of, evidence_at, listed, past_shares, percent

BoolArray = npt.NDArray[np.bool_]
LEAST_CHANGE = 0.01  # one point of a hundred; or one category's even share where that is less
LEAST_RELATIVE_CHANGE = 0.15  # 30% to 32% is a wobble, 5% to 6% is not
LEAST_SHARE = 0.01  # a forecast arrival must be more than a rounding error of a smoothed forecast
LEAST_PRESENCE = 0.5  # what holds steady was there in every other period at least
ABSENT_PERIODS = 2  # one period without is chance, two are a pause
CHANGE_TOLERANCE = 0.005  # half a point: what rounding to whole percents loses
EVENTS_CITED = 5
TITLES_IN_SENTENCE = 2


@dataclass(frozen=True, eq=False)
class _Facts:
    """All that statements are judged by; arrays are (n_categories,) unless said otherwise."""

    past: FloatArray
    ahead: FloatArray
    trend: FloatArray  # share in the recent half of the non-empty periods minus in the earlier
    periods_with: npt.NDArray[np.int64]
    absent_lately: BoolArray
    n_periods: int  # non-empty ones
    noise: FloatArray  # standard deviation of (ahead - past)

    @classmethod
    def of(cls, history: History, forecast: Forecast) -> _Facts:
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        past, ahead = past_shares(history), forecast.category_weights
        earlier, recent = np.split(counts, [len(counts) // 2])
        variance = past * (1 - past) / max(history.n_events, 1)
        variance = variance + ahead * (1 - ahead) / (forecast.concentration + 1)
        return cls(
            past=past,
            ahead=ahead,
            trend=_shares(recent) - _shares(earlier),
            periods_with=np.count_nonzero(counts, axis=0),
            absent_lately=~counts[-ABSENT_PERIODS:].any(axis=0),
            n_periods=len(counts),
            noise=np.sqrt(np.maximum(variance, 1e-12)),
        )

    @property
    def change(self) -> FloatArray:
        return self.ahead - self.past

    @property
    def least(self) -> FloatArray:
        smallest = min(LEAST_CHANGE, 1 / len(self.past))
        return np.maximum(smallest, LEAST_RELATIVE_CHANGE * self.past)

    def conditions(self, kind: Kind) -> tuple[tuple[BoolArray, str], ...]:
        """Each a (n_categories,) mask of where it holds, and what is wrong where it does not."""
        size = len(self.past)
        taken = (self.periods_with > 0, "it was never taken")
        compared = (np.full(size, self.n_periods >= 2), "two non-empty periods are needed")
        arrives = max(LEAST_SHARE, 1 / size) if kind == "new" else LEAST_SHARE
        forecast = (self.ahead >= arrives, f"less than {percent(arrives)} is forecast")
        rules: dict[Kind, tuple[tuple[BoolArray, str], ...]] = {
            "rising": (
                (self.change >= self.least, "the forecast is not clearly above the past"),
                (self.trend >= 0, "its share fell within the history"),
                (~self.absent_lately, "it was not taken in the last two non-empty periods"),
                taken,
                compared,
            ),
            "fading": (
                (self.change <= -self.least, "the forecast is not clearly below the past"),
                (self.trend <= 0, "its share rose within the history"),
                compared,
            ),
            "steady": (
                (np.abs(self.change) < self.least, "the forecast clearly leaves the past"),
                (
                    (self.periods_with >= LEAST_PRESENCE * self.n_periods) & taken[0],
                    "it is missing from more than half of the non-empty periods",
                ),
            ),
            "new": ((~taken[0], "it was taken before"), forecast),
            "returning": (
                taken,
                (self.absent_lately, "it was taken in the last two non-empty periods"),
                compared,
                forecast,
            ),
        }
        return rules[kind]

    def supports(self, kind: Kind) -> BoolArray:
        """(n_categories,) where a statement of this kind is true."""
        masks = np.stack([mask for mask, _ in self.conditions(kind)])
        return np.asarray(masks.all(axis=0), dtype=np.bool_)


def moves(history: History, forecast: Forecast) -> npt.NDArray[np.int64]:
    """(n_categories,) 1 where the forecast is clearly above the past, -1 clearly below, else 0."""
    facts = _Facts.of(history, forecast)
    return np.where(np.abs(facts.change) >= facts.least, np.sign(facts.change), 0).astype(np.int64)


def check(statement: Statement, history: History, forecast: Forecast) -> str | None:
    """Say in words what history and forecast do not support; None if they support all of it."""
    return _check(statement, history, _Facts.of(history, forecast))


def claim(kind: Kind, category: int, history: History, forecast: Forecast) -> Statement:
    """Make a statement with its true change and newest events; `check` says if it is true."""
    change = float(forecast.category_weights[category] - past_shares(history)[category])
    events = events_of(category, history)[:EVENTS_CITED]
    return Statement(kind, category, change, tuple(events.tolist()))


def derive(history: History, forecast: Forecast, *, limit: int = 4) -> tuple[Statement, ...]:
    """Give the most telling true statements, one a category at most.

    They are ordered by change relative to its noise (steady ones last, by share); the first rising
    and the first fading one are in, if there are such and the limit allows.
    """
    facts = _Facts.of(history, forecast)
    telling = np.abs(facts.change) / facts.noise

    def order(found: tuple[Kind, int]) -> tuple[float, float, int]:
        kind, category = found
        weight = 0.0 if kind == "steady" else float(telling[category])
        return -weight, -float(facts.ahead[category]), -KINDS.index(kind)

    true = [(kind, int(c)) for kind in KINDS for c in np.flatnonzero(facts.supports(kind))]
    true.sort(key=order)
    chosen: dict[int, Kind] = {}
    for wanted in ("rising", "fading"):
        for kind, category in [found for found in true if found[0] == wanted][:1]:
            chosen[category] = kind
    for kind, category in true:
        if len(chosen) >= limit:
            break
        chosen.setdefault(category, kind)
    best = sorted(((kind, category) for category, kind in chosen.items()), key=order)[:limit]
    return tuple(claim(kind, category, history, forecast) for kind, category in best)


def reviewed(
    claims: Sequence[tuple[Kind, int]], history: History, forecast: Forecast
) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """Check what a model wrote: the accepted statements, and a reason for each rejected claim."""
    facts = _Facts.of(history, forecast)
    accepted: dict[int, Statement] = {}
    rejected = []
    for kind, category in claims:
        statement = Statement(kind, category, 0.0)
        if 0 <= category < len(facts.past):
            statement = claim(kind, category, history, forecast)
        reason = _check(statement, history, facts)
        if reason is None and category in accepted:
            reason = f"{history.catalog.categories[category]}: said twice"
        if reason is None:
            accepted[category] = statement
        else:
            rejected.append(reason)
    return tuple(accepted.values()), tuple(rejected)


def sentence(statement: Statement, history: History, forecast: Forecast) -> str:
    """Write a statement as one plain-text sentence with its numbers and its newest evidence."""
    facts, category = _Facts.of(history, forecast), statement.category
    name, ahead = history.catalog.categories[category], percent(facts.ahead[category])
    past = percent(facts.past[category])
    if statement.kind == "new":
        return f"Interest in {name} would be new: {ahead} forecast, never taken so far."
    cited = evidence_at(statement.event_ids, history)[:TITLES_IN_SENTENCE]
    latest = f" (latest: {listed(cited)})" if cited else ""
    if statement.kind == "returning":
        lately = f"none in the last {ABSENT_PERIODS} active periods"
        return f"Interest in {name} returns: {ahead} forecast after {lately}{latest}."
    if statement.kind == "steady":
        seen = f"taken in {facts.periods_with[category]} of {facts.n_periods} active periods"
        return f"Interest in {name} is steady: {ahead} forecast, {past} so far, {seen}{latest}."
    moves = f"is {statement.kind}: {ahead} forecast against {past} so far"
    return f"Interest in {name} {moves}{latest}."


def _check(statement: Statement, history: History, facts: _Facts) -> str | None:
    kind, category, names = statement.kind, statement.category, history.catalog.categories
    if not 0 <= category < len(names):
        return f"category {category} is not one of the catalog's {len(names)}"
    if kind not in KINDS:
        return f"{names[category]}: {kind!r} is no kind of statement ({', '.join(KINDS)})"
    shares = f"{percent(facts.ahead[category])} forecast, {percent(facts.past[category])} so far"
    for holds, otherwise in facts.conditions(kind):
        if not holds[category]:
            return f"{names[category]} is not {kind}: {otherwise} ({shares})"
    if not abs(statement.change - facts.change[category]) <= CHANGE_TOLERANCE:
        true = f"{facts.change[category]:+.4f}"
        return f"{names[category]}: the change is {true}, not {statement.change:+.4f} ({shares})"
    return _check_evidence(statement, history)


def _check_evidence(statement: Statement, history: History) -> str | None:
    name, cited = history.catalog.categories[statement.category], statement.event_ids
    if statement.kind == "new":
        return f"{name}: what was never taken has no events to cite" if cited else None
    if not cited:
        return f"{name}: no event is cited"
    if len(set(cited)) < len(cited):
        return f"{name}: an event is cited twice"
    own = set(events_of(statement.category, history).tolist())
    for event in cited:
        if event not in history.event_ids:
            return f"{name}: event {event} is not in the history of user {history.user_id!r}"
        if event not in own:
            return f"{name}: event {event} is of another category"
    return None


def _shares(counts: FloatArray) -> FloatArray:
    """(n_categories,) shares of (n_periods, n_categories) counts; zeros if there are none."""
    totals = counts.sum(axis=0)
    return np.asarray(totals / (totals.sum() or 1.0), dtype=np.float64)
