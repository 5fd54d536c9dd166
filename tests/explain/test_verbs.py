"""Sentences say what people did in the verb of their log: watched, bought, read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.explain.counterfactual import why_not
from llmrec.explain.describe import check_description, describe_from_claims
from llmrec.explain.explanation import check_explanation, explain_ranked_item
from llmrec.explain.facts import ClaimFacts
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.explain.statements import check_claims, derive_statements
from llmrec.explain.verify import check_item
from llmrec.forecast import STATEMENT_KINDS
from llmrec.ranking.blend import Blend
from llmrec.ranking.ranking import Reranker, make_reranker
from llmrec.types import RepeatPolicy
from tests.explain.people import APPLES, DIPS, FixedScorer, catalog, make_forecast, person

# Apples rise, Bread fades, Cola returns (one of it was never taken), and no Dips were taken.
WEEKS = ["bbbbca", "bbbbca", "bbbaaa", "bbaaaa"]
AHEAD = make_forecast(0.45, 0.15, 0.1, 0.3)
TASTE = Blend((FixedScorer("taste", 1.0),), (1.0,))
VERBS = ("taken", "watched", "bought", "read", "listened to", "{played}")


def someone(verb: str, number: int = 0) -> History:
    return replace(person(WEEKS, user_id=f"ann {number}"), verb=verb)


def rerank_for(ann: History, repeat: RepeatPolicy = "allow") -> Reranker:
    return make_reranker(ann, AHEAD, TASTE, strength=1.0, repeat=repeat)


def all_texts(verb: str, number: int = 0) -> list[str]:
    """Give every sentence about one person that names what they did."""
    ann = someone(verb, number)
    rerank = rerank_for(ann)
    ranked = rerank(())
    explained = [explain_item(ranked, place, ann, AHEAD) for place in range(len(ranked.item_idx))]
    variants = [text for one in explained for each in one.sentence_variants for text in each]
    statements = [
        statement_sentence(replace(one, kind=kind), ann, AHEAD)
        for one in derive_statements(ann, AHEAD)
        for kind in STATEMENT_KINDS
    ]
    _, rejected = check_claims(
        [(kind, c) for kind in STATEMENT_KINDS for c in range(4)], ann, ClaimFacts.of(ann, AHEAD)
    )
    only_new = rerank_for(ann, repeat="exclude")
    excluded = why_not(int(ann.item_idx[0]), only_new, 3, ann.catalog, ann).text
    return [*variants, *statements, *rejected, excluded]


@pytest.mark.parametrize("verb", VERBS[1:])
def test_texts_differ_from_those_of_taken_by_the_verb_alone(verb: str) -> None:
    for number in range(10):  # the wording is drawn for each person
        taken = all_texts("taken", number)
        capital = verb[:1].upper() + verb[1:]
        assert all_texts(verb, number) == [
            text.replace("taken", verb).replace("Taken", capital) for text in taken
        ]


def test_every_kind_of_text_names_the_verb() -> None:
    said = " ".join(text for number in range(10) for text in all_texts("watched", number))
    for part in (
        *("Watched 3 times before", "It was watched before", "Not watched before"),
        *("never watched so far", "(last watched: ", "watched in 4 of 4 active periods"),
        *("it was never watched", "not watched in the last two", "it was watched before"),
        "items watched before are left out here",
    ):
        assert part in said


@pytest.mark.parametrize("verb", VERBS)
def test_the_checkers_accept_what_is_said_in_any_verb(verb: str) -> None:
    ann = someone(verb)
    ahead = describe_from_claims(ann, AHEAD, {})
    rerank = rerank_for(ann)
    assert ahead.statements
    assert check_description(ann, ahead) is None
    for item in range(ann.catalog.n_items):
        found = explain_ranked_item(item, rerank, 3, ann, ahead)
        assert check_explanation(found, item, rerank, ann, ahead) == ()


def test_an_explanation_in_another_verb_than_that_of_the_log_is_an_error() -> None:
    ann = someone("watched")
    ranked = rerank_for(ann)(())
    wrong = replace(explain_item(ranked, 0, ann, AHEAD), verb="bought")
    assert any(
        "verb is 'watched', not 'bought'" in e for e in check_item(wrong, ranked, ann, AHEAD)
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_stored_explanation_keeps_its_verb(verb: str) -> None:
    ann = someone(verb)
    found = explain_item(rerank_for(ann)(()), 0, ann, AHEAD)
    again = ItemExplanation.from_dict(found.to_dict())
    assert (again, again.text, again.model_text) == (found, found.text, "")
    old = {key: value for key, value in found.to_dict().items() if key != "verb"}
    assert ItemExplanation.from_dict(old).verb == "taken"  # explanations of 0.1 have none


def test_histories_of_a_dataset_say_its_verb() -> None:
    ann = person(WEEKS)
    films = Dataset(
        "films", ann.log, catalog(), "7D", "films", "viewer", repeat="exclude", verb="watched"
    )
    cutoff = ann.cutoff
    assert {one.verb for one in films.histories(cutoff)} == {"watched"}
    assert {one.verb for one in replace(films, period="3 events").histories(cutoff)} == {"watched"}
    (first,) = films.histories(cutoff, [ann.user_idx])
    assert first.user_id == ann.user_id
    assert np.array_equal(first.category_counts[:, [APPLES, DIPS]], ann.category_counts[:, [0, 3]])
    events = {"item_id": ["a0"], "timestamp": [cutoff - np.timedelta64(1, "D")]}
    assert films.new_user_history(pd.DataFrame(events), cutoff).verb == "watched"
