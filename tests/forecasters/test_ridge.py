from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.errors import DataError, TrainingError
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.ridge import MIN_RELATIVE_WEIGHT, RidgeAutoregression, _features
from llmrec.metrics import log_loss
from tests.forecasters.test_collaborative_markov import week
from tests.worlds import catalog, log, small_world


def test_people_who_swing_are_forecast_to_swing_back() -> None:
    fitted = RidgeAutoregression().fit(week(1), week(2))
    histories = [window.history for window in week(3)]
    weights = fitted.category_weights(histories)
    assert (weights[:6, 1] > 0.7).all()
    assert (weights[6:, 0] > 0.7).all()


def test_it_learns_a_drift_that_counting_is_late_for() -> None:
    training, validation = small_world(n_users=80), small_world(n_users=40, seed=1)
    fitted = RidgeAutoregression().fit(training, validation)
    fresh = small_world(n_users=80, seed=2)
    histories = [window.history for window in fresh]
    targets = np.stack([window.target.category_counts for window in fresh])
    learned, counted = (
        log_loss(model.category_weights(histories), targets).mean()
        for model in (fitted, fitted.prior)
    )
    assert learned < counted - 0.05


def test_the_map_solves_the_penalised_least_squares_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.forecasters.ridge.PENALTIES", (2.0,))
    training, validation = small_world(n_users=9), small_world(n_users=7, seed=1)
    fitted = RidgeAutoregression().fit(training, validation)
    windows = [*training, *validation]
    parts = [
        _features([window.history for window in part], fitted.prior)
        for part in (training, validation)
    ]
    features, counted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    targets = np.stack([window.target.category_counts for window in windows])
    residual = (targets / targets.sum(axis=1, keepdims=True) - counted) / np.sqrt(counted)
    slope = features.T @ (features @ fitted.coefficients - residual) + 2.0 * fitted.coefficients
    np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_a_penalty_without_bounds_leaves_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.forecasters.ridge.PENALTIES", (1e15,))
    fitted = RidgeAutoregression().fit(small_world(), small_world(seed=1))
    histories = [window.history for window in small_world(seed=2)]
    np.testing.assert_allclose(
        fitted.category_weights(histories), fitted.prior.category_weights(histories), atol=1e-9
    )


def test_held_out_weights_know_nothing_of_the_other_validation_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.forecasters.ridge.PENALTIES", (1.0,))
    training, validation = small_world(n_users=10), small_world(n_users=10, seed=1)
    prior = GlobalDrift().fit(validation)
    few, all_of_them = (
        RidgeAutoregression(prior).fit(training, windows).held_out
        for windows in (validation[:4], validation)
    )
    assert few is not None
    assert all_of_them is not None
    np.testing.assert_allclose(few.weights, all_of_them.weights[:4], atol=1e-12)


def test_batches_change_nothing_that_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = small_world(n_users=10), small_world(seed=1)
    whole = RidgeAutoregression().fit(training, validation)
    monkeypatch.setattr("llmrec.forecasters.ridge.WINDOWS_PER_BATCH", 3)
    np.testing.assert_allclose(
        RidgeAutoregression().fit(training, validation).coefficients, whole.coefficients, atol=1e-9
    )


def test_what_the_map_takes_away_leaves_a_floor_of_counting() -> None:
    fitted = RidgeAutoregression().fit(week(1), week(2))
    nothing_left = replace(fitted, coefficients=np.full_like(fitted.coefficients, -1e3))
    histories = [window.history for window in week(3)]
    np.testing.assert_allclose(
        nothing_left.category_weights(histories), fitted.prior.category_weights(histories)
    )


def test_the_floor_is_a_part_of_what_counting_gives() -> None:
    fitted = RidgeAutoregression().fit(week(1), week(2))
    against_a = np.zeros_like(fitted.coefficients)
    against_a[-2:, 0] = -1e3  # the last features are positive for everybody
    histories = [window.history for window in week(3)]
    counted = fitted.prior.category_weights(histories)
    expected = counted * [MIN_RELATIVE_WEIGHT, 1]
    np.testing.assert_allclose(
        replace(fitted, coefficients=against_a).category_weights(histories),
        expected / expected.sum(axis=1, keepdims=True),
    )


def test_a_person_without_an_event_gets_a_forecast() -> None:
    fitted = RidgeAutoregression().fit(small_world(), small_world(seed=1))
    items, events = catalog(), log(n_users=4)
    empty = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    (forecast,) = fitted.forecast(empty)
    assert (forecast.category_weights > 0).all()
    assert forecast.source.model == "RidgeAutoregression"


def test_it_has_seen_the_training_and_the_validation_windows() -> None:
    fitted = RidgeAutoregression().fit(week(1), week(2)).fitted
    assert fitted is not None
    assert [fitted.covers(week(number)[0]) for number in (1, 2, 3)] == [True, True, False]


def test_asking_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        RidgeAutoregression().forecast([week(1)[0].history])
    with pytest.raises(DataError, match="no window"):
        RidgeAutoregression().fit([], [])
