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
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit, apply_edits, muted_item_mask
from llmrec.ranking.item_item import Cosine, ItemToItem, SequentialRules
from llmrec.ranking.ranking import EPSILON, rank
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import FloatArray, IntArray

N_CATEGORIES, EVENTS_PER_ITEM, EVENTS_PER_PERSON = 100, 2, 50
SMALL, LARGE = 100_000, 1_000_000  # items
PEOPLE, BATCH, K = 200, 32, 100
EDITS = (Edit("category 7", 0.0), Edit("category 8", 3.0))
VARIANTS: dict[str, Any] = {"as forecast": {}, "one category muted, one raised": {"edits": EDITS}}


def main() -> None:
    """Rank the large catalog in another process, then time the small one, and record both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="the large one here; print JSON")
    if parser.parse_args().large:
        print(json.dumps(measure_large_catalog()))
        return
    command = [sys.executable, "-m", "benchmarks.speed.ranking", "--large"]
    # First, while this process is small: the peak of a child starts at that of its parent.
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    record_results("speed/ranking", [*measure_small_catalog(), *json.loads(output)])


def large_catalog(n_items: int, n_people: int) -> tuple[list[History], Blend]:
    """Histories of the first people of a synthetic log, and four scorers fitted on it."""
    catalog, log = make_catalog_and_log(n_items)
    pairs = [ItemToItem(kind).fit(log, catalog) for kind in (Cosine(), SequentialRules())]
    blend = Blend((RecentPopularity(), PersonalRepeat(), *pairs), (0.3, 0.7, 0.5, 0.5))
    return make_histories(log, catalog, "28D", users=range(n_people)), blend


def make_catalog_and_log(n_items: int) -> tuple[Catalog, Interactions]:
    """Make items of one or two categories, of which few are taken often, within a year."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(n_items).astype(str)  # so that their order is not that of the items
    names = np.array([f"category {number}" for number in range(N_CATEGORIES)], dtype=object)
    first, second = rng.choice(names, (2, n_items))
    items = pd.DataFrame({"item_id": ids, "categories": first + "|" + second})
    n_events = EVENTS_PER_ITEM * n_items
    minutes = rng.integers(365 * 24 * 60, size=n_events).astype("timedelta64[m]")
    events = {
        "user_id": rng.integers(n_events // EVENTS_PER_PERSON, size=n_events),
        "item_id": ids[(n_items * rng.random(n_events) ** 3).astype(np.int64)],
        "timestamp": np.datetime64("2024-01-01", "s") + minutes,
    }
    catalog = Catalog.from_frame(items)
    return catalog, Interactions.from_frame(pd.DataFrame(events)).align_to(catalog)


def measure_small_catalog() -> list[Row]:
    """Time everybody's rankings, the scorers alone, and the plain pass."""
    histories, blend = large_catalog(SMALL, PEOPLE)
    people = list(zip(DecayedDirichlet().forecast(histories), histories, strict=True))
    rank([people[0][0]], [people[0][1]], blend, k=K)  # the first one sorts the log
    seconds = np.array([[measure(run) for run in timed_runs(*each, blend)] for each in people])
    *variants, scorers, plain = seconds.transpose(1, 2, 0) * 1e3  # of each: wall and CPU, by person
    rows = [make_row(SMALL, "plain pass", "CPU milliseconds", np.median(plain[1]), PEOPLE)]
    for name, (wall, cpu) in zip(VARIANTS, variants, strict=True):
        values = {
            "milliseconds": np.median(wall),
            "milliseconds, 95 of 100 below": np.quantile(wall, 0.95),
            "CPU milliseconds": np.median(cpu),
            "... share of the scorers": np.median(scorers[1] / cpu),
            "... ratio to plain pass": np.median(cpu / plain[1]),
            "... ratio to it without the scorers": np.median((cpu - scorers[1]) / plain[1]),
        }
        rows += [make_row(SMALL, name, metric, value, PEOPLE) for metric, value in values.items()]
    return rows


def timed_runs(forecast: Forecast, history: History, blend: Blend) -> list[Callable[[], object]]:
    """List what is timed: each variant's ranking; the scores alone; the plain pass."""
    n_items = history.catalog.n_items
    (whole,) = rank([forecast], [history], blend, k=n_items)
    tilt = np.empty(n_items)
    tilt[whole.item_idx] = whole.category_parts.sum(axis=1)
    parts = np.vstack((blend.weighted_scores([history])[:, 0], tilt))
    return [
        *(lambda o=o: rank([forecast], [history], blend, k=K, **o) for o in VARIANTS.values()),
        lambda: [scorer.scores([history]) for scorer in blend.scorers],
        lambda: np.argpartition(parts.sum(axis=0), -K)[-K:],
    ]


def measure_large_catalog() -> list[Row]:
    """Rank a batch of people, count the lists that equal a full sort, and give the peak."""
    histories, blend = large_catalog(LARGE, BATCH)
    forecasts = DecayedDirichlet().forecast(histories)
    before, rows = peak_gib(), []
    rank(forecasts[:1], histories[:1], blend, k=K)  # the first one sorts the log
    variants = [(name, blend, options) for name, options in VARIANTS.items()]
    # Few people take an item, so that popularity alone leaves many ties.
    popularity = Blend((RecentPopularity(),), (1.0,))
    for name, scorers, options in [
        *variants,
        ("by popularity alone", popularity, {"strength": 0.0}),
    ]:
        start = time.perf_counter()
        rankings = rank(forecasts, histories, scorers, k=K, **options)
        seconds = time.perf_counter() - start
        equal = ties = 0
        for ranking, forecast, history in zip(rankings, forecasts, histories, strict=True):
            items, scores = full_sort_ranking(forecast, history, scorers, **options)
            same = (ranking.item_idx == items[:K]) & (ranking.scores == scores[:K])
            equal += bool(same.all())
            ties += int((np.diff(ranking.scores) == 0).sum())
        rows += [
            make_row(LARGE, name, "milliseconds", seconds / BATCH * 1e3, BATCH),
            make_row(LARGE, name, "lists equal to a full sort, bit for bit", equal / BATCH, BATCH),
            make_row(LARGE, name, "neighbours of equal score", ties, BATCH * (K - 1)),
        ]
    rows.append(make_row(LARGE, "catalog, log and scorers", "peak_gib", before, 1))
    rows.append(make_row(LARGE, "... and batches ranked", "peak_gib", peak_gib(), 1))
    return rows


def full_sort_ranking(
    forecast: Forecast,
    history: History,
    blend: Blend,
    edits: Sequence[Edit] = (),
    strength: float = 1.0,
) -> tuple[IntArray, FloatArray]:
    """(n_items,) all items by the formula of `rank` in plain numpy, and their scores.

    Muted items come last; then by score, popularity and item id.
    """
    catalog, log = history.catalog, history.log
    weights = forecast.category_weights + EPSILON
    edited = apply_edits(forecast, edits, catalog, history.cutoff).category_weights + EPSILON
    blended = blend.scores([history])[0]
    implied = softmax(blended) @ catalog.category_shares
    tilt = strength * np.log(weights / (implied / implied.sum() + EPSILON))
    if edits:
        tilt += strength * (np.log(edited) - np.log(weights))
    scores = blended + catalog.category_shares @ tilt
    popularity = np.bincount(log.item_idx[log.timestamp < history.cutoff], minlength=len(scores))
    muted = muted_item_mask(edits, catalog, history.cutoff)
    id_order = np.argsort(catalog.item_ids.argsort())
    best = np.lexsort((id_order, -popularity, -scores, muted))
    return best, scores[best]


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a run takes: on the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_gib() -> float:
    """Give the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make_row(n_items: int, model: str, metric: str, value: float, n: int) -> Row:
    """One row of the results."""
    keys: Row = {"dataset": "large synthetic catalog", "split": f"{n_items:,} items"}
    keys |= {"value": float(value), "low": None, "high": None, "n": n, "seeds": [0]}
    return keys | {"model": model, "metric": metric}


if __name__ == "__main__":
    main()
