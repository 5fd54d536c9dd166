"""What nets of other logs are worth on a log that they have not seen, in nats per event.

Nothing is trained on the log. Counting, lifts and the gate are fitted on the two periods before
each test; the gain is over that counting. The nets are those that were trained without the log and
its re-cuts; the made-up worlds are of a generator that none was trained on. Losses are cached under
--cache: an interrupted run goes on where it stopped.

Targets of Online Retail are left out where its file is not there.

Run: python -m benchmarks.forecasting.pretrained
"""

from __future__ import annotations

import argparse
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COMPLETE_JOURNEY, MOVIELENS, ONLINE_RETAIL
from benchmarks.harness.logs import available_logs, benchmark_dataset
from benchmarks.harness.results import record_results, value_row
from llmrec.data.calendar import PeriodLength, period_boundaries
from llmrec.data.catalog import Catalog
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import log_folder
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import Window
from llmrec.data.splits import split_windows
from llmrec.data.synthetic import DRIFT_PATTERNS, SyntheticWorld, make_synthetic_world
from llmrec.data.windows import make_windows
from llmrec.forecasters.cell_nets import NETS_FILE, SHIPPED
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.metrics import log_loss
from llmrec.types import FloatArray, IntArray

PEOPLE = ("cold", "short", "heavy")  # thirds by the events before the cutoff
MODELS = {"ungated": "PretrainedForecaster, gate 1", "gated": "PretrainedForecaster"}
DRAWS = 1_000
TIMED_PEOPLE = 2_000
Losses = dict[str, FloatArray]


@dataclass(frozen=True)
class Target:
    """A log to forecast, and how its tests are cut.

    Attributes
    ----------
    name
        What tables call it.
    load
        Reads it.
    period
        Its period length.
    n_tests, n_past
        Last complete periods that are tests, and periods before each to fit on.
    min_periods, min_events
        Non-empty periods of a history, and events of a target, at least.
    """

    name: str
    load: Callable[[], Dataset]
    period: str
    n_tests: int = 2
    n_past: int = 2
    min_periods: int = 1
    min_events: int = 1


