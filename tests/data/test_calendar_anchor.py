"""Periods with fixed boundaries: a day more moves none of them but the end of the newest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.calendar import PeriodLength, boundaries_up_to
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, split_into_ticks
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from tests.worlds import START, catalog, log

ITEMS = catalog()
EVENTS = log(n_users=3, n_periods=8).align_to(ITEMS)
PERIODS = ("1D", "7D", "9D", "28D", "1M", "3M")
HOURS = st.integers(1, 24 * 60)
few = settings(max_examples=20)


def anchored(period: str) -> PeriodLength:
    return replace(PeriodLength.parse(period), anchor="calendar")


def after(hours: int) -> np.datetime64:
    return START.astype("datetime64[ms]") + np.timedelta64(hours, "h")


def histories(period: str, cutoff: np.datetime64, n_items: int = 25) -> list[History]:
    items = catalog(n_items)
    world = Dataset("world", EVENTS.align_to(items), items, period, "films", "viewer", "allow")
    return replace(world, anchor="calendar").histories(cutoff)


@few
@given(st.sampled_from(PERIODS), HOURS, HOURS)
def test_a_later_cutoff_moves_no_boundary_and_adds_those_since(
    period: str, first: int, second: int
) -> None:
    earlier, later = sorted((after(first), after(second)))
    length = anchored(period)
    short, long = (boundaries_up_to(after(0), length, end) for end in (earlier, later))
    assert short[:-1].tolist() == long[: len(short) - 1].tolist()
    assert (short[-1], long[-1]) == (earlier, later)
    assert all(length.start_of(time) == time for time in long[:-1])
    assert (np.diff(long[:-1]) <= np.timedelta64(92, "D")).all()
    assert length.shift(long[-2], 2) > later


def test_cutoffs_of_one_period_share_all_boundaries_from_a_quarter_of_it_on() -> None:
    monday = np.datetime64("2020-02-03", "ms")
    hours = [0, 1, 41, 42, 43, 100, 168]
    cutoffs = [monday + np.timedelta64(hour, "h") for hour in hours]
    newest = [boundaries_up_to(START, anchored("1W"), cutoff)[-2] for cutoff in cutoffs]
    assert [str(time)[:10] for time in newest] == ["2020-01-27"] * 3 + ["2020-02-03"] * 4


@few
@given(st.sampled_from(PERIODS), HOURS)
def test_every_event_before_the_cutoff_is_in_one_period_and_none_after_it(
    period: str, hours: int
) -> None:
    for history in histories(period, after(hours)):
        own = EVENTS.user_offsets[history.user_idx : history.user_idx + 2]
        times = EVENTS.timestamp[own[0] : own[1]]
        assert history.n_events == np.count_nonzero(times < after(hours))
        for period_span, first, stop in zip(
            history.periods, history.offsets[:-1], history.offsets[1:], strict=True
        ):
            found = EVENTS.timestamp[first:stop]
            assert ((period_span.start <= found) & (found < period_span.end)).all()


@few
@given(st.sampled_from(PERIODS), HOURS, HOURS)
def test_ticks_that_have_ended_stay_as_they_are(period: str, first: int, second: int) -> None:
    earlier, later = sorted((after(first), after(second)))
    for short, long in zip(histories(period, earlier), histories(period, later), strict=True):
        (starts, offsets), (own, own_offsets) = split_into_ticks(short), split_into_ticks(long)
        assert starts.tolist() == own[: len(starts)].tolist()
        if len(starts):
            n = len(starts) - 1  # the newest may be running still
            assert offsets[: n + 1].tolist() == own_offsets[: n + 1].tolist()
            assert own_offsets[-1] == long.event_ids.stop


def test_weeks_begin_on_mondays_and_months_on_their_first_day() -> None:
    weeks = boundaries_up_to(START, anchored("1W"), np.datetime64("2020-03-04T10"))
    assert {pd.Timestamp(time).day_name() for time in weeks[:-1]} == {"Monday"}
    quarters = boundaries_up_to(START, anchored("3M"), np.datetime64("2020-08-04"))
    assert [str(time)[:10] for time in quarters] == [
        *("2020-01-01", "2020-04-01", "2020-07-01", "2020-08-04")
    ]


def test_a_period_that_ends_at_the_cutoff_is_the_newest_one() -> None:
    monday = np.datetime64("2020-02-03", "ms")
    bounds = boundaries_up_to(START, anchored("1W"), monday)
    assert (bounds[-2], bounds[-1]) == (np.datetime64("2020-01-27"), monday)


def test_a_running_tick_is_left_out_until_it_holds_an_event() -> None:
    (history, *_) = histories("28D", after(24 * 10))
    starts, offsets = split_into_ticks(history)
    newest = EVENTS.timestamp[history.event_ids.stop - 1]
    just_after = histories("28D", newest + np.timedelta64(1, "ms"))[0]
    assert split_into_ticks(just_after)[0].tolist() == starts.tolist()
    empty = np.diff(offsets) == 0
    assert not empty[-1] or starts[-1] + np.timedelta64(7, "D") <= history.cutoff


def test_periods_of_events_are_as_they_were() -> None:
    world = Dataset("world", EVENTS, ITEMS, "4 events", "films", "viewer", "allow")
    for own, found in zip(
        world.histories(after(500)), histories("4 events", after(500)), strict=True
    ):
        assert own.offsets.tolist() == found.offsets.tolist()
        assert own.bounds.tolist() == found.bounds.tolist()


def test_an_engine_forecasts_a_whole_period_from_its_cutoff_on_with_either_anchor() -> None:
    world = Dataset("world", EVENTS, ITEMS, "7D", "films", "viewer", "allow")
    options = {"data": world, "model": None, "cutoff": "2020-02-01"}
    plain, live = (
        InterestEngine.from_pretrained(**options, anchor=anchor) for anchor in (None, "calendar")
    )
    assert plain.history("u000").periods[-1].start == np.datetime64("2020-01-25")
    assert live.history("u000").periods[-1].start == np.datetime64("2020-01-27")
    assert live.history("u000").n_events == plain.history("u000").n_events
    assert live.history("u000").cutoff == plain.history("u000").cutoff
    frame = pd.DataFrame({"item_id": ["i001", "i002"], "timestamp": ["2020-01-06", "2020-01-30"]})
    assert live.session(frame).history.offsets.tolist()[-3:] == [1, 1, 2]
    weights = live.forecast("u000").category_weights
    assert weights.sum() == pytest.approx(1)


def test_an_anchor_that_is_none_is_refused() -> None:
    world = Dataset("world", EVENTS, ITEMS, "7D", "films", "viewer", "allow")
    wrong = replace(world, anchor="monday")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="anchor is 'monday'; it should be 'cutoff' or 'calendar'"):
        wrong.histories(after(500))
