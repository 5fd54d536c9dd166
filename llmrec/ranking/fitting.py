"""Weights of a blend and strength of the tilt, fitted on validation windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows, training_log_for
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.metrics import bootstrap_interval, ndcg_at, recall_at
from llmrec.ranking.blend import Blend, PrecomputedScorer, fit_blend, rankable_items
from llmrec.ranking.ranking import Ranking, rank
from llmrec.ranking.registry import build_scorer, default_scorers
from llmrec.types import FloatArray, IntArray, RepeatPolicy


def evaluate_rankings(
    rankings: Mapping[str, Sequence[Ranking]],
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
) -> pd.DataFrame:
    """Judge rankings of the full catalog by NDCG@k and Recall@k of the target's items.

    "ndcg@k repeat" and "ndcg@k explore" (and recall alike) take as relevant only what the history
    holds, and only what it does not hold. With ``repeat="exclude"`` nothing else is relevant
    anyway. A user without a relevant item is NaN and left out of n.
    """
    rows = []
    for name, per_user in rankings.items():
        for kind in ("explore",) if repeat == "exclude" else ("", "repeat", "explore"):
            relevant = [_relevant(window, kind) for window in windows]
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


def _relevant(window: Window, kind: str) -> IntArray:
    """Items of the target: all, those taken before ("repeat") or not before ("explore")."""
    items, seen = window.target.item_idx, window.history.item_idx
    if kind == "repeat":
        return np.intersect1d(items, seen)
    return np.setdiff1d(items, seen) if kind == "explore" else items


STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)
WEIGHT_FACTORS, WEIGHT_STEP = (
    (0.0, 0.5, 0.8, 1.25, 2.0),
    0.1,
)  # steps of a weight: times, or plus a share of all
MAX_PASSES, MIN_GAIN = 3, 2e-4


def fit_strength(
    forecaster: Forecaster,
    blend: Blend,
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
    tolerance: float = 0.0,
) -> float:
    """Find the tilt of greatest NDCG@k on windows; the smallest of equals.

    With ``slack`` the largest tilt that loses no more than this share of it: the tilt is also what
    a person's edits act through. Where no list holds anything that was wanted, 0: nothing speaks
    for a tilt.
    """
    histories = [window.history for window in windows]
    forecasts = forecaster.forecast(histories)
    rankings = {
        str(strength): rank(forecasts, histories, blend, k=k, strength=strength, repeat=repeat)
        for strength in STRENGTHS
    }
    table = evaluate_rankings(rankings, windows, repeat=repeat, k=k)
    ndcg = table[table["metric"] == f"ndcg@{k}"].set_index("model")["value"]
    if not ndcg.max() > 0:  # 0, or NaN where nothing was wanted
        return STRENGTHS[0]
    if tolerance == 0:
        return float(str(ndcg.idxmax()))
    return max(
        float(str(strength)) for strength in ndcg.index[ndcg >= (1 - tolerance) * ndcg.max()]
    )


def tune_blend(
    blend: Blend, windows: Sequence[Window], *, repeat: RepeatPolicy = "allow", k: int = 10
) -> Blend:
    """Move a blend's weights one by one while lists of validation windows get better.

    Weights that make targets likely (`fit_blend`) need not put the right items first. From there,
    or from the scorer that alone lists better, each weight in turn takes the step of
    `WEIGHT_FACTORS`, or to a tenth of all weights more, that gives the greatest NDCG@k, up to
    `MAX_PASSES` times round: a search on the measure itself, which has no gradient. All scores are
    held in float32, twice while they are put together: 8 * n_scorers * n_windows * n_items bytes,
    and one scorer's float64 beside them.
    """
    histories = [window.history for window in windows]
    scores = np.stack([_single(scorer, histories) for scorer in blend.scorers])
    possible = np.stack([rankable_items(window.history, repeat) for window in windows])
    wanted = [np.unique(window.target.item_idx) for window in windows]
    wanted = [items[row[items]] for items, row in zip(wanted, possible, strict=True)]

    def worth(weights: FloatArray) -> float:
        blended = np.tensordot(weights.astype(np.float32), scores, 1)
        return _mean_ndcg(np.where(possible, blended, -np.inf), wanted, k)

    likeliest = np.array(blend.weights, dtype=np.float64)
    weights = max((likeliest, *np.diag(np.full(len(scores), likeliest.sum()))), key=worth)
    best = worth(weights)
    for _ in range(MAX_PASSES):
        before = best
        for place in range(len(weights)):
            more = WEIGHT_STEP * weights.sum()
            for step in (
                *(weights[place] * factor for factor in WEIGHT_FACTORS),
                weights[place] + more,
            ):
                tried = weights.copy()
                tried[place] = step
                if tried.any() and (found := worth(tried)) > best:
                    best, weights = found, tried
        if best - before < MIN_GAIN:
            break
    return Blend(blend.scorers, tuple(float(weight) for weight in weights))


def _single(scorer: ItemScorer, histories: Sequence[History]) -> npt.NDArray[np.float32]:
    """(n_users, n_items) a scorer's checked scores in single precision; no others are held."""
    return np.asarray(Blend((scorer,), (1.0,)).weighted_scores(histories)[0], dtype=np.float32)


