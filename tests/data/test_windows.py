"""Ticks cut a history without loss; timelines teach nothing that validation asks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.calendar import PeriodLength, period_boundaries
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import TICKS_PER_PERIOD, Window, make_histories, split_into_ticks
from llmrec.data.splits import MIN_TARGET_EVENTS, rolling_training_windows, split_windows
from llmrec.data.windows import make_windows, rolling_windows, tick_cutoffs
from tests.worlds import START, catalog, log

ITEMS = catalog()
CALENDAR = ("7D", "9D", "2W")
PERIODS = (*CALENDAR, "1 event", "4 events")
worlds = st.builds(
    log, n_users=st.integers(1, 3), n_periods=st.integers(6, 10), seed=st.integers(0, 99)
)
few = settings(max_examples=5)


def log_of(*hours: int, user: str = "a") -> Interactions:
    """One user's events, hours after START."""
    rows = [(user, f"i{hour % 25:03d}", START + np.timedelta64(hour, "h")) for hour in hours]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(frame).align_to(ITEMS)


def joined(*logs: Interactions) -> Interactions:
    frame = pd.concat(
        pd.DataFrame(
            {
                "user_id": found.user_ids[found.user_idx],
                "item_id": np.array(ITEMS.item_ids)[found.item_idx],
                "timestamp": found.timestamp,
            }
        )
        for found in logs
    )
    return Interactions.from_frame(frame).align_to(ITEMS)


def world(events: Interactions, period: str) -> Dataset:
    return Dataset("world", events.align_to(ITEMS), ITEMS, period, "films", "viewer", "allow")


def cut(events: Interactions, period: str) -> list[list[Window]]:
    """Cut a log into timelines up to its end."""
    events = events.align_to(ITEMS)
    if PeriodLength.parse(period).unit == "events":
        return rolling_windows(events, ITEMS, period, events.user_offsets[1:].tolist())
    return rolling_windows(events, ITEMS, period, events.timestamp.max().astype("datetime64[D]"))


def enough(events: Interactions, period: str) -> bool:
    """Whether a log is long enough for a validation and two test periods."""
    length = PeriodLength.parse(period)
    return length.unit == "events" or len(period_boundaries(events, length)) >= 5


@few
@given(worlds, st.sampled_from(PERIODS), st.integers(0, 200))
def test_ticks_hold_every_event_of_a_history_once_and_in_its_time(
    events: Interactions, period: str, days: int
) -> None:
    cutoff = events.timestamp.min() + np.timedelta64(days, "D")
    for history in make_histories(events, ITEMS, period, cutoff):
        starts, offsets = split_into_ticks(history)
        assert (offsets[0], offsets[-1]) == (history.event_ids.start, history.event_ids.stop)
        assert len(offsets) == len(starts) + 1
        assert (np.diff(offsets) >= 0).all()
        ends = np.append(starts[1:], history.cutoff)[: len(starts)]
        for start, end, (first, stop) in zip(starts, ends, pairwise(offsets), strict=True):
            times = history.log.timestamp[first:stop]
            assert (times >= start).all()
            assert (times < end).all() or history.period_length.unit == "events"


@pytest.mark.parametrize(("period", "days"), [("28D", 7.0), ("1W", 1.75), ("1D", 0.25)])
def test_a_calendar_period_has_four_ticks_of_one_length(period: str, days: float) -> None:
    (history,) = make_histories(log_of(0, 24 * 70), ITEMS, period)
    starts, _ = split_into_ticks(history)
    assert set(np.diff(starts) / np.timedelta64(1, "D")) == {days}
    assert (history.cutoff - starts[-1]) / np.timedelta64(1, "D") == days


def test_a_month_has_four_ticks_whatever_its_length() -> None:
    (history,) = make_histories(log_of(0, 24 * 70), ITEMS, "1M", "2020-04-01")
    starts, offsets = split_into_ticks(history)
    firsts = [start for start in starts if start.astype("datetime64[M]") == start]
    assert len(starts) == 3 * TICKS_PER_PERIOD
    assert len(firsts) == 3
    assert np.diff(offsets).tolist() == [1, *[0] * 8, 1, 0, 0]


