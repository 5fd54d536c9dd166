"""The store of forecasts: Parquet files with a hash of each row, to be scored later.

People stand in it by keyed hashes of their ids (`llmrec.data.keyed_ids`), in earlier files by ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.calendar import MILLISECOND, PeriodLength, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes, require_regular
from llmrec.data.ids import format_id, lookup_id
from llmrec.data.interactions import Interactions
from llmrec.data.keyed_ids import ids_by_hash, key_name, key_of, known_keys, say_missing_key
from llmrec.data.periods import History, truncate_log
from llmrec.data.tables import read_parquet_rows
from llmrec.data.versions import FIRST_VERSION, __version__, rename_model, unknown_keys
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Source, Statement

_TIME, _TEXT = pa.timestamp("ms"), pa.string()
_STATEMENT = pa.struct(
    [
        ("kind", _TEXT),
        ("category", pa.int64()),
        ("change", pa.float64()),
        ("event_ids", pa.list_(pa.int64())),
        ("probability", pa.float64()),
        ("usual_rate", pa.float64()),
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
OCCASION_COLUMNS = ("made", "log_end")  # they may differ where the same forecast is stored again
Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class StoredForecast:
    """A forecast with its user and time, and all that is needed to score it.

    Attributes
    ----------
    receipt
        Hash of all other fields.
    user_id
        As `load_forecasts` reads it a keyed hash; `with_log_ids` gives the log's own id.
    log
        Name of the log.
    seen
        Fingerprint of the events before the cutoff, see `past_fingerprint`.
    log_end
        Just after the newest event of the whole log, when the forecast was stored.
    made
        Time when it was stored, in UTC.
    categories
        (n_categories,) names, in the order of the forecast's weights.
    forecast
        As it was stored. Event ids are positions in the log of its history.
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
        """Whether the log ended before the period began, so that nothing of it could be known."""
        return bool(self.log_end <= self.cutoff)

    @property
    def model(self) -> str:
        """Name of the forecaster, and of its adapter if it has one."""
        source = self.forecast.source
        model = rename_model(source.model)
        return f"{model} + {source.adapter[:8]}" if source.adapter else model

    @classmethod
    def from_row(cls, row: Row) -> StoredForecast:
        """Make it from a row of a file."""
        statements = (one | {"event_ids": tuple(one["event_ids"])} for one in row["statements"])
        forecast = Forecast(
            np.array(row["category_weights"], dtype=np.float64),
            row["concentration"],
            row["description"],
            tuple(Statement(**one) for one in statements),
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
    folder: Path | str,
    dataset: Dataset,
    histories: Sequence[History],
    forecasts: Sequence[Forecast],
    made: np.datetime64 | None = None,
) -> Path:
    """Add a file with a row a forecast to a folder; files in it stay as they are.

    Parameters
    ----------
    dataset
        The whole log. If it has events after a cutoff, the forecast is not in advance, even if the
        forecaster was not given them. With its key ids are hashed, see `key_of`.
    histories, forecasts
        The histories, cut at a time, and their forecasts.
    made
        Time to store; default: now.

    Raises
    ------
    DataError
        If there is no forecast, one does not fit its history or is of a later period than the next,
        or the folder, or a new key, cannot be written to.
    """
    if not forecasts:
        raise DataError("there is no forecast to store")
    if later := [one.horizon for one in forecasts if one.horizon != 1]:
        raise DataError(
            f"forecasts of the next period are stored and scored, not of horizon={later[0]}"
        )
    folder = Path(folder)
    made = to_datetime64(pd.Timestamp.now("UTC")) if made is None else made
    logs = {dataset.log, *(history.log for history in histories)}
    times = [log.timestamp.max() + MILLISECOND for log in logs if len(log)]
    log_end = max([*times, *(history.population.end for history in histories)])
    occasion = {"log": dataset.name, "made": made.item(), "log_end": log_end.item()}
    pasts = {(history.log, history.cutoff) for history in histories}
    seen = {past: past_fingerprint(*past) for past in pasts}
    key = key_of(dataset)
    rows = [
        occasion
        | {"user_id": key.hash(history.user_id), "seen": seen[history.log, history.cutoff]}
        | _row(history, forecast)
        for history, forecast in zip(histories, forecasts, strict=True)
    ]
    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({"llmrec": __version__})
    hashes = [_hash(row) for row in table.to_pylist()]
    path = folder / f"{made.item():%Y%m%dT%H%M%S}-{_hash({'rows': hashes})[:12]}.parquet"
    content = pa.BufferOutputStream()
    pq.write_table(table.append_column(HASH_COLUMN, pa.array(hashes, _TEXT)), content)
    try:
        atomic_write_bytes(path, content.getvalue().to_pybytes())
    except OSError as error:
        raise DataError(
            f"no forecast was stored: {error.filename}: {error.strerror}. Choose a folder that you "
            "may write to, on a disk with room."
        ) from error
    return path


