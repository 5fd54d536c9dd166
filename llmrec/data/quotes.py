"""Quotes that swallow lines: never closed, or closed by the opening quote of a later line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llmrec.data.text_files import count_lines
from llmrec.errors import DataError

_RUNS = re.compile(r"(\d+)|([^\W\d_]+)")
_LINE_BREAK = ord("\n")


def require_closed_quotes(
    content: bytes, table: Any, separator: str, example: Sequence[str], short: Sequence[str]
) -> None:
    """Raise a DataError if a quote has swallowed lines that are rows of their own.

    Parameters
    ----------
    content
        The text in UTF-8.
    table
        Its rows as an Arrow table.
    example
        Values of its first row.
    short
        Lines that had too few values.
    """
    _require_end(content, table, short)
    beginnings = _swallowing_values(table, separator, example)
    if found := [*beginnings, *_swallowing_lines(short, separator, example)]:
        line, text = min((_line_of(content, one), one) for one in found)
        raise DataError(
            f"a double quote in line {line} is closed in a later line only, and what is between "
            f"looks like rows: {text[:60]!r}. Close it, or write it twice."
        )


def show(text: str) -> str:
    """Give the beginning of a text in one line."""
    return text[:60].replace("\n", "\\n").replace("\r", "\\r")


def _require_end(content: bytes, table: Any, short: Sequence[str]) -> None:
    """Raise a DataError if a quote that is never closed has swallowed the rest of the file."""
    end = content.rstrip()
    swallowed = [text for text in short[-1:] if text.count('"') % 2]
    if len(table) and isinstance(last := table.column(-1)[-1].as_py(), str):
        swallowed.append(last.replace('"', '""'))
    for text in swallowed:
        raw = text.encode().rstrip()
        if "\n" in text and end.endswith(raw):
            line = count_lines(end[: len(end) - len(raw)])
            raise DataError(
                f"a double quote in line {line} is never closed, before {show(text)!r}: close "
                "it, or write it twice."
            )


def _swallowing_values(table: Any, separator: str, example: Sequence[str]) -> Iterator[str]:
    """Give the first line of a quoted value that holds a row of its own, one for each column."""
    for place, column in enumerate(table.columns):
        for value in _values_with_breaks(column):
            first, *inner, last = value.replace("\r", "").split("\n")
            rows = [line for line in inner if line.count(separator) == len(example) - 1]
            # The value ends within its last line, after those of the columns before its own.
            if place and last.count(separator) == place:
                rows.append(last)
            if any(_is_row(line.split(separator), example) for line in rows):
                yield '"' + first.replace('"', '""')
                break


def _swallowing_lines(
    short: Sequence[str], separator: str, example: Sequence[str]
) -> Iterator[str]:
    """Give the first line of each record of too few values that holds a row of its own."""
    for text in short:
        first, *others = text.replace("\r", "").split("\n")
        rows = [line.split(separator) for line in others]
        if any(len(row) == len(example) and _is_row(row, example) for row in rows):
            yield first


def _values_with_breaks(column: Any) -> list[str]:
    """Give the texts of a column that hold a line break."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        return []
    # A look at the bytes is many times faster than one at each text, and most logs need no more.
    bytes_of = [chunk.buffers()[2] for chunk in column.chunks]
    if not any((np.frombuffer(one, np.uint8) == _LINE_BREAK).any() for one in bytes_of if one):
        return []
    return list(column.filter(pc.match_substring(column, "\n")).to_pylist())


def _is_row(values: Sequence[str], example: Sequence[str]) -> bool:
    """Whether a value with digits, such as a time, is written as in the first row."""
    return any(
        _shape(value) == _shape(usual)
        for value, usual in zip(values, example, strict=False)
        if any(letter.isdigit() for letter in usual)
    )


def _shape(text: str) -> str:
    """Give a text with "0" for each run of digits, and "a" for each of letters."""
    return _RUNS.sub(lambda run: "0" if run[1] else "a", text.strip('"'))


def _line_of(content: bytes, beginning: str) -> int:
    """Give the number of the first line that ends so."""
    found = re.search(re.escape(beginning.encode()) + rb"\r?\n", content)
    return count_lines(content[: found.start()]) if found else 0
