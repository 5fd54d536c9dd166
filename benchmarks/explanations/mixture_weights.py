"""The gated mixture's weights of validation and test windows, cached; held out on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.labels import MIXTURE
from llmrec.data.calendar import PeriodLength
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window, history_key
from llmrec.data.splits import split_windows, training_windows
from llmrec.data.windows import make_windows
from llmrec.forecasters.precomputed import load_rows, predict_weights, save_rows
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.types import FloatArray

MIN_PERIODS = 3  # non-empty ones of a history, as in `split_windows`


@dataclass(frozen=True, eq=False)
class WeightedWindows:
    """Windows and the forecast of each; validation's are held out from what was fitted on it.

    Attributes
    ----------
    windows
        With calendar periods everybody with a history, also who then takes nothing: a sentence is
        said before that is known.
    weights
        (n_windows, n_categories) category weights.
    """

    windows: list[Window]
    weights: FloatArray

    @property
    def histories(self) -> list[History]:
        """Histories of the windows."""
        return [window.history for window in self.windows]

    def with_targets_of(self, min_events: int) -> WeightedWindows:
        """Give the windows whose target has some events at least."""
        rows = [n for n, one in enumerate(self.windows) if one.target.n_events >= min_events]
        return WeightedWindows([self.windows[row] for row in rows], self.weights[rows])


def all_windows(dataset: Dataset) -> dict[str, list[Window]]:
    """Give the windows of `split_windows` and, with calendar periods, those of empty targets."""
    splits = split_windows(dataset)
    if PeriodLength.parse(dataset.period).unit == "events":
        return splits
    return {
        name: make_windows(
            dataset.log,
            dataset.catalog,
            dataset.period,
            windows[0].history.cutoff,
            min_periods=MIN_PERIODS,
            min_target_events=0,
        )
        for name, windows in splits.items()
    }


def mixture_weights(dataset: Dataset, cache: Path) -> dict[str, WeightedWindows]:
    """Forecast all windows with `GatedMixture`, seed 0, fitted as in `forecasting.quality`."""
    windows = all_windows(dataset)
    path = cache / f"{dataset.name}-{dataset.log.fingerprint}, {MIXTURE}.parquet"
    if not path.exists():
        save_rows(path, _forecast(dataset, windows), {"model": MIXTURE})
    rows, _ = load_rows(path)
    return {
        name: WeightedWindows(part, np.stack([rows[history_key(one.history)] for one in part]))
        for name, part in windows.items()
    }


def _forecast(dataset: Dataset, windows: Mapping[str, list[Window]]) -> dict[Any, FloatArray]:
    registry = ForecasterRegistry(training_windows(dataset), split_windows(dataset)["validation"])
    mixture: Any = registry[MIXTURE]
    rows: dict[Any, FloatArray] = {}
    for part in windows.values():
        histories = [window.history for window in part]
        weights = predict_weights(mixture, histories)
        rows |= dict(zip(map(history_key, histories), weights, strict=True))
    return rows | dict(mixture.held_out.rows)
