"""Tables read from files: which separator, which encoding, which line is broken."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.data.delimited import (
    SEPARATORS,
    Head,
    drop_spaces,
    read_head,
    read_rows,
    take_separator,
)
from llmrec.data.files import require_regular
from llmrec.data.headers import repeated_headers
from llmrec.data.json_objects import read_objects, to_frame
from llmrec.data.report import Effect, Finding
from llmrec.data.text_files import read_text, unpacked_name
from llmrec.errors import DataError

TABLE_SUFFIXES = ("csv", "tsv", "txt", "dat", "parquet", "jsonl", "ndjson", "json")
SHORT_LINE = "line with too few values"
HEADER_AGAIN = "header again"
_LATIN = "cp1252"  # what a table that is not Unicode is read in, and said to be
_ENCODING_NAMES = {_LATIN: "Windows-1252", "latin-1": "Latin-1"}

_OTHER_LETTER = re.compile(r"[^\W\x00-\x7f]")  # one that encodings differ in
_OTHER_WORD = re.compile(r"\w*[^\W\x00-\x7f]\w*")
_MAX_WORD = 40  # letters of a word that are shown


@dataclass
class TableReader:
    """Reads tables, and remembers how.

    Attributes
    ----------
    findings
        Separators and encodings that are not the usual ones, and lines left out.
    """

    findings: list[Finding] = field(default_factory=list)

    def table(
        self, path: Path, numbers: Sequence[str] = (), *, allow_empty: bool = False
    ) -> pd.DataFrame:
        """Read a table whose first row names its columns: delimited text, Parquet, or JSON lines.

        The index has the numbers of the rows, see `llmrec.data.source_rows`.

        Parameters
        ----------
        numbers
            Columns of delimited text that hold numbers or times; all others are text as it is:
            007 and 7 are two people.
        allow_empty
            Whether delimited text may have no row but that of its columns.
        """
        kind = table_kind(path)
        if kind == "parquet":
            return read_parquet(path)
        if kind in ("jsonl", "ndjson", "json"):
            return self.json_lines(path, numbers=numbers)
        if kind not in TABLE_SUFFIXES:
            raise DataError(f"{path.name} {_say_not_a_table(kind)}.")
        return self.delimited(path, quoted=True, numbers=numbers, allow_empty=allow_empty)

    def delimited(
        self,
        path: Path,
        separator: str | None = None,
        names: Sequence[str] | None = None,
        *,
        encoding: str = _LATIN,
        quoted: bool = False,
        numbers: Sequence[str] = (),
        allow_empty: bool = False,
    ) -> pd.DataFrame:
        """Read delimited text.

        Parameters
        ----------
        separator
            One character, or several (then the file is read without quotes); None: the one that
            the first line says (sep=;), or of `SEPARATORS` that cuts it into most values.
        names
            Names of the columns; None: the first line has them. A file may have fewer.
        encoding
            What a file is read in that is not Unicode.
        quoted
            Whether a value may stand in double quotes and then hold separators and line breaks.
        numbers
            Columns that are not read as text.
        allow_empty
            Whether there may be no row but the header.

        Raises
        ------
        DataError
            If the file is not there, has no rows or another encoding, or a line too many values.
        """
        with name_in_errors(path):
            content, found = read_text(path, encoding)
            frame = self._parse(path, content, separator, names, quoted, numbers)
            if not (len(frame) or (allow_empty and len(frame.columns))):
                raise DataError("it holds no rows.")
        if found != "utf-8":
            rule = f"text that is not UTF-8 is read as {_ENCODING_NAMES.get(found, found.upper())}"
            word = _find_other_word(content.decode())
            self._note(rule, len(frame), f"{path.name}{f': {word}' if word else ''}")
        return frame

    def json_lines(
        self,
        path: Path,
        fields: Mapping[str, Any] | None = None,
        numbers: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Read JSON objects, one a line or all in one list, maybe packed.

        ``fields`` are names and Arrow types of those to read (None: all; texts are no times then,
        but in ``numbers``). A field that no object has is no column of the result.
        """
        with name_in_errors(path):
            table, mixed = read_objects(path, fields, numbers)
            for name in mixed:
                rule = f"numbers in column {name!r} are texts, as others there are"
                self._note(rule, len(table), path.name)
            present = [name for name in table.column_names if table[name].null_count < len(table)]
            if not present:
                raise DataError("it holds no rows.")
            return to_frame(table.select(present))

    def _parse(
        self,
        path: Path,
        content: bytes,
        separator: str | None,
        names: Sequence[str] | None,
        quoted: bool,
        numbers: Sequence[str],
    ) -> pd.DataFrame:
        """Read the rows of a text in UTF-8."""
        content, said = take_separator(content) if names is None else (content, None)
        head = read_head(content, separator or said, quoted)
        quoted = quoted and len(head.separator) == 1
        if quoted and head.has_spaces:
            content = drop_spaces(content, head.separator)
            head = read_head(content, head.separator, quoted)
            self._note("spaces that follow separators are left out", len(head.first), path.name)
        has_header = names is None
        names = list(names or head.first)[: max(len(head.first), 1)]
        columns = [" ".join(name.split()) for name in names]
        table = _read_ended_rows(content, head, columns, quoted, numbers) if has_header else None
        if table is None:
            table, n_short, example = read_rows(content, head, columns, has_header, quoted, numbers)
        else:
            n_short, example = 0, ""
            self._note("rows end in a separator that the header lacks", len(table), path.name)
        if n_short:
            self._note(SHORT_LINE, n_short, f"{path.name}, {example}", "dropped")
        usual = "\t" if ".tsv" in path.name else ","
        if separator is None and head.separator != usual:
            rule = f"{SEPARATORS[head.separator]} stand between values"
            self._note(rule, len(table), path.name)
        return self._without_headers(table, path) if has_header else table

    def _note(self, rule: str, rows: int, example: str, effect: Effect = "read") -> None:
        """Add to what is said; files of one kind, such as parts of a table, are said once."""
        for place, known in enumerate(self.findings):
            if (known.rule, known.effect) == (rule, effect):
                self.findings[place] = replace(known, rows=known.rows + rows)
                return
        self.findings.append(Finding(rule, rows, example, effect))

    def _without_headers(self, table: pd.DataFrame, path: Path) -> pd.DataFrame:
        """Drop rows that repeat the header: files put end to end."""
        again = repeated_headers(table)
        if again.any():
            row = table.index[int(again.argmax())]
            self._note(HEADER_AGAIN, int(again.sum()), f"{path.name}, row {row}", "dropped")
            table = table[~again]
        return table


