"""Result files: what a benchmark measured, how and where, as JSON under ``results/``."""

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
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from llmrec.data.files import atomic_write_text
from llmrec.metrics import bootstrap_interval
from llmrec.types import FloatArray

FIELDS = ("dataset", "split", "model", "metric", "value", "low", "high", "n", "seeds")
RESULTS = Path(__file__).parents[1] / "results"
REPORTED_PACKAGES = (
    *("numpy", "scipy", "pandas", "pyarrow", "implicit", "lightgbm", "cornac"),
    *("torch", "transformers", "peft"),
)
Rows = dict[tuple[str, str, str, str], Any]  # (dataset, split, model, metric) to its row


def record_results(
    name: str, rows: Sequence[Mapping[str, object]], **settings: Mapping[str, object]
) -> None:
    """Print rows and write them to ``results/NAME.json``, with the command and the machine.

    Parameters
    ----------
    name
        "GROUP/NAME": the module of the benchmark, and an underscore with what it was run on if it
        has several files.
    rows
        Mappings with exactly the keys `FIELDS`. Numbers that are not finite are written as null.
    settings
        What was chosen during the run, by name; it is written beside the rows.

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
    module = ".".join(("benchmarks", *Path(sys.argv[0]).with_suffix("").parts[-2:]))
    content = {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": _versions(),
        "machine": f"{_processor()}, {os.cpu_count()} logical cores",
        **{name: _to_json(value) for name, value in settings.items()},
        "rows": [{field: _to_json(row[field]) for field in FIELDS} for row in rows],
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    atomic_write_text(RESULTS / f"{name}.json", text)


def value_row(keys: Row, metric: str, value: float, n: int) -> Row:
    """Make the row of a number without an interval; ``keys``: dataset, split, model and seeds."""
    return keys | {"metric": metric, "value": value, "low": None, "high": None, "n": n}


def mean_row(keys: Row, metric: str, values: FloatArray) -> Row:
    """Make the row of the mean over users of (n_users,) values, NaN left out, with its interval."""
    mean, low, high = bootstrap_interval(values)
    row = value_row(keys, metric, mean, int(np.isfinite(values).sum()))
    return row | {"low": low, "high": high}


def has_results(name: str) -> bool:
    """Whether there is a result file of a name."""
    return (RESULTS / f"{name}.json").is_file()


def result_names() -> list[str]:
    """List the names of all result files, "GROUP/NAME", in order."""
    paths = RESULTS.glob("*/*.json")
    return sorted(path.relative_to(RESULTS).with_suffix("").as_posix() for path in paths)


def load_results(name: str) -> dict[str, Any]:
    """Read a result file: its rows, and the command, date, versions and machine."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def load_rows(name: str) -> Rows:
    """Read the rows of a result file, by dataset, split, model and metric."""
    return {
        (row["dataset"], row["split"], row["model"], row["metric"]): row
        for row in load_results(name)["rows"]
    }


def load_rows_if_any(name: str) -> Rows:
    """Read the rows of a result file; none if it has not been measured yet."""
    return load_rows(name) if has_results(name) else {}


def _to_json(value: object) -> object:
    """Give what JSON can hold: numpy's scalars as Python's, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {key: _to_json(inner) for key, inner in value.items()}
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    """Versions of Python and of the reported packages that this run imported."""
    imported = {name: metadata.version(name) for name in REPORTED_PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **imported}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
