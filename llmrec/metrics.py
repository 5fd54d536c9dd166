"""Metrics of forecasts and rankings, one value a user (NaN: undefined), and bootstrap intervals."""

from __future__ import annotations

import numpy as np

from llmrec.beta_binomial import MAX_SHARE, MIN_SHARE, share_of_interval
from llmrec.types import BoolArray, FloatArray, IntArray

DRAWS_PER_BATCH = 64  # bootstrap draws that are counted together


def log_loss(category_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) nats per event: -sum_c share_c log q_c, with share the target's category shares.

    ``category_weights`` (n, n_categories) rows sum to 1; ``targets`` (n, n_categories) are
    counts. A target without events is NaN; a taken category of weight 0 is infinite.
    """
    shares = _shares(targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(category_weights), 0.0)
    return np.where(np.isnan(shares).any(axis=1), np.nan, -terms.sum(axis=1))


def mean_log_loss(category_weights: FloatArray, targets: FloatArray) -> float:
    """Mean log-loss per event of positive (n, n_categories) weights, to choose among fits.

    A target (of counts) without events adds 0; `log_loss` is NaN there. Arrays of single precision
    stay so.
    """
    totals = targets.sum(axis=1, keepdims=True)
    shares = targets / np.where(totals > 0, totals, 1.0)
    return float(-(shares * np.log(category_weights)).sum(axis=1).mean())


def jsd(category_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) Jensen-Shannon divergence in bits, 0..1 (Lin 1991, eq. 4.1, equal weights)."""
    shares = _shares(targets)
    middle = (category_weights + shares) / 2

    def divergence(p: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=1))

    result = (divergence(category_weights) + divergence(shares)) / 2
    return np.where(np.isnan(shares).any(axis=1), np.nan, result)


def brier(category_weights: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) quadratic score per event, 0..2: 1 - 2 sum_c share_c q_c + sum_c q_c^2 (Brier 1950).

    That is the mean over the target's events of sum_c (q_c - [c is taken])^2; an event of several
    categories stands for as many, each in part.
    """
    q = category_weights
    return np.asarray(1 - 2 * (_shares(targets) * q).sum(axis=1) + (q**2).sum(axis=1))


def coverage(
    event_shares: FloatArray,
    concentration: FloatArray,
    counts: FloatArray,
    n_events: FloatArray,
    level: float,
) -> FloatArray:
    """(n,) how often the observed number of a category's events lies in its central interval.

    Of n events BetaBinomial(n, k q, k (1 - q)) have the category. A count that an edge of the
    interval falls into counts in part, see `share_of_interval`. Mean over each forecast's ten
    largest categories; NaN where nothing was observed.

    Parameters
    ----------
    event_shares
        (n, n_categories) expected shares q of events that have a category: the forecast weights,
        times `events_per_share` where items have several categories.
    concentration
        (n,) concentrations k of the forecasts.
    counts, n_events
        (n, n_categories) events that have a category, and (n,) all of them.
    level
        Probability inside the interval, in (0, 1).
    """
    top = np.argsort(-event_shares, axis=1, kind="stable")[:, :10]
    q = np.clip(np.take_along_axis(event_shares, top, axis=1), MIN_SHARE, MAX_SHARE)
    found = np.take_along_axis(counts, top, axis=1)
    a, b = concentration[:, None] * q, concentration[:, None] * (1 - q)
    covered = share_of_interval(found, np.maximum(n_events, 1)[:, None], a, b, level)
    return np.where(n_events > 0, covered.mean(axis=1), np.nan)


def noise_jsd(
    category_weights: FloatArray, targets: FloatArray, *, draws: int = 5, seed: int = 0
) -> FloatArray:
    """(n,) divergence that a true forecast would have by chance: E JSD(q, counts / n).

    Counts are multinomial(n, q), n the target's events (rounded, 1 at least), by simulation.
    """
    rng = np.random.default_rng(seed)
    n = np.maximum(np.rint(targets.sum(axis=1)), 1).astype(np.int64)
    q = category_weights / category_weights.sum(axis=1, keepdims=True)
    divergences = [jsd(q, rng.multinomial(n, q).astype(np.float64)) for _ in range(draws)]
    return np.where(targets.sum(axis=1) > 0, np.mean(divergences, axis=0), np.nan)


def emerging_recall(
    category_weights: FloatArray, past: FloatArray, targets: FloatArray, k: int = 10
) -> FloatArray:
    """(n,) of the categories taken now and never before, the share among the k likeliest new ones.

    ``past`` are (n, n_categories) counts of the whole history. NaN where nothing emerged.
    """
    new = np.where(past > 0, -1.0, category_weights)
    rank = np.argsort(np.argsort(-new, axis=1, kind="stable"), axis=1, kind="stable")
    emerged = (targets > 0) & (past == 0)
    recalled = (emerged & (rank < k)).sum(axis=1)
    return _ratio(recalled, emerged.sum(axis=1))


def false_retention(
    category_weights: FloatArray, past: FloatArray, targets: FloatArray, k: int = 10
) -> FloatArray:
    """(n,) forecast weight of faded interests / their share of the past.

    Faded are those of the k heaviest categories of the past that the target does not hold. 1: the
    forecast retains them all, 0: none of them, NaN: none faded.
    """
    shares = _shares(past)
    top = np.argsort(np.argsort(-past, axis=1, kind="stable"), axis=1, kind="stable") < k
    faded = top & (past > 0) & (targets == 0) & (targets.sum(axis=1, keepdims=True) > 0)
    retained = np.where(faded, category_weights, 0.0).sum(axis=1)
    return _ratio(retained, np.where(faded, shares, 0.0).sum(axis=1))


def realized_drift(past: FloatArray, targets: FloatArray) -> FloatArray:
    """(n,) JSD between the mix of the whole history and the target's; NaN if one is empty."""
    return jsd(_shares(past), targets)


