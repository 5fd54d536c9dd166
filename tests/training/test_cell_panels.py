"""Nets of cells learn what several logs have in common, and an interrupted run loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

from llmrec.data.counts import target_counts
from llmrec.data.windows import make_windows
from llmrec.errors import TrainingError
from llmrec.forecasters import cell_training
from llmrec.forecasters.cell_nets import CellNets
from llmrec.forecasters.cell_training import CellTrainingPlan, train_cell_nets
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.metrics import log_loss
from llmrec.training.cell_panels import Panel, make_panels
from llmrec.training.random_logs import make_random_log
from llmrec.training.recuts import recut

PLAN = CellTrainingPlan(n_nets=2, width=8, steps=60, cells=1_500, save_every=20)
SEEDS = (0, 2, 5)


@pytest.fixture(scope="module")
def panels(tmp_path_factory: pytest.TempPathFactory) -> list[list[Panel]]:
    folder = tmp_path_factory.mktemp("panels")
    return [
        make_panels(
            make_random_log(seed),
            folder / str(seed),
            n_panels=2,
            max_people=60,
            short=0.2,
            seed=seed,
        )
        for seed in SEEDS
    ]


def same(one: CellNets, other: CellNets) -> bool:
    pairs = zip(one.arrays().values(), other.arrays().values(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_training_lowers_the_loss_of_counting(panels: list[list[Panel]], tmp_path: Path) -> None:
    nets = train_cell_nets({"made up": panels}, PLAN, tmp_path / "a.safetensors", "nothing")
    gains = []
    for panel in (one for found in panels for one in found):
        prior = np.asarray(panel.features.prior, dtype=np.float64)
        corrected = special.log_softmax(prior + nets.correct(panel.features), axis=1)
        difference = corrected - special.log_softmax(prior, axis=1)
        gains.append((panel.shares * difference).sum(axis=1).mean())
    assert np.mean(gains) > 0.005


def test_an_interrupted_training_ends_with_the_same_bytes(
    panels: list[list[Panel]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"made up": panels}
    whole = train_cell_nets(sources, PLAN, tmp_path / "whole.safetensors", "nothing")
    step = cell_training._TrainingState.step

    def fail(*given: object) -> float:
        if given[2] == 45:
            raise KeyboardInterrupt
        return step(*given)  # type: ignore[arg-type]

    path = tmp_path / "interrupted.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(cell_training._TrainingState, "step", fail)
        with pytest.raises(KeyboardInterrupt):
            train_cell_nets(sources, PLAN, path, "nothing")
    assert same(whole, train_cell_nets(sources, PLAN, path, "nothing"))
    assert same(whole, train_cell_nets(sources, PLAN, path, "nothing"))  # nothing is left to do


def test_without_torch_the_nets_add_what_they_did_in_training(
    panels: list[list[Panel]], tmp_path: Path
) -> None:
    nets = train_cell_nets({"made up": panels}, PLAN, tmp_path / "a.safetensors", "nothing")
    dataset = make_random_log(SEEDS[0])
    past, now = (
        make_windows(dataset.log, dataset.catalog, dataset.period, back=back) for back in (1, 0)
    )
    fitted = replace(PretrainedForecaster(nets=nets).fit(past), gate=1.0)
    assert fitted.counts is not None
    features = fitted.counts.features([window.history for window in now])
    x = features.rows(np.arange(len(now)))
    flat = torch.from_numpy(x.reshape(1, -1, x.shape[2])).double()
    flat = ((flat - torch.from_numpy(nets.mean)) / torch.from_numpy(nets.scale)).clamp(-4, 4)
    hidden = flat
    for layer, (weight, bias) in enumerate(zip(nets.weights, nets.biases, strict=True)):
        hidden = hidden @ torch.from_numpy(weight) + torch.from_numpy(bias)[:, None]
        if layer < len(nets.weights) - 1:
            hidden = torch.relu(hidden)
    expected = hidden.mean(dim=0).reshape(features.prior.shape).numpy()
    np.testing.assert_allclose(nets.correct(features), expected, atol=1e-4)


def test_without_panels_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give logs with more people"):
        train_cell_nets({}, PLAN, tmp_path / "a.safetensors", "nothing")


def test_panels_on_disk_are_read_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_random_log(0)
    options = {"n_panels": 1, "max_people": 20, "short": 0.5, "seed": 0}
    (made,) = make_panels(dataset, tmp_path, **options)  # type: ignore[arg-type]
    monkeypatch.setattr("llmrec.training.cell_panels._times", None)
    (read,) = make_panels(dataset, tmp_path, **options)  # type: ignore[arg-type]
    assert made.shares.tobytes() == read.shares.tobytes()
    rows = np.arange(len(made.shares))
    assert made.features.rows(rows).tobytes() == read.features.rows(rows).tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_a_recut_is_a_log_that_can_be_forecast(seed: int) -> None:
    dataset = make_random_log(3)
    one, again = recut(dataset, seed), recut(dataset, seed)
    assert one.log.fingerprint == again.log.fingerprint
    assert one.catalog.n_categories <= dataset.catalog.n_categories
    sums = np.asarray(one.catalog.category_shares.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums, 1)
    windows = make_windows(one.log, one.catalog, one.period)
    losses = log_loss(
        PretrainedForecaster().fit(windows).category_weights([w.history for w in windows]),
        target_counts(windows),
    )
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_made_up_log_is_the_same_again_and_in_order(seed: int) -> None:
    one, again = make_random_log(seed), make_random_log(seed)
    assert one.log.fingerprint == again.log.fingerprint != make_random_log(seed + 9).log.fingerprint
    later = np.diff(one.log.timestamp.astype(np.int64)) >= 0
    assert (later | (np.diff(one.log.user_idx) > 0)).all()
