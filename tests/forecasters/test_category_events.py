"""What people took is counted as a slow count by hand would count it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.data.periods import History
from llmrec.data.windows import make_windows
from llmrec.forecasters.category_events import NEVER, CategoryEvents, PopulationMixes
from llmrec.forecasters.category_lifts import CategoryLifts
from tests.worlds import catalog, log

EVENTS, ITEMS = log(n_users=9), catalog()
HISTORIES = {
    period: [window.history for window in make_windows(EVENTS, ITEMS, period)]
    for period in ("7D", "5 events")
}
each_period = pytest.mark.parametrize("period", HISTORIES)


def ages(history: History) -> list[float]:
    """Ages in periods, by hand."""
    if history.period_length.unit == "events":
        return [(history.n_events - n) / history.period_length.n for n in range(history.n_events)]
    return [days / 7 for days in history.days_ago]


@each_period
@given(half_life=st.floats(0.1, 50))
def test_decayed_counts_halve_with_each_half_life(period: str, half_life: float) -> None:
    histories = HISTORIES[period]
    found = CategoryEvents.of(histories).decayed(half_life)
    for history, row in zip(histories, found, strict=True):
        expected = np.zeros(5)
        for item, age in zip(history.item_idx, ages(history), strict=True):
            expected[item % 5] += 0.5 ** (age / half_life)
        np.testing.assert_allclose(row, expected)


@each_period
def test_periods_that_hold_a_category_are_counted_once(period: str) -> None:
    histories = HISTORIES[period]
    holding, active = CategoryEvents.of(histories).active_periods()
    for history, row, n in zip(histories, holding, active, strict=True):
        np.testing.assert_array_equal(row, (history.category_counts > 0).sum(axis=0))
        assert n == (history.category_counts.sum(axis=1) > 0).sum()


@each_period
def test_the_newest_event_of_a_category_is_the_least_age(period: str) -> None:
    histories = HISTORIES[period]
    for history, row in zip(histories, CategoryEvents.of(histories).since_last(), strict=True):
        for category in range(5):
            of_category = [
                age
                for item, age in zip(history.item_idx, ages(history), strict=True)
                if item % 5 == category
            ]
            assert row[category] == pytest.approx(min(of_category, default=NEVER))


@each_period
def test_everybodys_mixes_are_distributions_of_what_was_taken_before_each_cutoff(
    period: str,
) -> None:
    histories = HISTORIES[period]
    mixes = PopulationMixes.of(histories)
    np.testing.assert_allclose(mixes.recent.sum(axis=-1), 1)
    assert (mixes.recent > 0).all()
    for history, row in zip(histories, mixes.which, strict=True):
        before = EVENTS.align_to(ITEMS)
        taken = before.item_idx[before.timestamp < history.cutoff] % 5
        shares = np.bincount(taken, minlength=5) / len(taken)
        np.testing.assert_allclose(mixes.recent[row, -1], shares, atol=0.02)


def test_what_is_expected_of_a_person_is_what_everybody_took_when_that_person_was_there() -> None:
    histories = HISTORIES["7D"]
    mixes, events = PopulationMixes.of(histories), CategoryEvents.of(histories)
    assert mixes.by_age is not None
    np.testing.assert_allclose(mixes.expected(events).sum(axis=1), 1)
    only_newest = CategoryEvents(
        events.rows,
        events.categories,
        events.shares,
        events.ages,
        np.zeros_like(events.period_ages),
        events.n_histories,
        events.n_categories,
    )
    expected = mixes.by_age[mixes.which, 0]
    np.testing.assert_allclose(mixes.expected(only_newest), expected)


def test_what_follows_is_learned_where_one_category_always_follows_another() -> None:
    rows, ages = np.repeat(np.arange(40), 6), np.tile(np.arange(6), 40)
    categories = (rows - ages) % 3  # each period the next one
    ones = np.ones(len(rows))
    events = CategoryEvents(rows, categories, ones, ages + 0.5, ages, 40, 3)
    lifts = CategoryLifts.fit(events, np.full(3, 1 / 3), np.full(3, 1 / 3))
    assert (lifts.following.argmax(axis=1) == [1, 2, 0]).all()
    newest = events.sums(ones * (ages == 0))
    *_, following = lifts.predict(newest, newest, np.full((40, 3), 1 / 3))
    np.testing.assert_array_equal(following.argmax(axis=1), (np.arange(40) + 1) % 3)
    for name in ("alongside", "following", "by_membership"):
        np.testing.assert_allclose(getattr(lifts, name).sum(axis=1), 1)


def test_a_catalog_of_very_many_categories_has_no_lifts() -> None:
    one = np.zeros(1, dtype=np.int64)
    events = CategoryEvents(one, one, np.ones(1), np.ones(1), one, 1, 1_001)
    assert not CategoryLifts.fit(events, np.full(1_001, 1 / 1_001), np.full(1_001, 1 / 1_001))
