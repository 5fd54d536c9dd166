from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmrec.beta_binomial import (
    cdf,
    count_interval,
    fit_log_concentration,
    log_none,
    log_pmf,
    mean_none,
    share_of_interval,
)
from llmrec.forecast import Forecast, Source

sizes = st.floats(1e-6, 1e4)


@given(st.integers(-2, 320), st.integers(0, 300), sizes, sizes)
def test_probabilities_are_those_of_scipy(k: int, n: int, a: float, b: float) -> None:
    assert cdf(k, n, a, b) == pytest.approx(stats.betabinom.cdf(k, n, a, b), abs=1e-8)
    one = np.array([float(n)]), np.array([a]), np.array([b])
    assert log_none(*one)[0] == pytest.approx(stats.betabinom.logpmf(0, n, a, b), abs=1e-6)
    if 0 <= k <= n:
        found = log_pmf(np.array([float(k)]), *one)[0]
        assert found == pytest.approx(stats.betabinom.logpmf(k, n, a, b), rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=12), sizes, sizes)
def test_the_mean_over_numbers_is_that_of_each_alone(
    numbers: list[int], a: float, b: float
) -> None:
    n = np.sort(np.array([numbers], dtype=np.float64))
    each = np.exp(log_none(n[0], np.array([a]), np.array([b])))
    assert mean_none(n, np.array([a]), np.array([b])) == pytest.approx(each.mean(), rel=1e-12)


def test_a_tail_that_starts_from_nothing_is_still_summed() -> None:
    # P(K = 0) is 0 in double precision.
    assert cdf(900, 1_000, 9e4, 1e4) == pytest.approx(stats.betabinom.cdf(900, 1_000, 9e4, 1e4))


@given(st.integers(0, 80), sizes, sizes, st.floats(0.1, 0.95))
def test_an_interval_says_its_own_probability(n: int, a: float, b: float, level: float) -> None:
    low, high, probability = count_interval(n, a, b, level)
    assert 0 <= low <= high <= n
    held = stats.betabinom.cdf(high, n, a, b) - stats.betabinom.cdf(low - 1, n, a, b)
    assert probability == pytest.approx(held, abs=1e-8)


def test_a_forecast_gives_whole_numbers_with_their_probability() -> None:
    forecast = Forecast(np.array([0.3, 0.7]), 10.0, "", (), Source("by hand", "counting"))
    low, high, probability = forecast.count_interval(0, 12)
    assert (low, high) == (1, 6)
    assert probability == pytest.approx(
        stats.betabinom.cdf(6, 12, 3, 7) - stats.betabinom.cdf(0, 12, 3, 7)
    )
    assert forecast.count_interval(0, 0) == (0, 0, 1.0)
    twice = forecast.count_interval(0, 12, events_per_share=2.0)
    assert twice.low > low


def test_an_observed_count_lies_in_its_interval_as_often_as_the_level_says() -> None:
    n, a, b = 7, 0.8, 2.5
    counts = np.arange(n + 1.0)
    mass = stats.betabinom.pmf(counts, n, a, b)
    for level in (0.2, 0.5, 0.8, 0.95):
        inside = share_of_interval(counts, np.full(n + 1, 7.0), np.array(a), np.array(b), level)
        assert (mass * inside).sum() == pytest.approx(level)


def test_the_concentration_and_its_slope_are_found_again() -> None:
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(20_000, 1)), rng.uniform(0.02, 0.5, 20_000)
    alpha = np.exp(3 + 0.7 * x[:, 0])
    n = rng.integers(5, 60, 20_000)
    k = rng.binomial(n, rng.beta(alpha * q, alpha * (1 - q))).astype(float)
    found = fit_log_concentration(x, q, k, n.astype(float))
    np.testing.assert_allclose(found, [3, 0.7], atol=0.05)


def test_without_cells_the_concentration_is_the_priors() -> None:
    nothing = np.empty(0)
    found = fit_log_concentration(np.empty((0, 2)), nothing, nothing, nothing)
    np.testing.assert_allclose(found, [4, 0, 0])
