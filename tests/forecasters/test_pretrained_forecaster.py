"""Nets of other logs correct counting: on any log, in any order, and never beyond the gate."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from scipy import special

from llmrec.data.catalog import Catalog
from llmrec.data.periods import Window
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecasters.cell_features import N_FEATURES
from llmrec.forecasters.cell_nets import (
    ALL_LOGS,
    NETS_FILE,
    SHIPPED,
    CellNets,
    PretrainedNets,
    hash_titles,
    shipped_nets,
)
from llmrec.forecasters.precomputed import out_of_sample_weights
from llmrec.forecasters.pretrained_forecaster import (
    GATES,
    FittedCounts,
    PretrainedForecaster,
    choose_gate,
)
from tests.worlds import START, catalog, log, small_world

ITEMS = catalog()


def nets(scale: float = 0.3, seed: int = 0, n_nets: int = 2, width: int = 8) -> CellNets:
    """Nets of random parameters; a scale of 0 corrects nothing."""
    rng = np.random.default_rng(seed)
    widths = [N_FEATURES, width, 1]
    weights = [rng.normal(0, 0.2, (n_nets, *pair)) for pair in pairwise(widths)]
    weights[-1] *= scale
    biases = [np.zeros((n_nets, width)), np.zeros((n_nets, 1))]
    arrays = CellNets(
        np.zeros(N_FEATURES), np.ones(N_FEATURES), tuple(weights), tuple(biases)
    ).arrays()
    return CellNets.from_arrays(arrays, ALL_LOGS)


def at(week: int, n_users: int = 20) -> list[Window]:
    cutoff = START + np.timedelta64(7 * week, "D")
    return make_windows(log(n_users=n_users), ITEMS, "7D", cutoff)


PAST, NOW = at(4), at(5)
FITTED = PretrainedForecaster(nets=nets()).fit(PAST)
HISTORIES = [window.history for window in NOW]


def test_nets_that_add_nothing_forecast_what_counting_does() -> None:
    fitted = PretrainedForecaster(nets=nets(scale=0.0)).fit(PAST)
    for gate in (0.0, 1.0):
        weights = replace(fitted, gate=gate).category_weights(HISTORIES)
        np.testing.assert_allclose(weights, fitted.prior.category_weights(HISTORIES), atol=1e-14)


def test_a_closed_gate_is_counting_whatever_the_nets_say() -> None:
    weights = replace(FITTED, gate=0.0).category_weights(HISTORIES)
    np.testing.assert_allclose(weights, FITTED.prior.category_weights(HISTORIES), atol=1e-14)
    wide_open = replace(FITTED, gate=1.0).category_weights(HISTORIES)
    assert np.abs(wide_open - weights).max() > 1e-4


@settings(max_examples=20)
@given(best=st.sampled_from(GATES), seed=st.integers(0, 99))
def test_the_gate_is_the_one_that_the_targets_were_made_with(best: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_prior = np.log(rng.dirichlet(np.ones(6), 50))
    correction = rng.normal(0, 1, log_prior.shape)
    expected = special.softmax(log_prior + best * correction, axis=1)
    gate, loss = choose_gate(log_prior, correction, expected, np.zeros(50, dtype=np.int64))
    assert gate == best
    assert loss == pytest.approx(-(expected * np.log(expected)).sum(axis=1).mean())


def test_what_helped_in_one_of_two_periods_alone_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    log_prior = np.log(rng.dirichlet(np.ones(6), 120))
    correction = rng.normal(0, 1, log_prior.shape)
    signs = np.repeat([1.0, -1.0], 60)[:, None]
    targets = special.softmax(log_prior + signs * correction, axis=1)
    periods = np.repeat([0, 1], 60)
    assert choose_gate(log_prior[:60], correction[:60], targets[:60], periods[:60])[0] == 1
    assert choose_gate(log_prior, correction, targets, periods)[0] == 0


def test_on_few_windows_the_gate_is_closed() -> None:
    assert PretrainedForecaster(nets=nets()).fit(at(4, n_users=6)).gate == 0


def test_the_same_categories_in_another_order_get_the_same_forecast() -> None:
    renamed = [f"{'EDCBA'[item % 5]} {item % 5}" for item in range(25)]
    frame = pd.DataFrame(
        {"item_id": ITEMS.item_ids, "title": ITEMS.titles, "categories": [[n] for n in renamed]}
    )
    other = Catalog.from_frame(frame)
    events = log()
    past, now = (
        make_windows(events, other, "7D", START + np.timedelta64(7 * week, "D")) for week in (4, 5)
    )
    fitted = PretrainedForecaster(nets=FITTED.nets).fit(past)
    weights = replace(fitted, gate=1.0).category_weights([window.history for window in now])
    expected = replace(FITTED, gate=1.0).category_weights(HISTORIES)
    np.testing.assert_allclose(weights[:, ::-1], expected, atol=1e-9)


@pytest.mark.parametrize("n_items", [1, 2, 5, 400])
def test_the_same_nets_forecast_any_number_of_categories(n_items: int) -> None:
    names = [[f"c{item:03d}"] for item in range(n_items)]
    frame = pd.DataFrame({"item_id": [f"i{n:03d}" for n in range(n_items)], "categories": names})
    items = Catalog.from_frame(frame)
    windows = make_windows(log(n_items=max(5, n_items - n_items % 5)), items, "7D")
    weights = (
        PretrainedForecaster(nets=nets())
        .fit(windows)
        .category_weights([window.history for window in windows])
    )
    assert weights.shape[1] == n_items
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_a_person_without_events_gets_what_counting_gives() -> None:
    history = small_world(n_users=1, empty=True)[0].history
    fitted = replace(FITTED, gate=1.0)
    np.testing.assert_allclose(
        fitted.category_weights([history]), fitted.prior.category_weights([history]), atol=1e-14
    )


def test_the_gate_and_the_held_out_weights_know_nothing_of_the_targets() -> None:
    others = [
        Window(window.history, replace(window.target, stop=window.target.start + 1))
        for window in PAST
    ]
    prior = FITTED.prior
    one = FittedCounts.fit(PAST, prior, with_targets=False).lifts
    other = FittedCounts.fit(others, prior, with_targets=False).lifts
    for name in ("together", "alongside", "following", "by_membership"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
    assert FITTED.counts is not None
    assert FITTED.counts.lifts.following.tobytes() != one.following.tobytes()
    held_out = out_of_sample_weights(FITTED, PAST)
    again = FITTED.category_weights([window.history for window in PAST])
    assert (np.abs(held_out - again).max() > 0) or FITTED.gate == 0


def test_before_a_fit_and_on_other_categories_it_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        PretrainedForecaster().category_weights(HISTORIES)
    with pytest.raises(TrainingError, match="fit it"):
        PretrainedForecaster().stored()
    with pytest.raises(DataError, match="fit it on this log"):
        replace(FITTED, categories=("Food",)).category_weights(HISTORIES)


def test_a_training_log_is_known_by_its_titles_and_gets_the_nets_that_have_not_seen_it() -> None:
    mine = replace(nets(seed=1), left_out="mine")
    found = PretrainedNets({ALL_LOGS: nets(), "mine": mine}, {"mine": hash_titles(ITEMS.titles)})
    assert found.choose(ITEMS) is mine
    part = replace(
        ITEMS, titles=tuple(f"{title}!" for title in ITEMS.titles[:10]) + ITEMS.titles[10:]
    )
    assert found.choose(part) is mine
    assert found.choose(catalog(titles="Other")).left_out == ALL_LOGS


def test_the_shipped_nets_are_small_and_correct_counting_of_a_log_they_have_not_seen() -> None:
    assert (SHIPPED / NETS_FILE).stat().st_size < 1_000_000
    assert {ALL_LOGS, "ml-100k", "completejourney"} <= set(shipped_nets().nets)
    forecaster = PretrainedForecaster().fit(PAST)
    assert forecaster.nets is not None
    assert forecaster.nets.left_out == ALL_LOGS
    wide_open = replace(forecaster, gate=1.0).category_weights(HISTORIES)
    assert np.abs(wide_open - forecaster.prior.category_weights(HISTORIES)).max() > 1e-3


def test_broken_parameters_are_refused(tmp_path: Path) -> None:
    stored = nets().stored()
    for name, array in stored.arrays.items():
        for broken in (array[..., :-1], array.astype(np.float16), np.full_like(array, np.nan)):
            with pytest.raises(ModelLoadError, match="CellNets"):
                CellNets.from_stored(replace(stored, arrays={**stored.arrays, name: broken}))
    with pytest.raises(ModelLoadError, match="holds no pretrained nets"):
        PretrainedNets.load(tmp_path)
    (tmp_path / NETS_FILE).write_bytes(save({"a/b": np.zeros(1)}, {"llmrec": "[]"}))
    with pytest.raises(ModelLoadError, match="holds no pretrained nets"):
        PretrainedNets.load(tmp_path)


def test_lifts_of_another_number_of_categories_are_refused() -> None:
    stored = FITTED.stored()
    wrong = replace(stored, values={**stored.values, "categories": ["Food", "Wine"]})
    with pytest.raises(ModelLoadError, match="lifts are not of the 2 categories"):
        PretrainedForecaster.from_stored(wrong)
    assert isinstance(stored, Stored)
