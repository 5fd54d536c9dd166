from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.data.counts import row_shares
from llmrec.errors import DataError
from llmrec.forecasters.calibration import (
    INTERPOLATION_WEIGHTS,
    Calibration,
    fit_calibration,
    fit_interpolation,
    interpolate,
    softmax_update,
)
from llmrec.metrics import log_loss

N, C = 400, 12


def world(seed: int, informative: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A prior, scores that hold some of what the prior misses in its logarithm, and targets."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(C, 2.0), size=N)
    missed = rng.normal(size=(N, C))
    truth = softmax_update(prior, missed, 0.6, 0.0)
    targets = np.stack([rng.multinomial(40, row) for row in truth]).astype(float)
    scores = informative * missed + rng.normal(size=(N, C))
    return prior, scores - scores.mean(axis=1, keepdims=True), targets


def test_informative_scores_get_a_weight_and_lower_the_loss_on_new_users() -> None:
    fitted = fit_calibration(*world(0, informative=1.0))
    prior, scores, targets = world(1, informative=1.0)
    assert fitted.is_trusted
    assert fitted.gain[1] > 0
    assert log_loss(fitted.apply(prior, scores), targets).mean() < log_loss(prior, targets).mean()


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_pure_noise_get_no_weight(seed: int) -> None:
    prior, scores, targets = world(seed, informative=0.0)
    fitted = fit_calibration(prior, scores, targets)
    assert fitted.a <= 0.02
    if not fitted.is_trusted:
        np.testing.assert_allclose(
            fitted.apply(prior, scores), fitted.apply(prior, np.zeros_like(scores))
        )


def test_scores_that_point_the_wrong_way_get_no_negative_weight() -> None:
    prior, scores, targets = world(0, informative=1.0)
    assert fit_calibration(prior, -scores, targets).a == 0


def test_useless_scores_and_a_right_prior_give_the_prior() -> None:
    rng = np.random.default_rng(3)
    prior = rng.dirichlet(np.full(C, 2.0), size=N)
    targets = np.stack([rng.multinomial(40, row) for row in prior]).astype(float)
    fitted = fit_calibration(prior, rng.normal(size=(N, C)), targets)
    np.testing.assert_allclose(fitted.apply(prior, np.zeros((N, C))), prior, atol=0.01)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    names = tuple(f"category {c}" for c in range(C))
    fitted = Calibration(
        0.2, np.arange(C) / 7, np.ones(C) / 3, (0.1, 0.05, 0.2), n=9, categories=names, model="m"
    )
    fitted.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json", names)
    assert loaded.a == fitted.a
    assert loaded.gain == fitted.gain
    assert loaded.bias.tobytes() == fitted.bias.tobytes()


def test_a_calibration_for_other_categories_is_refused(tmp_path: Path) -> None:
    fitted = Calibration(0.2, np.zeros(2), np.zeros(2), categories=("a", "b"))
    fitted.save(tmp_path / "calibration.json")
    with pytest.raises(DataError, match="other categories"):
        Calibration.load(tmp_path / "calibration.json", ("a", "c"))


def test_too_few_windows_to_calibrate_on_are_refused() -> None:
    prior, scores, targets = (array[:20] for array in world(0, 1.0))
    with pytest.raises(DataError, match="too few"):
        fit_calibration(prior, scores, targets)


TAKEN = arrays(np.float64, (3, 4), elements=st.integers(0, 9).map(float))
COUNTED = np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
LEARNED = np.array([[0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])


@given(TAKEN, TAKEN, st.floats(0, 1, exclude_max=True))
def test_a_mix_is_a_distribution_whatever_the_share(
    own: np.ndarray, learned: np.ndarray, share: float
) -> None:
    found = interpolate(row_shares(own + 0.5), row_shares(learned), share)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert (found > 0).all()


@given(TAKEN)
def test_shares_keep_the_proportions_and_nothing_stays_nothing(taken: np.ndarray) -> None:
    shares, totals = row_shares(taken), taken.sum(axis=1)
    np.testing.assert_allclose(shares * totals[:, None], taken, atol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), totals > 0, atol=1e-12)


def test_the_prior_stands_alone_where_nothing_was_predicted() -> None:
    learned = LEARNED * [[1], [0]]
    found = interpolate(COUNTED, learned, 0.5)
    np.testing.assert_allclose(found, [[0.4, 0.15, 0.45], COUNTED[1]])


@pytest.mark.parametrize(
    ("targets", "share"),
    [(LEARNED * 10, max(INTERPOLATION_WEIGHTS)), (np.array([[9.0, 0, 0], [0, 0, 4]]), 0.0)],
    ids=["the prediction is right", "the prediction is wrong"],
)
def test_the_share_is_large_where_the_prediction_is_right(
    targets: np.ndarray, share: float
) -> None:
    found, loss = fit_interpolation(COUNTED, LEARNED, targets)
    assert found == share
    assert loss == pytest.approx(log_loss(interpolate(COUNTED, LEARNED, share), targets).mean())


def test_no_share_of_the_grid_has_a_smaller_loss() -> None:
    targets = np.array([[3.0, 1, 4], [1, 5, 9]])
    _, loss = fit_interpolation(COUNTED, LEARNED, targets)
    every = [
        log_loss(interpolate(COUNTED, LEARNED, share), targets).mean()
        for share in INTERPOLATION_WEIGHTS
    ]
    assert loss == pytest.approx(min(every))


def test_a_target_of_items_without_a_category_does_not_spoil_the_others() -> None:
    targets = np.array([[0.0, 0, 4], [0, 0, 0]])
    share, loss = fit_interpolation(COUNTED, LEARNED, targets)
    assert share == max(INTERPOLATION_WEIGHTS)
    assert np.isfinite(loss)


def test_a_calibration_suits_its_model_and_precisions_measured_to_forecast_as_well(
    tmp_path: Path,
) -> None:
    zeros = np.zeros(2)
    equivalents = {"model openvino 8bit": -0.0004, "model openvino bfloat16": 0.002}
    calibration = Calibration(
        1.0, zeros, zeros, model="model", categories=("a", "b"), equivalents=equivalents
    )
    calibration.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json", ("a", "b"))
    for one in (calibration, loaded):
        suits = {name: one.suits(name) for name in ("model", *equivalents, "other")}
        assert [*suits.values()] == [True, True, False, False], suits
