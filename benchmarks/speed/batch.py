"""How many people a batch serves a CPU second, and how its memory grows with their number.

Made-up people take about ten of the items in twelve weeks, mostly what their group likes; titles
are all the same, and so no scorer is by title. An engine of effort "quick" is fitted on 5,000 of
them; then `llmrec batch` serves Parquet files of more, in a
process of its own: with reasons, without, and in place of it a plain loop over
`engine.recommend(frame of one person's events)`. CPU seconds and peak memory are of that process,
its start, the engine and the cutting of the log included.

Run: python -m benchmarks.speed.batch --people 20000 100000 --items 10000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from llmrec.batch import BatchOptions, run_batch
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from llmrec.types import IntArray

N_CATEGORIES, N_GROUPS, FAVOURITES, EVENTS_PER_PERSON, N_DAYS = 200, 50, 200, 10, 84
FITTED_PEOPLE, LOOP_PEOPLE, PEOPLE_PER_FILE = 5_000, 200, 100_000
START = np.datetime64("2026-01-01", "s")
WITH_REASONS, WITHOUT, LOOP = "batch, short reasons", "batch, no reasons", "loop over recommend"


def main() -> None:
    """Measure each number of people and of items in other processes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000])
    parser.add_argument("--models", nargs="+", default=[WITH_REASONS, WITHOUT, LOOP])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # model, folder, out: here
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_here(*arguments.one)))
        return
    rows: list[Row] = []
    for n_items in arguments.items:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fit_engine(folder, n_items)
            for n_people in arguments.people:
                rows += measure(folder, n_items, n_people, arguments.models)
    record_results("speed/batch", rows)


def measure(folder: Path, n_items: int, n_people: int, models: list[str]) -> Iterator[Row]:
    """Give the rows of one number of people: each way to serve them."""
    log = folder / f"people-{n_people}"
    write_log(log, n_items, n_people)
    for model in models:
        command = [sys.executable, "-m", "benchmarks.speed.batch", "--one", model, str(folder)]
        out = folder / f"{n_people}-{model}"
        run = subprocess.run(
            [*command, f"{log}:{out}"], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(run.stdout.splitlines()[-1])
        split = f"{n_items:,} items / {n_people:,} people"
        keys: Row = {"dataset": "synthetic", "split": split, "model": model, "seeds": [0]}
        for metric, value in found.items():
            yield value_row(keys, metric, value, LOOP_PEOPLE if model == LOOP else n_people)


def measure_here(model: str, folder: str, paths: str) -> dict[str, float]:
    """Serve people in this process, and give people a CPU second and the peak of memory."""
    engine, (log, out) = Path(folder) / "engine", paths.split(":")
    began = time.process_time()
    if model == LOOP:
        n = serve_one_by_one(engine, Path(log))
    else:
        reasons: Any = "none" if model == WITHOUT else "short"
        n = run_batch(engine, log, out, BatchOptions(reasons=reasons, model=None)).n_people
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"people per CPU second": n / seconds, "CPU seconds": seconds, "peak MB": peak}


def serve_one_by_one(folder: Path, log: Path) -> int:
    """Recommend to some people in a plain loop, as somebody without a batch would."""
    engine = InterestEngine.from_pretrained(str(folder), model=None)
    events = pd.read_parquet(sorted(log.iterdir())[0])
    chosen = events[events["user_id"].isin(events["user_id"].unique()[:LOOP_PEOPLE])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of items that the engine does not know
        for _, frame in chosen.groupby("user_id"):
            engine.recommend(frame, causes=False)
    return LOOP_PEOPLE


def fit_engine(folder: Path, n_items: int) -> None:
    """Fit on people whom nobody is asked about later, and save."""
    events = make_events(n_items, np.arange(FITTED_PEOPLE), seed=1)
    category = events["item_id"].str[1:].astype(int) % N_CATEGORIES
    events["categories"] = "kind " + category.astype(str)
    events["title"] = "something"
    dataset = read_table(events, name="made up", period="14D")
    engine = InterestEngine.from_pretrained(data=dataset, model=None, refit=True)
    engine.save_pretrained(folder / "engine")


def write_log(folder: Path, n_items: int, n_people: int) -> None:
    """Write the events of people to Parquet files, a part of the people at a time."""
    folder.mkdir()
    for number, start in enumerate(range(0, n_people, PEOPLE_PER_FILE)):
        people = np.arange(start, min(start + PEOPLE_PER_FILE, n_people))
        events = make_events(n_items, people, seed=2 + number)
        events.to_parquet(folder / f"part-{number:04d}.parquet")


def make_events(n_items: int, people: IntArray, seed: int) -> pd.DataFrame:
    """Make people who mostly take what their group likes, a few items much more than others."""
    rng = np.random.default_rng(seed)
    liked = np.random.default_rng(0).integers(n_items, size=(N_GROUPS, FAVOURITES))
    who = np.repeat(people, rng.poisson(EVENTS_PER_PERSON - 1, len(people)) + 1)
    own = liked[who % N_GROUPS, np.minimum(rng.geometric(0.02, len(who)) - 1, FAVOURITES - 1)]
    any_item = (n_items * rng.random(len(who)) ** 2).astype(np.int64)
    items = np.where(rng.random(len(who)) < 0.6, own, any_item)
    seconds = rng.integers(N_DAYS * 24 * 3600, size=len(who)).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "user_id": pd.Series(who).map("p{:07d}".format),
            "item_id": pd.Series(items).map("i{:06d}".format),
            "timestamp": START + seconds,
        }
    )


if __name__ == "__main__":
    main()
