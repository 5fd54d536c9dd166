"""Files of text: unpacked, and in UTF-8 whatever encoding they are in."""

from __future__ import annotations

import bz2
import gzip
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmrec.errors import DataError

HEAD_BYTES = 1 << 16  # of a file, that its encoding and its separator are found from
_ZIP = b"PK\x03\x04"
_BZIP_BLOCK = b"1AY&SY"
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Which of four bytes are zero in most Latin letters.
_ZEROS = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
_BINARY = {
    _ZIP: "an archive of several files or a spreadsheet: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet: save it as CSV",
    b"PAR1": "a Parquet file: let its name end in .parquet",
    b"SQLite format 3": "a database: export its tables as CSV",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself",
}


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked if it is packed (gzip, bzip2, a zip of one file)."""
    kind = find_packing(path)
    if kind == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as member:
            yield cast("BinaryIO", member)
    elif kind is not None:
        with gzip.open(path) if kind == "gzip" else bz2.open(path) as file:
            yield cast("BinaryIO", file)
    else:
        with path.open("rb") as plain:
            yield plain


def find_packing(path: Path) -> str | None:
    """Name how a file is packed by its first bytes, "gzip", "bz2" or "zip"; None: not at all."""
    with path.open("rb") as file:
        head = file.read(10)
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[:3] == b"BZh" and head[4:] == _BZIP_BLOCK:
        return "bz2"
    if head.startswith(_ZIP) and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "zip" if len(archive.namelist()) == 1 else None
    return None


def unpacked_name(path: Path) -> str:
    """Give the name of a file's content: "shop.csv" of shop.csv.gz, or of a zip of this file."""
    if path.name.lower().endswith(".zip") and path.is_file() and find_packing(path) == "zip":
        with zipfile.ZipFile(path) as archive:
            return Path(archive.namelist()[0]).name
    return re.sub(r"\.(gz|bz2)$", "", path.name)


def read_text(path: Path, fallback: str) -> tuple[bytes, str]:
    """Give a file of text in UTF-8 without a mark, and the encoding that it was in.

    Raises
    ------
    DataError
        If it is no text, or neither Unicode nor, by its letters, ``fallback`` (a Latin encoding).
    """
    with open_binary(path) as file:
        content = file.read()
    for mark, what in _BINARY.items():
        if content.startswith(mark):
            raise DataError(f"it is {what}.")
    encoding, mark = detect_encoding(content[:HEAD_BYTES])
    content = content.removeprefix(mark)
    if encoding != "utf-8":
        content = content.decode(encoding).encode()
    elif not content.isascii() and (line := _first_line_of_other_encoding(content)):
        _require_latin(content, line)
        encoding, content = fallback, content.decode(fallback).encode()
    if (at := content.find(b"\x00")) >= 0:
        raise DataError(
            f"line {count_lines(content[:at])} holds a zero byte, as no text does: take it out, "
            "or save the file as UTF-8."
        )
    return content, encoding


def detect_encoding(head: bytes) -> tuple[str, bytes]:
    """Name the Unicode encoding of what begins so, and its mark: UTF-8, unless there are signs."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, mark
    zeros = tuple(head[place::4].count(0) > len(head) / 8 for place in range(4))
    return _ZEROS.get(cast("Any", zeros), "utf-8"), b""


def count_lines(content: bytes) -> int:
    """Give the number of the line that a text ends in."""
    return 1 + content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")


def _first_line_of_other_encoding(content: bytes) -> int:
    """Give the number of the first line that is not UTF-8, 0 if all are."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return count_lines(content[: error.start])
    return 0


def _require_latin(content: bytes, line: int) -> None:
    """Raise a DataError if most letters beyond ASCII stand as in no Latin text.

    Three of them side by side are of another alphabet, and two of these kinds are UTF-8.
    """
    beyond = sum(map(len, re.findall(rb"[\x80-\xff]+", content)))
    others = sum(map(len, re.findall(rb"[\x80-\xff]{3,}|[\xc2-\xdf][\x80-\xbf]", content)))
    if 2 * others > beyond:
        raise DataError(
            f"line {line} is not UTF-8, and the file is no Latin text either. Save it as UTF-8."
        )
