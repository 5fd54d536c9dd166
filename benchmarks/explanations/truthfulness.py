"""Are explanations true, have they evidence, and does the checker catch lies: on two real logs.

Forecasts count and need no language model; the blends are those that ship. Lies are planted in one
explanation a person, and what moves an item is asked of one item on the list and one off it.

Run: python -m benchmarks.explanations.truthfulness
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.explanations.corruptions import (
    change_lies,
    description_lies,
    item_lies,
    statement_lies,
)
from benchmarks.finetuning.parse_rate import wilson
from benchmarks.harness.results import record
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, make_histories
from llmrec.data.readers import load_dataset
from llmrec.data.windows import holdout_cutoff
from llmrec.engine_config import SETTINGS_FILE, EngineSettings, bundled_engine
from llmrec.explain.describe import check_description, describe_from_claims
from llmrec.explain.explanation import check_explanation, explain_ranked_item
from llmrec.explain.item import explain_item
from llmrec.explain.statements import check_statement
from llmrec.explain.verify import check_change, check_item
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.fitting import build_blend
from llmrec.ranking.rank import Reranker, make_reranker, rank

K = 10
Tally = Counter[tuple[str, bool]]  # a metric, and whether it held


@dataclass(frozen=True, eq=False)
class Setting:
    """A log, how its items are ranked, and people with their forecasts."""

    dataset: Dataset
    blend: Blend
    strength: float
    people: list[tuple[History, Forecast]]


def main() -> None:
    """Explain lists of n people of each log and count what holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in ("completejourney", "ml-100k"):
        setting, tally = prepared(name, arguments.people), Tally()
        for number, person in enumerate(setting.people):
            tally.update(judged(setting, *person, np.random.default_rng(number)))
            if number % 50 == 49:
                print(f"{name}: {number + 1} people", flush=True)
        rows += table(name, tally)
    record("explanations", rows)


def prepared(name: str, n_people: int) -> Setting:
    """Draw people with a past before the log's last period; what follows is there to lie with."""
    dataset = load_dataset(name)
    cutoff = holdout_cutoff(dataset.log, dataset.period)
    settings = EngineSettings.load(bundled_engine(name) / SETTINGS_FILE).without_titles()
    everybody = make_histories(dataset.log, dataset.catalog, dataset.period, cutoff)
    everybody = [history for history in everybody if history.n_events]
    drawn = np.random.default_rng(0).permutation(len(everybody))[:n_people]
    histories = [everybody[person] for person in drawn]
    forecasts = DecayedDirichlet(**settings.counting).forecast(histories)
    told = [describe_from_claims(*pair, {}) for pair in zip(histories, forecasts, strict=True)]
    blend = build_blend(dataset, cutoff, settings.blend)
    people = list(zip(histories, told, strict=True))
    return Setting(dataset, blend, settings.strength, people)


def judged(
    setting: Setting, history: History, forecast: Forecast, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Say of each claim about one person's list if it held, and of each lie if it was caught."""
    strength, repeat = setting.strength, setting.dataset.repeat
    rerank = cache(
        make_reranker(history, forecast, setting.blend, strength=strength, repeat=repeat)
    )
    now = rerank(())
    items = [explain_item(now, place, history, forecast) for place in range(K)]
    for statement in forecast.statements:
        yield "statements that are true", check_statement(statement, history, forecast) is None
        for sort, false in statement_lies(statement, history, forecast):
            yield f"lies caught, {sort}", check_statement(false, history, forecast) is not None
    yield "descriptions that are true", check_description(history, forecast) is None
    for sort, untold in description_lies(forecast):
        yield f"lies caught, {sort}", check_description(history, untold) is not None
    for item in items:
        parts = (*item.scorer_parts.values(), *item.category_parts.values())
        yield "items with evidence", bool(item.evidence)
        yield "items with a statement", bool(item.statements)
        yield "explanations that are true", check_item(item, now, history, forecast) == ()
        yield "scores that the parts sum to", abs(sum(parts) - item.score) < 1e-9
    for sort, lie in item_lies(items[int(rng.integers(K))], history, forecast):
        yield f"lies caught, {sort}", bool(check_item(lie, now, history, forecast))
    for place in (int(rng.integers(K)), int(rng.integers(K, 10 * K))):
        yield from moved(setting, history, forecast, rerank, int(now.item_idx[place]))
    yield from wished(rerank, history, forecast, rng)


def wished(
    rerank: Reranker, history: History, forecast: Forecast, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Raise the first category, and say if one explanation holds and its lies are caught."""
    edits = (Edit(history.catalog.categories[forecast.top(1)[0]], 4.0),)
    now = rerank(edits)
    item = explain_item(now, int(rng.integers(K)), history, forecast, edits)
    held = check_item(item, now, history, forecast, edits) == ()
    yield "explanations with an edit that are true", held
    for sort, lie in item_lies(item, history, forecast):
        yield f"lies caught, {sort}", bool(check_item(lie, now, history, forecast, edits))


def moved(
    setting: Setting, history: History, forecast: Forecast, rerank: Reranker, item: int
) -> Iterator[tuple[str, bool]]:
    """Ask what moves an item, and rank afresh to see if it does."""
    found = explain_ranked_item(item, rerank, K, history, forecast)
    change = found.change
    way = "on the list" if change.rank is None or change.rank > K else "off the list"
    yield f"items that an edit puts {way}", bool(change.edits)
    wrong = check_explanation(found, item, rerank, history, forecast)
    yield "whole explanations that are true", wrong == ()
    if not change.edits:
        return
    (afresh,) = rank(
        [forecast],
        [history],
        setting.blend,
        k=setting.dataset.catalog.n_items,
        strength=setting.strength,
        repeat=setting.dataset.repeat,
        edits=change.edits,
    )
    after = int(np.flatnonzero(afresh.item_idx == item)[0]) + 1
    held = after == change.rank_after and (after <= K) == (way == "on the list")
    yield "changes that do what they say, ranked afresh", held
    for sort, lie in change_lies(change):
        yield f"lies caught, {sort}", check_change(lie, item, rerank, history) is not None


def table(name: str, tally: Tally) -> Iterator[dict[str, object]]:
    """Give a row a metric, with its 95 % interval, and one for all lies."""
    for sort, held in list(tally):
        if sort.startswith("lies caught, "):
            tally["lies caught, all", held] += tally[sort, held]
    for metric in dict.fromkeys(metric for metric, _ in tally):
        n = tally[metric, True] + tally[metric, False]
        low, high = wilson(tally[metric, True], n)
        about = {"dataset": name, "split": "holdout", "model": "DecayedDirichlet", "seeds": [0]}
        value = tally[metric, True] / n
        yield {**about, "metric": metric, "value": value, "low": low, "high": high, "n": n}


if __name__ == "__main__":
    main()
