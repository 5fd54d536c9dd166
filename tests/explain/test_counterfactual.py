from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.explain.counterfactual import WhyNot, find_removal, why_not
from llmrec.explain.explanation import explain_ranked_item
from llmrec.explain.verify import check_change
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Ranking, Reranker, listed_rank, make_reranker, rank
from llmrec.ranking.scorers import PersonalRepeat
from tests.explain.people import CATEGORIES, FixedScorer, catalog, make_forecast, person

K = 4
AHEAD = make_forecast(0.4, 0.3, 0.2, 0.1)
TASTE = Blend((FixedScorer("taste", 1.0), PersonalRepeat()), (0.7, 0.3))


def two_scorer_reranker(
    ann: History, strength: float = 1.0, repeat: Literal["allow", "exclude"] = "allow"
) -> Reranker:
    blend = Blend((FixedScorer("taste", 1.0), FixedScorer("habit", 2.0)), (0.7, 0.3))
    ahead = make_forecast(*np.resize(AHEAD.category_weights, ann.catalog.n_categories))

    return make_reranker(ann, ahead, blend, strength=strength, repeat=repeat)


def rank_of(item_idx: int, ranking: Ranking) -> int:
    return int(np.flatnonzero(ranking.item_idx == item_idx)[0]) + 1


def two_category_catalog() -> Catalog:
    names = [["x"], ["y"], ["x", "y"], ["y", "z"], ["z"], ["x", "z"]]
    ids = ["a0", "b0", "c0", "d0", "e0", "f0"]
    return Catalog.from_frame(pd.DataFrame({"item_id": ids, "title": ids, "categories": names}))


@pytest.mark.parametrize("item_id", ["b2", "c1", "d2"])
def test_the_smallest_factor_lists_the_item_and_a_smaller_one_does_not(item_id: str) -> None:
    ann, item = person(["ab"]), catalog().item_index(item_id)
    rerank, (category,) = two_scorer_reranker(ann), catalog().categories_of(item)
    answer = why_not(item, rerank, K, catalog())
    assert answer.rank is not None
    assert answer.rank > K
    assert answer.factor is not None
    assert answer.rank_after == rank_of(item, rerank([Edit(category, answer.factor)])) <= K
    assert rank_of(item, rerank([Edit(category, answer.factor / 1.02)])) > K
    assert f"{answer.factor:.2f} times as much {category}" in answer.text


def test_the_gap_and_the_losses_are_differences_to_the_kth_item() -> None:
    ann, item = person(["ab"]), catalog().item_index("d2")
    rerank = two_scorer_reranker(ann)
    now, answer = rerank(()), why_not(item, rerank, K, catalog())
    position = rank_of(item, now) - 1
    assert answer.gap == now.scores[K - 1] - now.scores[position] > 0
    difference = now.scorer_parts[K - 1] - now.scorer_parts[position]
    assert dict(answer.losses)["taste"] == difference[0]
    assert [loss for _, loss in answer.losses] == sorted(
        (loss for _, loss in answer.losses if loss > 0), reverse=True
    )


def test_where_the_forecast_has_no_strength_no_factor_helps() -> None:
    item = catalog().item_index("d2")
    answer = why_not(item, two_scorer_reranker(person(["ab"]), strength=0), K, catalog())
    assert answer.factor is None
    assert "No factor up to 100 on Dips brings it into the first 4." in answer.text


def test_the_answer_for_an_item_on_the_list_is_its_rank() -> None:
    rerank = two_scorer_reranker(person(["ab"]))
    item = int(rerank(()).item_idx[2])
    answer = why_not(item, rerank, K, catalog())
    assert answer.gap <= 0
    assert answer.text == f"{catalog().titles[item]} is on the list of 4, at rank 3."


def test_the_answer_for_a_seen_item_that_may_not_be_ranked_is_the_reason() -> None:
    ann, item = person(["ab"]), catalog().item_index("a0")
    rerank = two_scorer_reranker(ann, repeat="exclude")
    answer = why_not(item, rerank, K, catalog(), ann)
    assert answer.rank is None
    assert "it was taken before, and items taken before are left out here" in answer.text
    assert "or it is not among the candidates" in why_not(item, rerank, K, catalog()).text


