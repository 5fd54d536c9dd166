"""Choosing on validation windows what makes lists best: weights of a blend, strength of a tilt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmrec.contracts import FloatArray, Forecaster, IntArray, ItemScorer
from llmrec.data.periods import History, Window
from llmrec.evaluation.backtest import evaluate_rankings
from llmrec.evaluation.metrics import ndcg_at
from llmrec.ranking.blend import Blend, Repeat, possible_items
from llmrec.ranking.tilt import rank

STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)
FACTORS, SHARE = (0.0, 0.5, 0.8, 1.25, 2.0), 0.1  # steps of a weight: times, or plus a share of all
PASSES, LEAST_GAIN = 3, 2e-4


def fit_strength(
    forecaster: Forecaster,
    blend: Blend,
    windows: Sequence[Window],
    *,
    repeat: Repeat = "allow",
    k: int = 10,
    slack: float = 0.0,
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
    if slack == 0:
        return float(str(ndcg.idxmax()))
    return max(float(str(strength)) for strength in ndcg.index[ndcg >= (1 - slack) * ndcg.max()])


def sharpened(
    blend: Blend, windows: Sequence[Window], *, repeat: Repeat = "allow", k: int = 10
) -> Blend:
    """Move a blend's weights one by one while lists of validation windows get better.

    Weights that make targets likely (`fit_blend`) need not put the right items first. From there,
    or from the scorer that alone lists better, each weight in turn takes the step of `FACTORS`, or
    to a tenth of all weights more, that gives the greatest NDCG@k, up to `PASSES` times round: a
    search on the measure itself, which has no gradient. All scores are held in float32, twice while
    they are put together: 8 * n_scorers * n_windows * n_items bytes, and one scorer's float64
    beside them.
    """
    histories = [window.history for window in windows]
    scores = np.stack([_single(scorer, histories) for scorer in blend.scorers])
    possible = np.stack([possible_items(window.history, repeat) for window in windows])
    wanted = [np.unique(window.target.item_idx) for window in windows]
    wanted = [items[row[items]] for items, row in zip(wanted, possible, strict=True)]

    def worth(weights: FloatArray) -> float:
        blended = np.tensordot(weights.astype(np.float32), scores, 1)
        return _mean_ndcg(np.where(possible, blended, -np.inf), wanted, k)

    likeliest = np.array(blend.weights, dtype=np.float64)
    weights = max((likeliest, *np.diag(np.full(len(scores), likeliest.sum()))), key=worth)
    best = worth(weights)
    for _ in range(PASSES):
        before = best
        for place in range(len(weights)):
            more = SHARE * weights.sum()
            for step in (*(weights[place] * factor for factor in FACTORS), weights[place] + more):
                tried = weights.copy()
                tried[place] = step
                if tried.any() and (found := worth(tried)) > best:
                    best, weights = found, tried
        if best - before < LEAST_GAIN:
            break
    return Blend(blend.scorers, tuple(float(weight) for weight in weights))


def _single(scorer: ItemScorer, histories: Sequence[History]) -> npt.NDArray[np.float32]:
    """(n_users, n_items) a scorer's checked scores in single precision; no others are held."""
    return np.asarray(Blend((scorer,), (1.0,)).parts(histories)[0], dtype=np.float32)


def _mean_ndcg(scores: FloatArray, wanted: Sequence[IntArray], k: int) -> float:
    """Mean NDCG@k of (n_windows, n_items) scores, over the windows in which something is wanted."""
    k_most = min(k, scores.shape[1])
    top = np.argpartition(-scores, k_most - 1, axis=1)[:, :k_most]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    lists = np.take_along_axis(top, order, axis=1)
    found = [ndcg_at(k, row, items) for row, items in zip(lists, wanted, strict=True)]
    return float(np.nanmean(found))
