"""What a fine-tuned language model adds to the numeric family, and where; tests are read once.

Calibrations and gates are fitted on validation windows. If the adapter has learned from these
(`finetune/pairs.py --validated`), the one of the same config that had not, --before, reads them in
its stead; its training stopped where it read them best. Everything fitted, read and written is kept
under --kept, so that a run that was cut off goes on; rows of parts that are not run again are kept
too.
The untuned model is judged by benchmarks.forecasting.quality.

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

from benchmarks.finetuning.ablations import audits, cold
from benchmarks.harness.evaluator import Court, Row
from benchmarks.finetuning.category_scores import family, held_out, other, read, seeds
from benchmarks.harness.results import record
from benchmarks.harness.cached_model import Tuned, adapter_inside
from benchmarks.finetuning.generation import parsed, words, written
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.readers import load_dataset
from llmrec.errors import DataError
from llmrec.language.adapters import SEEN_METRICS, adapter_hash


@dataclass(frozen=True)
class Part:
    """What is judged together: the rows, and the folder of the adapter they are about, if any."""

    rows: Callable[[], Iterator[Row]]
    folder: Path | None = None


def main() -> None:
    """Judge part by part, and write the table of all parts."""
    arguments = _arguments()
    torch.set_num_threads(1)
    dataset = load_dataset(arguments.data)
    court = Court(dataset, arguments.kept, arguments.users)
    parts = _parts(court, arguments)
    for name in arguments.parts.split(",") if arguments.parts else parts:
        if name not in parts:
            raise DataError(f"no part is called {name!r} here; there are {', '.join(parts)}")
        rows = json.dumps(list(parts[name].rows()), default=float)
        atomic_write_text(_place(court, name, parts[name], arguments), rows)
        print(f"{name}: done", flush=True)
    kept = [_place(court, name, part, arguments) for name, part in parts.items()]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in kept if path.exists()]
    record(f"finetune_quality_{dataset.name}", [row for part in found for row in part])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k", help="what load_dataset takes")
    parser.add_argument("--engine", type=Path, required=True, help="fine-tuned on this log")
    parser.add_argument("--before", type=Path, help="one trained alike, but not on validation")
    parser.add_argument("--again", type=Path, nargs="*", help="runs alike, with other seeds")
    parser.add_argument("--t5", type=Path, help="an encoder-decoder fine-tuned on this log")
    parser.add_argument("--other", type=Path, help="an engine fine-tuned on another log")
    parser.add_argument("--held-out", type=Path, help="one that never saw some categories")
    parser.add_argument("--kept", type=Path, default=Path("finetune-quality"))
    parser.add_argument("--users", type=int, help="windows a split (default: all)")
    parser.add_argument("--audited", type=int, default=400, help="users of the audits")
    parser.add_argument("--written", type=int, default=100, help="users a split to write for")
    parser.add_argument("--prompts", type=int, default=500, help="lines to decode freely")
    parser.add_argument("--parts", help="some of them, with commas (default: all there are)")
    return parser.parse_args()


def _parts(court: Court, arguments: argparse.Namespace) -> dict[str, Part]:
    """Give what can be judged with the folders at hand, by name, in the order of the table."""
    opened = cache(partial(_opened, court, arguments.before))

    def part(judge: Callable[..., Iterator[Row]], name: str, folder: Path, *more: Any) -> Part:
        return Part(lambda: judge(court, opened(name, folder), *more), folder)

    parts = {"family": Part(lambda: family(court))}
    for name, end, folder in (("LLM", "", arguments.engine), ("T5", "_t5", arguments.t5)):
        if folder is not None:
            parts |= {
                f"read{end}": part(read, name, folder),
                f"cold{end}": part(cold, name, folder),
                f"audits{end}": part(audits, name, folder, arguments.audited),
                f"written{end}": part(written, name, folder, arguments.written),
                f"parsed{end}": part(parsed, name, folder, arguments.written, arguments.prompts),
                f"words{end}": part(words, name, folder, arguments.written),
            }
    if again := arguments.again:
        runs = [arguments.engine, *again]
        parts["seeds"] = Part(
            lambda: seeds(court, *(opened("LLM", folder) for folder in runs)), arguments.engine
        )
    if arguments.other is not None:
        parts["other"] = part(other, "LLM of another log", arguments.other)
    if arguments.held_out is not None:
        folder = arguments.held_out
        parts["held_out"] = part(held_out, "LLM without some categories", folder, folder)
    return parts


def _place(court: Court, name: str, part: Part, arguments: argparse.Namespace) -> Path:
    """Where the rows of a part are kept: apart for each adapter and number of users."""
    adapter = adapter_hash(adapter_inside(part.folder)) if part.folder else "numeric"
    if arguments.before is not None:
        adapter += f"-{adapter_hash(adapter_inside(arguments.before))}"
    return court.folder / "rows" / f"{name}-{adapter}-{arguments.users or 'all'}.json"


def _opened(court: Court, before: Path | None, name: str, folder: Path) -> Tuned:
    tuned = Tuned.opened(name, folder, court.dataset, court.folder)
    if name in ("LLM", "T5"):
        _check_own(tuned, court.dataset)
    if SEEN_METRICS not in tuned.about.metrics:
        return tuned
    if before is None or name != "LLM":
        raise DataError(f"{folder} has learned from validation windows: give --before, too")
    return replace(tuned, before=_opened(court, None, name, before))


def _check_own(tuned: Tuned, dataset: Dataset) -> None:
    """Refuse an adapter of another log, whose training may have seen what is judged here."""
    about = tuned.about
    if about.data_fingerprint != dataset.log.fingerprint:
        raise DataError(
            f"{tuned.name} was fine-tuned on {about.dataset!r} ({about.data_fingerprint}), not on "
            f"this log ({dataset.name!r}, {dataset.log.fingerprint}): give it as --other"
        )


if __name__ == "__main__":
    main()
