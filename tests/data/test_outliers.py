from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.interactions import Interactions
from llmrec.data.outliers import (
    BOT_EVENTS_PER_DAY,
    MIN_BURST_EVENTS,
    MIN_DAYS_FOR_BURST,
    MIN_EVENTS,
    find_bots,
    find_burst,
    find_stray_dates,
)
from llmrec.data.readers import load_dataset
from llmrec.errors import DataError
from llmrec.types import IntArray, TimeArray

START = np.datetime64("2024-01-01", "ms")


def on(days: Sequence[int] | IntArray) -> TimeArray:
    """Give times on these days after the first of January."""
    return np.asarray(START + np.asarray(days, dtype=np.int64) * np.timedelta64(1, "D"))


def stray(days: Sequence[int]) -> list[int]:
    return [day for day, is_stray in zip(days, find_stray_dates(on(days)), strict=True) if is_stray]


YEAR = list(range(365))


@pytest.mark.parametrize("gap", [-20_000, -182, 182, 900])
def test_one_event_far_from_all_others_is_a_stray_one(gap: int) -> None:
    day = gap if gap < 0 else 364 + gap
    assert stray([*YEAR, day]) == [day]


@pytest.mark.parametrize("gap", [-180, 180, 30])
def test_half_a_year_is_not_far(gap: int) -> None:
    assert stray([*YEAR, gap if gap < 0 else 364 + gap]) == []


def test_far_is_more_than_a_quarter_of_the_time_that_the_others_span() -> None:
    years = list(range(0, 4_000, 10))  # the last event is on day 3990
    assert stray([*years, 3_990 + 990]) == []
    assert stray([*years, 3_990 + 1_000]) == [4_990]
    assert stray([*years, -990]) == []
    assert stray([*years, -1_000]) == [-1_000]


def test_more_than_one_in_a_hundred_are_no_strays() -> None:
    days = list(range(298))
    assert stray([*days, 5_000, 5_001]) == [5_000, 5_001]
    assert stray([*days, 5_000, 5_001, 5_001, 5_001]) == []
    assert stray([*days[:98], -9_000, -3_000]) == [-9_000]  # both would be two in a hundred


def test_strays_lie_on_both_sides() -> None:
    assert stray([-19_000, *YEAR, 900]) == [-19_000, 900]


def test_a_small_log_has_no_strays() -> None:
    assert stray([*range(MIN_EVENTS - 2), 5_000]) == []
    assert stray([*range(MIN_EVENTS - 1), 5_000]) == [5_000]
    assert stray([]) == stray([0]) == stray([0] * 50) == []


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([*range(50), -9_000, 700, 9_000]), max_size=150),
    st.randoms(use_true_random=False),
)
def test_the_order_of_events_does_not_matter(days: list[int], random: Any) -> None:
    order = random.sample(range(len(days)), len(days))
    times = on(days)
    for find in (find_stray_dates, find_burst):
        assert (find(times)[order] == find(times[order])).all()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3_000), min_size=MIN_EVENTS, max_size=300))
def test_strays_are_few_and_far(days: list[int]) -> None:
    found = stray(days)
    left = [day for day in days if day not in found]
    for side in ([d for d in found if d < min(left)], [d for d in found if d > max(left)]):
        assert len(side) <= max(1, 0.01 * len(days))
        gaps = (min(left) - max(side), min(side) - max(left)) if side else ()
        assert all(gap < 0 or gap > max(180, 0.25 * (max(left) - min(left))) for gap in gaps)


