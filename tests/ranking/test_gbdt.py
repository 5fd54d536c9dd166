"""Reranking by trees: what they learn from past lists, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec.data.periods import History, Window, make_histories
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend, rankable_items, stack_scores
from llmrec.ranking.candidate_features import N_HISTORY_FEATURES, candidate_features
from llmrec.ranking.gbdt import (
    GBDTReranker,
    RankingFold,
)
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import FloatArray
from tests.worlds import START, catalog, log

pytest.importorskip("lightgbm")
WEEK = np.timedelta64(7, "D")
ITEMS, EVENTS = catalog(), log(n_users=120, n_periods=6).align_to(catalog())


@dataclass(frozen=True)
class TableScorer:
    """Scores items by a table with a row a user."""

    table: FloatArray
    name: str = "table"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return self.table[[history.user_idx for history in histories]]


def weeks(*numbers: int) -> list[list[Window]]:
    return [make_windows(EVENTS, ITEMS, "7D", START + week * WEEK) for week in numbers]


def folds(*numbers: int) -> list[RankingFold]:
    return [
        RankingFold([RecentPopularity(), PersonalRepeat()], windows) for windows in weeks(*numbers)
    ]


def hidden(windows: list[Window], seed: int) -> TableScorer:
    """Middling scores for the targets, low or high ones for the rest: no weight can use them."""
    table = np.random.default_rng(seed).choice([-6.0, -1.0], (EVENTS.n_users, ITEMS.n_items))
    for window in windows:
        table[window.history.user_idx, window.target.item_idx] = -3.0
    return TableScorer(table)


def precision(scores: FloatArray, windows: list[Window]) -> float:
    best = np.argsort(-scores, axis=1)[:, :5]
    hits = [np.isin(row, w.target.item_idx) for row, w in zip(best, windows, strict=True)]
    return float(np.mean(hits))


def test_trees_use_what_no_weight_of_a_blend_can() -> None:
    past = weeks(2, 3, 4)
    training = [
        RankingFold([RecentPopularity(), hidden(windows, seed)], windows)
        for seed, windows in enumerate(past)
    ]
    (coming,) = weeks(5)
    scorers: list[ItemScorer] = [RecentPopularity(), hidden(coming, 9)]
    reranker = GBDTReranker(candidates=25).fit(training, scorers)
    histories = [window.history for window in coming]
    assert precision(reranker.scores(histories), coming) > 0.85
    assert precision(scorers[1].scores(histories), coming) < 0.5


def test_items_that_are_no_candidates_keep_the_order_of_the_blend_below_all_candidates() -> None:
    reranker = GBDTReranker(candidates=4).fit(folds(3, 4), [RecentPopularity(), PersonalRepeat()])
    history = weeks(5)[0][0].history
    (scores,) = reranker.scores([history])
    first_stage = Blend([RecentPopularity(), PersonalRepeat()], reranker.first_weights)
    (first,) = first_stage.scores([history])
    order = np.argsort(-first, kind="stable")
    assert set(np.argsort(-scores)[:4]) == set(order[:4])
    assert (np.diff(scores[order[4:]]) <= 0).all()


def test_a_list_without_repeats_is_learned_from_new_items_only() -> None:
    reranker = GBDTReranker(candidates=8, repeat="exclude")
    reranker = reranker.fit(folds(2, 3), [RecentPopularity(), PersonalRepeat()])
    histories = [window.history for window in weeks(4)[0]]
    for row, history in zip(reranker.scores(histories), histories, strict=True):
        unseen = rankable_items(history, "exclude")
        n = min(8, int(unseen.sum()))
        assert unseen[np.argsort(-row, kind="stable")[:n]].all()


def test_features_are_when_and_how_often_a_person_took_an_item() -> None:
    history = make_histories(EVENTS, ITEMS, "7D", START + 5 * WEEK, [0])[0]
    item = int(np.bincount(history.item_idx).argmax())
    scores = np.zeros((1, 1, ITEMS.n_items))
    (((_, taken, newest, gap, overdue, *_),),) = candidate_features(
        scores, np.array([[item]]), [history]
    )
    events = slice(history.event_ids.start, history.event_ids.stop)
    ages = (history.cutoff - history.log.timestamp[events]) / np.timedelta64(1, "D")
    own = np.sort(ages[history.item_idx == item])
    assert taken == len(own) > 1
    assert newest == pytest.approx(own[0])
    assert gap == pytest.approx(np.diff(own).mean())
    assert overdue == pytest.approx(own[0] / max(np.diff(own).mean(), 1))


def test_there_is_a_feature_a_scorer_and_as_many_more_as_stored_trees_are_checked_for() -> None:
    histories = [window.history for window in weeks(4)[0]][:3]
    scores = stack_scores([RecentPopularity(), PersonalRepeat()], histories)
    items = np.tile(np.arange(4), (3, 1))
    assert candidate_features(scores, items, histories).shape == (3, 4, 2 + N_HISTORY_FEATURES)


@pytest.fixture(scope="module")
def fitted() -> GBDTReranker:
    return GBDTReranker(candidates=6, max_trees=20).fit(folds(2, 3, 4))


def test_trees_of_stored_text_score_the_same_to_the_bit(
    fitted: GBDTReranker, tmp_path: Path
) -> None:
    fitted.stored().save(tmp_path)
    again = GBDTReranker.from_stored(Stored.load(tmp_path))
    histories = [window.history for window in weeks(5)[0]]
    first = stack_scores([RecentPopularity(), PersonalRepeat()], histories)
    expected = fitted.second_scores(first, histories)
    assert again.second_scores(first, histories).tobytes() == expected.tobytes()
    assert again.stored().texts == fitted.stored().texts
    assert (again.candidates, again.n_trees) == (6, fitted.n_trees)


def test_a_blend_with_trees_scores_a_person_the_same_to_the_bit_whoever_else_is_scored(
    fitted: GBDTReranker,
) -> None:
    scorers = [RecentPopularity(), PersonalRepeat()]
    blend = Blend(scorers, (0.0, 0.5), fitted, 1.0)
    histories = [window.history for window in weeks(5)[0]]
    together = blend.weighted_scores(histories)
    alone = [blend.weighted_scores([history])[:, 0] for history in histories]
    assert together.tobytes() == np.stack(alone, axis=1).tobytes()


def test_features_of_candidates_are_the_same_whatever_the_other_candidates_are() -> None:
    histories = [window.history for window in weeks(4)[0]]
    scores = stack_scores([RecentPopularity(), PersonalRepeat()], histories)
    everything = np.tile(np.arange(ITEMS.n_items), (len(histories), 1))
    of_all = candidate_features(scores, everything, histories)
    found = candidate_features(scores, everything[:, 3::4], histories)
    assert found.tobytes() == np.ascontiguousarray(of_all[:, 3::4]).tobytes()


def test_scores_of_another_number_of_scorers_are_refused(fitted: GBDTReranker) -> None:
    histories = [window.history for window in weeks(5)[0]]
    first = stack_scores([RecentPopularity()], histories)
    with pytest.raises(ValueError, match="fitted on 2 scorers, not 1"):
        fitted.second_scores(first, histories)


def test_without_scorers_of_its_own_it_scores_in_a_blend_only(fitted: GBDTReranker) -> None:
    histories = [window.history for window in weeks(5)[0]]
    with pytest.raises(ValueError, match="not fitted with scorers"):
        fitted.scores(histories)
    scorers = [RecentPopularity(), PersonalRepeat()]
    alone = GBDTReranker(candidates=6, max_trees=20).fit(folds(2, 3, 4), scorers).scores(histories)
    blend = Blend(scorers, (0.0, 0.0), fitted, 1.0)
    assert blend.scores(histories).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_weights": [1.0]}, "expect 16 features, not 15"),
        ({"first_weights": [1.0, -1.0]}, "each must be >= 0"),
        ({"first_weights": []}, "each must be >= 0"),
        ({"candidates": 0}, "candidates must be"),
        ({"repeat": "never"}, "'allow' or 'exclude'"),
        ({"depth": 3}, "depth"),
    ],
)
def test_stored_values_that_cannot_be_are_refused(
    fitted: GBDTReranker, change: dict[str, Any], message: str
) -> None:
    stored = fitted.stored()
    with pytest.raises(ModelLoadError, match=message):
        GBDTReranker.from_stored(replace(stored, values={**stored.values, **change}))
    with pytest.raises(ModelLoadError, match="it has no 'trees'"):
        GBDTReranker.from_stored(replace(stored, texts={}))


def test_before_a_fit_nothing_is_scored() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        GBDTReranker().scores(make_histories(EVENTS, ITEMS, "7D"))


def test_one_fold_or_other_scorers_are_refused() -> None:
    with pytest.raises(ValueError, match="two folds"):
        GBDTReranker().fit(folds(3), [RecentPopularity(), PersonalRepeat()])
    with pytest.raises(ValueError, match="each with the same scorers"):
        GBDTReranker().fit(folds(3, 4), [RecentPopularity()])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="candidates"):
        GBDTReranker(candidates=0)
    with pytest.raises(ValueError, match="floor"):
        GBDTReranker(floor=1.0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match="trees"):
        GBDTReranker().fit(folds(3, 4), [RecentPopularity(), PersonalRepeat()])


def test_folds_in_which_no_candidate_was_taken_are_refused() -> None:
    level = TableScorer(
        np.zeros((EVENTS.n_users, ITEMS.n_items))
    )  # so the first item is the candidate
    missed = [[w for w in windows if 0 not in w.target.item_idx] for windows in weeks(3, 4)]
    with pytest.raises(ValueError, match="no candidate was taken"):
        GBDTReranker(candidates=1).fit(
            [RankingFold([level], windows) for windows in missed], [level]
        )
