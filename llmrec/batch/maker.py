"""Makes the shards of a batch, each of which is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from llmrec.batch.events import PARQUET
from llmrec.batch.people import BatchOptions, BatchTables, load_engine, make_tables
from llmrec.batch.shards import Partition, hash_cells, load_partition, read_cells
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.engine import InterestEngine

RECOMMENDATIONS, FORECASTS, REJECTED = "recommendations", "forecasts", "rejected"
WORK = Path(".batch")  # removed at the end
EVENTS_FOLDER, _DONE = WORK / "events", WORK / "done"


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard.

    Attributes
    ----------
    n_people, n_failed, n_without_past
        People who were served, for whom it failed, and who have no event before the cutoff.
    events
        Hash of the events.
    n_by_model
        See `BatchTables`.
    """

    shard: int
    n_people: int
    n_failed: int
    n_without_past: int
    events: str
    n_by_model: int = 0


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards; a worker process or an actor opens it once.

    Attributes
    ----------
    engine, cutoff
        As of `InterestEngine.from_pretrained`.
    out
        The batch's folder.
    use_model
        Whether the engine has a language model, and it is used.
    """

    engine: str
    cutoff: str
    out: Path
    options: BatchOptions
    use_model: bool = False

    def open(self) -> Callable[[int], ShardReport]:
        """Load the engine, and give what makes one shard."""
        engine = load_engine(self.engine, self.options, cutoff=self.cutoff)
        partition = load_partition(self.out / EVENTS_FOLDER)
        return lambda shard: self._make(engine, partition, shard)

    def _make(self, engine: InterestEngine, partition: Partition, shard: int) -> ShardReport:
        """Write a shard's tables, each whole, and then that it is done."""
        cells = list(read_cells(self.out / EVENTS_FOLDER, partition, shard))
        with threadpool_limits(1, "blas"):  # with more threads the last bits would be others
            each = [
                make_tables(engine, cell, self.options, is_clean=partition.is_clean)
                for cell in cells
            ]
        made = BatchTables.join(each)
        _write_table(_part(self.out / RECOMMENDATIONS, shard), made.recommendations)
        _write_table(_part(self.out / FORECASTS, shard), made.forecasts)
        if len(made.rejected):
            _write_table(_part(self.out / REJECTED, shard), made.rejected)
        without = len(made.rejected) - made.n_failed
        counts = len(made.forecasts), made.n_failed, without
        report = ShardReport(shard, *counts, hash_cells(cells), made.n_by_model)
        atomic_write_text(done_file(self.out, shard), json.dumps(asdict(report)))
        return report


def _write_table(path: Path, table: pa.Table) -> None:
    atomic_write_bytes(path, parquet_bytes(table))


def parquet_bytes(table: pa.Table) -> bytes:
    """Give the Parquet file of a table."""
    content = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), content, compression="zstd")
    found: bytes = content.getvalue().to_pybytes()
    return found


def _part(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}{PARQUET}"


def done_file(out: Path, shard: int) -> Path:
    """Give the file that says that a shard is there, and what is in it."""
    return out / _DONE / f"{shard:05d}.json"
