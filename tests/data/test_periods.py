from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.calendar import PeriodLength, period_boundaries
from llmrec.data.catalog import Catalog
from llmrec.data.counts import age_weighted_counts
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Target, Window, make_histories, truncate_log
from llmrec.data.windows import holdout_cutoff, holdout_windows, last_period_windows, make_windows
from llmrec.errors import DataError
from tests.worlds import catalog as world_catalog
from tests.worlds import log as world_log
from tests.worlds import small_world

ITEMS = Catalog.from_frame(
    pd.DataFrame({"item_id": ["x", "y", "z"], "categories": [["A"], ["A", "B"], ["C"]]})
)
START = np.datetime64("2020-01-31T10:00:00", "ms")


def day(text: str) -> np.datetime64:
    return np.datetime64(text, "ms")


def log(*rows: tuple[str, str, object]) -> Interactions:
    frame = pd.DataFrame(
        [(user, item, str(time)) for user, item, time in rows],
        columns=["user_id", "item_id", "timestamp"],
    )
    return Interactions.from_frame(frame).align_to(ITEMS)


def hours(*times: int, user: str = "a") -> list[tuple[str, str, object]]:
    """Events of one user at hours after START; the item follows from the place in the list."""
    return [
        (user, "xyz"[place % 3], START + np.timedelta64(hour, "h"))
        for place, hour in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("28D", "28 days"),
        ("1d", "1 day"),
        ("2W", "14 days"),
        (" 1 M ", "1 month"),
        ("10 events", "10 events"),
        ("1event", "1 event"),
    ],
)
def test_period_lengths_are_parsed_and_written_in_words(spec: str, words: str) -> None:
    length = PeriodLength.parse(spec)
    assert str(length) == words
    assert PeriodLength.parse(length) is length
    assert PeriodLength.parse(words) == length


@pytest.mark.parametrize(
    "spec", ["", "28", "D", "0D", "-7D", "1.5M", "28 days or so", "10 Events!"]
)
def test_a_period_that_is_not_understood_is_named_with_examples(spec: str) -> None:
    with pytest.raises(DataError, match=r"is not understood; write '28D'"):
        PeriodLength.parse(spec)


def test_months_end_on_their_last_day_and_never_drift() -> None:
    month = PeriodLength.parse("1M")
    shifted = [month.shift(day("2020-01-31"), steps) for steps in (1, 2, 3, 13, -2)]
    assert shifted == [
        day(text) for text in ("2020-02-29", "2020-03-31", "2020-04-30", "2021-02-28", "2019-11-30")
    ]


def test_the_grid_of_months_starts_on_a_first_and_holds_whole_months_only() -> None:
    events = log(("a", "x", "2020-01-15"), ("a", "x", "2020-03-31T23:59:59.999"))
    assert period_boundaries(events, "1M").tolist() == [
        datetime(2020, 1, 1),
        datetime(2020, 2, 1),
        datetime(2020, 3, 1),
        datetime(2020, 4, 1),
    ]
    assert (
        len(period_boundaries(log(("a", "x", "2020-01-15"), ("a", "x", "2020-03-31T23:59")), "1M"))
        == 3
    )


def test_the_grid_of_days_starts_at_the_first_event() -> None:
    events = log(("a", "x", START), ("a", "x", START + np.timedelta64(20, "D")))
    steps = (period_boundaries(events, "7D") - START) / np.timedelta64(1, "D")
    assert steps.tolist() == [0, 7, 14]


def test_periods_of_events_have_no_grid() -> None:
    with pytest.raises(DataError, match="no common boundaries"):
        period_boundaries(log(*hours(0)), "10 events")


def test_a_window_is_a_history_before_and_a_target_after_the_cutoff() -> None:
    events = log(*hours(0, 23, 24, 47, 48), *hours(24, user="b"))
    (window,) = make_windows(events, ITEMS, "1D", START + np.timedelta64(1, "D"))
    assert window.history.user_id == "a"
    assert window.history.item_idx.tolist() == [0, 1]
    assert window.target.item_idx.tolist() == [2, 0]
    assert window.history.category_counts.tolist() == [[1.5, 0.5, 0]]
    assert window.target.category_counts.tolist() == [1, 0, 1]


def test_without_a_cutoff_the_target_is_the_last_whole_period() -> None:
    events = log(*hours(0, 24, 48, 72, 80))
    (window,) = make_windows(events, ITEMS, "1D")
    assert window.target.period.start == START + np.timedelta64(2, "D")
    (earlier,) = make_windows(events, ITEMS, "1D", back=1)
    assert earlier.target.period.end == window.target.period.start
    with pytest.raises(DataError, match=r"spans 3 whole periods of 1 day.* need 4"):
        make_windows(events, ITEMS, "1D", back=2)