def load_forecasts(folder: Path | str) -> list[StoredForecast]:
    """Read all stored forecasts of a folder, sorted by cutoff, user and model.

    Of a forecast stored several times, the first counts.

    Raises
    ------
    DataError
        If there is no folder or no forecast in it, or a file or a row is not as it was stored.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; `llmrec forecast --store` makes one.")
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.parquet")):
        _require_known_columns(path)
        for row in _verify_hashes(path, read_parquet_rows(path, [*SCHEMA.names, HASH_COLUMN])):
            content = _hash(row, OCCASION_COLUMNS)
            rows[content] = min(
                rows.get(content, row), row, key=lambda one: (one["made"], one[HASH_COLUMN])
            )
    if not rows:
        raise DataError(f"{folder} has no stored forecast; `llmrec forecast --store` stores one.")
    order = ("cutoff", "user_id", "model", HASH_COLUMN)
    ordered = sorted(rows.values(), key=lambda row: tuple(row[name] for name in order))
    return [StoredForecast.from_row(row) for row in ordered]


def with_log_ids(forecasts: Sequence[StoredForecast], dataset: Dataset) -> list[StoredForecast]:
    """Give forecasts with ids of a log where these are known: hashed again, with the log's keys."""
    names = {key_name(one.user_id) for one in forecasts}
    keys = [key for key in known_keys(dataset) if key.name in names] if any(names) else []
    ids = ids_by_hash(dataset.log.user_ids, keys)
    return [replace(one, user_id=ids.get(one.user_id, one.user_id)) for one in forecasts]


def filter_forecasts(
    forecasts: Sequence[StoredForecast],
    dataset: Dataset,
    user_id: str | None = None,
    model: str | None = None,
) -> list[StoredForecast]:
    """Select the forecasts of one user of a log, and of models whose names contain a text.

    Raises
    ------
    DataError
        If there is none; the message names users, or models, that have one, or the missing key.
    """
    if user_id is None:
        forecasts = with_log_ids(forecasts, dataset)
    else:
        forecasts = _forecasts_of(forecasts, dataset, user_id)
    if model is None:
        return list(forecasts)
    found = [one for one in forecasts if model in one.model]
    if not found:
        models = ", ".join(sorted({repr(one.model) for one in forecasts}))
        raise DataError(f"no forecast is of a model like {model!r}; there is {models}.")
    return found


def _forecasts_of(
    forecasts: Sequence[StoredForecast], dataset: Dataset, user_id: str
) -> list[StoredForecast]:
    """Select the forecasts of one user; DataError names users that have one, or a missing key."""
    text = format_id(user_id)
    own = {text, *(key.hash(text) for key in known_keys(dataset))}
    if found := [replace(one, user_id=text) for one in forecasts if one.user_id in own]:
        return found
    require_keys(forecasts, dataset)
    named = with_log_ids(forecasts, dataset)
    users = pd.Index(sorted({one.user_id for one in named if not key_name(one.user_id)}))
    known = users[lookup_id(users, user_id, "user")]
    return [one for one in named if one.user_id == known]


def require_keys(forecasts: Sequence[StoredForecast], dataset: Dataset) -> None:
    """Raise DataError if forecasts of a log were stored under a key that is not there."""
    known = {key.name for key in known_keys(dataset)}
    own = {key_name(one.user_id) for one in forecasts if one.log == dataset.name}
    if missing := sorted(own - known - {""}):
        raise DataError(f"stored forecasts: {say_missing_key(missing[0], dataset)}")


def past_fingerprint(log: Interactions, cutoff: np.datetime64) -> str:
    """Give a fingerprint of the events before a cutoff: who took what, and when.

    Unlike `Interactions.fingerprint` it stays the same when the catalog grows: it differs only if
    the past has changed. DataError if no event precedes the cutoff.
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
    """Give a history and its forecast as plain values."""
    categories, weights = history.catalog.categories, forecast.category_weights
    if len(weights) != len(categories):
        raise DataError(
            f"user {history.user_id!r}: the forecast has {len(weights)} category weights, the "
            f"catalog {len(categories)} categories. Forecast from this very history."
        )
    if history.n_events and history.log.timestamp[history.event_ids[-1]] >= history.cutoff:
        raise DataError(
            f"user {history.user_id!r}: the history has events at its cutoff {history.cutoff}, "
            "so the period cannot be found again by time. Cut it with make_histories."
        )
    return {
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
    """Hash the values of a row, without its own hash."""
    content = {name: value for name, value in row.items() if name not in {HASH_COLUMN, *without}}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _require_known_columns(path: Path) -> None:
    """Refuse a file with columns that this version does not know: a row's hash would lack them."""
    try:
        require_regular(path)
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return  # `read_parquet_rows` says what is wrong with the file
    version = (schema.metadata or {}).get(b"llmrec", FIRST_VERSION.encode()).decode()
    if unknown := unknown_keys(schema.names, [*SCHEMA.names, HASH_COLUMN], version):
        raise DataError(f"{path}: {unknown}. Read it with that version, or remove it.")


def _verify_hashes(path: Path, rows: Sequence[Row]) -> Sequence[Row]:
    """Give the rows; DataError names the first whose values have another hash than it stores."""
    for number, row in enumerate(rows):
        if _hash(row) != row[HASH_COLUMN]:
            raise DataError(
                f"{path}, row {number}: the forecast of user {row['user_id']!r} at {row['cutoff']} "
                f"by {row['model']!r} is not as it was stored. Restore the file, or remove it."
            )
    return rows
