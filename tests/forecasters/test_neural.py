from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llmrec.data.periods import History, Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.network import NetworkForecaster
from llmrec.forecasters.network_inputs import PeriodArrays, PeriodInputs, TrainingPlan
from llmrec.forecasters.neural import (
    GRU,
    RRN,
    VAE,
    CellMLP,
    Transformer,
    decayed_log_counts,
    gated_log_mixture,
    period_features,
)
from tests.forecasters.patterns import N_PERIODS as FASHION_PERIODS
from tests.forecasters.patterns import fashion, loss_of, successive, windows_by_target
from tests.forecasters.test_drift import ITEMS, START, town
from tests.worlds import catalog, log, small_world

NETS = (CellMLP, GRU, Transformer, VAE, RRN)
N_PERIODS = 6
every_net = pytest.mark.parametrize("network", NETS)
# Two weeks of a and two of b in turn, people at every phase: the last week and how much of each
# was taken do not tell what comes next, the last two weeks do.
STEPS = town(
    **{
        f"p{number:02d}": [4 * "aabb"[(number + week) % 4] for week in range(11)]
        for number in range(32)
    }
)
SWING = town(
    **{
        f"p{number:02d}": [4 * "ab"[(number + week) % 2] for week in range(11)]
        for number in range(24)
    }
)


def inputs(histories: list[History], n_periods: int = N_PERIODS) -> PeriodInputs:
    return PeriodArrays.of(histories, DecayedDirichlet(), n_periods, np.float64).inputs()


