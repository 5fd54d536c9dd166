"""The files of a log without the rows of one person, all other rows byte for byte as they were.

Plain tables, MovieLens and RecBole's atomic files are written; other layouts have the person in
several tables, and are refused. A file is read again before it is used: rows that would not be the
same are refused, too.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data import formats
from llmrec.data.column_names import match_columns
from llmrec.data.delimited import read_head, take_separator
from llmrec.data.files import atomic_write_bytes
from llmrec.data.ids import format_id, read_ids
from llmrec.data.readers import choose_layout
from llmrec.data.table_folder import find_tables
from llmrec.data.tables import TableReader, name_in_errors, table_kind
from llmrec.data.text_files import find_packing, read_text
from llmrec.data.validation import USER_ID
from llmrec.errors import DataError
from llmrec.types import BoolArray

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BYTE_MARK = b"\xef\xbb\xbf"
_JSON = ("json", "jsonl", "ndjson")
# The file of events of a layout, its separator, and the column of people: a place where there is no
# line of names.
_LAYOUTS: Mapping[Any, tuple[str, str | None, str | int]] = {
    formats.read_movielens_100k: ("u.data", "\t", 0),
    formats.read_movielens_1m: ("ratings.dat", "::", 0),
    formats.read_movielens_csv: ("ratings.csv", None, "userId"),
    formats.read_recbole: ("*.inter", "\t", "user_id:token"),
}


@dataclass(frozen=True)
class EventFile:
    """A file of events.

    Attributes
    ----------
    path
        Its place.
    separator
        Of values; None: what the file says.
    column
        That of people, by name, or by place where no line names the columns.
    """

    path: Path
    separator: str | None
    column: str | int


@dataclass(frozen=True)
class RemovedRows:
    """A file, and how many rows of events it had and has."""

    path: Path
    n_before: int
    n_after: int


def find_event_files(source: Path, columns: Mapping[str, str]) -> list[EventFile]:
    """Find the files of a log that rows can be taken out of.

    Parameters
    ----------
    source
        What `load_dataset` reads.
    columns
        Our names of columns to the tables', see `load_dataset`.

    Raises
    ------
    DataError
        If it is of another layout; the message says what to do instead.
    """
    layout = choose_layout(source, columns)
    if layout is None:
        paths = [source] if source.is_file() else find_tables(source)[0]
        return [EventFile(path, None, _user_column(path, columns)) for path in paths]
    if layout not in _LAYOUTS:
        raise DataError(
            f"{source} is of the layout of {layout.__name__.removeprefix('read_')}, and rows are "
            "taken out of plain tables, MovieLens and RecBole's files alone: take those of the "
            "person out yourself, and run the same command again for all else."
        )
    pattern, separator, column = _LAYOUTS[layout]
    return [EventFile(formats.only_file(source, pattern), separator, column)]


def write_without_person(
    source: Path, draft: Path, files: Sequence[EventFile], user_id: object
) -> list[RemovedRows]:
    """Make a copy of a log in which a person has no row; files without them are linked.

    Parameters
    ----------
    source
        The log's file or folder.
    draft
        Where the copy is put; what is there already goes away.
    files
        See `find_event_files`.

    Returns
    -------
    list of RemovedRows
        Those of the files that differ, by their places in the source.

    Raises
    ------
    DataError
        If a file is packed, in UTF-16, or cannot be written so that the other rows stay.
    """
    shutil.rmtree(draft.parent, ignore_errors=True)  # what a killed program left
    draft.parent.mkdir(mode=0o700, parents=True)  # a copy of the log for nobody else's eyes
    found = {}
    for file in files:
        target = draft / file.path.relative_to(source) if source.is_dir() else draft
        with name_in_errors(file.path):
            if (rows := _write_without(file, format_id(user_id), target)) is not None:
                found[file.path] = rows
    paths = [source] if source.is_file() else [one for one in source.rglob("*") if one.is_file()]
    for path in paths:
        if path not in found:
            target = draft / path.relative_to(source) if source.is_dir() else draft
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(path, target)
    return list(found.values())


def _user_column(path: Path, columns: Mapping[str, str]) -> str:
    """Name the column of people in a plain table."""
    reader = TableReader()
    frame = reader.table(path, allow_empty=True)
    return match_columns(frame, [USER_ID], columns, reader).get(USER_ID, USER_ID)


def _write_without(file: EventFile, user_id: str, target: Path) -> RemovedRows | None:
    """Write a file without a person's rows, and read it again; None: it has none of them."""
    before = _read_frame(file, file.path)
    own = _is_person(before.iloc[:, _place(file, before)], user_id)
    is_text = table_kind(file.path) != "parquet"
    try:
        content = _text_without(file, user_id) if is_text else _parquet_without(file, own)
    except DataError:
        if own.any():
            raise
        content = None  # one of several files, which need not be written
    if content is None:
        return None
    atomic_write_bytes(target, content)
    after = _read_frame(file, target)
    expected = before[~own].reset_index(drop=True)
    if is_text and not after.reset_index(drop=True).equals(expected):
        raise DataError(
            "its other rows would not stay as they are: take the person's rows out of it yourself, "
            "and run the same command again for all else."
        )
    return RemovedRows(file.path, len(before), len(after))


