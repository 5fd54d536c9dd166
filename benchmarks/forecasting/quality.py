"""Who forecasts the next period best? The whole family on an embedded log, tests read once.

Fitted on all windows before validation, tuned on validation, judged on the test periods. Models
that depend on a seed are fitted three times (SASRec and BERT4Rec once); scores are means over
seeds. What is judged is kept under --kept: a run that was cut off goes on where it stopped.

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

from benchmarks.harness.results import record
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.data.synthetic import make_synthetic_world
from llmrec.evaluation.comparison import PERSISTENCE, PRIORS, REFERENCE, LLMScores, summary_table
from llmrec.evaluation.evaluator import EvaluationResult, evaluate_forecasters
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.registry import (
    BUILDERS,
    NEXT_ITEM_MODELS,
    SEED_DEPENDENT,
    ForecasterRegistry,
)
from llmrec.language.model import LanguageModel

KINDS = ("cold", "stable", "drifting")  # slices that the record keeps the gains of


class Kept:
    """Judgements on disk, by split and model."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder = folder / f"{dataset.name}-{dataset.log.fingerprint}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, split: str, model: str) -> Path:
        """Where one is kept."""
        return self.folder / f"{split}-{model}".replace(" ", "_")

    def has(self, split: str, model: str) -> bool:
        """Whether it is there."""
        return self.path(split, model).with_suffix(".bins.parquet").exists()

    def put(self, split: str, model: str, judgement: EvaluationResult) -> None:
        """Keep one."""
        path = self.path(split, model)
        atomic_write_bytes(path.with_suffix(".scores.parquet"), judgement.scores.to_parquet())
        atomic_write_bytes(path.with_suffix(".bins.parquet"), judgement.bins.to_parquet())

    def get(self, split: str, model: str) -> EvaluationResult:
        """Read one."""
        path = self.path(split, model)
        return EvaluationResult(
            pd.read_parquet(path.with_suffix(".scores.parquet")),
            pd.read_parquet(path.with_suffix(".bins.parquet")),
        )


def main() -> None:
    """Judge, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="completejourney")
    parser.add_argument("--kept", type=Path, default=Path("forecast-quality"))
    parser.add_argument("--models", default=",".join(BUILDERS), help="which of the family")
    parser.add_argument("--users", type=int, default=400, help="windows a split that the LLM reads")
    parser.add_argument("--model", default="smollm2-135m", help="language model; none: ''")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    kept = Kept(arguments.kept, dataset)
    names = list(dict.fromkeys((PERSISTENCE, REFERENCE, *arguments.models.split(","))))
    windows = split_windows(dataset)
    validation = windows.pop("validation")
    families = [ForecasterRegistry(training_windows(dataset), validation)]
    for name in names:
        if all(kept.has(split, name) for split in windows):
            continue
        fitted = [families[0][name]]
        if name in SEED_DEPENDENT and name not in NEXT_ITEM_MODELS:
            families += [families[0].with_seed(seed) for seed in (1, 2)][len(families) - 1 :]
            fitted += [family[name] for family in families[1:]]
        for split, found in windows.items():
            judgement = evaluate_forecasters(
                {name: fitted}, found, dataset=dataset.name, split=split
            )
            kept.put(split, name, judgement)
        print(f"{name}: judged", flush=True)
    judgements = {split: joined(kept.get(split, name) for name in names) for split in windows}
    calibrations: dict[str, Calibration] = {}
    if arguments.model:
        spoken, calibrations = with_language_model(
            dataset, families[0], arguments.model, arguments.users, kept.folder
        )
        judgements = {split: judgements[split].merge(spoken[split]) for split in windows}
    if dataset.name == "synthetic":
        optimum = {"Optimum": [make_synthetic_world()]}
        for split, found in windows.items():
            judged = evaluate_forecasters(optimum, found, dataset=dataset.name, split=split)
            judgements[split] = judgements[split].merge(judged)
    results = rows(pd.concat([summary_table(found) for found in judgements.values()]), calibrations)
    record(f"forecast_quality_{dataset.name}", results)


def joined(judgements: Iterable[EvaluationResult]) -> EvaluationResult:
    """Put several models' judgements together."""
    return reduce(EvaluationResult.merge, judgements)


def with_language_model(
    dataset: Dataset, family: ForecasterRegistry, model: str, users: int, folder: Path
) -> tuple[dict[str, EvaluationResult], dict[str, Calibration]]:
    """Judge the untuned language model alone, beside counting and beside the mixture."""
    path = folder / f"readings-{Path(model).name}-{users}.npz"
    readings = LLMScores.sample(dataset, users)
    if path.exists():
        with np.load(path) as scores:
            readings = LLMScores(readings.windows, {split: scores[split] for split in scores})
    else:
        readings = readings.score(LanguageModel.load(model), dataset)
        content = io.BytesIO()
        np.savez(content, **readings.scores)  # type: ignore[arg-type]
        atomic_write_bytes(path, content.getvalue())
    spoken, calibrations = readings.to_forecasters({name: [family[name]] for name in PRIORS})
    judgements = {
        split: evaluate_forecasters(
            believed, readings.windows[split], dataset=dataset.name, split=split
        )
        for split, believed in spoken.items()
    }
    return judgements, calibrations


def rows(table: pd.DataFrame, calibrations: dict[str, Calibration]) -> list[dict[Any, Any]]:
    """Rows for the record: a slice is written behind the name of its split."""
    found: list[dict[Any, Any]] = []
    for row in table.to_dict("records"):
        part = row.pop("slice")
        if part != "all" and (part not in KINDS or row["metric"] != "log_loss_gain"):
            continue
        row["split"] = row["split"] if part == "all" else f"{row['split']} / {part}"
        found.append(row | {"seeds": seeds_of(row["model"])})
    dataset = table["dataset"].iloc[0]
    about = {"dataset": dataset, "split": "validation", "low": None, "high": None}
    for name, calibration in calibrations.items():
        mean, low, high = calibration.gain
        more = about | {"model": f"LLM on {name}", "n": calibration.n, "seeds": [0]}
        found.append(more | {"metric": "a", "value": calibration.a})
        found.append(
            more | {"metric": "held_out_gain_of_reading", "value": mean, "low": low, "high": high}
        )
    return found


def seeds_of(model: str) -> list[int]:
    """Seeds that a model was fitted with."""
    return [0, 1, 2] if model in SEED_DEPENDENT and model not in NEXT_ITEM_MODELS else [0]


if __name__ == "__main__":
    main()
