"""What people took by category and age, and what everybody took: the raw numbers of cells.

A cell is a person and a category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from llmrec.data.calendar import DAY, MILLISECOND, PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.counts import event_ages, normalize_rows, row_shares, shared_population
from llmrec.data.periods import TICKS_PER_PERIOD, History
from llmrec.data.population import Population
from llmrec.types import FloatArray, IntArray, TimeArray

HALF_LIVES = (0.3, 1.0, 3.0, 10.0, np.inf)  # of an event's weight, in periods
DAYS_PER_MONTH = 365.25 / 12
N_AGES = 12  # periods whose population mixes are told apart; what is older is one
MIN_MIX_EVENTS, MAX_MIX_EVENTS = 50, 2_000  # that a population mix counts as, so many or so few
MIX_PSEUDO_EVENTS = 0.3  # of each category, in a population mix
OVERALL_PSEUDO_EVENTS = 50.0  # of the overall mix, in that of one period
NEVER = 1e3  # periods since what a person never took


@dataclass(frozen=True, eq=False)
class CategoryEvents:
    """Events of histories, once for each of their categories.

    Attributes
    ----------
    rows, categories
        (n,) history and category of each.
    shares
        (n,) the item's share of the category, in (0, 1].
    ages, period_ages
        (n,) time from the event to the cutoff in periods, > 0, and the age of its period (0: the
        newest).
    n_histories, n_categories
        How many there are.
    """

    rows: IntArray
    categories: IntArray
    shares: FloatArray
    ages: FloatArray
    period_ages: IntArray
    n_histories: int
    n_categories: int

    @classmethod
    def of(cls, histories: Sequence[History]) -> CategoryEvents:
        """List the events of histories of one catalog; at least one history."""
        catalog = histories[0].catalog
        rows, period_ages, items = event_ages(histories)
        ages = np.concatenate([_ages(history) for history in histories])
        entry, event = _category_entries(catalog, items)
        shares = catalog.category_shares
        return cls(
            rows[event],
            shares.indices[entry].astype(np.int64),
            shares.data[entry],
            ages[event],
            period_ages[event],
            len(histories),
            catalog.n_categories,
        )

    def sums(self, weights: FloatArray) -> FloatArray:
        """(n_histories, n_categories) sums of (n,) weights."""
        return self.sums_by(self.categories, self.n_categories, weights)

    def sums_by(self, columns: IntArray, n_columns: int, weights: FloatArray) -> FloatArray:
        """(n_histories, n_columns) sums of (n,) weights by columns of 0..n_columns-1."""
        cells = self.rows * n_columns + columns
        sums = np.bincount(cells, weights, minlength=self.n_histories * n_columns)
        return np.asarray(sums.reshape(self.n_histories, n_columns))

    def decayed(self, half_life: float) -> FloatArray:
        """(n_histories, n_categories) counts in which an event of that age counts half."""
        return self.sums(self.shares * np.exp2(-self.ages / half_life))

    def since_last(self) -> FloatArray:
        """(n_histories, n_categories) periods since the newest event, `NEVER` without one."""
        last = np.full(self.n_histories * self.n_categories, NEVER)
        np.minimum.at(last, self.rows * self.n_categories + self.categories, self.ages)
        return last.reshape(self.n_histories, self.n_categories)

    def active_periods(self) -> tuple[FloatArray, FloatArray]:
        """(n_histories, n_categories) periods that hold a category, (n_histories,) that hold any.

        An event without a category is none here.
        """
        longest = int(self.period_ages.max(initial=0)) + 1
        key = (self.rows * self.n_categories + self.categories) * longest + self.period_ages
        cell = np.unique(key) // longest
        holding = np.bincount(cell, minlength=self.n_histories * self.n_categories)
        any_key = np.unique(self.rows * longest + self.period_ages) // longest
        active = np.bincount(any_key, minlength=self.n_histories)
        shape = (self.n_histories, self.n_categories)
        return holding.reshape(shape).astype(np.float64), active.astype(np.float64)

    def first_period_ages(self) -> IntArray:
        """(n_histories,) age of each person's first period with an event; 0 without one."""
        first = np.zeros(self.n_histories, dtype=np.int64)
        np.maximum.at(first, self.rows, self.period_ages)
        return first

    def period_shares(self, age: int) -> sparse.csr_array:
        """(n_histories, n_categories) shares of the period of one age; 0 where it is empty."""
        kept = self.period_ages == age
        where = (self.rows[kept], self.categories[kept])
        shape = (self.n_histories, self.n_categories)
        counts = sparse.csr_array((self.shares[kept], where), shape)
        totals = np.asarray(counts.sum(axis=1)).ravel()
        scale = sparse.dia_array(
            (1 / np.where(totals > 0, totals, 1.0)[None], [0]), (len(totals),) * 2
        )
        return sparse.csr_array(scale @ counts)


