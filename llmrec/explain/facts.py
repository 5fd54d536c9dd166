"""Facts behind claims: shares and how they are written, conditions of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import ReferenceType, WeakKeyDictionary, ref
from zlib import crc32

import numpy as np
import numpy.typing as npt

from llmrec.data.calendar import PeriodLength
from llmrec.data.periods import ABSENCE_PERIODS, History, Window
from llmrec.errors import DataError
from llmrec.forecast import (
    STATEMENT_KINDS,
    Forecast,
    Source,
    StatementChances,
    StatementKind,
)
from llmrec.forecasters.past_counts import PastCounts
from llmrec.forecasters.probability_words import format_probability
from llmrec.forecasters.statement_outcomes import statement_outcomes, where_applicable
from llmrec.forecasters.statement_probabilities import LEAST, choose_statements
from llmrec.types import BoolArray, FloatArray

MIN_CHANGE = 0.01  # one percentage point; or one category's even share where that is less
MIN_RELATIVE_CHANGE = 0.15  # 30% to 32% is noise, 5% to 6% is a change
MIN_SHARE = 0.01  # of a forecast arrival: less is within the error of a smoothed forecast
MIN_PRESENCE = 0.5  # share of the periods that a steady category is in, at least
SITTING_GAP = np.timedelta64(30, "m")  # events no further apart belong to one sitting
MAX_CLAIMS = 4  # of a forecast line, and statements of a description


def history_shares(history: History) -> FloatArray:
    """(n_categories,) each category's share of all events; zeros for an empty history."""
    return _all_shares(history.category_counts)


