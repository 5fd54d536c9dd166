"""How good an engine's lists are, and how true what it says: scores of a saved engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.calendar import DAY
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows
from llmrec.evaluation.saved_engine import SavedEngine
from llmrec.evaluation.track_record import said_and_true
from llmrec.explain.explanation import Explanation
from llmrec.explain.item import ItemExplanation
from llmrec.explain.statements import check_statement
from llmrec.forecast import Forecast, Statement
from llmrec.metrics import bootstrap_interval, expected_random_ndcg, ndcg_at, recall_at
from llmrec.ranking.blend import Blend
from llmrec.ranking.new_items import is_new_item
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import RecentPopularity
from llmrec.types import FloatArray, IntArray, RepeatPolicy

K = 10  # length of the lists
MAX_PEOPLE = 60  # whose explanations are checked, of each split
NEW_DAYS = 56  # since an item was first taken, for which it counts as new
LIST_METRICS = (
    f"ndcg@{K}",
    f"recall@{K}",
    f"popularity_ndcg@{K}",
    f"popularity_recall@{K}",
    f"ndcg@{K}_gain",
    f"recall@{K}_gain",
    f"new_ndcg@{K}",
    f"popularity_new_ndcg@{K}",
    f"launch_ndcg@{K}",
    f"random_launch_ndcg@{K}",
)
_COLUMNS = ("dataset", "split", "slice", "model", "metric", "value", "low", "high", "n")
COMPARED_METRICS = (f"ndcg@{K}", f"recall@{K}", f"new_ndcg@{K}", f"launch_ndcg@{K}")
EXPLANATION_METRICS = (
    "statements_supported",
    "statements_said",
    "statements_true",
    "explanations_supported",
)


def score_engines(engines: Sequence[SavedEngine], dataset: str = "", seed: int = 0) -> pd.DataFrame:
    """Score engines' lists and explanations on their windows, in a tidy table.

    Rows: dataset, split, slice ("all"), model, metric, value, low, high, n, as those of
    `llmrec.evaluation.evaluator.summarize`. Values are means over people, with their 95 % interval;
    n are the people for whom a value is defined. Metrics:

    ndcg@10, recall@10
        Of lists over all items, under the engine's own rule for items already taken: where it
        leaves them out, only other items are relevant. Items that came after the fit count as
        missed.
    popularity_ndcg@10, popularity_recall@10, ndcg@10_gain, recall@10_gain
        The same of what was popular lately before the window, by all that had happened then, and
        how much better the engine is, paired.
    new_ndcg@10, popularity_new_ndcg@10
        Of the same lists, with the items alone for relevant that were first taken at most
        `NEW_DAYS` days before the window, or after.
    launch_ndcg@10, random_launch_ndcg@10
        Of lists of the items that nobody had taken before the window, and what lists in random
        order would have. Only a catalog that is given apart knows such items.
    statements_supported, statements_said, statements_true
        Share of a person's statements that history and forecast support (it has to be 1), the mean
        of their probabilities, and the share that came true. Of at most `MAX_PEOPLE` people a
        split, drawn by the seed; with calendar periods they are more active than everybody, of whom
        the probabilities are.
    explanations_supported
        Share of their listed items whose explanation holds when it is recomputed, that of the first
        one with the change that would take it off the list.
    ndcg@10_difference, recall@10_difference, new_ndcg@10_difference, launch_ndcg@10_difference
        How much better its lists are than those of the first engine, paired over the windows that
        both are evaluated on: what an engine gains by features, or loses without a member, if it
        was fitted alike.
    """
    found = [_values_by_split(saved, seed) for saved in engines]
    rows = []
    for saved, values in zip(engines, found, strict=True):
        rows += _rows_of(dataset, saved.name, values)
    for saved, values in zip(engines[1:], found[1:], strict=True):
        for split in [split for split in saved.windows if split in engines[0].windows]:
            own, first = (_keys(one.windows[split]) for one in (saved, engines[0]))
            _, places, others = np.intersect1d(own, first, return_indices=True)
            if len(places):
                of_lists = {
                    f"{name}_difference": values[split][name][places]
                    - found[0][split][name][others]
                    for name in COMPARED_METRICS
                }
                rows += _rows_of(dataset, saved.name, {split: of_lists})
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _values_by_split(saved: SavedEngine, seed: int) -> dict[str, dict[str, FloatArray]]:
    """Give each metric's values of people, by test split."""
    return {
        split: list_values(saved, windows)
        | explanation_values(saved, sample_windows(windows, MAX_PEOPLE, seed))
        for split, windows in saved.windows.items()
    }


def _rows_of(
    dataset: str, name: str, values: Mapping[str, Mapping[str, FloatArray]]
) -> list[tuple[Any, ...]]:
    """Give a row of the tidy table for each split and metric."""
    return [
        (dataset, split, "all", name, metric, *bootstrap_interval(each), np.isfinite(each).sum())
        for split, found in values.items()
        for metric, each in found.items()
    ]


def _keys(windows: Sequence[Window]) -> list[str]:
    """Name windows by when they begin and whose they are."""
    return [f"{window.history.cutoff} {window.history.user_id}" for window in windows]


