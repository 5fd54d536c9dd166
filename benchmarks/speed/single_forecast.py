"""What one forecast costs in a log of many people: numbers alone, and with its sentences.

People and items are made up as in `benchmarks.speed.batch`, 1,000 items of 50 categories. Of each
number of people a log is read, effort "quick" is fitted and the engine saved; then people drawn at
random are forecast one after the other, by an engine that has the log and by one that was loaded
without it, which is given their histories. Times are CPU milliseconds of one thread, the median and
the 95 % quantile over people, after a first forecast that counts what everybody took. Each of the
three runs in a process of its own; the peak is that process', its imports included.

- numbers: ``engine.forecaster.forecast([history])``
- forecast: ``engine.forecast(user)``, the look-up of the person and the sentences with it

Run: python -m benchmarks.speed.single_forecast --people 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from benchmarks.speed.batch import PEOPLE_PER_FILE, make_events
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset
from llmrec.engine import InterestEngine

N_ITEMS, N_CATEGORIES, PERIOD, ASKED = 1_000, 50, "14D", 200
FIT, WITH_LOG, WITHOUT = "quick fit", "with the log", "without the log"
LOG, ENGINE = "log.parquet", "engine"


def main() -> None:
    """Measure each number of people, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # step, folder: here
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure_here(*arguments.one)))
        return
    rows = [row for n_people in arguments.people for row in measure(n_people)]
    record_results("speed/single_forecast", rows)


def measure(n_people: int) -> Iterator[Row]:
    """Give the rows of one number of people."""
    command = [sys.executable, "-m", "benchmarks.speed.single_forecast", "--one"]
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder) / LOG, n_people)
        for step in (FIT, WITH_LOG, WITHOUT):
            run = subprocess.run(
                [*command, step, folder], check=True, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(run.stdout.splitlines()[-1])
            print(f"{n_people:,} people, {step}: {found}", file=sys.stderr)
            keys: Row = {"dataset": "synthetic", "split": f"{n_people:,} people", "model": step}
            for metric, value in found.items():
                n = n_people if step == FIT else min(ASKED, n_people)
                yield value_row(keys | {"seeds": [0]}, metric, value, n)


def measure_here(step: str, folder: str) -> dict[str, float]:
    """Take one step in this process."""
    log, engine_folder = Path(folder) / LOG, Path(folder) / ENGINE
    began = time.process_time()
    if step == FIT:
        engine = InterestEngine.from_pretrained(data=_read(log), model=None, refit=True)
        engine.save_pretrained(engine_folder)
        found = {"CPU seconds": time.process_time() - began}
    else:
        data = _read(log) if step == WITH_LOG else None
        engine = InterestEngine.from_pretrained(str(engine_folder), data=data, model=None)
        users = _people(engine, log)
        histories = [engine.session(user).history for user in users]
        found = _times("numbers", lambda one: engine.forecaster.forecast([one]), histories)
        found |= _times("forecast", engine.forecast, users)
    return found | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def write_log(path: Path, n_people: int) -> None:
    """Write the events of people, and what is known of their items, to a Parquet file."""
    starts = range(0, n_people, PEOPLE_PER_FILE)
    blocks = [np.arange(start, min(start + PEOPLE_PER_FILE, n_people)) for start in starts]
    events = pd.concat([make_events(N_ITEMS, one, 2 + nth) for nth, one in enumerate(blocks)])
    names = np.array([f"kind {category}" for category in range(N_CATEGORIES)])
    own = names[events["item_id"].str[1:].astype(int) % N_CATEGORIES]
    events.assign(categories=own, title="something").to_parquet(path)


def _read(log: Path) -> Dataset:
    return load_dataset(log, period=PERIOD)


def _people(engine: InterestEngine, log: Path) -> Sequence[Any]:
    """Give ids of people of the log, or their histories where the engine has no log."""
    users = pd.read_parquet(log, columns=["user_id"])["user_id"].unique()
    rng = np.random.default_rng(0)
    chosen: list[str] = rng.choice(users, min(ASKED, len(users)), replace=False).tolist()
    if engine.dataset.log.n_users:
        return chosen
    columns = ["user_id", "item_id", "timestamp"]
    events = pd.read_parquet(log, columns=columns, filters=[("user_id", "in", chosen)])
    frames = (frame for _, frame in events.groupby("user_id"))
    return [engine.dataset.new_user_history(frame, engine.cutoff) for frame in frames]


def _times(name: str, ask: Callable[[Any], object], people: Sequence[Any]) -> dict[str, float]:
    """Median and 95 % quantile of the CPU milliseconds of asking about each person."""
    began = time.process_time()
    ask(people[0])
    first, taken = time.process_time() - began, []
    for one in people:
        began = time.process_time()
        ask(one)
        taken.append(1e3 * (time.process_time() - began))
    quantiles = {"median ms": float(np.median(taken)), "95 % ms": float(np.quantile(taken, 0.95))}
    return {f"{name}: {what}": ms for what, ms in ({"first ms": 1e3 * first} | quantiles).items()}


if __name__ == "__main__":
    main()
