from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.event_order import sort_events


@pytest.mark.parametrize("n_times", [3, 1_000, 1_600_000_000_000])
def test_events_are_in_the_order_of_users_then_times_then_ties(n_times: int) -> None:
    rng = np.random.default_rng(0)
    users, ties = rng.integers(0, 20, 2_000), rng.integers(0, 5, 2_000)
    times = rng.integers(0, n_times, 2_000).view("datetime64[ms]")
    order = sort_events(users, times, ties)
    assert np.array_equal(order, np.lexsort((ties, times.view(np.int64), users)))


def test_times_too_far_apart_for_one_number_are_still_in_order() -> None:
    users = np.array([3, 0, 3, 0])
    times = np.array([2**61, 5, -(2**61), 4]).view("datetime64[ms]")
    assert sort_events(users, times, np.zeros(4, dtype=np.int64)).tolist() == [3, 1, 2, 0]


def test_nothing_is_in_order() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert len(sort_events(nothing, nothing.view("datetime64[ms]"), nothing)) == 0
