"""Stored forecasts: rows of Parquet, kept until their period has passed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.calendar import MILLISECOND, PeriodLength, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes, read_parquet_rows
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, truncate_log
from llmrec.data.validation import lookup_id
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Source, Statement
from llmrec.versions import renamed_model

_TIME, _TEXT = pa.timestamp("ms"), pa.string()
_STATEMENT = pa.struct(
    [
        ("kind", _TEXT),
        ("category", pa.int64()),
        ("change", pa.float64()),
        ("event_ids", pa.list_(pa.int64())),
    ]
)
SCHEMA = pa.schema(
    [
        ("user_id", _TEXT),
        ("log", _TEXT),
        ("period", _TEXT),
        ("cutoff", _TIME),
        ("seen", _TEXT),
        ("log_end", _TIME),
        ("made", _TIME),
        ("categories", pa.list_(_TEXT)),
        ("category_weights", pa.list_(pa.float64())),
        ("concentration", pa.float64()),
        ("description", _TEXT),
        ("statements", pa.list_(_STATEMENT)),
        *((field.name, pa.int64() if field.type == "int" else _TEXT) for field in fields(Source)),
    ]
)
HASH_COLUMN = "receipt"
OCCASION_COLUMNS = ("made", "log_end")  # the same forecast may be stored on several
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class StoredForecast:
    """A forecast, of whom and when, and all that is needed to score it.

    Attributes
    ----------
    receipt
        Hash of all the rest.
    log
        Name of the log.
    seen
        Fingerprint of the events before the cutoff, see `past_fingerprint`.
    log_end
        Just after the newest event of the whole log at hand when the forecast was stored.
    made
        When it was stored, by the clock of the machine, in UTC.
    categories
        (n_categories,) names, in the order of the forecast's weights.
    forecast
        As it was stored. Event ids are positions in the log that the forecaster saw.
    """

    receipt: str
    user_id: str
    log: str
    period: PeriodLength
    cutoff: np.datetime64
    seen: str
    log_end: np.datetime64
    made: np.datetime64
    categories: tuple[str, ...]
    forecast: Forecast

    @property
    def in_advance(self) -> bool:
        """Whether the log at hand ended before the period began: nothing of it could be known."""
        return bool(self.log_end <= self.cutoff)

    @property
    def model(self) -> str:
        """Name of the forecaster, and of its adapter if it has one."""
        source = self.forecast.source
        model = renamed_model(source.model)
        return f"{model} + {source.adapter[:8]}" if source.adapter else model

    @classmethod
    def from_row(cls, row: Row) -> StoredForecast:
        """Read a row of a file."""
        said = (one | {"event_ids": tuple(one["event_ids"])} for one in row["statements"])
        forecast = Forecast(
            np.array(row["category_weights"], dtype=np.float64),
            row["concentration"],
            row["description"],
            tuple(Statement(**one) for one in said),
            Source(**{field.name: row[field.name] for field in fields(Source)}),
        )
        return cls(
            receipt=row[HASH_COLUMN],
            user_id=row["user_id"],
            log=row["log"],
            period=PeriodLength.parse(row["period"]),
            cutoff=to_datetime64(row["cutoff"]),
            seen=row["seen"],
            log_end=to_datetime64(row["log_end"]),
            made=to_datetime64(row["made"]),
            categories=tuple(row["categories"]),
            forecast=forecast,
        )


def save_forecasts(
    folder: Path,
    dataset: Dataset,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    made: np.datetime64 | None = None,
) -> Path:
    """Add a file with a row a forecast to a folder; what is there is not touched.

    Parameters
    ----------
    dataset
        The whole log at hand. If it reaches beyond a cutoff, the forecast counts as made in
        hindsight, whatever the forecaster was shown of it.
    histories, forecasts
        What the forecasts were made from, cut at a time, and the forecasts.
    made
        Default: now.

    Raises
    ------
    DataError
        If a forecast does not fit its history, or the folder cannot be written to.
    """
    made = to_datetime64(pd.Timestamp.now("UTC")) if made is None else made
    logs = {dataset.log, *(history.log for history in histories)}
    log_end = max(log.timestamp.max() for log in logs) + MILLISECOND
    about = {"log": dataset.name, "made": made.item(), "log_end": log_end.item()}
    pasts = {(history.log, history.cutoff) for history in histories}
    seen = {past: past_fingerprint(*past) for past in pasts}
    rows = [
        about | {"seen": seen[history.log, history.cutoff]} | _row(history, forecast)
        for history, forecast in zip(histories, forecasts, strict=True)
    ]
    table = pa.Table.from_pylist(rows, SCHEMA)
    hashes = [_hash(row) for row in table.to_pylist()]
    path = folder / f"{made.item():%Y%m%dT%H%M%S}-{_hash({'rows': hashes})[:12]}.parquet"
    content = pa.BufferOutputStream()
    pq.write_table(table.append_column(HASH_COLUMN, pa.array(hashes, _TEXT)), content)
    try:
        atomic_write_bytes(path, content.getvalue().to_pybytes())
    except OSError as error:
        raise DataError(
            f"no receipt was stored: {error.filename}: {error.strerror}. Choose a folder that you "
            "may write to, on a disk with room."
        ) from error
    return path


def load_forecasts(folder: Path) -> list[StoredForecast]:
    """Read all receipts of a folder, by cutoff, user and model, however they were stored.

    Of the same forecast, stored several times, the first counts.

    Raises
    ------
    DataError
        If there is no folder or none in it, or a file or a row is not what was stored.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; `llmrec forecast --receipt` makes one.")
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.parquet")):
        for row in _whole(path, read_parquet_rows(path, [*SCHEMA.names, HASH_COLUMN])):
            same = _hash(row, OCCASION_COLUMNS)
            rows[same] = min(
                rows.get(same, row), row, key=lambda one: (one["made"], one[HASH_COLUMN])
            )
    if not rows:
        raise DataError(f"{folder} holds no receipt; `llmrec forecast --receipt` stores one.")
    order = ("cutoff", "user_id", "model", HASH_COLUMN)
    ordered = sorted(rows.values(), key=lambda row: tuple(row[name] for name in order))
    return [StoredForecast.from_row(row) for row in ordered]


