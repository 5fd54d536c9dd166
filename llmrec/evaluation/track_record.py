"""Stored forecasts scored once their period has passed, and the precision of their statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from llmrec import metrics
from llmrec.data.calendar import PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window, make_histories, observed_windows, truncate_log
from llmrec.data.windows import last_period_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import LEVELS
from llmrec.evaluation.forecast_store import StoredForecast, past_fingerprint
from llmrec.explain.facts import ClaimFacts, observed_forecast
from llmrec.explain.statements import check_statement
from llmrec.forecast import Forecast, StatementKind
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.metrics import bootstrap_interval
from llmrec.types import FloatArray


@dataclass(frozen=True)
class StatementPrecision:
    """Shares in [0, 1]; NaN where there was nothing to judge.

    Attributes
    ----------
    proposed
        Of the ``n_claims`` that the model wrote, repeats and unreadable ones included: those that
        the checker let pass.
    shown
        Of the ``n_statements`` shown after rejection: those that the checker lets pass, which must
        be all.
    came_true
        Of the statements shown: those that the true next period bears out.
    """

    n_claims: int
    n_statements: int
    proposed: float
    shown: float
    came_true: float


def statement_precision(
    windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> StatementPrecision:
    """Judge the words of described forecasts, one a window.

    Raises
    ------
    DataError
        If no event of a target has a category.
    """
    passed, came = [], []
    for window, forecast in zip(windows, forecasts, strict=True):
        passed += [
            check_statement(said, window.history, forecast) is None for said in forecast.statements
        ]
        came += realized_claims(window, [(s.kind, s.category) for s in forecast.statements])
    accepted = sum(forecast.source.proposed for forecast in forecasts)
    n_claims = accepted + sum(forecast.source.rejected for forecast in forecasts)
    return StatementPrecision(
        n_claims=n_claims,
        n_statements=len(passed),
        proposed=accepted / n_claims if n_claims else np.nan,
        shown=_mean(passed),
        came_true=_mean(came),
    )


def realized_claims(window: Window, claims: Iterable[tuple[StatementKind, int]]) -> list[bool]:
    """Say of each (kind, category) whether the true next period meets the kind's conditions."""
    facts = ClaimFacts.of(window.history, observed_forecast(window))
    return [bool(facts.supported(kind)[category]) for kind, category in claims]


def _mean(found: Sequence[bool]) -> float:
    return float(np.mean(found)) if found else np.nan


MIN_FOR_FIT = 10  # windows; with fewer the references are counting's defaults
MIN_FOR_INTERVAL = 10  # values; a bootstrap of fewer is too narrow to be shown
SCORED, PENDING, NO_EVENTS = "scored", "pending", "nothing taken"
METRICS = (
    "log_loss",
    "gain_on_mean",
    "gain_on_counting",
    "jsd",
    *(f"coverage{level * 100:.0f}" for level in LEVELS),
    "came_true",
)
ID_COLUMNS = (
    "user_id",
    "model",
    "period",
    "cutoff",
    "in_advance",
    "same_past",
    "status",
    "why",
    "events",
    "statements",
)


def score_forecasts(receipts: Sequence[StoredForecast], dataset: Dataset) -> pd.DataFrame:
    """Score receipts against a log that may have grown since.

    Returns
    -------
    pd.DataFrame
        One row a receipt, by cutoff, user and model: `ID_COLUMNS`, `METRICS`, receipt. The status
        is "scored", "pending" (the period has not fully passed), "nothing taken" (in it), or why it
        cannot be scored: "unknown user", "other log", "other categories"; ``why`` says more.
        Metrics are NaN unless scored. ``same_past``: the log before the cutoff is what the
        forecaster saw. Gains are in nats per event, on the mean of the person's history
        ("nothing changes") and on counting, both fitted on what precedes the cutoff; came_true is
        the share of the forecast's statements that the period bore out, NaN if there are none.
    """
    occasions: dict[tuple[PeriodLength, np.datetime64], list[StoredForecast]] = {}
    for receipt in receipts:
        occasions.setdefault((receipt.period, receipt.cutoff), []).append(receipt)
    rows = [row for occasion in occasions.items() for row in _judged(dataset, *occasion)]
    table = pd.DataFrame(rows, columns=[*ID_COLUMNS, *METRICS, "receipt"])
    return table.sort_values(["cutoff", "user_id", "model", "receipt"], ignore_index=True)


def summarize_track_record(scores: pd.DataFrame, *, by_user: bool = False) -> pd.DataFrame:
    """Sum scores up in a tidy table: (user_id,) model, period, in_advance, metric, value, ...

    A model's value is the mean over people, each the mean of their receipts; a user's that over
    their receipts. ``low`` and ``high`` bound 95 % of bootstrap means of the ``n`` people
    (receipts); NaN where n is below 10 or a loss is infinite. ``receipts`` counts those behind it.
    What was made in hindsight has rows of its own: it is no forecast.
    """
    keys, unit = ["model", "period", "in_advance"], "user_id"
    if by_user:
        keys, unit = ["user_id", *keys], "receipt"
    rows = []
    for key, part in scores[scores["status"] == SCORED].groupby(keys):
        means, counts = part.groupby(unit)[list(METRICS)].mean(), part.count()
        for metric in METRICS:
            estimate = _estimate(means[metric].dropna().to_numpy(dtype=np.float64))
            rows.append((*key, metric, *estimate, counts[metric]))
    columns = [*keys, "metric", "value", "low", "high", "n", "receipts"]
    return pd.DataFrame(rows, columns=columns)