def burst(on_one_day: int, days: int = 100, events_a_day: int = 10) -> int:
    others = np.repeat(np.arange(days), events_a_day)
    found = find_burst(on(np.concatenate((others, np.full(on_one_day - events_a_day, days // 2)))))
    return int(found.sum())


def test_a_day_on_which_the_log_was_filled_is_a_burst() -> None:
    assert burst(5_000) == 5_000


def test_a_burst_has_many_events_a_fifth_of_all_and_twenty_times_the_median() -> None:
    assert burst(MIN_BURST_EVENTS) == 0
    assert burst(MIN_BURST_EVENTS + 1) == MIN_BURST_EVENTS + 1
    # 99 other days of 100 events: a fifth of all are 2475, twenty times the median 2000.
    assert burst(2_475, events_a_day=100) == 0
    assert burst(2_476, events_a_day=100) == 2_476
    # 29 other days of 100 events: a fifth of all are 500 only.
    assert burst(2_000, days=30, events_a_day=100) == 0
    assert burst(2_001, days=30, events_a_day=100) == 2_001


def test_a_short_log_has_no_burst() -> None:
    assert burst(5_000, days=MIN_DAYS_FOR_BURST - 1) == 0
    assert burst(5_000, days=MIN_DAYS_FOR_BURST) == 5_000
    assert find_burst(on([])).tolist() == []


def test_two_such_days_are_both_set_aside() -> None:
    days = [*range(60), *[7] * 5_000, *[9] * 4_000]
    found = find_burst(on(days))
    assert sorted(set(np.array(days)[found])) == [7, 9]


def test_a_bot_has_more_events_on_one_utc_day_than_the_limit() -> None:
    users = np.repeat([0, 1, 2], [6, 5, 12])
    days = np.concatenate((np.zeros(11, int), np.arange(12)))
    assert find_bots(users, on(days), 5).tolist() == [True] * 6 + [False] * 17
    late = START + np.timedelta64(23, "h") + np.arange(6) * np.timedelta64(12, "m")
    assert (
        find_bots(np.zeros(6, int), late, 5).tolist() == [False] * 6
    )  # the last is after midnight
    assert find_bots(np.zeros(6, int), late - np.timedelta64(1, "h"), 5).all()
    assert find_bots(np.zeros(0, int), on([]), 5).tolist() == []


def frame(days: Sequence[int], user: str = "u", start: int = 0) -> pd.DataFrame:
    items = [f"i{start + n}" for n in range(len(days))]
    return pd.DataFrame({"user_id": user, "item_id": items, "timestamp": on(days)})


def test_strays_and_bursts_are_named_in_the_report_and_can_be_kept() -> None:
    people = [frame([20] * 1_000, f"p{n}", start=1_000 * n) for n in range(2)]
    events = pd.concat([frame([*range(50), 5_000]), *people])
    latest = np.datetime64("2100-01-01", "ms")
    log = Interactions.from_frame(events, latest=latest)
    assert len(log) == 49
    told = {one.rule.partition(":")[0]: one for one in log.report.findings}
    assert {name: one.rows for name, one in told.items()} == {
        "stray date": 1,
        "one-day burst": 2_001,
    }
    assert {one.effect for one in told.values()} == {"set aside"}
    assert told["stray date"].example == "row 50: 2037-09-09 00:00:00"
    assert len(Interactions.from_frame(events, latest=latest, keep_outliers=True)) == 2_051


def test_who_asks_for_a_bot_is_told_of_the_rule() -> None:
    events = pd.concat([frame([0] * (BOT_EVENTS_PER_DAY + 1), "bot"), frame(range(30))])
    log = Interactions.from_frame(events)
    assert log.user_ids.tolist() == ["u"]
    (finding,) = log.report.findings
    assert (finding.rule, finding.rows) == ("bot: more than 1,000 events in one day", 1_001)
    with pytest.raises(DataError, match=r"'bot' has no event here: all were left out \(bot: more"):
        log.user_index("bot")
    kept = Interactions.from_frame(events, bot_events_per_day=None)
    assert kept.user_ids.tolist() == ["bot", "u"]
    assert len(kept) == 1_001 + 30  # nor are they a burst


def test_a_burst_of_many_people_is_found_beside_a_bot_that_is_kept() -> None:
    people = [frame([5] * 500, f"p{n}", start=500 * n) for n in range(10)]
    events = pd.concat([frame([5] * 3_000, "bot"), frame(range(60)), *people])
    log = Interactions.from_frame(events, bot_events_per_day=None)
    (finding,) = log.report.findings
    assert (finding.rule.partition(":")[0], finding.rows) == ("one-day burst", 5_001)
    assert log.user_ids.tolist() == ["bot", "u"]


def test_a_stray_date_moves_neither_end_of_a_log() -> None:
    events = pd.concat([frame(range(40)), frame([-19_000, 600], "v", 40)])
    log = Interactions.from_frame(events)
    assert [str(time)[:10] for time in (log.timestamp.min(), log.timestamp.max())] == [
        "2024-01-01",
        "2024-02-09",
    ]
    with pytest.raises(DataError, match=r"user 'v' has no event here: all were left out \(stray"):
        log.user_index("v")


@pytest.mark.parametrize("name", ["ml-100k", "completejourney"])
def test_nothing_of_the_embedded_logs_is_set_aside(name: str) -> None:
    dataset = load_dataset(name)
    assert not [one.rule for one in dataset.findings if one.effect == "set aside"]
