"""A person's forecasts taken out of the store; all others keep their hashes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.keyed_ids import key_name
from llmrec.data.tables import name_in_errors
from llmrec.evaluation.forecast_store import load_forecasts, require_keys


def count_forecasts(folder: Path, ids: Collection[str], dataset: Dataset) -> tuple[int, int]:
    """Count all stored forecasts of a folder, and those of a person.

    Parameters
    ----------
    ids
        The person's id and its keyed hashes: files of earlier versions hold the id.
    dataset
        Whose person it is.

    Raises
    ------
    DataError
        If a file is broken, or the key of some of this log's people is missing: nobody can say
        then whose they are.
    """
    if not folder.is_dir() or not any(folder.glob("*.parquet")):
        return 0, 0
    require_keys(load_forecasts(folder), dataset)
    own = [_is_own(_read(path), ids, dataset.name) for path in folder.glob("*.parquet")]
    return sum(map(len, own)), sum(pc.sum(one).as_py() or 0 for one in own)


def remove_forecasts(folder: Path, ids: Collection[str], dataset: Dataset) -> None:
    """Write the files that hold a person's forecasts without these; empty ones are deleted."""
    for path in sorted(folder.glob("*.parquet")):
        table = _read(path)
        kept = table.filter(pc.invert(_is_own(table, ids, dataset.name)))
        if not len(kept):
            path.unlink()
        elif len(kept) < len(table):
            content = pa.BufferOutputStream()
            pq.write_table(kept, content)
            atomic_write_bytes(path, content.getvalue().to_pybytes())


def _read(path: Path) -> pa.Table:
    with name_in_errors(path):
        return pq.read_table(pa.BufferReader(path.read_bytes()))


def _is_own(table: pa.Table, ids: Collection[str], log: str) -> pa.ChunkedArray:
    """Say which rows are the person's: a plain id may be somebody else's of another log."""
    keyed = pa.array(sorted(one for one in ids if key_name(one)), pa.string())
    plain = pa.array(sorted(one for one in ids if not key_name(one)), pa.string())
    users = table["user_id"]
    in_log = pc.and_(pc.is_in(users, plain), pc.equal(table["log"], log))
    return pc.or_(pc.is_in(users, keyed), in_log)
