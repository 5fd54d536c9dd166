from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmrec.data.counts import period_counts
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.network import (
    METADATA_FILE,
    PARAMETERS_FILE,
    NetworkForecaster,
)
from llmrec.forecasters.network_inputs import (
    PeriodArrays,
    PeriodInputs,
    TrainingPlan,
    cross_entropy,
    newest_rows,
)
from llmrec.forecasters.neural import GRU, NETWORKS, VAE
from llmrec.metrics import log_loss
from llmrec.types import FloatArray
from tests.forecasters.test_drift import ITEMS, PURE, START, town
from tests.worlds import catalog, log, small_world

# Everybody takes a alone in the second week; in the third one event in five is of b.
LATER = town(**{f"p{number}": ["abbbb", "aaaaa", "aaaab", "ab"] for number in range(8)})
QUICK = TrainingPlan(epochs=3, patience=4, batch_size=8, learning_rate=1e-2)


class Lift(nn.Module):
    """Lifts categories for everybody; remembers how many windows each of its steps saw."""

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(
        epochs=40, patience=3, batch_size=4, learning_rate=0.05
    )
    steps: ClassVar[list[int]] = []

    def __init__(self, n_categories: int, n_periods: int) -> None:
        super().__init__()
        del n_periods
        self.lift = nn.Parameter(torch.zeros(n_categories))

    def forward(self, inputs: PeriodInputs) -> Tensor:
        return torch.log_softmax(inputs.prior + self.lift, dim=1)

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        self.steps.append(len(shares))
        return cross_entropy(self(inputs), shares)


class NoNumber(Lift):
    """Has a loss that is no number."""

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        return super().loss(inputs, shares) * torch.nan


class Blind(Lift):
    """Learns, and gives no number when it is asked."""

    def forward(self, inputs: PeriodInputs) -> Tensor:
        return super().forward(inputs) * (1.0 if self.training else torch.nan)


def at(week: int) -> list[Window]:
    return make_windows(LATER, ITEMS, "7D", START + np.timedelta64(7 * week, "D"))


# Nothing but a person's own counts, 0.2 of a before the second week and 0.6 before the third.
OWN = replace(PURE, fitted=TrainingSpan.of_windows(at(1)))


def histories(windows: list[Window]) -> list[History]:
    return [window.history for window in windows]


def targets(windows: list[Window]) -> FloatArray:
    return np.stack([window.target.category_counts for window in windows])


def quick(network: type[Any] = GRU, seed: int = 0, **options: Any) -> NetworkForecaster:
    forecaster = NetworkForecaster(network, n_periods=4, training_plan=QUICK)
    windows = small_world(n_users=12)
    return forecaster.fit(windows[:8], windows[8:], seed=seed, **options)


@pytest.fixture(scope="module")
def fitted() -> NetworkForecaster:
    return quick()


@pytest.fixture(scope="module")
def fresh() -> list[History]:
    return histories(small_world(n_users=5, seed=1))


def test_the_epoch_of_least_validation_loss_is_chosen() -> None:
    forecaster = NetworkForecaster(Lift, OWN).fit(at(1), at(2), refit=False)
    curve, held_out = forecaster.validation_losses, forecaster.held_out
    best = int(np.argmin(curve))
    assert 0 < best < 20  # a is lifted until it is lifted too far
    assert len(curve) == best + 1 + Lift.training_plan.patience
    assert held_out is not None
    assert log_loss(held_out.weights, targets(at(2))).mean() == pytest.approx(min(curve), abs=1e-5)
    np.testing.assert_array_equal(forecaster.category_weights(histories(at(2))), held_out.weights)


def test_after_the_epochs_are_chosen_it_is_trained_afresh_on_all_windows() -> None:
    Lift.steps.clear()
    chosen = NetworkForecaster(Lift, OWN).fit(at(1), at(2), refit=False)
    first = len(Lift.steps)
    Lift.steps.clear()
    forecaster = NetworkForecaster(Lift, OWN).fit(at(1), at(2))
    best = int(np.argmin(forecaster.validation_losses)) + 1
    assert sum(Lift.steps[:first]) == len(at(1)) * len(forecaster.validation_losses)
    assert sum(Lift.steps[first:]) == (len(at(1)) + len(at(2))) * best
    assert forecaster.validation_losses == chosen.validation_losses
    assert forecaster.held_out is not None
    assert chosen.held_out is not None
    np.testing.assert_array_equal(forecaster.held_out.weights, chosen.held_out.weights)
    after, before = (f.category_weights(histories(at(3))) for f in (forecaster, chosen))
    assert (after != before).all()


