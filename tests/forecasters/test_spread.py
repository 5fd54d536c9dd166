from __future__ import annotations

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.forecasters.calibration import Dispersion, fit_dispersion
from tests.worlds import catalog, log, small_world


def test_the_concentration_of_dirichlet_samples_is_found_again() -> None:
    rng = np.random.default_rng(0)
    histories = [window.history for window in small_world(n_users=4)] * 1_000
    weights = rng.dirichlet(np.ones(8), size=4_000)
    samples = np.stack([rng.dirichlet(30 * row) for row in np.maximum(weights, 1e-6)])
    found = fit_dispersion(histories, weights, samples).concentration(histories)
    assert found.mean() == pytest.approx(30, rel=0.05)


def test_both_parts_of_the_variance_are_found_again() -> None:
    rng = np.random.default_rng(1)
    items = catalog()
    histories = [
        history
        for n in (2, 4, 8, 20)
        for history in make_histories(log(n_users=5), items, f"{n} events") * 200
    ]
    truth = Dispersion(latent=0.02, sampling=0.8)
    weights = rng.dirichlet(np.ones(8), size=len(histories))
    alpha = truth.concentration(histories)[:, None] * np.maximum(weights, 1e-6)
    samples = np.stack([rng.dirichlet(row) for row in alpha])
    found = fit_dispersion(histories, weights, samples)
    assert found.latent == pytest.approx(0.02, abs=0.01)
    assert found.sampling == pytest.approx(0.8, abs=0.1)


def test_few_events_make_a_forecast_less_sure() -> None:
    items, events = catalog(), log(n_users=1)
    (few,) = make_histories(events, items, "2 events")
    (many,) = make_histories(events, items, "20 events")
    less, more = Dispersion(0.01, 0.9).concentration([few, many])
    assert less < more


def test_targets_without_events_are_left_out() -> None:
    histories = [window.history for window in small_world(n_users=3)]
    weights = np.full((3, 5), 0.2)
    targets = np.array([[1.0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [2, 2, 2, 2, 2]])
    assert fit_dispersion(histories, weights, targets) == Dispersion(0.0, 0.0)
