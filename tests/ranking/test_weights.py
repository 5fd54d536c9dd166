"""Weights of a blend, chosen on validation windows by the NDCG of their lists."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.periods import Window
from llmrec.data.windows import last_period_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.best_items import BestItems
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import evaluate_rankings
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.ranking.weights import choose_added_weight, choose_weights
from llmrec.types import FloatArray, RepeatPolicy
from tests.ranking.test_blend import Fixed
from tests.worlds import catalog, log, small_world

WINDOWS = small_world(n_users=40)
SHAPE = (WINDOWS[0].history.log.n_users, WINDOWS[0].history.catalog.n_items)
REPEATS: tuple[RepeatPolicy, ...] = ("allow", "exclude")


def noise(seed: int, scale: float = 1.0, shape: tuple[int, int] = SHAPE) -> FloatArray:
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def knowing(windows: Sequence[Window] = WINDOWS, scale: float = 1.0) -> Fixed:
    """Score the target's items above all others."""
    table = np.zeros(SHAPE)
    for window in windows:
        table[window.history.user_idx, window.target.item_idx] = scale
    return Fixed(table, "knows")


def ndcg_of_blend(
    blend: Blend, windows: Sequence[Window], *, repeat: RepeatPolicy = "allow", k: int = 10
) -> float:
    """Mean NDCG@k among the best items of a blend; 0 without a window that has a relevant item."""
    best = BestItems.of([blend], windows, repeat, k)
    return best.ndcg(np.ones(1)) if best.n else 0.0


def ndcg_of_lists(blend: Blend, windows: Sequence[Window], repeat: RepeatPolicy, k: int) -> float:
    """Mean NDCG@k of full rankings, by `llmrec.metrics.ndcg_at`."""
    histories = [window.history for window in windows]
    forecasts = DecayedDirichlet().forecast(histories)
    rankings = rank(forecasts, histories, blend, k=k, strength=0, repeat=repeat)
    table = evaluate_rankings({"it": rankings}, windows, repeat=repeat, k=k)
    return float(table.set_index("metric").loc[f"ndcg@{k}", "value"])


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 30), repeat=st.sampled_from(REPEATS))
def test_ndcg_is_that_of_the_full_rankings(seed: int, k: int, repeat: RepeatPolicy) -> None:
    scorers = [Fixed(noise(seed), "a"), Fixed(noise(seed + 1, 3.0), "b")]
    blend = Blend(scorers, (0.7, 0.4))
    full = ndcg_of_lists(blend, WINDOWS, repeat, k)
    assert ndcg_of_blend(blend, WINDOWS, repeat=repeat, k=k) == pytest.approx(full, abs=1e-6)
    both = BestItems.of(scorers, WINDOWS, repeat, k)
    assert both.ndcg(np.array([0.7, 0.4])) == pytest.approx(full, abs=1e-6)  # 25 items: none is out


def test_of_a_large_catalog_the_best_of_each_scorer_are_among_the_candidates() -> None:
    items = catalog(400)
    events = log(n_users=20).align_to(items)
    windows = last_period_windows(events, items, "7D")
    shape = events.n_users, items.n_items
    scorers = [Fixed(noise(seed, shape=shape), f"noise {seed}") for seed in range(3)]
    best = BestItems.of(scorers, windows, "allow", 10)
    assert best.scores.shape[2] < 200
    for weights in np.eye(3):
        full = ndcg_of_lists(Blend(scorers, tuple(weights)), windows, "allow", 10)
        assert best.ndcg(weights) == pytest.approx(full, abs=1e-6)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_ndcg_does_not_depend_on_the_order_of_people(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(WINDOWS))
    blend = Blend([Fixed(noise(seed), "a"), RecentPopularity()], (1.0, 0.5))
    shuffled = [WINDOWS[place] for place in order]
    assert ndcg_of_blend(blend, shuffled) == pytest.approx(ndcg_of_blend(blend, WINDOWS), abs=1e-9)