def test_it_has_seen_the_training_and_the_validation_windows() -> None:
    seen = NetworkForecaster(Lift, OWN).fit(at(1), at(2)).fitted
    assert seen is not None
    assert [seen.covers(at(week)[0]) for week in (1, 2, 3)] == [True, True, False]


def test_what_is_saved_and_loaded_forecasts_the_same_bytes(
    fitted: NetworkForecaster, fresh: list[History], tmp_path: Path
) -> None:
    fitted.save(tmp_path / "new" / "folder")
    loaded = NetworkForecaster.load(tmp_path / "new" / "folder", GRU)
    for a, b in zip(fitted.forecast(fresh), loaded.forecast(fresh), strict=True):
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert (a.concentration, a.source) == (b.concentration, b.source)
    assert loaded.validation_losses == fitted.validation_losses
    assert loaded.fitted is not None
    assert loaded.fitted.covers(small_world(n_users=12)[0])
    assert {path.name for path in (tmp_path / "new/folder").iterdir()} == {
        PARAMETERS_FILE,
        METADATA_FILE,
    }


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_stored_net_forecasts_the_same_bytes(
    network: type[Any], fresh: list[History], tmp_path: Path
) -> None:
    forecaster = quick(network)
    forecaster.stored().save(tmp_path)
    loaded = NetworkForecaster.from_stored(Stored.load(tmp_path))
    for a, b in zip(forecaster.forecast(fresh), loaded.forecast(fresh), strict=True):
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert (a.concentration, a.source) == (b.concentration, b.source)
    assert loaded.fitted is not None
    assert loaded.fitted.covers(small_world(n_users=12)[0])
    assert {array.dtype for array in forecaster.stored().arrays.values()} == {np.dtype(np.float32)}
    assert "u000" not in str(forecaster.stored())


def test_a_stored_net_that_cannot_be_is_refused(fitted: NetworkForecaster) -> None:
    stored, name = fitted.stored(), "leave.change.weight"
    broken = stored.arrays[name].copy()
    broken[1, 2] = np.nan
    arrays = dict(stored.arrays)
    for refused, changed in (
        ("'leave.change.weight' is not finite", arrays | {name: broken}),
        ("size mismatch", arrays | {name: np.ones_like(broken[:-1])}),
        ("Missing key", {key: array for key, array in arrays.items() if key != name}),
        ("Unexpected key", arrays | {"more": np.ones(2)}),
    ):
        with pytest.raises(ModelLoadError, match=refused):
            NetworkForecaster.from_stored(replace(stored, arrays=changed))
    for refused, values in (
        ("no network is called 'Lift'; choose from CellMLP", {"network": "Lift"}),
        ("stored CellMLP cannot be read", {"network": "CellMLP"}),
        ("not finite", {"spread": [np.inf, 0.0]}),
        ("n_periods", {"n_periods": 0}),
        ("stored GRU cannot be read", {"prior": {"decays": 1}}),
    ):
        with pytest.raises(ModelLoadError, match=refused):
            NetworkForecaster.from_stored(replace(stored, values={**stored.values, **values}))
    with pytest.raises(ModelLoadError, match="a stored GatedMixture is no NetworkForecaster"):
        NetworkForecaster.from_stored(replace(stored, kind="GatedMixture"))


def test_beyond_so_many_cells_it_is_trained_on_the_newest_windows_and_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weeks = [at(1), at(2)]
    plan = replace(Lift.training_plan, epochs_if_cut=2)
    monkeypatch.setattr("llmrec.forecasters.network.MAX_TRAINING_CELLS", 2 * 6)
    Lift.steps.clear()
    cut = NetworkForecaster(Lift, OWN, training_plan=plan)
    cut.fit([*weeks[1], *weeks[0]], at(3), refit=False)
    assert cut.n_left_out == 2 * 8 - 6
    assert sum(Lift.steps) == 6 * 2
    Lift.steps.clear()
    whole = NetworkForecaster(Lift, OWN, training_plan=plan).fit(weeks[1][:6], at(3))
    assert whole.n_left_out == 0
    chosen, best = len(whole.validation_losses), int(np.argmin(whole.validation_losses)) + 1
    assert chosen > 2
    assert sum(Lift.steps) == 6 * chosen + 6 * best  # fitted anew on the newest of all windows


