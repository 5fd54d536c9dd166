"""Rows of files: what checks count in a frame, told as the rows of the files that it was read from.

The index of a frame that was read has the rows: their numbers from 0 after the header, lines that
were dropped counted, and before them the file's name where a table is of several files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from llmrec.errors import DataError

# Values stand in quotes, and may hold such words themselves: they are passed over.
_ROWS = re.compile(
    r"'(?:\\.|[^'\\\n])*'"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|\b(?P<word>rows?) (?P<places>\d+(?:, \d+)*)"
)
_FIRST_ROW = re.compile(r"^(?P<word>row) (?P<places>\d+)")


def name_row(rows: pd.Index[Any], place: int) -> str:
    """Name the row at a place of a frame: "7", or "7 of part-1.csv"."""
    if isinstance(rows, pd.MultiIndex):
        file, row = rows[place]
        return f"{row} of {file}"
    return str(rows[place])


def tell_rows(message: str, rows: pd.Index[Any]) -> str:
    """Give a message about places of a frame as one about the rows of its files."""
    return _ROWS.sub(lambda found: _renamed(found, rows), message)


def tell_first_row(example: str, rows: pd.Index[Any]) -> str:
    """Give an example that may begin with a place of a frame, and then has a value as it is."""
    return _FIRST_ROW.sub(lambda found: _renamed(found, rows), example)


@contextmanager
def name_rows(rows: pd.Index[Any]) -> Iterator[None]:
    """Let a DataError about places of a frame name the rows of its files."""
    try:
        yield
    except DataError as error:
        raise DataError(tell_rows(str(error), rows)) from error


def _renamed(found: re.Match[str], rows: pd.Index[Any]) -> str:
    if found["word"] is None:
        return found[0]
    places = map(int, found["places"].split(", "))
    names = (name_row(rows, one) if one < len(rows) else str(one) for one in places)
    return f"{found['word']} {', '.join(names)}"
