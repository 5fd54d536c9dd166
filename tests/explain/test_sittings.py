"""What was done within one sitting has not been absent: no statement calls it returning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.explain.facts import ClaimFacts
from llmrec.explain.statements import (
    check_claims,
    check_statement,
    derive_statements,
    make_statement,
    statements_for,
)
from llmrec.forecast import Forecast
from tests.explain.people import APPLES, START, catalog, make_forecast

AHEAD = make_forecast(0.4, 0.3, 0.2, 0.1)
Event = tuple[str, int]  # category, and minutes since the event before


def history_of(events: list[Event], period: str) -> History:
    minutes = np.cumsum([gap for _, gap in events])
    frame = pd.DataFrame(
        {
            "user_id": "ann",
            "item_id": [f"{category}0" for category, _ in events],
            "timestamp": START + minutes.astype("timedelta64[m]"),
        }
    )
    return make_histories(Interactions.from_frame(frame), catalog(), period)[0]


def returns(category: int, ann: History, ahead: Forecast = AHEAD) -> bool:
    return check_statement(make_statement("returning", category, ann, ahead), ann, ahead) is None


def minutes_without_pause(category: str, events: list[Event]) -> bool:
    """Whether no gap of more than 30 minutes lies between its last event and the newest one."""
    last = max(at for at, (name, _) in enumerate(events) if name == category)
    return all(gap <= 30 for _, gap in events[last + 1 :])


events = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 1, 29, 30, 31, 90, 20_000])),
    min_size=1,
    max_size=14,
)


@settings(max_examples=200)
@given(events, st.sampled_from(["1 events", "2 events", "3 events", "1D", "7D"]))
def test_nothing_of_the_newest_sitting_is_ever_said_to_return(
    taken: list[Event], period: str
) -> None:
    ann = history_of(taken, period)
    derived = [*derive_statements(ann, AHEAD), *statements_for(range(4), ann, AHEAD)]
    accepted, _ = check_claims(
        [("returning", category) for category in range(4)], ann, ClaimFacts.of(ann, AHEAD)
    )
    for one in (*derived, *accepted):
        if one.kind == "returning":
            assert not minutes_without_pause("abcd"[one.category], taken)


@pytest.mark.parametrize(("gap", "is_return"), [(0, False), (30, False), (31, True)])
def test_a_category_returns_only_after_a_pause_of_more_than_30_minutes(
    gap: int, is_return: bool
) -> None:
    ann = history_of([("a", 0), ("b", gap), ("b", 10), ("b", 10), ("b", 10)], "1 events")
    assert ann.recently_absent[APPLES]  # prompts list it as gone either way
    assert returns(APPLES, ann) is is_return


def test_a_sitting_is_as_long_as_its_events_follow_one_another() -> None:
    hours = [("a", 0), *[("b", 30)] * 20]
    assert not returns(APPLES, history_of(hours, "2 events"))


def test_the_reason_names_the_sitting() -> None:
    ann = history_of([("a", 0), ("b", 5), ("b", 5), ("b", 5)], "1 events")
    _, (reason,) = check_claims([("returning", APPLES)], ann, ClaimFacts.of(ann, AHEAD))
    assert "it was taken in the sitting of the newest event" in reason
