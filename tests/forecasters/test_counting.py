from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.errors import DataError
from llmrec.forecasters.calibration import Dispersion
from llmrec.forecasters.counting import DecayedDirichlet, population_mix
from llmrec.metrics import log_loss
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


def test_decay_zero_knows_only_the_last_period() -> None:
    (window,) = small_world(n_users=1, n_periods=4)
    newer = window.history.category_counts[-1]
    found = DecayedDirichlet(decay=0.0, strength=1e-9).category_weights([window.history])[0]
    np.testing.assert_allclose(found, newer / newer.sum(), atol=1e-6)


def test_a_user_nobody_knows_gets_the_common_mix() -> None:
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


def test_drifting_users_are_fitted_with_a_shorter_memory_than_steady_ones() -> None:
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
