"""A batch: everybody's forecast and list, in shards that are whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from llmrec.batch.events import EventSource, find_events
from llmrec.batch.maker import (
    EVENTS_FOLDER,
    REJECTED,
    WORK,
    ShardMaker,
    ShardReport,
    done_file,
)
from llmrec.batch.people import BatchOptions, load_engine
from llmrec.batch.ray_pool import make_on_ray
from llmrec.batch.shards import (
    EVENTS_PER_CELL,
    REJECTED_ROWS,
    Partition,
    cut_into_shards,
    hash_cells,
    load_partition,
    read_cells,
)
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text, file_hash
from llmrec.data.options import ReadingOptions
from llmrec.data.versions import __version__
from llmrec.engine import InterestEngine
from llmrec.engine_settings import SETTINGS_FILE
from llmrec.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUN_FILE, SUMMARY_FILE, LOCK_FILE = "run.json", "summary.json", ".lock"
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class BatchSummary:
    """What a batch did.

    Attributes
    ----------
    n_people, n_failed, n_without_past
        People who were served, for whom it failed, and who have no event before the cutoff: the
        folder ``rejected`` names them.
    n_events, n_rejected_rows
        Rows that are events, and rows that are none: see there, too.
    n_shards, n_resumed
        Shards, and how many of them were there already.
    cutoff
        Start of the period that was forecast.
    left_out
        Rows that were left out before, where the log was loaded whole, by reason.
    unreadable
        Files of which something could not be read, with what is wrong.
    n_by_model
        People whose forecast the language model changed.
    """

    n_people: int
    n_failed: int
    n_without_past: int
    n_events: int
    n_rejected_rows: int
    n_shards: int
    n_resumed: int
    cutoff: str
    left_out: dict[str, int]
    unreadable: dict[str, str]
    n_by_model: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all files were read, and everybody with a past was served."""
        return not self.unreadable and not self.n_failed


def run_batch(
    engine: Path | str,
    data: Path | str | Dataset,
    out: Path | str,
    options: BatchOptions | None = None,
    *,
    reading: ReadingOptions | None = None,
    workers: int = 1,
    ray: str | None = None,
    resume: bool = False,
    show: Progress | None = None,
) -> BatchSummary:
    """Forecast and recommend to everybody in a log, and write tables to a folder.

    ``recommendations`` and ``forecasts`` have a Parquet file a shard, ``rejected`` has rows that
    are no events and people for whom nothing could be made, with the reason. The rows are the same
    to the bit for any shard size, number of workers and order of the log's rows. Memory is that of
    a shard, where the log is of plain Parquet files (`find_events`).

    Parameters
    ----------
    engine
        Folder of a saved engine.
    data, reading
        The log, and how it is read. Items that the engine does not know are rejected.
    workers
        Processes, each of which loads the engine.
    ray
        Address of a Ray cluster that sees the same folders, or "local": its actors do the work.
    resume
        Go on with a run that was stopped: what is there stays.
    show
        Is told how many shards of how many are done, and for how many people.

    Raises
    ------
    DataError
        If nothing can be read or loaded, the folder holds another run or other things, or another
        process works in it, or all people fail.
    OSError
        If a file cannot be written; what is there stays, and ``resume`` goes on.
    """
    out, engine = Path(out).absolute(), str(Path(engine).absolute())
    if not isinstance(data, Dataset) and out.is_relative_to(Path(data).absolute()):
        raise DataError(f"{out} lies within the log, {data}: give a folder elsewhere.")
    options, reading = options or BatchOptions(), reading or ReadingOptions()
    if options.model_options:
        load_engine(engine, options)  # what cannot be loaded is said before the folder is begun
    loaded = load_engine(engine, options, model=None)
    out.mkdir(parents=True, exist_ok=True)
    with _only_one_run(out):
        prepared = _prepare(engine, loaded, data, out, options, reading, resume)
        if isinstance(prepared, BatchSummary):
            return prepared
        return _run(*prepared, workers, ray, show)


def _run(
    maker: ShardMaker, partition: Partition, workers: int, ray: str | None, show: Progress | None
) -> BatchSummary:
    """Make the shards that are missing, and write the summary."""
    out, found = maker.out, _done(maker.out, partition)
    reports = dict(found)
    missing = [shard for shard in range(partition.n_shards) if shard not in found]
    for report in _make_shards(maker, missing, workers, ray):
        reports[report.shard] = report
        if show is not None:
            show(len(reports), partition.n_shards, sum(one.n_people for one in reports.values()))
    summary = _summarize(list(reports.values()), partition, len(found), maker.cutoff)
    atomic_write_text(out / SUMMARY_FILE, json.dumps(asdict(summary), indent=1))
    shutil.rmtree(out / WORK, ignore_errors=True)
    return summary


@contextmanager
def _only_one_run(out: Path) -> Iterator[None]:
    """Refuse a folder that another process works in; DataError says so."""
    if fcntl is None:  # Windows
        yield
        return
    with (out / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"another process is at work in {out}: wait for it.") from error
        yield


