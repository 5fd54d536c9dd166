"""Events for a batch: read a piece at a time from Parquet files, or from a log in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.ids import read_ids
from llmrec.data.interactions import NO_CATEGORY, UNKNOWN_ITEM
from llmrec.data.options import ReadingOptions
from llmrec.data.text_times import date_order
from llmrec.data.times import parse_timestamps
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.errors import DataError
from llmrec.types import IntArray

ROWS_PER_PIECE = 65_536
PARQUET = ".parquet"
EVENTS = pa.schema(
    [
        (USER_ID, pa.large_string()),
        ("item", pa.int32()),
        (TIMESTAMP, pa.timestamp("ms")),
        ("row", pa.int64()),
    ]
)
REJECTED = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        (USER_ID, pa.large_string()),
        (ITEM_ID, pa.large_string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class EventPiece:
    """Some rows of a source.

    Attributes
    ----------
    events
        Those that can be used (`EVENTS`): items as indices into the catalog.
    rejected
        The others (`REJECTED`), with the reason of each.
    unreadable
        What could not be read at all, by file; nothing of the file from there on is used.
    """

    events: pa.Table
    rejected: pa.Table
    unreadable: Mapping[str, str] = field(default_factory=dict)


class EventSource(Protocol):
    """Where the events of a batch come from."""

    @property
    def in_order(self) -> bool:
        """Whether its rows are clean: none a duplicate, and those of one time in their order."""
        ...

    def count_rows(self) -> int:
        """Count the rows that can be read, before any is."""
        ...

    def fingerprint(self) -> str:
        """Give a hash of what is read: of files by name, size and time of change."""
        ...

    def pieces(self, catalog: Catalog) -> Iterator[EventPiece]:
        """Read everything, a piece at a time."""
        ...


@dataclass(frozen=True, eq=False)
class ParquetEvents:
    """Events in Parquet files, which are never in memory together.

    Attributes
    ----------
    paths
        The files, each with columns user_id, item_id and timestamp, or as ``columns`` names them.
    columns
        Our names to the files' names, for those that differ.
    dates
        How times are written, where they are texts or numbers; see `load_dataset`.
    day_first
        Whether texts of times have days before months, where ``dates`` does not say it.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    dates: str | None = None
    day_first: bool | None = None
    in_order: bool = False

    def count_rows(self) -> int:
        """Count the rows that can be read, before any is."""
        total = 0
        for path in self.paths:
            try:
                total += pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowException):
                continue  # `pieces` says so
        return total

    def fingerprint(self) -> str:
        """Give a hash of names, sizes and times of change."""
        found = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]
        about = repr((found, sorted(self.columns.items()), self.dates))
        return hashlib.sha256(about.encode()).hexdigest()

    def pieces(self, catalog: Catalog) -> Iterator[EventPiece]:
        """Read everything, a piece at a time; what cannot be read ends its file alone."""
        names = [self.columns.get(ours, ours) for ours in (USER_ID, ITEM_ID, TIMESTAMP)]
        for path in self.paths:
            row = 0
            try:
                file = pq.ParquetFile(path)
                if missing := sorted(set(names).difference(file.schema_arrow.names)):
                    raise DataError(f"it has no column {missing[0]!r}")
                for batch in file.iter_batches(ROWS_PER_PIECE, columns=names):
                    frame = _frame_of(batch, names)
                    yield sort_out(frame, catalog, self.day_first, self.dates, path.name, row)
                    row += len(frame)
            except (OSError, pa.ArrowException, DataError) as error:
                what = f"from row {row} on: {error}" if row else str(error)
                yield EventPiece(EVENTS.empty_table(), REJECTED.empty_table(), {str(path): what})


@dataclass(frozen=True, eq=False)
class LogEvents:
    """Events of a log in memory, which is clean."""

    dataset: Dataset
    in_order: bool = True

    def count_rows(self) -> int:
        """Count the events."""
        return len(self.dataset.log)

    def fingerprint(self) -> str:
        """Give the log's hash."""
        return self.dataset.log.fingerprint

    def pieces(self, catalog: Catalog) -> Iterator[EventPiece]:
        """Give everything, a piece at a time."""
        log = self.dataset.log
        places = catalog.item_ids.get_indexer(log.item_ids).astype(np.int64)
        for start in range(0, len(log), ROWS_PER_PIECE):
            rows = np.arange(start, min(start + ROWS_PER_PIECE, len(log)))
            users, items = log.user_ids[log.user_idx[rows]], log.item_idx[rows]
            unusable = _unusable_items(places[items], catalog)
            item_ids = pd.Series(log.item_ids[items])
            times = log.timestamp[rows]
            yield _piece(
                self.dataset.name, rows, pd.Series(users), item_ids, times, places[items], unusable
            )


