"""A baseline's lists on a split: settings are known or chosen on validation; tests come once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.harness.cached_scores import CachedScores
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import LLMREC
from benchmarks.harness.results import has_results, load_results
from benchmarks.ranking.baselines import Baseline, Settings
from benchmarks.ranking.splits import ItemLists, K, RankingSplit, best_items
from llmrec.data.files import atomic_write_text
from llmrec.errors import DataError
from llmrec.metrics import ndcg_at
from llmrec.types import FloatArray

SEEDS = (0, 1, 2)
VALIDATION = "validation"


@dataclass(frozen=True)
class ResultEntry:
    """A model's lists on a split, and what it took to make them.

    Attributes
    ----------
    settings, validation
        Chosen on validation, and their NDCG@10 there; NaN for engines, which validate on their own.
    lists
        Test to seed to (n_windows, K) items.
    seconds
        To fit and to score once for the first test.
    costs
        Further numbers of the first test, by metric.
    """

    settings: Settings
    validation: float
    lists: dict[str, dict[str, ItemLists]]
    seconds: float
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlierResults:
    """What a result file has of baselines: rows, and the settings that validation chose."""

    rows: Sequence[Row]
    settings: Mapping[str, Settings]

    @classmethod
    def load(cls, name: str, *, with_engines: bool = False) -> EarlierResults:
        """Read a result file, its rows of llmrec only if asked for; none without a file."""
        if not has_results(name):
            return cls([], {})
        content = load_results(name)
        rows = [
            row for row in content["rows"] if with_engines or not row["model"].startswith(LLMREC)
        ]
        # Infinities are written as null, and no setting is anything else that is.
        settings = {
            model: {key: np.inf if value is None else value for key, value in chosen.items()}
            for model, chosen in content["settings"].items()
        }
        return cls(rows, settings)

    def with_known_settings(self, baseline: Baseline) -> Baseline:
        """Give a baseline that has one choice of settings, those of the file.

        Raises
        ------
        DataError
            If the file has none.
        """
        if baseline.name not in self.settings:
            raise DataError(
                f"no settings of {baseline.name!r} are known: run without --known-settings"
            )
        return replace(baseline, settings=[self.settings[baseline.name]])

    def rows_without(self, rows: Sequence[Row]) -> list[Row]:
        """Give the rows of all models and tests but those that there are new ones of."""
        new = {(row["model"], row["split"]) for row in rows}
        return [row for row in self.rows if (row["model"], row["split"]) not in new]

    def validation(self, model: str) -> float | None:
        """Give a baseline's NDCG@10 on validation; None if there is none."""
        found = (
            float(row["value"])
            for row in self.rows
            if row["model"] == model and row["split"].endswith(f" / {VALIDATION}")
        )
        return next(found, None)


def baseline_entries(
    split: RankingSplit,
    baselines: Sequence[Baseline],
    chosen: set[str],
    cache: Path,
    seeds: int,
    known: EarlierResults | None = None,
) -> Iterator[tuple[str, ResultEntry]]:
    """Give the baselines that are cached, and those chosen, which are fitted and cached.

    ``known`` has the settings of those to fit; None: validation chooses them.
    """
    for baseline in baselines:
        path = cache / f"{baseline.name}.json"
        if not path.exists() and baseline.name in chosen:
            atomic_write_text(path, json.dumps(asdict(_make_entry(split, baseline, seeds, known))))
        if path.exists():
            entry = ResultEntry(**json.loads(path.read_text(encoding="utf-8")))
            print(f"{baseline.name}: {entry.validation:.4f} on validation", flush=True)
            yield baseline.name, entry


def _make_entry(
    split: RankingSplit, baseline: Baseline, seeds: int, known: EarlierResults | None
) -> ResultEntry:
    """Choose settings, then make the tests' lists."""
    catalog = split.dataset.catalog
    if known is not None:
        baseline = known.with_known_settings(baseline)
    validation = None if known is None else known.validation(baseline.name)
    settings = baseline.settings[0]
    if validation is None:
        settings, validation = _choose_settings(split, baseline)
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
    return ResultEntry(settings, validation, tests, seconds)


def _choose_settings(split: RankingSplit, baseline: Baseline) -> tuple[Settings, float]:
    """Give the settings of greatest NDCG@10 on validation, and that."""
    best, settings = -1.0, baseline.settings[0]
    for one in baseline.settings:
        scorer = baseline.build(one, split.validation, split.dataset.catalog, SEEDS[0])
        scores = scorer.scores(split.validation.histories)
        lists = best_items(scores, split.validation, split.repeat)
        values = metric_values(split, VALIDATION, lists, ndcg_at)
        if (ndcg := float(np.nanmean(values))) > best:
            best, settings = ndcg, one
    return settings, best


def metric_values(
    split: RankingSplit, stage: str, lists: ItemLists, metric: Callable[..., float]
) -> FloatArray:
    """(n_windows,) a metric of the lists; NaN for whom nothing is relevant."""
    relevant = [split.relevant(window) for window in split.stage(stage).windows]
    pairs = zip(lists, relevant, strict=True)
    return np.array([metric(K, np.asarray(items), wanted) for items, wanted in pairs])


def over_seeds(
    split: RankingSplit, test: str, entry: ResultEntry, metric: Callable[..., float]
) -> FloatArray:
    """(n_windows,) mean of a metric over seeds."""
    by_seed = [metric_values(split, test, lists, metric) for lists in entry.lists[test].values()]
    return np.asarray(np.mean(by_seed, axis=0))