def test_latest_windows_end_with_the_last_event() -> None:
    events = log(*hours(0, 24, 48, 72, 80))
    (window,) = last_period_windows(events, ITEMS, "1D")
    assert window.target.item_idx.tolist() == [0, 1]
    (window,) = last_period_windows(events, ITEMS, "2 events")
    assert (window.history.n_events, window.target.n_events) == (2, 2)


def test_events_before_a_cutoff_are_what_was_known_then() -> None:
    events = log(*hours(0, 24), *hours(30, user="b"))
    known = truncate_log(events, START + np.timedelta64(24, "h"))
    assert (known.user_ids.tolist(), len(known)) == (["a"], 1)
    assert known.report.dropped == {"at or after the cutoff": 2}
    assert known.align_to(ITEMS) is known
    with pytest.raises(DataError, match="no event is left"):
        truncate_log(events, START)


def test_cutoffs_may_be_text_dates_or_carry_a_zone() -> None:
    events = log(*hours(0, 30))
    moments: list[datetime | str] = [
        "2020-01-31 12:00",
        datetime(2020, 1, 31, 12, tzinfo=UTC),
        "2020-01-31T13:00+01:00",
    ]
    found = {make_histories(events, ITEMS, "1D", moment)[0].cutoff for moment in moments}
    assert found == {day("2020-01-31T12:00")}
    for wrong in ("soon", "NaT"):
        with pytest.raises(DataError, match="is not a time; write it as 2017-11-05"):
            make_windows(events, ITEMS, "1D", wrong)


def test_windows_too_thin_are_left_out() -> None:
    events = log(*hours(0, 24, 48, 49), *hours(0, 48, user="b"))
    cutoff = START + np.timedelta64(2, "D")
    assert len(make_windows(events, ITEMS, "1D", cutoff)) == 2
    assert len(make_windows(events, ITEMS, "1D", cutoff, min_periods=2)) == 1
    assert len(make_windows(events, ITEMS, "1D", cutoff, min_target_events=2)) == 1


def test_event_windows_end_with_the_last_whole_one() -> None:
    events = log(*hours(*range(8)), *hours(*range(3), user="b"))
    (window,) = make_windows(events, ITEMS, "3 events")
    assert window.history.event_ids == range(0, 3)
    assert range(window.target.start, window.target.stop) == range(3, 6)
    assert window.history.cutoff == START + np.timedelta64(3, "h")
    assert make_windows(events, ITEMS, "3 events", back=1) == []


def test_event_windows_at_a_cutoff_take_the_next_events() -> None:
    events = log(*hours(*range(8)))
    (window,) = make_windows(events, ITEMS, "3 events", START + np.timedelta64(4, "h"))
    assert np.diff(window.history.offsets).tolist() == [3, 1]
    assert window.target.item_idx.tolist() == [1, 2, 0]


@pytest.mark.parametrize("period", ["1D", "1M", "3 events"])
def test_a_user_without_an_event_before_the_cutoff_has_one_kind_of_empty_history(
    period: str,
) -> None:
    events = log(*hours(0), *hours(48, user="late"))
    (history,) = make_histories(events, ITEMS, period, START + np.timedelta64(2, "h"), [1])
    assert history.user_id == "late"
    assert history.n_events == 0
    assert not history.category_counts.any()
    assert (history.bounds <= history.cutoff).all()
    counts = history.population.item_counts(history.bounds[-2:-1], history.bounds[-1:])
    assert not counts[0, 1:].any()


def test_a_user_with_one_event_has_a_history_of_it() -> None:
    for period in ("28D", "10 events"):
        (history,) = make_histories(log(*hours(5)), ITEMS, period)
        assert history.category_counts.tolist() == [[1, 0, 0]]


def test_days_ago_are_days_from_each_event_to_the_cutoff() -> None:
    events, cutoff = log(*hours(0, 12, 36)), START + np.timedelta64(2, "D")
    (history,) = make_histories(events, ITEMS, "1D", cutoff)
    assert history.days_ago.tolist() == [2.0, 1.5, 0.5]


