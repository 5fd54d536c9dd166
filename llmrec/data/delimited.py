"""Delimited text: its encoding, its first lines, its rows, and the lines that do not fit."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.quotes import require_closed_quotes, show
from llmrec.data.text_files import HEAD_BYTES, count_lines
from llmrec.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", "::": "double colons"}
MAX_LINE = 1 << 26  # bytes: a line must fit into a block of 64 MB
_JOINED = "\x1f"  # stands for a separator of several characters
_SEPARATOR_LINE = re.compile(rb'"?sep=([,;|\t])"?(?=[\r\n])', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Head:
    """What the first lines of a text say of it.

    Attributes
    ----------
    separator
        What stands between values.
    first, second
        The values of the first two lines that are not empty.
    n_lines
        Lines up to the end of the first of them.
    """

    separator: str
    first: list[str]
    second: list[str]
    n_lines: int

    @property
    def ends_rows(self) -> bool:
        """Whether a separator ends the second line, and not the first, which names the columns."""
        return len(self.second) == len(self.first) + 1 > 2 and not self.second[-1]

    @property
    def has_spaces(self) -> bool:
        """Whether a space follows each separator of a line."""
        return self.separator != "\t" and any(
            len(row) > 1 and all(value.startswith(" ") for value in row[1:])
            for row in (self.first, self.second)
        )


def read_head(content: bytes, separator: str | None, quoted: bool) -> Head:
    """Read the first lines of a text.

    Without a separator it is the one of `SEPARATORS` that cuts the first two lines into equally
    many values, or else the first one into most.
    """
    cut = codecs.getincrementaldecoder("utf-8")().decode(content[:HEAD_BYTES])
    if len(content) > HEAD_BYTES and not _LINE_END.search(cut):
        raise DataError(f"its first line is longer than {HEAD_BYTES:,} bytes: no table begins so.")
    if separator is not None:
        return _head_of(cut, separator, quoted)

    def fit(head: Head) -> tuple[bool, int, bool]:
        width = len(head.first)
        second = len(head.second or head.first)
        is_even = width > 1 and second in (width, width + head.ends_rows)
        return is_even, width, head.separator == ","

    return max((_head_of(cut, sign, quoted) for sign in SEPARATORS), key=fit)


def take_separator(content: bytes) -> tuple[bytes, str | None]:
    """Give a text with an empty line for "sep=;" at its top, as spreadsheets write it, and ";"."""
    if found := _SEPARATOR_LINE.match(content):
        return content[found.end() :], found[1].decode()
    return content, None


def drop_spaces(content: bytes, sign: str) -> bytes:
    """Give a text of quoted values without the spaces that follow its separators."""
    clean = StringIO(newline="")
    rows = csv.reader(StringIO(content.decode(), newline=""), delimiter=sign, skipinitialspace=True)
    csv.writer(clean, delimiter=sign, lineterminator="\n").writerows(
        [value.rstrip(" ") for value in row] for row in rows
    )
    return clean.getvalue().encode()


def read_rows(
    content: bytes,
    head: Head,
    names: Sequence[str],
    has_header: bool,
    quoted: bool,
    numbers: Sequence[str],
) -> tuple[pd.DataFrame, int, str]:
    """Read the rows of a text in UTF-8; count the lines with too few values, and show the first.

    The index of the frame has the rows' numbers, in which lines with too few values count.

    Raises
    ------
    DataError
        If a line has too many values, most have too few, there is none, or a quote is never closed.
    """
    if not (head.second if has_header else head.first):
        return pd.DataFrame(columns=list(names), dtype="str"), 0, ""
    sign, skipped = head.separator, head.n_lines if has_header else 0
    if len(sign) > 1:
        content, sign = content.replace(sign.encode(), _JOINED.encode()), _JOINED
    table, short = _parse_rows(content, sign, names, skipped, quoted, numbers)
    if quoted:
        usual = head.second if has_header else head.first
        require_closed_quotes(content, table, sign, usual, list(short.values()))
    frame = pd.DataFrame(table.to_pandas(date_as_object=False))
    first = next(iter(short.values()), "")
    example = f"line {_line_of(content, first)}: {_shown(first)}" if short else ""
    if len(short) > len(frame):
        raise DataError(f"most lines have fewer than {len(names)} values, such as {example!r}.")
    frame.columns = pd.Index(list(names))
    if short:
        frame.index = pd.Index(np.delete(np.arange(len(frame) + len(short)), list(short)))
    return frame, len(short), example


def _parse_rows(
    content: bytes,
    sign: str,
    names: Sequence[str],
    skipped: int,
    quoted: bool,
    numbers: Sequence[str],
) -> tuple[Any, dict[int, str]]:
    """Give an Arrow table of the rows after so many lines, and the rows of too few values."""
    import pyarrow as pa
    import pyarrow.csv as pc

    short: dict[int, str] = {}
    long: list[Any] = []

    def note(row: Any) -> str:
        if row.actual_columns > row.expected_columns:
            long.append(row)
            return "error"
        short[row.number - skipped - 1] = row.text  # it counts from 1, skipped ones too
        return "skip"

    unique = [f"{place} {name}" for place, name in enumerate(names)]
    texts = [column for column, name in zip(unique, names, strict=True) if name not in numbers]
    reading = pc.ReadOptions(
        use_threads=False, block_size=MAX_LINE, skip_rows=skipped, column_names=unique
    )
    parsing = pc.ParseOptions(
        delimiter=sign,
        quote_char='"' if quoted else False,
        newlines_in_values=quoted,
        invalid_row_handler=note,
    )
    converting = pc.ConvertOptions(
        column_types=dict.fromkeys(texts, pa.string()),
        null_values=[""],  # a film may be called "NA"
        strings_can_be_null=True,
    )
    try:
        table = pc.read_csv(pa.BufferReader(content), reading, parsing, converting)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise DataError(f"a line is longer than {MAX_LINE >> 20} MB.") from error
        if not long:
            raise
        row = long[0]
        raise DataError(_say_too_long(content, row.text, row.actual_columns, names)) from error
    return table, short


def _head_of(cut: str, sign: str, quoted: bool) -> Head:
    """Read the first two lines that are not empty, cut by a separator."""
    records = list(islice(_records(cut, sign, quoted), 2))
    (first, n_lines), (second, _) = (*records, ([], 0), ([], 0))[:2]
    if not second and any("\n" in value for value in first):
        raise DataError(f"a double quote in its first line is never closed: {_shown(cut)!r}.")
    return Head(sign, first, second, n_lines)


def _records(cut: str, sign: str, quoted: bool) -> Iterator[tuple[list[str], int]]:
    """Give the values of each line that is not empty, and the number of the line it ends in."""
    if quoted and len(sign) == 1:
        rows = csv.reader(StringIO(cut, newline=""), delimiter=sign)
        found = ((row, rows.line_num) for row in rows)
    else:
        lines = enumerate(_LINE_END.split(cut), start=1)
        found = ((line.split(sign), number) for number, line in lines)
    return (record for record in found if any(value.strip() for value in record[0]))


def _say_too_long(content: bytes, text: str, n_values: int, names: Sequence[str]) -> str:
    line = _line_of(content, text)
    if len(names) == 1:
        return (
            f"its first line names one column only, {names[0][:60]!r}, and line {line} has "
            f"{n_values} values: the first line must name the columns."
        )
    return (
        f"line {line} has {n_values} values, not {len(names)}: {_shown(text)!r}. Put values that "
        "hold a separator into double quotes, or take it out."
    )


def _line_of(content: bytes, text: str) -> int:
    """Give the number of the line that a record begins in."""
    record = re.search(rb"(?:^|[\r\n])" + re.escape(text.encode()) + rb"(?=[\r\n]|$)", content)
    return count_lines(content[: record.start() + 1]) if record else 0


def _shown(text: str) -> str:
    return show(text.replace(_JOINED, "::"))
