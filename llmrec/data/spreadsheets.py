"""Spreadsheets: whether one has some texts in its cells, and its first sheet as a table."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from llmrec.data.report import Finding
from llmrec.data.tables import name_in_errors
from llmrec.errors import DataError, MissingExtraError

SPREADSHEET_SUFFIX = "xlsx"
# Where the texts of cells stand, and how much of it is looked through.
_TEXTS = ("xl/sharedStrings.xml", "xl/worksheets/sheet1.xml")
_MAX_BYTES = 1 << 20


def spreadsheet_has(path: Path, texts: Sequence[str]) -> bool:
    """Whether some cells at the beginning of a spreadsheet hold these texts; it is not parsed.

    No where a file is no spreadsheet.
    """
    found = b""
    with suppress(zipfile.BadZipFile, OSError, RuntimeError), zipfile.ZipFile(path) as archive:
        for name in set(_TEXTS) & set(archive.namelist()):
            with archive.open(name) as part:
                found += part.read(_MAX_BYTES)
    return all(f">{text}</t>".encode() in found for text in texts)


def read_spreadsheet(path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Read the first sheet, whose first row names its columns, as texts; and say if there are more.

    Raises
    ------
    DataError
        If it is broken, or has no rows.
    MissingExtraError
        Without openpyxl.
    """
    try:
        import openpyxl  # noqa: F401  (pandas reads with it)
    except ImportError as error:
        raise MissingExtraError(
            f"reading {path.name} needs: pip install 'llmrec[excel]'. Or save it as CSV."
        ) from error

    with name_in_errors(path):
        try:
            with pd.ExcelFile(path, engine="openpyxl") as book:
                first, *others = map(str, book.sheet_names)
                frame = pd.read_excel(book, first, dtype="str")
        except (zipfile.BadZipFile, KeyError, TypeError) as error:
            raise DataError(f"it is no spreadsheet that can be read: {error}.") from error
        if not len(frame):
            raise DataError("its first sheet holds no rows.")
    frame.columns = pd.Index([" ".join(str(name).split()) for name in frame.columns])
    if not others:
        return frame, []
    rule = f"of {1 + len(others)} sheets the first is read"
    return frame, [Finding(rule, len(frame), f"not {', '.join(others)[:80]}", "read")]