def test_a_window_that_overlaps_its_cutoff_cannot_be_made() -> None:
    events = log(*hours(0, 1))
    (history,) = make_histories(events, ITEMS, "1D")
    target = Target(events, ITEMS, 1, 2, history.periods[-1])
    with pytest.raises(DataError, match="overlaps its cutoff"):
        Window(history, target)


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 24 * 100)),
    min_size=1,
    max_size=40,
).map(lambda rows: log(*[(u, i, START + np.timedelta64(hour, "h")) for u, i, hour in rows]))
SPECS = st.sampled_from(["1D", "7D", "28D", "1M", "2M"])
CUTOFFS = st.integers(1, 24 * 110).map(lambda hour: START + np.timedelta64(hour, "h"))
few = settings(max_examples=30)


def positions(histories: list[History]) -> list[int]:
    return [event for history in histories for event in history.event_ids]


@few
@given(EVENTS, SPECS, CUTOFFS)
def test_history_contains_nothing_at_or_after_cutoff(
    events: Interactions, spec: str, cutoff: np.datetime64
) -> None:
    for period in (spec, "3 events"):
        histories = make_histories(events, ITEMS, period, cutoff)
        assert (events.timestamp[positions(histories)] < cutoff).all()
        for window in make_windows(events, ITEMS, period, cutoff):
            assert (events.timestamp[window.target.start : window.target.stop] >= cutoff).all()


@few
@given(EVENTS, SPECS, CUTOFFS)
def test_periods_part_all_events_before_the_cutoff(
    events: Interactions, spec: str, cutoff: np.datetime64
) -> None:
    for period in (spec, "3 events"):
        histories = make_histories(events, ITEMS, period, cutoff)
        assert positions(histories) == np.flatnonzero(events.timestamp < cutoff).tolist()
    for history in make_histories(events, ITEMS, spec, cutoff):
        assert history.bounds[-1] == cutoff
        for place, span in enumerate(history.periods):
            inside = events.timestamp[history.offsets[place] : history.offsets[place + 1]]
            assert ((span.start <= inside) & (inside < span.end)).all()


@few
@given(EVENTS)
def test_periods_of_events_have_that_many_but_for_the_last(events: Interactions) -> None:
    for history in make_histories(events, ITEMS, "3 events"):
        *whole, last = np.diff(history.offsets)
        assert set(whole) <= {3}
        assert 1 <= last <= 3


@few
@given(EVENTS, SPECS)
def test_the_future_changes_no_history(events: Interactions, spec: str) -> None:
    cutoff = events.timestamp.max()
    if (events.timestamp < cutoff).any():
        known = truncate_log(events, cutoff)
        whole = {h.user_id: h for h in make_histories(events, ITEMS, spec, cutoff)}
        for history in make_histories(known, ITEMS, spec, cutoff):
            expected = whole[history.user_id].category_counts
            np.testing.assert_array_equal(history.category_counts, expected)


@few
@given(EVENTS, SPECS, CUTOFFS)
def test_weighing_all_periods_alike_gives_the_plain_counts(
    events: Interactions, spec: str, cutoff: np.datetime64
) -> None:
    histories = make_histories(events, ITEMS, spec, cutoff)
    expected = [history.category_counts.sum(axis=0) for history in histories]
    np.testing.assert_allclose(age_weighted_counts(histories, np.ones(1)), expected)
    ages = np.power(0.5, np.arange(200))
    weighted = [ages[: h.n_periods][::-1] @ h.category_counts for h in histories]
    np.testing.assert_allclose(age_weighted_counts(histories, ages), weighted)


def test_no_history_gives_no_counts() -> None:
    assert age_weighted_counts([], np.ones(3)).shape == (0, 0)


@pytest.mark.parametrize("period", ["7D", "1M", "10 events"])
def test_everybody_is_held_out_at_one_time(period: str) -> None:
    items, events = world_catalog(), world_log(n_users=12, n_periods=12)
    windows = holdout_windows(events, items, period)
    cutoff = holdout_cutoff(events, period)
    assert windows
    for window in windows:
        assert window.history.cutoff == cutoff
        assert window.target.n_events >= 5
        history = window.history.log.timestamp[window.history.event_ids]
        assert (history < cutoff).all()
        assert (
            window.target.log.timestamp[window.target.start : window.target.stop] >= cutoff
        ).all()


def test_counts_of_histories_and_targets_do_not_stay_in_memory() -> None:
    windows = small_world()
    for window in windows:
        known = set(vars(window.history)), set(vars(window.target))
        assert window.history.category_counts.sum() == window.history.n_events
        assert window.target.category_counts.sum() == window.target.n_events
        assert (set(vars(window.history)), set(vars(window.target))) == known
