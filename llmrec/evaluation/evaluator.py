"""Evaluation of forecasters on the same windows: scores by user, then one tidy table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llmrec import metrics
from llmrec.data.counts import events_per_share, target_counts, target_events
from llmrec.data.periods import Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError
from llmrec.evaluation.references import informed_losses, split_targets
from llmrec.forecast import Forecaster
from llmrec.types import FloatArray

HISTORIES_PER_BATCH = 1_024  # histories forecast at a time
COVERAGE_LEVELS = (0.5, 0.8, 0.9)
METRICS = (
    "log_loss",
    "brier",
    "jsd",
    "noise_jsd",
    *(f"coverage{level * 100:.0f}" for level in COVERAGE_LEVELS),
    "emerging_recall",
    "false_retention",
)
COUNT_COLUMNS = {"skill": "of persistence", "drift_captured": "captured"}  # column that gives n
MAX_COLD_PERIODS = 2  # non-empty periods that a cold user has at most
Row = tuple[str, str, str, float, float, float, int]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The result of `evaluate_forecasters`.

    Attributes
    ----------
    scores
        One row a model and user: dataset, split, model, user_id, periods (non-empty ones of the
        history), events (of the target), drift (realised), `METRICS`, and half_loss and
        informed_loss (on a half of the target, see `informed_losses`). Values of several seeds are
        averaged.
    bins
        One row a model and bin of calibration: model, forecast, observed, cells.
    """

    scores: pd.DataFrame
    bins: pd.DataFrame

    def merge(self, other: EvaluationResult) -> EvaluationResult:
        """Join the result of other models, of the same users or some of them."""
        return EvaluationResult(
            pd.concat((self.scores, other.scores), ignore_index=True),
            pd.concat((self.bins, other.bins), ignore_index=True),
        )


def evaluate_forecasters(
    forecasters: Mapping[str, Sequence[Forecaster]],
    windows: Sequence[Window],
    *,
    dataset: str = "",
    split: str = "",
) -> EvaluationResult:
    """Evaluate forecasters, each given once a seed, on windows.

    Raises
    ------
    DataError
        If there is no window, or a forecaster was fitted on events of the targets.
    """
    if not windows:
        raise DataError(f"{dataset} {split}: no window to evaluate on")
    for name, seeds in forecasters.items():
        for forecaster in seeds:
            require_unseen_targets(name, forecaster, windows)
    targets = target_counts(windows)
    past = np.stack([window.history.category_counts.sum(axis=0) for window in windows])
    shown, hidden = split_targets(windows)
    users = _user_table(windows, past, targets).assign(dataset=dataset, split=split)
    scores, bins = [], []
    for name, seeds in forecasters.items():
        predictions = [predict(forecaster, windows) for forecaster in seeds]
        values = [
            _metric_values(q, past, targets)
            | coverages(q, concentration, windows)
            | {"half_loss": metrics.log_loss(q, hidden)}
            | {"informed_loss": informed_losses(q, shown, hidden)}
            for q, concentration in predictions
        ]
        mean = {key: np.mean([value[key] for value in values], axis=0) for key in values[0]}
        scores.append(users.assign(model=name, **mean))
        weights = np.concatenate([q for q, _ in predictions])
        bins.append(_bin_table(name, weights, np.tile(targets, (len(predictions), 1))))
    return EvaluationResult(
        pd.concat(scores, ignore_index=True), pd.concat(bins, ignore_index=True)
    )


def predict(forecaster: Forecaster, windows: Sequence[Window]) -> tuple[FloatArray, FloatArray]:
    """(n, n_categories) weights and (n,) concentrations of forecasts, made in batches."""
    weights, concentrations = [], []
    for start in range(0, len(windows), HISTORIES_PER_BATCH):
        histories = [window.history for window in windows[start : start + HISTORIES_PER_BATCH]]
        for forecast in forecaster.forecast(histories):
            weights.append(forecast.category_weights)
            concentrations.append(forecast.concentration)
    return np.stack(weights), np.array(concentrations)