def _read_frame(file: EventFile, path: Path) -> pd.DataFrame:
    reader = TableReader()
    if file.separator is None:
        return reader.table(path, allow_empty=True)
    n_columns = 4  # of MovieLens's files without names
    names = [str(place) for place in range(n_columns)] if isinstance(file.column, int) else None
    return reader.delimited(path, file.separator, names, allow_empty=True)


def _place(file: EventFile, frame: pd.DataFrame) -> int:
    if isinstance(file.column, int):
        return file.column
    names = [str(name) for name in frame.columns]
    if file.column not in names:
        raise DataError(f"column {file.column!r} is missing (columns found: {', '.join(names)}).")
    return names.index(file.column)


def _is_person(values: pd.Series[Any], user_id: str) -> BoolArray:
    """(n_rows,) which values of a column of ids are a person's."""
    ids = read_ids(values.reset_index(drop=True))
    return np.append(np.asarray(ids.labels == user_id), False)[ids.codes]


def _parquet_without(file: EventFile, own: BoolArray) -> bytes | None:
    """Give a Parquet file without some rows; no dictionary keeps what only these had."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not own.any():
        return None
    table = pq.ParquetFile(file.path).read()
    table = table.filter(pa.array(~own))
    for place, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            plain = column.cast(column.type.value_type)
            again = plain.dictionary_encode()
            table = table.set_column(place, table.schema.field(place).with_type(again.type), again)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression=_compression(file.path))
    return bytes(content.getvalue().to_pybytes())


def _compression(path: Path) -> str:
    """Give the compression of a Parquet file's first column."""
    import pyarrow.parquet as pq

    about = pq.read_metadata(path)
    if not (about.num_row_groups and about.num_columns):
        return "snappy"
    name = str(about.row_group(0).column(0).compression).lower()
    return {"uncompressed": "none"}.get(name, name)


def _text_without(file: EventFile, user_id: str) -> bytes | None:
    """Give a text without the records of a person, also those that are not read as rows."""
    if (packing := find_packing(file.path)) is not None:
        raise DataError(
            f"it is packed ({packing}), and rows are taken out of plain text: unpack it."
        )
    _, encoding = read_text(file.path, "cp1252" if file.separator is None else "latin-1")
    if encoding.startswith("utf-16") or encoding.startswith("utf-32"):
        raise DataError(f"it is in {encoding}, and rows are taken out of UTF-8: save it so.")
    content = file.path.read_bytes()
    mark = _BYTE_MARK if content.startswith(_BYTE_MARK) else b""
    text = content.removeprefix(mark).decode("latin-1")  # a letter a byte, whatever it is
    if table_kind(file.path) in _JSON:
        records = _json_records(text, file)
    else:
        records = _delimited_records(text, file)
    texts = [value and value.encode("latin-1").decode(encoding) for _, value in records]
    ids = pd.Series([text or None for text in texts], dtype=object, name=str(file.column))
    own = _is_person(ids, user_id)
    if not own.any():
        return None
    kept = (record for (record, _), gone in zip(records, own, strict=True) if not gone)
    return mark + "".join(kept).encode("latin-1")


def _json_records(text: str, file: EventFile) -> list[tuple[str, str | None]]:
    """Give each line of objects, and the person that it names."""
    records: list[tuple[str, str | None]] = []
    for line in _LINES.findall(text):
        value = None
        if line.strip():
            try:
                value = json.loads(line.encode("latin-1"))[file.column]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "its objects do not stand one a line: write it so (.jsonl)."
                ) from error
        records.append(
            (line, None if value is None else format_id(value).encode().decode("latin-1"))
        )
    return records


def _delimited_records(text: str, file: EventFile) -> list[tuple[str, str | None]]:
    """Give each record with its line ends, and the person that it names; None: it names nobody."""
    content, is_table = text.encode("latin-1"), file.separator is None
    content, said = take_separator(content) if is_table else (content, file.separator)
    head = read_head(_utf8(content), said or file.separator, is_table)
    place = file.column if isinstance(file.column, int) else _named(head.first, file.column)
    n_before_rows = head.n_lines if isinstance(file.column, str) else 0
    lines = _LINES.findall(text)
    records: list[tuple[str, str | None]] = []
    start = 0
    for values, stop in _split(lines, head.separator, is_table):
        value = values[place] if stop > n_before_rows and place < len(values) else None
        if value is not None and is_table and head.has_spaces:
            value = value.strip(" ")
        records.append(("".join(lines[start:stop]), value))
        start = stop
    return records


def _named(names: Sequence[str], column: str) -> int:
    """Give the place of a column by its name, with single spaces as `TableReader` has it."""
    plain = [" ".join(name.split()) for name in names]
    if column not in plain:
        raise DataError(f"column {column!r} is not in its first line.")
    return plain.index(column)


def _split(lines: Sequence[str], separator: str, quoted: bool) -> list[tuple[list[str], int]]:
    """Give the values of each record, and the number of the line after its last one."""
    if not (quoted and len(separator) == 1):
        cut = [line.rstrip("\r\n").split(separator) for line in lines]
        return [(values, number) for number, values in enumerate(cut, start=1)]
    rows = csv.reader(lines, delimiter=separator)
    return [(values, rows.line_num) for values in rows]


def _utf8(content: bytes) -> bytes:
    """Give a text in UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1").encode()
    return content


def _link(path: Path, target: Path) -> None:
    with suppress(OSError):
        os.link(path.resolve(), target)
        return
    shutil.copy2(path, target)