def test_an_item_of_several_categories_is_lifted_by_one_factor_on_all_of_them() -> None:
    items = two_category_catalog()
    rerank, item = two_scorer_reranker(person(["ab"], items)), items.item_index("f0")
    answer = why_not(item, rerank, 3, items)
    assert answer.categories == ("x", "z")
    assert answer.factor is not None
    edits = [Edit(name, answer.factor) for name in answer.categories]
    assert rank_of(item, rerank(edits)) == answer.rank_after == 3


@pytest.mark.parametrize("position", range(K))
def test_the_removal_found_removes_and_a_hundredth_less_does_not(position: int) -> None:
    rerank = two_scorer_reranker(person(["ab"]))
    item = int(rerank(()).item_idx[position])
    answer = find_removal(item, rerank, K, catalog())
    assert answer.factor is not None
    assert rank_of(item, rerank(answer.edits)) == answer.rank_after
    assert answer.rank_after is not None
    assert answer.rank_after > K
    assert rank_of(item, rerank([Edit(*answer.categories, answer.factor + 0.01)])) <= K
    assert f"drops to rank {answer.rank_after}" in answer.text


def test_a_removal_names_the_category_that_needs_the_least_change() -> None:
    items = two_category_catalog()
    rerank = two_scorer_reranker(person(["ab"], items))
    item = items.item_index("c0")
    k = rank_of(item, rerank(()))
    answer = find_removal(item, rerank, k, items)
    assert answer.factor is not None
    assert rank_of(item, rerank(answer.edits)) == answer.rank_after
    for name in items.categories_of(item):  # whatever is changed less does not remove it
        for hundredths in range(round(100 * answer.factor) + 1, 100):
            assert rank_of(item, rerank([Edit(name, hundredths / 100)])) <= k


def test_where_less_of_no_category_is_enough_muting_one_takes_an_item_off() -> None:
    items = two_category_catalog()
    rerank, item = two_scorer_reranker(person(["ab"], items)), items.item_index("c0")
    for name in items.categories_of(item):
        assert all(rank_of(item, rerank([Edit(name, part / 100)])) <= 5 for part in range(1, 100))
    answer = find_removal(item, rerank, 5, items)
    assert answer.edits == (Edit("x", 0.0),)
    assert answer.text == "With x muted, c0 is not listed."
    assert answer.rank_after == rank_of(item, rerank(answer.edits)) <= 5  # among what is muted


def test_muting_takes_an_item_off_even_a_list_that_holds_everything() -> None:
    rerank = two_scorer_reranker(person(["ab"]))
    answer = find_removal(0, rerank, catalog().n_items, catalog())
    assert answer.edits == (Edit("Apples", 0.0),)
    assert listed_rank(rerank(answer.edits), 0) is None


def test_an_item_of_several_categories_can_always_be_muted_away() -> None:
    items = two_category_catalog()
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        rerank = make_reranker(
            person(["ab"], items), make_forecast(*weights), TASTE, strength=1.0, repeat="allow"
        )
        for item in range(items.n_items):
            if len(items.categories_of(item)) > 1:
                assert find_removal(item, rerank, 6, items).edits


def test_where_the_forecast_has_no_strength_only_muting_removes() -> None:
    rerank = two_scorer_reranker(person(["ab"]), strength=0)
    answer = find_removal(int(rerank(()).item_idx[0]), rerank, K, catalog())
    assert [edit.factor for edit in answer.edits] == [0.0]


def test_the_removal_of_an_item_that_is_not_listed_is_none() -> None:
    rerank = two_scorer_reranker(person(["ab"]))
    last = int(rerank(()).item_idx[-1])
    assert find_removal(last, rerank, K, catalog()).text.endswith("is not on the list of 4.")


def test_a_lone_category_keeps_all_of_the_forecast_so_nothing_removes_its_items() -> None:
    items = catalog(("Only",))
    rerank = two_scorer_reranker(person(["a"], items))
    answer = find_removal(int(rerank(()).item_idx[0]), rerank, 1, items)
    assert answer.factor is None
    assert "all of the forecast is theirs" in answer.text


def test_precomputed_scores_rank_as_they_do_when_scored_each_time() -> None:
    ann = person(["aab", "cd"])
    rerank = make_reranker(ann, AHEAD, TASTE, strength=0.5, repeat="exclude")
    for edits in ([], [Edit("Dips", 3.0)]):
        (again,) = rank([AHEAD], [ann], TASTE, k=12, strength=0.5, repeat="exclude", edits=edits)
        assert rerank(edits).item_idx.tolist() == again.item_idx.tolist()
        assert rerank(edits).scores.tobytes() == again.scores.tobytes()


