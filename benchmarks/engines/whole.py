"""Whether an engine's folder is whole, its size, how fast it loads, and what a fit costs.

An engine is fitted and saved; other processes load the folder without the log and rank for people
whose events they are given. Their lists and scores are compared with the engine's own, to the bit.

Run: python -m benchmarks.engines.whole --data ml-100k
or, for the time that 10,000 items take to load, --data many-items --efforts quick standard
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.engines.loading import EVENTS_FILE, LISTS_FILE, TIMES_FILE, rank_people
from benchmarks.harness.engines import (
    EFFORTS,
    EngineFit,
    fit_measured,
    folder_megabytes,
    make_engine,
)
from benchmarks.harness.formatting import Row
from benchmarks.harness.logs import benchmark_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from benchmarks.ranking.engines import CPU_SECONDS, MEGABYTES
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.types import BoolArray

N_PEOPLE, N_PROCESSES = 200, 5
MANY_ITEMS = "many-items"  # a made-up log


def main() -> None:
    """Fit, save, load elsewhere, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--efforts", nargs="*", default=EFFORTS)
    parser.add_argument("--people", type=int, default=N_PEOPLE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name = arguments.data
    dataset = make_many_items() if name == MANY_ITEMS else benchmark_dataset(name)
    rows: list[Row] = []
    for effort in arguments.efforts:
        rows += measure(dataset, EngineFit(effort), arguments.people)
    record_results(f"engines/whole_{name}", rows)


def make_many_items(n_items: int = 10_000, n_people: int = 3_000, seed: int = 0) -> Dataset:
    """Make a log of a year, in which few of the items are taken often."""
    rng = np.random.default_rng(seed)
    ids = np.array([f"item {number}" for number in range(n_items)])
    categories = np.array([f"category {number}" for number in range(40)])
    frame = {"item_id": ids, "title": ids, "categories": rng.choice(categories, n_items)}
    n_events = 50 * n_people
    taken = np.concatenate((np.arange(n_items), n_items * rng.random(n_events) ** 3))
    minutes = rng.integers(364 * 24 * 60, size=len(taken)).astype("timedelta64[m]")
    events = {
        "user_id": [f"person {number}" for number in rng.integers(n_people, size=len(taken))],
        "item_id": ids[taken.astype(np.int64)],
        "timestamp": np.datetime64("2024-01-01", "s") + minutes,
    }
    catalog = Catalog.from_frame(pd.DataFrame(frame))
    log = Interactions.from_frame(pd.DataFrame(events)).align_to(catalog)
    return Dataset(MANY_ITEMS, log, catalog, "28D", "items", "person", "allow")


def measure(dataset: Dataset, fit: EngineFit, n_people: int) -> Iterator[Row]:
    """Give the rows of one engine: equal lists, size, seconds to load, and CPU seconds of fit."""
    keys = {"dataset": dataset.name, "split": "all", "model": fit.label, "seeds": [fit.seed]}
    engine = make_engine(dataset)
    yield value_row(keys, CPU_SECONDS, fit_measured(engine, fit), 1)
    users = np.random.default_rng(0).permutation(dataset.log.n_users)[:n_people]
    histories = engine.histories(users.tolist())
    own = rank_people(engine, histories)
    with TemporaryDirectory() as name:
        folder, work = Path(name, "engine"), Path(name, "work")
        engine.save_pretrained(folder)
        yield value_row(keys, MEGABYTES, folder_megabytes(folder), 1)
        work.mkdir()
        events_of(histories).to_parquet(work / EVENTS_FILE)
        times = [load_elsewhere(folder, work) for _ in range(N_PROCESSES)]
        with np.load(work / LISTS_FILE) as stored:
            loaded = dict(stored)
    for metric, equal in compare(own, loaded).items():
        yield mean_row(keys, metric, equal.astype(np.float64))
    for metric in times[0]:
        yield value_row(keys, metric, min(each[metric] for each in times), N_PROCESSES)


def events_of(histories: Sequence[History]) -> pd.DataFrame:
    """Give the events of people, with nothing else of the log."""
    frames = [
        pd.DataFrame(
            {
                "user_id": history.user_id,
                "item_id": history.catalog.item_ids[history.item_idx],
                "timestamp": history.log.timestamp[
                    history.event_ids.start : history.event_ids.stop
                ],
            }
        )
        for history in histories
    ]
    return pd.concat(frames, ignore_index=True)


def load_elsewhere(folder: Path, work: Path) -> dict[str, float]:
    """Load an engine in a process of its own, which writes its lists; give the seconds it took."""
    command = [sys.executable, "-m", "benchmarks.engines.loading", str(folder), str(work)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    times: dict[str, Any] = json.loads((work / TIMES_FILE).read_text(encoding="utf-8"))
    return {name: float(value) for name, value in times.items()} | {
        "seconds of the whole process": seconds
    }


def compare(own: Mapping[str, Any], loaded: Mapping[str, Any]) -> dict[str, BoolArray]:
    """(n_people,) by metric: whether lists and scores are the same to the bit."""
    same = {}
    for metric, name in (("same lists", "items"), ("same scores", "scores")):
        each = [np.split(found[name], np.cumsum(found["sizes"])[:-1]) for found in (own, loaded)]
        pairs = zip(*each, strict=True)
        same[metric] = np.array([one.tobytes() == other.tobytes() for one, other in pairs])
    return same


if __name__ == "__main__":
    main()
