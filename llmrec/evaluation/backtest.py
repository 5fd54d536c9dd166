"""Forecasters and rankings judged on the same windows, in one tidy table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from llmrec.contracts import FloatArray, Forecaster
from llmrec.data.periods import PeriodLength, Window, cutoffs, make_windows
from llmrec.data.readers import Dataset
from llmrec.errors import DataError
from llmrec.evaluation.metrics import (
    bootstrap_interval,
    coverage,
    jsd,
    log_loss,
    ndcg_at,
    recall_at,
)
from llmrec.ranking.blend import Repeat
from llmrec.ranking.tilt import Ranking

MIN_TARGET_EVENTS = 5


def splits(dataset: Dataset) -> dict[str, list[Window]]:
    """Give the windows to tune on ("validation") and to report ("test", ...), by name.

    Calendar periods: targets are the last three complete periods, the first of them for validation;
    a history has three non-empty periods, a target five events. Periods of events: a user's last
    complete period is the test, the one before it validation; a history has two periods at least.
    """
    log, catalog = dataset.log, dataset.catalog
    if PeriodLength.parse(dataset.period).unit == "events":
        return {
            name: make_windows(log, catalog, dataset.period, back=back, min_periods=periods)
            for name, back, periods in (("validation", 1, 1), ("test", 0, 2))
        }
    grid = cutoffs(log, dataset.period)
    if len(grid) < 5:
        raise DataError(
            f"{dataset.name} spans {len(grid) - 1} whole periods of {dataset.period}; a history, a "
            "validation and two test periods need 4. Choose a shorter period."
        )
    return {
        name: make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=min(3, len(grid) - 4),
            min_target_events=MIN_TARGET_EVENTS,
        )
        for name, cutoff in zip(("validation", "test 1", "test 2"), grid[-4:-1], strict=True)
    }


def training_windows(dataset: Dataset) -> list[Window]:
    """Give every window whose target ends before the validation targets begin.

    The same person gives one at each of their earlier periods; histories have two non-empty periods
    (one with periods of events).
    """
    log, catalog, found = dataset.log, dataset.catalog, []
    if PeriodLength.parse(dataset.period).unit == "events":
        back = 2
        while windows := make_windows(log, catalog, dataset.period, back=back):
            found += windows
            back += 1
        return found
    for cutoff in cutoffs(log, dataset.period)[1:-4]:
        found += make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=2,
            min_target_events=MIN_TARGET_EVENTS,
        )
    return found


def draw(windows: Sequence[Window], n: int | None, seed: int = 0) -> list[Window]:
    """Draw n windows at random without replacement, in their order; all of them if n is None."""
    if n is None or n >= len(windows):
        return list(windows)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:n])
    return [windows[row] for row in chosen]


def evaluate(
    forecasters: Mapping[str, Forecaster],
    windows: Sequence[Window],
    *,
    dataset: str = "",
    split: str = "",
    reference: str | None = None,
) -> pd.DataFrame:
    """Judge forecasters on windows.

    Returns
    -------
    DataFrame
        One row a model and metric: dataset, split, model, metric, value, low, high (95 % bootstrap
        over users), n. With a ``reference`` model also ``log_loss_gain``: what a model gains on it,
        paired by user.
    """
    if not windows:
        raise DataError(f"{dataset} {split}: no window to judge on")
    histories = [window.history for window in windows]
    targets = np.stack([window.target.category_counts for window in windows])
    losses: dict[str, FloatArray] = {}
    rows = []
    for name, forecaster in forecasters.items():
        forecasts = forecaster.forecast(histories)
        weights = np.stack([forecast.category_weights for forecast in forecasts])
        losses[name] = log_loss(weights, targets)
        per_user = {
            "log_loss": losses[name],
            "jsd": jsd(weights, targets),
            "coverage80": coverage(forecasts, targets, 0.8),
        }
        rows += [(name, metric, *bootstrap_interval(values)) for metric, values in per_user.items()]
    if reference is not None:
        rows += [
            (name, "log_loss_gain", *bootstrap_interval(losses[reference] - loss))
            for name, loss in losses.items()
            if name != reference
        ]
    table = pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high"])
    table.insert(0, "dataset", dataset)
    table.insert(1, "split", split)
    return table.assign(n=len(windows))


def evaluate_rankings(
    rankings: Mapping[str, Sequence[Ranking]],
    windows: Sequence[Window],
    *,
    repeat: Repeat = "allow",
    k: int = 10,
) -> pd.DataFrame:
    """Judge rankings of the full catalog by NDCG@k and Recall@k of the target's items.

    With ``repeat="exclude"`` only items the history does not hold are relevant; a user without any
    is NaN and left out.
    """
    relevant = [window.target.item_idx for window in windows]
    if repeat == "exclude":
        relevant = [
            np.setdiff1d(items, window.history.item_idx)
            for items, window in zip(relevant, windows, strict=True)
        ]
    rows = []
    for name, per_user in rankings.items():
        for metric, score in (("ndcg", ndcg_at), ("recall", recall_at)):
            values = np.array(
                [
                    score(k, ranking.item_idx, items)
                    for ranking, items in zip(per_user, relevant, strict=True)
                ]
            )
            n = int(np.isfinite(values).sum())
            rows.append((name, f"{metric}@{k}", *bootstrap_interval(values), n))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])
