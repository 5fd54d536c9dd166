from __future__ import annotations

import numpy as np

from llmrec.forecasters.calibration import Dispersion
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.precomputed import PrecomputedForecaster
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import STRENGTHS, evaluate_rankings, fit_strength
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import RecentPopularity
from tests.ranking.test_blend import Fixed
from tests.worlds import small_world


def test_seen_items_are_not_relevant_where_they_must_not_be_listed() -> None:
    windows = small_world(n_users=10)
    histories = [window.history for window in windows]
    blend = Blend((RecentPopularity(),), (1.0,))
    forecasts = DecayedDirichlet().forecast(histories)
    lists = {"all": rank(forecasts, histories, blend, k=25, repeat="exclude")}
    table = evaluate_rankings(lists, windows, repeat="exclude", k=25)
    recall = table[table.metric == "recall@25"].value.item()
    assert recall == 1.0 or np.isnan(recall)  # all unseen items are listed, so none is missed


def test_the_tilt_is_as_hard_as_the_forecast_is_good() -> None:
    windows = small_world(n_users=40)
    blend = Blend((RecentPopularity(),), (1.0,))
    histories = [window.history for window in windows]
    targets = np.stack([w.target.category_counts for w in windows])
    shares = targets / targets.sum(axis=1, keepdims=True)
    oracle = PrecomputedForecaster.of("oracle", histories, 0.98 * shares + 0.004, Dispersion())
    backwards = PrecomputedForecaster.of("backwards", histories, (1 - shares) / 4, Dispersion())
    assert fit_strength(oracle, blend, windows) >= 0.5
    assert fit_strength(backwards, blend, windows) == 0.0


def test_the_strength_is_that_of_the_best_lists() -> None:
    windows = small_world(n_users=40)
    blend = Blend((RecentPopularity(),), (1.0,))
    histories = [window.history for window in windows]
    worth = {}
    for strength in STRENGTHS:
        forecasts = DecayedDirichlet().forecast(histories)
        lists = rank(forecasts, histories, blend, k=10, strength=strength)
        table = evaluate_rankings({"it": lists}, windows).set_index("metric")
        worth[strength] = table.loc["ndcg@10", "value"]
    found = fit_strength(DecayedDirichlet(), blend, windows)
    assert worth[found] == max(worth.values()) > min(worth.values())


def test_where_no_list_holds_a_target_item_there_is_no_tilt() -> None:
    windows = small_world(n_users=10)
    avoided = np.zeros((windows[0].history.log.n_users, windows[0].history.catalog.n_items))
    for window in windows:
        avoided[window.history.user_idx, window.target.item_idx] = -1000.0
    blend = Blend((Fixed(avoided),), (1.0,))
    assert fit_strength(DecayedDirichlet(), blend, windows, k=1) == 0.0


def test_repeat_and_explore_are_evaluated_apart() -> None:
    windows = small_world(n_users=10)
    histories = [window.history for window in windows]
    blend = Blend((RecentPopularity(),), (1.0,))
    lists = {"all": rank(DecayedDirichlet().forecast(histories), histories, blend, k=25)}
    table = evaluate_rankings(lists, windows, k=25).set_index("metric")
    assert table.loc["recall@25 repeat", "value"] == table.loc["recall@25 explore", "value"] == 1
    old = [np.isin(w.target.item_idx, w.history.item_idx) for w in windows]
    assert table.loc["recall@25 repeat", "n"] == sum(seen.any() for seen in old)
    assert table.loc["recall@25 explore", "n"] == sum((~seen).any() for seen in old)
