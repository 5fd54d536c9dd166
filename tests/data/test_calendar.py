"""Times that somebody gives: a cutoff, the end of an edit."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from llmrec.data.calendar import parse_cutoff, to_datetime64
from llmrec.errors import DataError

APRIL_THIRD = np.datetime64("2024-04-03", "ms")


@pytest.mark.parametrize(
    "value",
    ["2024-04-03", "20240403", "3 Apr 2024", "April 3, 2024", datetime(2024, 4, 3, tzinfo=UTC)],
)
def test_a_day_and_a_month_with_a_year_are_a_time(value: str | datetime) -> None:
    assert to_datetime64(value) == APRIL_THIRD
    if isinstance(value, str):
        assert parse_cutoff(value, None) == APRIL_THIRD


@pytest.mark.parametrize("text", ["3 Apr", "mar", "May", "10 mar", "May 24", "never", "2024-19-04"])
def test_a_text_without_a_day_of_one_year_is_no_time(text: str) -> None:
    for read in (to_datetime64, lambda value: parse_cutoff(value, True)):
        with pytest.raises(DataError, match=f"'{text}' is not a time; write it as 2017-11-05"):
            read(text)


@pytest.mark.parametrize("text", ["1969-12-31", "31 Dec 1969", "31/12/1969", "10 mar 1000"])
def test_nothing_is_known_before_1970(text: str) -> None:
    with pytest.raises(DataError, match="is before 1970"):
        parse_cutoff(text, True)


def test_a_cutoff_in_numbers_is_read_in_the_order_of_the_log() -> None:
    assert parse_cutoff("03/04/2024", True) == APRIL_THIRD
    assert parse_cutoff("04/03/2024", False) == APRIL_THIRD


def test_a_log_without_an_order_leaves_a_cutoff_that_only_one_fits() -> None:
    assert parse_cutoff("13/04/2024", None) == parse_cutoff("04/13/2024", None)
    with pytest.raises(DataError, match="'03/04/2024' is not a time"):
        parse_cutoff("03/04/2024", None)
