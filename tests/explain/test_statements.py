from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmrec.data.periods import History
from llmrec.explain.facts import ClaimFacts
from llmrec.explain.statement_sentences import (
    EVIDENCE_TEMPLATES,
    SENTENCE_TEMPLATES,
    statement_sentence,
)
from llmrec.explain.statements import (
    change_direction,
    check_claims,
    check_statement,
    derive_statements,
    make_statement,
)
from llmrec.forecast import STATEMENT_KINDS, Forecast, Statement, StatementKind
from tests.explain.people import (
    APPLES,
    BREAD,
    CATEGORIES,
    COLA,
    DIPS,
    catalog,
    make_forecast,
    person,
)

# Apples rise, Bread fades, Cola returns after two weeks' pause, Dips were never taken.
WEEKS = ["bbbbcca", "bbbbcca", "bbbaaa", "bbaaaa"]
AHEAD = (0.45, 0.15, 0.1, 0.3)
OPPOSITE: dict[StatementKind, StatementKind] = {
    "rising": "fading",
    "fading": "rising",
    "steady": "new",
    "new": "returning",
    "returning": "new",
}

weeks = st.lists(st.text("abcd", max_size=6), min_size=1, max_size=6)
weights = st.lists(st.floats(0.01, 1), min_size=4, max_size=4)


@pytest.fixture
def ann() -> History:
    return person(WEEKS)


@pytest.fixture
def ahead() -> Forecast:
    return make_forecast(*AHEAD)


@pytest.mark.parametrize(
    ("kind", "category"),
    [("rising", APPLES), ("fading", BREAD), ("returning", COLA), ("new", DIPS)],
)
def test_what_history_and_forecast_show_is_supported(
    kind: StatementKind, category: int, ann: History, ahead: Forecast
) -> None:
    assert check_statement(make_statement(kind, category, ann, ahead), ann, ahead) is None


def test_a_share_that_stays_is_steady() -> None:
    ann, ahead = person(["aab", "aab", "aba"]), make_forecast(0.67, 0.33, 0, 0)
    assert check_statement(make_statement("steady", APPLES, ann, ahead), ann, ahead) is None


@pytest.mark.parametrize(
    ("corruption", "reason"),
    [
        ({"kind": "fading"}, "is not fading: the forecast is not clearly below the past"),
        ({"kind": "steady"}, "is not steady: the forecast clearly leaves the past"),
        ({"kind": "new"}, "is not new: it was taken before"),
        ({"kind": "returning"}, "it was taken in the last two non-empty periods"),
        ({"kind": "soaring"}, "is no kind of statement"),
        ({"category": BREAD}, "Bread is not rising"),
        ({"category": 4}, "not one of the catalog's 4"),
        ({"category": -1}, "not one of the catalog's 4"),
        ({"change": 0.06}, "the change is"),
        ({"change": -0.07}, "the change is"),
        ({"change": float("nan")}, "the change is"),
        ({"event_ids": ()}, "no event is cited"),
        ({"event_ids": (6, 6)}, "cited twice"),
        ({"event_ids": (0,)}, "of another category"),
        ({"event_ids": (10**9,)}, "not in the history of user 'ann'"),
        ({"event_ids": (-1,)}, "not in the history of user 'ann'"),
    ],
)
def test_a_planted_error_is_found_and_described(
    corruption: dict[str, object], reason: str, ann: History, ahead: Forecast
) -> None:
    true = make_statement("rising", APPLES, ann, ahead)
    found = check_statement(replace(true, **corruption), ann, ahead)  # type: ignore[arg-type]
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("by", [0.001, -0.001, 1e-6])
def test_a_change_that_is_a_little_off_is_found(by: float, ann: History, ahead: Forecast) -> None:
    true = make_statement("rising", APPLES, ann, ahead)
    found = check_statement(replace(true, change=true.change + by), ann, ahead)
    assert "the change is" in (found or "")


