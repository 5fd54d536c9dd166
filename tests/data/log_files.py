"""Files that tests read, and what datasets hold in plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmrec.data.dataset import Dataset

NOON = 1_577_880_000  # 1 January 2020, 12:00 UTC
HEADER = "user_id,item_id,timestamp,categories\n"
ROWS = "ana,x,2024-01-01,A\nbo,y,2024-01-02,B\nana,y,2024-01-03,B\n"


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files of a folder, in UTF-8 where they are texts, and give the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_log(folder: Path, content: str | bytes, name: str = "log.csv") -> Path:
    """Write one file, and give its path."""
    return write_files(folder, {name: content}) / name


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write objects as JSON, one a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def events_of(dataset: Dataset) -> list[tuple[str, str]]:
    """(user id, title) of each event, by user and time."""
    log = dataset.log
    return [
        (log.user_ids[user], dataset.catalog.titles[item])
        for user, item in zip(log.user_idx, log.item_idx, strict=True)
    ]


def categories_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Title of each item to its categories."""
    items = dataset.catalog
    return {title: items.categories_of(item) for item, title in enumerate(items.titles)}


def rules_of(dataset: Dataset) -> dict[str, int]:
    """What reading found, and in how many rows."""
    return {finding.rule: finding.rows for finding in dataset.findings}
