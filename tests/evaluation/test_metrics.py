from __future__ import annotations

import numpy as np
import pytest

from llmrec.contracts import Forecast, Source
from llmrec.evaluation.metrics import (
    bootstrap_interval,
    coverage,
    jsd,
    log_loss,
    ndcg_at,
    recall_at,
)


def test_log_loss_by_hand() -> None:
    found = log_loss(np.array([[0.5, 0.25, 0.25]]), np.array([[2.0, 2.0, 0.0]]))
    assert found[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(4))


def test_log_loss_without_events_is_nan_and_of_an_impossible_event_infinite() -> None:
    found = log_loss(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert np.isnan(found[0])
    assert found[1] == np.inf


def test_jsd_of_equals_is_zero_and_of_strangers_one_bit() -> None:
    weights = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(jsd(weights, np.array([[3.0, 3.0, 0.0], [0.0, 0.0, 2.0]])), [0, 1])


def test_jsd_by_hand() -> None:
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4)
    expected = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert jsd(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]))[0] == pytest.approx(expected)


def test_ndcg_and_recall_by_hand() -> None:
    ranked, relevant = np.array([4, 1, 7]), np.array([1, 9, 9])
    assert ndcg_at(3, ranked, relevant) == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
    assert recall_at(3, ranked, relevant) == pytest.approx(0.5)


def test_a_list_shorter_than_k_is_judged_by_what_it_holds() -> None:
    assert ndcg_at(10, np.array([1]), np.array([1])) == 1.0


def test_rankings_with_nothing_relevant_are_nan() -> None:
    assert np.isnan(ndcg_at(5, np.array([1]), np.array([], dtype=int)))
    assert np.isnan(recall_at(5, np.array([1]), np.array([], dtype=int)))


def test_coverage_of_dirichlet_samples_is_the_level() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(10, 5.0), size=1_500)
    forecasts = [Forecast(row, 40.0, "", (), Source("test", "counting")) for row in weights]
    targets = 1e6 * np.stack([rng.dirichlet(40 * row) for row in weights])
    assert np.nanmean(coverage(forecasts, targets, 0.8)) == pytest.approx(0.8, abs=0.015)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=900)
    mean, low, high = bootstrap_interval(values)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 30, rel=0.15)
    assert all(np.isnan(bootstrap_interval(np.array([np.nan]))))