def test_a_change_of_less_than_half_a_point_with_the_wrong_sign_is_found() -> None:
    ann, ahead = person(["aab", "aab", "aba"]), make_forecast(0.67, 0.33, 0, 0)
    true = make_statement("steady", APPLES, ann, ahead)
    assert 0 < true.change < 0.005
    assert "the change is" in (
        check_statement(replace(true, change=-true.change), ann, ahead) or ""
    )


def test_another_persons_events_are_no_evidence(ann: History, ahead: Forecast) -> None:
    zoes = [
        event
        for event in range(len(ann.log))
        if event not in ann.event_ids and ann.catalog.item_ids[ann.log.item_idx[event]] == "a0"
    ]
    statement = replace(make_statement("rising", APPLES, ann, ahead), event_ids=(zoes[0],))
    assert "not in the history" in (check_statement(statement, ann, ahead) or "")


def test_an_absence_has_no_evidence_to_cite(ann: History, ahead: Forecast) -> None:
    statement = replace(make_statement("new", DIPS, ann, ahead), event_ids=(ann.event_ids[0],))
    assert "no events to cite" in (check_statement(statement, ann, ahead) or "")


def test_a_forecast_direction_against_that_of_the_history_is_not_supported() -> None:
    ann, ahead = person(["aaab", "aaab", "abbb", "abbb"]), make_forecast(0.9, 0.1, 0, 0)
    assert "fell within the history" in (
        check_statement(make_statement("rising", APPLES, ann, ahead), ann, ahead) or ""
    )
    assert "rose within the history" in (
        check_statement(make_statement("fading", BREAD, ann, ahead), ann, ahead) or ""
    )


def test_the_middle_period_belongs_to_the_recent_half() -> None:
    # Earlier half: week 1 (1/4 Apples). Recent half: weeks 2 and 3 (4/8), though week 3 has 1/4.
    ann, ahead = person(["abbb", "aaab", "abbb"]), make_forecast(0.7, 0.3, 0, 0)
    assert check_statement(make_statement("rising", APPLES, ann, ahead), ann, ahead) is None


@pytest.mark.parametrize("kind", ["rising", "fading", "returning"])
@pytest.mark.parametrize("taken", [["aab"], ["", "aab", ""]])
def test_one_non_empty_period_shows_no_direction(kind: StatementKind, taken: list[str]) -> None:
    ann = person(taken)
    for ahead in (make_forecast(0.9, 0.1, 0, 0), make_forecast(0.1, 0.9, 0, 0)):
        assert check_statement(make_statement(kind, APPLES, ann, ahead), ann, ahead) is not None


def test_empty_periods_count_for_nothing() -> None:
    ahead = make_forecast(*AHEAD)
    with_gaps = person([WEEKS[0], "", WEEKS[1], "", "", *WEEKS[2:], ""])
    assert [(s.kind, s.category) for s in derive_statements(with_gaps, ahead)] == [
        (s.kind, s.category) for s in derive_statements(person(WEEKS), ahead)
    ]


def test_a_small_relative_change_is_none_but_a_large_one_is() -> None:
    ann = person(["aaaaaaaaab"] * 4)  # 90 % Apples, 10 % Bread
    ahead = make_forecast(0.88, 0.12, 0, 0)
    assert change_direction(ann, ahead).tolist() == [0, 1, 0, 0]


def test_among_hundreds_of_categories_a_third_of_a_point_counts() -> None:
    items = catalog(tuple(f"c{number:03d}" for number in range(300)))
    ann = person(["a"] * 4, items)
    category_weights = np.full(300, 0.1 / 299)
    category_weights[0] = 0.9
    category_weights[5] += 0.004
    assert change_direction(ann, make_forecast(*category_weights))[5] == 1


def test_without_any_event_only_arrivals_can_be_stated() -> None:
    ann, ahead = person(["", ""]), make_forecast(*AHEAD)
    assert ann.user_id == "zoe"  # no event, no place in the log: take zoe before her first
    empty = History(
        ann.log,
        ann.catalog,
        0,
        np.zeros(2, np.int64),
        ann.bounds[:2],
        ann.bounds[0],
        ann.period_length,
    )
    assert {statement.kind for statement in derive_statements(empty, ahead)} == {"new"}


