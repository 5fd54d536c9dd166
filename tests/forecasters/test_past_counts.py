from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.windows import make_windows
from llmrec.forecasters import past_counts
from llmrec.forecasters.past_counts import PastCounts, blocks_of_histories, burstiness
from tests.worlds import catalog, log, small_world


@pytest.mark.parametrize("period", ["7D", "6 events", "1D"])
def test_counts_are_those_of_each_history(period: str) -> None:
    histories = [one.history for one in make_windows(log(), catalog(), period)]
    past = PastCounts.of(histories)
    for row, history in enumerate(histories):
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        np.testing.assert_allclose(past.shares[row], counts.sum(axis=0) / counts.sum())
        np.testing.assert_array_equal(past.is_recent[row], ~history.recently_absent)
        np.testing.assert_array_equal(past.n_periods_with[row], (counts > 0).sum(axis=0))
        assert past.n_periods[row] == len(counts)


def test_an_empty_history_has_taken_nothing() -> None:
    past = PastCounts.of([one.history for one in small_world(3, empty=True)])
    assert not past.was_taken.any()
    assert not past.is_recent.any()
    assert not past.n_periods.any()


def test_blocks_hold_every_history_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_counts, "CELLS_PER_BATCH", 80)
    histories = [one.history for one in small_world(7)]
    rows = [row for block in blocks_of_histories(histories) for row in range(7)[block]]
    assert rows == list(range(7))
    assert list(blocks_of_histories([])) == []


def test_what_comes_in_numbers_is_bursty() -> None:
    histories = [one.history for one in small_world(30)]
    found = burstiness(histories)
    sizes = np.concatenate([history.category_counts for history in histories])
    expected = [np.log(column[column > 0].mean()) for column in sizes.T]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(burstiness(histories[:1]), np.zeros(5))