def made(network: type[Any], n_categories: int = 5, n_periods: int = N_PERIODS) -> Any:
    """Build a net whose parameters are all at work, those too that start at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = network(n_categories, n_periods).double().eval()
        with torch.no_grad():
            for value in net.parameters():
                value.add_(0.3 * torch.randn_like(value))
    return net


@pytest.fixture(scope="module")
def people() -> list[History]:
    return [window.history for window in small_world(n_users=7)]


def nobody(n: int) -> list[History]:
    items, events = catalog(), log(n_users=4)
    return make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0] * n)


@every_net
@pytest.mark.parametrize("n_periods", [1, 3, 12])
def test_the_weights_of_a_row_sum_to_one_however_many_periods_are_seen(
    network: type[Any], n_periods: int, people: list[History]
) -> None:
    found = made(network, n_periods=n_periods)(inputs(people, n_periods))
    assert found.shape == (7, 5)
    assert torch.isfinite(found).all()
    np.testing.assert_allclose(found.exp().sum(dim=1).detach(), 1, atol=1e-12)


@every_net
def test_a_batch_gives_what_single_calls_give(network: type[Any], people: list[History]) -> None:
    net = made(network)
    with torch.inference_mode():
        together = net(inputs(people))
        alone = torch.cat([net(inputs([history])) for history in people])
    np.testing.assert_allclose(alone, together, atol=1e-12)
    assert (together[0] - together[1]).abs().max() > 1e-3  # and it tells people apart


@every_net
def test_a_person_without_an_event_changes_no_other_and_gets_finite_weights(
    network: type[Any], people: list[History]
) -> None:
    net = made(network)
    with torch.inference_mode():
        alone, with_others = net(inputs(nobody(1))), net(inputs(nobody(2)))
    assert torch.isfinite(alone).all()
    np.testing.assert_allclose(with_others, alone.expand(2, -1), atol=1e-12)


@every_net
def test_every_parameter_learns_also_where_nobody_has_an_event(
    network: type[Any], people: list[History]
) -> None:
    shares = torch.full((7, 5), 0.2, dtype=torch.float64)
    for histories in (people, nobody(7)):
        net = made(network).train()
        net.loss(inputs(histories), shares).backward()
        for name, value in net.named_parameters():
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name


@pytest.mark.parametrize("network", [CellMLP, RRN])
def test_a_residual_net_starts_at_counting(network: type[Any], people: list[History]) -> None:
    seen = inputs(people)
    net: nn.Module = network(5, N_PERIODS).double().eval()
    if network is CellMLP:
        torch.nn.init.zeros_(net.cell[-1].bias)  # type: ignore[index, union-attr, arg-type]
    np.testing.assert_allclose(net(seen).detach(), seen.prior, atol=1e-12)


def test_the_cell_net_lifts_no_category_of_which_nothing_is_known(people: list[History]) -> None:
    seen, net = inputs(people), made(CellMLP)
    level = torch.full_like(seen.prior, -float(np.log(5)))
    alike = PeriodInputs(
        torch.zeros_like(seen.counts), torch.full_like(seen.population, 0.2), level
    )
    nn.init.zeros_(net.taste[-1].weight)
    np.testing.assert_allclose(net(alike).detach(), level, atol=1e-12)


def seen_before(world: Any, week: int) -> list[Window]:
    return make_windows(world, ITEMS, "7D", START + np.timedelta64(7 * week, "D"))


def right(weights: np.ndarray, windows: list[Window]) -> float:
    """Mean weight of the category that was taken."""
    taken = [int(np.argmax(window.target.category_counts)) for window in windows]
    return float(weights[np.arange(len(taken)), taken].mean())


@pytest.mark.parametrize("network", [GRU, Transformer, RRN])
@pytest.mark.parametrize("world", [SWING, STEPS], ids=["abab", "aabb"])
def test_sequence_nets_learn_an_order_that_counting_cannot_know(
    network: type[Any], world: Any
) -> None:
    training = [window for week in range(4, 9) for window in seen_before(world, week)]
    plan = TrainingPlan(epochs=16, patience=16, batch_size=32, learning_rate=1e-2)
    net = NetworkForecaster(network, n_periods=4, training_plan=plan)
    net.fit(training, seen_before(world, 9), refit=False)
    windows = seen_before(world, 10)
    histories = [window.history for window in windows]
    assert right(net.category_weights(histories), windows) > 0.9
    assert right(net.prior.category_weights(histories), windows) < 0.6


def test_draws_of_the_vae_are_distributions_that_scatter_around_its_weights(
    people: list[History],
) -> None:
    net, seen = made(VAE), inputs(people)
    with torch.inference_mode():
        draws = net.sample(seen, 1_000, seed=1).numpy()
        weights = net(seen).exp().numpy()
        again = net.sample(seen, 1_000, seed=1).numpy()
        other = net.sample(seen, 10, seed=2).numpy()
    assert draws.shape == (1_000, 7, 5)
    np.testing.assert_allclose(draws.sum(axis=2), 1, atol=1e-12)
    assert (draws > 0).all()
    scatter = draws.std(axis=0)
    assert (scatter > 0.01).any(axis=1).all()
    # The forecast is the mean of sixteen draws in mirrored pairs.
    assert (np.abs(draws.mean(axis=0) - weights) < 0.75 * scatter).all()
    assert np.abs(draws.mean(axis=0) - weights).mean() < scatter.mean() / 4
    assert again.tobytes() == draws.tobytes()
    assert (other != draws[:10]).any()


def test_asking_the_vae_draws_nothing_and_leaves_the_random_state_alone(
    people: list[History],
) -> None:
    net, seen, before = made(VAE), inputs(people), torch.get_rng_state()
    first, second = net(seen), net(seen)
    net.sample(seen, 3)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_category_states_of_the_rrn_are_the_same_whether_rows_repeat_or_not() -> None:
    net = made(RRN)
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.dirichlet(np.ones(5), (3, N_PERIODS)))
    order = [2, 0, 0, 1, 2, 0]
    with torch.inference_mode():
        repeated = net._category_states(rows[order])
        alone = torch.cat([net._category_states(rows[[row]]) for row in order])
    assert repeated.shape == (6, 5, 8)
    np.testing.assert_allclose(repeated, alone, atol=1e-12)
    assert (repeated[0] - repeated[1]).abs().max() > 1e-3


def test_the_transformer_looks_at_nothing_before_the_first_event() -> None:
    newcomers = town(old=["ab", "ab", "ab", "a"], new=["", "", "ab", "a"])
    (new,) = [
        history
        for history in make_histories(newcomers, ITEMS, "7D", START + np.timedelta64(21, "D"))
        if history.user_id == "new"
    ]
    net, seen = made(Transformer, 2), inputs([new])
    with torch.inference_mode():
        before = net(seen)
        net.age[:-1] += torch.randn(5, 64)  # of the periods before the first event
        after = net(seen)
        net.age[-1] += torch.randn(64)
        moved = net(seen)
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert (moved - before).abs().max() > 1e-3


def test_steps_and_decayed_counts_by_hand() -> None:
    counts = torch.tensor([[[0.0, 0.0], [1.0, 3.0], [4.0, 0.0]]])
    seen = PeriodInputs(counts, torch.ones(1, 3, 2), torch.zeros(1, 2))
    expected = [[0, 0, 0], [0.5, np.sqrt(0.75), np.log(5)], [1, 0, np.log(5)]]
    np.testing.assert_allclose(period_features(seen)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(decayed_log_counts(counts, 0.5)[0], np.log1p([4.5, 1.5]), rtol=1e-6)


def test_a_gate_mixes_the_prior_with_free_scores() -> None:
    prior = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    scores = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log() + 3.0
    gate = torch.tensor([[np.log(0.4 / 0.6)]])
    np.testing.assert_allclose(
        gated_log_mixture(prior, scores, gate).exp(), [[0.47, 0.53]], atol=1e-12
    )


def test_inputs_are_own_counts_the_town_s_shares_and_the_log_of_counting() -> None:
    events = town(ann=["aab", "b"], bob=["b", "bb"])
    cutoff = START + np.timedelta64(14, "D")
    (ann, _) = make_histories(events, ITEMS, "7D", cutoff)
    found = inputs([ann], 3)
    np.testing.assert_allclose(found.counts[0], [[0, 0], [2, 1], [0, 1]])
    expected = [[0.5, 0.5], [2.5 / 5, 2.5 / 5], [0.5 / 4, 3.5 / 4]]
    np.testing.assert_allclose(found.population[0], expected)
    counted = DecayedDirichlet().category_weights([ann])
    np.testing.assert_allclose(found.prior, np.log(counted))


def test_the_newest_periods_are_the_ones_seen() -> None:
    (ann,) = make_histories(town(ann=["a", "b", "bb", "aaa"]), ITEMS, "7D")
    for shorter, longer in pairwise((1, 2, 4)):
        few, more = inputs([ann], shorter), inputs([ann], longer)
        np.testing.assert_array_equal(few.counts, more.counts[:, -shorter:])
        np.testing.assert_array_equal(few.population, more.population[:, -shorter:])


FASHION_PLAN = TrainingPlan(epochs=8, patience=8, batch_size=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def by_target() -> list[list[Window]]:
    return windows_by_target(fashion, n_users=4 * FASHION_PERIODS, n_periods=FASHION_PERIODS)


def test_the_rrn_learns_from_everybody_what_a_newcomer_takes(by_target: list[list[Window]]) -> None:
    *training, validation, test = by_target
    assert all(window.history.n_events == 0 for window in test)
    seen = [window for windows in training for window in windows]
    rrn = NetworkForecaster(RRN, n_periods=6, training_plan=FASHION_PLAN).fit(seen, validation)
    assert loss_of(rrn, test) < 0.1
    # A net of the person alone knows no more than counting: one or the other.
    gru = NetworkForecaster(GRU, n_periods=6, training_plan=FASHION_PLAN).fit(seen, validation)
    assert loss_of(gru, test) > 0.5
    assert loss_of(rrn.prior, test) > 0.5


def test_the_vae_gives_the_next_period_and_not_the_one_it_was_shown() -> None:
    (windows,) = windows_by_target(successive, n_users=40, n_periods=2)
    training, validation, test = windows[:20], windows[20:30], windows[30:]
    plan = TrainingPlan(epochs=20, patience=8, batch_size=8, learning_rate=5e-3)
    vae = NetworkForecaster(VAE, n_periods=2, training_plan=plan).fit(training, validation)
    assert loss_of(vae, test) < 0.1
    assert loss_of(vae.prior, test) > 1  # nobody has taken before what everybody takes next
