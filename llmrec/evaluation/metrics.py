"""Scores of forecasts and of rankings, one value a user; undefined is NaN, zero is 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.contracts import FloatArray, Forecast, IntArray


def log_loss(category_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) nats per event: -sum_c share_c log q_c, with share the target's category shares.

    ``category_weights`` (n, n_categories) rows sum to 1; ``targets`` (n, n_categories) are
    counts. A target without events is NaN; a taken category of weight 0 is infinite.
    """
    shares = _shares(targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(category_weights), 0.0)
    return np.where(np.isnan(shares).any(axis=1), np.nan, -terms.sum(axis=1))


def jsd(category_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) Jensen-Shannon divergence in bits, 0..1 (Lin 1991, eq. 4.1, equal weights)."""
    shares = _shares(targets)
    middle = (category_weights + shares) / 2

    def divergence(p: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=1))

    result = (divergence(category_weights) + divergence(shares)) / 2
    return np.where(np.isnan(shares).any(axis=1), np.nan, result)


def coverage(forecasts: Sequence[Forecast], targets: FloatArray, level: float) -> FloatArray:
    """(n,) how often the observed share of a category lies in its central interval.

    Counted over the ten heaviest categories of each forecast; NaN where nothing was observed. A
    share of n events is known to half an event, so it may lie 1 / 2n outside.
    """
    shares = _shares(targets)
    result = np.full(len(forecasts), np.nan)
    for row, forecast in enumerate(forecasts):
        if not np.isnan(shares[row]).any():
            top = forecast.top(10)
            low, high = forecast.intervals(level)[top].T
            half = 0.5 / targets[row].sum()
            inside = (low - half <= shares[row, top]) & (shares[row, top] <= high + half)
            result[row] = inside.mean()
    return result


def ndcg_at(k: int, ranked: IntArray, relevant: IntArray) -> float:
    """Binary NDCG@k of one list (Jarvelin and Kekalainen 2002): gains 1 / log2(rank + 1).

    NaN if nothing is relevant.
    """
    wanted = np.unique(relevant)
    if not len(wanted):
        return float("nan")
    gains = 1 / np.log2(np.arange(2, k + 2))
    hits = np.isin(ranked[:k], wanted)
    return float((hits * gains[: len(hits)]).sum() / gains[: len(wanted)].sum())


def recall_at(k: int, ranked: IntArray, relevant: IntArray) -> float:
    """Give the share of the relevant items among the first k; NaN if nothing is relevant."""
    wanted = np.unique(relevant)
    return float(np.isin(ranked[:k], wanted).sum() / len(wanted)) if len(wanted) else float("nan")


def bootstrap_interval(
    values: FloatArray, *, level: float = 0.95, draws: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of per-user values and its percentile bootstrap interval over users.

    For a paired comparison give the users' differences. NaN users are left out; all NaN gives NaN.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    n = len(values)
    means = np.array([values[rng.integers(n, size=n)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def _shares(targets: FloatArray) -> FloatArray:
    totals = targets.sum(axis=1, keepdims=True)
    shares: FloatArray = np.full_like(targets, np.nan, dtype=np.float64)
    np.divide(targets, totals, out=shares, where=totals > 0)
    return shares
