"""Events of many people on disk, in shards of whole people."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.batch.events import EVENT_SCHEMA, REJECTED_SCHEMA, EventPiece, EventSource
from llmrec.data.catalog import Catalog
from llmrec.data.files import atomic_folder, atomic_write_text, save_hashes
from llmrec.data.json_values import UNREADABLE, describe_error, read_json_object, require_hashes
from llmrec.data.validation import TIMESTAMP, USER_ID
from llmrec.errors import DataError
from llmrec.types import IntArray

EVENTS_PER_CELL = 50_000
MAX_SHARDS = 500  # files that are open at a time
ABOUT = "about.json"
REJECTED_ROWS = "rows.parquet"


@dataclass(frozen=True)
class Partition:
    """Events that were cut into shards.

    People are in cells by a hash of their ids, and a shard is of several cells. The last bits of
    what is computed of a person may depend on who else is in the computation: everybody of a cell,
    whatever the size of shards and their order.

    Attributes
    ----------
    n_cells
        How many; each is of one shard.
    shard_rows
        Events of each shard.
    n_rejected
        Rows that are no events.
    newest
        Milliseconds from 1970 to the newest event.
    is_clean, left_out
        As of the source.
    unreadable
        Files of which something could not be read, with what is wrong.
    """

    n_cells: int
    shard_rows: list[int]
    n_rejected: int
    newest: int
    is_clean: bool
    left_out: dict[str, int]
    unreadable: dict[str, str]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.shard_rows)

    @property
    def n_events(self) -> int:
        """Rows that are events."""
        return sum(self.shard_rows)

    def cells_of(self, shard: int) -> range:
        """Give the cells of a shard."""
        return range(*first_cells(self.n_cells, self.n_shards)[shard : shard + 2].tolist())


def cut_into_shards(
    source: EventSource, catalog: Catalog, folder: Path, events_per_shard: int
) -> Partition:
    """Read all events once, and write them to a new folder by shards of about so many events.

    A shard is no smaller than a cell of `EVENTS_PER_CELL`, and there are `MAX_SHARDS` at most. The
    folder is there when all is in it, or not at all.

    Raises
    ------
    DataError
        If no row is an event of an item that the catalog knows.
    """
    n_rows = source.count_rows()
    n_cells = max(1, round(n_rows / EVENTS_PER_CELL))
    n_shards = int(np.clip(round(n_rows / events_per_shard), 1, min(n_cells, MAX_SHARDS)))
    with atomic_folder(folder) as partial, ExitStack() as files:
        writer = _ShardWriter(partial, n_cells, n_shards, files)
        unreadable: dict[str, str] = {}
        for piece in source.pieces(catalog):
            unreadable |= piece.unreadable
            writer.write(piece)
        if not writer.shard_rows.any():
            found = [f"{file}: {what}" for file, what in unreadable.items()]
            found += [f"{n} times {reason}" for reason, n in writer.reasons.most_common(3)]
            raise DataError(f"no row is an event: {'; '.join(found) or 'there are none'}.")
        made = Partition(
            n_cells,
            writer.shard_rows.tolist(),
            writer.n_rejected,
            writer.newest,
            source.is_clean,
            dict(source.left_out),
            unreadable,
        )
        files.close()
        atomic_write_text(partial / ABOUT, json.dumps(asdict(made), indent=1))
        save_hashes(partial)
    return made


def load_partition(folder: Path) -> Partition:
    """Load what `cut_into_shards` wrote; DataError if it is broken."""
    path = folder / ABOUT
    try:
        require_hashes(folder)
        made = Partition(**read_json_object(path))
        counts = (made.n_cells, *made.shard_rows, made.n_rejected, made.newest)
        lists_rows = isinstance(made.shard_rows, list) and 1 <= made.n_shards <= made.n_cells
        if not lists_rows or not all(type(n) is int and 0 <= n < 2**62 for n in counts):
            raise ValueError("its numbers of cells and rows cannot be")
        if not isinstance(made.left_out, dict) or not isinstance(made.unreadable, dict):
            raise ValueError("what was left out is no object")
        return made
    except UNREADABLE as error:
        told = describe_error(error)
        raise DataError(f"{path} cannot be read: {told}. Remove it, and begin anew.") from error


def read_cells(folder: Path, partition: Partition, shard: int) -> Iterator[pa.Table]:
    """Give the events of each cell of a shard, in an order that does not depend on that of rows.

    Raises
    ------
    DataError
        If the file is not as it was written.
    """
    file = _shard_file(folder, shard)
    try:
        with pa.ipc.open_stream(file) as reader:
            events = reader.read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}. Begin anew in another folder.") from error
    if len(events) != partition.shard_rows[shard]:
        expected = partition.shard_rows[shard]
        raise DataError(f"{file} holds {len(events)} events, not {expected}: begin anew.")
    cells = cell_numbers(events[USER_ID], partition.n_cells)
    last = "row" if partition.is_clean else "item"
    for cell in partition.cells_of(shard):
        keys = [(USER_ID, "ascending"), (TIMESTAMP, "ascending"), (last, "ascending")]
        yield events.filter(pa.array(cells == cell)).sort_by(keys).combine_chunks()


def hash_cells(cells: Sequence[pa.Table]) -> str:
    """Give the SHA-256 of the events of cells, whatever their rows were called."""
    digest = hashlib.sha256()
    for cell in cells:
        for name in (USER_ID, "item", TIMESTAMP):
            column = cell[name].to_numpy(zero_copy_only=False)
            digest.update(pd.util.hash_array(column, categorize=False).tobytes())
    return digest.hexdigest()


def first_cells(n_cells: int, n_shards: int) -> IntArray:
    """(n_shards + 1,) the first cell of each shard, and where the last one ends."""
    return np.arange(n_shards + 1) * n_cells // n_shards


def cell_numbers(user_ids: pa.ChunkedArray, n_cells: int) -> IntArray:
    """(n_rows,) the cell of each row's person, by a hash of the id."""
    ids = user_ids.to_numpy(zero_copy_only=False)
    return np.asarray(pd.util.hash_array(ids) % np.uint64(n_cells), dtype=np.int64)


