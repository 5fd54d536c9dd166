from __future__ import annotations

import numpy as np
from scipy import special

from llmrec.forecasters.linear_predictor import LinearPredictor, fit_logistic


def test_a_logistic_finds_its_coefficients_again() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, size=(20_000, 1))
    y = rng.random(20_000) < special.expit(-1 + 0.5 * x[:, 0])
    fitted = fit_logistic(x, y)
    inside = np.linspace(-3, 7, 9)
    np.testing.assert_allclose(fitted.predict([inside]), -1 + 0.5 * inside, atol=0.15)


def test_a_feature_that_was_constant_has_no_part_whatever_comes_later() -> None:
    rng = np.random.default_rng(0)
    x = np.stack((rng.normal(size=200), np.full(200, 3.0)), axis=1)
    fitted = fit_logistic(x, x[:, 0] > 0)
    zeros = np.zeros(1)
    assert fitted.predict([zeros, np.array([1e9])]) == fitted.predict([zeros, np.array([3.0])])


def test_a_feature_further_out_than_in_the_fit_counts_as_the_outermost() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1))
    fitted = fit_logistic(x, x[:, 0] > 0)
    assert fitted.predict([np.array([1e9])]) == fitted.predict([x.max(axis=0)])


def test_a_constant_outcome_has_a_finite_logit() -> None:
    fitted = fit_logistic(np.random.default_rng(0).normal(size=(50, 2)), np.ones(50, dtype=bool))
    assert np.isfinite(fitted.coefficients).all()


def test_slopes_that_may_not_fall_do_not() -> None:
    x = np.random.default_rng(0).normal(size=(300, 1))
    assert fit_logistic(x, x[:, 0] < 0, rising=True).coefficients[1] == 0


def test_nothing_to_fit_on_gives_a_predictor_of_zero() -> None:
    fitted = LinearPredictor.fit(np.empty((0, 2)), lambda x: np.zeros(3))
    assert fitted.predict([np.ones(4), np.ones(4)]).tolist() == [0, 0, 0, 0]
