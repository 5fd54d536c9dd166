"""A folder of plain tables, as warehouses export them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from llmrec.data.delimited import read_head
from llmrec.data.tables import (
    TABLE_SUFFIXES,
    TableReader,
    name_in_errors,
    parquet_columns,
    table_kind,
)
from llmrec.data.text_files import HEAD_BYTES, detect_encoding, open_binary
from llmrec.errors import DataError

_EVENT_NAMES = ("interactions", "events", "log", "logs", "orders", "purchases", "transactions")
_ITEM_NAMES = ("items", "catalog", "products", "articles", "item", "product")
_PART = re.compile(r"part[-_.]?\d|\d+[-_.]")
# What tells files of one table apart: 2, _2023_02, -part3, or a browser's " (1)".
_NUMBERS = re.compile(r"(?:[-_. ]*(?:part|no)?[-_. ]*\(?\d+\)?)*$")


def find_tables(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the files of events and of items in a folder.

    Files called events (interactions, log, orders, purchases, transactions) and maybe others called
    items (catalog, products, articles), which may have numbers after the name, or one of them
    another word; a folder of such a name with parts in it; or parts alone, called part-1 and so
    on, or several files of the same columns. No files of events if there is nothing of the kind;
    DataError if two tables may be meant.
    """
    tables: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = path.name.partition(".")[0].lower()  # a folder may be called orders.parquet, too
        if path.is_dir() and name in (*_EVENT_NAMES, *_ITEM_NAMES):
            parts = [part for part in sorted(path.iterdir()) if is_table(part)]
            tables.setdefault(name, []).extend(parts)
        elif is_table(path):
            tables.setdefault(name, []).append(path)
    events, items = (_find_table(tables, names) for names in (_EVENT_NAMES, _ITEM_NAMES))
    parts = [path for paths in tables.values() for path in paths if path not in items]
    if not events and parts and (all(_PART.match(p.name) for p in parts) or _are_alike(parts)):
        events = parts
    return events, items


def read_tables(paths: Sequence[Path], reader: TableReader, numbers: Sequence[str]) -> pd.DataFrame:
    """Read parts of one table, which have the same columns; DataError names one that differs.

    Of several parts some may have no rows.
    """
    frames = [reader.table(path, numbers, allow_empty=len(paths) > 1) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if set(frame.columns) != set(frames[0].columns):
            raise DataError(
                f"{path} has other columns ({', '.join(map(str, frame.columns))}) than "
                f"{paths[0].name} ({', '.join(map(str, frames[0].columns))})."
            )
    return join_parts(paths, frames)


def join_parts(paths: Sequence[Path], frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put frames of files below each other; the index has the file and its row for each."""
    if len(frames) == 1:
        return frames[0]
    return pd.concat(frames, keys=[path.name for path in paths])


def name_parts(paths: Sequence[Path]) -> Path | None:
    """Give a table's file, or the folder of its parts; None if there is no table."""
    return (paths[0] if len(paths) == 1 else paths[0].parent) if paths else None


def _find_table(tables: Mapping[str, list[Path]], names: Sequence[str]) -> list[Path]:
    """Give the files of the one table that has one of these names."""
    named = [
        (name, _suffix(stem, name), path)
        for name in names
        for stem, paths in tables.items()
        for path in paths
        if stem.startswith(name) and _suffix(stem, name) is not None
    ]
    # One that is called otherwise, such as events_raw beside events, may be another table.
    main = [path for _, suffix, path in named if _NUMBERS.fullmatch(suffix or "")]
    if main:
        named = [one for one in named if one[2] in main or _are_alike([main[0], one[2]])]
    found = {}
    for name, suffix, path in named:
        numbered = _NUMBERS.fullmatch(suffix or "")
        found[name, "" if numbered else suffix, path.parent, table_kind(path)] = path
    if len(found) > 1:
        first, second, *_ = found.values()
        raise DataError(f"{first} and {second} may both be meant: leave one of them there.")
    return [path for *_, path in named]


def _suffix(stem: str, name: str) -> str | None:
    """Give what follows a name in that of a file; None: it is another word, such as logistics."""
    suffix = stem.removeprefix(name)
    return None if suffix[:1].isalpha() else suffix


def _are_alike(paths: Sequence[Path]) -> bool:
    """Whether there are several files, and all have the same columns."""
    columns = [set(column_names(path)) for path in paths] if len(paths) > 1 else []
    return bool(columns and columns[0]) and all(one == columns[0] for one in columns)


def column_names(path: Path) -> list[str]:
    """Name the columns of a table by its first line or its schema; none where that is broken."""
    kind = table_kind(path)
    if kind == "parquet":
        return parquet_columns(path)
    with name_in_errors(path), open_binary(path) as file:
        content = file.read(HEAD_BYTES)
    encoding, mark = detect_encoding(content)
    text = content.removeprefix(mark).decode(encoding, errors="replace")
    try:
        if kind in ("json", "jsonl", "ndjson"):
            return list(json.loads(text.partition("\n")[0]))
        return read_head(text.encode(), None, quoted=True).first
    except (ValueError, TypeError, RecursionError, DataError):
        return []  # reading it whole says what is wrong


def is_table(path: Path) -> bool:
    """Whether a path is a file that `TableReader.table` reads, and not a hidden one."""
    is_hidden = path.name.startswith((".", "_"))
    return path.is_file() and table_kind(path) in TABLE_SUFFIXES and not is_hidden
