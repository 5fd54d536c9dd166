"""How fast forecasters are, and whether memory stays flat over a stream of people.

Every numeric forecaster is fitted on Complete Journey once (one seed) and forecasts the first test
period, in CPU seconds of one thread. Counting forecasts all its people over and over, in batches,
as a stream would; the peak of what Python and numpy hold is taken for a short and a long stream.

Run: python -m benchmarks.speed.forecasters
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import numpy as np

from benchmarks.harness.results import record_results
from llmrec.data.periods import History, Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.registry import BUILDERS, ForecasterRegistry

ROUNDS, BATCH = 7, 1_024
SHORT, LONG = 4, 40  # batches


def main() -> None:
    """Time each, best of some rounds, and measure the memory of a stream."""
    dataset = load_dataset("completejourney")
    windows = split_windows(dataset)
    histories = [window.history for window in windows["test 1"]]
    validation = windows["validation"]
    rows = []
    for forecaster in (
        DecayedDirichlet().fit(validation),
        ExponentialDecay().fit(validation),
        GlobalDrift().fit(validation),
    ):
        name = type(forecaster).__name__
        methods: dict[str, Callable[[list[History]], object]] = {
            "users_per_second_weights": forecaster.category_weights,
            "users_per_second_forecasts": forecaster.forecast,
        }
        for metric, method in methods.items():
            rows.append(make_row(name, metric, *rates(method, histories), len(histories)))
        short, long = peak(forecaster, histories, SHORT), peak(forecaster, histories, LONG)
        rows.append(make_row(name, "peak_mib_short_stream", short, None, None, SHORT * BATCH))
        rows.append(make_row(name, "peak_mib_long_stream", long, None, None, LONG * BATCH))
    rows += measure_all(training_windows(dataset), validation, histories)
    record_results("speed/forecasters", rows)


def measure_all(
    training: list[Window], validation: list[Window], histories: list[History]
) -> list[dict[str, object]]:
    """Fit each forecaster and forecast, in the registry's order: what it needs comes before."""
    registry, rows = ForecasterRegistry(training, validation), []
    for name in BUILDERS:
        start = time.process_time()
        registry[name].forecast(histories)
        seconds = time.process_time() - start
        rows.append(
            make_row(name, "fit_and_forecast_cpu_seconds", seconds, None, None, len(histories))
        )
        print(f"{name}: {seconds:.1f} CPU s", flush=True)
    total = sum(float(str(row["value"])) for row in rows)
    metric = "fit_and_forecast_cpu_seconds"
    return [*rows, make_row("all forecasters", metric, total, None, None, len(histories))]


def rates(
    forecast: Callable[[list[History]], object], histories: list[History]
) -> tuple[float, float, float]:
    """Median, least and most users a CPU second."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        forecast(histories)
        found.append(len(histories) / (time.process_time() - start))
    return float(np.median(found)), min(found), max(found)


def peak(forecaster: Forecaster, histories: list[History], n_batches: int) -> float:
    """MiB held at most while batches of people are forecast one after the other."""
    stream: Iterator[History] = cycle(histories)
    tracemalloc.start()
    for _ in range(n_batches):
        forecaster.forecast(list(islice(stream, BATCH)))
    held = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return float(held)


def make_row(
    model: str, metric: str, value: float, low: float | None, high: float | None, n: int
) -> dict[str, object]:
    """One row of the results."""
    keys = {"dataset": "completejourney", "split": "test 1", "model": model, "seeds": []}
    return keys | {"metric": metric, "value": value, "low": low, "high": high, "n": n}


if __name__ == "__main__":
    main()
