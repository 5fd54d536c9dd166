"""Events for a batch: read a piece at a time from Parquet files, or from a log in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from llmrec.data.table_folder import find_tables
from llmrec.data.times import parse_timestamps
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.errors import DataError
from llmrec.types import IntArray

ROWS_PER_PIECE = 65_536
PARQUET = ".parquet"
# What a broken file raises: OSError, ArrowException, DataError; a text that is none, ValueError.
UNREADABLE = (OSError, pa.ArrowException, ValueError)
EVENT_SCHEMA = pa.schema(
    [
        (USER_ID, pa.large_string()),
        ("item", pa.int32()),
        (TIMESTAMP, pa.timestamp("ms")),
        ("row", pa.int64()),
    ]
)
REJECTED_SCHEMA = pa.schema(
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
        Those that can be used (`EVENT_SCHEMA`): items as indices into the catalog.
    rejected
        The others (`REJECTED_SCHEMA`), with the reason of each.
    unreadable
        What could not be read at all, by file; nothing of the file from there on is used.
    """

    events: pa.Table
    rejected: pa.Table
    unreadable: Mapping[str, str] = field(default_factory=dict)


class EventSource(Protocol):
    """Where the events of a batch come from."""

    @property
    def is_clean(self) -> bool:
        """Whether its rows are clean: none a duplicate, and those of one time in their order."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """Rows that were left out before any is read here, by reason."""
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
        The files, each with columns user_id, item_id and timestamp, or as ``columns`` names them;
        times are of a type of Parquet's own, so that no piece of them is read in its own way.
    columns
        Our names to the files' names, for those that differ.
    """

    paths: tuple[Path, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    is_clean: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)

    def count_rows(self) -> int:
        """Count the rows that can be read, before any is."""
        total = 0
        for path in self.paths:
            try:
                total += pq.read_metadata(path).num_rows
            except UNREADABLE:
                continue  # `pieces` says so
        return total

    def fingerprint(self) -> str:
        """Give a hash of names, sizes and times of change."""
        found = [(path.name, *_size_and_time(path)) for path in self.paths]
        about = repr((found, sorted(self.columns.items())))
        return hashlib.sha256(about.encode()).hexdigest()

    def pieces(self, catalog: Catalog) -> Iterator[EventPiece]:
        """Read everything, a piece at a time; what cannot be read ends its file alone."""
        names = [self.columns.get(ours, ours) for ours in (USER_ID, ITEM_ID, TIMESTAMP)]
        for path in self.paths:
            row = 0
            try:
                file = pq.ParquetFile(path)
                _require_columns(file.schema_arrow, names)
                for batch in file.iter_batches(ROWS_PER_PIECE, columns=names):
                    frame = _frame_of(batch, names)
                    yield split_rows(frame, catalog, file=path.name, first_row=row)
                    row += len(frame)
            except UNREADABLE as error:
                what = f"from row {row} on: {error}" if row else str(error)
                yield EventPiece(
                    EVENT_SCHEMA.empty_table(), REJECTED_SCHEMA.empty_table(), {str(path): what}
                )


@dataclass(frozen=True, eq=False)
class LogEvents:
    """Events of a log in memory, which is clean."""

    dataset: Dataset
    is_clean: bool = True

    def count_rows(self) -> int:
        """Count the events."""
        return len(self.dataset.log)

    def fingerprint(self) -> str:
        """Give the log's hash."""
        return self.dataset.log.fingerprint

    @property
    def left_out(self) -> Mapping[str, int]:
        """Rows that were left out when the log was loaded, by reason."""
        return self.dataset.log.report.dropped

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
            yield _make_piece(
                self.dataset.name, rows, pd.Series(users), item_ids, times, places[items], unusable
            )


def find_events(data: Path | str | Dataset, reading: ReadingOptions) -> EventSource:
    """Find the events of a batch: Parquet files are read in pieces, all else is loaded whole.

    Files that are read in pieces are one Parquet file, or those of events in a folder, and have
    plain columns, with times of a type of Parquet's own. What options say of periods and words is
    the engine's already.

    Raises
    ------
    DataError
        If there is nothing to read, or the log cannot be loaded.
    """
    if isinstance(data, Dataset):
        return LogEvents(data)
    files, columns = _parquet_files(Path(data)), dict(reading.columns or {})
    if files and _have_events(files, columns):
        return ParquetEvents(files, columns)
    return LogEvents(reading.load(str(data)))


def _parquet_files(path: Path) -> tuple[Path, ...]:
    """Give the Parquet files of events of a path; none if there are others, too."""
    if path.is_file():
        return (path,) if path.suffix == PARQUET else ()
    files = [one for one in path.glob("*") if not one.name.startswith((".", "_"))]
    if not files or any(one.suffix != PARQUET for one in files):
        return ()
    try:
        events, _ = find_tables(path)
    except UNREADABLE:
        events = sorted(files)
    return tuple(events)


def _have_events(paths: tuple[Path, ...], columns: Mapping[str, str]) -> bool:
    """Whether the first of the files that can be read has the columns of events."""
    names = [columns.get(ours, ours) for ours in (USER_ID, ITEM_ID, TIMESTAMP)]
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except UNREADABLE:
            continue
        try:
            _require_columns(schema, names)
        except DataError:
            return False
        return True
    return False


def _require_columns(schema: pa.Schema, names: Sequence[str]) -> None:
    """Raise a DataError if a column is missing, or the last is of no type of times."""
    if missing := sorted(set(names).difference(schema.names)):
        raise DataError(f"it has no column {missing[0]!r}")
    kind = schema.field(names[-1]).type
    if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        raise DataError(f"column {names[-1]!r} is {kind}, no time")


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        return path.stat().st_size, path.stat().st_mtime_ns
    except OSError:  # a link to nothing; `pieces` says so
        return 0, 0


def _frame_of(batch: pa.RecordBatch, names: list[str]) -> pd.DataFrame:
    # With a null among them whole numbers would become floats, which do not hold large ones.
    frame: pd.DataFrame = batch.select(names).to_pandas(integer_object_nulls=True)
    return frame.set_axis([USER_ID, ITEM_ID, TIMESTAMP], axis=1)


def split_rows(
    frame: pd.DataFrame,
    catalog: Catalog,
    *,
    dates: str | None = None,
    file: str = "",
    first_row: int = 0,
) -> EventPiece:
    """Tell the rows of a frame that are events from those that are none.

    Parameters
    ----------
    frame
        (n_rows, ...) with columns user_id, item_id and timestamp.
    dates
        How times are written, where they are texts or numbers; see `load_dataset`.
    file, first_row
        What the frame is of, and the number of its first row there.

    Raises
    ------
    DataError
        If a column cannot be read.
    """
    users, items = (read_ids(frame[name], join_decimals=False) for name in (USER_ID, ITEM_ID))
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
    return _make_piece(file, rows, user_ids, item_ids, times.times, places, reasons)


def _unusable_items(places: IntArray, catalog: Catalog) -> Any:
    """(n_rows,) why an item cannot be used, as texts; "" if it can. A place of -1 is no item."""
    reasons = np.where(catalog.has_category[places], "", NO_CATEGORY)
    return np.where(places < 0, UNKNOWN_ITEM, reasons).astype(object)


def _make_piece(
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
    return EventPiece(make_table(events, EVENT_SCHEMA), make_table(bad, REJECTED_SCHEMA))


def make_table(columns: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Make a table of columns, whose missing values are null."""
    arrays = [
        pa.array(column, field.type, from_pandas=True)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)