def format_percent(share: float) -> str:
    """Format a share as a percentage of two significant digits: "9.1%"."""
    value = 100 * share
    if 0 < value < 0.01:
        return "under 0.01%"
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.2g}%"


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
    chances: StatementChances | None = None  # None: the forecast has no `StatementModel`
    came_true: Mapping[StatementKind, BoolArray] | None = None  # where the period was observed

    @classmethod
    def of(cls, history: History, forecast: Forecast) -> ClaimFacts:
        """Compare a history with a forecast, or with `observed_forecast`; stored with these."""
        known = _FACTS.get(forecast)
        if known is None or known[0]() is not history:
            found = cls.compare(history, forecast)
            found.remember(history, forecast)
            return found
        return known[1]

    def remember(self, history: History, forecast: Forecast) -> None:
        """Let `of` give these for a forecast of the same weights, as long as it exists."""
        _FACTS[forecast] = ref(history), self

    @classmethod
    def compare(
        cls, history: History, forecast: Forecast, chances: StatementChances | None = None
    ) -> ClaimFacts:
        """Compute them; ``chances`` are those of the forecast's model, if they are known."""
        if chances is None and forecast.statement_model is not None:
            weights = forecast.category_weights[None]
            (chances,) = forecast.statement_model.chances([history], weights)
        counts = history.category_counts
        past, expected = _all_shares(counts), forecast.category_weights
        counts = counts[counts.sum(axis=1) > 0]
        earlier, recent = np.split(counts, [len(counts) // 2])
        variance = past * (1 - past) / max(history.n_events, 1)
        variance = variance + expected * (1 - expected) / (forecast.concentration + 1)
        return cls(
            past=past,
            expected=expected,
            trend=_period_shares(recent) - _period_shares(earlier),
            n_periods_with=np.count_nonzero(counts, axis=0),
            recently_absent=~counts[-ABSENCE_PERIODS:].any(axis=0),
            in_last_sitting=_in_last_sitting(history),
            n_periods=len(counts),
            noise=np.sqrt(np.maximum(variance, 1e-12)),
            verb=history.verb,
            chances=chances,
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
        """Conditions of a kind: (n_categories,) where each holds, and the reason if not.

        Where statements have probabilities, a kind is said of what is likely enough, and tells
        something; else of what the forecast's share says beside the past one, as in version 0.1.
        """
        if self.chances is not None:
            return self._conditions_of_chances(kind, self.chances)
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
        if kind in rules:
            return rules[kind]
        if self.came_true is not None:
            return ((self.came_true[kind], "it did not come true"),)
        return ((np.zeros(size, dtype=np.bool_), "nothing was fitted that gives its probability"),)

    def _conditions_of_chances(
        self, kind: StatementKind, chances: StatementChances
    ) -> tuple[tuple[BoolArray, str], ...]:
        size = len(self.past)
        if kind not in chances.usual_rates:
            reason = "it is not known how often such statements come true"
            return ((np.zeros(size, dtype=np.bool_), reason),)
        probability = chances.probabilities[kind]
        applicable = ~np.isnan(probability)
        likely = np.where(applicable, probability, 0) >= LEAST[kind]
        conditions = [
            (applicable, self._not_applicable(kind)),
            (likely, f"it is less likely than {format_probability(LEAST[kind])}"),
            (~np.isnan(chances.gains[kind]), "it tells no more than is known without it"),
        ]
        if kind == "returning":
            reason = f"it was {self.verb} in the sitting of the newest event"
            conditions.append((~self.in_last_sitting, reason))
        return tuple(conditions)

    def _not_applicable(self, kind: StatementKind) -> str:
        lately = f"{self.verb} in the last two non-empty periods"
        reasons: dict[StatementKind, str] = {
            "new": f"it was {self.verb} before",
            "again": f"it was not {lately}",
            "nothing of": f"it was never {self.verb}",
            "returning": f"it was never {self.verb}, or it was {lately}",
        }
        return reasons.get(kind, f"it was never {self.verb}, or in one non-empty period alone")

    def supported(self, kind: StatementKind) -> BoolArray:
        """(n_categories,) where a statement of this kind is true."""
        if kind not in self._masks:
            masks = [mask for mask, _ in self.conditions(kind)]
            self._masks[kind] = np.logical_and.reduce(masks)
        return self._masks[kind]

    @cached_property
    def _masks(self) -> dict[StatementKind, BoolArray]:
        return {}

    def chosen_claims(self, limit: int = MAX_CLAIMS) -> list[tuple[StatementKind, int]]:
        """Choose what to say: (kind, category) claims, one a category, what tells most first.

        Without probabilities these are the changes that are largest beside their noise.
        """
        if self.chances is None:
            return self.top_claims(np.abs(self.change) / self.noise, limit)
        gains = dict(self.chances.gains)
        for kind in self.chances.usual_rates:
            gains[kind] = np.where(self.supported(kind), gains[kind], np.nan)
        chosen = choose_statements(replace(self.chances, gains=gains))
        return [(one.kind, one.category) for one in chosen[:limit]]

    def best_claim(self, category: int) -> StatementKind | None:
        """Give the kind of statement about a category that tells most; None: nothing is said."""
        kinds = [kind for kind in STATEMENT_KINDS if self.supported(kind)[category]]
        if not kinds or self.chances is None:
            return kinds[0] if kinds else None
        gains = self.chances.gains
        return max(kinds, key=lambda kind: float(gains[kind][category]))

    def top_claims(self, weight: FloatArray, limit: int) -> list[tuple[StatementKind, int]]:
        """Choose supported (kind, category) claims: one a category, the kinds in turn.

        Each kind gives its claim of largest ``weight`` (n_categories,) in turn, rising and fading
        first, up to the limit. The claims are sorted by weight.
        """

        def order(claim: tuple[StatementKind, int]) -> tuple[float, float, int]:
            kind, category = claim
            share = float(self.expected[category])
            return -float(weight[category]), -share, -STATEMENT_KINDS.index(kind)

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


def compare_many(histories: Sequence[History], forecasts: Sequence[Forecast]) -> list[ClaimFacts]:
    """Compare many people's histories with their forecasts; one model's probabilities at once."""
    chances: list[StatementChances | None] = [None] * len(histories)
    models = {forecast.statement_model for forecast in forecasts} - {None}
    for model in models:
        places = [i for i, one in enumerate(forecasts) if one.statement_model is model]
        weights = np.stack([forecasts[i].category_weights for i in places])
        assert model is not None
        found = model.chances([histories[i] for i in places], weights)
        for place, one in zip(places, found, strict=True):
            chances[place] = one
    return [
        ClaimFacts.compare(*triple) for triple in zip(histories, forecasts, chances, strict=True)
    ]


def statements_that_came_true(window: Window) -> dict[StatementKind, BoolArray]:
    """(n_categories,) of which categories a statement can be made, and the target makes it true."""
    past, target = PastCounts.of([window.history]), window.target.category_counts[None]
    outcomes, applicable = statement_outcomes(past, target), where_applicable(past)
    return {kind: (true & applicable[kind])[0] for kind, true in outcomes.items()}


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


def _in_last_sitting(history: History) -> BoolArray:
    """(n_categories,) whether it is among the newest events, back to the last longer pause."""
    times = history.log.timestamp[history.offsets[0] : history.offsets[-1]]
    pauses = np.flatnonzero(np.diff(times) > SITTING_GAP)
    items = history.item_idx[pauses[-1] + 1 if len(pauses) else 0 :]
    shares = history.catalog.category_shares[items]
    return np.asarray(shares.sum(axis=0) > 0, dtype=np.bool_).ravel()


def _all_shares(counts: FloatArray) -> FloatArray:
    """(n_categories,) shares of (n_periods, n_categories) counts, of one event at least."""
    totals = counts.sum(axis=0)
    return np.asarray(totals / max(totals.sum(), 1), dtype=np.float64)


def _period_shares(counts: FloatArray) -> FloatArray:
    """(n_categories,) shares of (n_periods, n_categories) counts; zeros if there are none."""
    totals = counts.sum(axis=0)
    return np.asarray(totals / (totals.sum() or 1.0), dtype=np.float64)


_FACTS: WeakKeyDictionary[Forecast, tuple[ReferenceType[History], ClaimFacts]] = WeakKeyDictionary()
