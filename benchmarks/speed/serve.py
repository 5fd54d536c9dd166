"""A server under load: times, errors, lost events, memory; and what is left after it is killed.

The engine is that of `benchmarks.speed.batch`: made-up people and 10,000 items, effort "quick", no
language model. `llmrec serve` runs in a process of its own; 64 clients in this one ask for lists of
random people and send events, at steady rates. The time of a list counts from when it was due.
After each event its person's list is asked for: "event to list" is both together, and a list that
does not know of the event is counted as stale. Acknowledged events that are not stored are lost.

With --kills the server is killed that often (SIGKILL) and started again while events are sent.

Run: python -m benchmarks.speed.serve --minutes 10 --kills 30
     python -m benchmarks.speed.serve --database postgresql+psycopg://USER@HOST/EMPTY ...
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from benchmarks.speed.batch import FITTED_PEOPLE, N_CATEGORIES, fit_engine, make_events
from benchmarks.speed.serve_clients import (
    EventSource,
    LoadFigures,
    ServerProcess,
    kill_under_load,
    load,
    stored_events,
)

PERIOD = "14D"


def main() -> None:
    """Load a server, kill it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--database", default="", help="an empty one; default: SQLite in a folder")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--lists", type=float, default=50, help="a second")
    parser.add_argument("--events", type=float, default=10, help="a second")
    parser.add_argument("--reasons", default="short", choices=["none", "short", "causes"])
    parser.add_argument("--server", nargs="*", default=[], help="more arguments of llmrec serve")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = list(measure(Path(name), arguments))
    kind = "postgresql" if arguments.database else ""
    record_results("_".join(filter(None, ("speed/serve", kind))), rows)


def measure(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Give the rows of a server under load, and of one that is killed."""
    events = write_engine(folder, options.items)
    users, items = (events[name].unique().tolist() for name in ("user_id", "item_id"))
    source = EventSource(users, items, events["timestamp"].max().to_datetime64().astype("M8[s]"))
    database = options.database or str(folder / "events.db")
    kind = "PostgreSQL" if options.database else "SQLite"
    arguments = [str(folder / "engine"), "--data", str(folder / "log.parquet"), "--no-llm"]
    arguments += ["--period", PERIOD, "--database", database, *options.server]
    server = ServerProcess(arguments, folder / "server.log")
    keys: Row = {"dataset": "synthetic", "model": kind, "seeds": [0]}
    server.start()
    acknowledged: set[str] = set()
    if options.minutes:
        memory, cpu = list[tuple[float, float]](), server.cpu_seconds()
        found = load(
            server.port,
            source,
            users,
            seconds=60 * options.minutes,
            lists_per_second=options.lists,
            events_per_second=options.events,
            n_clients=options.clients,
            query=f"k=10&reasons={options.reasons}",
            at_times=lambda elapsed: memory.append((elapsed, server.resident_mb())),
        )
        acknowledged |= found.acknowledged
        split = f"{options.items:,} items / {options.clients} clients / {options.lists:g} lists"
        split += f" and {options.events:g} events a second / {options.minutes:g} minutes"
        split += f" / reasons {options.reasons}"
        print(dict(found.statuses), file=sys.stderr)
        cpu = server.cpu_seconds() - cpu
        yield from load_rows(keys | {"split": split}, found, memory, cpu)
    killed = 0
    if options.kills:
        acknowledged |= kill_under_load(server, source, n_kills=options.kills, seconds=2.0)
        killed = options.kills
    server.stop()
    stored = stored_events(database)
    counts = {
        "acknowledged events": len(acknowledged),
        "lost events": sum(name not in stored for name in acknowledged),
        "events stored twice": sum(count > 1 for count in stored.values()),
    }
    for metric, value in counts.items():
        yield value_row(keys | {"split": f"after all, {killed} kills"}, metric, value, len(stored))


def write_engine(folder: Path, n_items: int) -> pd.DataFrame:
    """Write an engine, and the log that it was fitted on; gives the log."""
    fit_engine(folder, n_items)
    events = make_events(n_items, np.arange(FITTED_PEOPLE), seed=1)
    category = events["item_id"].str[1:].astype(int) % N_CATEGORIES
    events = events.assign(categories="kind " + category.astype(str), title="something")
    events.to_parquet(folder / "log.parquet")
    return events


def load_rows(
    keys: Row, found: LoadFigures, memory: list[tuple[float, float]], cpu: float
) -> Iterator[Row]:
    """Give the rows of what clients saw, and of the memory of the server over the time."""
    lists, follow = (1e3 * np.array(one) for one in (found.list_seconds, found.follow_seconds))
    good = {"list 200", "event 202"}
    wrong = sum(count for status, count in found.statuses.items() if status not in good)
    n_requests = found.statuses.total()
    values = {
        "errors": (wrong, n_requests),
        "CPU ms of the server a request": (1e3 * cpu / n_requests, n_requests),
        "stale lists": (found.stale, len(follow)),
        "list ms, median": (float(np.median(lists)), len(lists)),
        "list ms, 99 %": (float(np.quantile(lists, 0.99)), len(lists)),
        "event to list ms, median": (float(np.median(follow)), len(follow)),
        "event to list ms, 95 %": (float(np.quantile(follow, 0.95)), len(follow)),
    }
    end = memory[-1][0]
    # The first tenth is left out: caches and pools of threads are filled in it.
    for name, place in (("a tenth of the time", 0.1), ("half of it", 0.5), ("all of it", 1.0)):
        held = next(mb for elapsed, mb in memory if elapsed >= place * end)
        values[f"MB after {name}"] = (held, 1)
    for metric, (value, n) in values.items():
        yield value_row(keys, metric, value, n)


if __name__ == "__main__":
    main()
