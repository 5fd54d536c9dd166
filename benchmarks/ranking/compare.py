"""Lists of ten, by baselines and by llmrec, on the same splits, people, items and rules.

Settings are chosen by NDCG@10 on validation alone; models are then fitted once more on all that
lies before a test, and ranked with once. Lists are cached under --cache, so that an interrupted run
goes on.

Run: make bench-ranking, or for one split python -m benchmarks.ranking.compare --split global-time
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.cached_scores import CachedScores
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import (
    LLMREC,
    TUNED_LLM,
    TWO_STAGE,
    TWO_STAGE_WITH_NET,
    WITHOUT_TITLES,
)
from benchmarks.harness.results import record_results
from benchmarks.ranking import splits
from benchmarks.ranking.baseline_grids import NETS, baselines_of
from benchmarks.ranking.baselines import Baseline, Settings
from benchmarks.ranking.blend import blend_rankings
from benchmarks.ranking.rectools import RECTOOLS, rectools_baselines
from benchmarks.ranking.splits import ItemLists, K, RankingSplit, best_items
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.readers import load_dataset
from llmrec.metrics import (
    bootstrap_interval,
    ndcg_at,
    percentile_interval,
    recall_at,
    resampled_means,
)
from llmrec.types import FloatArray

SEEDS = (0, 1, 2)
OpenSplit = Callable[[Dataset], RankingSplit]
SPLITS: dict[str, tuple[str, OpenSplit]] = {
    "next-period": ("ml-100k", splits.next_period),
    "leave-one-out": ("ml-100k", splits.leave_one_out),
    "global-time": ("ml-100k", splits.global_time),
    "repeat-allowed": ("completejourney", lambda data: splits.next_weeks(data, "allow")),
    "explore-only": ("completejourney", lambda data: splits.next_weeks(data, "exclude")),
}


@dataclass(frozen=True)
class ResultEntry:
    """A model's lists on a split, with the settings that validation chose.

    Attributes
    ----------
    settings, validation
        Chosen, and their NDCG@10 there.
    lists
        Test to seed to (n_windows, K) items.
    seconds
        To fit and to score once for the first test.
    """

    settings: Settings
    validation: float
    lists: dict[str, dict[str, ItemLists]]
    seconds: float


def main() -> None:
    """Run the baselines of a split, then llmrec, and write the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    name, open_split = SPLITS[arguments.split]
    split = open_split(load_dataset(name))
    cache, nets = arguments.cache / arguments.split, arguments.cache / "nets"
    blended = baselines_of(split, nets)
    baselines = [*blended, *rectools_baselines(name, nets, arguments.rectools)]
    names = arguments.baselines.split(",") if arguments.baselines else [b.name for b in baselines]
    chosen = set(names)
    if not arguments.rectools.exists():
        print(f"{', '.join(RECTOOLS)}: only if cached, since there is no {arguments.rectools}")
        chosen -= set(RECTOOLS)
    entries = dict(_entries(split, baselines, chosen, cache, arguments.seeds))
    settings = {name: entry.settings for name, entry in entries.items()}
    if arguments.plain:
        excluded = (*NETS, TWO_STAGE, TWO_STAGE_WITH_NET)
        blended = [baseline for baseline in blended if baseline.name not in excluded]
    for variant, lists in blend_rankings(split, blended, settings, arguments.adapter).items():
        score = _mean_ndcg(split, "validation", lists["validation"])
        tests = {test: {"0": lists[test]} for test in split.tests}
        entries[variant] = ResultEntry({}, score, tests, float("nan"))
    name = f"ranking/compare_{arguments.split}{'_plain' if arguments.plain else ''}"
    record_results(name, list(_rows(split, entries)), settings=settings)


def _entries(
    split: RankingSplit, baselines: Sequence[Baseline], chosen: set[str], cache: Path, seeds: int
) -> Iterator[tuple[str, ResultEntry]]:
    """Give the baselines that are cached, and those chosen, which are fitted and cached."""
    for baseline in baselines:
        path = cache / f"{baseline.name}.json"
        if not path.exists() and baseline.name in chosen:
            atomic_write_text(path, json.dumps(asdict(_make_entry(split, baseline, seeds))))
        if path.exists():
            entry = ResultEntry(**json.loads(path.read_text(encoding="utf-8")))
            print(f"{baseline.name}: {entry.validation:.4f} on validation", flush=True)
            yield baseline.name, entry


def _arguments() -> argparse.Namespace:
    """Parse the command line; second spellings of a flag are those of 0.1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--adapter", type=Path, help="fine-tuned on what may be learned from")
    parser.add_argument("--cache", "--kept", type=Path, default=Path("benchmark-cache/ranking"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of what is trained")
    parser.add_argument(
        "--baselines", "--peers", help="fit these only, with commas; others only if cached"
    )
    parser.add_argument("--plain", action="store_true", help="blend no nets, no trees")
    parser.add_argument(
        "--rectools",
        type=Path,
        default=Path(".venv-rectools/bin/python"),
        help="a Python that has RecTools; without it, its nets are left out",
    )
    return parser.parse_args()


def _make_entry(split: RankingSplit, baseline: Baseline, seeds: int) -> ResultEntry:
    """Choose settings on validation, then make the tests' lists."""
    catalog, best, settings = split.dataset.catalog, -1.0, baseline.settings[0]
    for one in baseline.settings:
        scorer = baseline.build(one, split.validation, catalog, SEEDS[0])
        scores = scorer.scores(split.validation.histories)
        lists = best_items(scores, split.validation, split.repeat)
        if (ndcg := _mean_ndcg(split, "validation", lists)) > best:
            best, settings = ndcg, one
    tests: dict[str, dict[str, ItemLists]] = {}
    seconds = 0.0
    for test, stage in split.tests.items():
        tests[test] = {}
        for seed in SEEDS[: seeds if baseline.seeded else 1]:
            start = time.perf_counter()
            scorer = baseline.build(settings, stage, catalog, seed)
            scores = scorer.scores(stage.histories)
            elapsed = time.perf_counter() - start
            seconds = seconds or (scorer.seconds if isinstance(scorer, CachedScores) else elapsed)
            tests[test][str(seed)] = best_items(scores, stage, split.repeat)
    return ResultEntry(settings, best, tests, seconds)


