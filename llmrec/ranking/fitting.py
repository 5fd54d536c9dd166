"""A blend's weights and the strength of its tilt, fitted on validation windows by list metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.errors import DataError
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.metrics import bootstrap_interval, ndcg_at, recall_at
from llmrec.ranking.blend import Blend, PrecomputedScorer, fit_blend, rankable_items
from llmrec.ranking.ranking import Ranking, rank
from llmrec.ranking.registry import (
    POPULARITY_BLEND,
    build_scorer,
    default_scorers,
    registered_name,
)
from llmrec.types import FloatArray, IntArray, RepeatPolicy

STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)
MAX_NDCG_LOSS = 0.01  # share of the NDCG that the tilt may cost, since edits act through it
# Steps of a weight: times a factor, or plus a share of the sum of all weights.
WEIGHT_FACTORS, WEIGHT_STEP = (0.0, 0.5, 0.8, 1.25, 2.0), 0.1
MAX_PASSES, MIN_GAIN = 3, 2e-4
# Scorers x windows x items. While the blend is fitted each is in memory twice, in float64, beside
# temporary arrays: 24 bytes each for five scorers (tracemalloc), 3.6 GB in all.
MAX_FITTED_SCORES = 150_000_000


def evaluate_rankings(
    rankings: Mapping[str, Sequence[Ranking]],
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
) -> pd.DataFrame:
    """Evaluate rankings of the full catalog by NDCG@k and Recall@k of the target's items.

    For "ndcg@k repeat" and "ndcg@k explore" (and recall alike) only items in the history are
    relevant, and only items not in it. With ``repeat="exclude"`` only the latter are ranked. A user
    without a relevant item is NaN and left out of n.
    """
    rows = []
    for name, per_user in rankings.items():
        for kind in ("explore",) if repeat == "exclude" else ("", "repeat", "explore"):
            relevant = [_relevant_items(window, kind) for window in windows]
            label = "" if repeat == "exclude" or not kind else f" {kind}"
            for metric, score in (("ndcg", ndcg_at), ("recall", recall_at)):
                values = np.array(
                    [
                        score(k, ranking.item_idx, items)
                        for ranking, items in zip(per_user, relevant, strict=True)
                    ]
                )
                n = int(np.isfinite(values).sum())
                rows.append((name, f"{metric}@{k}{label}", *bootstrap_interval(values), n))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])


def fit_strength(
    forecaster: Forecaster,
    blend: Blend,
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
    tolerance: float = 0.0,
) -> float:
    """Find the strength of greatest NDCG@k on windows; the smallest of equals.

    With a ``tolerance`` the largest strength that loses no more than this share of it: edits act
    through the strength too. 0 where no list has a relevant item.
    """
    histories = [window.history for window in windows]
    forecasts = forecaster.forecast(histories)
    kind = "explore" if repeat == "exclude" else ""
    relevant = [_relevant_items(window, kind) for window in windows]
    found = []
    for strength in STRENGTHS:
        rankings = rank(forecasts, histories, blend, k=k, strength=strength, repeat=repeat)
        pairs = zip(rankings, relevant, strict=True)
        values = np.array([ndcg_at(k, ranking.item_idx, items) for ranking, items in pairs])
        found.append(values[~np.isnan(values)].mean() if np.isfinite(values).any() else 0.0)
    ndcg = np.array(found)
    if not ndcg.any():  # no list has a relevant item
        return STRENGTHS[0]
    if tolerance == 0:
        return STRENGTHS[int(ndcg.argmax())]
    return float(np.array(STRENGTHS)[ndcg >= (1 - tolerance) * ndcg.max()].max())


def tune_blend(
    blend: Blend, windows: Sequence[Window], *, repeat: RepeatPolicy = "allow", k: int = 10
) -> Blend:
    """Search a blend's weights, one by one, for a greater NDCG@k on validation windows.

    The most likely weights (`fit_blend`) need not rank best. From there, or from the one scorer
    that alone ranks better, each weight in turn takes the step (by `WEIGHT_FACTORS`, or up by
    `WEIGHT_STEP` of all weights) of greatest NDCG@k, in up to `MAX_PASSES` passes: a coordinate
    search, as the metric has no gradient. All scores are in memory in float32, twice while they are
    stacked: 8 * n_scorers * n_windows * n_items bytes, and one scorer's in float64.
    """
    histories = [window.history for window in windows]
    scores = np.stack([_float32_scores(scorer, histories) for scorer in blend.scorers])
    possible = np.stack([rankable_items(window.history, repeat) for window in windows])
    relevant = [np.unique(window.target.item_idx) for window in windows]
    relevant = [items[row[items]] for items, row in zip(relevant, possible, strict=True)]

    def ndcg_of(weights: FloatArray) -> float:
        blended = np.tensordot(weights.astype(np.float32), scores, 1)
        return _mean_ndcg(np.where(possible, blended, -np.inf), relevant, k)

    start = np.array(blend.weights, dtype=np.float64)
    weights = max((start, *np.diag(np.full(len(scores), start.sum()))), key=ndcg_of)
    best = ndcg_of(weights)
    for _ in range(MAX_PASSES):
        before = best
        for position in range(len(weights)):
            for value in _weight_steps(weights, position):
                tried = weights.copy()
                tried[position] = value
                if tried.any() and (found := ndcg_of(tried)) > best:
                    best, weights = found, tried
        if best - before < MIN_GAIN:
            break
    return Blend(blend.scorers, tuple(float(weight) for weight in weights))


def fit_ranking(
    dataset: Dataset,
    windows: Sequence[Window],
    forecaster: Forecaster,
    extra_scorers: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> tuple[dict[str, float], float]:
    """Fit the weights of a blend, and the strength of its tilt, on validation windows.

    The default scorers of the log are fitted on what precedes the windows' targets
    (`training_log_for`). Their weights are fitted by `fit_blend`, then by `tune_blend`.

    Parameters
    ----------
    windows
        A sample of them is used, of no more than `MAX_FITTED_SCORES` scores (37 windows with four
        scorers and a million items) and no fewer than `MIN_FIT_WINDOWS` windows: from 3,750,000
        items on, memory grows by 960 bytes an item.
    extra_scorers
        More scorers, by name; not fitted on the windows' targets.

    Returns
    -------
    blend, strength
        As `EngineSettings` stores them. Edits act through the strength, so it is never 0: it is the
        largest that costs no more than a hundredth of the NDCG@10, or .05 if even that costs more.
    """
    catalog, repeat = dataset.catalog, dataset.repeat
    names = default_scorers(dataset.period, catalog.n_items, repeat)
    each = (len(names) + len(extra_scorers)) * catalog.n_items
    windows = sample_windows(windows, max(MIN_FIT_WINDOWS, MAX_FITTED_SCORES // each))
    before, histories = training_log_for(windows), [window.history for window in windows]
    scorers = {name: build_scorer(name, before, catalog) for name in names} | dict(extra_scorers)
    stored = [PrecomputedScorer.of(scorer, histories) for scorer in scorers.values()]
    blend = tune_blend(fit_blend(stored, windows, repeat=repeat), windows, repeat=repeat)
    weights = {name: float(weight) for name, weight in zip(scorers, blend.weights, strict=True)}
    strength = fit_strength(forecaster, blend, windows, repeat=repeat, tolerance=MAX_NDCG_LOSS)
    return weights, max(strength, STRENGTHS[1])


def build_blend(
    dataset: Dataset,
    cutoff: np.datetime64,
    weights: Mapping[str, float],
    extra_scorers: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> Blend:
    """Build the scorers of non-zero weight, fitted on what precedes the cutoff.

    Where no weight is above 0 that is popularity alone. ``extra_scorers`` are built already, by
    name. DataError if a scorer is unknown and not among them.
    """
    used = {name: weight for name, weight in weights.items() if weight > 0} or POPULARITY_BLEND
    scorers = [
        extra_scorers[name]
        if name in extra_scorers
        else build_scorer(name, dataset.log, dataset.catalog, cutoff)
        for name in used
    ]
    return Blend(tuple(scorers), tuple(used.values()))


def registered_weights(blend: Blend) -> dict[str, float]:
    """Give the weights of a blend by the names that settings have for its scorers.

    Raises
    ------
    DataError
        If settings have no name for a scorer.
    """
    named = [registered_name(scorer) for scorer in blend.scorers]
    unnamed = [shown for shown, name in zip(blend.names, named, strict=True) if not name]
    if unnamed:
        raise DataError(
            f"the blend holds {', '.join(map(repr, unnamed))}, which settings have no name for "
            "and could not make again: take them out of engine.blend before saving."
        )
    return {name: w for name, w in zip(named, blend.weights, strict=True) if name}


def _relevant_items(window: Window, kind: str) -> IntArray:
    """Items of the target: all, those taken before ("repeat") or not before ("explore")."""
    items, seen = window.target.item_idx, window.history.item_idx
    if kind == "repeat":
        return np.intersect1d(items, seen)
    return np.setdiff1d(items, seen) if kind == "explore" else items


def _float32_scores(scorer: ItemScorer, histories: Sequence[History]) -> npt.NDArray[np.float32]:
    """(n_users, n_items) a scorer's checked scores in single precision."""
    return np.asarray(Blend((scorer,), (1.0,)).weighted_scores(histories)[0], dtype=np.float32)


def _weight_steps(weights: FloatArray, position: int) -> tuple[float, ...]:
    """Give the values to try next for one weight."""
    weight = weights[position]
    return (*(weight * factor for factor in WEIGHT_FACTORS), weight + WEIGHT_STEP * weights.sum())


def _mean_ndcg(scores: FloatArray, relevant: Sequence[IntArray], k: int) -> float:
    """Mean NDCG@k of (n_windows, n_items) scores, over the windows that have a relevant item."""
    k_most = min(k, scores.shape[1])
    top = np.argpartition(-scores, k_most - 1, axis=1)[:, :k_most]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    lists = np.take_along_axis(top, order, axis=1)
    found = [ndcg_at(k, row, items) for row, items in zip(lists, relevant, strict=True)]
    return float(np.nanmean(found))