class _ShardWriter:
    """Writes pieces to files of shards, all of which are open, and rejected rows to another."""

    def __init__(self, folder: Path, n_cells: int, n_shards: int, files: ExitStack) -> None:
        self.n_cells, self._first_cells = n_cells, first_cells(n_cells, n_shards)
        self.shard_rows = np.zeros(n_shards, dtype=np.int64)
        self.n_rejected = self.newest = 0
        self.reasons: Counter[str] = Counter()  # of rejected rows
        self._shards = [
            files.enter_context(pa.ipc.new_stream(_shard_file(folder, shard), EVENT_SCHEMA))
            for shard in range(n_shards)
        ]
        self._rejected = files.enter_context(
            pq.ParquetWriter(folder / REJECTED_ROWS, REJECTED_SCHEMA)
        )

    def write(self, piece: EventPiece) -> None:
        """Write the rows of a piece to where they belong."""
        self.n_rejected += len(piece.rejected)
        if len(piece.rejected):
            self._rejected.write_table(piece.rejected)
            self.reasons.update(piece.rejected["reason"].to_pylist())
        if not (n_events := len(piece.events)):
            return
        newest = int(piece.events[TIMESTAMP].to_numpy().max().astype(np.int64))
        self.newest = max(self.newest, newest)
        cells = cell_numbers(piece.events[USER_ID], self.n_cells)
        shards = np.searchsorted(self._first_cells, cells, side="right") - 1
        order = np.argsort(shards, kind="stable")
        found, starts = np.unique(shards[order], return_index=True)
        rows = piece.events.take(pa.array(order))
        for shard, start, stop in zip(found, starts, [*starts[1:], n_events], strict=True):
            self._shards[shard].write_table(rows.slice(start, stop - start))
            self.shard_rows[shard] += stop - start


def _shard_file(folder: Path, shard: int) -> str:
    return str(folder / f"{shard:05d}.arrow")
