"""JSON objects as a table: one a line, or all in one list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.data.delimited import MAX_LINE
from llmrec.data.text_files import HEAD_BYTES, detect_encoding, find_packing, open_binary
from llmrec.errors import DataError

_CHANGED = re.compile(r"Column\(/?(.*?)\) changed from (\w+) to (\w+) in row (\d+)")


def read_objects(
    path: Path, fields: Mapping[str, Any] | None, numbers: Sequence[str]
) -> tuple[Any, list[str]]:
    """Read objects into an Arrow table; and name the columns of texts and of whole numbers.

    Parameters
    ----------
    fields
        Names and Arrow types of those to read; None: all, whose texts stay texts, and whose whole
        numbers are texts where others of a column are.
    numbers
        Names of fields whose texts may be read as times, and whose numbers stay.

    Raises
    ------
    DataError
        If a line is no JSON, or a field holds values of several kinds.
    """
    import pyarrow as pa

    mixed: list[str] = []
    while True:
        source = _open if not mixed else partial(_open_as_texts, names=mixed)
        try:
            return _read_objects(path, source, fields, numbers), mixed
        except pa.ArrowInvalid as error:
            name = _mixed_column(str(error))
            if fields is not None or name is None or name in (*mixed, *numbers):
                raise DataError(f"{_say_broken(path, str(error))}.") from error
            mixed.append(name)


def _read_objects(
    path: Path,
    source: Callable[[Path], Any],
    fields: Mapping[str, Any] | None,
    numbers: Sequence[str],
) -> Any:
    import pyarrow as pa
    import pyarrow.json as pj

    def read(types: Mapping[str, Any], others: str) -> Any:
        options = pj.ParseOptions(
            explicit_schema=pa.schema(dict(types)), unexpected_field_behavior=others
        )
        with source(path) as lines:
            return pj.read_json(lines, pj.ReadOptions(block_size=MAX_LINE), options)

    if fields is not None:
        table = read(fields, "ignore")
    else:
        table = read({}, "infer")
        texts = {one.name: _undo_dates(one.type) for one in table.schema}
        changed = {
            name: kind
            for name, kind in texts.items()
            if name not in numbers and kind != table.schema.field(name).type
        }
        table = read(changed, "infer") if changed else table
    table.validate(full=True)
    return table


def to_frame(table: Any) -> pd.DataFrame:
    """Give an Arrow table as a frame: whole numbers stay whole beside missing ones."""
    return pd.DataFrame(
        table.to_pandas(integer_object_nulls=True, date_as_object=False, ignore_metadata=True)
    )


def _open(path: Path) -> Any:
    """Open a file of objects as lines in UTF-8."""
    import pyarrow as pa

    with open_binary(path) as file:
        head = file.read(HEAD_BYTES)
    encoding, mark = detect_encoding(head)
    start = head.removeprefix(mark).decode(encoding, errors="ignore").lstrip()
    packing = find_packing(path)
    if encoding == "utf-8" and not start.startswith("[") and packing != "zip":
        return pa.input_stream(str(path), compression=packing)
    with open_binary(path) as file:
        text = file.read().removeprefix(mark).decode(encoding)
    if start.startswith("["):
        text = "\n".join(map(json.dumps, json.loads(text)))
    return pa.BufferReader(text.encode())


def _open_as_texts(path: Path, names: Sequence[str]) -> Any:
    """Open a file of objects, whose whole numbers in some fields are texts then."""
    import pyarrow as pa

    with _open(path) as source:
        objects = [json.loads(line) for line in source.read().splitlines() if line.strip()]
    for one in objects:
        for name in names:
            if type(one.get(name)) is int:  # true is no number
                one[name] = str(one[name])
    return pa.BufferReader("\n".join(map(json.dumps, objects)).encode())


def _mixed_column(error: str) -> str | None:
    """Name the column that holds texts and numbers; None: that is not what is wrong."""
    changed = _CHANGED.search(error)
    if changed is None or {changed[2], changed[3]} != {"string", "number"}:
        return None
    return changed[1] or None


def _undo_dates(kind: Any) -> Any:
    """Give the type with text for times: Arrow takes any text that looks like one for a time."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_undo_dates(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, _undo_dates(one.type)) for one in kind])
    return kind


def _say_broken(path: Path, error: str) -> str:
    """Say which line or field is broken."""
    if "Empty JSON" in error:
        return "it holds no rows"
    if changed := _CHANGED.search(error):
        name, old, new, row = changed.groups()
        if not name:
            return (
                f"row {row} is {_with_article(new)}, not an object: write an object for each event"
            )
        return (
            f"column {name!r}, row {row}: {_with_article(new)}, and {_with_article(old)} before "
            "it or expected: write all values of a column alike"
        )
    with open_binary(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                json.loads(line)
            except ValueError as broken:
                shown = line[:60].decode("utf-8", "replace").rstrip()
                return f"line {number} is not JSON ({broken}): {shown!r}. Correct or replace it"
    return f"{error.rstrip('.')}. Correct or replace the file"


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "ao" else f"a {kind}"  # an array, an object