def main() -> None:
    """Evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache/pretrained"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    for target in list_targets():
        rows += gain_rows(
            target.name, cached_losses(arguments.cache, target.name, target_losses, target)
        )
    for name, options in WORLDS.items():
        losses = cached_losses(arguments.cache, name, world_losses, options)
        rows += gain_rows(name, losses)
    rows += speed_rows()
    record_results("forecasting/pretrained", rows)


def list_targets() -> list[Target]:
    """List the targets; those of Online Retail need its file."""
    shop = {"min_periods": 3, "min_events": 5}
    groceries = partial(benchmark_dataset, COMPLETE_JOURNEY)
    found = [
        Target("Complete Journey, 298 categories, 28 days", groceries, "28D", **shop),
        Target("Complete Journey, 298 categories, 7 days", groceries, "7D", **shop),
        Target(
            "Complete Journey, departments, 28 days", departments_of_complete_journey, "28D", **shop
        ),
    ]
    for clusters in (50, 150, 400) if ONLINE_RETAIL in available_logs() else ():
        load = partial(benchmark_dataset, ONLINE_RETAIL, clusters=clusters)
        found.append(Target(f"Online Retail, {clusters} clusters, 28 days", load, "28D"))
    films = partial(benchmark_dataset, MOVIELENS)
    return [
        *found,
        Target("MovieLens 100K, 10 events", films, "10 events"),
        Target("MovieLens 100K, 7 days", films, "7D", n_tests=12, n_past=3, min_events=5),
        Target("MovieLens 100K, 28 days", films, "28D", n_tests=4, min_events=5),
    ]


WORLDS: dict[str, dict[str, object]] = {
    f"synthetic, {events} events, {'all patterns' if len(patterns) > 1 else patterns[0]}": {
        "events_per_period": events,
        "patterns": patterns,
        "seed": 5 + number,
    }
    for number, (events, patterns) in enumerate(
        [(5, DRIFT_PATTERNS), (20, DRIFT_PATTERNS), (100, ("stable",))]
        + [(20, (pattern,)) for pattern in DRIFT_PATTERNS[1:]]
    )
}


def departments_of_complete_journey() -> Dataset:
    """Complete Journey with departments for categories."""
    dataset = benchmark_dataset(COMPLETE_JOURNEY)
    products = pd.read_parquet(log_folder("completejourney") / "products.parquet")
    products = products.dropna(subset=["department", "product_category"])
    letters = products["product_category"].map(_letters)
    known = products.groupby(letters)["department"].agg(lambda names: names.mode()[0])
    catalog = dataset.catalog
    names = [known.get(_letters(catalog.categories_of(n)[0])) for n in range(catalog.n_items)]
    frame = pd.DataFrame(
        {
            "item_id": catalog.item_ids,
            "title": catalog.titles,
            "categories": [[name] if name else [] for name in names],
        }
    )
    return replace(dataset, catalog=Catalog.from_frame(frame), name="completejourney-departments")


def cached_losses(
    folder: Path, name: str, compute: Callable[..., Losses], *given: object
) -> Losses:
    """Compute losses, or read those that these nets gave before."""
    nets = hashlib.sha256((SHIPPED / NETS_FILE).read_bytes()).hexdigest()[:12]
    path = folder / nets / f"{name.replace(' ', '_')}.npz"
    if not path.exists():
        content = io.BytesIO()
        np.savez(content, **compute(*given))  # type: ignore[arg-type]
        atomic_write_bytes(path, content.getvalue())
        print(f"{name}: evaluated", flush=True)
    with np.load(path) as stored:
        return dict(stored)


def target_losses(target: Target) -> Losses:
    """Losses of all tests of a target, one a window."""
    return _concatenate(losses_after(past, test) for past, test in past_and_test(target))


def world_losses(options: Mapping[str, object]) -> Losses:
    """Losses in a made-up world, and those of the best possible forecast."""
    world = make_synthetic_world(n_users=600, **options)  # type: ignore[arg-type]
    windows = split_windows(world.dataset)
    past, test = [*windows["validation"], *windows["test 1"]], windows["test 2"]
    return losses_after(past, test) | {"best": _best_losses(world, test)}


def past_and_test(target: Target) -> Iterator[tuple[list[Window], list[Window]]]:
    """Yield the windows to fit on and those of the test, for each test."""
    dataset = replace(target.load(), period=target.period)
    if PeriodLength.parse(target.period).unit == "events":
        windows = split_windows(dataset)
        yield windows["validation"], windows["test"]
        return
    grid = period_boundaries(dataset.log, target.period)
    first = len(grid) - 1 - target.n_tests
    dataset = dataset.with_categories_before(grid[first])

    def cut(position: int) -> list[Window]:
        return make_windows(
            dataset.log,
            dataset.catalog,
            target.period,
            grid[position],
            min_periods=target.min_periods,
            min_target_events=target.min_events,
        )

    for position in range(first, len(grid) - 1):
        past = [cut(before) for before in range(max(1, position - target.n_past), position)]
        yield [window for windows in past for window in windows], cut(position)


def losses_after(past: Sequence[Window], test: Sequence[Window]) -> Losses:
    """Losses of counting and of the forecaster, fitted on past windows; all (n_test,)."""
    fitted = PretrainedForecaster().fit(past)
    histories, targets = [window.history for window in test], target_counts(test)
    ungated = replace(fitted, gate=1.0)
    return {
        "user": np.array([history.user_idx for history in histories]),
        "events": np.array([history.n_events for history in histories]),
        "gate": np.full(len(test), fitted.gate),
        "counting": log_loss(fitted.prior.category_weights(histories), targets),
        "gated": log_loss(fitted.category_weights(histories), targets),
        "ungated": log_loss(ungated.category_weights(histories), targets),
    }


def gain_rows(name: str, losses: Losses) -> Iterator[Row]:
    """Give rows of gains of everybody and of thirds of people, with intervals by person."""
    thirds = np.argsort(np.argsort(losses["events"], kind="stable")) * 3 // len(losses["events"])
    groups = {"everybody": np.ones(len(thirds), dtype=bool)}
    groups |= {group: thirds == number for number, group in enumerate(PEOPLE)}
    keys: Row = {"dataset": name, "split": "test / everybody", "seeds": [0], "model": "counting"}
    yield value_row(keys, "log_loss", float(losses["counting"].mean()), len(thirds))
    gates = losses["gate"]
    yield value_row(keys | {"model": MODELS["gated"]}, "gate", float(gates.mean()), len(thirds))
    kinds = {**MODELS, **({"best": "best possible"} if "best" in losses else {})}
    for kind, model in kinds.items():
        for group, chosen in groups.items():
            gains = (losses["counting"] - losses[kind])[chosen]
            mean, low, high = interval_by_person(losses["user"][chosen].astype(np.int64), gains)
            found = keys | {"split": f"test / {group}", "model": model}
            yield value_row(found, "gain", mean, len(gains)) | {"low": low, "high": high}


def interval_by_person(users: IntArray, values: FloatArray) -> tuple[float, float, float]:
    """Mean of (n,) values, and its 95 % interval by drawing people, each with all their values."""
    _, person = np.unique(users, return_inverse=True)
    sums, sizes = np.bincount(person, values), np.bincount(person)
    rng, means = np.random.default_rng(0), np.empty(DRAWS)
    for draw in range(DRAWS):
        drawn = rng.integers(0, len(sums), len(sums))
        means[draw] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def speed_rows() -> Iterator[Row]:
    """Give CPU seconds of fitting on a log and forecasting for 2,000 people, from nothing."""
    dataset = benchmark_dataset(COMPLETE_JOURNEY)
    past = make_windows(dataset.log, dataset.catalog, dataset.period)
    histories = dataset.histories(dataset.everybody.end)[:TIMED_PEOPLE]
    start = time.process_time()
    fitted = PretrainedForecaster().fit(past)
    middle = time.process_time()
    fitted.forecast(histories)
    end = time.process_time()
    keys: Row = {"dataset": dataset.name, "split": "test", "model": MODELS["gated"], "seeds": [0]}
    yield value_row(keys, "fit CPU seconds", middle - start, len(past))
    yield value_row(keys, "forecast CPU seconds", end - middle, len(histories))


def _letters(name: str) -> str:
    """Letters and digits alone: the catalog's categories are cleaned names of the products'."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _best_losses(world: SyntheticWorld, windows: Sequence[Window]) -> FloatArray:
    weights, _ = world.expected_shares([window.history for window in windows])
    return log_loss(weights, target_counts(windows))


def _concatenate(parts: Iterator[Losses]) -> Losses:
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


if __name__ == "__main__":
    main()