def test_ticks_start_at_the_first_event_and_empty_ones_in_between_stay() -> None:
    events = log_of(0, 24 * 20, 24 * 20 + 1, 24 * 27)
    (history,) = make_histories(events, ITEMS, "4D", START + np.timedelta64(28, "D"))
    _, offsets = split_into_ticks(history)
    assert np.diff(offsets).tolist() == [1, *[0] * 19, 2, *[0] * 6, 1]


def test_with_periods_of_events_every_event_is_a_tick_even_at_one_time() -> None:
    frame = pd.DataFrame({"user_id": "a", "item_id": ["i000", "i001", "i002", "i003"]})
    events = Interactions.from_frame(frame.assign(timestamp=START)).align_to(ITEMS)
    (history,) = make_histories(events, ITEMS, "2 events")
    starts, offsets = split_into_ticks(history)
    assert offsets.tolist() == [0, 1, 2, 3, 4]
    assert (starts == history.log.timestamp).all()


@pytest.mark.parametrize("period", PERIODS)
def test_a_history_without_events_has_no_tick(period: str) -> None:
    (history,) = make_histories(log_of(5), ITEMS, period, START)
    starts, offsets = split_into_ticks(history)
    assert (len(starts), len(offsets)) == (0, 1)


@few
@given(worlds, st.sampled_from(PERIODS))
def test_ticks_of_every_window_are_the_first_ones_of_the_newest(
    events: Interactions, period: str
) -> None:
    for windows in cut(events, period):
        starts, offsets = split_into_ticks(windows[-1].history)
        sizes = []
        for window in windows:
            own_starts, own_offsets = split_into_ticks(window.history)
            sizes.append(len(own_starts))
            assert (own_starts == starts[: sizes[-1]]).all()
            assert (own_offsets == offsets[: sizes[-1] + 1]).all()
        assert sizes == sorted(set(sizes)), "a tick ends once, in order"


def test_months_have_a_window_a_month_and_its_ticks_are_the_first_of_the_newest() -> None:
    events = log_of(*range(0, 24 * 150, 20))
    (windows,) = rolling_windows(events, ITEMS, "1M", np.datetime64("2020-06-01"))
    starts, _ = split_into_ticks(windows[-1].history)
    assert [str(window.history.cutoff)[:10] for window in windows] == [
        f"2020-0{month}-01" for month in (2, 3, 4, 5)
    ]
    for months, window in enumerate(windows, start=1):
        assert (split_into_ticks(window.history)[0] == starts[: months * TICKS_PER_PERIOD]).all()


@few
@given(worlds, st.sampled_from(PERIODS))
def test_a_timeline_holds_nothing_at_or_after_the_cutoff_of_a_window(
    events: Interactions, period: str
) -> None:
    for window in (window for windows in cut(events, period) for window in windows):
        history, target = window.history, window.target
        times, targets = (
            history.log.timestamp[list(history.event_ids)],
            history.log.timestamp[target.start : target.stop],
        )
        assert history.event_ids.stop == target.start
        assert (targets >= history.cutoff).all()
        if history.period_length.unit == "events":
            assert target.n_events == history.period_length.n
        else:
            assert (times < history.cutoff).all()
            assert (targets < history.period_length.shift(history.cutoff, 1)).all()


@few
@given(worlds, st.sampled_from(CALENDAR))
def test_a_window_of_a_timeline_is_the_one_cut_at_its_cutoff_and_none_is_left_out(
    events: Interactions, period: str
) -> None:
    events = events.align_to(ITEMS)
    before = events.timestamp.max().astype("datetime64[D]")
    expected = {
        (window.history.user_idx, cutoff): (*window.history.offsets, window.target.stop)
        for cutoff in tick_cutoffs(events, period, before)
        for window in make_windows(events, ITEMS, period, cutoff)
    }
    found = {
        (window.history.user_idx, window.history.cutoff): (
            *window.history.offsets,
            window.target.stop,
        )
        for windows in rolling_windows(events, ITEMS, period, before)
        for window in windows
        if window.history.n_events
    }
    assert found == expected