@dataclass(frozen=True, eq=False)
class PopulationMixes:
    """What everybody took before each distinct cutoff, more or less lately.

    Attributes
    ----------
    which
        (n_histories,) row of each history's cutoff.
    recent
        (n_cutoffs, len(HALF_LIVES), n_categories) mixes in which events count by their age, all
        alike where periods are counted in events; rows sum to 1, all > 0.
    by_age
        (n_cutoffs, N_AGES + 1, n_categories) mixes of the periods before the cutoff, newest first,
        and of all before these. None where periods are counted in events.
    """

    which: IntArray
    recent: FloatArray
    by_age: FloatArray | None

    @classmethod
    def of(cls, histories: Sequence[History]) -> PopulationMixes:
        """Count what everybody took; the histories share their population."""
        population, catalog = shared_population(histories), histories[0].catalog
        ends = np.array([history.cutoff for history in histories], dtype="datetime64[ms]")
        cutoffs, which = np.unique(ends, return_inverse=True)
        length = histories[0].period_length
        if length.unit == "events":
            starts = np.full_like(cutoffs, population.start)
            counts = population.category_counts(catalog, starts, cutoffs)
            mixes = _smooth_mixes(counts)[:, None]
            shape = (len(cutoffs), len(HALF_LIVES), counts.shape[1])
            return cls(which, np.broadcast_to(mixes, shape), None)
        make = partial(_mixes, population, catalog, length, cutoffs)
        kept = population.kept.get(("mixes", catalog, length, cutoffs.tobytes()), make)
        return cls(which, *kept)

    def take(self, rows: slice) -> PopulationMixes:
        """Give the mixes of some of the histories."""
        used, which = np.unique(self.which[rows], return_inverse=True)
        by_age = None if self.by_age is None else self.by_age[used]
        return PopulationMixes(which, self.recent[used], by_age)

    def expected(self, events: CategoryEvents) -> FloatArray:
        """(n_histories, n_categories) mix that everybody took in a person's active periods.

        Each period counts by the person's events. The overall mix for a person without events.
        """
        overall: FloatArray = self.recent[self.which, -1]
        if self.by_age is None:
            return overall
        ages = np.minimum(events.period_ages, N_AGES)
        own = row_shares(events.sums_by(ages, N_AGES + 1, events.shares))
        expected: FloatArray = np.empty_like(overall)
        for cutoff in range(len(self.by_age)):
            rows = self.which == cutoff
            expected[rows] = own[rows] @ self.by_age[cutoff]
        return np.asarray(np.where(own.sum(axis=1, keepdims=True) > 0, expected, overall))


def period_days(length: PeriodLength) -> float:
    """Give the days of a calendar period; a month has its mean length."""
    return length.n * (1.0 if length.unit == "days" else DAYS_PER_MONTH)


def _ages(history: History) -> FloatArray:
    """(n_events,) ages in periods, oldest first."""
    length = history.period_length
    if length.unit == "events":
        return np.arange(history.n_events, 0, -1, dtype=np.float64) / length.n
    return np.asarray(history.days_ago / period_days(length))


def _category_entries(catalog: Catalog, items: IntArray) -> tuple[IntArray, IntArray]:
    """Entries of the catalog's shares that (n_events,) items have, and the event of each."""
    shares = catalog.category_shares
    starts: IntArray = shares.indptr.astype(np.int64)
    sizes = np.diff(starts)[items]
    event = np.repeat(np.arange(len(items)), sizes)
    within = np.arange(len(event)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.asarray(starts[items][event] + within, dtype=np.int64), event


def _smooth_mixes(counts: FloatArray, n_events: FloatArray | None = None) -> FloatArray:
    """(..., n_categories) shares of counts, smoothed as if of so many events; all > 0."""
    totals = counts.sum(axis=-1, keepdims=True)
    n = np.clip(totals if n_events is None else n_events, MIN_MIX_EVENTS, MAX_MIX_EVENTS)
    smoothed = counts / np.where(totals > 0, totals, 1.0) * n + MIX_PSEUDO_EVENTS
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


def _mixes(
    population: Population, catalog: Catalog, length: PeriodLength, cutoffs: TimeArray
) -> tuple[FloatArray, FloatArray]:
    """Mixes by half-life and by age before (n_cutoffs,) times, of a calendar log."""
    tick = np.timedelta64(round(period_days(length) * (DAY / MILLISECOND)), "ms")
    steps = np.arange(N_AGES * TICKS_PER_PERIOD + 1) * (tick // TICKS_PER_PERIOD)
    edges = np.maximum(cutoffs[:, None] - steps, population.start)
    edges = np.append(edges, np.full((len(cutoffs), 1), population.start), axis=1)
    spans = edges[:, 1:].ravel(), edges[:, :-1].ravel()
    counts = population.category_counts(catalog, *spans)
    return _mixes_of_ticks(counts.reshape(len(cutoffs), -1, counts.shape[1]))


def _mixes_of_ticks(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mixes by half-life and by age, of (n_cutoffs, n_ticks + 1, n_categories) counts by tick."""
    ages = (np.arange(counts.shape[1]) + 0.5) / TICKS_PER_PERIOD
    weights = np.exp2(-ages / np.array(HALF_LIVES)[:, None])
    n_events = counts.sum(axis=(1, 2))[:, None, None]
    recent = _smooth_mixes(np.einsum("ht,ctk->chk", weights, counts), n_events)
    periods = counts[:, :-1].reshape(len(counts), N_AGES, TICKS_PER_PERIOD, -1).sum(axis=2)
    periods = np.concatenate((periods, counts[:, -1:]), axis=1)
    smoothed = periods + OVERALL_PSEUDO_EVENTS * recent[:, -1:]
    by_age = normalize_rows(smoothed.reshape(-1, smoothed.shape[2])).reshape(smoothed.shape)
    return recent, by_age