def test_the_newest_windows_are_kept_in_order_and_drawn_at_random_among_those_of_one_time() -> None:
    windows = [*at(2), *at(1), *at(3)]
    whole = newest_rows(windows, 1_000)
    np.testing.assert_array_equal(whole, np.arange(24))
    np.testing.assert_array_equal(newest_rows(windows, 2 * 16), [*range(8), *range(16, 24)])
    some = newest_rows(windows, 2 * 3)
    assert len(some) == 3
    assert some.min() >= 16
    assert (np.diff(some) > 0).all()
    assert {tuple(newest_rows(windows, 2 * 3, seed)) for seed in range(9)} != {tuple(some)}
    assert len(newest_rows(windows, 1)) == 1


def test_inputs_of_any_rows_are_what_each_history_alone_gives(fresh: list[History]) -> None:
    arrays = PeriodArrays.of(fresh, DecayedDirichlet(), 4, np.float64)
    for rows in (np.array([3, 0]), slice(1, 4), slice(None)):
        found = arrays.inputs(rows)
        chosen = [fresh[row] for row in np.arange(len(fresh))[rows]]
        np.testing.assert_array_equal(found.counts, period_counts(chosen, 4))
        alone = [
            PeriodArrays.of([one], DecayedDirichlet(), 4, np.float64).inputs() for one in chosen
        ]
        for part in ("population", "prior"):
            expected = torch.cat([getattr(one, part) for one in alone])
            torch.testing.assert_close(getattr(found, part), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "refused"),
    [(VAE, "it is a GRU, not a VAE"), (Lift, "it is a GRU, not a Lift")],
)
def test_the_folder_of_another_net_is_refused(
    fitted: NetworkForecaster, tmp_path: Path, network: type[Any], refused: str
) -> None:
    fitted.save(tmp_path)
    with pytest.raises(ModelLoadError, match=refused):
        NetworkForecaster.load(tmp_path, network)


@pytest.mark.parametrize("name", [PARAMETERS_FILE, METADATA_FILE])
@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99, None], ids=str)
def test_a_truncated_or_missing_file_is_refused(
    fitted: NetworkForecaster, tmp_path: Path, name: str, kept: float | None
) -> None:
    fitted.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    if kept is None:
        (tmp_path / name).unlink()
    else:
        end = kept if isinstance(kept, int) else int(kept * len(content))
        (tmp_path / name).write_bytes(content[:end])
    with pytest.raises(ModelLoadError, match=f"{tmp_path.name} is no GRU"):
        NetworkForecaster.load(tmp_path, GRU)


