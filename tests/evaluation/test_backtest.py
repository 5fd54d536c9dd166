from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.readers import read_table
from llmrec.evaluation.backtest import draw, evaluate, evaluate_rankings, splits
from llmrec.evaluation.report import Replayed, compare
from llmrec.evaluation.tuning import fit_strength
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.spread import Spread
from llmrec.ranking.blend import Blend
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.tilt import rank
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame
from tests.worlds import small_world


def test_an_oracle_beats_counting_and_counting_beats_knowing_nothing() -> None:
    windows = small_world(n_users=40)
    targets = np.stack([w.target.category_counts for w in windows])
    shares = targets / targets.sum(axis=1, keepdims=True)
    table = evaluate(
        {
            "oracle": Replayed(0.98 * shares + 0.004, Spread(), "oracle"),
            "counting": DecayedDirichlet().fit(windows),
            "uniform": Replayed(np.full_like(shares, 0.2), Spread(), "uniform"),
        },
        windows,
        reference="counting",
    )
    gains = table[table.metric == "log_loss_gain"].set_index("model")
    assert gains.loc["oracle", "low"] > 0
    assert gains.loc["uniform", "high"] < 0
    losses = table[table.metric == "log_loss"].set_index("model").value
    assert losses["uniform"] == pytest.approx(np.log(5))
    assert gains.loc["uniform", "value"] == pytest.approx(losses["counting"] - losses["uniform"])


def test_validation_ends_before_the_tests_begin() -> None:
    dataset = read_table(frame(n_days=100), name="small", period="7D")
    found = splits(dataset)
    cutoffs = [windows[0].history.cutoff for windows in found.values()]
    assert list(found) == ["validation", "test 1", "test 2"]
    assert cutoffs == sorted(cutoffs)
    for earlier, later in zip(found.values(), list(found.values())[1:], strict=False):
        assert max(w.target.period.end for w in earlier) <= min(w.history.cutoff for w in later)


def test_periods_of_events_validate_on_the_last_but_one() -> None:
    found = splits(read_table(frame(), name="small", period="10 events"))
    for before, after in zip(found["validation"], found["test"], strict=True):
        assert before.target.stop == after.target.start


def test_a_log_of_too_few_periods_is_refused() -> None:
    with pytest.raises(ValueError, match="spans 2 whole periods of 7D"):
        splits(read_table(frame(n_days=20), name="short", period="7D"))


def test_drawing_is_repeatable_and_keeps_the_order() -> None:
    windows = small_world(n_users=20)
    drawn = draw(windows, 7, seed=3)
    assert [windows.index(window) for window in drawn] == sorted(map(windows.index, drawn))
    assert drawn == draw(windows, 7, seed=3)
    assert draw(windows, None) == windows


def test_replayed_forecasts_are_only_for_the_windows_they_were_made_for() -> None:
    with pytest.raises(ValueError, match="2 forecasts stored, 0 wanted"):
        Replayed(np.full((2, 5), 0.2), Spread(), "x").forecast([])


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
    targets = np.stack([w.target.category_counts for w in windows])
    shares = targets / targets.sum(axis=1, keepdims=True)
    oracle = Replayed(0.98 * shares + 0.004, Spread(), "oracle")
    backwards = Replayed((1 - shares) / 4, Spread(), "backwards")
    assert fit_strength(oracle, blend, windows) >= 0.5
    assert fit_strength(backwards, blend, windows) == 0.0


def test_a_reading_of_noise_leaves_counting_as_it_is() -> None:
    dataset = read_table(frame(n_users=100, n_days=200), name="small", period="28D")
    table, calibration = compare(dataset, FakeModel())  # type: ignore[arg-type]
    assert calibration is not None
    assert not calibration.trusted
    gains = table[(table.metric == "log_loss_gain") & (table.model == "LLM calibrated")]
    np.testing.assert_allclose(gains.value, 0, atol=1e-12)