def _estimate(values: FloatArray) -> tuple[float, float, float, int]:
    """Mean, 95 % interval where there are enough values for one, and their number."""
    if len(values) < MIN_FOR_INTERVAL or not np.isfinite(values).all():
        return float(values.mean()) if len(values) else np.nan, np.nan, np.nan, len(values)
    return *bootstrap_interval(values), len(values)


def _judged(
    dataset: Dataset,
    occasion: tuple[PeriodLength, np.datetime64],
    receipts: Sequence[StoredForecast],
) -> list[dict[str, Any]]:
    """Rows of receipts of one period length and cutoff."""
    period, cutoff = occasion
    log, catalog = dataset.log, dataset.catalog
    try:
        seen = past_fingerprint(log, cutoff)
    except DataError:  # nothing precedes the cutoff
        seen = ""
    rows = {receipt.receipt: _about(receipt, dataset, seen) for receipt in receipts}
    judged = [receipt for receipt in receipts if not rows[receipt.receipt]["why"]]
    users = [log.user_index(receipt.user_id) for receipt in judged]
    windows = observed_windows(make_histories(log, catalog, period, cutoff, users))
    scored = []
    for receipt, window in zip(judged, windows, strict=True):
        if window is None:
            continue
        n_events = window.target.n_events
        rows[receipt.receipt] |= {"status": SCORED if n_events else NO_EVENTS, "events": n_events}
        if n_events:
            scored.append((receipt, window))
    if scored:
        values = _values(scored, _references(dataset, period, cutoff))
        for (receipt, _), row in zip(scored, values.to_dict("records"), strict=True):
            rows[receipt.receipt] |= {str(name): value for name, value in row.items()}
    return list(rows.values())


def _about(receipt: StoredForecast, dataset: Dataset, seen: str) -> dict[str, Any]:
    """Say of whom and when a receipt is, and what keeps it from being scored, if anything does."""
    status, why = PENDING, ""
    if not seen or (receipt.log != dataset.name and receipt.seen != seen):
        status = "other log"
        why = (
            f"it was made from {receipt.log!r}; this is {dataset.name!r} with another past. Score "
            "it with the log it was made from: --data"
        )
    elif receipt.categories != dataset.catalog.categories:
        status = "other categories"
        names, known = set(receipt.categories), set(dataset.catalog.categories)
        why = f"in one and not in the other: {', '.join(sorted(names ^ known)[:5]) or 'the order'}"
    elif receipt.user_id not in dataset.log.user_ids:
        status, why = "unknown user", f"no event of {receipt.user_id!r} is in {dataset.name!r}"
    return {
        "user_id": receipt.user_id,
        "model": receipt.model,
        "period": str(receipt.period),
        "cutoff": receipt.cutoff,
        "in_advance": receipt.in_advance,
        "same_past": receipt.seen == seen,
        "status": status,
        "why": why,
        "statements": len(receipt.forecast.statements),
        "receipt": receipt.receipt,
    }


def _references(
    dataset: Dataset, period: PeriodLength, cutoff: np.datetime64
) -> dict[str, DecayedDirichlet]:
    """Fit the mean and counting on the last period before a cutoff."""
    past = truncate_log(dataset.log, cutoff)
    windows = last_period_windows(past, dataset.catalog, period)
    counting = DecayedDirichlet(mix="all" if period.unit == "events" else "last period")
    mean = replace(counting, decay=1.0)
    if len(windows) >= MIN_FOR_FIT:
        mean, counting = mean.fit(windows, decays=(1.0,)), counting.fit(windows)
    return {"gain_on_mean": mean, "gain_on_counting": counting}


def _values(
    scored: Sequence[tuple[StoredForecast, Window]], references: dict[str, DecayedDirichlet]
) -> pd.DataFrame:
    """(n_scored, n_metrics) metrics of forecasts in the windows that came of their periods."""
    forecasts, windows = [receipt.forecast for receipt, _ in scored], [pair[1] for pair in scored]
    q = np.stack([forecast.category_weights for forecast in forecasts])
    concentration = np.array([forecast.concentration for forecast in forecasts])
    targets, histories = target_counts(windows), [window.history for window in windows]
    loss = metrics.log_loss(q, targets)
    found = {"log_loss": loss, "jsd": metrics.jsd(q, targets)}
    for name, reference in references.items():
        found[name] = metrics.log_loss(reference.category_weights(histories), targets) - loss
    for level in LEVELS:
        found[f"coverage{level * 100:.0f}"] = metrics.coverage(q, concentration, targets, level)
    found["came_true"] = np.array([_share_come_true(*pair) for pair in scored])
    return pd.DataFrame(found)


def _share_come_true(receipt: StoredForecast, window: Window) -> float:
    """Share of the statements that came true; NaN if there are none."""
    claims = [(said.kind, said.category) for said in receipt.forecast.statements]
    return float(np.mean(realized_claims(window, claims))) if claims else np.nan
