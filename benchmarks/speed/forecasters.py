"""Time the whole family, and see whether memory stays flat while people stream by.

Every numeric forecaster is fitted on Complete Journey once (one seed) and asked about the first
test period, in CPU seconds of one thread. Counting forecasts all its people over and
over, in slices, as a stream would; the peak of what Python and numpy hold is taken for a short and
for a long stream.

Run: python -m benchmarks.speed.forecasters
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import numpy as np

from benchmarks.harness.results import record
from llmrec.data.periods import History, Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.registry import BUILDERS, ForecasterRegistry

ROUNDS, SLICE = 7, 1_024
SHORT, LONG = 4, 40  # slices


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
        asked: dict[str, Callable[[list[History]], object]] = {
            "users_per_second_weights": forecaster.category_weights,
            "users_per_second_forecasts": forecaster.forecast,
        }
        for metric, ask in asked.items():
            rows.append(row(name, metric, *rates(ask, histories), len(histories)))
        short, long = peak(forecaster, histories, SHORT), peak(forecaster, histories, LONG)
        rows.append(row(name, "peak_mib_short_stream", short, None, None, SHORT * SLICE))
        rows.append(row(name, "peak_mib_long_stream", long, None, None, LONG * SLICE))
    rows += whole_family(training_windows(dataset), validation, histories)
    record("family_speed", rows)


def whole_family(
    training: list[Window], validation: list[Window], histories: list[History]
) -> list[dict[str, object]]:
    """Fit and ask everybody once, in the order of the family; what others need is there by then."""
    family, found = ForecasterRegistry(training, validation), []
    for name in BUILDERS:
        start = time.process_time()
        family[name].forecast(histories)
        seconds = time.process_time() - start
        found.append(row(name, "fit_and_forecast_cpu_seconds", seconds, None, None, len(histories)))
        print(f"{name}: {seconds:.1f} CPU s", flush=True)
    total = sum(float(str(one["value"])) for one in found)
    metric = "fit_and_forecast_cpu_seconds"
    return [*found, row("the whole family", metric, total, None, None, len(histories))]


def rates(
    ask: Callable[[list[History]], object], histories: list[History]
) -> tuple[float, float, float]:
    """Median, least and most users a CPU second."""
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        ask(histories)
        found.append(len(histories) / (time.process_time() - start))
    return float(np.median(found)), min(found), max(found)


def peak(forecaster: Forecaster, histories: list[History], n_slices: int) -> float:
    """MiB held at most while slices of people are forecast one after the other."""
    stream: Iterator[History] = cycle(histories)
    tracemalloc.start()
    for _ in range(n_slices):
        forecaster.forecast(list(islice(stream, SLICE)))
    held = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return float(held)


def row(
    model: str, metric: str, value: float, low: float | None, high: float | None, n: int
) -> dict[str, object]:
    """Give one row of the record."""
    about = {"dataset": "completejourney", "split": "test 1", "model": model, "seeds": []}
    return about | {"metric": metric, "value": value, "low": low, "high": high, "n": n}


if __name__ == "__main__":
    main()
