from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.data.counts import row_shares
from llmrec.forecasters.calibration import INTERPOLATION_WEIGHTS, fit_interpolation, interpolate
from llmrec.metrics import log_loss

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


def test_counting_speaks_alone_where_nothing_was_learned() -> None:
    learned = LEARNED * [[1], [0]]
    found = interpolate(COUNTED, learned, 0.5)
    np.testing.assert_allclose(found, [[0.4, 0.15, 0.45], COUNTED[1]])


@pytest.mark.parametrize(
    ("targets", "share"),
    [(LEARNED * 10, max(INTERPOLATION_WEIGHTS)), (np.array([[9.0, 0, 0], [0, 0, 4]]), 0.0)],
    ids=["what was learned came true", "the contrary came true"],
)
def test_the_share_is_large_where_the_learned_came_true(targets: np.ndarray, share: float) -> None:
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
