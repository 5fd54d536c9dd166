from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from llmrec.data.periods import Window
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.forecasters import registry
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift, SameSeason
from llmrec.forecasters.registry import (
    BUILDERS,
    MIXTURE_EXPERTS,
    NEURAL_FORECASTERS,
    NEXT_ITEM_MODELS,
    SEED_DEPENDENT,
    ForecasterRegistry,
)
from tests.worlds import START, catalog, log

NUMERIC = tuple(name for name in BUILDERS if name not in NEXT_ITEM_MODELS)  # those need cornac
WORLD = log(n_users=12)


def at(week: int) -> list[Window]:
    return make_windows(WORLD, catalog(), "7D", START + np.timedelta64(7 * week, "D"))


def registry_of(seed: int = 0) -> ForecasterRegistry:
    return ForecasterRegistry([*at(2), *at(3)], at(4), seed)


def fitted(some: ForecasterRegistry, name: str) -> Any:
    if name in NEURAL_FORECASTERS:
        pytest.importorskip("llmrec.forecasters.neural")
    return some[name]


@pytest.fixture(scope="module")
def shared() -> ForecasterRegistry:
    return registry_of()


@pytest.mark.parametrize("name", NUMERIC)
def test_each_is_fitted_on_the_windows_and_only_once(shared: ForecasterRegistry, name: str) -> None:
    forecaster = fitted(shared, name)
    assert shared[name] is forecaster
    assert forecaster.fitted.covers(at(4)[0])
    assert not forecaster.fitted.covers(at(5)[0])


@pytest.mark.parametrize("name", NUMERIC)
def test_the_source_of_a_forecast_has_the_name_of_the_forecaster(
    shared: ForecasterRegistry, name: str
) -> None:
    (forecast,) = fitted(shared, name).forecast([at(5)[0].history])
    assert forecast.source.model == name


def test_a_builder_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[ForecasterRegistry] = []

    def build(some: ForecasterRegistry) -> DecayedDirichlet:
        calls.append(some)
        return DecayedDirichlet()

    monkeypatch.setitem(registry.BUILDERS, "DecayedDirichlet", build)
    some = registry_of()
    assert not calls  # nothing is fitted before it is asked for
    for name in ("DecayedDirichlet", "GlobalDrift", "SameSeason", "DecayedDirichlet"):
        some[name]
    assert calls == [some]


@pytest.mark.parametrize("name", ["Prophet", "gru", ""])
def test_an_unknown_name_is_refused_and_the_choices_are_named(
    shared: ForecasterRegistry, name: str
) -> None:
    with pytest.raises(DataError, match=f"no forecaster is called '{name}'") as refused:
        shared[name]
    assert all(choice in str(refused.value) for choice in BUILDERS)


@pytest.mark.parametrize(("training", "validation"), [(0, 1), (1, 0), (0, 0)])
def test_a_registry_without_windows_is_refused(training: int, validation: int) -> None:
    with pytest.raises(DataError, match=f"{training} training and {validation} validation"):
        ForecasterRegistry(at(2)[:training], at(3)[:validation])


def test_models_on_counting_share_one_prior(shared: ForecasterRegistry) -> None:
    counting, drift = shared["DecayedDirichlet"], shared["GlobalDrift"]
    for name in ("GlobalDrift", "SameSeason"):
        assert fitted(shared, name).prior is counting
    for name in ("CategoryMarkov", "RidgeAutoregression", "NeighbouringUsers", "CategoryEASE"):
        assert fitted(shared, name).prior is drift
    for name in NEURAL_FORECASTERS:
        assert fitted(shared, name).prior is counting
    # As if each had fitted its own.
    assert drift == GlobalDrift().fit(at(4))
    assert shared["SameSeason"] == SameSeason().fit(at(4))


def test_the_mixture_is_of_the_registry_s_own_experts(shared: ForecasterRegistry) -> None:
    mixture = fitted(shared, "GatedMixture")
    assert set(mixture.experts) == set(MIXTURE_EXPERTS)
    assert all(mixture.experts[name] is shared[name] for name in MIXTURE_EXPERTS)


@pytest.mark.parametrize("tune", [False, True])
def test_nets_of_other_logs_have_a_gate_of_two_periods_and_are_tuned_on_older_ones(
    tune: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[list[Window], list[Window]]] = []

    def fit(self: Any, windows: Any, *, tune: Any = (), seed: int = 0) -> Any:
        given.append((list(windows), list(tune)))
        return self

    monkeypatch.setattr(registry.PretrainedForecaster, "fit", fit)
    older, newest, validation = [*at(1), *at(2)], at(3), at(4)
    some = ForecasterRegistry([*newest, *older], validation, tune=tune)
    some["PretrainedForecaster"]
    has_torch = registry.find_spec("torch") is not None
    assert given == [([*newest, *validation], older if tune and has_torch else [])]
    assert (some.with_seed(3)["PretrainedForecaster"] is some["PretrainedForecaster"]) != some.tune


def test_another_seed_shares_what_no_seed_changes(shared: ForecasterRegistry) -> None:
    asked = ("Mean", "GlobalDrift", "NeighbouringUsers", "CellMLP", "GatedMixture")
    before = {name: fitted(shared, name) for name in asked}
    other = shared.with_seed(7)
    assert other.seed == 7
    histories = [window.history for window in at(5)]
    for name, forecaster in before.items():
        assert (other[name] is forecaster) == (name not in SEED_DEPENDENT)
        assert shared[name] is forecaster
    weights = [some["CellMLP"].forecast(histories)[0] for some in (shared, other)]
    assert [forecast.source.seed for forecast in weights] == [0, 7]
    assert (weights[0].category_weights != weights[1].category_weights).any()
    assert shared.with_seed(0)["CellMLP"].forecast(histories)[0].category_weights.tobytes() == (
        weights[0].category_weights.tobytes()
    )


def test_names_lead_to_builders_and_nets_to_their_files() -> None:
    assert set(SEED_DEPENDENT) | set(MIXTURE_EXPERTS) <= set(BUILDERS)
    for name in NEURAL_FORECASTERS:
        pytest.importorskip("torch")
        assert getattr(import_module("llmrec.forecasters.neural"), name).__name__ == name
