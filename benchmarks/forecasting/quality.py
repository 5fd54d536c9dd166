"""Who forecasts the next period best? All forecasters on one log, tests used once.

Fitted on all windows before validation, tuned on validation, evaluated on the test periods. Models
that depend on a seed are fitted three times (next-item models once); scores are means over
seeds. Evaluations are cached under --cache: an interrupted run goes on where it stopped.

Run: python -m benchmarks.forecasting.quality --data completejourney
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import record_results
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import Window
from llmrec.data.splits import split_windows, training_windows
from llmrec.data.synthetic import make_synthetic_world
from llmrec.evaluation.comparison import PERSISTENCE, PRIORS, REFERENCE, LLMScores, summary_table
from llmrec.evaluation.evaluator import EvaluationResult, evaluate_forecasters
from llmrec.evaluation.references import OracleForecaster
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.registry import (
    BUILDERS,
    NEXT_ITEM_MODELS,
    SEED_DEPENDENT,
    ForecasterRegistry,
)
from llmrec.language.model import LanguageModel

SLICES = ("cold", "stable", "drifting")  # of people, whose gains are recorded


class EvaluationCache:
    """Evaluation results on disk, by split and model."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder = folder / f"{dataset.name}-{dataset.log.fingerprint}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, split: str, model: str) -> Path:
        """Where one is stored, but for the ending of its two files."""
        return self.folder / f"{split}-{model}".replace(" ", "_")

    def has(self, split: str, model: str) -> bool:
        """Whether it is there."""
        return self.path(split, model).with_suffix(".bins.parquet").exists()

    def put(self, split: str, model: str, result: EvaluationResult) -> None:
        """Store one."""
        path = self.path(split, model)
        atomic_write_bytes(path.with_suffix(".scores.parquet"), result.scores.to_parquet())
        atomic_write_bytes(path.with_suffix(".bins.parquet"), result.bins.to_parquet())

    def get(self, split: str, model: str) -> EvaluationResult:
        """Read one."""
        path = self.path(split, model)
        return EvaluationResult(
            pd.read_parquet(path.with_suffix(".scores.parquet")),
            pd.read_parquet(path.with_suffix(".bins.parquet")),
        )


def main() -> None:
    """Evaluate, and write the table."""
    arguments = _arguments()
    dataset = evaluation_dataset(arguments.data)
    cache = EvaluationCache(arguments.cache, dataset)
    names = list(dict.fromkeys((PERSISTENCE, REFERENCE, *arguments.models.split(","))))
    windows = split_windows(dataset)
    registry = ForecasterRegistry(training_windows(dataset), windows.pop("validation"))
    evaluate_numeric(cache, dataset, registry, names, windows)
    results = {split: merge_results(cache.get(split, name) for name in names) for split in windows}
    calibrations: dict[str, Calibration] = {}
    if arguments.model:
        of_llm, calibrations = evaluate_llm(
            dataset, registry, arguments.model, arguments.users, cache.folder
        )
        results = {split: results[split].merge(of_llm[split]) for split in windows}
    if dataset.name == "synthetic":
        optimum = {"Optimum": [OracleForecaster(make_synthetic_world())]}
        for split, part in windows.items():
            best = evaluate_forecasters(optimum, part, dataset=dataset.name, split=split)
            results[split] = results[split].merge(best)
    table = pd.concat([summary_table(result) for result in results.values()])
    record_results(f"forecasting/quality_{dataset.name}", make_rows(table, calibrations))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--cache", "--kept", type=Path, default=Path("benchmark-cache/forecasting"))
    parser.add_argument("--models", default=",".join(BUILDERS), help="which forecasters")
    parser.add_argument("--users", type=int, default=400, help="windows a split for the LLM")
    parser.add_argument("--model", default="smollm2-135m", help="language model; none: ''")
    return parser.parse_args()


def evaluate_numeric(
    cache: EvaluationCache,
    dataset: Dataset,
    registry: ForecasterRegistry,
    names: Iterable[str],
    windows: dict[str, list[Window]],
) -> None:
    """Fit and evaluate the forecasters that are not cached for all test splits."""
    registries = [registry]
    for name in names:
        if all(cache.has(split, name) for split in windows):
            continue
        fitted = [registry[name]]
        if len(seeds_of(name)) > 1:
            registries += [registry.with_seed(seed) for seed in (1, 2)][len(registries) - 1 :]
            fitted += [other[name] for other in registries[1:]]
        for split, part in windows.items():
            result = evaluate_forecasters({name: fitted}, part, dataset=dataset.name, split=split)
            cache.put(split, name, result)
        print(f"{name}: evaluated", flush=True)


def merge_results(results: Iterable[EvaluationResult]) -> EvaluationResult:
    """Several models' results as one."""
    return reduce(EvaluationResult.merge, results)


def evaluate_llm(
    dataset: Dataset, registry: ForecasterRegistry, model: str, users: int, folder: Path
) -> tuple[dict[str, EvaluationResult], dict[str, Calibration]]:
    """Evaluate the LLM without fine-tuning: alone, on counting and on the mixture."""
    path = folder / f"readings-{Path(model).name}-{users}.npz"
    scores = LLMScores.sample(dataset, users)
    if path.exists():
        with np.load(path) as stored:
            scores = LLMScores(scores.windows, {split: stored[split] for split in stored})
    else:
        scores = scores.score(LanguageModel.load(model), dataset)
        content = io.BytesIO()
        np.savez(content, **scores.scores)  # type: ignore[arg-type]
        atomic_write_bytes(path, content.getvalue())
    forecasters, calibrations = scores.to_forecasters({name: [registry[name]] for name in PRIORS})
    results = {
        split: evaluate_forecasters(
            models, scores.windows[split], dataset=dataset.name, split=split
        )
        for split, models in forecasters.items()
    }
    return results, calibrations


def make_rows(table: pd.DataFrame, calibrations: dict[str, Calibration]) -> list[dict[Any, Any]]:
    """Rows of results: a slice of people stands behind the name of its split."""
    rows: list[dict[Any, Any]] = []
    for row in table.to_dict("records"):
        part = row.pop("slice")
        if part != "all" and (part not in SLICES or row["metric"] != "log_loss_gain"):
            continue
        row["split"] = row["split"] if part == "all" else f"{row['split']} / {part}"
        rows.append(row | {"seeds": seeds_of(row["model"])})
    dataset = table["dataset"].iloc[0]
    keys = {"dataset": dataset, "split": "validation", "low": None, "high": None}
    for name, calibration in calibrations.items():
        mean, low, high = calibration.gain
        of_llm = keys | {"model": f"LLM on {name}", "n": calibration.n, "seeds": [0]}
        gain = {"metric": "held_out_gain_of_llm", "value": mean, "low": low, "high": high}
        rows += [of_llm | {"metric": "a", "value": calibration.a}, of_llm | gain]
    return rows


def seeds_of(model: str) -> list[int]:
    """Seeds that a model is fitted with."""
    return [0, 1, 2] if model in SEED_DEPENDENT and model not in NEXT_ITEM_MODELS else [0]


if __name__ == "__main__":
    main()
