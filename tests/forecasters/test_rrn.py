from __future__ import annotations

import pytest

from llmrec.data.periods import Window
from llmrec.forecasters.network import NetworkForecaster, TrainingPlan
from llmrec.forecasters.neural import GRU, RRN
from tests.forecasters.patterns import N_PERIODS, fashion, loss_of, windows_by_target

PLAN = TrainingPlan(epochs=8, patience=8, batch_size=8, rate=1e-2)


@pytest.fixture(scope="module")
def by_target() -> list[list[Window]]:
    return windows_by_target(fashion, n_users=4 * N_PERIODS, n_periods=N_PERIODS)


def test_it_knows_from_everybody_what_a_newcomer_takes(by_target: list[list[Window]]) -> None:
    *training, validation, test = by_target
    assert all(window.history.n_events == 0 for window in test)
    seen = [window for windows in training for window in windows]
    rrn = NetworkForecaster(RRN, n_periods=6, plan=PLAN).fit(seen, validation)
    assert loss_of(rrn, test) < 0.1
    # A net of the person alone knows no more than counting: one or the other.
    assert loss_of(NetworkForecaster(GRU, n_periods=6, plan=PLAN).fit(seen, validation), test) > 0.5
    assert loss_of(rrn.prior, test) > 0.5
