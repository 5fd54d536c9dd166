"""Tables read from files, with errors that name file and line; files and folders written whole."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.errors import DataError

_MAX_JSON_LINE = 1 << 26  # bytes: a line must fit into a block of 64 MB
# Temporary files are private; a written file gets the rights any other file would. There is no way
# to ask for the mask but to set it.
_UMASK = os.umask(0)
os.umask(_UMASK)


def read_table_file(path: Path, ids: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table whose first row names its columns: .csv, .tsv (also .gz) or .parquet.

    Columns called ``ids`` are read as text: 007 and 7 are two people.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind == "parquet":
        return read_parquet(path)
    if kind not in ("csv", "tsv"):
        raise DataError(f"{path.name} is not a .csv, .tsv or .parquet file.")
    return read_delimited(path, "," if kind == "csv" else "\t", quoted=True, ids=ids)


def read_delimited(
    path: Path,
    separator: str,
    names: Sequence[str] | None = None,
    *,
    encoding: str = "utf-8",
    quoted: bool = False,
    ids: Sequence[str] = (),
) -> pd.DataFrame:
    """Read delimited text.

    Parameters
    ----------
    separator
        One character, or several (then the file is read whole and without quotes).
    names
        Names of the columns; None: the first line has them.
    quoted
        Whether a value may stand in double quotes and then hold separators and line breaks.
    ids
        Columns to read as text, whatever they look like.

    Raises
    ------
    DataError
        If the file is not there, has no rows or another encoding, or a line too many values.
    """
    with _name_in_errors(path):
        source: Path | StringIO = path
        if len(separator) > 1:
            source = StringIO(path.read_text(encoding).replace(separator, "\t"))
            separator = "\t"
        frame: pd.DataFrame = pd.read_csv(
            source,
            sep=separator,
            names=None if names is None else list(names),
            header=0 if names is None else None,
            index_col=False,
            encoding=encoding,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            dtype=dict.fromkeys(ids, "str"),
            keep_default_na=False,  # a film may be called "NA"
            na_values=[""],
            low_memory=False,
        )
        if not len(frame):
            raise DataError("it holds no rows.")
    return frame


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file, or some of its columns; DataError if it is broken or lacks one."""
    import pyarrow.parquet as pq

    with _name_in_errors(path):
        names = pq.read_schema(path).names
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise DataError(
                f"column {missing[0]!r} is missing (columns found: {', '.join(names)})."
            )
        return pd.read_parquet(path, columns=None if columns is None else list(columns))


def read_parquet_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a Parquet file as rows of plain values; DataError if it is broken or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _name_in_errors(path):
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        if missing := sorted(set(columns) - set(table.column_names)):
            raise DataError(f"column {missing[0]!r} is missing.")
        rows: list[dict[str, Any]] = table.select(columns).to_pylist()
        return rows


def read_json_lines(path: Path, fields: Mapping[str, Any]) -> pd.DataFrame:
    """Read some fields of a file of JSON objects, one a line, maybe gzipped.

    ``fields`` are names and Arrow types. A field that no line has is no column of the result.
    """
    import pyarrow as pa
    import pyarrow.json as pj

    options = pj.ParseOptions(
        explicit_schema=pa.schema(dict(fields)), unexpected_field_behavior="ignore"
    )
    with _name_in_errors(path):
        try:
            table = pj.read_json(path, pj.ReadOptions(block_size=_MAX_JSON_LINE), options)
        except pa.ArrowInvalid as error:
            raise DataError(f"{_first_broken_line(path) or error}.") from error
    present = [name for name in table.column_names if table[name].null_count < len(table)]
    return pd.DataFrame(table.select(present).to_pandas())


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_write_bytes` does."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that gets its name, synced, once it is filled; or goes away.

    Nothing may be at ``path`` when it is filled.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed program left
    try:
        partial.mkdir(parents=True)
        yield partial
        for inside in (*partial.rglob("*"), partial):
            _sync(inside)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Push a file, or the names in a folder, to the disk."""
    if os.name == "nt":  # Windows syncs neither folders nor files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_broken_line(path: Path) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                json.loads(line)
            except ValueError as error:
                return f"line {number} is not JSON ({error}): {line[:60]!r}"
    return ""


@contextmanager
def _name_in_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading a file raises into a DataError that begins with its name."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except UnicodeError as error:
        raise DataError(f"{path} is in another encoding: {error}. Save it again.") from error
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).replace("Error tokenizing data. C error: ", "").strip().rstrip(".")
        raise DataError(f"{path}: {reason}. Correct or replace the file.") from error