def require_unseen_targets(name: str, forecaster: Forecaster, windows: Sequence[Window]) -> None:
    """Raise DataError if a forecaster was fitted on events of the windows' targets."""
    fitted: TrainingSpan | None = getattr(forecaster, "fitted", None)
    if fitted is None:
        return
    for window in windows:
        if fitted.covers(window):
            raise DataError(
                f"{name} was fitted on events up to {fitted.before}; it cannot be evaluated on "
                f"events of user {window.history.user_id!r} from {window.target.period.start} on. "
                "Fit it on earlier windows."
            )


def evaluate(
    forecasters: Mapping[str, Forecaster],
    windows: Sequence[Window],
    *,
    reference: str,
    persistence: str | None = None,
    dataset: str = "",
    split: str = "",
) -> pd.DataFrame:
    """Evaluate forecasters on windows, in one tidy table: `evaluate_forecasters`, `summarize`.

    ``reference`` is the model that gains are paired with; skill is against ``persistence``
    (default: the reference).
    """
    seeds = {name: [forecaster] for name, forecaster in forecasters.items()}
    result = evaluate_forecasters(seeds, windows, dataset=dataset, split=split)
    return summarize(result, reference=reference, persistence=persistence or reference)


def summarize(result: EvaluationResult, *, reference: str, persistence: str) -> pd.DataFrame:
    """Give means and 95 % intervals over users, paired across models.

    Rows: dataset, split, slice ("all"; "cold": at most 2 non-empty periods; "stable" and
    "drifting": thirds of least and most realised drift; "drift 1" .. "drift 10": its deciles),
    model, metric, value, low, high, n. Beside `METRICS` there are skill (against ``persistence``),
    log_loss_gain (on ``reference``, in nats), drift_captured, and ece without an interval. Slices
    have log_loss, skill and log_loss_gain only. A model with forecasts of some users is compared
    with the others on those.

    Raises
    ------
    DataError
        If the reference or persistence is not in the result.
    """
    scores = result.scores
    for name in (reference, persistence):
        if name not in set(scores["model"]):
            raise DataError(
                f"{name!r} is not in the result; there are {sorted(set(scores['model']))}"
            )
    wide = scores.pivot(index="user_id", columns="model")
    users = scores.drop_duplicates("user_id").set_index("user_id").loc[wide.index]
    columns = _columns(wide, list(dict.fromkeys(scores["model"])), reference, persistence)
    values = np.stack(list(columns.values()), axis=1)
    rows = []
    for name, mask in user_slices(users["drift"], users["periods"]).items():
        if mask.any():
            rows += _slice_rows(list(columns), values[mask.to_numpy()], name)
    for model, bins in result.bins.groupby("model", sort=False):
        error = metrics.calibration_error(*bins[["forecast", "observed", "cells"]].to_numpy().T)
        n = int((scores["model"] == model).sum())
        rows.append(("all", str(model), "ece", error, np.nan, np.nan, n))
    table = pd.DataFrame(rows, columns=["slice", "model", "metric", "value", "low", "high", "n"])
    for position, column in enumerate(("dataset", "split")):
        table.insert(position, column, scores[column].iloc[0])
    return table


def user_slices(drift: pd.Series[float], periods: pd.Series[int]) -> dict[str, pd.Series[bool]]:
    """Give the masks of the users in each slice, by name."""
    rank = drift.rank(pct=True, method="first")
    found = {"all": periods >= 0, "cold": periods <= MAX_COLD_PERIODS}
    found |= {"stable": rank <= 1 / 3, "drifting": rank > 2 / 3}
    for decile in range(1, 11):
        found[f"drift {decile}"] = (rank > (decile - 1) / 10) & (rank <= decile / 10)
    return found