@settings(max_examples=30)
@given(weeks, weights, st.integers(0, 5))
def test_every_derived_statement_passes_the_checker(
    taken: list[str], category_weights: list[float], limit: int
) -> None:
    ann, ahead = person(taken), make_forecast(*category_weights)
    statements = derive_statements(ann, ahead, limit=limit)
    assert [check_statement(statement, ann, ahead) for statement in statements] == [None] * len(
        statements
    )
    assert len({statement.category for statement in statements}) == len(statements) <= limit


@settings(max_examples=30)
@given(weeks, weights)
def test_a_rising_and_a_fading_statement_are_derived_if_there_are_such(
    taken: list[str], category_weights: list[float]
) -> None:
    ann, ahead = person(taken), make_forecast(*category_weights)
    derived = {statement.kind for statement in derive_statements(ann, ahead, limit=2)}
    for kind in ("rising", "fading"):
        true = [
            check_statement(make_statement(kind, c, ann, ahead), ann, ahead) is None
            for c in range(4)
        ]
        assert (kind in derived) or not any(true)


@settings(max_examples=30)
@given(weeks, weights, st.floats(0.006, 0.5), st.sampled_from([-1, 1]))
def test_every_corrupted_statement_is_found(
    taken: list[str], category_weights: list[float], by: float, sign: int
) -> None:
    ann, ahead = person(taken), make_forecast(*category_weights)
    zoes = [event for event in range(len(ann.log)) if event not in ann.event_ids]
    statements = derive_statements(ann, ahead)
    assume(statements and zoes)
    for statement in statements:
        corruptions = (
            replace(statement, kind=OPPOSITE[statement.kind]),
            replace(statement, change=statement.change + sign * by),
            replace(statement, event_ids=(*statement.event_ids, zoes[0])),
        )
        assert all(check_statement(corruption, ann, ahead) for corruption in corruptions)


def test_what_stays_the_same_is_not_derived_but_a_steady_statement_of_old_is_checked() -> None:
    ann, ahead = person(["aaaaab", "aaaaac", "aaaaab"]), make_forecast(0.84, 0.02, 0.05, 0.09)
    assert APPLES not in [statement.category for statement in derive_statements(ann, ahead)]
    assert check_statement(make_statement("steady", APPLES, ann, ahead), ann, ahead) is None
    assert check_statement(make_statement("steady", DIPS, ann, ahead), ann, ahead)


def test_claims_are_accepted_or_rejected_with_a_reason(ann: History, ahead: Forecast) -> None:
    claims: list[tuple[StatementKind, int]] = [
        ("rising", APPLES), ("rising", BREAD), ("rising", APPLES), ("new", 9), ("new", DIPS),
    ]  # fmt: skip
    accepted, rejected = check_claims(claims, ann, ClaimFacts.of(ann, ahead))
    assert [(s.kind, s.category) for s in accepted] == [("rising", APPLES), ("new", DIPS)]
    assert [reason.split(":")[0] for reason in rejected] == [
        "Bread is not rising",
        "Apples",
        "category 9 is not one of the catalog's 4",
    ]


@pytest.mark.parametrize(
    ("kind", "category", "facts"),
    [
        ("rising", APPLES, ("45%", "35%", "Apples no. 2 and Apples no. 1 on 22 Jan 2020")),
        ("fading", BREAD, ("15%", "50%", "Bread no. 0 and Bread no. 2 on 22 Jan 2020")),
        ("returning", COLA, ("10%", "2 active periods", "Cola no. 0 and Cola no. 2 on 8 Jan 2020")),
        ("new", DIPS, ("30%",)),
    ],
)
def test_every_sentence_has_the_numbers_and_the_newest_titles(
    kind: StatementKind, category: int, facts: tuple[str, ...], ahead: Forecast
) -> None:
    sentences = set()
    for number in range(30):
        ann = person(WEEKS, user_id=f"ann {number}")
        words = statement_sentence(make_statement(kind, category, ann, ahead), ann, ahead)
        assert all(fact in words for fact in (CATEGORIES[category], *facts))
        assert set(re.findall(r"[\d.]+%", words)) == {fact for fact in facts if "%" in fact}
        sentences.add(words)
    assert len(sentences) >= 8


