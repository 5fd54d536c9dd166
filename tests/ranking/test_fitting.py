"""Tuning a blend's weights on the NDCG of validation windows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from llmrec.data.windows import last_period_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend, fit_blend
from llmrec.ranking.fitting import evaluate_rankings, tune_blend
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import RepeatPolicy
from tests.ranking.test_blend import Fixed
from tests.worlds import catalog, log, small_world

WINDOWS = small_world(n_users=40)
HISTORIES = [window.history for window in WINDOWS]


def ndcg(blend: Blend, repeat: RepeatPolicy) -> float:
    forecasts = DecayedDirichlet().forecast(HISTORIES)
    rankings = rank(forecasts, HISTORIES, blend, k=10, strength=0, repeat=repeat)
    table = evaluate_rankings({"it": rankings}, WINDOWS, repeat=repeat)
    return float(table.set_index("metric").loc["ndcg@10", "value"])


@pytest.mark.parametrize("repeat", ["allow", "exclude"])
def test_tuned_weights_rank_better_and_never_worse(repeat: RepeatPolicy) -> None:
    history = WINDOWS[0].history
    shape = (history.log.n_users, history.catalog.n_items)
    noise = np.random.default_rng(0).normal(scale=3, size=shape)
    scorers = [RecentPopularity(), PersonalRepeat(), Fixed(noise, "noise")]
    start = Blend(scorers, (0.3, 0.3, 1.0))
    found = tune_blend(start, WINDOWS, repeat=repeat)
    assert ndcg(found, repeat) > ndcg(start, repeat) + 0.01
    fitted = fit_blend(scorers, WINDOWS, repeat=repeat)
    assert ndcg(tune_blend(fitted, WINDOWS, repeat=repeat), repeat) >= ndcg(fitted, repeat) - 1e-6
    assert all(weight >= 0 for weight in found.weights)


def test_a_scorer_that_alone_ranks_better_is_found_where_no_step_leads_to_it() -> None:
    history = WINDOWS[0].history
    shape = (history.log.n_users, history.catalog.n_items)
    noise, best = np.random.default_rng(0).normal(scale=1e3, size=shape), np.zeros(shape)
    for window in WINDOWS:
        best[window.history.user_idx, window.target.item_idx] = 1e-3
    scorers = [Fixed(noise, "noise"), Fixed(noise, "same noise"), Fixed(best, "best")]
    found = tune_blend(Blend(scorers, (1.0, 1.0, 0.0)), WINDOWS)
    assert ndcg(found, "allow") == 1


def test_scores_are_stacked_in_single_precision() -> None:
    items, n_scorers = catalog(3000), 6
    events = log(n_users=40).align_to(items)
    windows = last_period_windows(events, items, "7D")
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(n_scorers, events.n_users, items.n_items))
    blend = Blend([Fixed(one, f"noise {n}") for n, one in enumerate(tables)], (1.0,) * n_scorers)
    tracemalloc.start()
    tune_blend(blend, windows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * n_scorers * len(windows) * items.n_items  # bytes; 16 if float64 came first
