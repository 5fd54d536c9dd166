from __future__ import annotations

from llmrec.forecasters.network import NetworkForecaster, TrainingPlan
from llmrec.forecasters.neural import VAE
from tests.forecasters.patterns import loss_of, successive, windows_by_target


def test_it_gives_the_next_period_and_not_the_one_it_was_shown() -> None:
    (windows,) = windows_by_target(successive, n_users=40, n_periods=2)
    training, validation, test = windows[:20], windows[20:30], windows[30:]
    plan = TrainingPlan(epochs=20, patience=8, batch_size=8, rate=5e-3)
    vae = NetworkForecaster(VAE, n_periods=2, plan=plan).fit(training, validation)
    assert loss_of(vae, test) < 0.1
    assert loss_of(vae.prior, test) > 1  # nobody has taken before what everybody takes next