def _user_table(windows: Sequence[Window], past: FloatArray, targets: FloatArray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [window.history.user_id for window in windows],
            "periods": [np.count_nonzero(np.diff(w.history.offsets)) for w in windows],
            "events": [window.target.n_events for window in windows],
            "drift": metrics.realized_drift(past, targets),
        }
    )


def coverages(
    q: FloatArray, concentration: FloatArray, windows: Sequence[Window]
) -> dict[str, FloatArray]:
    """(n_windows,) coverage at each of `COVERAGE_LEVELS`, by name, of forecasts of windows."""
    shares = q * events_per_share([window.history for window in windows])
    counts = target_events(windows)
    n_events = np.array([float(window.target.n_events) for window in windows])
    return {
        f"coverage{level * 100:.0f}": metrics.coverage(
            shares, concentration, counts, n_events, level
        )
        for level in COVERAGE_LEVELS
    }


def _metric_values(q: FloatArray, past: FloatArray, targets: FloatArray) -> dict[str, FloatArray]:
    return {
        "log_loss": metrics.log_loss(q, targets),
        "brier": metrics.brier(q, targets),
        "jsd": metrics.jsd(q, targets),
        "noise_jsd": metrics.noise_jsd(q, targets),
        "emerging_recall": metrics.emerging_recall(q, past, targets),
        "false_retention": metrics.false_retention(q, past, targets),
    }


def _bin_table(name: str, q: FloatArray, targets: FloatArray) -> pd.DataFrame:
    forecast, observed, cells = metrics.calibration_bins(q, targets)
    columns = {"forecast": forecast, "observed": observed, "cells": cells}
    return pd.DataFrame({"model": name, **columns})


def _columns(
    wide: pd.DataFrame, models: Sequence[str], reference: str, persistence: str
) -> dict[tuple[str, str], FloatArray]:
    """(n_users,) values of each (metric, model), and of the references of its users."""
    informed = {model: wide["informed_loss", model] for model in models}
    most = max(losses.count() for losses in informed.values())
    whole = [model for model in models if informed[model].count() == most]
    # A mean over some of the users would not be comparable with the others'.
    best = min(whole, key=lambda model: float(informed[model].mean()))
    found = {(metric, model): wide[metric, model] for metric in METRICS for model in models}
    for model in models:
        loss, half = wide["log_loss", model], wide["half_loss", model]
        found["log_loss_gain", model] = wide["log_loss", reference] - loss
        found["of persistence", model] = wide["log_loss", persistence].where(loss.notna())
        baseline = wide["half_loss", persistence]
        found["captured", model] = baseline - half
        found["to capture", model] = (baseline - informed[best]).where(half.notna())
    return {key: column.to_numpy(dtype=np.float64) for key, column in found.items()}


def _slice_rows(columns: Sequence[tuple[str, str]], values: FloatArray, name: str) -> list[Row]:
    """Rows of one slice, from the (n_users, n_columns) values."""
    known = (~np.isnan(values)).sum(axis=0)
    point = np.full(len(known), np.nan)
    np.divide(np.nansum(values, axis=0), known, out=point, where=known > 0)
    samples = np.concatenate((point[None], metrics.resampled_means(values)))
    means = dict(zip(columns, samples.T, strict=True))
    counts = dict(zip(columns, known.tolist(), strict=True))
    models = dict.fromkeys(model for _, model in columns)
    found = []
    for model in models:
        loss = means["log_loss", model]
        shown = {"log_loss": loss, "skill": metrics.skill(loss, means["of persistence", model])}
        shown["log_loss_gain"] = means["log_loss_gain", model]
        if name == "all":
            shown |= {metric: means[metric, model] for metric in METRICS}
            captured, whole = means["captured", model], means["to capture", model]
            shown["drift_captured"] = metrics.drift_captured(captured, whole)
        for metric, sampled in shown.items():
            low, high = metrics.percentile_interval(sampled[1:])
            n = counts[COUNT_COLUMNS.get(metric, metric), model]
            found.append((name, model, metric, float(sampled[0]), low, high, n))
    return found
