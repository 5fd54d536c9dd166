"""Batches on Ray: a real local cluster, its rows, its faults, and what is said without one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from llmrec.batch import BatchOptions, run_batch
from llmrec.batch.ray_pool import plan_actors
from llmrec.errors import DataError, MissingExtraError
from tests.batch.test_job import SMALL, assert_same, plain, rows_of, write_log

__all__ = ["plain"]  # a fixture


def test_without_ray_the_extra_is_named(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[ray\]'"):
        run_batch(engine_folder, write_log(tmp_path / "log", events), tmp_path / "out", ray="local")


def test_an_address_where_no_cluster_answers_is_named(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    log = write_log(tmp_path / "log", events)
    with pytest.raises(DataError, match=r"no Ray cluster answers at '127.0.0.1:9': "):
        run_batch(engine_folder, log, tmp_path / "out", SMALL, ray="127.0.0.1:9")


@pytest.mark.parametrize(
    ("resources", "use_model", "planned"),
    [
        ({"CPU": 3.0}, True, (2, {})),
        ({"CPU": 2.0}, True, (1, {})),
        ({"CPU": 1.0}, False, (1, {})),
        ({"CPU": 64.0}, False, (8, {})),
        ({"CPU": 64.0, "GPU": 4.0}, True, (4, {"num_gpus": 1})),
        ({"CPU": 64.0, "GPU": 4.0}, False, (8, {})),
    ],
)
def test_actors_leave_a_processor_free_and_take_a_gpu_each_for_a_language_model(
    resources: dict[str, float], use_model: bool, planned: tuple[int, dict[str, int]]
) -> None:
    assert plan_actors(resources, 8, use_model) == planned


@pytest.mark.slow
def test_ray_gives_the_rows_of_one_process(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    log = write_log(tmp_path / "log", events)
    made = run_batch(engine_folder, log, tmp_path / "out", SMALL, workers=2, ray="local")
    assert (made.n_people, made.is_whole) == (40, True)
    assert_same(tmp_path / "out", plain)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nobody(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    log, killed = write_log(tmp_path / "log", events), list[int]()

    def kill_a_worker(done: int, total: int, people: int) -> None:
        if not killed:
            killed.extend(workers()[:1])
            os.kill(killed[0], signal.SIGKILL)

    run_batch(
        *(engine_folder, log, tmp_path / "out", BatchOptions(k=4, events_per_shard=100)),
        workers=2,
        ray="local",
        show=kill_a_worker,
    )
    assert killed
    assert_same(tmp_path / "out", plain)


def workers() -> list[int]:
    """Find the processes of this computer that are actors making shards."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                name = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and b"_Actor" in name:
                found.append(int(process.name))
    return found


@pytest.mark.slow
def test_somebody_of_whom_no_event_can_be_used_is_listed_and_the_others_are_served(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    many = pd.DataFrame(
        {"user_id": "too many", "item_id": "i001", "timestamp": events["timestamp"]}
    )
    late = events.iloc[:1].assign(user_id="late", timestamp=pd.Timestamp("2020-05-30"))
    log = write_log(tmp_path / "log", pd.concat([events, many, late]))
    own = str(events["timestamp"].max() + pd.Timedelta(1, "ms"))
    options = BatchOptions(k=4, events_per_shard=200, cutoff=own)
    made = run_batch(engine_folder, log, tmp_path / "out", options, workers=2, ray="local")
    assert (made.n_people, made.n_without_past) == (41, 1)
    assert rows_of(tmp_path / "out", "rejected")["user_id"].tolist() == ["late"]
