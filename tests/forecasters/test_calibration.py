from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec.errors import DataError
from llmrec.forecasters.calibration import Calibration, fit_calibration, softmax_update
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


def test_a_reading_that_knows_something_is_trusted_and_lowers_the_loss_on_new_users() -> None:
    fitted = fit_calibration(*world(0, informative=1.0))
    prior, scores, targets = world(1, informative=1.0)
    assert fitted.is_trusted
    assert fitted.gain[1] > 0
    assert log_loss(fitted.apply(prior, scores), targets).mean() < log_loss(prior, targets).mean()


@pytest.mark.parametrize("seed", range(5))
def test_a_reading_of_pure_noise_is_not_trusted(seed: int) -> None:
    prior, scores, targets = world(seed, informative=0.0)
    fitted = fit_calibration(prior, scores, targets)
    assert fitted.a <= 0.02
    if not fitted.is_trusted:
        np.testing.assert_allclose(
            fitted.apply(prior, scores), fitted.apply(prior, np.zeros_like(scores))
        )


def test_a_reading_that_points_the_wrong_way_is_not_believed_backwards() -> None:
    prior, scores, targets = world(0, informative=1.0)
    assert fit_calibration(prior, -scores, targets).a == 0


def test_a_useless_reading_and_a_right_prior_leave_the_prior_alone() -> None:
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
