"""Lists of engines on a ranking split: fitted on the log before each test, on nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.harness.engines import (
    AddedAdapter,
    EngineFit,
    engine_lists,
    fit_measured,
    kept_members,
    make_engine,
    saved_megabytes,
)
from benchmarks.ranking.entries import ResultEntry
from benchmarks.ranking.splits import ItemLists, RankingSplit, RankingStage
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text

CPU_SECONDS, MEGABYTES = "CPU seconds of fit", "MB of the folder"


@dataclass(frozen=True)
class EngineLists:
    """The lists of one fit for a test, and what they cost; NaN where nets were found trained.

    ``kept`` are the names of the members that the list is made of.
    """

    lists: ItemLists
    kept: list[str]
    seconds: float
    cpu_seconds: float
    megabytes: float


def engine_entries(
    split: RankingSplit,
    fits: Sequence[EngineFit],
    seeds: int,
    cache: Path,
    adapter: AddedAdapter | None = None,
) -> Iterator[tuple[str, ResultEntry]]:
    """Give an entry for each way to fit; what is cached is not fitted again.

    Parameters
    ----------
    seeds
        Each is fitted with the seeds 0 to this number.
    cache
        Holds lists by fit, test and seed, and the nets of fits that were interrupted.
    adapter
        Of the fits with an LLM.
    """
    for fit in fits:
        found: dict[str, dict[str, EngineLists]] = {}
        for test, stage in split.tests.items():
            found[test] = {}
            for seed in range(seeds):
                own = adapter if fit.use_llm else None
                made = cached_lists(split, test, stage, replace(fit, seed=seed), cache, own)
                found[test][str(seed)] = made
        first = next(iter(found.values()))["0"]
        lists = {
            test: {seed: one.lists for seed, one in each.items()} for test, each in found.items()
        }
        costs = {CPU_SECONDS: first.cpu_seconds, MEGABYTES: first.megabytes}
        yield fit.label, ResultEntry({}, float("nan"), lists, first.seconds, costs)


def cached_lists(
    split: RankingSplit,
    test: str,
    stage: RankingStage,
    fit: EngineFit,
    cache: Path,
    adapter: AddedAdapter | None = None,
) -> EngineLists:
    """Fit an engine on what precedes a test, and make the test's lists, or look them up."""
    path = cache / f"{fit.label}, {test}, seed {fit.seed}.json"
    if not path.exists():
        made = _fit_and_list(split, stage, fit, cache / f"nets, {test}, seed {fit.seed}", adapter)
        atomic_write_text(path, json.dumps(asdict(made)))
    return EngineLists(**json.loads(path.read_text(encoding="utf-8")))


def stage_dataset(split: RankingSplit, stage: RankingStage) -> Dataset:
    """Give what an engine may see before a test: the stage's log alone, and the split's rule."""
    return replace(split.dataset, log=stage.log, repeat=split.repeat, item_rows=None)


def _fit_and_list(
    split: RankingSplit,
    stage: RankingStage,
    fit: EngineFit,
    work_folder: Path,
    adapter: AddedAdapter | None,
) -> EngineLists:
    engine = make_engine(stage_dataset(split, stage), adapter)
    is_fresh = not any(work_folder.glob("*"))
    start = time.perf_counter()
    cpu_seconds = fit_measured(engine, fit, work_folder, adapter)
    lists = engine_lists(engine, stage.histories)
    seconds = time.perf_counter() - start
    if not is_fresh:
        seconds = cpu_seconds = float("nan")
    kept = kept_members(engine, "list")
    return EngineLists(lists, kept, seconds, cpu_seconds, saved_megabytes(engine))
