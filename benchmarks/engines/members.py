"""What each member of an engine is worth, and what an LLM adds to each effort.

An engine is fitted again without each member that it kept: what its lists and its forecasts lose is
what the member is worth beside the others. Lists are of one ranking split, forecasts of the test
periods. With an adapter for one of the two, each effort is fitted with and without the LLM. All is
cached under --cache, and nets are trained once.

Run: python -m benchmarks.engines.members --data ml-100k --effort best
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from benchmarks.forecasting import engines as forecasting
from benchmarks.forecasting.engines import ForecastTest, engine_losses, forecast_tests
from benchmarks.harness.engines import EFFORTS, AddedAdapter, EngineFit
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COMPLETE_JOURNEY, MOVIELENS, ONLINE_RETAIL
from benchmarks.harness.logs import evaluation_dataset
from benchmarks.harness.results import mean_row, record_results
from benchmarks.ranking import adapters
from benchmarks.ranking.compare import RANKING_CACHE, SPLITS
from benchmarks.ranking.engines import cached_lists
from benchmarks.ranking.entries import metric_values
from benchmarks.ranking.splits import RankingSplit
from llmrec.engine_settings import Effort
from llmrec.metrics import ndcg_at
from llmrec.types import FloatArray

SPLIT_OF = {
    MOVIELENS: "next-period",
    COMPLETE_JOURNEY: "repeat-allowed",
    ONLINE_RETAIL: "retail-repeat",
}

PARTS = ("lists", "forecasts")


def main() -> None:
    """Fit without each member, with the LLM and without, and write the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    dataset, split_name = evaluation_dataset(arguments.data), SPLIT_OF[arguments.data]
    split = SPLITS[split_name][1](dataset)
    fit = EngineFit(arguments.effort, arguments.seed)
    lists = Lists(split, arguments.ranking_cache / split_name / "engines")
    log_folder = f"{dataset.name}-{dataset.log.fingerprint}"
    forecasts = Forecasts(dataset.name, forecast_tests(dataset), arguments.cache / log_folder)
    rows: list[Row] = []
    if "lists" in arguments.parts:
        rows += lists.member_rows(fit)
    if "forecasts" in arguments.parts:
        rows += forecasts.member_rows(fit)
    efforts = [replace(fit, effort=effort) for effort in EFFORTS]
    if arguments.ranking_adapter is not None:
        for_lists = adapters.adapter_for(split, arguments.ranking_adapter)
        rows += [row for one in efforts for row in lists.llm_rows(one, for_lists)]
    if arguments.forecast_adapter is not None:
        for_forecasts = forecasting.adapter_for(dataset, arguments.forecast_adapter)
        rows += [row for one in efforts for row in forecasts.llm_rows(one, for_forecasts)]
    record_results(f"engines/members_{fit.effort}_{dataset.name}", rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", choices=SPLIT_OF, default="ml-100k")
    add("--effort", choices=get_args(Effort), default="best", help="whose members are left out")
    add("--seed", type=int, default=0)
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what members are worth for")
    add("--cache", type=Path, default=forecasting.CACHE, help="of the forecasts")
    add("--ranking-cache", type=Path, default=RANKING_CACHE, help="of ranking.compare")
    add("--ranking-adapter", type=Path, help="that has seen no test of the lists")
    add("--forecast-adapter", type=Path, help="that has seen no test of the forecasts")
    return parser.parse_args()


@dataclass(frozen=True, eq=False)
class Lists:
    """A ranking split, and the cache of engines' lists on it: that of `ranking.compare`."""

    split: RankingSplit
    cache: Path

    def member_rows(self, fit: EngineFit) -> Iterator[Row]:
        """Give what the lists lose without each member that the whole engine keeps."""
        for test, stage in self.split.tests.items():
            whole = self._ndcg(test, fit)
            yield mean_row(self._keys(test, fit), "ndcg@10", whole)
            for name in cached_lists(self.split, test, stage, fit, self.cache).kept:
                without = replace(fit, without=(name,))
                ndcg, keys = self._ndcg(test, without), self._keys(test, without)
                yield mean_row(keys, "ndcg@10", ndcg)
                yield mean_row(keys, "ndcg@10 lost", whole - ndcg)

    def llm_rows(self, fit: EngineFit, adapter: AddedAdapter) -> Iterator[Row]:
        """Give what an LLM adds to the lists of an effort."""
        for test in self.split.tests:
            with_llm = replace(fit, use_llm=True)
            plain, ndcg = self._ndcg(test, fit), self._ndcg(test, with_llm, adapter)
            keys = self._keys(test, with_llm)
            yield mean_row(keys, "ndcg@10", ndcg)
            yield mean_row(keys, f"ndcg@10 above {fit.label}", ndcg - plain)

    def _ndcg(self, test: str, fit: EngineFit, adapter: AddedAdapter | None = None) -> FloatArray:
        made = cached_lists(self.split, test, self.split.tests[test], fit, self.cache, adapter)
        return metric_values(self.split, test, made.lists, ndcg_at)

    def _keys(self, test: str, fit: EngineFit) -> Row:
        name, dataset = f"{self.split.name} / {test}", self.split.dataset.name
        return {"dataset": dataset, "split": name, "model": fit.label, "seeds": [fit.seed]}


@dataclass(frozen=True, eq=False)
class Forecasts:
    """The test periods of a log, and the cache of engines' losses there."""

    dataset: str
    tests: Sequence[ForecastTest]
    cache: Path

    def member_rows(self, fit: EngineFit) -> Iterator[Row]:
        """Give what the forecasts lose without each member that the whole engine keeps."""
        for test in self.tests:
            whole = engine_losses(test, fit, self.cache)
            yield mean_row(self._keys(test, fit), "log_loss", whole[""])
            for name in filter(None, whole):
                without = replace(fit, without=(name,))
                losses = engine_losses(test, without, self.cache)[""]
                keys = self._keys(test, without)
                yield mean_row(keys, "log_loss", losses)
                yield mean_row(keys, "log_loss lost", losses - whole[""])

    def llm_rows(self, fit: EngineFit, adapter: AddedAdapter) -> Iterator[Row]:
        """Give what an LLM adds to the forecasts of an effort."""
        for test in self.tests:
            with_llm = replace(fit, use_llm=True)
            plain = engine_losses(test, fit, self.cache)[""]
            losses = engine_losses(test, with_llm, self.cache, adapter)[""]
            keys = self._keys(test, with_llm)
            yield mean_row(keys, "log_loss", losses)
            yield mean_row(keys, f"log_loss_gain on {fit.label}", plain - losses)

    def _keys(self, test: ForecastTest, fit: EngineFit) -> Row:
        split, seeds = test.name, [fit.seed]
        return {"dataset": self.dataset, "split": split, "model": fit.label, "seeds": seeds}


if __name__ == "__main__":
    main()
