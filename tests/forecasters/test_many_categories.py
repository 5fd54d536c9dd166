"""Of many categories a person takes few: time and memory follow what was taken."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.counts import target_counts
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.forecasters.collaborative import MAX_SQUARE_CATEGORIES
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.neighbours import NeighbouringUsers
from llmrec.forecasters.pretrained_forecaster import choose_gate
from llmrec.forecasters.registry import (
    BUILDERS,
    MIXTURE_EXPERTS,
    ForecasterRegistry,
    mixture_experts,
)
from llmrec.forecasters.ridge import MAX_CATEGORIES, RidgeAutoregression
from llmrec.forecasters.target_cells import TargetCells
from tests.worlds import START

N_CATEGORIES, N_USERS, N_PERIODS, N_EVENTS = 2_000, 60, 8, 4


def wide_world(n_categories: int = N_CATEGORIES) -> list[list[Window]]:
    """Windows of each week, of people who take four of the categories a week."""
    rng = np.random.default_rng(0)
    names = [f"i{item:04d}" for item in range(n_categories)]
    items = Catalog.from_frame(
        pd.DataFrame({"item_id": names, "categories": [[f"kind {name}"] for name in names]})
    )
    n = N_USERS * N_PERIODS * N_EVENTS
    days = np.arange(n) // N_EVENTS % N_PERIODS * 7 + np.arange(n) % N_EVENTS
    frame = pd.DataFrame(
        {
            "user_id": [f"u{event // (N_PERIODS * N_EVENTS):02d}" for event in range(n)],
            "item_id": np.array(names)[rng.integers(n_categories, size=n)],
            "timestamp": START + days.astype("timedelta64[D]"),
        }
    )
    events = Interactions.from_frame(frame).align_to(items)
    return [
        make_windows(events, items, "7D", START + np.timedelta64(7 * week, "D"))
        for week in range(1, N_PERIODS)
    ]


@pytest.fixture(scope="module")
def weeks() -> list[list[Window]]:
    return wide_world()


def test_logarithms_are_taken_of_what_the_targets_hold_alone(
    weeks: list[list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = TargetCells.mean_log_loss

    def counted(cells: TargetCells, weights: Any) -> float:
        sizes.append(weights.size)
        return original(cells, weights)

    monkeypatch.setattr(TargetCells, "mean_log_loss", counted)
    validation = weeks[4]
    for setting in (DecayedDirichlet(), ExponentialDecay(), GlobalDrift()):
        setting.fit(validation)  # type: ignore[attr-defined]
    assert len(sizes) > 100
    assert max(sizes) <= np.count_nonzero(target_counts(validation)) <= N_USERS * N_EVENTS


def test_neighbours_take_less_memory_than_a_table_of_the_training_windows(
    weeks: list[list[Window]],
) -> None:
    training, validation = [window for week in weeks[:4] for window in week] * 8, weeks[4]
    prior = GlobalDrift().fit(validation)
    tracemalloc.start()
    fitted = NeighbouringUsers(prior).fit(training, validation)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fitted.neighbour_interests.shape == (len(training) + len(validation), N_CATEGORIES)
    assert peak < len(training) * N_CATEGORIES * np.dtype(np.float64).itemsize


def test_neighbours_are_weighed_without_a_table_for_each_sharpness(
    weeks: list[list[Window]],
) -> None:
    training, validation = weeks[3], weeks[4] * 24
    prior = GlobalDrift().fit(weeks[4])
    table = len(validation) * N_CATEGORIES * np.dtype(np.float64).itemsize
    tracemalloc.start()
    NeighbouringUsers(prior).fit(training, validation)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 7 * table


def test_counting_takes_less_memory_than_a_table_of_the_windows(weeks: list[list[Window]]) -> None:
    windows = weeks[4] * 64
    tracemalloc.start()
    fitted = DecayedDirichlet().fit(windows, decays=(0.9,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fitted.strength > 0
    assert peak < len(windows) * N_CATEGORIES * np.dtype(np.float64).itemsize


@pytest.mark.parametrize("model", [DecayedDirichlet(), ExponentialDecay(), GlobalDrift()])
def test_a_fit_in_blocks_is_that_of_the_whole(
    weeks: list[list[Window]], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.fit(weeks[4])
    monkeypatch.setattr("llmrec.forecasters.target_cells.CELLS_PER_BLOCK", 7 * N_CATEGORIES)
    assert model.fit(weeks[4]) == whole


def test_the_gate_of_pretrained_nets_is_the_same_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    log_prior, correction = np.log(rng.dirichlet(np.ones(30), 40)), rng.normal(size=(40, 30))
    targets = rng.poisson(0.3, size=(40, 30)).astype(np.float64)
    arguments = log_prior, correction, targets, np.zeros(40, dtype=np.int64)
    whole = choose_gate(*arguments)
    monkeypatch.setattr("llmrec.forecasters.target_cells.CELLS_PER_BLOCK", 3 * 30)
    assert choose_gate(*arguments) == whole


@pytest.mark.parametrize("name", ["CategoryEASE", "CategoryMarkov"])
def test_a_square_of_too_many_categories_is_refused(
    weeks: list[list[Window]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = "llmrec.forecasters.collaborative.MAX_SQUARE_CATEGORIES"
    monkeypatch.setattr(most, N_CATEGORIES - 1)
    with pytest.raises(DataError, match=rf"{name} .* 1,999 .* not 2,000: use NeighbouringUsers"):
        ForecasterRegistry(weeks[3], weeks[4])[name]


def test_drifts_measured_in_parts_are_those_of_the_whole(
    weeks: list[list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [window.history for window in weeks[4]]
    whole = GlobalDrift().category_weights(histories)
    monkeypatch.setattr("llmrec.forecasters.drift.SPAN_CELLS_PER_BATCH", 24 * N_CATEGORIES * 7)
    parts = GlobalDrift().category_weights(histories)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_a_mixture_of_many_categories_is_made_without_the_ridge() -> None:
    assert mixture_experts(2) == mixture_experts(MAX_CATEGORIES) == MIXTURE_EXPERTS
    more = mixture_experts(MAX_SQUARE_CATEGORIES + 1)
    assert set(MIXTURE_EXPERTS) - set(more) == {"RidgeAutoregression", "CategoryEASE"}
    many = mixture_experts(MAX_CATEGORIES + 1)
    assert set(MIXTURE_EXPERTS) - set(many) == {"RidgeAutoregression"}
    assert set(many) <= set(BUILDERS)


def test_the_ridge_of_many_categories_is_refused_and_what_to_use_is_named(
    weeks: list[list[Window]],
) -> None:
    registry = ForecasterRegistry(weeks[3], weeks[4])
    with pytest.raises(DataError, match=r"not 2,000: use CategoryEASE or NeighbouringUsers"):
        registry["RidgeAutoregression"]
    with pytest.raises(DataError, match="no window"):
        RidgeAutoregression().fit([], [])


def test_the_mixture_of_the_registry_has_the_experts_that_suit_the_catalog(
    weeks: list[list[Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ForecasterRegistry(weeks[3], weeks[4])
    experts = ("GlobalDrift", "Mean", "RidgeAutoregression")
    monkeypatch.setattr("llmrec.forecasters.registry.MIXTURE_EXPERTS", experts)
    mixture: Any = registry["GatedMixture"]
    assert set(mixture.experts) == {"GlobalDrift", "Mean"}