def list_values(saved: SavedEngine, windows: Sequence[Window]) -> dict[str, FloatArray]:
    """(n_windows,) values of each of `LIST_METRICS`; NaN where no item is relevant."""
    forecaster, engine = saved.forecaster, saved.engine
    histories, repeat = [window.history for window in windows], forecaster.repeat
    own, forecasts = forecaster.own_histories(histories), forecaster.own_forecasts(histories)
    strength = engine.settings.strength
    ranked = rank(forecasts, own, engine.blend, k=K, strength=strength, repeat=repeat)
    places = windows[0].history.catalog.item_ids.get_indexer(own[0].catalog.item_ids)
    lists = [places[ranking.item_idx] for ranking in ranked]
    popular = rank(
        forecaster.forecast(histories),
        histories,
        Blend((RecentPopularity(),), (1.0,)),
        k=K,
        strength=0.0,
        repeat=repeat,
    )
    relevant = [_relevant_items(window, repeat) for window in windows]
    found = _list_metrics(lists, relevant)
    baseline = _list_metrics([ranking.item_idx for ranking in popular], relevant)
    gains = {f"{name}_gain": found[name] - baseline[name] for name in found}
    new = [
        np.intersect1d(items, _new_items(window.history))
        for items, window in zip(relevant, windows, strict=True)
    ]
    of_new = {f"new_ndcg@{K}": _list_metrics(lists, new)[f"ndcg@{K}"]}
    popular_new = _list_metrics([ranking.item_idx for ranking in popular], new)[f"ndcg@{K}"]
    of_new |= {f"popularity_new_ndcg@{K}": popular_new}
    launched = _launch_values(saved, own, forecasts, windows)
    baselines = {f"popularity_{name}": each for name, each in baseline.items()}
    return found | baselines | gains | of_new | launched


def _new_items(history: History) -> IntArray:
    """(n,) items that nobody had taken `NEW_DAYS` days before the history's cutoff."""
    population = history.population
    known = population.item_idx[population.timestamp < history.cutoff - NEW_DAYS * DAY]
    return np.setdiff1d(np.arange(history.catalog.n_items), known)


def _launch_values(
    saved: SavedEngine,
    own: Sequence[History],
    forecasts: Sequence[Forecast],
    windows: Sequence[Window],
) -> dict[str, FloatArray]:
    """(n_windows,) NDCG of lists of the engine's new items, and of lists in random order."""
    found = np.full((2, len(windows)), np.nan)
    places = windows[0].history.catalog.item_ids.get_indexer(own[0].catalog.item_ids)
    for place, (history, forecast, window) in enumerate(zip(own, forecasts, windows, strict=True)):
        new = places[is_new_item(history)]
        relevant = np.intersect1d(window.target.item_idx, new[new >= 0])
        if not len(relevant):
            continue
        session = saved.engine.session(history, forecast=forecast, shelf="new")
        listed = places[session.ranking(K).item_idx]
        found[:, place] = (
            ndcg_at(K, listed, relevant),
            expected_random_ndcg(K, len(relevant), len(new)),
        )
    return dict(zip(LIST_METRICS[-2:], found, strict=True))


def explanation_values(saved: SavedEngine, windows: Sequence[Window]) -> dict[str, FloatArray]:
    """(n_windows,) values of each of `EXPLANATION_METRICS`; NaN where nothing is said."""
    own = saved.forecaster.own_histories([window.history for window in windows])
    forecasts = saved.engine.forecast_many(own)
    rows = [
        (
            _share(
                [check_statement(one, history, forecast) is None for one in forecast.statements]
            ),
            *said_and_true(window, _known_statements(window, history, forecast)),
            _share(_hold(saved, history, forecast)),
        )
        for window, history, forecast in zip(windows, own, forecasts, strict=True)
    ]
    return dict(zip(EXPLANATION_METRICS, np.array(rows, dtype=np.float64).T, strict=True))


def _list_metrics(lists: Sequence[IntArray], relevant: Sequence[IntArray]) -> dict[str, FloatArray]:
    pairs = list(zip(lists, relevant, strict=True))
    return {
        f"{name}@{K}": np.array([score(K, *pair) for pair in pairs])
        for name, score in (("ndcg", ndcg_at), ("recall", recall_at))
    }


def _relevant_items(window: Window, repeat: RepeatPolicy) -> IntArray:
    """Give the items of a target that a list may hold."""
    taken = window.target.item_idx
    return taken if repeat == "allow" else np.setdiff1d(taken, window.history.item_idx)


def _known_statements(window: Window, own: History, forecast: Forecast) -> list[Statement]:
    """Give the statements about categories that a window knows, with its indices."""
    places = {name: place for place, name in enumerate(window.history.catalog.categories)}
    named = [(one, own.catalog.categories[one.category]) for one in forecast.statements]
    return [replace(one, category=places[name]) for one, name in named if name in places]


def _hold(saved: SavedEngine, history: History, forecast: Forecast) -> list[bool]:
    """Whether the explanation of each listed item holds, that of the first one in full."""
    session = saved.engine.session(history, forecast=forecast, repeat=saved.forecaster.repeat)
    listed = session.recommend(K)
    said: list[Explanation | ItemExplanation] = [one.explanation for one in listed]
    said[:1] = [session.explain(one.item_id, K) for one in listed[:1]]
    return [not session.check(one) for one in said]


def _share(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else np.nan
