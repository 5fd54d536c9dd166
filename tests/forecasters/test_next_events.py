from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.windows import make_windows
from llmrec.errors import ModelLoadError
from llmrec.forecasters.category_dispersion import CategoryDispersion
from llmrec.forecasters.next_events import NextPeriodEvents
from tests.forecasters.known_world import known_world
from tests.worlds import catalog, log, small_world


def test_periods_of_a_number_of_events_have_that_number() -> None:
    windows = make_windows(log(10), catalog(), "6 events")
    events = NextPeriodEvents.fit(windows)
    none, some = events.distribution([one.history for one in windows])
    np.testing.assert_array_equal(none, 0)
    np.testing.assert_array_equal(some, np.full((10, 1), 6.0))


def test_numbers_and_empty_periods_are_as_frequent_as_is_found() -> None:
    windows, _ = known_world(600, with_empty=True)
    later, _ = known_world(600, with_empty=True, seed=1)
    none, some = NextPeriodEvents.fit(windows).distribution([one.history for one in later])
    numbers = np.array([one.target.n_events for one in later])
    assert none.mean() == pytest.approx((numbers == 0).mean(), abs=0.04)
    assert ((1 - none) * some.mean(axis=1)).mean() == pytest.approx(numbers.mean(), rel=0.08)
    seen = numbers > 0
    below = (numbers[seen, None] > some[seen]).mean(axis=1)  # where in the distribution
    assert below.mean() == pytest.approx(0.5, abs=0.04)
    assert ((below < 0.1) | (below > 0.9)).mean() == pytest.approx(0.2, abs=0.08)


def test_of_targets_of_some_events_at_least_no_number_is_smaller() -> None:
    windows = [one for one in known_world(200)[0] if one.target.n_events >= 5]
    none, some = NextPeriodEvents.fit(windows, 5).distribution([one.history for one in windows])
    assert (none == 0).all()
    assert (some >= 5).all()


def test_it_is_the_same_after_storing() -> None:
    windows, _ = known_world(80, with_empty=True)
    events, histories = NextPeriodEvents.fit(windows), [one.history for one in windows]
    loaded = NextPeriodEvents.from_stored(events.stored())
    for found, expected in zip(
        loaded.distribution(histories), events.distribution(histories), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_what_is_stored_of_another_kind_is_refused() -> None:
    stored = NextPeriodEvents.fit(small_world(12)).stored()
    assert NextPeriodEvents.from_stored(stored).fixed == 0
    with pytest.raises(ModelLoadError, match="no CategoryDispersion"):
        CategoryDispersion.from_stored(stored, 5)
