"""The effect of edits, predicted from one ranking and compared with another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llmrec.errors import EditError
from llmrec.ranking.edits import Edit
from llmrec.ranking.effects import EditEffect, predict_effect
from llmrec.ranking.ranking import Ranking
from llmrec.types import FloatArray
from tests.ranking.test_ranking import HISTORY, forecast, ranked

# Items of X (i0, i5), Y (i1), Z (i2), XY (i3), XYZ (i4) and nothing (i6); see test_rank.
SCORES = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1])


def predicted(
    *edits: Edit,
    strength: float = 1.0,
    new_strength: float | None = None,
    edit_strength: float | None = None,
    **options: Any,
) -> EditEffect:
    own = {"strength": strength, "edit_strength": edit_strength}

    def rerank(
        edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        strengths = own if strength is None else {"strength": strength}
        return ranked(scores=SCORES, edits=edits, **strengths, **options)

    of_user = forecast([0.5, 0.3, 0.2])
    return predict_effect(of_user, edits, HISTORY, rerank, strength, new_strength, edit_strength)


def by_item(effect: EditEffect, values: FloatArray) -> dict[int, float]:
    return dict(zip(effect.item_idx.tolist(), values.tolist(), strict=True))


def test_the_change_of_a_score_worked_by_hand() -> None:
    # Twice X: the shares are 1, 0.3 and 0.2, over 1.5.
    effect = predicted(Edit("X", 2), strength=0.5)
    rises, falls = 0.5 * np.log(2 / 1.5), 0.5 * np.log(1 / 1.5)
    changes = by_item(effect, effect.score_changes)
    expected = {0: rises, 5: rises, 1: falls, 2: falls, 3: (rises + falls) / 2, 6: 0}
    assert {item: changes[item] for item in expected} == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(effect.after.category_weights, np.array([1, 0.3, 0.2]) / 1.5)


def test_items_of_the_raised_category_alone_can_only_rise_and_those_of_others_only_fall() -> None:
    effect = predicted(Edit("X", 2))
    assert np.flatnonzero(~effect.may_fall[np.argsort(effect.item_idx)]).tolist() == [0, 5]
    assert np.flatnonzero(~effect.may_rise[np.argsort(effect.item_idx)]).tolist() == [1, 2]
    directions = [effect.direction(category) for category in range(3)]
    assert directions == ["can only rise", "can only fall", "can only fall"]


def test_without_an_edit_everything_stays() -> None:
    effect = predicted()
    assert {effect.direction(category) for category in range(3)} == {"stays"}
    outcome = effect.verify(3)
    assert outcome.holds
    assert (outcome.entered, outcome.left, outcome.moved) == ((), (), {})


def test_the_predicted_list_is_the_list_that_ranking_again_gives() -> None:
    effect = predicted(Edit("Z", 6), Edit("Y", 0.4, lock=True))
    outcome = effect.verify(4)
    assert outcome.holds
    assert outcome.largest_error < 1e-12
    assert outcome.listed == tuple(effect.predicted_list(4).tolist())
    assert set(outcome.entered) | set(outcome.left) | set(outcome.moved)
    before, after = effect.item_idx[:4].tolist(), list(outcome.listed)
    assert set(outcome.left) == set(before) - set(after)
    for item, (old, new) in outcome.moved.items():
        assert (before[old - 1], after[new - 1]) == (item, item)


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_item_is_refused(k: int) -> None:
    effect = predicted(Edit("Z", 6))
    for call in (effect.predicted_list, effect.verify):
        with pytest.raises(ValueError, match=f"k must be a whole number of at least 1, not {k}"):
            call(k)


def test_muted_items_are_not_on_the_list_whatever_the_strength() -> None:
    effect = predicted(Edit("X", 0), strength=0.0)
    outcome = effect.verify(7)
    assert outcome.holds
    assert outcome.listed == tuple(effect.predicted_list(7).tolist()) == (1, 2, 6)
    assert outcome.left == (0, 3, 4, 5)
    assert effect.is_muted(0)


@pytest.mark.parametrize(
    ("strength", "new_strength"), [(1.0, 0.0), (0.0, 1.0), (0.5, 3.0), (1.0, 1.0)]
)
def test_another_strength_is_predicted_too(strength: float, new_strength: float) -> None:
    for edits in ([Edit("X", 2)], []):
        effect = predicted(*edits, strength=strength, new_strength=new_strength)
        assert effect.verify().holds


def test_an_edit_that_has_ended_does_nothing_and_is_listed_as_ended() -> None:
    ended = Edit("X", 0, until=HISTORY.cutoff)
    effect = predicted(ended)
    assert effect.expired_edits == (ended,)
    assert effect.edits == {}
    assert not effect.score_changes.any()


@pytest.mark.parametrize("candidates", [np.array([], dtype=np.int64), np.array([0, 1])])
def test_where_nothing_may_be_ranked_nothing_changes(candidates: FloatArray) -> None:
    # i0 and i1 were taken.
    effect = predicted(Edit("X", 0), candidates=candidates, repeat="exclude")
    outcome = effect.verify()
    assert outcome.holds
    assert outcome.listed == ()
    assert effect.direction(0) == "stays"


def test_where_all_is_muted_the_list_is_empty() -> None:
    outcome = predicted(Edit("X", 0), candidates=np.array([0, 3, 5])).verify()
    assert outcome.holds
    assert outcome.listed == ()
    assert set(outcome.left) == {0, 3, 5}


@pytest.mark.parametrize("edit_strength", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_edits_act_by_a_strength_of_their_own(strength: float, edit_strength: float) -> None:
    edits = Edit("X", 2), Edit("Y", 0.5, lock=True)
    effect = predicted(*edits, strength=strength, edit_strength=edit_strength)
    assert effect.verify().holds
    assert effect.strength_before == effect.strength_after == strength
    unit = predicted(*edits, strength=strength, edit_strength=1.0)
    expected = edit_strength * unit.score_changes
    np.testing.assert_allclose(effect.score_changes, expected, atol=1e-12)
    asked = predicted(*edits, strength=strength, edit_strength=edit_strength, new_strength=0.7)
    assert asked.verify().holds
    both = predicted(*edits, strength=strength, new_strength=0.7)
    assert asked.score_changes.tobytes() == both.score_changes.tobytes()


def test_an_item_without_a_category_moves_only_as_others_pass_it() -> None:
    effect = predicted(Edit("Y", 3), candidates=np.array([1, 6]))
    assert by_item(effect, effect.score_changes)[6] == 0
    assert by_item(effect, effect.may_rise)[6] is False


def test_a_ranking_that_is_not_as_predicted_violates_claims_of_the_prediction() -> None:
    def invert(
        edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        turned = [Edit(edit.category, 1 / edit.factor) for edit in edits]
        return ranked(scores=SCORES, edits=turned, strength=strength or 1.0)

    expected = forecast([0.5, 0.3, 0.2])
    outcome = predict_effect(expected, [Edit("X", 9)], HISTORY, invert, 1.0).verify()
    assert not outcome.holds
    assert outcome.largest_error > 1
    assert "every score is the predicted one" in outcome.violations
    assert "what can only rise has not fallen" in outcome.violations

    def shorten(
        edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        return ranked(scores=SCORES, edits=edits, k=7 - len(edits), strength=strength or 1.0)

    outcome = predict_effect(expected, [Edit("X", 9)], HISTORY, shorten, 1.0).verify()
    assert outcome.violations == ("the same items are ranked",)


@pytest.mark.parametrize(
    ("edits", "new_strength", "message"),
    [
        ([Edit("W", 2)], None, "unknown category 'W'"),
        ([Edit("X", 2), Edit("X", 0)], None, "two edits of 'X' contradict"),
        ([Edit("X", 3, lock=True)], None, "locked shares sum to 1.5 > 1"),
        ([Edit(name, 0) for name in "XYZ"], None, "no category is left"),
        ([], float("nan"), "strength must be finite"),
        ([], float("inf"), "strength must be finite"),
        ([], -0.5, "strength must be finite and >= 0"),
        ([], 101.0, "at most 100"),
    ],
)
def test_edits_that_cannot_be_applied_are_refused_before_anything_is_ranked_with_them(
    edits: list[Edit], new_strength: float | None, message: str
) -> None:
    with pytest.raises(EditError, match=message):
        predicted(*edits, new_strength=new_strength)