@pytest.mark.parametrize("kind", SENTENCE_TEMPLATES)
def test_any_opening_numbers_and_evidence_make_one_sentence(kind: StatementKind) -> None:
    openings, numbers = SENTENCE_TEMPLATES[kind]
    assert len(openings) >= 3
    assert all(opening.count("{name}") == 1 for opening in openings)
    assert all(text[:2] in (": ", ", ") and text.count("{ahead}") == 1 for text in numbers)
    assert all(text.startswith(" (") and text.endswith(")") for text in EVIDENCE_TEMPLATES)
    assert not any("." in text for text in (*openings, *numbers, *EVIDENCE_TEMPLATES))


def test_a_phrase_of_the_model_is_followed_by_the_numbers(ann: History, ahead: Forecast) -> None:
    words = statement_sentence(
        make_statement("rising", APPLES, ann, ahead), ann, ahead, "on the way up"
    )
    assert re.match(r"Apples on the way up[:,] .*45%", words)
    assert "35%" in words
    assert words.endswith("Apples no. 2 and Apples no. 1 on 22 Jan 2020).")


def test_the_same_statement_of_the_same_person_has_the_same_sentence(ahead: Forecast) -> None:
    for number in range(10):
        first, again = (person(WEEKS, user_id=f"ann {number}") for _ in range(2))
        statement = make_statement("fading", BREAD, first, ahead)
        assert statement_sentence(statement, first, ahead) == statement_sentence(
            statement, again, ahead
        )


def test_a_steady_sentence_has_the_number_of_periods() -> None:
    ann, ahead = person(["aab", "aab", "", "bb"]), make_forecast(0.5, 0.5, 0, 0)
    words = statement_sentence(make_statement("steady", APPLES, ann, ahead), ann, ahead)
    assert words.count("50%") == 2
    assert "2 of 3 active periods" in words
    assert words.endswith("Apples no. 0 and Apples no. 2 on 8 Jan 2020).")


def test_braces_in_names_and_titles_stay() -> None:
    items = catalog(("{ahead}", "{}"), titles="{} {{0}} {}")
    ann, ahead = person(["a", "ab", "aab"], items), make_forecast(0.3, 0.7)
    for statement in derive_statements(ann, ahead):
        words = statement_sentence(statement, ann, ahead)
        assert items.categories[statement.category] in words
        assert "{0}" in words


@settings(max_examples=30)
@given(weeks, weights)
def test_every_derived_statement_has_a_sentence_that_names_its_category(
    taken: list[str], category_weights: list[float]
) -> None:
    ann, ahead = person(taken), make_forecast(*category_weights)
    for statement in derive_statements(ann, ahead):
        words = statement_sentence(statement, ann, ahead)
        assert CATEGORIES[statement.category] in words
        assert words.endswith(".")


def test_every_kind_has_a_rule_and_a_sentence(ann: History, ahead: Forecast) -> None:
    for kind in STATEMENT_KINDS:
        statement = make_statement(kind, APPLES, ann, ahead)
        assert isinstance(statement, Statement)
        assert "Apples" in statement_sentence(statement, ann, ahead)


def test_kinds_take_turns_in_what_is_derived() -> None:
    # Five categories fade and one rises; one is new: it is not left out for more that fade.
    items = catalog(tuple(f"c{number}" for number in range(7)))
    ann, ahead = person(["abcdef", "abcdef"], items), make_forecast(0.5, *[0.05] * 5, 0.25)
    kinds = [statement.kind for statement in derive_statements(ann, ahead)]
    assert sorted(kinds) == ["fading", "fading", "new", "rising"]
