from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import Forecast, Forecaster
from llmrec.forecasters import pool
from llmrec.forecasters.calibration import DEFAULT_DISPERSION
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.experts import out_of_sample_blocks
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.pool import LogLinearPool
from llmrec.forecasters.precomputed import PrecomputedForecaster
from llmrec.metrics import mean_log_loss
from tests.worlds import small_world

MIXTURES = [LogLinearPool, GatedMixture, lambda experts: GatedMixture(experts, constant=True)]
every_mixture = pytest.mark.parametrize("make", MIXTURES, ids=["pool", "gate", "constant"])


class StoredCounting:
    """Counting that can be stored, with a decay."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def forecast(self, histories: list[History]) -> list[Forecast]:
        return DecayedDirichlet(self.decay, 5.0).forecast(histories)

    def stored(self) -> Stored:
        return Stored("StoredCounting", {"decay": self.decay})


def load(stored: Stored) -> Forecaster:
    return StoredCounting(stored.values["decay"])


def kind_of(mixture: Any) -> Any:
    return type(mixture)


def histories(windows: list[Window]) -> list[History]:
    return [window.history for window in windows]


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return small_world(n_users=60)


@pytest.fixture(scope="module")
def experts() -> Mapping[str, Forecaster]:
    return {"long": StoredCounting(1.0), "short": StoredCounting(0.5)}


def test_the_exponents_of_a_pool_are_found_again() -> None:
    rng = np.random.default_rng(0)
    weights = list(rng.dirichlet(np.ones(6), (2, 400)))
    shares = pool._pool(np.stack(weights, axis=1), np.array([[0.9, -0.4]]))
    found = pool._fit_exponents(weights, shares, np.arange(400), np.full(2, 0.5))
    np.testing.assert_allclose(found, [0.9, -0.4], atol=0.01)


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_the_derivatives_equal_finite_differences(exponents: list[float]) -> None:
    rng = np.random.default_rng(1)
    weights, rows = list(rng.dirichlet(np.ones(4), (3, 7))), np.arange(6)
    shares = row_shares(rng.poisson(1.0, (7, 4)) * (np.arange(7) != 2)[:, None])

    def part(place: int) -> Any:
        return lambda point: pool._derivatives(weights, shares, rows, point)[place]

    point = np.array(exponents)
    np.testing.assert_allclose(part(1)(point), optimize.approx_fprime(point, part(0)), atol=1e-5)
    np.testing.assert_allclose(part(2)(point), optimize.approx_fprime(point, part(1)), atol=1e-5)


def test_a_pool_of_corrections_is_better_than_any_mixture_of_them(windows: list[Window]) -> None:
    rng, shares = np.random.default_rng(2), row_shares(target_counts(windows))
    for_each = {}
    for half in (0, 1):  # each knows of every other category
        knows = np.where(np.arange(5) % 2 == half, shares + 0.1, 0.3)
        weights = row_shares(knows * rng.lognormal(0, 0.1, shares.shape))
        for_each[f"half {half}"] = PrecomputedForecaster.of(
            "half", histories(windows), weights, DEFAULT_DISPERSION
        )
    pooled, mixed = LogLinearPool(for_each).fit(windows), GatedMixture(for_each).fit(windows)
    assert pooled.held_out is not None
    assert mixed.held_out is not None
    targets = target_counts(windows)
    better, worse = (mean_log_loss(m.held_out.weights, targets) for m in (pooled, mixed))
    assert better < worse - 0.02


def test_held_out_weights_are_those_of_a_fit_on_the_other_people(
    windows: list[Window], experts: Mapping[str, Forecaster]
) -> None:
    whole = LogLinearPool(experts).fit(windows, seed=3)
    folds = np.random.default_rng(3).permutation(len(windows)) % pool.N_FOLDS
    inside = [window for window, fold in zip(windows, folds, strict=True) if fold == 1]
    others = [window for window, fold in zip(windows, folds, strict=True) if fold != 1]
    expected = LogLinearPool(experts).fit(others).category_weights(histories(inside))
    assert whole.held_out is not None
    np.testing.assert_allclose(whole.held_out.lookup(inside), expected, atol=1e-4)
    assert np.abs(whole.category_weights(histories(inside)) - expected).max() > 1e-3


def test_many_cells_are_fitted_on_a_part_of_the_windows_and_all_have_held_out_weights(
    windows: list[Window], experts: Mapping[str, Forecaster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_CELLS", 2 * 5 * 20)
    seen = []
    fit = pool._fit_exponents
    monkeypatch.setattr(pool, "_fit_exponents", lambda *args: seen.append(args[2]) or fit(*args))
    fitted = LogLinearPool(experts).fit(windows)
    assert len(seen[0]) == 20
    assert fitted.held_out is not None
    assert fitted.held_out.weights.shape == (len(windows), 5)


@every_mixture
def test_a_stored_mixture_forecasts_the_same_bytes(
    make: Any, windows: list[Window], experts: Mapping[str, Forecaster], tmp_path: Path
) -> None:
    mixture = make(experts).fit(windows)
    mixture.stored().save(tmp_path)
    loaded = kind_of(mixture).from_stored(Stored.load(tmp_path), load)
    fresh = histories(small_world(seed=1))
    for a, b in zip(mixture.forecast(fresh), loaded.forecast(fresh), strict=True):
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert (a.concentration, a.source) == (b.concentration, b.source)
    assert loaded.fitted is not None
    assert loaded.fitted.covers(windows[0])
    assert "u000" not in str(mixture.stored())


@every_mixture
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_stored_mixture_that_cannot_be_is_refused(
    make: Any, value: float, windows: list[Window], experts: Mapping[str, Forecaster]
) -> None:
    mixture = make(experts).fit(windows)
    stored, restore = mixture.stored(), kind_of(mixture).from_stored
    for name, array in stored.arrays.items():
        if not array.size:
            continue
        broken = array.copy()
        broken.flat[-1] = value
        for refused, arrays in (
            ("is not finite", {**stored.arrays, name: broken}),
            ("of shape", {**stored.arrays, name: array[..., :-1]}),
            ("of shape", {other: a for other, a in stored.arrays.items() if other != name}),
            ("float32", {**stored.arrays, name: array.astype(np.float32)}),
        ):
            with pytest.raises(ModelLoadError, match=refused):
                restore(replace(stored, arrays=arrays), load)
    for refused, changes in (
        ("spread", {"spread": [value, 0.0]}),
        ("values cannot be read", {"spread": [0.1, 0.0, 0.0]}),
        ("values cannot be read", {"fitted": {}}),
    ):
        with pytest.raises(ModelLoadError, match=refused):
            restore(replace(stored, values={**stored.values, **changes}), load)
    with pytest.raises(ModelLoadError, match="a stored Other is no"):
        restore(replace(stored, kind="Other"), load)
    with pytest.raises(ModelLoadError, match="of shape"):
        restore(replace(stored, parts=dict(list(stored.parts.items())[:1])), load)


@every_mixture
def test_storing_before_fitting_or_with_an_expert_that_cannot_be_stored_is_refused(
    make: Any, windows: list[Window], experts: Mapping[str, Forecaster]
) -> None:
    with pytest.raises(TrainingError, match="fit it before saving"):
        make(experts).stored()
    rows = np.full((len(windows), 5), 0.2)
    fixed = PrecomputedForecaster.of("fixed", histories(windows), rows, DEFAULT_DISPERSION)
    mixture = make({**experts, "fixed": fixed}).fit(windows)
    with pytest.raises(ModelLoadError, match="'fixed' is a PrecomputedForecaster, which cannot"):
        mixture.stored()


@every_mixture
def test_weights_that_are_known_are_not_asked_for_again(
    make: Any, windows: list[Window], experts: Mapping[str, Forecaster]
) -> None:
    known = {
        name: np.stack([f.category_weights for f in expert.forecast(histories(windows))])
        for name, expert in experts.items()
    }
    plain = make(experts).fit(windows)
    given_known = make(dict.fromkeys(experts)).fit(windows, known=known)
    np.testing.assert_array_equal(plain.held_out.weights, given_known.held_out.weights)


def test_blocks_of_experts_hold_no_more_cells_than_allowed(
    windows: list[Window],
    experts: Mapping[str, Forecaster],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((_, whole),) = out_of_sample_blocks(experts, windows)
    monkeypatch.setattr("llmrec.forecasters.experts.CELLS_PER_BATCH", 75)
    blocks = list(out_of_sample_blocks(experts, windows))
    assert max(weights.size for _, weights in blocks) == 70  # of 2 experts and 5 categories
    np.testing.assert_allclose(np.concatenate([weights for _, weights in blocks]), whole)


def test_a_pool_before_fitting_of_one_expert_or_with_a_broken_exponent_is_refused(
    windows: list[Window], experts: Mapping[str, Forecaster]
) -> None:
    with pytest.raises(TrainingError, match="fit it"):
        LogLinearPool(experts).forecast(histories(windows))
    with pytest.raises(DataError, match="two experts at least"):
        LogLinearPool({"long": experts["long"]})
    with pytest.raises(DataError, match="no window"):
        LogLinearPool(experts).fit([])
    fitted = LogLinearPool(experts).fit(windows)
    fitted.exponents[0] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        fitted.forecast(histories(windows))


def test_an_expert_fitted_on_later_events_is_refused(experts: Mapping[str, Any]) -> None:
    early, late = small_world(n_periods=5), small_world(n_periods=6)
    later = StoredCounting(0.5)
    later.fitted = TrainingSpan.of_windows(late)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="expert later was fitted on events after"):
        LogLinearPool({**experts, "later": later}).fit(early)
