from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from llmrec.data.periods import History, Window
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import (
    METRICS,
    EvaluationResult,
    evaluate,
    evaluate_forecasters,
    summarize,
)
from llmrec.evaluation.references import informed_losses, split_targets
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import Dispersion
from llmrec.forecasters.precomputed import PrecomputedForecaster
from llmrec.metrics import log_loss
from tests.worlds import catalog, log, small_world

WEEK = np.timedelta64(7, "D")


def precomputed(name: str, windows: Sequence[Window], weights: np.ndarray) -> PrecomputedForecaster:
    return PrecomputedForecaster.of(
        name, [window.history for window in windows], weights, Dispersion()
    )


def oracle(windows: Sequence[Window]) -> PrecomputedForecaster:
    targets = np.stack([window.target.category_counts for window in windows])
    shares = targets / targets.sum(axis=1, keepdims=True)
    return precomputed("oracle", windows, 0.98 * shares + 0.004)


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return small_world(n_users=60)


@pytest.fixture(scope="module")
def result(windows: list[Window]) -> EvaluationResult:
    uniform = precomputed("uniform", windows, np.full((len(windows), 5), 0.2))
    models = {
        "counting": [DecayedDirichlet()],
        "mean": [DecayedDirichlet(1.0)],
        "oracle": [oracle(windows)],
        "uniform": [uniform],
    }
    return evaluate_forecasters(models, windows, dataset="small", split="test")


def test_an_oracle_beats_counting_and_counting_beats_the_uniform_forecast(
    windows: list[Window], result: EvaluationResult
) -> None:
    table = summarize(result, reference="counting", persistence="mean")
    whole = table[table["slice"] == "all"].set_index(["metric", "model"])
    assert whole.loc[("log_loss_gain", "oracle"), "low"] > 0
    assert whole.loc[("log_loss_gain", "uniform"), "high"] < 0
    assert whole.loc[("log_loss", "uniform"), "value"] == pytest.approx(np.log(5))
    assert whole.loc[("skill", "mean"), ["value", "low", "high"]].tolist() == [0, 0, 0]
    assert whole.loc[("skill", "oracle"), "value"] > whole.loc[("skill", "counting"), "value"] > 0
    assert whole.loc[("drift_captured", "oracle"), "value"] > 0.8
    assert whole.loc[("ece", "oracle"), "value"] < 0.05


def test_the_gain_is_the_difference_of_the_losses(result: EvaluationResult) -> None:
    table = summarize(result, reference="counting", persistence="mean")
    whole = table[table["slice"] == "all"].pivot(index="model", columns="metric", values="value")
    np.testing.assert_allclose(
        whole["log_loss_gain"], whole["log_loss"]["counting"] - whole["log_loss"], atol=1e-12
    )


def test_every_metric_and_slice_is_there_with_its_number_of_users(
    windows: list[Window], result: EvaluationResult
) -> None:
    table = summarize(result, reference="counting", persistence="mean")
    assert set(METRICS) <= set(table["metric"])
    sizes = table[table["metric"] == "log_loss"].groupby("slice")["n"].first()
    assert sizes["all"] == len(windows)
    assert sizes[[f"drift {decile}" for decile in range(1, 11)]].sum() == len(windows)
    assert sizes["stable"] == sizes["drifting"] == 20
    assert "cold" not in sizes  # nobody here has two periods or fewer
    assert (table["low"].isna() | (table["low"] <= table["value"] + 1e-12)).all()


def test_a_model_with_forecasts_of_some_users_is_paired_with_the_others_on_those(
    windows: list[Window], result: EvaluationResult
) -> None:
    few = windows[:20]
    more = result.merge(evaluate_forecasters({"few": [DecayedDirichlet()]}, few))
    more.scores["dataset"], more.scores["split"] = "small", "test"
    table = summarize(more, reference="counting", persistence="mean")
    whole = table[table["slice"] == "all"].set_index(["metric", "model"])
    assert whole.loc[("log_loss_gain", "few"), ["value", "low", "high"]].tolist() == [0, 0, 0]
    assert whole.loc[("log_loss", "few"), "n"] == 20
    assert whole.loc[("log_loss", "counting"), "n"] == 60


