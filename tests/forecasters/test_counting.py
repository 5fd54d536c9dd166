from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay, population_mix
from llmrec.forecasters.dispersion import Dispersion
from llmrec.metrics import log_loss
from tests.explain.people import person
from tests.worlds import catalog, log, small_world


def test_weights_are_decayed_counts_plus_strength_times_the_common_mix() -> None:
    (window,) = small_world(n_users=1, n_periods=3)
    history = window.history
    older, newer = history.category_counts
    mix = population_mix([history], "last period")[0]
    np.testing.assert_allclose(mix, (newer + 0.5) / (newer + 0.5).sum())
    expected = 0.5 * older + newer + 10 * mix
    found = DecayedDirichlet(decay=0.5, strength=10.0).category_weights([history])[0]
    np.testing.assert_allclose(found, expected / expected.sum())


def test_decay_zero_counts_only_the_last_period() -> None:
    (window,) = small_world(n_users=1, n_periods=4)
    newer = window.history.category_counts[-1]
    found = DecayedDirichlet(decay=0.0, strength=1e-9).category_weights([window.history])[0]
    np.testing.assert_allclose(found, newer / newer.sum(), atol=1e-6)


def test_a_user_without_events_gets_the_population_mix() -> None:
    items, events = catalog(), log(n_users=6)
    cutoff = events.timestamp.min() + np.timedelta64(14, "D")
    late = log(n_users=6).align_to(items)
    histories = make_histories(late, items, "7D", cutoff)
    empty = make_histories(late, items, "7D", late.timestamp.min(), [0])
    weights = DecayedDirichlet().category_weights(empty)[0]
    np.testing.assert_allclose(weights, 0.2)  # before the first event all categories are equal
    assert (DecayedDirichlet().category_weights(histories) > 0).all()


def test_fitting_never_loses_to_the_defaults_on_what_it_was_fitted_on() -> None:
    windows = small_world(n_users=40)
    histories = [window.history for window in windows]
    targets = np.stack([window.target.category_counts for window in windows])
    fitted = DecayedDirichlet().fit(windows)
    losses = [
        log_loss(model.category_weights(histories), targets).mean()
        for model in (fitted, DecayedDirichlet())
    ]
    assert losses[0] <= losses[1]


def test_drifting_users_are_fitted_with_a_smaller_decay_than_steady_ones() -> None:
    windows = small_world(n_users=60, n_periods=8)
    assert DecayedDirichlet().fit(windows).decay <= 0.8


def test_fitting_on_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no window"):
        DecayedDirichlet().fit([])


def test_intervals_widen_with_the_level_and_hold_the_weight() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet(spread=Dispersion(1 / 51)).forecast([window.history])
    half, wide = forecast.intervals(0.5), forecast.intervals(0.9)
    assert (wide[:, 0] <= half[:, 0]).all()
    assert (wide[:, 1] >= half[:, 1]).all()
    assert (
        (wide[:, 0] <= forecast.category_weights) & (forecast.category_weights <= wide[:, 1])
    ).all()


def test_samples_scatter_around_the_weights() -> None:
    (window,) = small_world(n_users=1)
    (forecast,) = DecayedDirichlet().forecast([window.history])
    samples = forecast.sample(20_000, seed=1)
    np.testing.assert_allclose(samples.mean(axis=0), forecast.category_weights, atol=0.005)


def test_every_period_counts_the_same_however_many_events_it_holds() -> None:
    history = person(["a", "bbbbbbbb"])
    weights = ExponentialDecay(decay=1.0, smoothing=1e-9).category_weights([history])[0]
    np.testing.assert_allclose(weights, [0.5, 0.5, 0, 0], atol=1e-8)


def test_a_period_weighs_decay_times_the_next_newer_one() -> None:
    history = person(["aab", "bc", "d"])
    weights = ExponentialDecay(decay=0.5, smoothing=1e-9).category_weights([history])[0]
    # Weights 1/4, 1/2 and 1 of 7/4, times the shares of each week.
    np.testing.assert_allclose(weights, [2 / 21, 1 / 21 + 1 / 7, 1 / 7, 4 / 7], atol=1e-8)


def test_weeks_without_an_event_count_for_nothing() -> None:
    model = ExponentialDecay(decay=0.5, smoothing=1e-9)
    pauses = model.category_weights([person(["aab", "", "", "cd", ""])])
    np.testing.assert_allclose(pauses, model.category_weights([person(["aab", "cd"])]), atol=1e-8)


def test_the_average_is_smoothed_toward_what_everybody_took_lately() -> None:
    history = person(["aa", "ab"])
    # Last week: one of each by zoe, an Apple and a Bread by ann; half an event is added to each.
    common = np.array([2.5, 2.5, 1.5, 1.5]) / 8
    weights = ExponentialDecay(decay=1.0, smoothing=0.2).category_weights([history])[0]
    np.testing.assert_allclose(weights, 0.8 * np.array([0.75, 0.25, 0, 0]) + 0.2 * common)


def test_a_person_without_an_event_gets_the_population_mix() -> None:
    items, events = catalog(), log(n_users=6)
    history = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    weights = ExponentialDecay(smoothing=0.2).category_weights(history)
    np.testing.assert_allclose(weights, population_mix(history, "last period"))


def test_many_people_are_averaged_in_batches_to_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    histories = [window.history for window in small_world(n_users=11)]
    whole = ExponentialDecay().category_weights(histories)
    monkeypatch.setattr("llmrec.forecasters.counting.HISTORIES_PER_BATCH", 3)
    np.testing.assert_array_equal(ExponentialDecay().category_weights(histories), whole)


def test_fitting_never_loses_to_a_setting_of_its_grid_on_what_it_was_fitted_on() -> None:
    windows = small_world(n_users=40)
    histories = [window.history for window in windows]
    targets = np.stack([window.target.category_counts for window in windows])
    fitted = ExponentialDecay().fit(windows)
    least = log_loss(fitted.category_weights(histories), targets).mean()
    for decay, smoothing in ((0.5, 0.05), (0.9, 0.5), (0.95, 0.9)):
        weights = ExponentialDecay(decay, smoothing).category_weights(histories)
        assert least <= log_loss(weights, targets).mean()
    assert fitted.fitted is not None
    assert fitted.fitted.covers(windows[0])


def test_drifting_people_are_fitted_with_a_small_decay() -> None:
    assert ExponentialDecay().fit(small_world(n_users=60, n_periods=8)).decay <= 0.7
