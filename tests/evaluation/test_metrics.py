from __future__ import annotations

import numpy as np
import pytest

from llmrec.metrics import (
    bootstrap_interval,
    brier,
    calibration_bins,
    calibration_error,
    coverage,
    drift_captured,
    emerging_recall,
    false_retention,
    jsd,
    log_loss,
    mean_log_loss,
    ndcg_at,
    noise_jsd,
    realized_drift,
    recall_at,
    resampled_means,
    skill,
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


def test_a_list_shorter_than_k_is_scored_by_its_items() -> None:
    assert ndcg_at(10, np.array([1]), np.array([1])) == 1.0


def test_rankings_with_nothing_relevant_are_nan() -> None:
    assert np.isnan(ndcg_at(5, np.array([1]), np.array([], dtype=int)))
    assert np.isnan(recall_at(5, np.array([1]), np.array([], dtype=int)))


def test_coverage_of_what_was_drawn_from_the_forecast_is_the_level() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(12, 2.0), size=3_000)
    n_events = rng.integers(1, 60, size=3_000)
    shares = np.stack([rng.dirichlet(30 * row) for row in np.maximum(weights, 1e-9)])
    counts = rng.multinomial(n_events, shares).astype(float)
    for level in (0.5, 0.8, 0.9):
        found = coverage(weights, np.full(3_000, 30.0), counts, n_events.astype(float), level)
        assert found.mean() == pytest.approx(level, abs=0.015)


def test_coverage_by_hand() -> None:
    # Of one event P(0) = P(1) = 1/2: each count spans a half of [0, 1], and 0.4 of 0.5 are inside.
    weights, concentration = np.array([[0.5, 0.5]]), np.array([2.0])
    found = coverage(weights, concentration, np.array([[1.0, 0.0]]), np.ones(1), 0.8)
    assert found[0] == pytest.approx(0.8)
    # Of two events Beta(1, 1) gives each count 1/3: the middle one is inside.
    found = coverage(weights, concentration, np.array([[1.0, 1.0]]), np.full(1, 2.0), 0.5)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(coverage(weights, concentration, np.zeros((1, 2)), np.zeros(1), 0.5)[0])


def test_brier_by_hand() -> None:
    # Events a, a, b against (.5, .25, .25): means of (.5-1)^2 + 2 * .25^2 and .5^2 + .75^2 + .25^2.
    found = brier(np.array([[0.5, 0.25, 0.25]]), np.array([[2.0, 1.0, 0.0]]))
    assert found[0] == pytest.approx((2 * 0.375 + 0.875) / 3)


def test_brier_is_proper() -> None:
    truth = np.array([[0.6, 0.3, 0.1]])
    other = np.array([[0.5, 0.4, 0.1]])
    assert brier(truth, 100 * truth)[0] < brier(other, 100 * truth)[0]


def test_the_noise_of_few_events_is_the_jsd_of_a_true_forecast() -> None:
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.full(8, 1.0), size=800)
    targets = np.stack([rng.multinomial(15, row) for row in weights]).astype(float)
    found = noise_jsd(weights, targets)
    assert found.mean() == pytest.approx(jsd(weights, targets).mean(), rel=0.05)
    assert np.isnan(noise_jsd(weights[:1], np.zeros((1, 8)))[0])
    assert noise_jsd(weights, 100 * targets).mean() < found.mean() / 10


def test_emerging_recall_by_hand() -> None:
    past = np.array([[5.0, 0, 0, 0], [1, 1, 1, 1]])
    targets = np.array([[1.0, 2, 0, 1], [1, 0, 0, 0]])
    weights = np.array([[0.7, 0.15, 0.1, 0.05], [0.25, 0.25, 0.25, 0.25]])
    found = emerging_recall(weights, past, targets, k=1)
    assert found[0] == pytest.approx(0.5)  # of the new 1 and 3, only 1 is the likeliest
    assert np.isnan(found[1])


def test_false_retention_by_hand() -> None:
    past = np.array([[6.0, 3, 1], [2, 2, 0]])
    targets = np.array([[4.0, 0, 0], [1, 1, 0]])
    weights = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]])
    found = false_retention(weights, past, targets)
    assert found[0] == pytest.approx((0.2 + 0.1) / (0.3 + 0.1))
    assert np.isnan(found[1])