def _mean_ndcg(split: RankingSplit, stage: str, lists: ItemLists) -> float:
    return float(np.nanmean(_metric_values(split, stage, lists, ndcg_at)))


def _metric_values(
    split: RankingSplit, stage: str, lists: ItemLists, metric: Callable[..., float]
) -> FloatArray:
    """(n_windows,) a metric of the lists; NaN for whom nothing is relevant."""
    relevant = [split.relevant(window) for window in split.stage(stage).windows]
    pairs = zip(lists, relevant, strict=True)
    return np.array([metric(K, np.asarray(items), wanted) for items, wanted in pairs])


def _rows(split: RankingSplit, entries: Mapping[str, ResultEntry]) -> Iterator[Row]:
    """Give each model's means over seeds, comparisons on each test, and NDCG on validation."""
    for test in split.tests:
        ndcg = {name: _over_seeds(split, test, one, ndcg_at) for name, one in entries.items()}
        for name, entry in entries.items():
            keys = _keys(split, test, name, sorted(map(int, entry.lists[test])))
            yield from _mean_row(keys, "ndcg@10", ndcg[name])
            yield from _mean_row(keys, "recall@10", _over_seeds(split, test, entry, recall_at))
            covered = np.mean([_count_items(lists) for lists in entry.lists[test].values()])
            coverage = float(covered) / split.n_items(test)
            yield keys | _value("coverage", coverage, len(ndcg[name]))
            if np.isfinite(entry.seconds):
                yield keys | _value("seconds", entry.seconds, len(ndcg[name]))
        yield from _comparison_rows(split, test, ndcg)
    for name, entry in entries.items():
        n = len(split.validation.windows)
        yield _keys(split, "validation", name, [0]) | _value("ndcg@10", entry.validation, n)


def _comparison_rows(
    split: RankingSplit, test: str, ndcg: Mapping[str, FloatArray]
) -> Iterator[Row]:
    """Compare llmrec with the best baselines of a test, and its variants with each other.

    The baselines are the best of all, of all but trees over a net, and of one stage.
    """
    baselines = [name for name in ndcg if not name.startswith(LLMREC)]
    variants = [name for name in ndcg if name not in baselines]
    without_net = [name for name in baselines if name != TWO_STAGE_WITH_NET]
    one_stage = [name for name in without_net if name != TWO_STAGE]
    means = {name: float(np.nanmean(ndcg[name])) for name in baselines}
    groups = (baselines, without_net, one_stage)
    for best in dict.fromkeys(max(group, key=means.__getitem__) for group in groups):
        for name in variants:
            keys = _keys(split, test, name, [0])
            yield from _ratio_rows(keys, best, ndcg[name], ndcg[best])
    for name, other in _with_and_without_llm(variants):
        keys = _keys(split, test, name, [0])
        yield from _mean_row(keys, f"ndcg@10 above {other}", ndcg[name] - ndcg[other])


def _with_and_without_llm(variants: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair a tilt to the LLM with that to counting, a blend with titles with the one without."""
    for name in variants:
        counting = name.replace(TUNED_LLM, "counting")
        without_titles = name.replace(f"{LLMREC},", f"{WITHOUT_TITLES},")
        for other in (counting, without_titles):
            if other != name and other in variants:
                yield name, other


def _over_seeds(
    split: RankingSplit, test: str, entry: ResultEntry, metric: Callable[..., float]
) -> FloatArray:
    """(n_windows,) mean of a metric over seeds."""
    by_seed = [_metric_values(split, test, lists, metric) for lists in entry.lists[test].values()]
    return np.asarray(np.mean(by_seed, axis=0))


def _ratio_rows(keys: Row, best: str, ndcg: FloatArray, of_best: FloatArray) -> Iterator[Row]:
    """Give the difference, paired over the same people, and the ratio of the means."""
    yield from _mean_row(keys, f"ndcg@10 above {best}", ndcg - of_best)
    defined = ~np.isnan(ndcg)
    means = resampled_means(np.stack((ndcg, of_best), axis=1)[defined])
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    ratio = float(ndcg[defined].mean() / of_best[defined].mean())
    interval = {"low": low, "high": high}
    yield keys | _value(f"ratio to {best}", ratio, int(defined.sum())) | interval


def _mean_row(keys: Row, metric: str, values: FloatArray) -> Iterator[Row]:
    mean, low, high = bootstrap_interval(values)
    n = int(np.isfinite(values).sum())
    yield keys | _value(metric, mean, n) | {"low": low, "high": high}


def _value(metric: str, value: float, n: int) -> Row:
    return {"metric": metric, "value": value, "low": None, "high": None, "n": n}


def _keys(split: RankingSplit, part: str, model: str, seeds: Sequence[int]) -> Row:
    name = f"{split.name} / {part}"
    return {"dataset": split.dataset.name, "split": name, "model": model, "seeds": list(seeds)}


def _count_items(lists: ItemLists) -> int:
    return len({item for row in lists for item in row})


if __name__ == "__main__":
    main()
