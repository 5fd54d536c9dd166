"""What it costs to append events to an engine, and how soon a list has them.

People, items and events are made up as in `benchmarks.speed.growth`; of each size effort "quick" is
fitted, without a language model. Then events of people drawn at random come in after the log's end:
one at a time, in thousands, and 100,000 at once. Times are CPU milliseconds of one thread, the
median and the 95 % quantile.

- append 1, append 1,000, append 100,000: ``engine.append(events)`` with so many events
- event to list: an event of a person is appended, and their list of ten made anew, with short
  reasons (``causes=False``), and with reasons that name causes
- refresh: ``engine.refresh()``, CPU seconds
- without the log: ``append 1`` to the engine as it is loaded from its folder

Run: python -m benchmarks.speed.append --events 100000 1000000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from benchmarks.speed.growth import EVENTS, EVENTS_PER_PERSON, ITEMS, PERIOD, Size, write_log
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine

N_ITEMS, N_CATEGORIES, SECOND = 10_000, 50, np.timedelta64(1, "s")
MADE = {"short reasons": False, "causes": True}


def main() -> None:
    """Measure each number of events, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--items", type=int, default=N_ITEMS)
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    rows = [row for n in arguments.events for row in measure(n, arguments.items, arguments.repeats)]
    record_results("speed/append", rows)


def measure(n_events: int, n_items: int, repeats: int) -> Iterator[Row]:
    """Give the rows of one number of events."""
    keys: Row = {"dataset": "synthetic", "split": f"{n_events:,} events", "seeds": [0]}
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder), Size(n_events // EVENTS_PER_PERSON, n_items, N_CATEGORIES), 0)
        dataset = read_table(Path(folder) / EVENTS, Path(folder) / ITEMS, period=PERIOD)
        engine = InterestEngine.from_pretrained(data=dataset, model=None, refit=True)
        engine.save_pretrained(Path(folder) / "engine")
        bare = InterestEngine.from_pretrained(str(Path(folder) / "engine"), model=None)
    del dataset
    own, other = Arrivals(engine), Arrivals(engine)
    costs = [timed(engine.append, own.draw(1)) for _ in range(repeats)]
    yield from _quantiles(keys | {"model": "append 1"}, costs)
    for name, causes in MADE.items():
        people = [own.draw(1) for _ in range(repeats)]

        def update(events: pd.DataFrame, causes: bool = causes) -> None:
            engine.append(events)
            engine.recommend(events["user_id"].iloc[0], causes=causes)

        costs = [timed(update, events) for events in people]
        yield from _quantiles(keys | {"model": f"event to list, {name}"}, costs)
    costs = [timed(bare.append, other.draw(1)) for _ in range(repeats)]
    yield from _quantiles(keys | {"model": "append 1 without the log"}, costs)
    seconds = timed(engine.refresh) / 1_000
    yield value_row(keys | {"model": "refresh"}, "CPU seconds", seconds, 1)
    for n, times in ((1_000, max(3, repeats // 10)), (100_000, 3)):
        costs = [timed(engine.append, own.draw(n)) for _ in range(times)]
        yield from _quantiles(keys | {"model": f"append {n:,}"}, costs)


class Arrivals:
    """Events of people of an engine's log that come in one second after another."""

    def __init__(self, engine: InterestEngine) -> None:
        self.log, self.end = engine.dataset.log, engine.cutoff
        self.rng = np.random.default_rng(1)

    def draw(self, n: int) -> pd.DataFrame:
        """Draw the next n events; they are drawn before they are timed."""
        times = self.end + SECOND * np.arange(1, n + 1)
        self.end = times[-1]
        users = self.rng.integers(self.log.n_users, size=n)
        items = self.rng.integers(len(self.log.item_ids), size=n)
        return pd.DataFrame(
            {
                "user_id": self.log.user_ids[users],
                "item_id": self.log.item_ids[items],
                "timestamp": times,
            }
        )


def timed(call: Callable[..., object], *given: object) -> float:
    """CPU milliseconds of a call."""
    began = time.process_time()
    call(*given)
    return (time.process_time() - began) * 1_000


def _quantiles(keys: Row, costs: list[float]) -> Iterator[Row]:
    median, high = np.quantile(costs, [0.5, 0.95])
    print(f"{keys['split']}, {keys['model']}: {median:.1f} ms, 95 % {high:.1f}", file=sys.stderr)
    yield value_row(keys, "CPU ms", float(median), len(costs))
    yield value_row(keys, "CPU ms 95 %", float(high), len(costs))


if __name__ == "__main__":
    main()
