"""What a fine-tuned language model adds to numeric forecasters, and where; tests are used once.

Calibrations and gates are fitted on validation windows. If the adapter has learned from these
(`finetune/make_dataset.py --include-validation`), the one of the same config that had not,
--validation-adapter, scores them instead; its training stopped where its loss on them was least.
Everything fitted, scored and generated is cached under --cache, so that an interrupted run goes on;
rows of parts that are not run again are cached too.
The model without fine-tuning is evaluated by benchmarks.forecasting.quality.

Run: python -m benchmarks.finetuning.quality --data ml-100k --engine llmrec/engines/ml-100k
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.finetuning.ablations import audit_rows, cold_start_rows
from benchmarks.finetuning.category_scores import (
    held_out_rows,
    llm_rows,
    numeric_rows,
    other_log_rows,
    seed_rows,
)
from benchmarks.finetuning.generation import generated_rows, parse_rows, statement_rows
from benchmarks.harness.cached_model import FineTunedRun, adapter_folder
from benchmarks.harness.evaluator import Evaluator
from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.readers import load_dataset
from llmrec.errors import DataError
from llmrec.language.adapters import SEEN_METRICS, adapter_hash


@dataclass(frozen=True)
class Part:
    """Rows that are made together, and the folder of the adapter they are about, if any."""

    rows: Callable[[], Iterator[Row]]
    folder: Path | None = None


def main() -> None:
    """Evaluate part by part, and write the table of all parts."""
    arguments = _arguments()
    torch.set_num_threads(1)
    dataset = load_dataset(arguments.data)
    evaluator = Evaluator(dataset, arguments.cache, arguments.users)
    parts = _parts(evaluator, arguments)
    for name in arguments.parts.split(",") if arguments.parts else parts:
        if name not in parts:
            raise DataError(f"no part is called {name!r} here; there are {', '.join(parts)}")
        rows = json.dumps(list(parts[name].rows()), default=float)
        atomic_write_text(_rows_file(evaluator, name, parts[name], arguments), rows)
        print(f"{name}: done", flush=True)
    paths = [_rows_file(evaluator, name, part, arguments) for name, part in parts.items()]
    cached = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    record_results(f"finetuning/quality_{dataset.name}", [row for part in cached for row in part])


def _arguments() -> argparse.Namespace:
    """Parse the command line; second spellings of a flag are those of 0.1."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", default="ml-100k", help="what load_dataset takes")
    add("--engine", type=Path, required=True, help="fine-tuned on this log")
    add(
        *("--validation-adapter", "--before"),
        type=Path,
        help="one trained alike, but not on validation",
    )
    add("--other-seeds", "--again", type=Path, nargs="*", help="runs alike, with other seeds")
    add("--t5", type=Path, help="an encoder-decoder fine-tuned on this log")
    add("--other-log", "--other", type=Path, help="an engine fine-tuned on another log")
    add("--held-out", type=Path, help="one that never saw some categories")
    add("--cache", "--kept", type=Path, default=Path("benchmark-cache/finetuning"))
    add("--users", type=int, help="windows a split (default: all)")
    add("--audit-users", "--audited", type=int, default=400, help="users of the audits")
    add(
        *("--generation-users", "--written"),
        type=int,
        default=100,
        help="users a split to generate for",
    )
    add("--prompts", type=int, default=500, help="lines to generate without constraint")
    add("--parts", help="some of them, with commas (default: all there are)")
    return parser.parse_args()


def _parts(evaluator: Evaluator, arguments: argparse.Namespace) -> dict[str, Part]:
    """List what can be evaluated with the folders at hand, by name, in the order of the table."""
    load = cache(partial(_load_run, evaluator, arguments.validation_adapter))

    def part(rows: Callable[..., Iterator[Row]], name: str, folder: Path, *more: Any) -> Part:
        return Part(lambda: rows(evaluator, load(name, folder), *more), folder)

    parts = {"numeric": Part(lambda: numeric_rows(evaluator))}
    users, prompts = arguments.generation_users, arguments.prompts
    for name, end, folder in (("LLM", "", arguments.engine), ("T5", "_t5", arguments.t5)):
        if folder is not None:
            parts |= {
                f"llm{end}": part(llm_rows, name, folder),
                f"cold_start{end}": part(cold_start_rows, name, folder),
                f"audits{end}": part(audit_rows, name, folder, arguments.audit_users),
                f"generated{end}": part(generated_rows, name, folder, users),
                f"parse_rate{end}": part(parse_rows, name, folder, users, prompts),
                f"statements{end}": part(statement_rows, name, folder, users),
            }
    if arguments.other_seeds:
        folders = [arguments.engine, *arguments.other_seeds]
        parts["seeds"] = Part(
            lambda: seed_rows(evaluator, *(load("LLM", folder) for folder in folders)),
            arguments.engine,
        )
    if arguments.other_log is not None:
        parts["other_log"] = part(other_log_rows, "LLM of another log", arguments.other_log)
    if arguments.held_out is not None:
        folder = arguments.held_out
        parts["held_out"] = part(held_out_rows, "LLM without some categories", folder, folder)
    return parts


def _rows_file(evaluator: Evaluator, name: str, part: Part, arguments: argparse.Namespace) -> Path:
    """Where the rows of a part are cached: apart for each adapter and number of users."""
    adapter = adapter_hash(adapter_folder(part.folder)) if part.folder else "numeric"
    if arguments.validation_adapter is not None:
        adapter += f"-{adapter_hash(adapter_folder(arguments.validation_adapter))}"
    return evaluator.folder / "rows" / f"{name}-{adapter}-{arguments.users or 'all'}.json"


def _load_run(
    evaluator: Evaluator, validation_adapter: Path | None, name: str, folder: Path
) -> FineTunedRun:
    run = FineTunedRun.load(name, folder, evaluator.dataset, evaluator.folder)
    if name in ("LLM", "T5"):
        _require_same_log(run, evaluator.dataset)
    if SEEN_METRICS not in run.metadata.metrics:
        return run
    if validation_adapter is None or name != "LLM":
        raise DataError(
            f"{folder} has learned from validation windows: give --validation-adapter, too"
        )
    return replace(run, validation_run=_load_run(evaluator, None, name, validation_adapter))


def _require_same_log(run: FineTunedRun, dataset: Dataset) -> None:
    """Refuse an adapter of another log, whose training may have seen the tests of this one."""
    metadata = run.metadata
    if metadata.data_fingerprint != dataset.log.fingerprint:
        raise DataError(
            f"{run.name} was fine-tuned on {metadata.dataset!r} ({metadata.data_fingerprint}), not "
            f"on this log ({dataset.name!r}, {dataset.log.fingerprint}): give it as --other-log"
        )


if __name__ == "__main__":
    main()
