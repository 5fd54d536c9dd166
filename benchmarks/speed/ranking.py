"""How fast a person's ranking of 100,000 items is, and what memory a million items take.

"plain pass" sums the parts of the same scores, dense, and finds the best by argpartition; it is
timed in turn with the rankings, person by person. The million items have a process of their own,
whose peak covers catalog, log, the scorers' fit, batches, and a sort of all items for every list.

Run: python -m benchmarks.speed.ranking
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.full_sort import by_full_sort
from benchmarks.speed.made_up_shop import shop
from benchmarks.harness.results import record
from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.rank import rank
from llmrec.ranking.scorers import RecentPopularity

SMALL, LARGE = 100_000, 1_000_000  # items
PEOPLE, BATCH, K = 200, 32, 100
EDITS = (Edit("category 7", 0.0), Edit("category 8", 3.0))
WAYS: dict[str, Any] = {"as forecast": {}, "one category muted, one raised": {"edits": EDITS}}


def main() -> None:
    """Rank the large catalog apart, then time the small one, and record both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="the large one here; print JSON")
    if parser.parse_args().large:
        print(json.dumps(large()))
        return
    command = [sys.executable, "-m", "benchmarks.speed.ranking", "--large"]
    # First, while this process is small: the peak of a child starts at that of its parent.
    apart = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    record("ranking_speed", [*small(), *json.loads(apart)])


def small() -> list[dict[str, object]]:
    """Time everybody's rankings, what of them takes longest, and the plain pass."""
    histories, blend = shop(SMALL, PEOPLE)
    people = list(zip(DecayedDirichlet().forecast(histories), histories, strict=True))
    rank([people[0][0]], [people[0][1]], blend, k=K)  # the first one sorts the log
    seconds = np.array([[timed(work) for work in works(*each, blend)] for each in people])
    *ways, scorers, plain = seconds.transpose(1, 2, 0) * 1e3  # of each: wall and CPU, by person
    rows = [row(SMALL, "plain pass", "CPU milliseconds", np.median(plain[1]), PEOPLE)]
    for name, (wall, cpu) in zip(WAYS, ways, strict=True):
        found = {
            "milliseconds": np.median(wall),
            "milliseconds, 95 of 100 below": np.quantile(wall, 0.95),
            "CPU milliseconds": np.median(cpu),
            "... share of the scorers": np.median(scorers[1] / cpu),
            "... ratio to plain pass": np.median(cpu / plain[1]),
            "... ratio to it without the scorers": np.median((cpu - scorers[1]) / plain[1]),
        }
        rows += [row(SMALL, name, metric, value, PEOPLE) for metric, value in found.items()]
    return rows


def works(forecast: Forecast, history: History, blend: Blend) -> list[Callable[[], object]]:
    """Rank in each way; only score; sum the same parts densely and take the best."""
    n_items = history.catalog.n_items
    (whole,) = rank([forecast], [history], blend, k=n_items)
    tilt = np.empty(n_items)
    tilt[whole.item_idx] = whole.category_parts.sum(axis=1)
    parts = np.vstack((blend.weighted_scores([history])[:, 0], tilt))
    return [
        *(lambda way=way: rank([forecast], [history], blend, k=K, **way) for way in WAYS.values()),
        lambda: [scorer.scores([history]) for scorer in blend.scorers],
        lambda: np.argpartition(parts.sum(axis=0), -K)[-K:],
    ]


def large() -> list[dict[str, object]]:
    """Rank a batch of people, count the lists that a sort of everything gives too, and the peak."""
    histories, blend = shop(LARGE, BATCH)
    forecasts = DecayedDirichlet().forecast(histories)
    before, rows = peak_gib(), []
    rank(forecasts[:1], histories[:1], blend, k=K)  # the first one sorts the log
    tied = ("by popularity alone", Blend((RecentPopularity(),), (1.0,)), {"strength": 0.0})
    for name, by, way in [*((name, blend, way) for name, way in WAYS.items()), tied]:
        start = time.perf_counter()
        rankings = rank(forecasts, histories, by, k=K, **way)
        seconds = time.perf_counter() - start
        same = ties = 0
        for found, forecast, history in zip(rankings, forecasts, histories, strict=True):
            items, scores = by_full_sort(forecast, history, by, **way)
            alike = (found.item_idx == items[:K]) & (found.scores == scores[:K])
            same += bool(alike.all())
            ties += int((np.diff(found.scores) == 0).sum())
        rows += [
            row(LARGE, name, "milliseconds", seconds / BATCH * 1e3, BATCH),
            row(LARGE, name, "lists as by a full sort, bit for bit", same / BATCH, BATCH),
            row(LARGE, name, "neighbours of equal score", ties, BATCH * (K - 1)),
        ]
    rows.append(row(LARGE, "catalog, log and scorers", "peak_gib", before, 1))
    rows.append(row(LARGE, "... and batches ranked", "peak_gib", peak_gib(), 1))
    return rows


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a work takes: on the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_gib() -> float:
    """Give the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def row(n_items: int, model: str, metric: str, value: float, n: int) -> dict[str, object]:
    """Give one row of the record."""
    about: dict[str, object] = {"dataset": "made-up shop", "split": f"{n_items:,} items"}
    about |= {"value": float(value), "low": None, "high": None, "n": n, "seeds": [0]}
    return about | {"model": model, "metric": metric}


if __name__ == "__main__":
    main()
