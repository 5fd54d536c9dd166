"""Time to load, clean and cut 1.4 million rows into windows, to read ratings from CSV, and memory.

The log is Complete Journey's; the ratings are made up, in the layout of MovieLens: 2.5 million, or
--rows 25000000. Each repeat runs in its own process, so that its peak is its own; importing is not
counted. Run: python -m benchmarks.speed.data
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks.harness.results import record_results
from llmrec.data.calendar import period_boundaries
from llmrec.data.readers import load_dataset
from llmrec.data.windows import make_windows

RATINGS_PER_PERSON, N_FILMS = 150, 20_000
GENRES = ("Action", "Comedy", "Drama", "Horror", "Sci-Fi")
SECONDS = (1_000_000_000, 1_560_000_000)  # 2001 to 2019
Measurement = dict[str, float]


def main() -> None:
    """Measure both several times; record the medians, and the slowest total."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2_500_000, help="ratings to make up")
    parser.add_argument("--once", help="measure this data in this process, print JSON")
    arguments = parser.parse_args()
    if arguments.once:
        measure = _measure_windows if arguments.once == "completejourney" else _measure_reading
        print(json.dumps(measure(arguments.once)))
        return
    rows = _summary("completejourney", _repeat("completejourney", arguments.repeats))
    with TemporaryDirectory() as folder:
        write_ratings(Path(folder), arguments.rows)
        rows += _summary("made-up ratings", _repeat(folder, arguments.repeats))
    record_results("speed/data", rows)


def write_ratings(folder: Path, n_rows: int) -> None:
    """Write ``ratings.csv``, sorted by person as MovieLens is, and ``movies.csv``."""
    rng = np.random.default_rng(0)
    ratings = {
        "userId": np.sort(rng.integers(1, max(2, n_rows // RATINGS_PER_PERSON), n_rows)),
        "movieId": (rng.pareto(1.2, n_rows) * 300).astype(int) % N_FILMS + 1,
        "rating": rng.integers(1, 11, n_rows) / 2,
        "timestamp": rng.integers(*SECONDS, n_rows),
    }
    pd.DataFrame(ratings).to_csv(folder / "ratings.csv", index=False)
    films = np.arange(1, N_FILMS + 1)
    movies = {
        "movieId": films,
        "title": [f"Film {film} (1999)" for film in films],
        "genres": [f"{GENRES[film % 5]}|{GENRES[(film + 1) % 5]}" for film in films],
    }
    pd.DataFrame(movies).to_csv(folder / "movies.csv", index=False)


def _summary(dataset: str, runs: list[Measurement]) -> list[dict[str, object]]:
    keys: dict[str, object] = {"dataset": dataset, "split": "all", "model": "llmrec.data"}
    keys |= {"low": None, "high": None, "n": len(runs), "seeds": []}
    values = {metric: median(run[metric] for run in runs) for metric in runs[0]}
    values["slowest_total_seconds"] = max(run["total_seconds"] for run in runs)
    return [keys | {"metric": metric, "value": value} for metric, value in values.items()]


def _repeat(data: str, n_repeats: int) -> list[Measurement]:
    """Measure data in new processes."""
    command = [sys.executable, "-m", "benchmarks.speed.data", "--once", data]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for _ in range(n_repeats)
    ]
    return [json.loads(output) for output in outputs]


def _measure_windows(name: str) -> Measurement:
    """Load and clean a log, then cut the windows of its last three periods."""
    start = time.perf_counter()
    dataset = load_dataset(name)
    loaded = time.perf_counter()
    windows = []
    for cutoff in period_boundaries(dataset.log, dataset.period)[-4:-1]:
        windows += make_windows(dataset.log, dataset.catalog, dataset.period, cutoff)
    done = time.perf_counter()
    return {
        "rows": dataset.log.report.rows_read,
        "windows": len(windows),
        "load_and_clean_seconds": loaded - start,
        "window_seconds": done - loaded,
        "total_seconds": done - start,
        "peak_gib": _peak_gib(),
    }


def _measure_reading(folder: str) -> Measurement:
    """Load and clean ratings."""
    start = time.perf_counter()
    n_rows = load_dataset(folder).log.report.rows_read
    seconds = time.perf_counter() - start
    return {
        "rows": n_rows,
        "total_seconds": seconds,
        "microseconds_per_row": seconds / n_rows * 1e6,
        "peak_gib": _peak_gib(),
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