def calibration_bins(
    category_weights: FloatArray, targets: FloatArray, n_bins: int = 15
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compare forecast and observed shares over all cells (user, category).

    Returns
    -------
    forecast, observed, cells
        (n_bins,) mean forecast weight, mean observed share, and number of cells, in bins of equal
        forecast weight in total, the smallest weights first. Users without a target are left out.
    """
    shares = _shares(targets)
    known = ~np.isnan(shares).any(axis=1)
    q, observed = category_weights[known].ravel(), shares[known].ravel()
    order = np.argsort(q, kind="stable")
    mass = np.cumsum(q[order])
    bins = np.minimum((mass / mass[-1:] * n_bins).astype(np.int64), n_bins - 1)
    cells = np.bincount(bins, minlength=n_bins).astype(np.float64)
    forecast = np.bincount(bins, q[order], n_bins)
    taken = np.bincount(bins, observed[order], n_bins)
    return _ratio(forecast, cells), _ratio(taken, cells), cells


def calibration_error(forecast: FloatArray, observed: FloatArray, cells: FloatArray) -> float:
    """Sum the |forecast - observed| mass of bins a user: expected calibration error, 0..2.

    The arguments are what `calibration_bins` returns; the mass of all forecasts is the number of
    users.
    """
    total = np.nansum(forecast * cells)
    return float(np.nansum(np.abs(forecast - observed) * cells) / total)


def skill(loss: FloatArray, persistence: FloatArray) -> FloatArray:
    """1 - L / L(persistence), of mean losses over the same users (any shape).

    NaN where the loss of persistence is 0.
    """
    return np.asarray(1 - _ratio(loss, persistence))


def drift_captured(captured: FloatArray, whole: FloatArray) -> FloatArray:
    """Drift captured: (L(persistence) - L) / (L(persistence) - L(informed)), of two mean gains.

    NaN where the informed reference is no better than persistence.
    """
    return _ratio(captured, whole)


def ndcg_at(k: int, ranked: IntArray, relevant: IntArray) -> float:
    """Binary NDCG@k of one list (Jarvelin and Kekalainen 2002): gains 1 / log2(rank + 1).

    NaN if nothing is relevant.
    """
    items = np.unique(relevant)
    if not len(items):
        return float("nan")
    gains = 1 / np.log2(np.arange(2, k + 2))
    hits = _is_among(ranked[:k], items)
    return float((hits * gains[: len(hits)]).sum() / gains[: len(items)].sum())


def expected_random_ndcg(k: int, n_relevant: int, n_items: int) -> float:
    """Give the expected NDCG@k of n_items in random order, n_relevant of them relevant."""
    discounts = 1 / np.log2(np.arange(2, min(k, n_items) + 2))
    ideal = discounts[: min(n_relevant, len(discounts))].sum()
    return float(n_relevant / n_items * discounts.sum() / ideal)


def recall_at(k: int, ranked: IntArray, relevant: IntArray) -> float:
    """Give the share of the relevant items among the first k; NaN if nothing is relevant."""
    items = np.unique(relevant)
    return float(_is_among(ranked[:k], items).sum() / len(items)) if len(items) else float("nan")


def _is_among(found: IntArray, items: IntArray) -> BoolArray:
    """(n,) which of some items are among others, sorted and at least one: a fast `np.isin`."""
    at = np.minimum(np.searchsorted(items, found), len(items) - 1)
    return np.asarray(items[at] == found)


def resampled_means(values: FloatArray, draws: int = 2_000, seed: int = 0) -> FloatArray:
    """(draws, n_columns) means of (n_users, n_columns) values over users drawn with replacement.

    Every draw is of the same users for all columns, so differences and ratios of the means are
    paired. NaN values are left out of their column's means.
    """
    rng, n = np.random.default_rng(seed), len(values)
    known = ~np.isnan(values)
    columns = np.concatenate((np.where(known, values, 0.0), known), axis=1)
    sums = []
    for start in range(0, draws, DRAWS_PER_BATCH):  # memory does not grow with the draws
        size = min(DRAWS_PER_BATCH, draws - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums.append(times.astype(np.float64) @ columns)
    above, below = np.split(np.concatenate(sums), 2, axis=1)
    return _ratio(above, below)


def bootstrap_interval(
    values: FloatArray, *, level: float = 0.95, draws: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of per-user values and its percentile bootstrap interval over users.

    For a paired comparison give the users' differences. NaN users are left out; all NaN gives NaN.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    means = resampled_means(values[:, None], draws, seed)
    return float(values.mean()), *percentile_interval(means, level)


def percentile_interval(draws: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Central percentile interval of bootstrap draws; unknown ones (NaN) are left out."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(above: FloatArray | IntArray, below: FloatArray | IntArray) -> FloatArray:
    """Divide; NaN where there is nothing to divide by."""
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1), np.nan))


def _shares(targets: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum; rows of 0 become NaN."""
    totals = targets.sum(axis=1, keepdims=True)
    shares: FloatArray = np.full_like(targets, np.nan, dtype=np.float64)
    np.divide(targets, totals, out=shares, where=totals > 0)
    return shares
