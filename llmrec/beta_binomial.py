"""The beta-binomial distribution: how many of n events have a category whose share is not known.

K of n events have it, and its share behind them is Beta(a, b) with a = concentration * w and
b = concentration * (1 - w), w the forecast share (Johnson, Kemp and Kotz 2005, chapter 6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from llmrec.types import FloatArray

MIN_SHARE, MAX_SHARE = 1e-9, 0.97  # of events that have a category, as far as it is forecast
MIN_CONCENTRATION, MAX_CONCENTRATION = 0.05, 1e5
PRIOR_LOG_CONCENTRATION, PRIOR_DEVIATION = 4.0, 2.0  # of the constant: it counts as one cell does
CELLS_PER_BATCH = 2**13  # of which a mean is taken at a time
NEGLIGIBLE = 1e-17  # a term of a sum that is less, relative to the sum so far


class CountInterval(NamedTuple):
    """Whole numbers from low to high, and the probability that the count is one of them."""

    low: int
    high: int
    probability: float


def log_pmf(k: FloatArray, n: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Log P(K = k) for 0 <= k <= n; arrays of any shapes that broadcast."""
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.asarray(ways + special.betaln(k + a, n - k + b) - special.betaln(a, b))


def log_none(n: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Log P(K = 0); arrays of any shapes that broadcast."""
    return np.asarray(special.betaln(a, n + b) - special.betaln(a, b))


def mean_none(numbers: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """(n_cells,) mean of P(K = 0) over several n.

    Parameters
    ----------
    numbers
        (n_cells, n_numbers) n, ascending: of equal ones, which follow each other, the probability
        is computed once.
    a, b
        (n_cells,) parameters.
    """
    mean, n_numbers = np.empty(len(a)), numbers.shape[1]
    for start in range(0, len(a), CELLS_PER_BATCH):
        rows = slice(start, start + CELLS_PER_BATCH)
        first, second, n = a[rows], b[rows], numbers[rows]
        found, total = np.empty(len(n)), np.zeros(len(n))
        for nth in range(n_numbers):
            new = np.flatnonzero(n[:, nth] != n[:, nth - 1]) if nth else np.arange(len(n))
            found[new] = np.exp(log_none(n[new, nth], first[new], second[new])) / n_numbers
            total += found
        mean[rows] = total
    return mean


def cdf(k: ArrayLike, n: ArrayLike, a: ArrayLike, b: ArrayLike) -> FloatArray:
    """P(K <= k) for whole numbers k, below 0 and above n too; arrays of shapes that broadcast.

    The shorter tail is summed: P(K <= k) = 1 - P(n - K <= n - k - 1).
    """
    arrays = (np.asarray(one, dtype=np.float64) for one in (k, n, a, b))
    count, of, first, second = np.broadcast_arrays(*arrays)
    is_upper = count * (first + second) > of * first
    own, other = np.where(is_upper, second, first), np.where(is_upper, first, second)
    least = np.where(is_upper, of - count - 1, count)
    tail, inside = np.zeros(least.shape), least >= 0
    tail[inside] = _lower_tail(least[inside], of[inside], own[inside], other[inside])
    return np.asarray(np.clip(np.where(is_upper, 1 - tail, tail), 0, 1))


def _lower_tail(k: FloatArray, n: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """(n_cells,) P(K <= k), 0 <= k <= n, summed from the term of k down to that of 0."""
    term = np.exp(log_pmf(k, n, a, b))
    total, cells = term.copy(), np.arange(len(k))
    while len(cells):
        kept = (k > 0) & (term > NEGLIGIBLE * total[cells])
        cells = cells[kept]
        k, n, a, b, term = (one[kept] for one in (k, n, a, b, term))
        term = term * k * (n - k + b) / ((n - k + 1) * (k - 1 + a))
        k = k - 1
        total[cells] += term
    return total


def share_of_interval(
    k: FloatArray, n: FloatArray, a: FloatArray, b: FloatArray, level: float
) -> FloatArray:
    """How much of an observed count lies in its central interval, 0..1; of broadcast shape.

    The count k has the mass from P(K < k) to P(K <= k); counted is the part of it inside
    [(1 - level) / 2, (1 + level) / 2], so that an edge within a count is none of rounding (the
    non-randomised probability integral transform of Czado, Gneiting and Held 2009).
    """
    below, above = cdf(k - 1, n, a, b), cdf(k, n, a, b)
    inside = np.minimum(above, (1 + level) / 2) - np.maximum(below, (1 - level) / 2)
    # Far out in a tail a count has no mass: it is outside.
    covered = np.clip(inside, 0, None) / np.maximum(above - below, 1e-12)
    return np.asarray(np.minimum(covered, 1.0))


def count_interval(n: int, a: float, b: float, level: float) -> CountInterval:
    """Give the interval of whole numbers whose probability is nearest to a level.

    It is the central one, or without one of its ends, or without both.
    """
    counts = np.arange(n + 1.0)
    total = cdf(counts, n, a, b)
    low, high = (int((total < edge - 1e-12).sum()) for edge in ((1 - level) / 2, (1 + level) / 2))
    high = min(high, n)
    padded = np.concatenate(([0.0], total))
    ends = [(low, high), (low + 1, high), (low, high - 1), (low + 1, high - 1)]
    found = [CountInterval(i, j, float(padded[j + 1] - padded[i])) for i, j in ends if i <= j]
    return min(found, key=lambda one: abs(one.probability - level))


def fit_log_concentration(
    features: FloatArray,
    shares: FloatArray,
    counts: FloatArray,
    n_events: FloatArray,
    shrinkage: float = 1e-4,
) -> FloatArray:
    """Fit log concentration = constant + features @ slopes by maximum likelihood.

    Parameters
    ----------
    features
        (n_cells, n_features), a column of zeros gets the slope 0.
    shares, counts, n_events
        (n_cells,) forecast shares, and what was then seen: ``counts`` of ``n_events``.
    shrinkage
        Of the squared slopes, per mean log-likelihood.

    Returns
    -------
    FloatArray
        (1 + n_features,) the constant and the slopes. Without cells it is the prior's.
    """
    x = np.concatenate((np.ones((len(features), 1)), features), axis=1)
    start = np.zeros(x.shape[1])
    start[0] = PRIOR_LOG_CONCENTRATION
    k, n, q = counts, n_events, shares
    size = max(1, len(x))
    low, high = np.log(MIN_CONCENTRATION), np.log(MAX_CONCENTRATION)

    def loss(found: FloatArray) -> tuple[float, FloatArray]:
        logs = x @ found
        alpha = np.exp(np.clip(logs, low, high))
        a, b = alpha * q, alpha * (1 - q)
        by_alpha = (
            q * (special.digamma(k + a) - special.digamma(a))
            + (1 - q) * (special.digamma(n - k + b) - special.digamma(b))
            - special.digamma(n + alpha)
            + special.digamma(alpha)
        )
        slope = np.where((logs > low) & (logs < high), alpha * by_alpha, 0.0)
        away = np.concatenate(([(found[0] - start[0]) / PRIOR_DEVIATION], found[1:]))
        weight = np.concatenate(([1 / (2 * size)], np.full(len(found) - 1, shrinkage)))
        inner = np.concatenate(([1 / PRIOR_DEVIATION], np.ones(len(found) - 1)))
        value = -log_pmf(k, n, a, b).sum() / size + (weight * away**2).sum()
        return float(value), -(x.T @ slope) / size + 2 * weight * away * inner

    return np.asarray(optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x)


def clip_concentration(log_concentration: FloatArray) -> FloatArray:
    """Give concentrations of their logarithms, within what can be told from counts."""
    bounds = np.log(MIN_CONCENTRATION), np.log(MAX_CONCENTRATION)
    return np.asarray(np.exp(np.clip(log_concentration, *bounds)))