@few
@given(worlds, st.sampled_from(CALENDAR))
def test_cutoffs_of_ticks_are_in_order_and_their_targets_end_in_time(
    events: Interactions, period: str
) -> None:
    length, before = PeriodLength.parse(period), events.timestamp.max().astype("datetime64[D]")
    found = tick_cutoffs(events, period, before.astype("datetime64[ms]"))
    assert (np.diff(found) > np.timedelta64(0)).all()
    assert all(length.shift(cutoff, 1) <= before for cutoff in found)
    if len(found):
        assert length.shift(found[-1], 1) == before, "the newest that fits is there"


@few
@given(worlds, st.sampled_from(PERIODS))
def test_no_target_to_train_on_reaches_a_validation_target(
    events: Interactions, period: str
) -> None:
    if not enough(events, period):
        return
    dataset = world(events, period)
    found = split_windows(dataset)
    starts = {window.history.user_idx: window.target.start for window in found["validation"]}
    for windows in rolling_training_windows(dataset):
        for window in windows:
            if window.history.period_length.unit == "events":
                user = window.history.user_idx
                assert window.target.stop <= starts.get(user, dataset.log.user_offsets[user + 1])
            else:
                assert window.target.period.end <= found["validation"][0].history.cutoff
                assert window.target.n_events >= MIN_TARGET_EVENTS


@pytest.mark.parametrize("period", ["7D", "4 events"])
def test_training_uses_all_that_lies_before_validation(period: str) -> None:
    dataset = world(log(n_users=5, n_periods=10), period)
    newest = {
        windows[-1].history.user_id: windows[-1].target.stop
        for windows in rolling_training_windows(dataset)
    }
    validation = split_windows(dataset)["validation"]
    assert len(newest) == 5
    assert newest == {window.history.user_id: window.target.start for window in validation}


@pytest.mark.parametrize("period", PERIODS)
def test_at_most_one_window_without_a_past_stands_first(period: str) -> None:
    found = cut(
        joined(log_of(*range(0, 1200, 60)), log_of(*range(900, 1200, 20), user="b")), period
    )
    assert len(found) == 2
    for windows in found:
        assert all(window.history.n_events for window in windows[1:])
    assert not found[1][0].history.n_events


def test_targets_too_thin_are_left_out_and_so_is_who_has_no_other() -> None:
    events = log_of(*range(0, 24 * 8, 2))
    before = START + np.timedelta64(8, "D")
    (windows,) = rolling_windows(events, ITEMS, "2D", before, min_target_events=24)
    assert {window.target.n_events for window in windows} == {24}
    assert rolling_windows(events, ITEMS, "2D", before, min_target_events=25) == []


def test_a_person_whose_events_all_come_later_has_no_timeline() -> None:
    early, late = log_of(*range(0, 500, 20)), log_of(490, 495, user="late")
    events = joined(early, late)
    found = rolling_windows(events, ITEMS, "2D", START + np.timedelta64(16, "D"))
    assert [windows[0].history.user_id for windows in found] == ["a"]
    found = rolling_windows(events, ITEMS, "3 events", events.user_offsets[1:].tolist())
    assert [windows[0].history.user_id for windows in found] == ["a"]


def test_a_log_of_less_than_two_periods_has_no_timeline() -> None:
    assert rolling_windows(log_of(0, 5), ITEMS, "1W", START + np.timedelta64(1, "D")) == []
    assert len(tick_cutoffs(log_of(0, 5), "1W", START + np.timedelta64(1, "D"))) == 0
