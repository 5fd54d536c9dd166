"""Writes benchmarks/TABLES.md: every result file as a table, and tables over several of them.

Run: python -m benchmarks.harness.tables
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.engine_tables import cost_table, llm_table, member_table
from benchmarks.harness.formatting import Row, format_interval, format_number, render_table
from benchmarks.harness.new_item_tables import launch_table, young_shop_table
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
COMPARISONS = ("ndcg@10 above ", "ratio to ")  # metrics that name another model
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

The rows of `llmrec` are engines: fitted with an effort on the log before the test, and asked for
lists, tilt included (`ranking.compare --split ...`). Baselines are tuned on the split's validation.
"-": not measured, or not meant for that log.
"""
ENGINES = """## Engines

What a fit costs, how large the folder is, how long it takes to load without the LLM, and the share
of people for whom a loaded engine ranks as before, to the bit (`engines.whole`). What lists
(NDCG@10) and forecasts (nats per event) lose where an engine is fitted without a member, and what
the LLM adds to each effort (`engines.members`).
"""
NEW_ITEMS = """## New items and young shops

Shelves of what nobody has taken yet ("launch") and of what was first taken in the eight weeks
before ("new"), ranked among themselves for those who take some of it; lists of what a person has
not taken, by engines of logs of few people. NDCG@10 (`ranking.launches`, `ranking.young_shop`).
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
    "forecasting/horizon": """The target period is the same at each horizon, and so are the people:
histories end 1 to 4 periods before its end. Unchanged is the forecast of the next period, by an
engine of effort quick, used for the period; `HorizonForecaster` is what `forecast(horizon=h)` of
that engine gives. Which forecasts are mixed was chosen on validation; tests were read once.
""",
    "speed/ranking": """`plain pass` sums the same parts and takes the best by argpartition. Results
up to 2026-11-25: of the million items, the batch ranked first (as forecast) sorted the log too, so
that its time cannot be compared with the others'; since then one person is ranked before.
""",
}


def build_tables() -> str:
    """Render the page: tables over several files, then one section a result file."""
    new_items = list(filter(None, (launch_table(), young_shop_table())))
    parts = [
        HEAD,
        *(FORECASTS, forecast_table(), RANKINGS, ranking_table()),
        *([NEW_ITEMS] if new_items else []),
        *new_items,
        *(ENGINES, *filter(None, (cost_table(), member_table(), llm_table()))),
        *(FINETUNING, finetuning_table()),
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
    tables = []
    for (dataset, split), part in splits.items():
        compared = [row for row in part if row["metric"].startswith(COMPARISONS)]
        others = [row for row in part if row not in compared]
        tables.append(f"**{dataset}, {split}**\n\n{_wide_table(others)}\n")
        if compared:
            tables.append(_comparison_table(compared) + "\n")
    return tables


def _comparison_table(rows: list[Row]) -> str:
    """One line a model and another one: by how much it is above, and the ratio."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        start = next(start for start in COMPARISONS if row["metric"].startswith(start))
        other = row["metric"].removeprefix(start)
        cells.setdefault((row["model"], other), {})[start] = format_interval(row)
    lines = []
    for pair, found in cells.items():
        lines.append([*pair, *(found.get(start, "") for start in COMPARISONS)])
    return render_table(["model", "compared with", "ndcg@10 above", "ratio"], lines)


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