@pytest.mark.parametrize("k", [0, -3])
def test_a_list_of_no_item_is_refused(k: int) -> None:
    ann = person(["ab"])
    rerank = two_scorer_reranker(ann)
    for search in (
        lambda: why_not(0, rerank, k, catalog()),
        lambda: find_removal(0, rerank, k, catalog()),
        lambda: explain_ranked_item(0, rerank, k, ann, AHEAD),
    ):
        with pytest.raises(ValueError, match=f"k must be a whole number of at least 1, not {k}"):
            search()


@given(
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
    st.sampled_from([0.3, 1.0, 4.0]),
    st.sampled_from(["none", "every category", "a lock", "all but one locked"]),
)
@settings(max_examples=25)
def test_short_lists_give_the_answers_that_whole_rankings_give(
    weights: list[int], strength: float, names: str
) -> None:
    ann, ahead = person(["aab", "c"], SEVERAL), make_forecast(*weights)
    edits = tuple(edit for edit in EDITS[names] if edit.category in SEVERAL.categories)
    short = cache(make_reranker(ann, ahead, TASTE, strength=strength, repeat="allow"))

    def whole(
        edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        every = short(edits, strength=strength)
        return replace(every, item_idx=every.item_idx[:k], muted=every.muted[:k])

    for item, k, search in product(range(SEVERAL.n_items), (1, 3, 6), (why_not, find_removal)):
        assert search(item, short, k, SEVERAL, ann, edits) == search(
            item, whole, k, SEVERAL, ann, edits
        )


def test_rankings_can_be_cached_by_their_edits() -> None:
    cached = cache(two_scorer_reranker(person(["ab"])))
    for item in cached(()).item_idx.tolist():
        assert (
            find_removal(item, cached, K, catalog()).rank
            == why_not(item, cached, K, catalog()).rank
        )
    assert cached.cache_info().hits


def catalog_of_several() -> Catalog:
    names = [
        ["Apples"],
        ["Bread"],
        ["Apples", "Bread"],
        ["Bread", "Cola"],
        ["Cola"],
        ["Apples", "Cola"],
    ]
    ids = ["a0", "b0", "c0", "d0", "e0", "f0"]
    return Catalog.from_frame(pd.DataFrame({"item_id": ids, "title": ids, "categories": names}))


SEVERAL = catalog_of_several()
LATER, BEFORE = np.datetime64("2030-01-01"), np.datetime64("2000-01-01")
EDITS = {
    "none": (),
    "another category": (Edit("Dips", 3.0),),
    "every category": tuple(Edit(name, 1.5) for name in CATEGORIES),
    "a lock": (Edit("Apples", 1.0, lock=True),),
    "a lock, a mute and an end": (
        Edit("Dips", 2.0, LATER, lock=True),
        Edit("Bread", 0.0),
        Edit("Cola", 0.5, LATER),
    ),
    "twice the same, with two ends": (Edit("Dips", 2.0), Edit("Dips", 2.0, LATER)),
    "one that ended": (Edit("Cola", 5.0, BEFORE), Edit("Dips", 2.0)),
    "all but one locked": tuple(Edit(name, 1.0, lock=True) for name in CATEGORIES[1:]),
    "all of it locked": tuple(Edit(name, 1.0, lock=True) for name in CATEGORIES),
    "almost the most": (Edit("Dips", 90.0), Edit("Apples", 0.01)),
}


@pytest.mark.parametrize("names", EDITS)
@pytest.mark.parametrize("items", [catalog(), SEVERAL], ids=["one category", "several"])
def test_the_edits_of_an_answer_give_its_rank(items: Catalog, names: str) -> None:
    ann = person(["aab", "cd"] if items is catalog() else ["aab", "c"], items)
    edits = tuple(edit for edit in EDITS[names] if edit.category in items.categories)
    ahead = make_forecast(*AHEAD.category_weights[: items.n_categories])
    rerank = make_reranker(ann, ahead, TASTE, strength=1.0, repeat="allow")
    for item, k in product(range(items.n_items), (2, K)):
        explanation = explain_ranked_item(item, rerank, k, ann, ahead, edits)
        change, n_items = explanation.change, items.n_items
        assert check_change(change, item, rerank, ann, edits) is None
        if change.factor is None:
            assert change.edits == ()
            continue
        before = {(edit.category, edit.until, edit.lock) for edit in edits}
        assert before <= {(edit.category, edit.until, edit.lock) for edit in change.edits}
        (again,) = rank([ahead], [ann], TASTE, k=n_items, edits=change.edits)
        assert rank_of(item, again) == change.rank_after
        listed = listed_rank(again, item)
        assert (listed is not None and listed <= k) == isinstance(change, WhyNot)


def test_a_factor_on_an_edited_category_is_multiplied_and_keeps_lock_and_end() -> None:
    edits = (Edit("Dips", 0.5, LATER, lock=True),)
    ann, item = person(["aab", "cd"]), catalog().item_index("d0")
    rerank = make_reranker(ann, AHEAD, TASTE, strength=1.0, repeat="allow")
    answer = why_not(item, rerank, 2, catalog(), ann, edits)
    assert answer.factor is not None
    assert answer.edits == (Edit("Dips", 0.5 * answer.factor, LATER, lock=True),)


def test_where_edits_leave_no_room_for_more_the_answer_is_the_largest_factor() -> None:
    ann, item = person(["aab", "cd"]), catalog().item_index("d2")
    rerank = make_reranker(ann, AHEAD, TASTE, strength=0.0, repeat="allow")
    for edits, text in (
        ((Edit("Dips", 80.0),), "No factor up to 1.25 on Dips, all that the edits leave room for,"),
        ((Edit("Dips", 5.0, lock=True),), "No factor up to 2 on Dips, all that the edits leave"),
        ((Edit("Dips", 10.0, lock=True),), "The edits leave no room for more of Dips."),
        ((), "No factor up to 100 on Dips brings it into the first 4."),
    ):
        assert text in why_not(item, rerank, K, catalog(), ann, edits).text


def test_with_every_other_category_locked_nothing_takes_an_item_off() -> None:
    ann, edits = person(["aab", "cd"]), EDITS["all but one locked"]
    rerank = make_reranker(ann, AHEAD, TASTE, strength=1.0, repeat="allow")
    answer = find_removal(catalog().item_index("a0"), rerank, 3, catalog(), ann, edits)
    assert answer.edits == ()
    assert answer.text.endswith("off the list: the others are locked, or have none.")


def test_a_removal_on_top_of_edits_names_the_edited_forecast() -> None:
    ann, edits = person(["aab", "cd"]), (Edit("Apples", 2.0),)
    rerank = make_reranker(ann, AHEAD, TASTE, strength=1.0, repeat="allow")
    answer = find_removal(catalog().item_index("a0"), rerank, 3, catalog(), ann, edits)
    assert answer.factor is not None
    assert answer.edits == (Edit("Apples", 2.0 * answer.factor),)
    assert "of its edited forecast" in answer.text
    explanation = explain_ranked_item(catalog().item_index("a0"), rerank, 3, ann, AHEAD, edits)
    assert ", edited forecast of Apples +" in explanation.text
    missed = why_not(catalog().item_index("d0"), rerank, 3, catalog(), ann, edits)
    assert "edited forecast of Apples" in dict(missed.losses)
    assert json.loads(json.dumps(explanation.to_dict()))["what_removes"]["edits"] == [
        {"category": "Apples", "factor": answer.edits[0].factor, "until": None, "lock": False}
    ]


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_answer_for_an_item_of_a_muted_category_is_that_it_is_muted(strength: float) -> None:
    ann, mute = person(["aab", "cd"]), [Edit("Apples", 0.0)]
    rerank = make_reranker(ann, AHEAD, TASTE, strength=strength, repeat="allow")
    item = catalog().item_index("a0")
    answer = why_not(item, rerank, 12, catalog(), ann, mute)
    assert answer.text == "Apples no. 0 cannot be on the list: a category of it is muted."
    removal = find_removal(item, rerank, 12, catalog(), ann, mute)
    assert removal.text.endswith("is not on the list of 12.")
    explanation = explain_ranked_item(item, rerank, 12, ann, AHEAD, mute)
    assert explanation.change == answer
