"""Parquet files of a fixed schema, written whole and checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.files import atomic_write_bytes, require_regular
from llmrec.data.json_values import UNREADABLE
from llmrec.errors import ModelLoadError

_VALUES = b"llmrec"  # key of the metadata that holds plain values


def write_parquet_table(
    path: Path,
    columns: Sequence[Any],
    schema: pa.Schema,
    values: Mapping[str, Any],
    *,
    deltas: Sequence[str] = (),
) -> None:
    """Write columns and plain values to a Parquet file (zstd), atomically.

    ``deltas`` are the columns of rising whole numbers or times, stored as their differences.
    """
    metadata = {_VALUES: json.dumps(dict(values), ensure_ascii=False).encode()}
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    content = pa.BufferOutputStream()
    pq.write_table(
        pa.table(arrays, schema=schema.with_metadata(metadata)),
        content,
        compression="zstd",
        use_dictionary=[name for name in schema.names if name not in deltas],
        column_encoding=dict.fromkeys(deltas, "DELTA_BINARY_PACKED") or None,
    )
    atomic_write_bytes(path, content.getvalue().to_pybytes())


def read_parquet_table(
    path: Path, schema: pa.Schema, further: pa.Field | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Read the table and the values that `write_parquet_table` wrote.

    Parameters
    ----------
    further
        Type of the columns that may follow those of the schema, and what their names begin with.

    Raises
    ------
    ModelLoadError
        If the file is missing or broken, or has other columns or an empty cell; it names the file.
    """
    try:
        require_regular(path)
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        if further is not None:
            names = [name for name in table.schema.names if name.startswith(further.name)]
            schema = pa.schema([*schema, *(pa.field(name, further.type) for name in names)])
        if not table.schema.equals(schema):
            raise ValueError(f"its columns are {_describe(table.schema)}, not {_describe(schema)}")
        if empty := [name for name in schema.names if table[name].null_count]:
            raise ValueError(f"column {empty[0]!r} has an empty cell")
        values = json.loads((table.schema.metadata or {}).get(_VALUES, b"null"))
        if not isinstance(values, dict):
            raise ValueError("it was not written by llmrec")
        return table, values
    except UNREADABLE as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema)
