"""Shows every result file as a table in benchmarks/README.md.

Run: python -m benchmarks.tables
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.record import RESULTS
from llmrec.data.files import write_text

README = Path(__file__).with_name("README.md")
HEAD = """# Benchmarks

One script a claim: `python -m benchmarks.NAME` prints a table and writes `results/NAME.json`. This
page is made from those files by `python -m benchmarks.tables`. Intervals are 95 %; `n` counts
users, prompts or rounds. Times depend on the machine and what else it does: quote the ratios.
"""


def page() -> str:
    """Write the whole page from the result files, in the order of their names."""
    parts = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts.append(
            f"## {path.stem}\n\n`{content['command']}`, {content['date']}, {content['machine']}\n"
        )
        lines = ["| dataset | split | model | metric | value | low | high | n |", "|---" * 8 + "|"]
        for row in content["rows"]:
            text = [row["dataset"], row["split"], row["model"], row["metric"]]
            numbers = [
                "" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "low", "high")
            ]
            lines.append("| " + " | ".join([*text, *numbers, str(row["n"])]) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    write_text(README, page())
