from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize

from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecast
from llmrec.forecasters import mixture
from llmrec.forecasters.calibration import DEFAULT_DISPERSION
from llmrec.forecasters.collaborative import CategoryMarkov
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.mixture import GatedMixture, TargetCells
from llmrec.forecasters.precomputed import (
    HeldOutPredictions,
    PrecomputedForecaster,
    out_of_sample_weights,
)
from llmrec.forecasters.ridge import RidgeAutoregression
from llmrec.metrics import log_loss
from llmrec.types import FloatArray
from tests.forecasters.test_drift import ITEMS, START, town
from tests.worlds import catalog, small_world

# After three weeks of a and b alike, those who came in the third take a; the others take b.
COLD_AND_WARM = town(
    **{f"cold{number:02d}": ["", "", "ab", "aaa"] for number in range(40)},
    **{f"warm{number:02d}": ["aabb", "aabb", "aabb", "bbb"] for number in range(40)},
)


@dataclass
class Constant:
    """Forecasts the same for everybody."""

    category_weights: tuple[float, ...]
    fitted: TrainingSpan | None = None

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        weights = np.tile(self.category_weights, (len(histories), 1))
        return PrecomputedForecaster.of(
            "constant", histories, weights, DEFAULT_DISPERSION
        ).forecast(histories)


@dataclass
class ConstantWithHeldOut(Constant):
    """Forecasts the same for everybody, and had other held-out predictions."""

    held_out: HeldOutPredictions | None = None


A, B = Constant((0.9, 0.1)), Constant((0.1, 0.9))


def at(week: int) -> list[Window]:
    return make_windows(COLD_AND_WARM, ITEMS, "7D", START + np.timedelta64(7 * week, "D"))


def histories(windows: Sequence[Window]) -> list[History]:
    return [window.history for window in windows]


def targets(windows: Sequence[Window]) -> FloatArray:
    return np.stack([window.target.category_counts for window in windows])


@pytest.fixture(scope="module")
def two() -> GatedMixture:
    return GatedMixture({"a": A, "b": B}).fit(at(3))


@pytest.fixture(scope="module")
def small() -> tuple[GatedMixture, list[Window]]:
    training, validation = small_world(n_users=60), small_world(n_users=60, seed=1)
    experts = {
        "counting": DecayedDirichlet().fit(validation),
        "markov": CategoryMarkov().fit(training, validation),
        "ridge": RidgeAutoregression().fit(training, validation),
    }
    return GatedMixture(experts).fit(validation), validation


def test_the_gate_weighs_the_expert_that_is_right_about_cold_and_about_warm_people(
    two: GatedMixture,
) -> None:
    windows = at(3)
    gates = two.gate_weights(histories(windows))
    cold = np.array([window.history.user_id.startswith("cold") for window in windows])
    assert cold.sum() == 40
    assert (gates[cold, 0] > 0.9).all()
    assert (gates[~cold, 1] > 0.9).all()
    assert (two.category_weights(histories(windows))[cold, 0] > 0.8).all()
    assert two.held_out is not None
    assert (two.held_out.weights[~cold, 1] > 0.8).all()


@given(arrays(np.float64, (8, 2), elements=st.floats(-50, 50)))
def test_gates_and_weights_are_distributions_whatever_the_parameters(
    parameters: FloatArray,
) -> None:
    gated = GatedMixture({"a": A, "b": B})
    gated.scale, gated.parameters = np.stack((np.ones(7), np.full(7, 0.5))), parameters
    asked = histories(at(3))[::20]
    gates = gated.gate_weights(asked)
    assert (gates >= 0).all()
    np.testing.assert_allclose(gates.sum(axis=1), 1, atol=1e-12)
    expected = gates @ [A.category_weights, B.category_weights]
    np.testing.assert_allclose(gated.category_weights(asked), expected, atol=1e-12)


def test_held_out_it_is_hardly_worse_than_its_best_expert(
    small: tuple[GatedMixture, list[Window]],
) -> None:
    gated, validation = small
    alone = [
        log_loss(out_of_sample_weights(expert, validation), targets(validation)).mean()
        for expert in gated.experts.values()
    ]
    assert gated.held_out is not None
    assert log_loss(gated.held_out.weights, targets(validation)).mean() < min(alone) + 0.01


def test_the_order_of_the_experts_changes_no_byte(small: tuple[GatedMixture, list[Window]]) -> None:
    gated, validation = small
    backwards = GatedMixture(dict(reversed(gated.experts.items()))).fit(validation)
    fresh = histories(small_world(seed=2))
    assert backwards.category_weights(fresh).tobytes() == gated.category_weights(fresh).tobytes()


