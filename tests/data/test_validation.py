from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.validation import parse_timestamps
from llmrec.errors import DataError

NOON = np.datetime64("2020-01-01T12:00:00", "ms")
NOON_SECONDS = 1_577_880_000


def parsed(values: Any, **options: Any) -> list[np.datetime64 | None]:
    times = parse_timestamps(pd.Series(values, name="when"), **options)
    assert times.dtype == "datetime64[ms]"
    return [None if np.isnat(time) else time for time in times]


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
def test_the_unit_of_numbers_is_found_from_their_size(per_second: int) -> None:
    assert parsed([NOON_SECONDS * per_second]) == [NOON]


@pytest.mark.parametrize(
    "value",
    [
        "2020-01-01 12:00:00",
        "2020-01-01T13:00:00+01:00",
        "2020-01-01 12:00:00+00",
        "2020-01-01T12:00:00Z",
        " 2020-01-01 12:00 ",
        "01/01/2020 12:00:00 PM",
        str(NOON_SECONDS),
        datetime(2020, 1, 1, 12),
        datetime(2020, 1, 1, 12, tzinfo=UTC),
        pd.Timestamp("2020-01-01 07:00", tz="US/Eastern"),
    ],
)
def test_every_way_to_write_a_time_gives_the_same_utc_time(value: object) -> None:
    assert parsed([value]) == [NOON]


def test_a_day_alone_is_its_midnight() -> None:
    midnight = np.datetime64("2020-01-01", "ms")
    assert parsed([date(2020, 1, 1), "2020-01-01"]) == [midnight, midnight]


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, -1, 1e300, 4_102_444_800, 99_999_999_999, None]
)
def test_numbers_that_are_no_possible_time_become_nat(value: float | None) -> None:
    assert parsed([NOON_SECONDS, NOON_SECONDS, value]) == [NOON, NOON, None]


@pytest.mark.parametrize(
    "value", ["banana", "", "1969-12-31", "9999-12-31", "123456-01-01", "2020-02-30", "10", None]
)
def test_texts_that_are_no_possible_time_become_nat(value: str | None) -> None:
    assert parsed(["2020-01-01 12:00", "2020-01-01 12:00", value]) == [NOON, NOON, None]


def test_latest_moves_the_end_of_possible_times() -> None:
    future = np.datetime64("2100-01-01", "ms")
    assert parsed(["2100-01-01"]) == [None]
    assert parsed(["2100-01-01"], latest=future) == [future]


def test_mixed_units_are_refused_with_the_row() -> None:
    with pytest.raises(DataError, match=r"'when' mixes units.*'s', row 2 .*'ms'.*unit="):
        parsed([NOON_SECONDS, NOON_SECONDS, NOON_SECONDS * 1000])


def test_a_given_unit_is_used_whatever_the_numbers_look_like() -> None:
    assert parsed([NOON_SECONDS], unit="ms")[0] == np.datetime64("1970-01-19T06:18:00", "ms")
    with pytest.raises(DataError, match="unit 'hours' is not one of 's'"):
        parsed([1], unit="hours")


@pytest.mark.parametrize(
    "values",
    [
        ["2020-01-01 12:00:00", "2020-01-01 12:00:00", "2020-01-01 12:00:00+02:00"],
        [datetime(2020, 1, 1), datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)],
    ],
)
def test_times_with_and_without_a_zone_are_not_mixed(values: list[object]) -> None:
    with pytest.raises(DataError, match=r"'when' mixes times with and without a time zone: row 2"):
        parsed(values)


def test_different_zones_are_one_time_line() -> None:
    assert parsed(["2020-01-01T12:00Z", "2020-01-01T17:30+05:30"]) == [NOON, NOON]


def test_ambiguous_days_follow_the_format_that_fits_most_rows() -> None:
    assert parsed(["03/04/2019", "25/12/2019"])[0] == np.datetime64("2019-04-03", "ms")
    assert parsed(["03/04/2019", "12/25/2019"])[0] == np.datetime64("2019-03-04", "ms")


def test_booleans_are_no_times() -> None:
    with pytest.raises(DataError, match="booleans"):
        parsed([True, False])


@settings(max_examples=25)
@given(
    st.lists(
        st.datetimes(datetime(1990, 1, 1), datetime(2025, 1, 1)).map(
            lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
        ),
        min_size=1,
    )
)
def test_texts_numbers_and_datetimes_agree(times: list[datetime]) -> None:
    expected = [np.datetime64(time, "ms") for time in times]
    assert parsed(times) == expected
    assert parsed([time.isoformat() for time in times]) == expected
    assert parsed([int(time.astype(np.int64)) for time in expected], unit="ms") == expected
