"""Predictions computed once and looked up by history: forecasts, and held-out weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmrec.data.files import atomic_write_bytes
from llmrec.data.history_keys import HistoryKey, history_key
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.dispersion import Spread
from llmrec.types import FloatArray

_METADATA = b"llmrec"


@dataclass(frozen=True, eq=False)
class PrecomputedForecaster:
    """Gives back forecasts made before, for the histories that they are of."""

    name: str
    forecasts: Mapping[HistoryKey, Forecast]

    @classmethod
    def of(
        cls,
        name: str,
        histories: Sequence[History],
        weights: FloatArray,
        spread: Spread,
        how: Literal["llm", "counting"] = "llm",
    ) -> PrecomputedForecaster:
        """Make forecasts without words of (n_histories, n_categories) weights."""
        source = Source(name, how)
        return cls(name, _by_history(histories, make_forecasts(source, histories, weights, spread)))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give the stored forecasts; DataError for a history without one."""
        for history in histories:
            if history_key(history) not in self.forecasts:
                raise DataError(f"{self.name}: no forecast of {history.user_id!r} was stored")
        return [self.forecasts[history_key(history)] for history in histories]

    def save(self, path: Path) -> None:
        """Write weights and concentrations as Parquet, atomically; words are left out."""
        rows = {
            key: np.append(forecast.category_weights, forecast.concentration)
            for key, forecast in self.forecasts.items()
        }
        sources = {forecast.source.how for forecast in self.forecasts.values()}
        if len(sources) > 1 or "fallback" in sources:
            raise DataError(f"{self.name}: forecasts of one origin can be saved, not {sources}")
        save_rows(path, rows, {"name": self.name, "how": next(iter(sources), "llm")})

    @classmethod
    def load(cls, path: Path) -> PrecomputedForecaster:
        """Read what `save` wrote."""
        rows, values = load_rows(path)
        source = Source(values["name"], values["how"])
        return cls(
            source.model,
            {key: Forecast(row[:-1], float(row[-1]), "", (), source) for key, row in rows.items()},
        )


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """What a forecaster predicted of validation windows before it was fitted on them too."""

    rows: Mapping[HistoryKey, FloatArray]

    @classmethod
    def of(cls, windows: Sequence[Window], weights: FloatArray) -> HeldOutPredictions:
        """Store (n_windows, n_categories) weights."""
        return cls(_by_history([window.history for window in windows], weights))

    @property
    def weights(self) -> FloatArray:
        """(n_windows, n_categories) weights, in the order of the windows."""
        return np.stack(list(self.rows.values()))

    def lookup(self, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n_categories) weights of some of the windows; DataError for one without."""
        keys = [history_key(window.history) for window in windows]
        missing = [key for key in keys if key not in self.rows]
        if missing:
            raise DataError(
                f"{len(missing)} windows have no held-out weights, such as that of user "
                f"{missing[0].user_id!r}: fit the forecaster with them as its validation"
            )
        return np.stack([self.rows[key] for key in keys])


def predict_weights(forecaster: Forecaster, histories: Sequence[History]) -> FloatArray:
    """(n_histories, n_categories) weights of any forecaster's forecasts."""
    return np.stack([forecast.category_weights for forecast in forecaster.forecast(histories)])


def out_of_sample_weights(forecaster: Any, validation: Sequence[Window]) -> FloatArray:
    """(n_validation, n_categories) weights that something may be fitted on.

    Held-out ones where the forecaster was fitted on these windows and stored some. Otherwise it
    forecasts them: forecasters that store none have tuned two or three numbers on the windows.

    Raises
    ------
    DataError
        If it was fitted on the windows and has lost its held-out weights.
    """
    fitted: TrainingSpan | None = getattr(forecaster, "fitted", None)
    held_out: HeldOutPredictions | None = getattr(forecaster, "held_out", None)
    seen = fitted is not None and any(map(fitted.covers, validation))
    if seen and held_out is not None:
        return held_out.lookup(validation)
    if seen and hasattr(forecaster, "held_out"):
        raise DataError(
            f"{type(forecaster).__name__} was fitted on these windows and has no held-out "
            "weights (a loaded checkpoint has none): fit it with them as its validation"
        )
    return predict_weights(forecaster, [window.history for window in validation])


def save_rows(path: Path, rows: Mapping[HistoryKey, FloatArray], values: Mapping[str, Any]) -> None:
    """Write a row of numbers a history as Parquet, atomically, with further values as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stacked = np.stack(list(rows.values()))
    table = pa.table(
        {
            "user_id": [key.user_id for key in rows],
            "n_events": [key.n_events for key in rows],
            "cutoff": np.array([key.cutoff for key in rows], dtype="datetime64[ms]"),
            "values": pa.FixedSizeListArray.from_arrays(
                pa.array(stacked.ravel()), stacked.shape[1]
            ),
        }
    ).replace_schema_metadata({_METADATA: json.dumps(dict(values))})
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd")
    atomic_write_bytes(path, content.getvalue().to_pybytes())


def load_rows(path: Path) -> tuple[dict[HistoryKey, FloatArray], dict[str, Any]]:
    """Read what `save_rows` wrote; DataError if the file is none of these."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        values: dict[str, Any] = json.loads(table.schema.metadata[_METADATA])
        users, n_events = table["user_id"].to_pylist(), table["n_events"].to_pylist()
        cutoffs = table["cutoff"].to_numpy().astype("datetime64[ms]")
        numbers = table["values"].combine_chunks()
        stacked = numbers.flatten().to_numpy().reshape(len(table), -1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no precomputed rows: {error}") from error
    keys = map(HistoryKey, users, n_events, cutoffs)
    return dict(zip(keys, stacked, strict=True)), values


def _by_history(histories: Sequence[History], rows: Any) -> dict[HistoryKey, Any]:
    return dict(zip(map(history_key, histories), rows, strict=True))
