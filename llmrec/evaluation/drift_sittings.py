"""What each sitting of a person holds beyond what they, and everybody at the time, usually take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llmrec.data.calendar import DAY
from llmrec.data.catalog import category_sums
from llmrec.data.dataset import Dataset
from llmrec.types import FloatArray, IntArray, TimeArray

PERIOD_DAYS = 28  # of the mix of everybody
MAX_GAP_DAYS = 2  # between days of one sitting: a burst of interest may skip a day
MAX_SITTING_DAYS = 7  # from the first day of a sitting to the next one
MIN_SITTINGS, MIN_EVENTS = 12, 40  # of a person of whom something can be told
MAX_SITTINGS = 64  # a longer history's neighbouring sittings are joined
MAX_CATEGORIES = 12  # of a person; the others are one
MIN_EXPECTED = 3.0  # events of a category of its own
POPULATION_STEPS = 8  # of proportional fitting, after which changes are in the third digit
PRIOR_EVENTS = 5.0  # a category and period, that everybody took at the usual rate


@dataclass(frozen=True, eq=False)
class PersonSittings:
    """A person's sittings, and how each differs from what was expected of it.

    Attributes
    ----------
    user_idx
        Position among the log's people.
    start
        (n_sittings,) first day of each sitting, oldest first.
    counts
        (n_sittings, n_categories) events by category.
    residuals
        (n_sittings, n_columns) what was taken beyond the expected, in units of about one standard
        deviation; each column's mean is 0.
    columns
        (n_columns,) category of each column; -1: all others.
    """

    user_idx: int
    start: TimeArray
    counts: FloatArray
    residuals: FloatArray
    columns: IntArray

    @property
    def n_events(self) -> int:
        """Number of events with a category."""
        return round(float(self.counts.sum()))


def person_sittings(dataset: Dataset) -> Iterator[PersonSittings]:
    """Give the sittings of each person of whom something can be told, in the log's order.

    A sitting is a run of days at most `MAX_GAP_DAYS` apart, within `MAX_SITTING_DAYS`. Expected of
    it is the person's own constant mix times the rate of everybody in its `PERIOD_DAYS` days: what
    the whole population does is nobody's drift.
    """
    day, first = _days(dataset)
    log = dataset.log
    sitting = _sittings(log.user_idx, day)
    starts = np.flatnonzero(np.diff(sitting, prepend=-1))
    person, period = log.user_idx[starts], day[starts] // PERIOD_DAYS
    counts = category_sums(dataset.catalog, sitting, log.item_idx, len(starts))
    expected = expected_counts(counts, person, period)
    variance = _variance(counts, expected)
    bounds = np.searchsorted(person, np.arange(log.n_users + 1))
    for user_idx, (begin, end) in enumerate(pairwise(bounds.tolist())):
        rows = slice(begin, end)
        if end - begin >= MIN_SITTINGS and counts[rows].sum() >= MIN_EVENTS:
            when = first + day[starts[rows]].astype("timedelta64[D]")
            yield _person(user_idx, when, counts[rows], expected[rows], variance[rows])


def expected_counts(counts: FloatArray, person: IntArray, period: IntArray) -> FloatArray:
    """(n_sittings, n_categories) what a constant mix of each person, and everybody's rates, give.

    Sittings have the totals of ``counts``. Mixes and rates are fitted in turn, so that a period
    that other people came in is not taken for one in which people took other things.
    """
    totals = counts.sum(axis=1, keepdims=True)
    own, taken = _sums(counts, person), _sums(counts, period)
    rates = np.ones_like(taken)
    mixes = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-12)
    expected = counts
    for _ in range(POPULATION_STEPS):
        expected = mixes[person] * rates[period]
        expected *= totals / np.maximum(expected.sum(axis=1, keepdims=True), 1e-12)
        rates *= (taken + PRIOR_EVENTS) / (_sums(expected, period) + PRIOR_EVENTS)
        expected = mixes[person] * rates[period]
        expected *= totals / np.maximum(expected.sum(axis=1, keepdims=True), 1e-12)
        mixes *= own / np.maximum(_sums(expected, person), 1e-12)
    return expected


def _days(dataset: Dataset) -> tuple[IntArray, np.datetime64]:
    """(n_events,) days since the log's first day, and that day."""
    days = dataset.log.timestamp.astype("datetime64[D]")
    first = days.min()
    return ((days - first) / DAY).astype(np.int64), first


def _sittings(user_idx: IntArray, day: IntArray) -> IntArray:
    """(n_events,) number of each event's sitting, counted over all people."""
    new = (np.diff(user_idx, prepend=-1) != 0) | (np.diff(day, prepend=day[0]) > MAX_GAP_DAYS)
    run = new.cumsum() - 1
    since = day - day[np.flatnonzero(np.diff(run, prepend=-1))][run]
    cell = run * (day.max() + 1) + since // MAX_SITTING_DAYS
    return np.asarray(np.unique(cell, return_inverse=True)[1], dtype=np.int64)


def _sums(values: FloatArray, group: IntArray) -> FloatArray:
    """(n_groups, n_categories) sums of rows by group."""
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _variance(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """(n_sittings,) variance of a sitting's residuals in units of one event's.

    It is n (1 + r (n - 1)) for n events; r, the correlation within sittings, is that of everybody.
    """
    n = counts.sum(axis=1)
    one = 1 - (expected**2).sum(axis=1) / np.maximum(n, 1e-12) ** 2
    excess = (((counts - expected) ** 2).sum(axis=1) - n * one).sum()
    pairs = (n * np.maximum(n - 1, 0) * one).sum()
    within = float(np.clip(excess / max(pairs, 1e-12), 0, 1))
    return np.asarray(np.maximum(n, 1e-12) * (1 + within * np.maximum(n - 1, 0)))


def _person(
    user_idx: int, start: TimeArray, counts: FloatArray, expected: FloatArray, variance: FloatArray
) -> PersonSittings:
    """Join sittings and categories that are too many, and scale the residuals."""
    n = len(start)
    if n > MAX_SITTINGS:
        group = np.arange(n) * MAX_SITTINGS // n
        start = start[np.searchsorted(group, np.arange(MAX_SITTINGS))]
        counts, expected = _sums(counts, group), _sums(expected, group)
        variance = np.asarray(np.bincount(group, variance), dtype=np.float64)
    totals = expected.sum(axis=0)
    order = np.argsort(-totals, kind="stable")[:MAX_CATEGORIES]
    kept = order[totals[order] >= MIN_EXPECTED]
    rest = np.setdiff1d(np.flatnonzero(totals > 0), kept)
    parts = [(counts - expected)[:, kept], (counts - expected)[:, rest].sum(axis=1, keepdims=True)]
    size = np.append(totals[kept], totals[rest].sum())
    used = size > 0
    residuals = np.concatenate(parts, axis=1)[:, used] / np.sqrt(size[used] / totals.sum())
    residuals /= np.sqrt(variance)[:, None]
    residuals -= residuals.mean(axis=0)
    return PersonSittings(user_idx, start, counts, residuals, np.append(kept, -1)[used])
