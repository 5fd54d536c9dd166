"""Shows every result file as a table in benchmarks/README.md.

Run: python -m benchmarks.tables
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from llmrec.data.files import write_text

README = Path(__file__).with_name("README.md")
HEAD = """# Benchmarks

One script a claim: `python -m benchmarks.NAME` prints a table and writes `results/NAME.json`. This
page is made from those files by `python -m benchmarks.tables`. Intervals are 95 %; `n` counts
users, prompts or rounds. Times depend on the machine and what else it does: quote the ratios.
"""


MANY = 80  # rows; beyond that a split is a table with a column a metric


def page() -> str:
    """Write the whole page from the result files, in the order of their names."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts.append(
            f"## {path.stem}\n\n`{content['command']}`, {content['date']}, {content['machine']}\n"
        )
        parts += wide(content["rows"]) if len(content["rows"]) > MANY else [tall(content["rows"])]
    return "\n".join(parts)


def tall(rows: list[dict[str, Any]]) -> str:
    """Write one line a row."""
    lines = ["| dataset | split | model | metric | value | low | high | n |", "|---" * 8 + "|"]
    for row in rows:
        text = [row["dataset"], row["split"], row["model"], row["metric"]]
        numbers = [number(row[key]) for key in ("value", "low", "high")]
        lines.append("| " + " | ".join([*text, *numbers, str(row["n"])]) + " |")
    return "\n".join(lines) + "\n"


def wide(rows: list[dict[str, Any]]) -> list[str]:
    """Write one table a dataset and split: a line a model, a column a metric, with intervals."""
    splits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        splits.setdefault((row["dataset"], row["split"]), []).append(row)
    parts = []
    for (dataset, split), part in splits.items():
        cells = {(row["model"], row["metric"]): row for row in part}
        models = list(dict.fromkeys(row["model"] for row in part))
        metrics = list(dict.fromkeys(row["metric"] for row in part))
        loss = {m: cells[m, "log_loss"]["value"] for m in models if (m, "log_loss") in cells}
        models.sort(key=lambda model: loss.get(model, float("inf")))
        lines = ["| model | n | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 2) + "|"]
        for model in models:
            found = [cells.get((model, metric)) for metric in metrics]
            n = max(row["n"] for row in found if row)
            texts = ["" if row is None else with_interval(row) for row in found]
            lines.append(f"| {model} | {n} | " + " | ".join(texts) + " |")
        parts.append(f"**{dataset}, {split}**\n\n" + "\n".join(lines) + "\n")
    return parts


def with_interval(row: dict[str, Any]) -> str:
    """Write a value, and its interval if it has one."""
    if row["low"] is None:
        return number(row["value"])
    return f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"


def number(value: float | None) -> str:
    """Write four digits; nothing for what is undefined."""
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    write_text(README, page())
