"""GRU4Rec as a forecaster: what comes next, summed over genres, on MovieLens's test periods.

Three seeds, at the steps and rate that lists were best with on validation; scores are means.

Run: python -m benchmarks.forecasting.next_item
"""

from __future__ import annotations

import torch

from benchmarks.harness.results import record
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.evaluation.comparison import PERSISTENCE, REFERENCE, summary_table
from llmrec.evaluation.evaluator import evaluate_forecasters
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.forecasters.sequential import NextItemModel

SEEDS = [0, 1, 2]
METRICS = ("log_loss", "log_loss_gain")


def main() -> None:
    """Train, judge beside counting, and write the table."""
    torch.set_num_threads(1)
    dataset = load_dataset("ml-100k")
    windows, training = split_windows(dataset), training_windows(dataset)
    validation, test = windows["validation"], windows["test"]
    family = ForecasterRegistry(training, validation)
    nets = [NextItemModel("GRU4Rec").fit(training, validation, seed=seed) for seed in SEEDS]
    asked = {name: [family[name]] for name in (PERSISTENCE, REFERENCE)} | {"GRU4Rec": nets}
    table = summary_table(evaluate_forecasters(asked, test, dataset=dataset.name, split="test"))
    kept = table[(table["slice"] == "all") & table["metric"].isin(METRICS)].drop(columns="slice")
    rows = kept[kept["model"] == "GRU4Rec"].to_dict("records")
    record(
        "net_forecasts", [{str(k): v for k, v in row.items()} | {"seeds": SEEDS} for row in rows]
    )


if __name__ == "__main__":
    main()
