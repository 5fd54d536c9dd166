"""Causes of ranks: found, told, checked by ranking again, and refused where they are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from benchmarks.explanations.corruptions import item_corruptions
from llmrec.data.periods import History, make_histories
from llmrec.explain.cause_search import find_causes, find_past_effects
from llmrec.explain.causes import MIN_POPULAR, Causes, format_ordinal
from llmrec.explain.explanation import Explanation, check_explanation, explain_ranked_item
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.verify import check_item
from llmrec.explain.verify_causes import check_causes
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.item_item import Ease, ItemToItem
from llmrec.ranking.ranking import Reranker, make_reranker
from llmrec.ranking.removal import RemovalRanker
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import RepeatPolicy
from tests.explain.people import FixedScorer
from tests.worlds import START, catalog, log

CUTOFF = START + np.timedelta64(28, "D")
ITEMS, EVENTS = catalog(), log(n_users=40)
POLICIES: tuple[RepeatPolicy, ...] = ("allow", "exclude")
every_policy = pytest.mark.parametrize("repeat", POLICIES)


@cache
def blend() -> Blend:
    ease = ItemToItem(Ease(5.0), half_life=6.6, floor=0.01).fit(EVENTS, ITEMS, CUTOFF)
    return Blend((ease, PersonalRepeat(), RecentPopularity()), (0.6, 0.3, 0.1))


def rankers(
    history: History,
    forecast: Forecast,
    repeat: RepeatPolicy,
    *edits: Edit,
    scorer: Blend | None = None,
    strength: float = 0.5,
) -> tuple[RemovalRanker, Reranker]:
    scorer = scorer or blend()
    rerank = make_reranker(history, forecast, scorer, strength=strength, repeat=repeat)
    return RemovalRanker(history, forecast, scorer, strength, strength, repeat, edits), rerank


def people(period: str = "7D") -> list[tuple[History, Forecast]]:
    histories = make_histories(EVENTS, ITEMS, period, CUTOFF)[:4]
    return list(zip(histories, DecayedDirichlet().forecast(histories), strict=True))


def explained(
    history: History, forecast: Forecast, repeat: RepeatPolicy, *edits: Edit
) -> tuple[list[ItemExplanation], RemovalRanker, Reranker]:
    removal, rerank = rankers(history, forecast, repeat, *edits)
    ranking = rerank(edits)
    causes = find_causes(ranking.item_idx[:4], removal, rerank)
    items = [
        explain_item(ranking, place, history, forecast, edits, one)
        for place, one in enumerate(causes)
    ]
    return items, removal, rerank


@every_policy
@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_every_cause_holds_when_ranked_again_and_every_lie_is_caught(
    repeat: RepeatPolicy, period: str
) -> None:
    n_named = 0
    for history, forecast in people(period):
        items, removal, rerank = explained(history, forecast, repeat)
        for item in items:
            assert item.causes
            n_named += bool(item.causes.named)
            index = ITEMS.item_index(item.item_id)
            assert check_causes(item.causes, index, replace(removal)) == ()
            given = rerank(()), history, forecast, (), replace(removal)
            assert check_item(item, *given) == ()
            for kind, lie in item_corruptions(item, history, forecast):
                if lie.causes != item.causes:  # the others are those of test_verify
                    assert check_item(lie, *given), (kind, lie)
    assert n_named > 10


@every_policy
def test_without_what_is_named_an_item_does_not_rank_higher(repeat: RepeatPolicy) -> None:
    for history, forecast in people():
        items, removal, _ = explained(history, forecast, repeat)
        for item in items:
            assert item.causes
            past = [ITEMS.item_index(one.latest.item_id) for one in item.causes.named]
            assert len(past) <= 2
            if past:
                (ranking,) = replace(removal).rankings([past])
                place = ranking.item_idx.tolist().index(ITEMS.item_index(item.item_id)) + 1
                assert place == item.causes.rank_without >= item.causes.rank


def test_an_item_taken_before_is_its_own_cause_and_one_never_taken_names_others() -> None:
    for history, forecast in people():
        for repeat in POLICIES:
            items, *_ = explained(history, forecast, repeat)
            for item in items:
                assert item.causes
                own = [one.latest.item_id == item.item_id for one in item.causes.named]
                assert item.times_taken or not any(own)
                if own[:1] == [True]:
                    assert len(own) == 1
                    assert f"Taken {item.times_taken}" in item.text or "Taken once" in item.text


def test_a_reason_never_names_what_lowers_the_item() -> None:
    for history, forecast in people():
        for edits in ((), (Edit(ITEMS.categories[0], 3.0),)):
            items, *_ = explained(history, forecast, "allow", *edits)
            for item in items:
                assert "lowers" not in item.text
                assert item.causes
                says_so = any(
                    f"{word}:" in item.text for word in ("lift it", "lifts it", "others more")
                )
                assert item.causes.tilt_lifts == says_so


def test_an_edit_that_lifts_an_item_is_named_with_the_rank_without_it() -> None:
    lifted = 0
    for history, forecast in people():
        edits = (Edit(ITEMS.categories[1], 20.0),)
        items, _, rerank = explained(history, forecast, "allow", *edits)
        for item in items:
            if item.causes and item.causes.tilt_lifts:
                lifted += 1
                plain = rerank(()).item_idx.tolist().index(ITEMS.item_index(item.item_id)) + 1
                assert f"without them it would be {format_ordinal(plain)}." in item.text
    assert lifted


def test_a_score_without_a_personal_part_is_said_to_be_popularity() -> None:
    history, forecast = people()[0]
    scorer = Blend((RecentPopularity(),), (1.0,))
    removal, rerank = rankers(history, forecast, "exclude", scorer=scorer, strength=0.0)
    ranking = rerank(())
    for item, causes in zip(
        ranking.item_idx, find_causes(ranking.item_idx, removal, rerank), strict=True
    ):
        assert causes.named == ()
        (text,) = causes.sentences(str(ITEMS.item_ids[item]), "taken")
        assert ("Popular lately" in text) == (causes.n_recent >= MIN_POPULAR)
        assert ("by everybody" in text) == (causes.n_recent > 0)
        assert check_causes(causes, int(item), replace(removal)) == ()


def test_a_blend_without_additive_scorers_is_explained_by_removal() -> None:
    class NewestAgain:
        """Likes the item after the newest one."""

        name = "after the newest"

        def scores(self, histories: list[History]) -> np.ndarray:
            found = np.zeros((len(histories), ITEMS.n_items))
            for row, history in zip(found, histories, strict=True):
                if history.n_events:
                    row[(history.item_idx[-1] + 1) % ITEMS.n_items] = 3.0
            return found - np.log(np.exp(found).sum(axis=1, keepdims=True))

    history, forecast = people()[0]
    scorer = Blend((NewestAgain(), RecentPopularity()), (1.0, 0.01))  # type: ignore[arg-type]
    removal, rerank = rankers(history, forecast, "allow", scorer=scorer, strength=0.0)
    item = int(rerank(()).item_idx[0])
    (causes,) = find_causes(np.array([item]), removal, rerank)
    newest = ITEMS.item_ids[history.item_idx[-1]]
    assert [one.latest.item_id for one in causes.named] == [newest]
    assert check_causes(causes, item, removal) == ()


def test_people_with_one_event_or_none_are_explained() -> None:
    history, forecast = people()[0]
    one = history.without_items(np.setdiff1d(history.item_idx, history.item_idx[-1:]))
    none = history.without_items(history.item_idx)
    for person, most in ((one, 1), (none, 0)):
        removal, rerank = rankers(person, forecast, "allow")
        ranking = rerank(())
        for place, causes in enumerate(find_causes(ranking.item_idx[:3], removal, rerank)):
            assert len(causes.named) <= most
            assert check_causes(causes, int(ranking.item_idx[place]), removal) == ()


def test_of_causes_that_are_all_equal_the_one_taken_last_is_named() -> None:
    history, forecast = people()[0]
    scorer = Blend((FixedScorer("taste", 0.1), PersonalRepeat()), (1.0, 0.0))
    removal, rerank = rankers(history, forecast, "allow", scorer=scorer)
    assert all(not one.named for one in find_causes(rerank(()).item_idx[:3], removal, rerank))
    assert find_causes(np.array([], dtype=np.int64), removal, rerank) == []


def test_causes_survive_json_and_explanations_of_0_1_have_none() -> None:
    history, forecast = people()[0]
    items, removal, rerank = explained(history, forecast, "exclude")
    for item in items:
        stored = json.loads(json.dumps(item.to_dict(), allow_nan=False))
        assert ItemExplanation.from_dict(stored) == item
        assert (
            check_item(
                ItemExplanation.from_dict(stored), rerank(()), history, forecast, (), removal
            )
            == ()
        )
        old = {key: value for key, value in stored.items() if key != "causes"}
        old["text"] = replace(item, causes=None).text
        assert ItemExplanation.from_dict(old) == replace(item, causes=None)


@every_policy
def test_a_whole_explanation_says_what_lifts_and_what_speaks_against(repeat: RepeatPolicy) -> None:
    for history, forecast in people()[:3]:
        removal, rerank = rankers(history, forecast, repeat)
        item = int(rerank(()).item_idx[1])
        found = explain_ranked_item(item, rerank, 5, history, forecast, (), removal)
        given = item, rerank, history, forecast, (), removal
        assert check_explanation(found, *given) == ()
        assert sum(one.share for one in found.past) == pytest.approx(1.0)
        assert [one.effect for one in found.past] == sorted(
            (one.effect for one in found.past), reverse=True
        )
        for one in found.lifting:
            without = f"(without it {format_ordinal(one.rank_without)})"
            assert f"{one.latest.title} {without}" in found.text
        lie = replace(found.past[0], rank_without=found.past[0].rank_without + 1)
        wrong: Explanation = replace(found, past=(lie, *found.past[1:]))
        assert check_explanation(wrong, *given)
        json.dumps(found.to_dict(), allow_nan=False)


def test_a_past_effect_is_the_lead_that_the_item_loses() -> None:
    history, forecast = people()[0]
    removal, rerank = rankers(history, forecast, "allow")
    item = int(rerank(()).item_idx[0])
    for one in find_past_effects(item, removal, rerank):
        past = ITEMS.item_index(one.latest.item_id)
        scores = []
        for person in (history, history.without_items(np.array([past]))):
            ranking = rankers(person, forecast, "allow")[1](())
            by_item = dict(zip(ranking.item_idx.tolist(), ranking.scores.tolist(), strict=True))
            scores.append(by_item[item] - np.mean(list(by_item.values())))
        assert one.effect == pytest.approx(scores[0] - scores[1], abs=1e-9)


def test_what_was_ranked_without_an_item_is_not_ranked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, forecast = people()[0]
    removal, _ = rankers(history, forecast, "allow")
    first = removal.rankings([[1], [2], [1]])
    monkeypatch.setattr(Blend, "weighted_scores", lambda *_: pytest.fail("scored again"))
    assert removal.rankings([[2], [1]])[::-1] == first[:2]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (112, "112th"),
        (1203, "1,203rd"),
    ],
)
def test_ranks_are_written_as_ordinals(number: int, text: str) -> None:
    assert format_ordinal(number) == text


def test_causes_are_empty_by_default() -> None:
    assert Causes(3).sentences("i1", "watched") == (
        "Of what you have watched nothing that was tried lifts it.",
    )