def test_seeds_are_averaged_user_by_user(windows: list[Window]) -> None:
    first, second = DecayedDirichlet(0.5), DecayedDirichlet(1.0)
    both = evaluate_forecasters({"both": [first, second]}, windows).scores["log_loss"]
    alone = evaluate_forecasters({"first": [first], "second": [second]}, windows).scores
    means = alone.groupby("user_id", sort=False)["log_loss"].mean()
    np.testing.assert_allclose(both, means)


def test_a_forecaster_fitted_on_the_targets_is_refused() -> None:
    items = catalog()
    events = log(n_users=6).align_to(items)
    earlier, later = (
        make_windows(events, items, "7D", events.timestamp.min() + n * WEEK) for n in (3, 4)
    )
    fitted = DecayedDirichlet().fit(later)
    with pytest.raises(DataError, match="counting was fitted on events up to"):
        evaluate_forecasters({"counting": [fitted]}, earlier)
    with pytest.raises(DataError, match="Fit it on earlier windows"):
        evaluate_forecasters({"counting": [fitted]}, later)
    assert len(
        evaluate_forecasters({"counting": [DecayedDirichlet().fit(earlier)]}, later).scores
    ) == len(later)


def test_no_window_is_refused() -> None:
    with pytest.raises(DataError, match="no window to evaluate on"):
        evaluate_forecasters({"counting": [DecayedDirichlet()]}, [], dataset="small")


def test_a_target_without_events_and_a_person_without_history_stay_undefined() -> None:
    windows = small_world(n_users=8, empty=True)
    scores = evaluate_forecasters({"counting": [DecayedDirichlet()]}, windows).scores
    assert scores["drift"].isna().all()
    assert scores["log_loss"].notna().all()
    assert scores["false_retention"].isna().all()


def test_a_single_user_can_be_evaluated() -> None:
    table = evaluate({"counting": DecayedDirichlet()}, small_world(n_users=1), reference="counting")
    losses = table[(table["metric"] == "log_loss") & (table["slice"] == "all")]
    assert losses["n"].tolist() == [1]
    assert losses["low"].item() == pytest.approx(losses["high"].item())


def test_forecasts_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        largest = 0

        def forecast(self, histories: Sequence[History]) -> list[Forecast]:
            self.largest = max(self.largest, len(histories))
            return DecayedDirichlet().forecast(histories)

    monkeypatch.setattr("llmrec.evaluation.evaluator.HISTORIES_PER_BATCH", 7)
    recorder = Recorder()
    evaluate_forecasters({"recorder": [recorder]}, small_world(n_users=20))
    assert recorder.largest == 7


def test_halves_keep_events_of_one_time_together_and_lose_none() -> None:
    windows = small_world(n_users=20)
    shown, hidden = split_targets(windows)
    targets = np.stack([window.target.category_counts for window in windows])
    np.testing.assert_allclose(shown + hidden, targets)
    assert (shown.sum(axis=1) > 0).all()
    again = split_targets(windows[::-1])
    np.testing.assert_array_equal(again[0][::-1], shown)  # the order of people changes nothing


def test_one_basket_cannot_be_halved() -> None:
    items = catalog()
    frame = log(n_users=3).align_to(items)
    windows = make_windows(frame, items, "1 events")
    shown, hidden = split_targets(windows)
    assert shown.sum() == hidden.sum() == 0
    assert np.isnan(informed_losses(np.full((len(windows), 5), 0.2), shown, hidden)).all()


def test_being_shown_half_of_a_period_helps() -> None:
    windows = small_world(n_users=60)
    shown, hidden = split_targets(windows)
    weights = DecayedDirichlet(1.0).category_weights([window.history for window in windows])
    informed = informed_losses(weights, shown, hidden)
    assert informed.mean() < log_loss(weights, hidden).mean()