def _mean_ndcg(scores: FloatArray, wanted: Sequence[IntArray], k: int) -> float:
    """Mean NDCG@k of (n_windows, n_items) scores, over the windows in which something is wanted."""
    k_most = min(k, scores.shape[1])
    top = np.argpartition(-scores, k_most - 1, axis=1)[:, :k_most]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    lists = np.take_along_axis(top, order, axis=1)
    found = [ndcg_at(k, row, items) for row, items in zip(lists, wanted, strict=True)]
    return float(np.nanmean(found))


MAX_NDCG_LOSS = 0.01  # share of the NDCG that a tilt which edits act through may cost
# Scorers x windows x items. While the blend is fitted each is held twice, in float64, and what the
# fit makes of them beside it: 24 bytes each for five scorers (tracemalloc), 3.6 GB in all.
MAX_FITTED_SCORES = 150_000_000
MIN_FIT_WINDOWS = 10  # fewer fit nothing


def fit_ranking(
    dataset: Dataset,
    windows: Sequence[Window],
    forecaster: Forecaster,
    extra_scorers: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> tuple[dict[str, float], float]:
    """Fit the weights of a blend, and how hard a forecast tilts it, on validation windows.

    The scorers that suit the log are fitted on what lies before the windows' targets
    (`training_log_for`). Weights make the targets likely, and then move while lists get better.

    Parameters
    ----------
    windows
        So many of them, drawn, that there are no more than `MAX_FITTED_SCORES` scores (37 with four
        scorers and a million items), and no fewer than `MIN_FIT_WINDOWS`: from 3,750,000 items on,
        memory grows by 960 bytes an item.
    extra_scorers
        More scorers, by name. They must not have learned from the windows' targets.

    Returns
    -------
    blend, strength
        As `EngineSettings` keeps them. Edits act through the strength, so it is never 0: it is the
        largest that costs no more than a hundredth of the NDCG@10, or .05 if even that costs more.
    """
    catalog, repeat = dataset.catalog, dataset.repeat
    names = default_scorers(dataset.period, catalog.n_items, repeat)
    each = (len(names) + len(extra_scorers)) * catalog.n_items
    windows = sample_windows(windows, max(MIN_FIT_WINDOWS, MAX_FITTED_SCORES // each))
    before, histories = training_log_for(windows), [window.history for window in windows]
    scorers = {name: build_scorer(name, before, catalog) for name in names} | dict(extra_scorers)
    asked = [PrecomputedScorer.of(scorer, histories) for scorer in scorers.values()]
    blend = tune_blend(fit_blend(asked, windows, repeat=repeat), windows, repeat=repeat)
    weights = {name: float(weight) for name, weight in zip(scorers, blend.weights, strict=True)}
    strength = fit_strength(forecaster, blend, windows, repeat=repeat, tolerance=MAX_NDCG_LOSS)
    return weights, max(strength, STRENGTHS[1])


def build_blend(
    dataset: Dataset,
    cutoff: np.datetime64,
    weights: Mapping[str, float],
    extra_scorers: Mapping[str, ItemScorer] = MappingProxyType({}),
) -> Blend:
    """Build the scorers of non-zero weight, fitted on what lies before the cutoff.

    ``given`` are scorers at hand, by name. DataError if a scorer is unknown and not given.
    """
    kept = {name: weight for name, weight in weights.items() if weight > 0}
    scorers = [
        extra_scorers[name]
        if name in extra_scorers
        else build_scorer(name, dataset.log, dataset.catalog, cutoff)
        for name in kept
    ]
    return Blend(tuple(scorers), tuple(kept.values()))
