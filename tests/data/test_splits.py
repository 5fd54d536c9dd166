from __future__ import annotations

import pytest

from llmrec.data.provenance import TrainingSpan
from llmrec.data.readers import read_table
from llmrec.data.splits import sample_windows, split_windows, training_windows
from tests.test_engine import frame
from tests.worlds import small_world


def test_validation_ends_before_the_tests_begin() -> None:
    dataset = read_table(frame(n_days=100), name="small", period="7D")
    found = split_windows(dataset)
    cutoffs = [windows[0].history.cutoff for windows in found.values()]
    assert list(found) == ["validation", "test 1", "test 2"]
    assert cutoffs == sorted(cutoffs)
    for earlier, later in zip(found.values(), list(found.values())[1:], strict=False):
        assert max(w.target.period.end for w in earlier) <= min(w.history.cutoff for w in later)


def test_periods_of_events_validate_on_the_last_but_one() -> None:
    found = split_windows(read_table(frame(), name="small", period="10 events"))
    for before, after in zip(found["validation"], found["test"], strict=True):
        assert before.target.stop == after.target.start


def test_a_log_of_too_few_periods_is_refused() -> None:
    with pytest.raises(ValueError, match="spans 2 whole periods of 7D"):
        split_windows(read_table(frame(n_days=20), name="short", period="7D"))


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_training_ends_before_validation_begins(period: str) -> None:
    dataset = read_table(frame(n_days=100), name="small", period=period)
    training, validation = training_windows(dataset), split_windows(dataset)["validation"]
    assert training
    fitted = TrainingSpan.of_windows(training)
    assert not any(fitted.covers(window) for window in validation)


def test_drawing_is_repeatable_and_keeps_the_order() -> None:
    windows = small_world(n_users=20)
    drawn = sample_windows(windows, 7, seed=3)
    assert [windows.index(window) for window in drawn] == sorted(map(windows.index, drawn))
    assert drawn == sample_windows(windows, 7, seed=3)
    assert sample_windows(windows, None) == windows
