"""How CPU time and memory grow with people, items or categories: reading, fitting, a batch.

Made-up people of groups mostly take what their group likes; a few items are taken much more than
others, and a few categories have most of the items. Of each size events and items are written to
Parquet files; then `read_table`, the fit of effort "quick" and `llmrec.batch` (with short reasons)
run in a process each. CPU seconds are those of the step alone, without its imports; the peak is of
its whole process, the imports (about 200 MB) included. Every repeat is another log.

The slope is that of log CPU seconds on log size by least squares over all runs, with its 95 %
interval: 1 is linear. What a step costs at any size flattens it, so that the last step, from the
largest size but one to the largest, has a row of its own.

Run: python -m benchmarks.speed.growth --axis categories users items
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

import llmrec.engine_fit  # noqa: F401  what is imported here is not timed
from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from llmrec.batch import BatchOptions, run_batch
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine

EVENTS_PER_PERSON, N_DAYS, PERIOD = 20, 84, "14D"
N_WORDS = 2_000  # of titles
N_GROUPS, FAVOURITES, OWN = 50, 200, 0.6  # OWN: share of events that a group's taste explains
START = np.datetime64("2026-01-01", "s")
READ, FIT, BATCH = "reading", "quick fit", "batch"
EVENTS, ITEMS, ENGINE = "events.parquet", "items.parquet", "engine"


@dataclass(frozen=True)
class Size:
    """How large a log is."""

    users: int
    items: int
    categories: int


BASE = {  # what stays the same while one of the three grows
    "users": Size(0, 1_000, 50),
    "items": Size(2_000, 0, 50),
    "categories": Size(2_000, 20_000, 0),
}
SIZES = {
    "users": [1_000, 3_000, 10_000, 30_000, 100_000],
    "items": [1_000, 3_000, 10_000, 30_000, 100_000],
    "categories": [20, 300, 1_000, 3_000, 10_000],
}


def main() -> None:
    """Measure each size of each axis several times, and record times, peaks and slopes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axis", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--sizes", type=int, nargs="+", help="of each axis")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--users", type=int, help="people, while something else grows")
    parser.add_argument("--items", type=int, help="items, while something else grows")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)  # step, folder: here
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measure_here(*arguments.step)))
        return
    rows: list[Row] = []
    own = {name: getattr(arguments, name) for name in ("users", "items")}
    same = {name: n for name, n in own.items() if n is not None}
    for axis in arguments.axis:
        base, sizes = replace(BASE[axis], **same), arguments.sizes or SIZES[axis]
        rows += measure_axis(axis, base, sizes, arguments.repeats)
    name = "growth" if len(arguments.axis) == len(SIZES) else f"growth_{'_'.join(arguments.axis)}"
    record_results(f"speed/{name}", rows)


def measure_axis(axis: str, base: Size, sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """Give the rows of one axis: mean seconds and largest peak by size, then slopes by step."""
    seconds: dict[str, list[tuple[int, float]]] = defaultdict(list)
    peaks: dict[tuple[str, int], list[float]] = defaultdict(list)
    for seed in range(repeats):
        for n in sizes:
            for step, found in measure_size(replace(base, **{axis: n}), seed).items():
                seconds[step].append((n, found["seconds"]))
                peaks[step, n].append(found["peak"])
                print(f"{axis} {n:,} {step}: {found}", file=sys.stderr)
    for step, runs in seconds.items():
        keys: Row = {"dataset": "synthetic", "model": step, "seeds": list(range(repeats))}
        for n in sizes:
            split = keys | {"split": f"{n:,} {axis}"}
            mean = float(np.mean([cpu for size, cpu in runs if size == n]))
            yield value_row(split, "CPU seconds", mean, repeats)
            yield value_row(split, "peak MB", max(peaks[step, n]), repeats)
        split = keys | {"split": axis}
        for metric, chosen in (("slope", sizes), ("slope of the last step", sizes[-2:])):
            yield slope_row(split, metric, [run for run in runs if run[0] in chosen])


def slope_row(keys: Row, metric: str, runs: Sequence[tuple[int, float]]) -> Row:
    """Make the row of the log-log slope of (size, CPU seconds), with its 95 % interval.

    Two runs give a slope without an interval.
    """
    row = value_row(keys, metric, float("nan"), len(runs))
    if len({size for size, _ in runs}) < 2:
        return row
    found = stats.linregress(*np.log(np.array(runs, dtype=np.float64)).T)
    if len(runs) < 3:
        return row | {"value": found.slope}
    half = stats.t.ppf(0.975, len(runs) - 2) * found.stderr
    ends = {"low": found.slope - half, "high": found.slope + half}
    return row | {"value": found.slope} | ends


def measure_size(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Make a log, and give CPU seconds and the peak in MB of each step on it."""
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder), size, seed)
        command = [sys.executable, "-m", "benchmarks.speed.growth", "--step"]
        outputs = {
            step: subprocess.run(
                [*command, step, folder], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            for step in (READ, FIT, BATCH)
        }
    return {step: json.loads(output.splitlines()[-1]) for step, output in outputs.items()}


def measure_here(step: str, folder: str) -> dict[str, float]:
    """Take one step in this process."""
    events, items, engine = (Path(folder) / name for name in (EVENTS, ITEMS, ENGINE))
    dataset = read_table(events, items, period=PERIOD) if step == FIT else None
    began = time.process_time()
    if step == READ:
        read_table(events, items, period=PERIOD)
    elif step == BATCH:
        run_batch(engine, events, Path(folder) / "out", BatchOptions(model=None))
    else:
        fitted = InterestEngine.from_pretrained(data=dataset, model=None, refit=True)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if step == FIT:
        fitted.save_pretrained(engine)
    return {"seconds": seconds, "peak": peak}


def write_log(folder: Path, size: Size, seed: int) -> None:
    """Write people's events, and the titles and categories of items, to Parquet files."""
    rng = np.random.default_rng(seed)
    liked = rng.integers(size.items, size=(N_GROUPS, FAVOURITES))
    who = np.repeat(np.arange(size.users), EVENTS_PER_PERSON)
    own = liked[who % N_GROUPS, np.minimum(rng.geometric(0.02, len(who)) - 1, FAVOURITES - 1)]
    any_item = (size.items * rng.random(len(who)) ** 2).astype(np.int64)
    taken = np.where(rng.random(len(who)) < OWN, own, any_item)
    seconds = rng.integers(N_DAYS * 24 * 3600, size=len(who)).astype("timedelta64[s]")
    # Each category has an item at least; of the others the first ones have most.
    rest = max(0, size.items - size.categories)
    more = (size.categories * rng.random(rest) ** 2).astype(np.int64)
    category = rng.permutation(np.append(np.arange(size.categories), more)[: size.items])
    words = rng.integers(N_WORDS, size=size.items)
    ids = pd.Series(np.arange(size.items)).map("i{:06d}".format)
    events = {"user_id": pd.Series(who).map("p{:07d}".format), "item_id": ids.to_numpy()[taken]}
    pd.DataFrame(events | {"timestamp": START + seconds}).to_parquet(folder / EVENTS)
    about = {
        "item_id": ids,
        "title": [f"thing{word} of kind{one}" for word, one in zip(words, category, strict=True)],
        "categories": [f"kind {one}" for one in category],
    }
    pd.DataFrame(about).to_parquet(folder / ITEMS)


if __name__ == "__main__":
    main()
