from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.provenance import TrainingSpan
from llmrec.data.readers import read_table
from llmrec.data.splits import (
    EvaluationSplits,
    newest_windows,
    sample_windows,
    split_windows,
    training_windows,
)
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


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_the_newest_windows_are_of_one_calendar_period_or_each_persons_newest(period: str) -> None:
    training = training_windows(read_table(frame(n_days=100), name="small", period=period))
    newest = newest_windows(training[::-1])
    assert {w.history.user_id for w in newest} <= {w.history.user_id for w in training}
    for window in newest:
        others = [w for w in training if w.history.user_id == window.history.user_id]
        assert window.target.stop == max(w.target.stop for w in others)
    if period == "7D":
        assert {w.history.cutoff for w in newest} == {max(w.history.cutoff for w in training)}
    else:
        assert len(newest) == len({w.history.user_id for w in training})


def test_drawing_is_repeatable_and_keeps_the_order() -> None:
    windows = small_world(n_users=20)
    drawn = sample_windows(windows, 7, seed=3)
    assert [windows.index(window) for window in drawn] == sorted(map(windows.index, drawn))
    assert drawn == sample_windows(windows, 7, seed=3)
    assert sample_windows(windows, None) == windows


def growing(period: str, cutoff: Any) -> Dataset:
    """Give a log that has, from a time on, events of a new item and category; they are its last."""
    old = frame(n_days=100)
    new = old[old["timestamp"] >= cutoff].assign(item_id="new", title="New", categories="Western")
    new["timestamp"] += pd.Timedelta(1, "D")
    return read_table(pd.concat([old, new]), name="small", period=period)


def test_an_evaluation_knows_no_name_that_only_the_tests_hold() -> None:
    old = read_table(frame(n_days=100), name="small", period="7D")
    cutoff = split_windows(old)["test 1"][0].history.cutoff
    grown = growing("7D", cutoff)
    splits = EvaluationSplits.of(grown)
    assert "Western" in grown.catalog.categories
    assert splits.dataset.catalog.categories == old.catalog.categories
    assert "new" not in splits.dataset.catalog.item_ids
    assert list(splits.tests) == ["test 1", "test 2"]
    begin = {name: found[0].history.cutoff for name, found in splits.windows.items()}
    whole = {name: found[0].history.cutoff for name, found in split_windows(grown).items()}
    assert begin == whole
    latest = max(window.target.period.end for window in splits.training)
    assert latest <= begin["validation"]


def test_the_periods_of_an_evaluation_are_those_of_the_whole_log() -> None:
    old = frame(n_days=50)
    end = old["timestamp"].max()
    late = old.assign(item_id="new", categories="Western")
    late["timestamp"] += pd.Timedelta(20, "D")
    grown = read_table(pd.concat([old, late[late["timestamp"] > end]]), name="small", period="7D")
    splits = EvaluationSplits.of(grown)
    assert splits.grid is not None
    assert splits.dataset.log.timestamp.max() < splits.grid[-2]  # of the last test nothing is known
    assert splits.grid[-1] == splits.grid[0] + np.timedelta64(7 * 9, "D")


def test_with_periods_of_events_an_evaluation_knows_what_came_before_one_cutoff() -> None:
    grown = growing("10 events", frame(n_days=100)["timestamp"].quantile(0.97))
    splits = EvaluationSplits.of(grown)
    assert "Western" in grown.catalog.categories
    assert "Western" not in splits.dataset.catalog.categories
    assert len(splits.tests["test"]) > 50


def test_a_catalog_that_is_given_apart_stays_whole_in_an_evaluation() -> None:
    events = frame(n_days=100)
    items = events.drop_duplicates("item_id")[["item_id", "title", "categories"]]
    items = pd.concat([items, pd.DataFrame([("new", "New", "Western")], columns=items.columns)])
    dataset = read_table(events[["user_id", "item_id", "timestamp"]], items, period="7D")
    splits = EvaluationSplits.of(dataset)
    assert splits.dataset.catalog is dataset.catalog
    assert splits.dataset.log is dataset.log
