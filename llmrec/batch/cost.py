"""What a batch of many people costs, by serving some of them here."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pyarrow as pa
from threadpoolctl import threadpool_limits

from llmrec.batch.events import find_events
from llmrec.batch.maker import parquet_bytes
from llmrec.batch.people import (
    BatchOptions,
    Reasons,
    clear_cache,
    find_past,
    load_engine,
    make_tables,
)
from llmrec.batch.shards import Partition, cut_into_shards, read_cells
from llmrec.data.dataset import Dataset
from llmrec.data.options import ReadingOptions
from llmrec.data.validation import USER_ID
from llmrec.engine import InterestEngine

MAX_MEASURED = 1_000
MAX_WITH_CAUSES = 50  # people for whom causes are found: that takes longest
READ, HISTORIES, FORECASTS, LISTS = "reading the log", "histories", "forecasts", "lists"
WORDS, CAUSES = "reasons and descriptions", "causes of reasons"
STEPS_OF: dict[Reasons, tuple[str, ...]] = {
    "none": (READ, HISTORIES, FORECASTS, LISTS),
    "short": (READ, HISTORIES, FORECASTS, LISTS, WORDS),
    "causes": (READ, HISTORIES, FORECASTS, LISTS, WORDS, CAUSES),
}
Given = ParamSpec("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class BatchCost:
    """What a batch costs, by some of its people; times are of one thread's processor.

    Attributes
    ----------
    engine, effort
        The engine's folder, and the effort of its fit.
    n_measured
        People who were served.
    seconds_of
        Seconds a person, by step (`STEPS_OF`).
    bytes_of
        Bytes of the files that come out a person, by `BatchOptions.reasons`.
    peak_mb
        Memory of this process, which does not grow with the number of people.
    """

    engine: str
    effort: str
    n_measured: int
    seconds_of: dict[str, float]
    bytes_of: dict[Reasons, float]
    peak_mb: float

    def seconds(self, reasons: Reasons) -> float:
        """Give the seconds that a person takes with `BatchOptions.reasons`."""
        return sum(self.seconds_of[step] for step in STEPS_OF[reasons])

    def cpu_hours(self, n_people: int, reasons: Reasons) -> float:
        """Give the hours of one processor that so many people take."""
        return n_people * self.seconds(reasons) / 3600

    def disk_gb(self, n_people: int, reasons: Reasons) -> float:
        """Give the gigabytes that come out for so many people."""
        return n_people * self.bytes_of[reasons] / 1e9


def measure_cost(
    engine: Path | str,
    data: Path | str | Dataset,
    options: BatchOptions | None = None,
    *,
    reading: ReadingOptions | None = None,
    n_measured: int = MAX_MEASURED,
) -> BatchCost:
    """Read a log as `run_batch` does, serve some of its people, and take the time of each step.

    Raises
    ------
    DataError
        If there is nothing to read, or the engine cannot be loaded.
    """
    options = options or BatchOptions()
    loaded = load_engine(engine, options)
    source = find_events(data, reading or ReadingOptions())
    catalog, size = loaded.dataset.catalog, options.events_per_shard
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1, "blas"):
        folder = Path(name) / "events"
        partition, read = _timed(cut_into_shards, source, catalog, folder, size)
        events = _some_people(folder, partition, n_measured)
        n_people = len(events[USER_ID].unique())
        seconds_of = {READ: read * len(events) / partition.n_events}
        measured, bytes_of = _serve(loaded, events, options, partition.is_clean)
        seconds_of = {step: each / n_people for step, each in (seconds_of | measured).items()}
        seconds_of[CAUSES] = _measure_causes(loaded, events, options, partition.is_clean)
    per_person = {reasons: each / n_people for reasons, each in bytes_of.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    effort = loaded.settings.effort
    return BatchCost(str(engine), effort, n_people, seconds_of, per_person, peak)


def _serve(
    engine: InterestEngine, events: pa.Table, options: BatchOptions, is_clean: bool
) -> tuple[dict[str, float], dict[Reasons, float]]:
    """Serve people, and give the seconds of each step, and the bytes that come out."""
    (histories, _), past = _timed(find_past, engine, events, is_clean)
    clear_cache(engine)
    _, forecast = _timed(engine.forecaster.forecast, histories)
    taken, bytes_of = {}, dict[Reasons, float]()
    for reasons in ("none", "short"):
        own = replace(options, reasons=reasons)
        made, taken[reasons] = _timed(make_tables, engine, events, own, is_clean=is_clean)
        for table in (made.recommendations, made.forecasts):
            content, written = _timed(parquet_bytes, table)
            taken[reasons] += written
            bytes_of[reasons] = bytes_of.get(reasons, 0.0) + len(content)
    bytes_of["causes"] = bytes_of["short"]
    steps = {
        HISTORIES: past,
        FORECASTS: forecast,
        LISTS: max(0.0, taken["none"] - past - forecast),
        WORDS: max(0.0, taken["short"] - taken["none"]),
    }
    return steps, bytes_of


def _measure_causes(
    engine: InterestEngine, events: pa.Table, options: BatchOptions, is_clean: bool
) -> float:
    """Give the seconds that causes of reasons take a person, by a few people."""
    few, n_few = _first_people(events, MAX_WITH_CAUSES)
    taken = {}
    for reasons in ("short", "causes"):
        own = replace(options, reasons=reasons)
        _, taken[reasons] = _timed(make_tables, engine, few, own, is_clean=is_clean)
    return max(0.0, taken["causes"] - taken["short"]) / n_few


def _some_people(folder: Path, partition: Partition, n_people: int) -> pa.Table:
    """Give the events of so many people, cell after cell: a hash of their ids has chosen them."""
    cells, n_found = [], 0
    for shard in range(partition.n_shards):
        for cell in read_cells(folder, partition, shard):
            cells.append(cell)
            n_found += len(cell[USER_ID].unique())
            if n_found >= n_people:
                return _first_people(pa.concat_tables(cells), n_people)[0]
    return pa.concat_tables(cells)


def _first_people(events: pa.Table, n_people: int) -> tuple[pa.Table, int]:
    people = events[USER_ID].unique().slice(0, n_people)
    return events.filter(pa.compute.is_in(events[USER_ID], people)), len(people)


def _timed(
    work: Callable[Given, Made], *given: Given.args, **options: Given.kwargs
) -> tuple[Made, float]:
    """Give what a piece of work makes, and its CPU seconds."""
    start = time.process_time()
    made = work(*given, **options)
    return made, time.process_time() - start
