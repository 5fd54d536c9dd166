from __future__ import annotations

import pytest

from llmrec.data.calendar import PeriodLength
from llmrec.explain.evidence import category_event_ids, category_evidence
from llmrec.explain.facts import format_horizon, format_percent
from tests.explain.people import APPLES, DIPS, person


def test_evidence_is_newest_first_and_distinct_items_come_before_repeats() -> None:
    ann = person(["aaaa", "ba"])  # a0 a1 a2 a0 | b0 a1
    found = category_evidence(APPLES, ann, limit=5)
    assert [event.item_id for event in found] == ["a1", "a0", "a2", "a1", "a0"]
    assert [event.date.day for event in found] == [8, 1, 1, 1, 1]
    assert found[0].event_id > found[1].event_id > found[2].event_id


def test_evidence_of_a_category_never_taken_is_empty() -> None:
    ann = person(["ab"])
    assert category_evidence(DIPS, ann) == ()
    assert category_event_ids(DIPS, ann).size == 0


def test_events_of_a_category_are_log_positions_of_this_person_newest_first() -> None:
    ann = person(["aba"])
    events = category_event_ids(APPLES, ann)
    assert events.tolist() == [ann.event_ids[2], ann.event_ids[0]]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1e-6, "under 0.01%"), (0.0042, "0.42%"), (0.06, "6%"), (0.0912, "9.1%"),
     (0.123, "12%"), (0.9949, "99%"), (0.9999, "100%"), (1, "100%")],
)  # fmt: skip
def test_percentages_have_two_significant_digits(share: float, text: str) -> None:
    assert format_percent(share) == text


@pytest.mark.parametrize(
    ("spec", "text"), [("28D", "28 days"), ("1M", "month"), ("10 events", "10 events")]
)
def test_a_horizon_reads_well_after_the_next(spec: str, text: str) -> None:
    assert format_horizon(PeriodLength.parse(spec)) == text
