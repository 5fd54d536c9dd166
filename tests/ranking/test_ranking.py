"""Rankings: contributions that add up, and move an item only as its categories move."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from benchmarks.speed.ranking import full_sort_ranking
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.windows import make_windows
from llmrec.forecast import Forecast, Source
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import EPSILON, Ranking, rank
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import FloatArray, RepeatPolicy
from tests.worlds import catalog, log, small_world

SEED = st.integers(0, 2**32 - 1)
CATEGORIES = ("X", "Y", "Z")
# Items of one category, of two, of three, and (i6) of none.
ITEMS = Catalog.from_frame(
    pd.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(7)],
            "categories": [["X"], ["Y"], ["Z"], ["X", "Y"], ["X", "Y", "Z"], ["X"], []],
        }
    )
)
EVENTS = Interactions.from_frame(
    pd.DataFrame(
        [("u", "i0", "2020-01-02"), ("u", "i1", "2020-01-03"), ("v", "i5", "2020-01-04")],
        columns=["user_id", "item_id", "timestamp"],
    )
)
(HISTORY,) = make_histories(EVENTS, ITEMS, "7D", users=[0])


@dataclass
class Fixed:
    """The same scores for everybody."""

    row: FloatArray
    name: str = "fixed"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return np.tile(self.row, (len(histories), 1))


def forecast(weights: FloatArray | Sequence[float]) -> Forecast:
    return Forecast(np.asarray(weights), 10.0, "words", (), Source("test", "counting"))


def ranked(
    weights: FloatArray | Sequence[float] = (0.5, 0.3, 0.2),
    scores: FloatArray | None = None,
    k: int = 7,
    **options: Any,
) -> Ranking:
    """Rank the seven items for the one history, by popularity unless scores are given."""
    blend = Blend((Fixed(np.zeros(7) if scores is None else scores),), (1.0,))
    return rank([forecast(weights)], [HISTORY], blend, k=k, **options)[0]


def score_by_item(ranking: Ranking) -> dict[int, float]:
    return dict(zip(ranking.item_idx.tolist(), ranking.scores.tolist(), strict=True))


def random_case(seed: int) -> tuple[FloatArray, FloatArray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(3)), rng.normal(scale=3, size=7), rng


def test_a_score_worked_by_hand() -> None:
    # The six items with a category are equally likely, so the blend's mix is the mean of their
    # shares: X (1 + 1 + 1/2 + 1/3) / 6, Y (1 + 1/2 + 1/3) / 6, and so on.
    ranking = ranked((0.5, 0.3, 0.2), np.eye(7)[6], strength=0.5)
    mix = np.array([17 / 36, 11 / 36, 8 / 36])
    pull = 0.5 * np.log((np.array([0.5, 0.3, 0.2]) + EPSILON) / (mix + EPSILON))
    scores = score_by_item(ranking)
    assert scores[0] == pytest.approx(pull[0])
    assert scores[3] == pytest.approx((pull[0] + pull[1]) / 2)
    assert scores[4] == pytest.approx(pull.mean())
    assert scores[6] == 1


@given(SEED, st.sampled_from(["allow", "exclude"]), st.floats(0, 3))
def test_a_score_is_the_sum_of_its_contributions(seed: int, repeat: str, strength: float) -> None:
    weights, scores, rng = random_case(seed)
    blend = Blend((Fixed(scores), Fixed(rng.normal(size=7), "other")), (0.7, 1.3))
    (ranking,) = rank(
        [forecast(weights)],
        [HISTORY],
        blend,
        k=7,
        strength=strength,
        repeat=repeat,  # type: ignore[arg-type]
    )
    total = ranking.scorer_parts.sum(axis=1) + ranking.category_parts.sum(axis=1)
    np.testing.assert_allclose(ranking.scores, total, rtol=0, atol=1e-9)
    assert ranking.scorer_parts.shape == (len(ranking.item_idx), 2)
    assert ranking.category_parts.shape == (len(ranking.item_idx), 3)
    assert (np.diff(ranking.scores) <= 0).all()
    np.testing.assert_allclose(ranking.scorer_parts[:, 0], 0.7 * scores[ranking.item_idx])


@given(SEED, st.sampled_from(CATEGORIES), st.floats(1, 100))
def test_raising_a_category_never_lowers_an_item_of_it_alone(
    seed: int, name: str, factor: float
) -> None:
    weights, scores, _ = random_case(seed)
    before = ranked(weights, scores)
    after = ranked(weights, scores, edits=[Edit(name, factor)])
    (only,) = np.flatnonzero(
        (ITEMS.category_shares[[0, 1, 2]].toarray()[:, CATEGORIES.index(name)]) == 1
    )
    assert score_by_item(after)[only] >= score_by_item(before)[only] - 1e-9
    assert after.item_idx.tolist().index(only) <= before.item_idx.tolist().index(only)


@given(SEED, st.integers(0, 2))
def test_a_category_forecast_at_the_blends_own_share_contributes_nothing(
    seed: int, category: int
) -> None:
    weights, scores, _ = random_case(seed)
    probability = softmax(scores)
    mix = probability @ ITEMS.category_shares
    mix /= mix.sum()
    others = np.arange(3) != category
    neutral = weights.copy()
    neutral[category] = mix[category]
    neutral[others] *= (1 - mix[category]) / neutral[others].sum()
    ranking = ranked(neutral, scores)
    np.testing.assert_allclose(ranking.category_parts.toarray()[:, category], 0, atol=1e-9)
    without = ranking.scores - ranking.category_parts.toarray()[:, others].sum(axis=1)
    np.testing.assert_allclose(without, scores[ranking.item_idx], atol=1e-9)


@given(SEED, st.floats(0, 2))
def test_contributions_grow_with_strength_and_0_leaves_the_blend(
    seed: int, strength: float
) -> None:
    weights, scores, _ = random_case(seed)
    plain, tilted = ranked(weights, scores, strength=0), ranked(weights, scores, strength=strength)
    unit = ranked(weights, scores)
    assert plain.item_idx.tolist() == np.argsort(-scores).tolist()
    by_item = dict(zip(unit.item_idx, unit.category_parts.toarray(), strict=True))
    expected = strength * np.array([by_item[item] for item in tilted.item_idx])
    np.testing.assert_allclose(tilted.category_parts.toarray(), expected, atol=1e-9)


@given(SEED)
def test_full_strength_gives_single_category_catalogs_the_forecasts_mix(seed: int) -> None:
    weights, scores, _ = random_case(seed)
    singles = np.array([0, 1, 2, 5])
    implied = softmax(scores[singles]) @ ITEMS.category_shares[singles]
    assume(implied.min() > 1e-6)  # what the blend all but excludes, EPSILON keeps out
    ranking = ranked(weights, scores, candidates=singles)
    mix = softmax(ranking.scores) @ ITEMS.category_shares[ranking.item_idx]
    np.testing.assert_allclose(mix, weights, atol=1e-3)


def test_a_muted_category_falls_far_but_scores_stay_finite() -> None:
    muted = ranked((0.5, 0.3, 0.2), edits=[Edit("X", 0)])
    scores = score_by_item(muted)
    assert np.isfinite(muted.scores).all()
    assert max(scores[0], scores[5]) < min(scores[1], scores[2], scores[6]) - 10
    assert set(muted.item_idx[-2:].tolist()) == {0, 5}


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_a_muted_category_comes_last_at_every_strength(strength: float) -> None:
    scores = np.array([50.0, 0, 0, 40, 30, 60, 0])  # the scorer prefers X
    muted = ranked(scores=scores, strength=strength, edits=[Edit("X", 0)])
    assert set(muted.item_idx[:3].tolist()) == {1, 2, 6}
    head = ranked(scores=scores, strength=strength, edits=[Edit("X", 0)], k=5)
    assert head.item_idx.tolist() == muted.item_idx[:5].tolist()


def test_where_all_rankable_items_are_muted_they_are_ranked_all_the_same() -> None:
    only = ranked(candidates=np.array([0, 5]), edits=[Edit("X", 0)])
    assert sorted(only.item_idx.tolist()) == [0, 5]


def test_an_item_without_a_category_gets_no_tilt() -> None:
    ranking = ranked(strength=5)
    row = ranking.item_idx.tolist().index(6)
    assert ranking.category_parts[[row]].nnz == 0
    only = ranked(candidates=np.array([6]))
    assert only.scores.tolist() == [0]


def test_edits_end_at_the_cutoff_of_the_history() -> None:
    edit = Edit("X", 0, until=HISTORY.cutoff)
    np.testing.assert_array_equal(ranked(edits=[edit]).scores, ranked().scores)


def test_ties_go_to_the_more_popular_item_and_then_to_the_smaller_id() -> None:
    # i0, i1 and i5 have one event each; nobody took the others.
    assert ranked(strength=0).item_idx.tolist() == [0, 1, 5, 2, 3, 4, 6]
    assert ranked(strength=0, k=4).item_idx.tolist() == [0, 1, 5, 2]


def test_ties_go_by_item_id_whatever_the_order_of_the_catalog() -> None:
    frame = pd.DataFrame({"item_id": ["c", "a", "b"], "categories": [["X"]] * 3})
    catalog = Catalog.from_frame(frame)
    events = Interactions.from_frame(
        pd.DataFrame({"user_id": ["u"], "item_id": ["b"], "timestamp": ["2020-01-01"]})
    )
    (ranking,) = rank(
        [forecast([1.0])],
        make_histories(events, catalog, "7D"),
        Blend((Fixed(np.zeros(3)),), (1.0,)),
        k=3,
    )
    assert catalog.item_ids[ranking.item_idx].tolist() == ["b", "a", "c"]


@settings(max_examples=30)
@given(
    SEED,
    st.lists(st.tuples(st.floats(-50, 0), st.floats(0, 3)), min_size=1, max_size=4),
    st.sampled_from(["allow", "exclude"]),
    st.integers(0, 9),
)
def test_scorers_that_say_nothing_leave_the_list_to_popularity_at_the_cutoff(
    seed: int, constants: list[tuple[float, float]], repeat: RepeatPolicy, weeks: int
) -> None:
    items = catalog()
    events = log(5, n_periods=8, seed=seed % 100).align_to(items)
    cutoff = events.timestamp.min() + np.timedelta64(7 * weeks, "D") + 1
    (history,) = make_histories(events, items, "7D", cutoff, [0])
    scorers = [Fixed(np.full(items.n_items, c), f"{n}") for n, (c, _) in enumerate(constants)]
    blend = Blend(scorers, [weight for _, weight in constants])
    of_user = forecast(np.full(items.n_categories, 1 / items.n_categories))
    (ranking,) = rank([of_user], [history], blend, k=items.n_items, strength=0, repeat=repeat)
    known = truncate_log(events, cutoff)
    lately = known.timestamp >= cutoff - np.timedelta64(28, "D")
    recent, ever = (
        np.bincount(taken, minlength=25) for taken in (known.item_idx[lately], known.item_idx)
    )
    popular = np.lexsort((items.item_ids, -ever, -recent))
    seen = history.item_idx if repeat == "exclude" else []
    assert ranking.item_idx.tolist() == [item for item in popular if item not in seen]
    assert ranking.scorer_names[0].startswith("popular ")
    np.testing.assert_allclose(ranking.scores, ranking.scorer_parts.sum(axis=1))


@pytest.mark.parametrize("repeat", ["allow", "exclude"])
def test_where_nothing_was_taken_lately_the_list_goes_by_all_that_was_taken(
    repeat: RepeatPolicy,
) -> None:
    frame = pd.DataFrame(
        [("u", "i0"), ("v", "i4"), ("w", "i4"), ("v", "i1")], columns=["user_id", "item_id"]
    ).assign(timestamp="2020-01-02")
    log = Interactions.from_frame(frame).align_to(ITEMS)
    history = make_histories(log, ITEMS, "7D", "2020-06-01", [0])
    (ranking,) = rank(
        [forecast([0.5, 0.3, 0.2])], history, Blend((RecentPopularity(),), (1.0,)), k=2, strength=0,
        repeat=repeat,
    )  # fmt: skip
    assert ranking.scorer_names == ("popular so far",)
    assert ranking.item_idx.tolist() == ([4, 0] if repeat == "allow" else [4, 1])
    assert np.ptp(ranking.scores) > 0


def test_a_scorer_that_gives_no_number_is_an_error_however_the_others_score() -> None:
    blend = Blend((Fixed(np.zeros(7)), Fixed(np.full(7, np.nan), "broken")), (1.0, 0.5))
    with pytest.raises(ValueError, match="'broken' gave nan"):
        rank([forecast([0.5, 0.3, 0.2])], [HISTORY], blend, k=3)


def test_events_at_or_after_the_cutoff_break_no_tie() -> None:
    history = make_histories(EVENTS, ITEMS, "7D", "2020-01-03", [0])
    (ranking,) = rank(
        [forecast([0.5, 0.3, 0.2])], history, Blend((Fixed(np.zeros(7)),), (1.0,)), k=3, strength=0
    )
    assert ranking.item_idx.tolist() == [0, 1, 2]


@given(SEED, st.integers(1, 7))
def test_the_k_best_are_the_head_of_the_whole_ranking(seed: int, k: int) -> None:
    weights, scores, _ = random_case(seed)
    scores = np.round(scores)  # so that items tie
    whole, head = ranked(weights, scores), ranked(weights, scores, k=k)
    assert head.item_idx.tolist() == whole.item_idx[:k].tolist()


@settings(max_examples=20)
@given(SEED, st.integers(1, 25), st.sampled_from([(), (Edit("Drama", 0), Edit("War", 3))]))
def test_a_list_is_the_head_of_a_sort_of_all_items(seed: int, k: int, edits: list[Edit]) -> None:
    history = small_world(n_users=3, seed=seed % 100)[0].history
    of_user = forecast(np.random.default_rng(seed).dirichlet(np.ones(5)))
    blend = Blend((RecentPopularity(),), (1.0,))  # counts, so that items tie
    (ranking,) = rank([of_user], [history], blend, k=k, edits=edits)
    items, scores = full_sort_ranking(of_user, history, blend, edits)
    assert ranking.item_idx.tolist() == items[:k].tolist()
    assert ranking.scores.tobytes() == scores[:k].tobytes()


def test_what_was_seen_or_has_no_category_is_left_out_when_repeats_are() -> None:
    ranking = ranked(repeat="exclude", k=100)
    assert sorted(ranking.item_idx.tolist()) == [2, 3, 4, 5]


def test_only_candidates_are_ranked_and_a_candidate_named_twice_comes_once() -> None:
    assert sorted(ranked(candidates=np.array([4, 2, 4])).item_idx.tolist()) == [2, 4]


@pytest.mark.parametrize("candidates", [np.array([], dtype=np.int64), np.array([0, 1])])
def test_nothing_to_rank_gives_an_empty_ranking(candidates: FloatArray) -> None:
    ranking = ranked(candidates=candidates, repeat="exclude")
    assert ranking.item_idx.shape == ranking.scores.shape == (0,)
    assert ranking.scorer_parts.shape == (0, 1)
    assert ranking.category_parts.shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, not 0"),
        ({"strength": -1.0}, "strength must be finite and >= 0"),
        ({"strength": float("nan")}, "strength must be finite"),
        ({"strength": float("inf")}, "strength must be finite and >= 0, at most 100, not inf"),
        ({"strength": 100.5}, "at most 100, not 100.5"),
        ({"strength": "2"}, "at most 100, not '2'"),
        ({"repeat": "sometimes"}, "'allow' or 'exclude', not 'sometimes'"),
        ({"candidates": np.array([7])}, "candidate 7 is not an item index: .* 0..6"),
        ({"candidates": np.array([-1])}, "candidate -1 is not"),
        ({"candidates": np.array(["i1"])}, "must be item indices"),
        ({"edits": [Edit("W", 2)]}, "unknown category 'W'"),
        ({"weights": [0.5, 0.5]}, "has 2 category weights, the catalog 3"),
        ({"scores": np.full(7, np.nan)}, "'fixed' gave nan"),
        ({"scores": np.zeros(6)}, r"'fixed' gave scores of shape \(1, 6\)"),
    ],
)
def test_invalid_arguments_are_named_in_the_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranked(**options)


def test_forecasts_and_histories_must_pair_up() -> None:
    blend = Blend((RecentPopularity(),), (1.0,))
    with pytest.raises(ValueError, match="1 forecasts for 0 histories"):
        rank([forecast([0.5, 0.3, 0.2])], [], blend, k=1)
    assert rank([], [], blend, k=1) == []


@settings(max_examples=5)
@given(SEED)
def test_a_batch_gives_the_bytes_that_single_calls_give_in_any_order(seed: int) -> None:
    histories = [window.history for window in small_world(n_users=9, seed=seed % 100)]
    rng = np.random.default_rng(seed)
    forecasts = [forecast(rng.dirichlet(np.ones(5))) for _ in histories]
    blend = Blend((RecentPopularity(), PersonalRepeat()), (0.3, 0.7))
    batch = rank(forecasts, histories, blend, k=10)
    backwards = rank(forecasts[::-1], histories[::-1], blend, k=10)[::-1]
    for row, history in enumerate(histories):
        (single,) = rank([forecasts[row]], [history], blend, k=10)
        for other in (batch[row], backwards[row]):
            assert single.item_idx.tobytes() == other.item_idx.tobytes()
            assert single.scores.tobytes() == other.scores.tobytes()


def test_rankings_are_the_same_whatever_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    histories = [window.history for window in small_world(n_users=9)]
    forecasts = [forecast(np.full(5, 0.2))] * len(histories)
    blend = Blend((RecentPopularity(), PersonalRepeat()), (0.3, 0.7))
    one_batch = rank(forecasts, histories, blend, k=10)
    monkeypatch.setattr("llmrec.ranking.ranking._SCORES_PER_BATCH", 2 * 25)
    by_twos = rank(forecasts, histories, blend, k=10)
    for one, other in zip(one_batch, by_twos, strict=True):
        assert one.item_idx.tobytes() == other.item_idx.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()


def test_memory_does_not_grow_with_the_people_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.ranking.ranking._SCORES_PER_BATCH", 5_000)
    items = catalog(5_000)
    # Periods of events: each has a cutoff, and so a popularity, of their own.
    windows = make_windows(log(60), items, "10 events")
    histories = [window.history for window in windows]
    blend = Blend((RecentPopularity(),), (1.0,))

    def peak(n: int) -> int:
        forecasts = [forecast(np.full(5, 0.2))] * n
        tracemalloc.start()
        rank(forecasts, histories[:n], blend, k=10)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(1)  # sorts the log
    assert peak(60) < 1.5 * peak(10)
