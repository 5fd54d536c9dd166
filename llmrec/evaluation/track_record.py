"""Track records: stored forecasts scored once their period has passed; precision of statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llmrec import metrics
from llmrec.data.calendar import MILLISECOND, PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.keyed_ids import key_name, known_keys, say_missing_key
from llmrec.data.periods import Window, make_histories, observed_windows, truncate_log
from llmrec.data.windows import last_period_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import COVERAGE_LEVELS, coverages
from llmrec.evaluation.forecast_store import StoredForecast, past_fingerprint, with_log_ids
from llmrec.explain.facts import ClaimFacts, observed_forecast, statements_that_came_true
from llmrec.explain.statements import check_statement
from llmrec.forecast import Forecast, Statement, StatementKind
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.metrics import bootstrap_interval
from llmrec.types import FloatArray

MIN_WINDOWS_FOR_FIT = 10  # windows; with fewer the references are counting's defaults
MIN_VALUES_FOR_INTERVAL = 10  # values; a bootstrap of fewer is too narrow to be shown
SCORED, PENDING, NO_EVENTS = "scored", "pending", "nothing taken"
METRICS = (
    "log_loss",
    "gain_on_mean",
    "gain_on_counting",
    "jsd",
    *(f"coverage{level * 100:.0f}" for level in COVERAGE_LEVELS),
    "said",
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


@dataclass(frozen=True)
class StatementPrecision:
    """Precision of a model's claims and of the statements shown, in [0, 1]; NaN without any.

    Attributes
    ----------
    proposed
        Share of the model's ``n_claims``, repeated and unparsed ones included, that the checker
        accepts.
    shown
        Share of the ``n_statements`` shown that the checker accepts; it has to be 1.
    came_true
        Share of the statements shown that the observed period supports.
    """

    n_claims: int
    n_statements: int
    proposed: float
    shown: float
    came_true: float


def statement_precision(
    windows: Sequence[Window], forecasts: Sequence[Forecast]
) -> StatementPrecision:
    """Evaluate the statements of described forecasts, one a window.

    Raises
    ------
    DataError
        If no event of a target has a category.
    """
    accepted, realized = [], []
    for window, forecast in zip(windows, forecasts, strict=True):
        accepted += [
            check_statement(statement, window.history, forecast) is None
            for statement in forecast.statements
        ]
        realized += realized_statements(window, forecast.statements)
    n_proposed = sum(forecast.source.proposed for forecast in forecasts)
    n_claims = n_proposed + sum(forecast.source.rejected for forecast in forecasts)
    return StatementPrecision(
        n_claims=n_claims,
        n_statements=len(accepted),
        proposed=n_proposed / n_claims if n_claims else np.nan,
        shown=_mean(accepted),
        came_true=_mean(realized),
    )


def realized_claims(window: Window, claims: Iterable[tuple[StatementKind, int]]) -> list[bool]:
    """Whether the observed period meets the conditions of each (kind, category)."""
    facts = ClaimFacts.of(window.history, observed_forecast(window))
    facts = replace(facts, came_true=statements_that_came_true(window))
    return [bool(facts.supported(kind)[category]) for kind, category in claims]


def realized_statements(window: Window, statements: Iterable[Statement]) -> list[bool]:
    """Whether each statement came true in the observed period.

    One with a probability is judged by what was taken (`statement_outcomes`), any other as
    `realized_claims` does, which an empty period says nothing about: it is left out.
    """
    true, found = statements_that_came_true(window), list[bool]()
    for one in statements:
        if one.probability is not None:
            found.append(bool(true[one.kind][one.category]))
        elif window.target.category_counts.any():
            found += realized_claims(window, [(one.kind, one.category)])
    return found


def said_and_true(window: Window, statements: Sequence[Statement]) -> tuple[float, float]:
    """Mean probability of statements, and the share that came true; NaN without any."""
    likely = [one.probability for one in statements if one.probability is not None]
    return _mean(likely), _mean(realized_statements(window, statements))


def score_forecasts(forecasts: Sequence[StoredForecast], dataset: Dataset) -> pd.DataFrame:
    """Score stored forecasts by a log that may have grown since; people stand by the log's ids.

    Returns
    -------
    pd.DataFrame
        One row a forecast, by cutoff, user and model: `ID_COLUMNS`, `METRICS`, receipt. The status
        is "scored", "pending" (the period has not fully passed), "nothing taken" (in it), or why it
        cannot be scored: "unknown user", "other log", "other categories"; ``why`` says more.
        Where the catalog comes from the log, forecasts of the categories that the log named before
        their cutoff are scored on these.
        Metrics are NaN unless scored. ``same_past``: the log before the cutoff is that of the
        forecast. Gains are in nats per event, on the mean of the person's history and on counting,
        both fitted on what precedes the cutoff. came_true is the share of the forecast's statements
        that the observed period supports, and said the mean of their probabilities: NaN without
        any; both are known of a period in which nothing was taken, too.
    """
    groups: dict[_Group, list[StoredForecast]] = {}
    for one in with_log_ids(forecasts, dataset):
        groups.setdefault(_Group(one.period, one.cutoff, one.categories), []).append(one)
    rows = [row for group in groups.items() for row in _score_group(dataset, *group)]
    table = pd.DataFrame(rows, columns=[*ID_COLUMNS, *METRICS, "receipt"])
    return table.sort_values(["cutoff", "user_id", "model", "receipt"], ignore_index=True)


def summarize_track_record(scores: pd.DataFrame, *, by_user: bool = False) -> pd.DataFrame:
    """Average scores in a tidy table: (user_id,) model, period, in_advance, metric, value, ...

    A model's value is the mean over people of the mean over their forecasts; a user's is the mean
    over their forecasts. ``low`` and ``high`` bound 95 % of bootstrap means of the ``n`` people
    (forecasts); NaN where n is below 10 or a loss is infinite. ``receipts`` is the number of
    forecasts. Those not made in advance have rows of their own: they are no forecasts.
    """
    keys, unit = ["model", "period", "in_advance"], "user_id"
    if by_user:
        keys, unit = ["user_id", *keys], "receipt"
    rows = []
    for key, part in scores[scores["status"].isin((SCORED, NO_EVENTS))].groupby(keys):
        means, counts = part.groupby(unit)[list(METRICS)].mean(), part.count()
        for metric in METRICS:
            estimate = _estimate(means[metric].dropna().to_numpy(dtype=np.float64))
            rows.append((*key, metric, *estimate, counts[metric]))
    columns = [*keys, "metric", "value", "low", "high", "n", "receipts"]
    return pd.DataFrame(rows, columns=columns)


def _estimate(values: FloatArray) -> tuple[float, float, float, int]:
    """Give mean, 95 % interval if there are enough values for one, and number of values."""
    if len(values) < MIN_VALUES_FOR_INTERVAL or not np.isfinite(values).all():
        return float(values.mean()) if len(values) else np.nan, np.nan, np.nan, len(values)
    return *bootstrap_interval(values), len(values)


class _Group(NamedTuple):
    """What forecasts that are scored together have in common."""

    period: PeriodLength
    cutoff: np.datetime64
    categories: tuple[str, ...]


def _catalog_of_forecasts(dataset: Dataset, group: _Group) -> Dataset:
    """Give the dataset as its catalog was at the cutoff, if the forecasts are of that one."""
    try:
        known = dataset.with_categories_before(group.cutoff)
    except DataError:  # nothing precedes the cutoff
        return dataset
    return known if known.catalog.categories == group.categories else dataset


def _score_group(
    dataset: Dataset, group: _Group, forecasts: Sequence[StoredForecast]
) -> list[dict[str, Any]]:
    """Give the rows of forecasts of one period length, cutoff and list of categories."""
    period, cutoff, _ = group
    end = dataset.log.timestamp.max() + MILLISECOND
    dataset = _catalog_of_forecasts(dataset, group)
    log, catalog = dataset.log, dataset.catalog
    try:
        seen = past_fingerprint(log, cutoff)
    except DataError:  # nothing precedes the cutoff
        seen = ""
    rows = {one.receipt: _id_row(one, dataset, seen) for one in forecasts}
    scorable = [one for one in forecasts if not rows[one.receipt]["why"]]
    users = [log.user_index(one.user_id) for one in scorable]
    windows = observed_windows(make_histories(log, catalog, period, cutoff, users), end)
    scored = []
    for one, window in zip(scorable, windows, strict=True):
        if window is None:
            continue
        n_events = window.target.n_events
        rows[one.receipt] |= {"status": SCORED if n_events else NO_EVENTS, "events": n_events}
        said, came_true = said_and_true(window, one.forecast.statements)
        rows[one.receipt] |= {"said": said, "came_true": came_true}
        if n_events:
            scored.append((one, window))
    if scored:
        values = _metric_values(scored, _fit_references(dataset, period, cutoff))
        for (one, _), row in zip(scored, values.to_dict("records"), strict=True):
            rows[one.receipt] |= {str(name): value for name, value in row.items()}
    return list(rows.values())


def _id_row(stored: StoredForecast, dataset: Dataset, seen: str) -> dict[str, Any]:
    """Give the `ID_COLUMNS` of a forecast before it is scored: pending, or why it cannot be."""
    status, why = PENDING, ""
    if not seen or (stored.log != dataset.name and stored.seen != seen):
        status = "other log"
        why = (
            f"it was made from {stored.log!r}; this is {dataset.name!r} with another past. Score "
            "it with the log it was made from: --data"
        )
    elif stored.categories != dataset.catalog.categories:
        status = "other categories"
        names, known = set(stored.categories), set(dataset.catalog.categories)
        why = f"in one and not in the other: {', '.join(sorted(names ^ known)[:5]) or 'the order'}"
    elif stored.user_id not in dataset.log.user_ids:
        status, why = "unknown user", _explain_unknown(stored, dataset)
    return {
        "user_id": stored.user_id,
        "model": stored.model,
        "period": str(stored.period),
        "cutoff": stored.cutoff,
        "in_advance": stored.in_advance,
        "same_past": stored.seen == seen,
        "status": status,
        "why": why,
        "statements": len(stored.forecast.statements),
        "receipt": stored.receipt,
    }


def _explain_unknown(stored: StoredForecast, dataset: Dataset) -> str:
    """Say why the log has nobody of a stored id: the key is missing, or the person."""
    name = key_name(stored.user_id)
    if name and name not in {key.name for key in known_keys(dataset)}:
        return say_missing_key(name, dataset)
    return f"no event of {stored.user_id!r} is in {dataset.name!r}"


def _fit_references(
    dataset: Dataset, period: PeriodLength, cutoff: np.datetime64
) -> dict[str, DecayedDirichlet]:
    """Fit the mean and counting on the last period before a cutoff."""
    past = truncate_log(dataset.log, cutoff)
    windows = last_period_windows(past, dataset.catalog, period)
    counting = DecayedDirichlet(mix="all" if period.unit == "events" else "last period")
    mean = replace(counting, decay=1.0)
    if len(windows) >= MIN_WINDOWS_FOR_FIT:
        mean, counting = mean.fit(windows, decays=(1.0,)), counting.fit(windows)
    return {"gain_on_mean": mean, "gain_on_counting": counting}


def _metric_values(
    scored: Sequence[tuple[StoredForecast, Window]], references: dict[str, DecayedDirichlet]
) -> pd.DataFrame:
    """(n_scored, n_metrics) metrics of forecasts on the observed windows of their periods."""
    forecasts, windows = [one.forecast for one, _ in scored], [window for _, window in scored]
    q = np.stack([forecast.category_weights for forecast in forecasts])
    concentration = np.array([forecast.concentration for forecast in forecasts])
    targets, histories = target_counts(windows), [window.history for window in windows]
    loss = metrics.log_loss(q, targets)
    found = {"log_loss": loss, "jsd": metrics.jsd(q, targets)}
    for name, reference in references.items():
        found[name] = metrics.log_loss(reference.category_weights(histories), targets) - loss
    found |= coverages(q, concentration, windows)
    return pd.DataFrame(found)


def _mean(found: Sequence[float]) -> float:
    return float(np.mean(found)) if found else np.nan
