from __future__ import annotations

import datetime
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from llmrec.explain.item import explain_item
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.explain.statements import make_statement
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Ranking, rank
from tests.explain.people import BREAD, CATEGORIES, FixedScorer, catalog, make_forecast, person

AHEAD = make_forecast(0.4, 0.3, 0.2, 0.1)
TASTES = Blend((FixedScorer("taste", 1.0), FixedScorer("habit", 2.0)), (0.7, 0.3))


def ranking(weeks: list[str], strength: float = 1.0) -> Ranking:
    return rank([AHEAD], [person(weeks)], TASTES, k=12, strength=strength)[0]


def position_of(item_id: str, ranked: Ranking) -> int:
    return int(np.flatnonzero(ranked.item_idx == catalog().item_index(item_id))[0])


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_parts_of_an_explanation_sum_to_the_score(strength: float) -> None:
    ranked, ann = ranking(["aab", "c"], strength), person(["aab", "c"])
    for position in range(len(ranked.item_idx)):
        explained = explain_item(ranked, position, ann, AHEAD)
        parts = [*explained.scorer_parts.values(), *explained.category_parts.values()]
        assert math.isclose(sum(parts), explained.score, abs_tol=1e-9)
        assert explained.rank == position + 1


def test_an_item_taken_before_cites_itself_with_count_and_last_day() -> None:
    weeks = ["aaaab", "aa"]  # Apples no. 0 is taken first, fourth; no. 1 second, fifth
    ranked, ann = ranking(weeks), person(weeks)
    explained = explain_item(ranked, position_of("a1", ranked), ann, AHEAD)
    assert (explained.times_taken, explained.last_taken) == (2, datetime.date(2020, 1, 8))
    assert {event.item_id for event in explained.evidence} == {"a1"}
    tilt = sum(explained.category_parts.values())
    assert explained.text == (
        "Taken 2 times before, last on 8 Jan 2020. Its category Apples is forecast at 40% "
        f"(86% so far) for the next 7 days; the forecast {'lifts' if tilt > 0 else 'lowers'} "
        f"its score by {abs(tilt):.2f}."
    )


def test_the_text_of_an_item_taken_once_is_that_it_was() -> None:
    ranked = ranking(["ab"])
    explained = explain_item(ranked, position_of("a0", ranked), person(["ab"]), AHEAD)
    assert explained.text.startswith("Taken once before, on 1 Jan 2020.")


def test_an_item_not_taken_cites_the_latest_of_its_category() -> None:
    ranked = ranking(["ab"])
    explained = explain_item(ranked, position_of("a2", ranked), person(["ab"]), AHEAD)
    assert explained.times_taken == 0
    assert explained.text.startswith(
        "Not taken before; one event of Apples: Apples no. 0 on 1 Jan 2020."
    )
    ranked = ranking(["aab"])
    explained = explain_item(ranked, position_of("a2", ranked), person(["aab"]), AHEAD)
    assert explained.category_events == {"Apples": 2}
    assert explained.text.startswith(
        "Not taken before; the latest of 2 events of Apples: Apples no. 1 on 1 Jan 2020."
    )


def test_an_item_whose_categories_were_never_taken_has_no_evidence() -> None:
    ranked = ranking(["ab"])
    explained = explain_item(ranked, position_of("d0", ranked), person(["ab"]), AHEAD)
    assert explained.evidence == ()
    assert explained.text.startswith("Neither it nor anything of its categories was taken before.")


def test_where_the_tilt_adds_nothing_the_rank_rests_on_the_scorers() -> None:
    ranked = ranking(["ab"], strength=0)
    explained = explain_item(ranked, 0, person(["ab"]), AHEAD)
    assert "its rank rests on the scorers (taste, habit)" in explained.text
    assert "score by" not in explained.text


