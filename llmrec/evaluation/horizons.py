"""How forecasts lose with the horizon: the same target period, from histories that end earlier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from llmrec.data.calendar import PeriodLength
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import MIN_TARGET_EVENTS, past_windows, training_log_for
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import coverages, predict
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.horizon import MAX_HORIZON, LaterPeriods
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

HORIZONS = tuple(range(1, MAX_HORIZON + 1))
HORIZON_SLICE = "horizon "  # what slices of these rows begin with
COUNTING, LATER = "DecayedDirichlet", "HorizonForecaster"


def horizon_table(dataset: Dataset, split: str, horizons: Sequence[int] = HORIZONS) -> pd.DataFrame:
    """Evaluate forecasts of the last complete period, made one to four periods before its end.

    Two are compared, each fitted on what precedes the histories: counting, whose forecast of the
    next period is used for later ones, and counting with drift (`GlobalDrift`), on which
    `HorizonForecaster` is fitted for later ones. The people are the same at each horizon.

    Parameters
    ----------
    split
        What rows call the target period.

    Returns
    -------
    pd.DataFrame
        Rows as those of `summarize`, of slices "horizon 1" and on; the metrics are log_loss,
        log_loss_gain (on counting) and coverage80. Horizons that the log is too short for have
        none.
    """
    tests = windows_by_horizon(dataset, horizons)
    values: dict[tuple[int, str, str], FloatArray] = {}
    for horizon, windows in tests.items():
        log = training_log_for(windows).align_to(dataset.catalog)
        known = replace(dataset, log=log, item_rows=None)
        try:
            forecasters = _fit(known, horizon)
        except DataError:  # too few past periods as far ahead
            break
        for (model, metric), found in _score(forecasters, windows).items():
            values[horizon, model, metric] = found
    rows = [
        (f"{HORIZON_SLICE}{horizon}", model, metric, *bootstrap_interval(found), len(found))
        for (horizon, model, metric), found in values.items()
    ]
    table = pd.DataFrame(rows, columns=["slice", "model", "metric", "value", "low", "high", "n"])
    table.insert(0, "dataset", dataset.name)
    table.insert(1, "split", split)
    return table


def windows_by_horizon(
    dataset: Dataset, horizons: Sequence[int] = HORIZONS, back: int = 0
) -> dict[int, list[Window]]:
    """Give windows of one target period by horizon, of the people with one at each.

    Histories have three non-empty periods and targets five events, as in `split_windows`; with
    periods of events two periods are enough. Horizons that nobody has a window of are left out,
    and those after them. ``back``: how many periods before the last complete one the target lies.
    """
    log, period = dataset.log.align_to(dataset.catalog), dataset.period
    by_events = PeriodLength.parse(period).unit == "events"
    found: dict[int, list[Window]] = {}
    people: set[int] | None = None
    for horizon in horizons:
        try:
            windows = make_windows(
                log,
                dataset.catalog,
                period,
                back=back,
                horizon=horizon,
                min_periods=2 if by_events else 3,
                min_target_events=1 if by_events else MIN_TARGET_EVENTS,
            )
        except DataError:  # too few calendar periods
            break
        own = {window.history.user_idx for window in windows}
        if not (own if people is None else own & people):
            break
        people = own if people is None else own & people
        found[horizon] = windows
    return {
        horizon: [window for window in windows if window.history.user_idx in (people or ())]
        for horizon, windows in found.items()
    }


def _fit(known: Dataset, horizon: int) -> dict[str, Forecaster]:
    """Fit counting, and what is compared with it, on a log; DataError if it is too short."""
    folds = past_windows(known)
    if not folds:
        raise DataError(f"{known.name} has no past period to fit on")
    counting = DecayedDirichlet().fit(folds[0])
    drifting = GlobalDrift(prior=counting).fit(folds[0])
    return {COUNTING: counting, LATER: LaterPeriods(drifting, known)[horizon]}


def _score(
    forecasters: Mapping[str, Forecaster], windows: Sequence[Window]
) -> dict[tuple[str, str], FloatArray]:
    """(n_windows,) values of each model and metric; counting is the first model."""
    targets, found = target_counts(windows), dict[tuple[str, str], FloatArray]()
    for model, forecaster in forecasters.items():
        weights, concentration = predict(forecaster, windows)
        loss = found[model, "log_loss"] = log_loss(weights, targets)
        found[model, "log_loss_gain"] = found[COUNTING, "log_loss"] - loss
        found[model, "coverage80"] = coverages(weights, concentration, windows)["coverage80"]
    return found
