"""Time to load, clean and cut 1.4 million rows into windows, and the memory it takes.

Each repeat runs in its own process, so that its peak is its own; importing is not counted.
Run: python -m benchmarks.speed.data
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

from benchmarks.harness.results import record_results
from llmrec.data.calendar import period_boundaries
from llmrec.data.readers import load_dataset
from llmrec.data.windows import make_windows


def main() -> None:
    """Measure Complete Journey several times; record the medians, and the slowest total."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", action="store_true", help="measure in this process, print JSON")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(_measure()))
        return
    runs = [_measure_in_new_process() for _ in range(arguments.repeats)]
    keys: dict[str, object] = {"dataset": "completejourney", "split": "all", "model": "llmrec.data"}
    keys |= {"low": None, "high": None, "n": len(runs), "seeds": []}
    values = {metric: median(run[metric] for run in runs) for metric in runs[0]}
    values["slowest_total_seconds"] = max(run["total_seconds"] for run in runs)
    rows = [keys | {"metric": metric, "value": value} for metric, value in values.items()]
    record_results("speed/data", rows)


def _measure_in_new_process() -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.speed.data", "--once"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    run: dict[str, float] = json.loads(output)
    return run


def _measure() -> dict[str, float]:
    """Load and clean the log, then cut the windows of its last three periods."""
    start = time.perf_counter()
    dataset = load_dataset("completejourney")
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
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