@pytest.mark.parametrize("key", ["network", "prior", "categories", "spread", "seed", "fitted"])
def test_an_account_that_lacks_something_is_refused(
    fitted: NetworkForecaster, tmp_path: Path, key: str
) -> None:
    fitted.save(tmp_path)
    about = json.loads((tmp_path / METADATA_FILE).read_text())
    del about[key]
    (tmp_path / METADATA_FILE).write_text(json.dumps(about))
    with pytest.raises(ModelLoadError, match=key):
        NetworkForecaster.load(tmp_path, GRU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_periods": 10**12}, "n_periods is 1000000000000; it should be from 1 to 1000"),
        ({"n_periods": "12"}, "n_periods is '12'; it should be from 1 to 1000"),
        ({"categories": [str(n) for n in range(100_000)], "n_periods": 1_000}, "size mismatch"),
    ],
    ids=["periods", "text", "categories"],
)
def test_a_network_of_a_size_that_its_parameters_do_not_have_is_refused_at_once(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    NetworkForecaster(VAE, training_plan=QUICK).fit(at(1), at(2)).save(tmp_path)
    about = json.loads((tmp_path / METADATA_FILE).read_text())
    (tmp_path / METADATA_FILE).write_text(json.dumps(about | changes))
    start = time.perf_counter()
    with pytest.raises(ModelLoadError, match=reason):
        NetworkForecaster.load(tmp_path, VAE)
    assert time.perf_counter() - start < 2


def test_parameters_of_another_shape_are_refused(fitted: NetworkForecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path / "gru")
    NetworkForecaster(GRU, training_plan=QUICK).fit(at(1), at(2)).save(tmp_path / "two")
    shutil.copy(tmp_path / "two" / PARAMETERS_FILE, tmp_path / "gru")
    with pytest.raises(ModelLoadError, match="is no GRU"):
        NetworkForecaster.load(tmp_path / "gru", GRU)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_parameters_that_are_not_finite_are_refused(
    fitted: NetworkForecaster, tmp_path: Path, value: float
) -> None:
    fitted.save(tmp_path)
    parameters = load_file(tmp_path / PARAMETERS_FILE)
    parameters["leave.change.weight"][1, 2] = value
    save_file(parameters, tmp_path / PARAMETERS_FILE)
    with pytest.raises(ModelLoadError, match=r"'leave.change.weight' is not finite"):
        NetworkForecaster.load(tmp_path, GRU)


@pytest.mark.parametrize("network", [NoNumber, Blind])
def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_nothing_to_ask(
    network: type[Any],
) -> None:
    forecaster = NetworkForecaster(network)
    with pytest.raises(TrainingError, match=r"loss nan .* in epoch 1; lower the learning rate"):
        forecaster.fit(at(1), at(2))
    with pytest.raises(TrainingError, match="fit it"):
        forecaster.forecast(histories(at(3)))


def test_asking_or_saving_before_fitting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fit it"):
        NetworkForecaster(GRU).forecast(histories(at(1)))
    with pytest.raises(TrainingError, match="fit it before saving"):
        NetworkForecaster(GRU).save(tmp_path)
    with pytest.raises(DataError, match="no window"):
        NetworkForecaster(GRU).fit([], [])
    assert not list(tmp_path.iterdir())


def test_a_catalog_of_other_categories_is_refused(fitted: NetworkForecaster) -> None:
    with pytest.raises(
        DataError, match=r"GRU was fitted on other categories.*the 2 of this catalog"
    ):
        fitted.forecast(histories(at(1)))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    fitted: NetworkForecaster, fresh: list[History]
) -> None:
    torch.manual_seed(99)  # what was drawn before must not matter
    once, again, other = (
        model.category_weights(fresh).tobytes() for model in (fitted, quick(), quick(seed=1))
    )
    assert once == again
    assert once != other


def test_the_random_state_outside_is_left_alone(fresh: list[History], tmp_path: Path) -> None:
    torch.manual_seed(5)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    quick(VAE).save(tmp_path)
    NetworkForecaster.load(tmp_path, VAE).forecast(fresh)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_one_window_of_one_person_is_enough() -> None:
    alone = town(ann=["ab", "a", "b", "a"])
    first, second, third = (
        make_windows(alone, ITEMS, "7D", START + np.timedelta64(7 * week, "D"))
        for week in (1, 2, 3)
    )
    assert len(first) == len(second) == 1
    (forecast,) = (
        NetworkForecaster(GRU, training_plan=QUICK).fit(first, second).forecast(histories(third))
    )
    assert (forecast.category_weights > 0).all()


def test_a_person_without_an_event_gets_a_forecast(fitted: NetworkForecaster) -> None:
    items, events = catalog(), log(n_users=4)
    empty = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    (forecast,) = fitted.forecast(empty)
    assert (forecast.category_weights > 0).all()
    assert forecast.source.model == "GRU"
    assert fitted.forecast([]) == []


def test_batches_change_nothing_that_can_be_seen(
    fitted: NetworkForecaster, fresh: list[History], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.category_weights(fresh)
    monkeypatch.setattr("llmrec.forecasters.network.HISTORIES_PER_BATCH", 2)
    monkeypatch.setattr("llmrec.forecasters.network.HISTORIES_PER_BATCH", 2)
    np.testing.assert_allclose(fitted.category_weights(fresh), whole, atol=1e-12)


def test_a_fitted_counting_is_taken_as_it_is_and_another_is_fitted() -> None:
    prior = NetworkForecaster(Lift).fit(at(1), at(2)).prior
    assert prior.fitted is not None
    assert prior.fitted.covers(at(2)[0])
    assert NetworkForecaster(Lift, OWN).fit(at(1), at(2)).prior is OWN


def test_without_torch_the_error_names_the_command() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from llmrec.errors import MissingExtraError\n"
        "try:\n    import llmrec.forecasters.network\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'llmrec[llm]'" in found.stdout
