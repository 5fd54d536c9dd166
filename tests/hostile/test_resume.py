"""Trainings and fits that are killed anywhere and started again end as ones that were not."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from llmrec.engine_fit import fit_engine
from llmrec.fit_store import FitStore
from llmrec.forecasters import next_item
from llmrec.training.checkpoints import latest_checkpoint
from tests.hostile.conftest import Count
from tests.hostile.stops import STEP, count_events, killed
from tests.test_engine_fit import NOT_NEEDED, world
from tests.training.test_loop import Regression, Validation, bytes_of, run

MAX_KILLS = 5  # of one training, one after the other


class SteppedRegression(Regression):
    """A regression that can be killed before, within and after a step."""

    def __init__(self) -> None:
        super().__init__()
        for values in self.parameters():
            if values.requires_grad:
                values.register_hook(lambda gradient: sys.audit(STEP))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        sys.audit(STEP)
        return super().forward(x, y)


def trained(folder: Path, **values: Any) -> tuple[dict[str, bytes], list[dict[str, float]]]:
    """Train to the end; give parameters, and validations but for the time they took."""
    module = SteppedRegression()
    history = run(folder, module, validation=Validation(module), save_every=3, **values)
    assert history.stopped == "all steps are done"
    evaluations = [{k: v for k, v in one.items() if k != "seconds"} for one in history.evaluations]
    return bytes_of(module), evaluations


def checkpoint_of(folder: Path) -> dict[str, bytes]:
    """Give the tensors of the newest checkpoint, optimizer and all."""
    found = latest_checkpoint(folder)
    assert found is not None
    return {
        f"{part} {name}": tensor.numpy().tobytes()
        for part in ("parameters", "optimizer")
        for name, tensor in found.load_tensors(part).items()
    }


def amount(some: int, all_of_them: int) -> pytest.MarkDecorator:
    cases = [
        pytest.param(some, id="some"),
        pytest.param(all_of_them, id="all", marks=pytest.mark.hostile),
    ]
    return pytest.mark.parametrize("n", cases)


# What is trained: all batches by themselves, or two of them a step.
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"gradient_accumulation": 2, "epochs": 4.6})


def stop_and_resume(tmp_path: Path, n: int, values: dict[str, Any]) -> list[str]:
    """Kill trainings at n random moments, some of them again after they went on; name faults."""
    rng, n_stops, found = np.random.default_rng(len(values)), 0, list[str]()
    n_events = count_events(partial(trained, tmp_path / "counted", **values), tmp_path)
    expected = trained(tmp_path / "whole", **values), checkpoint_of(tmp_path / "whole")
    while n_stops < n:
        folder, moments = tmp_path / f"{n_stops} stopped", list[int]()
        for _ in range(min(int(rng.integers(1, MAX_KILLS)), n - n_stops)):
            moments.append(int(rng.integers(n_events)))
            n_stops += killed(partial(trained, folder, **values), tmp_path, moments[-1])
        if (trained(folder, **values), checkpoint_of(folder)) != expected:
            found.append(f"{values}: killed at events {moments} of {n_events}")
    return found


@pytest.mark.parametrize("values", SETTINGS, ids=["every batch", "two batches a step"])
@amount(2, 25)
def test_a_training_that_was_killed_anywhere_ends_with_the_same_bits(
    n: int, values: dict[str, Any], tmp_path: Path, count: Count
) -> None:
    found = stop_and_resume(tmp_path, n, values)
    count("stops of a training", n, len(found))
    assert not found


def fitted(folder: Path | None) -> dict[str, bytes]:
    """Fit an engine with nets, and give what it says of everybody."""
    dataset = world()
    without = (*NOT_NEEDED, "GRU", "SASRec", "eSASRec")
    found = fit_engine(dataset, "best", without=without, store=FitStore(folder))
    histories = dataset.histories(np.datetime64("2021-01-01"))
    weights = np.stack([one.category_weights for one in found.prior.forecast(histories)])
    scores = found.blend.weighted_scores(histories)
    return {"weights": weights.tobytes(), "scores": scores.tobytes()}


@pytest.mark.hostile
def test_a_fit_that_was_killed_anywhere_ends_with_the_same_bits(
    tmp_path: Path, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(next_item.DEFAULT_STEPS, "GRU4Rec", 2)
    rng, found, n = np.random.default_rng(0), list[str](), 10
    n_events = count_events(partial(fitted, tmp_path / "counted"), tmp_path)
    expected = fitted(None)
    for case in range(n):
        folder, at = tmp_path / f"{case} stopped", int(rng.integers(n_events))
        assert killed(partial(fitted, folder), tmp_path, at)
        if fitted(folder) != expected:
            found.append(f"killed at event {at} of {n_events}")
    count("stops of a fit", n, len(found))
    assert not found
