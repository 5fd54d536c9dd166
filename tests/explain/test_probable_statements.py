"""Statements that say how likely they are."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from llmrec.data.periods import History
from llmrec.explain.describe import (
    EMPTY_DESCRIPTION,
    check_description,
    describe_forecasts,
    describe_from_claims,
)
from llmrec.explain.facts import ClaimFacts
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.statement_sentences import (
    EVIDENCE_TEMPLATES,
    PROBABILITY_TEMPLATES,
    statement_sentence,
)
from llmrec.explain.statements import (
    check_claims,
    check_statement,
    derive_statements,
    make_statement,
    statements_for,
)
from llmrec.forecast import STATEMENT_KINDS, Forecast, Statement, StatementKind
from llmrec.ranking.blend import Blend
from llmrec.ranking.ranking import make_reranker
from tests.explain.fixed_chances import RATES, FixedChances
from tests.explain.people import (
    APPLES,
    BREAD,
    COLA,
    DIPS,
    FixedScorer,
    make_forecast,
    person,
)

# Apples always, Bread lately, Cola long ago, Dips never.
WEEKS = ["aaacc", "aaa", "aab", "aabb"]


@pytest.fixture
def ann() -> History:
    return person(WEEKS)


@pytest.fixture
def ahead() -> Forecast:
    return likely(0.35, 0.05, 0.3, 0.3)


def likely(*weights: float, kinds: tuple[StatementKind, ...] = STATEMENT_KINDS) -> Forecast:
    return replace(make_forecast(*weights), statement_model=FixedChances(kinds))


def test_a_statement_has_the_probability_of_the_model_and_the_usual_rate(
    ann: History, ahead: Forecast
) -> None:
    statement = make_statement("again", APPLES, ann, ahead)
    assert statement.probability == pytest.approx(1 - 0.65**6)
    assert statement.usual_rate == RATES["again"]
    assert check_statement(statement, ann, ahead) is None


@pytest.mark.parametrize(
    ("kind", "category", "word"),
    [
        ("again", APPLES, r": almost surely \(92%\)"),
        ("fading", APPLES, r": almost surely \(99%\)"),
        ("new", DIPS, r": likely \(88%\)"),
        ("returning", COLA, r": likely \(88%\)"),
        ("nothing of", BREAD, r": more likely than not \(74%\)"),
        ("rising", COLA, r": likely \(8\d%\)"),
    ],
)
def test_the_sentence_says_it_in_a_word_and_a_number(
    ann: History, ahead: Forecast, kind: StatementKind, category: int, word: str
) -> None:
    for number in range(30):  # the wording is drawn for each person
        history = person(WEEKS, user_id=f"ann {number}")
        sentence = statement_sentence(
            make_statement(kind, category, history, ahead), history, ahead
        )
        assert re.search(word, sentence), sentence
    phrase = statement_sentence(
        make_statement(kind, category, ann, ahead), ann, ahead, "on the rise"
    )
    assert re.search(f"on the rise{word}", phrase)


def test_what_is_unlikely_but_unusual_is_said_with_the_usual_rate(ann: History) -> None:
    ahead = likely(0.5, 0.3, 0.11, 0.09)
    sentence = statement_sentence(make_statement("new", DIPS, ann, ahead), ann, ahead)
    assert "more likely than usual (43%, usually 10%)" in sentence


def test_no_probability_is_written_as_certain(ann: History) -> None:
    ahead = likely(0.97, 0.01, 0.01, 0.01)
    sentence = statement_sentence(make_statement("again", APPLES, ann, ahead), ann, ahead)
    assert "almost surely (above 99%)" in sentence
    assert "100%" not in sentence


@pytest.mark.parametrize("kind", STATEMENT_KINDS)
def test_any_opening_numbers_and_evidence_make_one_sentence(kind: StatementKind) -> None:
    openings, numbers = PROBABILITY_TEMPLATES[kind]
    assert len(openings) >= 3
    assert all(opening.count("{name}") == 1 for opening in openings)
    assert all(text.startswith(", ") for text in numbers)
    assert not any(char in text for text in (*openings, *numbers) for char in ".:")
    assert EVIDENCE_TEMPLATES


@pytest.mark.parametrize(
    "corruption",
    [
        {"probability": 0.93},
        {"probability": float("nan")},
        {"usual_rate": 0.5},
        {"usual_rate": None},
        {"kind": "nothing of"},
        {"kind": "steady"},
        {"category": BREAD},
        {"change": 0.1},
        {"event_ids": ()},
    ],
)
def test_every_part_of_a_statement_is_checked(
    ann: History, ahead: Forecast, corruption: dict[str, object]
) -> None:
    true = make_statement("again", APPLES, ann, ahead)
    assert check_statement(replace(true, **corruption), ann, ahead)  # type: ignore[arg-type]


def test_a_probability_without_a_model_that_gives_it_is_an_error(ann: History) -> None:
    ahead = make_forecast(0.3, 0.3, 0.2, 0.2)
    fading = make_statement("fading", APPLES, ann, ahead)
    assert fading.probability is None
    assert check_statement(fading, ann, ahead) is None
    assert check_statement(replace(fading, probability=0.8, usual_rate=0.2), ann, ahead)
    assert "nothing was fitted" in (
        check_statement(make_statement("again", APPLES, ann, ahead), ann, ahead) or ""
    )


def test_a_statement_that_leaves_its_probability_out_is_an_error_where_it_is_known(
    ann: History,
) -> None:
    weights = (0.3, 0.3, 0.2, 0.2)
    plain = make_statement("fading", APPLES, ann, make_forecast(*weights))
    assert plain.probability is None
    assert check_statement(plain, ann, make_forecast(*weights)) is None
    assert "probability" in (check_statement(plain, ann, likely(*weights)) or "")


def test_a_description_that_leaves_a_statement_out_is_an_error(
    ann: History, ahead: Forecast
) -> None:
    described = describe_from_claims(ann, ahead, {})
    assert len(described.statements) > 1
    last = statement_sentence(described.statements[-1], ann, described)
    for text in ("", last):
        assert check_description(ann, replace(described, description=text))


def test_of_a_kind_that_was_not_fitted_nothing_is_said(ann: History) -> None:
    kinds: tuple[StatementKind, ...] = ("again", "fading")
    ahead = likely(0.35, 0.05, 0.3, 0.3, kinds=kinds)
    assert {one.kind for one in derive_statements(ann, ahead)} <= set(kinds)
    accepted, (reason,) = check_claims([("new", DIPS)], ann, ClaimFacts.of(ann, ahead))
    assert not accepted
    assert "not known how often" in reason
    nothing = likely(0.35, 0.05, 0.3, 0.3, kinds=())
    (described,) = describe_forecasts([ann], [nothing])
    assert described.statements == ()
    assert described.description == EMPTY_DESCRIPTION
    assert check_description(ann, described) is None


def test_what_is_not_likely_enough_is_refused_with_its_reason(ann: History) -> None:
    ahead = likely(0.2, 0.4, 0.2, 0.2)
    _, (again, new) = check_claims(
        [("again", APPLES), ("new", APPLES)], ann, ClaimFacts.of(ann, ahead)
    )
    assert "less likely than 80%" in again
    assert "it was taken before" in new


def test_of_an_item_the_forecasts_own_statement_is_taken_else_what_tells_most(
    ann: History, ahead: Forecast
) -> None:
    own = make_statement("fading", APPLES, ann, ahead)
    said = statements_for([APPLES, DIPS, BREAD], ann, replace(ahead, statements=(own,)))
    assert said[0] == own
    assert [one.kind for one in said] == ["fading", "new", "fading"]
    (again,) = statements_for([APPLES], ann, ahead)
    assert again.kind == "again"  # .52 above what is usual, and fading .36


def test_descriptions_of_many_are_those_of_each(ahead: Forecast) -> None:
    people = [person(WEEKS, user_id=f"ann {number}") for number in range(5)]
    people += [person(["ab", "bc"], user_id="bob")]
    forecasts = [ahead, make_forecast(0.7, 0.1, 0.1, 0.1), *[ahead] * 4]
    together = describe_forecasts(people, forecasts)
    for history, forecast, one in zip(people, forecasts, together, strict=True):
        alone = describe_from_claims(history, forecast, {})
        assert (one.description, one.statements) == (alone.description, alone.statements)
        assert check_description(history, one) is None


def test_the_model_may_word_a_statement_and_not_its_number(ann: History, ahead: Forecast) -> None:
    described = describe_from_claims(ann, ahead, {("again", APPLES): "as usual"})
    assert described.description.startswith("Apples as usual: almost surely (92%), ")
    assert check_description(ann, described) is None
    for wrong in ("likely (92%)", "almost surely (93%)"):
        text = described.description.replace("almost surely (92%)", wrong)
        assert check_description(ann, replace(described, description=text))


def test_an_items_statement_says_the_same_number_and_can_be_stored(
    ann: History, ahead: Forecast
) -> None:
    ahead = describe_from_claims(ann, ahead, {})
    rerank = make_reranker(
        ann, ahead, Blend((FixedScorer("taste", 1.0),), (1.0,)), strength=1, repeat="allow"
    )
    found = explain_item(rerank(()), 0, ann, ahead)
    (own,) = [one for one in ahead.statements if one.category == APPLES]
    (text,) = found.statements
    assert (text.probability, text.usual_rate) == (own.probability, own.usual_rate)
    assert text.text in ahead.description
    again = ItemExplanation.from_dict(found.to_dict())
    assert again == found
    without = found.to_dict()
    for statement in without["statements"]:  # as version 0.1 stored it
        del statement["probability"], statement["usual_rate"]
    assert ItemExplanation.from_dict(without).statements[0].probability is None


def test_a_person_with_one_event_is_told_what_can_be_said() -> None:
    someone, ahead = person(["a"]), likely(0.9, 0.04, 0.03, 0.03)
    said = derive_statements(someone, ahead)
    assert [(one.kind, one.category) for one in said] == [("again", APPLES)]
    assert all(np.isfinite(one.probability or np.nan) for one in said)


def test_statements_of_a_person_are_at_most_four_and_of_one_category_each() -> None:
    ann, ahead = person(WEEKS), likely(0.3, 0.02, 0.34, 0.34)
    said = derive_statements(ann, ahead)
    assert len({one.category for one in said}) == len(said) <= 4
    assert all(isinstance(one, Statement) for one in said)
    assert len(derive_statements(ann, ahead, limit=1)) == 1
