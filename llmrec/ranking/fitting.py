"""A blend's weights and the strength of its tilt, fitted on validation windows by list metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.metrics import bootstrap_interval, ndcg_at, recall_at
from llmrec.ranking.blend import Blend
from llmrec.ranking.blocks import people_blocks
from llmrec.ranking.ranking import Ranking, rank_by_strength
from llmrec.ranking.registry import (
    POPULARITY_BLEND,
    build_scorer,
    text_scorers,
)
from llmrec.types import FloatArray, IntArray, RepeatPolicy

MAX_SPREAD_HISTORIES = 100
# Where nothing can be fitted: the scorer by titles, the first that can be used, with its spread in
# spreads of popularity, and the strength; best on the development periods of three logs (LOG.md).
FALLBACK_TITLES = {"EaseWithText": 4.0, "TitleKernel": 0.25}
FALLBACK_STRENGTH = 0.35
STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0)


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
) -> float:
    """Find the strength of greatest NDCG@k on windows; the smallest of equals.

    0 where no list has a relevant item.
    """
    return STRENGTHS[int(np.argmax(ndcg_by_strength(forecaster, blend, windows, repeat, k)))]


def ndcg_by_strength(
    forecaster: Forecaster,
    blend: Blend,
    windows: Sequence[Window],
    repeat: RepeatPolicy = "allow",
    k: int = 10,
    candidates: IntArray | None = None,
) -> FloatArray:
    """(n_strengths,) mean NDCG@k on windows with each of `STRENGTHS`; 0 where it is undefined.

    ``candidates`` (n,) are the only items that are ranked, and relevant; None: all.
    """
    histories = [window.history for window in windows]
    forecasts = forecaster.forecast(histories)
    kind = "explore" if repeat == "exclude" else ""
    relevant = [_relevant_items(window, kind) for window in windows]
    if candidates is not None:
        relevant = [np.intersect1d(items, candidates) for items in relevant]
    options: dict[str, Any] = {"k": k, "repeat": repeat, "candidates": candidates}
    each = rank_by_strength(forecasts, histories, blend, STRENGTHS, **options)
    values = np.array(
        [
            [ndcg_at(k, ranking.item_idx, items) for ranking in rankings]
            for rankings, items in zip(each, relevant, strict=True)
        ]
    ).reshape(len(windows), len(STRENGTHS))
    known = values[~np.isnan(values).any(axis=1)]  # it is undefined for all strengths alike
    return np.array([one.mean() if len(known) else 0.0 for one in np.ascontiguousarray(known.T)])


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


def _relevant_items(window: Window, kind: str) -> IntArray:
    """Items of the target: all, those taken before ("repeat") or not before ("explore")."""
    items, seen = window.target.item_idx, window.history.item_idx
    if kind == "repeat":
        return np.intersect1d(items, seen)
    return np.setdiff1d(items, seen) if kind == "explore" else items


def fallback_blend(dataset: Dataset, cutoff: np.datetime64, without: Collection[str] = ()) -> Blend:
    """Give the blend of a log that is too short to fit one on.

    Where items may be taken again it is what a person took. Otherwise it is popularity, and, where
    titles tell anything, items whose titles, or who took them, are like those taken:
    `FALLBACK_TITLES`, those ``without`` left out. Forecasts tilt it with `FALLBACK_STRENGTH`.
    """
    if dataset.repeat == "allow":
        return build_blend(dataset, cutoff, {"PersonalRepeat": 1.0})
    usable = set(text_scorers(dataset.catalog)).difference(without)
    name = next((name for name in FALLBACK_TITLES if name in usable), None)
    if name is None:
        return build_blend(dataset, cutoff, POPULARITY_BLEND)
    blend = build_blend(dataset, cutoff, {**POPULARITY_BLEND, name: 1.0})
    histories = dataset.histories(cutoff)[:MAX_SPREAD_HISTORIES]
    popularity, titles = inverse_spreads(blend.scorers, histories)
    share = titles / popularity if popularity else 1.0
    return Blend(blend.scorers, (1.0, FALLBACK_TITLES[name] * share))


def inverse_spreads(
    scorers: Sequence[ItemScorer], histories: Sequence[History], items: IntArray | None = None
) -> tuple[float, ...]:
    """Give 1 over each scorer's mean standard deviation over items; 0 where it is 0.

    ``items`` are those that are looked at; None: all. All are 1 if none has a spread.
    """
    shown = slice(None) if items is None else items
    blocks = list(people_blocks(len(histories), histories[0].catalog.n_items, 1))
    spreads = []
    for scorer in scorers:
        each = [scorer.scores(histories[block])[:, shown].std(axis=1) for block in blocks]
        spreads.append(float(np.concatenate(each).mean()))
    weights = tuple(1 / spread if spread > 1e-9 else 0.0 for spread in spreads)
    return weights if any(weights) else (1.0,) * len(scorers)