def find_events(
    data: Path | str | Dataset, reading: ReadingOptions, day_first: bool | None = None
) -> EventSource:
    """Find the events of a batch: Parquet files are read in pieces, all else is loaded whole.

    Files that are read in pieces are one Parquet file, or all files of a folder that holds nothing
    else, and have plain columns; then no option but ``columns`` and ``dates`` may be given.
    ``day_first`` is as of the log that the engine was fitted on.

    Raises
    ------
    DataError
        If there is nothing to read, or the log cannot be loaded.
    """
    if isinstance(data, Dataset):
        return LogEvents(data)
    files = _parquet_files(Path(data))
    columns = dict(reading.columns or {})
    if files and not set(reading.to_dict()) - {"columns", "dates"} and _has_columns(files, columns):
        return ParquetEvents(files, columns, reading.dates, day_first)
    return LogEvents(reading.load(str(data)))


def _parquet_files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,) if path.suffix == PARQUET else ()
    if not path.is_dir():
        return ()
    files = [one for one in sorted(path.iterdir()) if not one.name.startswith((".", "_"))]
    return tuple(files) if all(one.suffix == PARQUET for one in files) else ()


def _has_columns(paths: tuple[Path, ...], columns: Mapping[str, str]) -> bool:
    """Whether the first of the files that can be read has the columns of events."""
    wanted = {columns.get(ours, ours) for ours in (USER_ID, ITEM_ID, TIMESTAMP)}
    for path in paths:
        try:
            return wanted <= set(pq.read_schema(path).names)
        except (OSError, pa.ArrowException):
            continue
    return False


def _frame_of(batch: pa.RecordBatch, names: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = batch.select(names).to_pandas()
    return frame.set_axis([USER_ID, ITEM_ID, TIMESTAMP], axis=1)


def sort_out(
    frame: pd.DataFrame,
    catalog: Catalog,
    day_first: bool | None = None,
    dates: str | None = None,
    file: str = "",
    first_row: int = 0,
) -> EventPiece:
    """Tell the rows of a frame that are events from those that are none.

    Parameters
    ----------
    frame
        (n_rows, ...) with columns user_id, item_id and timestamp.
    day_first, dates
        As of `ParquetEvents`.
    file, first_row
        What the frame is of, and the number of its first row there.

    Raises
    ------
    DataError
        If a column cannot be read.
    """
    if dates is None and not pd.api.types.is_numeric_dtype(frame[TIMESTAMP].dtype):
        dates = date_order(day_first)
    users, items = read_ids(frame[USER_ID]), read_ids(frame[ITEM_ID])
    times = parse_timestamps(frame[TIMESTAMP], dates)
    item_ids = pd.Series(items.labels).reindex(items.codes)  # -1 is none
    places = catalog.item_ids.get_indexer(pd.Index(item_ids.fillna(""))).astype(np.int64)
    reasons = _unusable_items(places, catalog)
    for reason, unusable in times.unusable.items():
        reasons[unusable] = reason
    reasons[items.codes < 0] = f"missing {ITEM_ID}"
    reasons[users.codes < 0] = f"missing {USER_ID}"
    rows = np.arange(first_row, first_row + len(frame))
    user_ids = pd.Series(users.labels).reindex(users.codes)
    return _piece(file, rows, user_ids, item_ids, times.times, places, reasons)


def _unusable_items(places: IntArray, catalog: Catalog) -> Any:
    """(n_rows,) why an item cannot be used, as texts; "" if it can. A place of -1 is no item."""
    reasons = np.where(catalog.has_category[places], "", NO_CATEGORY)
    return np.where(places < 0, UNKNOWN_ITEM, reasons).astype(object)


def _piece(
    file: str,
    rows: IntArray,
    user_ids: pd.Series[Any],
    item_ids: pd.Series[Any],
    times: Any,
    places: Any,
    reasons: Any,
) -> EventPiece:
    """Put rows with a reason to leave them out apart; all arrays are (n_rows,)."""
    good = reasons == ""
    events = [user_ids[good].array, places[good], times[good], rows[good]]
    bad = [
        np.full((~good).sum(), file, dtype=object),
        rows[~good],
        user_ids[~good].array,
        item_ids[~good].array,
        reasons[~good],
    ]
    return EventPiece(_table(events, EVENTS), _table(bad, REJECTED))


def _table(columns: list[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.array(column, field.type, from_pandas=True)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)