@pytest.mark.parametrize("repeat", REPEATS)
def test_chosen_weights_rank_about_as_well_as_any_scorer_alone_and_better_than_equal_ones(
    repeat: RepeatPolicy,
) -> None:
    scorers = [RecentPopularity(), PersonalRepeat(), Fixed(noise(0, 3.0), "noise")]
    weights = choose_weights(scorers, WINDOWS, repeat=repeat)
    found = ndcg_of_blend(Blend(scorers, weights), WINDOWS, repeat=repeat)
    alone = [ndcg_of_blend(Blend([one], [1.0]), WINDOWS, repeat=repeat) for one in scorers]
    equal = ndcg_of_blend(Blend(scorers, (1.0, 1.0, 1.0)), WINDOWS, repeat=repeat)
    assert found >= max(alone) - 0.02
    assert found > equal
    assert all(weight >= 0 for weight in weights)
    assert any(weights)
    assert weights == choose_weights(scorers, WINDOWS, repeat=repeat)


def test_a_scorer_that_alone_ranks_better_is_found_where_no_step_leads_to_it() -> None:
    scorers = [Fixed(noise(0, 1e3), "noise"), Fixed(noise(0, 1e3), "same"), knowing(scale=1e-3)]
    weights = choose_weights(scorers, WINDOWS)
    assert ndcg_of_blend(Blend(scorers, weights), WINDOWS) == 1


def test_a_scorer_alone_and_scorers_without_a_window_get_a_weight_of_1() -> None:
    assert choose_weights([RecentPopularity()], WINDOWS) == (1.0,)
    assert choose_weights([RecentPopularity(), PersonalRepeat()], []) == (1.0, 1.0)
    assert ndcg_of_blend(Blend([RecentPopularity()], [1.0]), []) == 0


def test_few_windows_get_weights_too() -> None:
    scorers = [RecentPopularity(), knowing()]
    weights = choose_weights(scorers, WINDOWS[:3])
    assert weights[1] > 0
    assert np.isfinite(weights).all()


def test_where_all_likely_weights_are_0_each_scorer_gets_1() -> None:
    backwards = [Fixed(-knowing(scale=scale).table, f"{scale}") for scale in (1.0, 2.0)]
    assert choose_weights(backwards, WINDOWS[:3]) == (1.0, 1.0)


def test_taken_items_that_are_no_candidates_count_for_nothing() -> None:
    items = catalog(400)
    events = log(n_users=20).align_to(items)
    windows = last_period_windows(events, items, "7D")
    shape = events.n_users, items.n_items
    scorers = [Fixed(noise(seed, shape=shape), f"noise {seed}") for seed in range(3)]
    best = BestItems.of(scorers, windows, "exclude", 10)
    assert not best.possible.all()  # people have different numbers of candidates
    assert (best.shares > 0).any()
    assert not best.shares[~best.possible].any()


def test_an_added_scorer_gets_a_weight_only_if_it_helps() -> None:
    blend = Blend([PersonalRepeat()], [2.0])
    weight = choose_added_weight(blend, knowing(), WINDOWS)
    assert weight > 0
    both = Blend([*blend.scorers, knowing()], [2.0, weight])
    assert ndcg_of_blend(both, WINDOWS) > ndcg_of_blend(blend, WINDOWS)
    backwards = Fixed(-knowing().table, "backwards")
    assert choose_added_weight(blend, backwards, WINDOWS) == 0
    assert choose_added_weight(blend, knowing(), WINDOWS[:5]) == 0  # too few to judge it


def test_scores_are_stacked_in_single_precision() -> None:
    items, n_scorers = catalog(3000), 6
    events = log(n_users=40).align_to(items)
    windows = last_period_windows(events, items, "7D")
    shape = events.n_users, items.n_items
    scorers = [Fixed(noise(seed, shape=shape), f"noise {seed}") for seed in range(n_scorers)]
    tracemalloc.start()
    choose_weights(scorers, windows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 14 * n_scorers * len(windows) * items.n_items  # bytes; 19 with float64