def _prepare(
    engine: str,
    loaded: InterestEngine,
    data: Path | str | Dataset,
    out: Path,
    options: BatchOptions,
    reading: ReadingOptions,
    resume: bool,
) -> BatchSummary | tuple[ShardMaker, Partition]:
    """Open the folder and cut the events into shards; give the summary if all is done already."""
    source = find_events(data, reading)
    about = {
        "llmrec": f"{__version__}, {EVENTS_PER_CELL}",
        "engine": file_hash(Path(engine) / SETTINGS_FILE),
        "log": source.fingerprint(),
    }
    if (finished := _open_folder(out, about | asdict(options), resume)) is not None:
        return finished
    partition = _partition(source, loaded, out, options.events_per_shard)
    after = np.datetime64(partition.newest + 1, "ms")
    end = loaded.cutoff if options.cutoff else max(loaded.cutoff, after)
    use_model = options.model is not None and bool(loaded.settings.model)
    return ShardMaker(engine, str(end), out, options, use_model), partition


def _open_folder(out: Path, about: dict[str, Any], resume: bool) -> BatchSummary | None:
    """Begin a run in a folder, or go on with one; give its summary if it is finished."""
    known = out / RUN_FILE
    if not known.exists():
        # A name with a dot is of a run that was killed while it began.
        if found := sorted(one.name for one in out.iterdir() if not one.name.startswith(".")):
            raise DataError(f"{out} holds {found[0]!r} and no batch: give an empty folder.")
        atomic_write_text(known, json.dumps(about, indent=1))
        return None
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{known} cannot be read: {error}. Give another folder.") from error
    if differing := [name for name, value in about.items() if before.get(name) != value]:
        raise DataError(
            f"{out} holds a batch of another {' and '.join(differing)}: give another folder."
        )
    if not resume:
        raise DataError(f"{out} holds this batch already: resume it, or give another folder.")
    if not (out / SUMMARY_FILE).exists():
        return None
    shutil.rmtree(out / WORK, ignore_errors=True)
    return BatchSummary(**json.loads((out / SUMMARY_FILE).read_text(encoding="utf-8")))


def _partition(
    source: EventSource, engine: InterestEngine, out: Path, events_per_shard: int
) -> Partition:
    """Cut the events into shards, unless an earlier run has."""
    folder, rejected = out / EVENTS_FOLDER, out / REJECTED / REJECTED_ROWS
    if folder.exists():
        made = load_partition(folder)
    else:
        made = cut_into_shards(source, engine.dataset.catalog, folder, events_per_shard)
    if made.n_rejected and not rejected.exists():
        rejected.parent.mkdir(exist_ok=True)
        partial = rejected.with_name(f".{rejected.name}")
        shutil.copyfile(folder / REJECTED_ROWS, partial)
        os.replace(partial, rejected)
    return made


def _done(out: Path, partition: Partition) -> dict[int, ShardReport]:
    """Give the shards that are there, by number; one whose events are others is made again."""
    found = {}
    for shard in range(partition.n_shards):
        try:
            known = ShardReport(**json.loads(done_file(out, shard).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if known.events == hash_cells(list(read_cells(out / EVENTS_FOLDER, partition, shard))):
            found[shard] = known
    return found


def _make_shards(
    maker: ShardMaker, shards: Sequence[int], workers: int, ray: str | None
) -> Iterator[ShardReport]:
    """Make shards here, in processes, or on Ray, and yield each report when it is done."""
    if not shards:
        return
    if ray is not None:
        yield from make_on_ray(maker, shards, workers, ray)
    elif workers == 1:
        yield from map(maker.open(), shards)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _open_worker, (maker,)) as pool:
            waiting = [pool.submit(_work, shard) for shard in shards]
            try:
                yield from (one.result() for one in as_completed(waiting))
            except BrokenProcessPool as error:
                raise DataError(
                    "a worker ended without a word; if memory was short give fewer workers, or "
                    "fewer events a shard. Resume goes on with what is there."
                ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


_worker: list[Callable[[int], ShardReport]] = []  # of this process, if it is a worker


def _open_worker(maker: ShardMaker) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    _worker[:] = [maker.open()]


def _end_with_parent() -> None:
    """End this worker where the run that started it was killed: nothing else would tell it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(shard: int) -> ShardReport:
    return _worker[0](shard)


def _summarize(
    reports: Sequence[ShardReport], partition: Partition, n_resumed: int, cutoff: str
) -> BatchSummary:
    return BatchSummary(
        sum(one.n_people for one in reports),
        sum(one.n_failed for one in reports),
        sum(one.n_without_past for one in reports),
        partition.n_events,
        partition.n_rejected,
        partition.n_shards,
        n_resumed,
        cutoff,
        partition.left_out,
        partition.unreadable,
        sum(one.n_by_model for one in reports),
    )
