"""Writes benchmarks/TABLES.md: every result file as a table, and tables over several of them.

Run: python -m benchmarks.harness.tables
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.formatting import Row, format_interval, format_number, render_table
from benchmarks.harness.results import load_results, result_names
from benchmarks.harness.summaries import (
    edit_and_explanation_summary,
    finetuning_table,
    forecast_table,
    ranking_speed_summary,
    ranking_table,
)
from llmrec.data.files import atomic_write_text

TABLES = Path(__file__).parents[1] / "TABLES.md"
MAX_LONG_ROWS = 80  # beyond that a split is a table with a column a metric
HEAD = """# Tables

`python -m benchmarks.harness.tables` makes this page from the files under `results/`. Intervals are
95 %; `n` counts users, prompts or rounds. Times depend on the machine and on what else it does:
compare the ratios.
"""
FORECASTS = """## Forecasts compared

Log-loss in nats per event, and the gain on counting (`forecasting.quality`).
"""
RANKINGS = """## Rankings compared

`llmrec` blends all baselines but the nets of RecTools, with weights fitted on validation, and the
titles of an adapter that has seen nothing of validation or tests; "without titles" lacks these. In
the column of global time nothing is of the LLM. "Tilted to the observed weights" tilts to the true
next weights of categories: the most that any forecast can bring (`ranking.compare --split ...`).
"""
FINETUNING = """## Gains of fine-tuning

Nats per event, paired (`finetuning.quality`, `forecasting.holidays`, `speed.training`). One seed
unless stated. After an alteration: the change, negative where something is lost.
"""
NOTES = {
    "finetuning/quality": """`gain_of_llm` is paired with the same forecaster without the language
model, `log_loss_gain` with counting (nats per event, positive is better); `gap_closed` is the share
of the way from the gated mixture to the informed reference, which was shown half of the period.
`LLM (a = 1)` is counting with the category scores at the calibration weight of training; `LLM on X`
is calibrated on X; `LLM titles in X` mixes the category sums of the title probabilities into X,
with a share chosen on validation. Everything is fitted on validation windows: the adapter did not
learn from these, but its training stopped where its loss on them was least.
On Complete Journey parts were run at several times: held-out categories with `--users 600`;
unconstrained lines and the statements were run before the parameters that learned lines were
rounded to float16.
""",
    "speed/ranking": """`plain pass` sums the same parts and takes the best by argpartition. Results
up to 2026-11-25: of the million items, the batch ranked first (as forecast) sorted the log too, so
that its time cannot be compared with the others'; since then one person is ranked before.
""",
}


def build_tables() -> str:
    """Render the page: tables over several files, then one section a result file."""
    parts = [
        HEAD,
        *(FORECASTS, forecast_table(), RANKINGS, ranking_table(), FINETUNING, finetuning_table()),
        *("## Edits and explanations\n", edit_and_explanation_summary()),
        *("## Speed of rankings\n", ranking_speed_summary()),
    ]
    for name in result_names():
        content = load_results(name)
        parts.append(
            f"## {name}\n\n`{content['command']}`, {content['date']}, {content['machine']}\n"
        )
        parts += [note for prefix, note in NOTES.items() if name.startswith(prefix)]
        rows = content["rows"]
        parts += wide_tables(rows) if len(rows) > MAX_LONG_ROWS else [long_table(rows)]
    return "\n".join(parts)


def long_table(rows: list[Row]) -> str:
    """One line a row."""
    header = ["dataset", "split", "model", "metric", "value", "low", "high", "n"]
    lines = [
        [
            *(row[key] for key in header[:4]),
            *(format_number(row[key]) for key in ("value", "low", "high")),
            str(row["n"]),
        ]
        for row in rows
    ]
    return render_table(header, lines) + "\n"


def wide_tables(rows: list[Row]) -> list[str]:
    """One table a dataset and split: a line a model, a column a metric, with intervals."""
    splits: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        splits.setdefault((row["dataset"], row["split"]), []).append(row)
    return [
        f"**{dataset}, {split}**\n\n{_wide_table(part)}\n"
        for (dataset, split), part in splits.items()
    ]


def _wide_table(rows: list[Row]) -> str:
    cells = {(row["model"], row["metric"]): row for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    loss = {m: cells[m, "log_loss"]["value"] for m in models if (m, "log_loss") in cells}
    models.sort(key=lambda model: loss.get(model, float("inf")))
    lines = []
    for model in models:
        of_model = [cells.get((model, metric)) for metric in metrics]
        n = max(row["n"] for row in of_model if row)
        lines.append([model, str(n), *("" if r is None else format_interval(r) for r in of_model)])
    return render_table(["model", "n", *metrics], lines)


if __name__ == "__main__":
    atomic_write_text(TABLES, build_tables())
