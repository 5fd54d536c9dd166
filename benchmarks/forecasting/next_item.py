"""GRU4Rec as a forecaster: the next item, summed over genres, on MovieLens's test periods.

Three seeds, at the steps and rate whose lists were best on validation; scores are means.

Run: python -m benchmarks.forecasting.next_item
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.harness.results import record_results
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.evaluation.comparison import PERSISTENCE, REFERENCE, summary_table
from llmrec.evaluation.evaluator import evaluate_forecasters
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.forecasters.sequential import NextItemModel

SEEDS = [0, 1, 2]
METRICS = ("log_loss", "log_loss_gain")


def main() -> None:
    """Train, evaluate beside counting, and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset("ml-100k")
    windows, training = split_windows(dataset), training_windows(dataset)
    validation, test = windows["validation"], windows["test"]
    registry = ForecasterRegistry(training, validation)
    nets = [NextItemModel("GRU4Rec").fit(training, validation, seed=seed) for seed in SEEDS]
    models = {name: [registry[name]] for name in (PERSISTENCE, REFERENCE)} | {"GRU4Rec": nets}
    result = evaluate_forecasters(models, test, dataset=dataset.name, split="test")
    table = summary_table(result)
    chosen = table[(table["slice"] == "all") & table["metric"].isin(METRICS)]
    rows = chosen[chosen["model"] == "GRU4Rec"].drop(columns="slice").to_dict("records")
    record_results(
        "forecasting/next_item",
        [{str(key): value for key, value in row.items()} | {"seeds": SEEDS} for row in rows],
    )


if __name__ == "__main__":
    main()
