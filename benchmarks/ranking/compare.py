"""Lists of ten, by baselines and by llmrec's engines, on the same splits, people, items and rules.

A baseline's settings are chosen by NDCG@10 on validation alone; it is then fitted once more on all
that lies before a test, and ranked with once. An engine is fitted on that, too, and validates on
its own last period; its lists are those that `InterestEngine.recommend` gives. All is cached under
--cache, so that an interrupted run goes on; remove what another version has cached.

Run: make bench-ranking, or for one split python -m benchmarks.ranking.compare --split global-time
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.engines import EFFORTS, EngineFit
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import BEST, BEST_WITH_LLM, LLMREC
from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from benchmarks.ranking import splits
from benchmarks.ranking.adapters import adapter_for
from benchmarks.ranking.baseline_grids import baselines_of
from benchmarks.ranking.engines import engine_entries
from benchmarks.ranking.entries import (
    SEEDS,
    VALIDATION,
    EarlierResults,
    ResultEntry,
    baseline_entries,
    over_seeds,
)
from benchmarks.ranking.rectools import RECTOOLS, rectools_baselines
from benchmarks.ranking.splits import ItemLists, RankingSplit
from llmrec.data.dataset import Dataset
from llmrec.metrics import ndcg_at, percentile_interval, recall_at, resampled_means
from llmrec.types import FloatArray

RANKING_CACHE = Path("benchmark-cache/ranking")
OpenSplit = Callable[[Dataset], RankingSplit]
SPLITS: dict[str, tuple[str, OpenSplit]] = {
    "next-period": ("ml-100k", splits.next_period),
    "leave-one-out": ("ml-100k", splits.leave_one_out),
    "global-time": ("ml-100k", splits.global_time),
    "repeat-allowed": ("completejourney", lambda data: splits.next_weeks(data, "allow")),
    "explore-only": ("completejourney", lambda data: splits.next_weeks(data, "exclude")),
    "retail-repeat": ("online-retail", lambda data: splits.next_weeks(data, "allow")),
    "retail-explore": ("online-retail", lambda data: splits.next_weeks(data, "exclude")),
}


def main() -> None:
    """Run the baselines of a split, then the engines, and write the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    dataset, open_split = SPLITS[arguments.split]
    split = open_split(evaluation_dataset(dataset))
    if arguments.tests:
        split = replace(split, tests={name: split.tests[name] for name in arguments.tests})
    name = f"ranking/compare_{arguments.split}"
    earlier = EarlierResults.load(name, with_engines=bool(arguments.tests))
    entries = _baselines(arguments, dataset, split, earlier)
    settings = {model: entry.settings for model, entry in entries.items()}
    fits = [EngineFit(effort) for effort in arguments.efforts]
    adapter = None if arguments.adapter is None else adapter_for(split, arguments.adapter)
    if adapter is not None:
        fits.append(EngineFit("best", use_llm=True))
    cache = arguments.cache / arguments.split / "engines"
    entries |= engine_entries(split, fits, arguments.engine_seeds, cache, adapter)
    rows = list(comparison(split, entries))
    if arguments.keep_rows:
        rows = [*earlier.rows_without(rows), *rows]
        settings = dict(earlier.settings) | settings
    record_results(name, rows, settings=settings)


def _baselines(
    arguments: argparse.Namespace, dataset: str, split: RankingSplit, earlier: EarlierResults
) -> dict[str, ResultEntry]:
    """Give the lists of the baselines that are asked for, or cached."""
    nets = arguments.cache / "nets"
    baselines = [*baselines_of(split, nets), *rectools_baselines(dataset, nets, arguments.rectools)]
    names = arguments.baselines.split(",") if arguments.baselines else [b.name for b in baselines]
    chosen = set(names)
    if not arguments.rectools.exists():
        print(f"{', '.join(RECTOOLS)}: only if cached, since there is no {arguments.rectools}")
        chosen -= set(RECTOOLS)
    known = earlier if arguments.known_settings else None
    cache = arguments.cache / arguments.split
    return dict(baseline_entries(split, baselines, chosen, cache, arguments.seeds, known))