def test_drift_is_the_jsd_of_past_and_target() -> None:
    found = realized_drift(
        np.array([[2.0, 2], [1, 0], [0, 0]]), np.array([[5.0, 5], [0, 3], [1, 0]])
    )
    np.testing.assert_allclose(found[:2], [0, 1])
    assert np.isnan(found[2])


def test_calibration_by_hand() -> None:
    # Two users, two bins: the cells of .2 hold less than half of the mass, those of .8 the rest.
    weights = np.array([[0.2, 0.8], [0.8, 0.2]])
    forecast, observed, cells = calibration_bins(weights, np.array([[1.0, 1], [1, 0]]), n_bins=2)
    np.testing.assert_allclose(cells, [2, 2])
    np.testing.assert_allclose(forecast, [0.2, 0.8])
    np.testing.assert_allclose(observed, [0.25, 0.75])
    error = calibration_error(forecast, observed, cells)
    assert error == pytest.approx((abs(0.4 - 0.5) + abs(1.6 - 1.5)) / 2)


def test_what_was_drawn_from_the_forecast_is_calibrated_and_the_reverse_is_not() -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.full(10, 0.5), size=3_000)
    targets = np.stack([rng.multinomial(20, row) for row in weights]).astype(float)
    assert calibration_error(*calibration_bins(weights, targets)) < 0.03
    sharper = weights**2 / (weights**2).sum(axis=1, keepdims=True)
    assert calibration_error(*calibration_bins(sharper, targets)) > 0.2


def test_skill_and_captured_drift_by_hand() -> None:
    assert skill(np.array(3.0), np.array(4.0)) == pytest.approx(0.25)
    assert np.isnan(skill(np.array(3.0), np.array(0.0)))
    assert drift_captured(np.array([1.0]), np.array([4.0]))[0] == pytest.approx(0.25)
    assert np.isnan(drift_captured(np.array([1.0]), np.array([0.0]))[0])


def test_resampled_means_are_paired() -> None:
    values = np.random.default_rng(4).normal(size=(200, 1))
    means = resampled_means(np.concatenate((values, values + 1), axis=1), draws=50)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 1.0)


def test_more_draws_go_on_where_fewer_stopped() -> None:
    values = np.random.default_rng(4).normal(size=(30, 2))
    np.testing.assert_array_equal(resampled_means(values, 150)[:70], resampled_means(values, 70))


def test_resampled_means_leave_unknown_values_out() -> None:
    means = resampled_means(np.array([[1.0, np.nan], [1.0, 2.0], [1.0, np.nan]]), draws=50)
    assert (means[:, 0] == 1).all()
    assert set(np.unique(means[~np.isnan(means[:, 1]), 1])) == {2.0}


def test_ranking_metrics_are_those_of_ir_measures() -> None:
    ir_measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(5)
    for _ in range(50):
        ranked = rng.permutation(60)[: rng.integers(1, 40)]
        relevant = rng.choice(60, size=rng.integers(1, 25), replace=False)
        qrels = {"u": {str(item): 1 for item in relevant}}
        run = {"u": {str(item): float(-rank) for rank, item in enumerate(ranked)}}
        measures = [ir_measures.nDCG @ 10, ir_measures.R @ 10]
        found = ir_measures.calc_aggregate(measures, qrels, run)
        assert ndcg_at(10, ranked, relevant) == pytest.approx(found[measures[0]], abs=1e-9)
        assert recall_at(10, ranked, relevant) == pytest.approx(found[measures[1]], abs=1e-9)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, size=900)
    mean, low, high = bootstrap_interval(values)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 30, rel=0.15)
    assert all(np.isnan(bootstrap_interval(np.array([np.nan]))))


def test_the_mean_log_loss_is_the_mean_of_losses_and_keeps_single_precision() -> None:
    rng = np.random.default_rng(0)
    weights, targets = rng.dirichlet(np.ones(4), size=6), rng.poisson(3.0, (6, 4)) + np.eye(6, 4)
    assert mean_log_loss(weights, targets) == pytest.approx(log_loss(weights, targets).mean())
    empty = np.concatenate((targets, np.zeros((6, 4))))
    assert mean_log_loss(np.tile(weights, (2, 1)), empty) == pytest.approx(
        mean_log_loss(weights, targets) / 2
    )
    single = mean_log_loss(weights.astype(np.float32), targets.astype(np.float32))
    assert single == np.float32(single)
