from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest

from llmrec.data.check import DatasetCheck, check_dataset, summarize_reading
from llmrec.data.readers import read_table

COLUMNS = ["user_id", "item_id", "timestamp", "categories"]
START = date(2024, 1, 1)
TEA, BREAD = ("tea", "Drinks"), ("bread", "Bakery")


def rows(n_people: int = 60, n_visits: int = 45, start: date = START) -> list[tuple[str, ...]]:
    """Give the events of people who take tea and bread in turn, one every four days."""
    return [
        (
            f"p{person:02d}",
            (TEA, BREAD)[visit % 2][0],
            str(start + timedelta(days=4 * visit + person % 4)),
            (TEA, BREAD)[visit % 2][1],
        )
        for visit in range(n_visits)
        for person in range(n_people)
    ]


def check(events: list[tuple[Any, ...]], **options: Any) -> DatasetCheck:
    return check_dataset(read_table(pd.DataFrame(events, columns=COLUMNS), **options))


def test_what_is_left_after_cleaning_is_counted() -> None:
    found = check([*rows(), ("p00", "tea", "no time", "Drinks")])
    assert (found.users, found.items, found.interactions) == (60, 2, 2700)
    assert found.categories == ("Bakery", "Drinks")
    assert (found.first[:10], found.last[:10]) == ("2024-01-01", "2024-06-28")
    assert (found.n_periods, found.n_windows) == (6, 60)
    assert found.n_compared == {"validation": 60, "test 1": 60, "test 2": 60}
    assert found.warnings == ()


def test_it_can_be_written_as_json() -> None:
    found = check([*rows(), ("p00", "tea", "no time", "Drinks")]).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["categories"] == ["Bakery", "Drinks"]
    assert found["report"] == [
        {
            "rule": "time that is not understood",
            "rows": 1,
            "example": "row 2700: no time",
            "effect": "dropped",
        }
    ]


def test_the_summary_says_in_a_line_what_was_read_left_out_and_how() -> None:
    seconds = [(who, what, 1_704_067_200, kind) for who, what, _, kind in rows()]
    events = [*seconds, ("p00", "tea", None, "Drinks")]
    summary = summarize_reading(read_table(pd.DataFrame(events, columns=COLUMNS)))
    assert summary == (
        "table: 120 events of 60 people, 2024-01-01 to 2024-01-01; 2,581 of 2,701 rows left out "
        "(1 missing time; 2,580 duplicate); numbers in column 'timestamp' are seconds since 1970."
    )


def test_the_lines_say_all_of_it() -> None:
    lines = check(
        [*rows(), ("p00", "tea", None, "Drinks")], noun="goods", verb="bought", repeat="exclude"
    ).lines()
    assert lines[0] == "table: 2,700 events of 60 people and 2 goods in 2 categories"
    assert lines[1] == "  first event 2024-01-01, last event 2024-06-28 (UTC)"
    assert lines[2] == "  period 28 days; goods already bought may not be recommended again"
    at = lines.index("What was left out or changed")
    assert lines[at + 1 : at + 3] == [
        "  1 of 2,701 rows left out",
        "  1 row dropped: missing time (row 2700)",
    ]
    assert lines[-1].startswith(
        "  6 periods of 28 days; 60 people have events before and in the last"
    )


def test_how_dates_were_read_is_told() -> None:
    events = [
        (who, what, date.fromisoformat(day).strftime("%d/%m/%Y"), kind)
        for who, what, day, kind in rows()
    ]
    told = "dates in column 'timestamp' are read day first"
    assert any(told in line for line in check(events).lines())


def hints(*categories: str) -> list[str]:
    """Give the warnings of a log whose items have these categories."""
    events = [
        (who, f"{what} {name}", day, name) for name in categories for who, what, day, _ in rows()
    ]
    return list(check(events).warnings)


def test_few_people_and_few_events_are_warned_of() -> None:
    (few,) = check(rows(n_people=49)).warnings
    assert few.startswith("Fewer than 50 people")
    assert "no scores are calibrated" in few
    assert "nothing is fitted" in check(rows(n_people=9)).warnings[0]
    assert check(rows(n_people=50)).warnings == ()
    (few,) = [one for one in check(rows(n_visits=2)).warnings if "Half" in one]
    assert few.startswith("Half of the people have fewer than 3 events")


def test_one_category_and_very_many_are_warned_of() -> None:
    assert hints("All") == ["There is one category only: a forecast of categories says nothing."]
    assert hints(*(f"c{n}" for n in range(2))) == []
    days = [str(START + timedelta(days=n % 90)) for n in range(301)]
    many = check([(f"p{n % 12}", f"i{n}", day, f"c{n}") for n, day in enumerate(days)])
    assert any(one.startswith("301 categories are more than the 300") for one in many.warnings)


def test_a_long_time_without_events_is_warned_of() -> None:
    later = rows(start=date(2026, 1, 1))
    gap = check([*rows(), *later]).warnings[0]
    assert "for 552 days from 2024-06-28 to 2026-01-01, and 2,700 events lie on the far side" in gap
    assert check([*rows(), *rows(start=date(2024, 8, 1))]).warnings == ()


@pytest.mark.parametrize("names", [("A, B", "A, C", "A", "C"), ("A, B", "B, C", "A, C")])
def test_names_that_look_like_lists_are_pointed_out(names: tuple[str, ...]) -> None:
    (hint,) = hints(*names)
    assert "hold commas, such as 'A, B'" in hint
    assert hint.endswith("--separator ','.")


def test_names_that_merely_hold_a_comma_are_not() -> None:
    assert hints("Nuts, dried", "Hair care, men", "Tea", "Bread") == []