def _read_ended_rows(
    content: bytes, head: Head, names: Sequence[str], quoted: bool, numbers: Sequence[str]
) -> pd.DataFrame | None:
    """Read rows that all end in a separator where the header does not; None if they do not."""
    if not head.ends_rows:
        return None
    with suppress(DataError):  # what is to be said of the rows is said when they are read as usual
        table, n_short, _ = read_rows(content, head, [*names, ""], True, quoted, numbers)
        if not n_short and table.iloc[:, -1].isna().all():
            return table.iloc[:, :-1]
    return None


def _find_other_word(text: str) -> str:
    """Find the first word with letters beyond ASCII, shortened; "" if there is none.

    The letter is looked for alone: to try every word would take minutes where there is none.
    """
    if (letter := _OTHER_LETTER.search(text)) is None:
        return ""
    at = letter.start()
    near = text[max(0, at - _MAX_WORD) : at + _MAX_WORD]
    word = _OTHER_WORD.search(near)
    assert word is not None
    return word[0][:_MAX_WORD]


def _say_not_a_table(kind: str) -> str:
    """Say what a file of such a name is to be instead."""
    if kind in ("xlsx", "xls", "xlsm", "ods"):
        return "is a spreadsheet: save it as CSV"
    if kind in ("inter", "item"):
        return "is one of two atomic files: give the folder that holds NAME.inter and NAME.item"
    return (
        "is not a .csv, .tsv, .txt, .dat, .json, .jsonl or .parquet file; text and JSON may be "
        "packed: .gz, .bz2, .zip"
    )


def table_kind(path: Path) -> str:
    """Name the kind of a table by the end of its file's name, unpacked: "csv" of shop.csv.gz."""
    return unpacked_name(path).rpartition(".")[2].lower()


def parquet_columns(path: Path) -> list[str]:
    """Name the columns of a Parquet file; DataError if it is broken."""
    import pyarrow.parquet as pq

    with name_in_errors(path):
        return list(pq.read_schema(path).names)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file, or some of its columns; DataError if it is broken or lacks one."""
    import pyarrow.parquet as pq

    with name_in_errors(path):
        names = parquet_columns(path)
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise DataError(
                f"column {missing[0]!r} is missing (columns found: {', '.join(names)})."
            )
        # Not as pandas wrote it: then a column that was its index is none here.
        return to_frame(pq.ParquetFile(path).read(None if columns is None else list(columns)))


def read_parquet_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a Parquet file as rows of plain values; DataError if it is broken or lacks a column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with name_in_errors(path):
        require_regular(path)
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        if missing := sorted(set(columns) - set(table.column_names)):
            raise DataError(f"column {missing[0]!r} is missing.")
        rows: list[dict[str, Any]] = table.select(columns).to_pylist()
        return rows


@contextmanager
def name_file(path: Path | None) -> Iterator[None]:
    """Let a DataError begin with the name of the file that it is about; None: of no file."""
    try:
        yield
    except DataError as error:
        told = str(error)
        if path is None or told.startswith(str(path)):
            raise
        raise DataError(f"{path}: {told}") from error


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading a file raises into a DataError that begins with its name."""
    try:
        with name_file(path):
            yield
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there.") from error
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(f"{path}: its values are nested too deeply. Correct the file.") from error
    except UnicodeError as error:
        raise DataError(f"{path} is in another encoding: {error}. Save it as UTF-8.") from error
    except (ValueError, OSError, EOFError, OverflowError, csv.Error) as error:
        reason = " ".join(str(error).replace("CSV parse error: ", "").split()).rstrip(".")
        raise DataError(f"{path}: {reason}. Correct or replace the file.") from error