def test_batches_change_nothing_that_can_be_seen(
    small: tuple[GatedMixture, list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gated, _ = small
    fresh = histories(small_world(seed=2))
    whole = gated.category_weights(fresh)
    monkeypatch.setattr("llmrec.forecasters.experts.HISTORIES_PER_BATCH", 3)
    np.testing.assert_allclose(gated.category_weights(fresh), whole, atol=1e-12)


def test_the_gate_is_fitted_on_held_out_predictions() -> None:
    windows = at(3)
    seen, right = TrainingSpan.of_windows(windows), targets(windows) / 3
    remembers = ConstantWithHeldOut(
        (0.5, 0.5), seen, HeldOutPredictions.of(windows, 0.98 * right[:, ::-1] + 0.01)
    )
    knows = ConstantWithHeldOut(
        (0.5, 0.5), seen, HeldOutPredictions.of(windows, 0.98 * right + 0.01)
    )
    gated = GatedMixture({"knows": knows, "remembers": remembers}).fit(windows)
    assert (gated.gate_weights(histories(windows))[:, 0] > 0.9).all()


def test_an_expert_fitted_on_the_windows_without_held_out_weights_is_refused() -> None:
    expert = ConstantWithHeldOut((0.9, 0.1), TrainingSpan.of_windows(at(3)))
    with pytest.raises(DataError, match="has no held-out weights"):
        GatedMixture({"a": expert, "b": B}).fit(at(3))
    few = ConstantWithHeldOut(
        (0.9, 0.1),
        TrainingSpan.of_windows(at(3)),
        HeldOutPredictions.of(at(3)[:3], np.full((3, 2), 0.5)),
    )
    with pytest.raises(DataError, match="77 windows have no held-out weights"):
        GatedMixture({"a": few, "b": B}).fit(at(3))


def test_the_order_of_the_windows_does_not_mix_people_up() -> None:
    windows = at(3)
    right = HeldOutPredictions.of(windows, 0.98 * targets(windows) / 3 + 0.01)
    knows = ConstantWithHeldOut((0.5, 0.5), TrainingSpan.of_windows(windows), right)
    gated = GatedMixture({"knows": knows, "other": A}).fit(windows[::-1])
    assert (gated.gate_weights(histories(windows))[:, 0] > 0.9).all()


def test_what_the_experts_have_seen_the_mixture_has_seen() -> None:
    windows = small_world(n_users=8)
    events = make_windows(windows[0].history.log, catalog(), "10 events")
    expert = DecayedDirichlet().fit(events)
    gated = GatedMixture({"a": expert, "b": DecayedDirichlet(0.5)}).fit(events[:4])
    assert gated.fitted is not None
    assert all(map(gated.fitted.covers, events))


def test_an_expert_of_earlier_windows_forecasts_the_windows_of_the_gate() -> None:
    windows = at(3)
    wrong = np.full((len(windows), 2), 0.5)
    early = [
        ConstantWithHeldOut(
            constant.category_weights,
            TrainingSpan.of_windows(at(2)),
            HeldOutPredictions.of(windows, wrong),
        )
        for constant in (A, B)
    ]
    gated = GatedMixture({"a": early[0], "b": early[1]}).fit(windows)
    expected = GatedMixture({"a": A, "b": B}).fit(windows).parameters
    np.testing.assert_array_equal(gated.parameters, expected)


def test_an_expert_fitted_on_later_events_is_refused() -> None:
    later = Constant((0.9, 0.1), TrainingSpan.of_windows(at(3)))
    with pytest.raises(DataError, match="expert late was fitted on events after"):
        GatedMixture({"late": later, "b": B}).fit(at(2))


@pytest.mark.parametrize("experts", [{}, {"a": A}])
def test_fewer_than_two_experts_are_refused(experts: dict[str, Constant]) -> None:
    with pytest.raises(DataError, match="two experts at least"):
        GatedMixture(experts)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_refused(value: float) -> None:
    gated = GatedMixture({"a": A, "b": B}).fit(at(3))
    gated.parameters[2, 1] = value
    with pytest.raises(TrainingError, match="not finite"):
        gated.forecast(histories(at(3)))


def test_asking_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        GatedMixture({"a": A, "b": B}).forecast(histories(at(3)))
    with pytest.raises(DataError, match="no window"):
        GatedMixture({"a": A, "b": B}).fit([])


def test_it_has_seen_the_windows_of_its_gate(two: GatedMixture) -> None:
    assert two.fitted is not None
    assert two.fitted.covers(at(2)[0])
    assert two.fitted.covers(at(3)[0])


def test_the_gradient_of_the_gate_equals_finite_differences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate((np.ones((7, 1)), rng.normal(size=(7, 3))), axis=1)
    weights, taken = rng.dirichlet(np.ones(4), (7, 3)), rng.poisson(1.0, (7, 4)) + np.eye(7, 4)
    losses = []

    def minimise(loss: object, start: FloatArray, **_: object) -> SimpleNamespace:
        losses.append(loss)
        return SimpleNamespace(x=start)

    with monkeypatch.context() as patched:
        patched.setattr(optimize, "minimize", minimise)
        mixture._fit_gate(x, TargetCells.of(weights, taken), 0.03)
    point = rng.normal(size=12)
    found = optimize.check_grad(lambda p: losses[0](p)[0], lambda p: losses[0](p)[1], point)
    assert found < 1e-6


def test_less_shrinkage_fits_the_gate_s_own_windows_better() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate((np.ones((30, 1)), rng.normal(size=(30, 2))), axis=1)
    weights, taken = rng.dirichlet(np.ones(4), (30, 2)), rng.multinomial(9, np.ones(4) / 4, 30)
    losses, cells = [], TargetCells.of(weights, taken)
    for shrinkage in (1e-4, 1e-2, 1.0, 1e6):
        gate = mixture._gate(x, mixture._fit_gate(x, cells, shrinkage))
        losses.append(log_loss(np.einsum("ne,nec->nc", gate, weights), taken).mean())
    assert losses == sorted(losses)
    np.testing.assert_allclose(gate, 0.5, atol=1e-3)
