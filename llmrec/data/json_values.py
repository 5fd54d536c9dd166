"""JSON of somebody else: objects whose size and nesting are bounded before they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmrec.data.files import (
    HASH_KEY,
    HASHES_FILE,
    file_hash,
    require_regular,
    require_values_hash,
)

MAX_CONFIG_BYTES = 2**21
MAX_TOLD = 800  # letters of an error
MAX_DEPTH, MAX_ENTRIES = 16, 200_000  # levels and entries
MAX_STORED_BYTES, MAX_STORED_ENTRIES = 2**28, 10**7  # of what was fitted on a large log
# What a library raises for content that it cannot take, beside its own errors.
UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError),
    *(ArithmeticError, MemoryError, RecursionError),
)


def describe_error(error: BaseException) -> str:
    """Give an error's text, short: what it quotes may be a value of a million letters."""
    told, half = str(error) or type(error).__name__, MAX_TOLD // 2
    return told if len(told) <= MAX_TOLD else f"{told[:half]} ... {told[-half:]}"


def read_json_object(
    path: Path, max_bytes: int = MAX_CONFIG_BYTES, max_entries: int = MAX_ENTRIES
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is too large, nested too deeply, no JSON or no object.
    """
    require_regular(path)
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"it has {size:,} bytes, and {max_bytes:,} are the most")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"its values are nested more than {MAX_DEPTH} deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    for _ in list_entries(values, max_entries):
        pass
    return values


def list_entries(
    values: Mapping[str, Any], max_entries: int = MAX_ENTRIES
) -> Iterator[tuple[str, Any]]:
    """List the dotted key and the value of every entry at every level of JSON.

    Raises
    ------
    ValueError
        If there are too many, or they are nested too deeply.
    """
    waiting: list[tuple[str, Any, int]] = [("", values, 0)]
    n_entries = 0
    while waiting:
        prefix, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"its values are nested more than {MAX_DEPTH} deep")
        if (n_entries := n_entries + len(value)) > max_entries:
            raise ValueError(f"it has more than {max_entries:,} entries")
        if isinstance(value, list):
            inside = ((prefix, one) for one in value)
        else:
            # Shortened: a copy of a long key before each of many others would fill the memory.
            inside = ((f"{f'{prefix}{key}'[:100]}.", one) for key, one in value.items())
            yield from ((f"{prefix}{key}", one) for key, one in value.items())
        waiting += [(key, one, depth + 1) for key, one in inside if isinstance(one, dict | list)]


def require_hashes(folder: Path) -> None:
    """Check the files of a folder against what `save_hashes` wrote there.

    Raises
    ------
    OSError
        If the hashes or a file cannot be read.
    ValueError
        If a file is not as it was written; it is named.
    """
    path = folder / HASHES_FILE
    try:
        hashes = read_json_object(path, MAX_STORED_BYTES, MAX_STORED_ENTRIES)
        require_values_hash(hashes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    expected = {name: value for name, value in hashes.items() if name != HASH_KEY}
    for name, value in expected.items():
        if file_hash(folder / name) != value:
            raise ValueError(f"{folder / name} is not as it was written, by {HASHES_FILE}")
