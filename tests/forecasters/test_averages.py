from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.forecasters.counting import ExponentialDecay, population_mix
from llmrec.metrics import log_loss
from tests.explain.people import person
from tests.worlds import catalog, log, small_world


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


def test_a_person_without_an_event_gets_the_common_mix() -> None:
    items, events = catalog(), log(n_users=6)
    history = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    weights = ExponentialDecay(smoothing=0.2).category_weights(history)
    np.testing.assert_allclose(weights, population_mix(history, "last period"))


def test_many_people_are_counted_in_slices_to_the_same_weights(
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


def test_drifting_people_are_fitted_with_a_short_memory() -> None:
    assert ExponentialDecay().fit(small_world(n_users=60, n_periods=8)).decay <= 0.7