def _arguments() -> argparse.Namespace:
    """Parse the command line; second spellings of a flag are those of 0.1."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--split", choices=SPLITS, required=True)
    add("--adapter", type=Path, help="fine-tuned on what may be learned from: one engine more")
    add("--cache", "--kept", type=Path, default=RANKING_CACHE)
    add("--seeds", type=int, default=len(SEEDS), help="of baselines that are trained")
    add("--tests", nargs="*", default=[], help="of the split; default: all")
    add("--efforts", nargs="*", default=EFFORTS, help="of the engines")
    add("--engine-seeds", type=int, default=1, help="of the engines")
    add("--baselines", "--peers", help="fit these only, with commas; others only if cached")
    add("--known-settings", action="store_true", help="do not search: take the result file's")
    add("--keep-rows", action="store_true", help="keep those of baselines not fitted now")
    rectools = "a Python that has RecTools; without it, its nets are left out"
    add("--rectools", type=Path, default=Path(".venv-rectools/bin/python"), help=rectools)
    return parser.parse_args()


def comparison(split: RankingSplit, entries: Mapping[str, ResultEntry]) -> Iterator[Row]:
    """Give each model's means over seeds, comparisons on each test, and NDCG on validation."""
    for test in split.tests:
        ndcg = {name: over_seeds(split, test, one, ndcg_at) for name, one in entries.items()}
        for name, entry in entries.items():
            keys = _keys(split, test, name, entry)
            yield mean_row(keys, "ndcg@10", ndcg[name])
            yield mean_row(keys, "recall@10", over_seeds(split, test, entry, recall_at))
            covered = np.mean([_count_items(lists) for lists in entry.lists[test].values()])
            numbers = {"coverage": float(covered) / split.n_items(test), "seconds": entry.seconds}
            for metric, value in (numbers | entry.costs).items():
                if np.isfinite(value):
                    yield value_row(keys, metric, value, len(ndcg[name]))
        yield from _comparison_rows(split, test, ndcg, entries)
    for name, entry in entries.items():
        if np.isfinite(entry.validation):
            keys = _keys(split, VALIDATION, name)
            yield value_row(keys, "ndcg@10", entry.validation, len(split.validation.windows))


def _comparison_rows(
    split: RankingSplit,
    test: str,
    ndcg: Mapping[str, FloatArray],
    entries: Mapping[str, ResultEntry],
) -> Iterator[Row]:
    """Compare every engine with every baseline, and the one with an LLM with the one without."""
    engines = [name for name in ndcg if name.startswith(LLMREC)]
    for name in engines:
        keys = _keys(split, test, name, entries[name])
        for baseline in ndcg:
            if baseline not in engines:
                yield from _ratio_rows(keys, baseline, ndcg[name], ndcg[baseline])
    if {BEST, BEST_WITH_LLM} <= set(engines):
        keys = _keys(split, test, BEST_WITH_LLM, entries[BEST_WITH_LLM])
        yield mean_row(keys, f"ndcg@10 above {BEST}", ndcg[BEST_WITH_LLM] - ndcg[BEST])


def _ratio_rows(keys: Row, best: str, ndcg: FloatArray, of_best: FloatArray) -> Iterator[Row]:
    """Give the difference, paired over the same people, and the ratio of the means."""
    yield mean_row(keys, f"ndcg@10 above {best}", ndcg - of_best)
    defined = ~np.isnan(ndcg)
    means = resampled_means(np.stack((ndcg, of_best), axis=1)[defined])
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    ratio = float(ndcg[defined].mean() / of_best[defined].mean())
    row = value_row(keys, f"ratio to {best}", ratio, int(defined.sum()))
    yield row | {"low": low, "high": high}


def _keys(split: RankingSplit, part: str, model: str, entry: ResultEntry | None = None) -> Row:
    name = f"{split.name} / {part}"
    seeds = sorted(map(int, entry.lists[part])) if entry else [0]
    return {"dataset": split.dataset.name, "split": name, "model": model, "seeds": seeds}


def _count_items(lists: ItemLists) -> int:
    return len({item for row in lists for item in row})


if __name__ == "__main__":
    main()
