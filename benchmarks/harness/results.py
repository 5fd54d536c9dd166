"""Writing down what a benchmark measured: a table on the terminal, and a file that keeps it."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd

from llmrec.data.files import atomic_write_text

FIELDS = ("dataset", "split", "model", "metric", "value", "low", "high", "n", "seeds")
RESULTS = Path(__file__).parents[1] / "results"
NAMED = (
    *("numpy", "scipy", "pandas", "pyarrow", "implicit", "lightgbm", "cornac"),
    *("torch", "transformers", "peft"),
)


def record(name: str, rows: Sequence[Mapping[str, object]], **chosen: object) -> None:
    """Print rows and write them to ``results/NAME.json``, with how and where they came about.

    Each row has exactly `FIELDS`. What was ``chosen`` on the way, by name, stands beside them.
    Numbers that are not finite are written as null.

    Raises
    ------
    ValueError
        If a row lacks a field or has another one.
    """
    for position, row in enumerate(rows):
        if set(row) != set(FIELDS):
            wrong = sorted(set(row) ^ set(FIELDS))
            raise ValueError(f"row {position}: fields {wrong} are missing or unknown")
    table = pd.DataFrame(rows, columns=list(FIELDS))
    print(table.to_string(index=False, float_format="{:,.4f}".format))
    content = {
        "command": " ".join(
            ["python", "-m", ".".join(("benchmarks", *Path(sys.argv[0]).with_suffix("").parts[-2:])), *sys.argv[1:]]
        ),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": _versions(),
        "machine": f"{_processor()}, {os.cpu_count()} logical cores",
        **{name: _plain(value) for name, value in chosen.items()},
        "rows": [{field: _plain(row[field]) for field in FIELDS} for row in rows],
    }
    atomic_write_text(
        RESULTS / f"{name}.json", json.dumps(content, indent=1, allow_nan=False) + "\n"
    )


def _plain(value: object) -> object:
    """Give what JSON can hold: numpy's scalars as Python's, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {key: _plain(inside) for key, inside in value.items()}
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    """Versions of Python and of the distributions that this run imported and results hang on."""
    imported = {name: metadata.version(name) for name in NAMED if name in sys.modules}
    return {"python": platform.python_version(), **imported}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