def filter_forecasts(
    receipts: Sequence[StoredForecast], user_id: str | None = None, model: str | None = None
) -> list[StoredForecast]:
    """Choose the receipts of one user, and of the models with some text in their names.

    Raises
    ------
    DataError
        If there is none; it names users, or models, that have one.
    """
    if user_id is not None:
        lookup_id(pd.Index(sorted({one.user_id for one in receipts}), dtype="str"), user_id, "user")
        receipts = [one for one in receipts if one.user_id == user_id]
    if model is None:
        return list(receipts)
    found = [one for one in receipts if model in one.model]
    if not found:
        models = ", ".join(sorted({repr(one.model) for one in receipts}))
        raise DataError(f"no receipt is of a model like {model!r}; there is {models}.")
    return found


def past_fingerprint(log: Interactions, cutoff: np.datetime64) -> str:
    """Fingerprint of the events before a cutoff: who took what, when.

    Unlike `Interactions.fingerprint` it stays the same when the catalog grows, so that a log that
    has grown can be told from one whose past has changed. DataError if nothing precedes the cutoff.
    """
    past = truncate_log(log, cutoff)
    taken, codes = np.unique(past.item_idx, return_inverse=True)
    order = np.argsort(past.item_ids[taken])
    names = [*past.user_ids, "\x1e", *past.item_ids[taken][order]]
    digest = hashlib.sha256("\x1f".join(names).encode())
    for array in (past.user_offsets, np.argsort(order)[codes], past.timestamp.view(np.int64)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _row(history: History, forecast: Forecast) -> dict[str, Any]:
    """Write a history and its forecast as plain values."""
    categories, weights = history.catalog.categories, forecast.category_weights
    if len(weights) != len(categories):
        raise DataError(
            f"user {history.user_id!r}: the forecast has {len(weights)} category weights, the "
            f"catalog {len(categories)} categories. Forecast from this very history."
        )
    if history.n_events and history.log.timestamp[history.event_ids[-1]] >= history.cutoff:
        raise DataError(
            f"user {history.user_id!r}: the history holds events at its cutoff {history.cutoff}, "
            "so the period cannot be found again by time. Cut it with make_histories."
        )
    return {
        "user_id": history.user_id,
        "period": str(history.period_length),
        "cutoff": history.cutoff.item(),
        "categories": categories,
        "category_weights": weights,
        "concentration": forecast.concentration,
        "description": forecast.description,
        "statements": [asdict(statement) for statement in forecast.statements],
        **asdict(forecast.source),
    }


def _hash(row: Row, without: Iterable[str] = ()) -> str:
    """Hash the content of a row, but for its own hash."""
    content = {name: value for name, value in row.items() if name not in {HASH_COLUMN, *without}}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _whole(path: Path, rows: Sequence[Row]) -> Sequence[Row]:
    """Give the rows; DataError names the first whose content has another hash than it says."""
    for number, row in enumerate(rows):
        if _hash(row) != row[HASH_COLUMN]:
            raise DataError(
                f"{path}, row {number}: the receipt of user {row['user_id']!r} at {row['cutoff']} "
                f"by {row['model']!r} is not what was stored. Restore the file, or remove it."
            )
    return rows
