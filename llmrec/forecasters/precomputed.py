"""Predictions looked up by history: held-out ones of learned models, and stored forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.calibration import Dispersion, make_forecasts
from llmrec.types import FloatArray


@dataclass(frozen=True, eq=False)
class PrecomputedForecaster:
    """Gives back (n, n_categories) weights computed before, for the histories they were for."""

    name: str
    weights: Mapping[tuple[str, np.datetime64], FloatArray]
    spread: Dispersion

    @classmethod
    def of(
        cls, name: str, histories: Sequence[History], weights: FloatArray, spread: Dispersion
    ) -> PrecomputedForecaster:
        """Keep weights under the person and the cutoff they are for."""
        keys = [(history.user_id, history.cutoff) for history in histories]
        return cls(name, dict(zip(keys, weights, strict=True)), spread)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give the stored forecasts; ValueError for a history without one."""
        if not histories:
            return []
        for history in histories:
            if (history.user_id, history.cutoff) not in self.weights:
                raise ValueError(f"{self.name}: no forecast of {history.user_id!r} was stored")
        rows = [self.weights[history.user_id, history.cutoff] for history in histories]
        return make_forecasts(Source(self.name, "llm"), histories, np.stack(rows), self.spread)


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """What a forecaster said of validation windows before it was fitted on them too."""

    rows: dict[tuple[int, int], int]  # (user, first event of the target) to the row of weights
    weights: FloatArray  # (n, n_categories)

    @classmethod
    def of(cls, windows: Sequence[Window], weights: FloatArray) -> HeldOutPredictions:
        """Keep (n_windows, n_categories) weights."""
        return cls({_key(window): row for row, window in enumerate(windows)}, weights)

    def lookup(self, windows: Sequence[Window]) -> FloatArray:
        """Give the weights of some of the windows; DataError for one without."""
        missing = [window for window in windows if _key(window) not in self.rows]
        if missing:
            raise DataError(
                f"{len(missing)} windows have no held-out weights, such as that of user "
                f"{missing[0].history.user_id!r}: fit the forecaster with them as its validation"
            )
        return self.weights[[self.rows[_key(window)] for window in windows]]


def out_of_sample_weights(forecaster: Any, validation: Sequence[Window]) -> FloatArray:
    """(n_validation, n_categories) weights that may be fitted on: held out where those were kept.

    A forecaster without any is asked. Those of the family that keep none have tuned two or three
    numbers on the validation windows.
    """
    fitted: TrainingSpan | None = getattr(forecaster, "fitted", None)
    kept: HeldOutPredictions | None = getattr(forecaster, "held_out", None)
    seen = fitted is not None and any(map(fitted.covers, validation))
    if seen and kept is not None:
        return kept.lookup(validation)
    if seen and hasattr(forecaster, "held_out"):
        raise DataError(
            f"{type(forecaster).__name__} was fitted on these windows and kept no held-out "
            "weights (a loaded checkpoint has none): fit it with them as its validation"
        )
    return predict_weights(forecaster, [window.history for window in validation])


def predict_weights(forecaster: Forecaster, histories: Sequence[History]) -> FloatArray:
    """(n_histories, n_categories) weights of any forecaster's forecasts."""
    return np.stack([forecast.category_weights for forecast in forecaster.forecast(histories)])


def _key(window: Window) -> tuple[int, int]:
    return window.history.user_idx, window.target.start