def test_an_explanation_survives_json() -> None:
    ranked = ranking(["ab"])
    explained = explain_item(ranked, position_of("b0", ranked), person(["ab"]), AHEAD)
    fields = json.loads(json.dumps(explained.to_dict(), allow_nan=False))
    assert fields["last_taken"] == "2020-01-01"
    assert fields["evidence"][0]["date"] == "2020-01-01"
    assert fields["text"] == explained.text
    assert fields["past_shares"] == {"Bread": 0.5}


@pytest.mark.parametrize("position", [-1, 12])
def test_a_position_outside_the_ranking_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match=f"position {position} is outside a ranking of 12"):
        explain_item(ranking(["ab"]), position, person(["ab"]), AHEAD)


def test_past_share_and_forecast_share_are_those_of_history_and_forecast() -> None:
    ranked = ranking(["aab", "b"])
    explained = explain_item(ranked, position_of("b0", ranked), person(["aab", "b"]), AHEAD)
    assert explained.past_shares == {"Bread": 0.5}
    assert explained.forecast_shares == {"Bread": AHEAD.category_weights[BREAD]}


def test_an_item_has_the_forecasts_own_statement_or_else_a_derived_one() -> None:
    weeks = ["bbbbcca", "bbbbcca", "bbbaaa", "bbaaaa"]
    ann, ahead = person(weeks), make_forecast(0.45, 0.15, 0.1, 0.3)
    own = make_statement("rising", 0, ann, ahead)
    ahead = replace(ahead, statements=(own,))
    (ranked,) = rank([ahead], [ann], TASTES, k=12)
    for position in range(12):
        explained = explain_item(ranked, position, ann, ahead)
        (statement,) = explained.statements
        assert statement.category in explained.forecast_shares
        assert statement.text == statement_sentence(
            make_statement(statement.kind, CATEGORIES.index(statement.category), ann, ahead),
            ann,
            ahead,
        )
        assert (statement.kind == "rising") == (statement.category == "Apples")


def test_an_edit_is_explained_as_an_edit_and_not_as_the_forecast() -> None:
    ann, edits = person(["bbbbcca", "bbbbcca", "bbbaaa", "bbaaaa"]), [Edit("Apples", 0.1)]
    ahead = make_forecast(0.45, 0.15, 0.1, 0.3)
    ahead = replace(ahead, statements=(make_statement("rising", 0, ann, ahead),))
    (ranked,) = rank([ahead], [ann], TASTES, k=12, edits=edits)
    explained = explain_item(ranked, position_of("a0", ranked), ann, ahead, edits)
    assert explained.forecast_shares == {"Apples": 0.45}
    assert explained.edited_shares == {"Apples": pytest.approx(0.045 / 0.595)}
    assert explained.edit_factors == {"Apples": 0.1}
    assert [statement.kind for statement in explained.statements] == ["rising"]
    assert (
        "Its category Apples is forecast at 45% (35% so far; with your edits 7.6%, 0.1 times as "
        "much) for the next 7 days; the edited forecast lowers its score by"
    ) in explained.text
    assert "edited_shares" in explained.to_dict()


def test_a_category_that_is_not_edited_itself_has_its_share_with_the_edits() -> None:
    ann, edits = person(["aab", "c"]), [Edit("Apples", 4.0)]
    (ranked,) = rank([AHEAD], [ann], TASTES, k=12, edits=edits)
    explained = explain_item(ranked, position_of("b0", ranked), ann, AHEAD, edits)
    assert explained.edit_factors == {}
    assert "forecast at 30% (25% so far; with your edits 14%)" in explained.text


def test_an_edit_that_has_ended_is_not_explained() -> None:
    ann = person(["aab", "c"])
    edits = [Edit("Apples", 4.0, until=ann.cutoff)]
    (ranked,) = rank([AHEAD], [ann], TASTES, k=12, edits=edits)
    explained = explain_item(ranked, 0, ann, AHEAD, edits)
    assert (explained.edited_shares, explained.edit_factors) == ({}, {})
    assert explained == explain_item(ranked, 0, ann, AHEAD)
