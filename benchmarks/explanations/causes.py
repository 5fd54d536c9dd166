"""Causes of items' ranks: whether they hold when ranked again, what they say, what they cost.

The engines shipped with the package list ten items for people of two logs, without an LLM unless
--llm is given; for Online Retail one is fitted. Every cause is checked by ranking again, and each
way of telling one wrong must be noticed. Beside them stand the reasons of version 0.1, which cite
an event of the item's category.

Run: python -m benchmarks.explanations.causes
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.explanations.corruptions import item_corruptions
from benchmarks.harness.formatting import Row
from benchmarks.harness.logs import available_logs, benchmark_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from llmrec.engine import InterestEngine
from llmrec.explain.item import ItemExplanation
from llmrec.explain.verify import check_item
from llmrec.explain.verify_causes import check_causes
from llmrec.ranking.removal import RemovalRanker
from llmrec.session import UserSession

K = 10
NOW, BEFORE = "causes", "reasons of 0.1"
MEDIAN = "median "
Value = tuple[str, str, float]  # model, metric and value


def main() -> None:
    """Explain the lists of n people of each log, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--llm", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for data in available_logs():
        engine = InterestEngine.from_pretrained(
            data=benchmark_dataset(data), model="auto" if arguments.llm else None
        )
        rows += measure(engine, data, arguments.people)
    record_results("explanations/causes" + "_llm" * arguments.llm, rows)


def measure(engine: InterestEngine, data: str, n_people: int) -> Iterator[Row]:
    """Give the rows of a log: means with intervals, and medians over people."""
    users = engine.dataset.log.user_ids
    values = defaultdict[tuple[str, str], list[float]](list)
    for number, place in enumerate(np.random.default_rng(0).permutation(len(users))[:n_people]):
        open_session = partial(engine.session, users[int(place)])
        for model, metric, value in person_values(open_session, np.random.default_rng(number)):
            values[model, metric].append(value)
        if number % 50 == 49:
            print(f"{data}: {number + 1} people", flush=True)
    for (model, metric), found in values.items():
        keys = {"dataset": data, "split": "all", "model": model, "seeds": [0]}
        if metric.startswith(MEDIAN):
            yield value_row(keys, metric, float(np.median(found)), len(found))
        else:
            yield mean_row(keys, metric, np.array(found))


def person_values(
    open_session: Callable[[], UserSession], rng: np.random.Generator
) -> Iterator[Value]:
    """Give the values of one person's list: what it costs, its causes, and lies about them."""
    session = open_session()
    items = [one.explanation for one in session.recommend(K)]
    of_list = cpu_seconds(lambda: open_session().ranking(K))
    of_reasons = cpu_seconds(lambda: open_session().recommend(K))
    of_explain = cpu_seconds(lambda: open_session().explain(items[0].item_id))
    yield NOW, f"{MEDIAN}ratio of list and reasons to the list", of_reasons / of_list
    yield NOW, f"{MEDIAN}ratio of explain to the list", of_explain / of_list
    second = replace(session.removal)  # that has not ranked yet
    for item in items:
        yield from item_values(item, session, second)
    named = {one.latest.item_id for item in items if item.causes for one in item.causes.named}
    cited = {item.evidence[0].item_id for item in items if item.evidence}
    yield NOW, f"{MEDIAN}different causes in a list", len(named)
    yield BEFORE, f"{MEDIAN}different causes in a list", len(cited)
    yield from lies_caught(items[int(rng.integers(len(items)))], session, second)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process that something takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def item_values(
    item: ItemExplanation, session: UserSession, removal: RemovalRanker
) -> Iterator[Value]:
    """Give what one item's reason names, and whether it holds."""
    causes, index = item.causes, session.history.catalog.item_index(item.item_id)
    assert causes is not None
    yield NOW, "causes that hold", not check_causes(causes, index, removal)
    yield NOW, "reasons of past items", bool(causes.named)
    yield NOW, "reasons of popularity", not causes.named
    yield NOW, "reasons that the forecast lifts it", causes.tilt_lifts
    without = causes.rank_without or causes.rank
    yield NOW, "named past items that argue against it", without < causes.rank
    if causes.named:
        yield NOW, "share of the past named", sum(one.share for one in causes.named)
        yield NOW, f"{MEDIAN}places lost without the named", without - causes.rank


def lies_caught(
    item: ItemExplanation, session: UserSession, removal: RemovalRanker
) -> Iterator[Value]:
    """Tell each part of a cause wrong; say whether the checker finds it."""
    given = session.ranking(), session.history, session.forecast, session.edits, removal
    assert check_item(item, *given) == ()
    for kind, lie in item_corruptions(item, session.history, session.forecast):
        if lie.causes != item.causes:
            caught = float(bool(check_item(lie, *given)))
            yield NOW, "lies caught", caught
            yield NOW, f"lies caught, {kind}", caught


if __name__ == "__main__":
    main()
