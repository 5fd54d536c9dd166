"""Are explanations true, do they cite evidence, are corrupted ones caught: on real logs.

Forecasts and lists are those of engines of effort "quick", fitted here without a language model on
what precedes the log's last period. One explanation a person is corrupted; counterfactuals are
checked for one item on the list and one off it.

Run: python -m benchmarks.explanations.truthfulness
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from benchmarks.explanations.corruptions import (
    change_corruptions,
    description_corruptions,
    item_corruptions,
    statement_corruptions,
)
from benchmarks.finetuning.parse_rate import wilson_interval
from benchmarks.harness.labels import QUICK
from benchmarks.harness.logs import available_logs, benchmark_dataset
from benchmarks.harness.results import record_results
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.data.windows import holdout_cutoff
from llmrec.engine import InterestEngine
from llmrec.explain.describe import check_description
from llmrec.explain.explanation import check_explanation, explain_ranked_item
from llmrec.explain.item import explain_item
from llmrec.explain.statements import check_statement
from llmrec.explain.verify import check_change, check_item
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Reranker, make_reranker, rank

K = 10
CAUGHT = "corruptions caught, "  # and the kind of corruption
Counts = Counter[tuple[str, bool]]  # a metric, and whether it held


@dataclass(frozen=True, eq=False)
class CaseStudy:
    """A log, how its items are ranked, and people with their forecasts."""

    dataset: Dataset
    blend: Blend
    strength: float
    edit_strength: float
    people: list[tuple[History, Forecast]]


def main() -> None:
    """Explain lists of n people of each log and count what holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in available_logs():
        study, counts = build_case(name, arguments.people), Counts()
        for number, person in enumerate(study.people):
            counts.update(check_case(study, *person, np.random.default_rng(number)))
            if number % 50 == 49:
                print(f"{name}: {number + 1} people", flush=True)
        rows += make_rows(name, counts)
    record_results("explanations/truthfulness", rows)


def build_case(name: str, n_people: int) -> CaseStudy:
    """Fit an engine before the log's last period, and draw people with a past.

    Their histories lie in the whole log: corruptions use what follows. Items that it names in its
    last period alone are left out.
    """
    dataset = benchmark_dataset(name)
    cutoff = holdout_cutoff(dataset.log, dataset.period)
    dataset = dataset.with_catalog_before(cutoff)
    known = dataset.known_before(cutoff)
    engine = InterestEngine.from_pretrained(data=known, cutoff=cutoff, model=None, refit=True)
    everybody = [history for history in dataset.histories(cutoff) if history.n_events]
    order = np.random.default_rng(0).permutation(len(everybody))[:n_people]
    histories = [everybody[person] for person in order]
    people = list(zip(histories, engine.forecast_many(histories), strict=True))
    settings = engine.settings
    return CaseStudy(dataset, engine.blend, settings.strength, settings.edit_strength, people)


def check_case(
    study: CaseStudy, history: History, forecast: Forecast, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Say of each claim about one person's list if it holds, of each corruption if it is caught."""
    plan: dict[str, Any] = {"strength": study.strength, "edit_strength": study.edit_strength}
    repeat = study.dataset.repeat
    rerank = cache(make_reranker(history, forecast, study.blend, repeat=repeat, **plan))
    ranking = rerank(())
    items = [explain_item(ranking, place, history, forecast) for place in range(K)]
    for statement in forecast.statements:
        yield "statements that are true", check_statement(statement, history, forecast) is None
        for kind, false in statement_corruptions(statement, history, forecast):
            yield CAUGHT + kind, check_statement(false, history, forecast) is not None
    yield "descriptions that are true", check_description(history, forecast) is None
    for kind, described in description_corruptions(forecast):
        yield CAUGHT + kind, check_description(history, described) is not None
    for item in items:
        parts = (*item.scorer_parts.values(), *item.category_parts.values())
        yield "items with evidence", bool(item.evidence)
        yield "items with a statement", bool(item.statements)
        yield "explanations that are true", check_item(item, ranking, history, forecast) == ()
        yield "scores that the parts sum to", abs(sum(parts) - item.score) < 1e-9
    for kind, corrupted in item_corruptions(items[int(rng.integers(K))], history, forecast):
        yield CAUGHT + kind, bool(check_item(corrupted, ranking, history, forecast))
    below = min(10 * K, len(ranking.item_idx))
    for place in (int(rng.integers(K)), int(rng.integers(K, below))):
        item_idx = int(ranking.item_idx[place])
        yield from check_counterfactuals(study, history, forecast, rerank, item_idx)
    yield from check_edits(rerank, history, forecast, rng)


def check_edits(
    rerank: Reranker, history: History, forecast: Forecast, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Raise the largest category; say if an explanation holds and its corruptions are caught."""
    edits = (Edit(history.catalog.categories[forecast.top(1)[0]], 4.0),)
    ranking = rerank(edits)
    item = explain_item(ranking, int(rng.integers(K)), history, forecast, edits)
    holds = check_item(item, ranking, history, forecast, edits) == ()
    yield "explanations with an edit that are true", holds
    for kind, corrupted in item_corruptions(item, history, forecast):
        yield CAUGHT + kind, bool(check_item(corrupted, ranking, history, forecast, edits))


def check_counterfactuals(
    study: CaseStudy, history: History, forecast: Forecast, rerank: Reranker, item: int
) -> Iterator[tuple[str, bool]]:
    """Find the edits that put an item on or off the list, and rank again to see if they do."""
    explanation = explain_ranked_item(item, rerank, K, history, forecast)
    change = explanation.change
    way = "on the list" if change.rank is None or change.rank > K else "off the list"
    yield f"items that an edit puts {way}", bool(change.edits)
    errors = check_explanation(explanation, item, rerank, history, forecast)
    yield "whole explanations that are true", errors == ()
    if not change.edits:
        return
    (again,) = rank(
        [forecast],
        [history],
        study.blend,
        k=study.dataset.catalog.n_items,
        strength=study.strength,
        edit_strength=study.edit_strength,
        repeat=study.dataset.repeat,
        edits=change.edits,
    )
    after = int(np.flatnonzero(again.item_idx == item)[0]) + 1
    holds = after == change.rank_after and (after <= K) == (way == "on the list")
    yield "changes with the stated effect, ranked again", holds
    for kind, corrupted in change_corruptions(change):
        yield CAUGHT + kind, check_change(corrupted, item, rerank, history) is not None


def make_rows(name: str, counts: Counts) -> Iterator[dict[str, object]]:
    """Give a row a metric, with its 95 % interval, and one for all corruptions."""
    for metric, held in list(counts):
        if metric.startswith(CAUGHT):
            counts[f"{CAUGHT}all", held] += counts[metric, held]
    for metric in dict.fromkeys(metric for metric, _ in counts):
        n = counts[metric, True] + counts[metric, False]
        low, high = wilson_interval(counts[metric, True], n)
        keys = {"dataset": name, "split": "holdout", "model": QUICK, "seeds": [0]}
        value = counts[metric, True] / n
        yield {**keys, "metric": metric, "value": value, "low": low, "high": high, "n": n}


if __name__ == "__main__":
    main()
