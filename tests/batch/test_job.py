"""Batches: the same rows however they are made, resumed after anything, nobody lost silently."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.batch import BatchOptions, job, run_batch, transform
from llmrec.batch.frames import SPARK_SCHEMA
from llmrec.data import files
from llmrec.data.periods import History
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.session import UserSession

SMALL = BatchOptions(k=4, events_per_shard=200)
KILLED = """
import sys
from llmrec.batch import BatchOptions, run_batch, shards
shards.EVENTS_PER_CELL = 150
print("ready", flush=True)
run_batch(*sys.argv[1:4], BatchOptions(k=4, events_per_shard=200), resume=True)
"""


def write_log(folder: Path, events: pd.DataFrame, n_files: int = 1) -> Path:
    """Write events to Parquet files in a folder."""
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(events)), n_files)):
        events.iloc[rows].to_parquet(folder / f"part-{number}.parquet")
    return folder


def rows_of(out: Path, table: str = "recommendations") -> pd.DataFrame:
    """Read a table, in an order that does not depend on shards."""
    found = pd.read_parquet(out / table)
    keys = [name for name in ("user_id", "rank", "row") if name in found]
    return found.sort_values(keys, kind="stable").reset_index(drop=True)


def interrupt(*given: Any) -> None:
    """Stop a run where it is called."""
    raise KeyboardInterrupt


def assert_same(out: Path, other: Path) -> None:
    """Compare two batches to the bit."""
    for table in ("recommendations", "forecasts"):
        pd.testing.assert_frame_equal(rows_of(out, table), rows_of(other, table), check_exact=True)


@pytest.fixture(scope="session")
def plain(
    engine_folder: Path, events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The batch of everybody in one shard."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmrec.batch.shards.EVENTS_PER_CELL", 150)
        run_batch(engine_folder, write_log(folder / "log", events), folder / "out", _options())
    return folder / "out"


def _options(**changes: Any) -> BatchOptions:
    return BatchOptions(**{"k": 4, "events_per_shard": 100_000} | changes)


def test_everybody_gets_what_a_session_of_their_events_says(
    engine_folder: Path, events: pd.DataFrame, plain: Path
) -> None:
    engine = InterestEngine.from_pretrained(str(engine_folder))
    lists, forecasts = rows_of(plain), rows_of(plain, "forecasts").set_index("user_id")
    assert sorted(forecasts.index) == sorted(events["user_id"].unique())
    for user in ("u000", "u013", "u039"):
        session = engine.session(events[events["user_id"] == user])
        mine, expected = lists[lists["user_id"] == user], session.recommend(4, causes=False)
        assert mine["item_id"].tolist() == [one.item_id for one in expected]
        assert mine["reason"].tolist() == [one.why for one in expected]
        np.testing.assert_allclose(mine["score"], [one.score for one in expected], atol=1e-12)
        row, weights = forecasts.loc[user], session.forecast.category_weights
        assert row["description"] == session.forecast.description
        assert row["categories"][0] == engine.dataset.catalog.categories[weights.argmax()]
        assert row["weights"].sum() + row["other"] == pytest.approx(1)
        assert row["n_events"] == session.history.n_events


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_the_same_to_the_bit_for_any_shards_files_and_order(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shuffled = events.iloc[rng.permutation(len(events))]
    log = write_log(tmp_path / "log", shuffled, int(rng.integers(1, 5)))
    shard = int(rng.integers(100, 500))
    made = run_batch(engine_folder, log, tmp_path / "out", _options(events_per_shard=shard))
    assert made.n_shards > 1
    assert_same(tmp_path / "out", plain)


def test_workers_change_nothing(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    log, shown = write_log(tmp_path / "log", events), []
    run_batch(
        *(engine_folder, log, tmp_path / "out", SMALL),
        workers=2,
        show=lambda *numbers: shown.append(numbers),
    )
    assert_same(tmp_path / "out", plain)
    assert [done for done, _, _ in shown] == [*range(1, len(shown) + 1)]
    assert shown[-1] == (len(shown), len(shown), 40)


def test_a_log_in_memory_is_served_like_its_files(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    dataset = read_table(events.assign(categories="All"), name="small")
    run_batch(engine_folder, dataset, tmp_path / "out", SMALL)
    assert_same(tmp_path / "out", plain)


def test_reasons_are_left_out_or_name_causes_and_change_no_list(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    log, shorter = write_log(tmp_path / "log", events), rows_of(plain)
    for reasons in ("none", "causes"):
        run_batch(engine_folder, log, tmp_path / reasons, _options(reasons=reasons))
        other = rows_of(tmp_path / reasons)
        for column in ("item_id", "title", "score", "rank"):
            assert other[column].tolist() == shorter[column].tolist()
        assert other["reason"].isna().all() == (reasons == "none")


def test_a_run_that_was_killed_goes_on_where_it_was(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    kill_and_resume(engine_folder, write_log(tmp_path / "log", events), tmp_path / "out", plain, 2)


@pytest.mark.slow
def test_fifty_kills_lose_nobody_and_double_nobody(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", events)
    for number in range(10):
        kill_and_resume(engine_folder, log, tmp_path / f"out{number}", plain, 5, seed=number)


def kill_and_resume(
    engine: Path, log: Path, out: Path, plain: Path, n_kills: int, seed: int = 0
) -> None:
    """Start a run and kill it at a random moment, some times; then let it end, and compare."""
    rng = np.random.default_rng(seed)
    command = [sys.executable, "-c", KILLED, *map(str, (engine, log, out))]
    for _ in range(n_kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(float(rng.uniform(0, 4)))
            run.send_signal(signal.SIGKILL)
        for path in out.rglob("*.parquet"):
            if ".batch" not in path.parts:
                pd.read_parquet(path)  # whole, or not there
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_same(out, plain)
    assert not (out / ".batch").exists()


def test_shards_that_are_there_are_not_made_again(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"

    def stop(done: int, total: int, people: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(engine_folder, log, out, SMALL, show=stop)
    first = {path: path.stat().st_mtime_ns for path in (out / "forecasts").iterdir()}
    assert len(first) == 2
    made = run_batch(engine_folder, log, out, SMALL, resume=True)
    assert made.n_resumed == 2
    assert made.n_people == 40
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    monkeypatch.setattr(job, "cut_into_shards", None)  # nothing is read again
    assert run_batch(engine_folder, log, out, SMALL, resume=True) == made


def test_a_shard_whose_events_are_others_than_it_was_made_of_is_made_again(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"

    with pytest.raises(KeyboardInterrupt):
        run_batch(engine_folder, log, out, SMALL, show=interrupt)
    (known,) = (out / ".batch" / "done").iterdir()
    known.write_text(json.dumps(json.loads(known.read_text()) | {"events": "of others"}))
    assert run_batch(engine_folder, log, out, SMALL, resume=True).n_resumed == 0


def test_a_full_disk_is_named_and_the_run_goes_on_after_it(
    engine_folder: Path,
    events: pd.DataFrame,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, out, synced = write_log(tmp_path / "log", events), tmp_path / "out", []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as found:
            run_batch(engine_folder, log, out, SMALL)
    assert str(out) in str(found.value.filename)
    run_batch(engine_folder, log, out, SMALL, resume=True)
    assert_same(out, plain)


def test_a_folder_of_another_run_or_of_other_things_is_refused(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"
    run_batch(engine_folder, log, out, SMALL)
    with pytest.raises(DataError, match="holds this batch already: resume it"):
        run_batch(engine_folder, log, out, SMALL)
    with pytest.raises(DataError, match="a batch of another k and reasons"):
        run_batch(engine_folder, log, out, _options(k=5, reasons="none", events_per_shard=200))
    events.iloc[1:].to_parquet(log / "part-0.parquet")
    with pytest.raises(DataError, match="a batch of another log"):
        run_batch(engine_folder, log, out, SMALL, resume=True)
    other = write_log(tmp_path / "another log", events)
    with pytest.raises(DataError, match=r"holds 'part-0.parquet' and no batch"):
        run_batch(engine_folder, log, other, SMALL)
    with pytest.raises(DataError, match="is no engine's folder"):
        run_batch(log, log, tmp_path / "other", SMALL)


def test_files_that_cannot_be_read_are_named_and_the_others_are_served(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", events, 3)
    (log / "part-1.parquet").write_bytes(b"PAR1 is how it begins")
    pd.DataFrame({"user": ["x"]}).to_parquet(log / "part-3.parquet")
    made = run_batch(engine_folder, log, tmp_path / "out", SMALL)
    assert not made.is_whole
    assert [Path(file).name for file in made.unreadable] == ["part-1.parquet", "part-3.parquet"]
    whole = np.array_split(np.arange(len(events)), 3)
    left = events.iloc[np.concatenate((whole[0], whole[2]))]
    assert made.n_events == len(left)
    assert made.n_people == left["user_id"].nunique()


def test_rows_that_are_no_events_are_set_apart_with_their_reason(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    good, then = events, pd.Timestamp("2020-01-05 10:00:00")
    bad = pd.DataFrame(
        [
            (None, "i001", then),
            ("u001", "", then),
            ("u001", "i001", pd.NaT),
            ("u001", "i001", pd.Timestamp("1066-10-14 09:00:00")),
            ("u001", "of another shop", then),
        ],
        columns=good.columns,
    )
    log = write_log(tmp_path / "log", pd.concat([good, bad], ignore_index=True))
    made = run_batch(engine_folder, log, tmp_path / "out", SMALL)
    assert (made.n_rejected_rows, made.n_people, made.is_whole) == (5, 40, True)
    rejected = rows_of(tmp_path / "out", "rejected").sort_values("row")
    assert rejected["row"].tolist() == [*range(len(good), len(good) + 5)]
    assert rejected["reason"].tolist() == [
        "missing user_id",
        "missing item_id",
        "missing time",
        "impossible time: before 1970, or in the future",
        "item not in the catalog",
    ]
    assert_same(tmp_path / "out", plain)


def test_nothing_but_rows_that_are_no_events_is_an_error(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", events.assign(item_id="of another shop"))
    with pytest.raises(DataError, match=f"{len(events)} times item not in the catalog"):
        run_batch(engine_folder, log, tmp_path / "out", SMALL)


def test_ids_are_what_they_are_whatever_else_is_in_their_piece(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.batch.events.ROWS_PER_PIECE", 50)
    named = events.assign(user_id=events["user_id"].str[1:].astype(int).astype(str) + ".0")
    mixed = pd.concat([named, events.iloc[:1].assign(user_id="guest")])
    large = 2**60 + events["user_id"].str[1:].astype("Int64")
    large[0] = pd.NA
    for number, frame in enumerate((mixed, mixed[::-1], events.assign(user_id=large))):
        log, out = write_log(tmp_path / f"log{number}", frame), tmp_path / f"out{number}"
        made = run_batch(engine_folder, log, out, SMALL)
        assert made.n_people == (40 if number == 2 else 41)
        assert made.is_whole
    assert_same(tmp_path / "out0", tmp_path / "out1")
    assert str(2**60 + 7) in set(rows_of(tmp_path / "out2", "forecasts")["user_id"])


def test_events_twice_count_once_and_items_of_one_time_have_the_order_of_their_ids(
    engine_folder: Path, events: pd.DataFrame, plain: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", pd.concat([events, events.iloc[::3]]), 2)
    run_batch(engine_folder, log, tmp_path / "out", SMALL)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "out"), rows_of(plain), rtol=1e-12)


def test_somebody_for_whom_it_fails_is_set_apart_alone(
    engine_folder: Path,
    events: pd.DataFrame,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_sessions = InterestEngine.sessions

    def sessions(
        engine: InterestEngine, users: Sequence[History], **options: Any
    ) -> Iterator[tuple[int, UserSession]]:
        if any(history.user_id == "u007" for history in users):
            raise ZeroDivisionError("poisoned")
        return open_sessions(engine, users, **options)

    monkeypatch.setattr(InterestEngine, "sessions", sessions)
    log = write_log(tmp_path / "log", events)
    made = run_batch(engine_folder, log, tmp_path / "out", SMALL)
    assert (made.n_people, made.n_failed, made.is_whole) == (39, 1, False)
    (row,) = rows_of(tmp_path / "out", "rejected").itertuples()
    assert (row.user_id, row.reason) == ("u007", "ZeroDivisionError: poisoned")
    expected = rows_of(plain)
    others = expected[expected["user_id"] != "u007"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "out"), others)


def test_what_fails_for_everybody_ends_the_run_and_a_full_memory_too(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path / "log", events)
    errors = [(RuntimeError("CUDA"), DataError, "people fail, the first with: RuntimeError: CUDA")]
    errors.append((MemoryError("full"), MemoryError, "full"))
    for raised, found, what in errors:

        def sessions(*given: Any, error: Exception = raised, **options: Any) -> Any:
            raise error

        monkeypatch.setattr(InterestEngine, "sessions", sessions)
        options = _options(events_per_shard=10**9)
        monkeypatch.setattr("llmrec.batch.shards.EVENTS_PER_CELL", 10**9)
        with pytest.raises(found, match=what):
            run_batch(engine_folder, log, tmp_path / "out", options, resume=found is MemoryError)


def test_rejected_rows_are_there_after_a_kill_at_any_moment(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = events.iloc[:3].assign(item_id="of another shop")
    log, out = write_log(tmp_path / "log", pd.concat([events, bad])), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(job.shutil, "copyfile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_batch(engine_folder, log, out, SMALL)
    run_batch(engine_folder, log, out, SMALL, resume=True)
    assert len(rows_of(out, "rejected")) == 3


def test_two_processes_do_not_work_in_one_folder(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"

    def begin_again(*numbers: int) -> None:
        with pytest.raises(DataError, match="another process is at work"):
            run_batch(engine_folder, log, out, SMALL, resume=True)

    run_batch(engine_folder, log, out, SMALL, show=begin_again)


def test_events_that_were_cut_short_on_disk_are_noticed(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"

    with pytest.raises(KeyboardInterrupt):
        run_batch(engine_folder, log, out, SMALL, show=interrupt)
    file = out / ".batch" / "events" / "00002.arrow"
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(DataError, match=r"[Bb]egin anew"):
        run_batch(engine_folder, log, out, SMALL, resume=True)


def test_an_output_within_the_log_is_refused(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", events)
    with pytest.raises(DataError, match="lies within the log"):
        run_batch(engine_folder, log, log / "out", SMALL)


def test_what_loading_a_log_leaves_out_is_counted(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    table = events.assign(categories="All").astype({"timestamp": "str"})
    table.loc[0, "timestamp"] = "once upon a time"
    table.to_csv(tmp_path / "log.csv", index=False)
    made = run_batch(engine_folder, tmp_path / "log.csv", tmp_path / "out", SMALL)
    assert made.left_out == {"time that is not understood": 1}


def test_the_newest_event_ends_the_past_unless_a_cutoff_is_given(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    later = pd.DataFrame([("u000", "i001", pd.Timestamp("2020-06-01"))], columns=events.columns)
    log = write_log(tmp_path / "log", pd.concat([events, later]))
    made = run_batch(engine_folder, log, tmp_path / "late", SMALL)
    assert made.cutoff == "2020-06-01T00:00:00.001"
    own = str(InterestEngine.from_pretrained(str(engine_folder)).cutoff)
    alone = pd.concat([events, later.assign(user_id="later")])
    log = write_log(tmp_path / "other", alone)
    made = run_batch(engine_folder, log, tmp_path / "own", _options(cutoff=own))
    assert (made.cutoff, made.n_people, made.n_without_past) == (own, 40, 1)
    assert made.is_whole
    assert rows_of(tmp_path / "own", "rejected")["reason"].tolist() == [
        "no event before the cutoff"
    ]


def test_somebody_with_very_many_events_and_a_list_longer_than_the_catalog(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    first = pd.Timestamp("2020-01-01")
    many = pd.DataFrame(
        {
            "user_id": "very busy",
            "item_id": [f"i{item:03d}" for item in rng.integers(0, 30, 200_000)],
            "timestamp": first + pd.to_timedelta(np.sort(rng.integers(0, 8_000_000, 200_000)), "s"),
        }
    )
    log = write_log(tmp_path / "log", pd.concat([events, many]))
    made = run_batch(engine_folder, log, tmp_path / "out", BatchOptions(k=1_000))
    assert made.n_people == 41
    sizes = rows_of(tmp_path / "out").groupby("user_id").size()
    assert sizes.tolist() == [30] * 41


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"k": 0}, "k is 0"),
        ({"reasons": "long"}, "reasons 'long'"),
        ({"n_categories": 0}, "is 0"),
        ({"model": None, "model_options": {"backend": "openvino"}}, "no language model"),
        ({"model_options": {"adapter": Path("here")}}, "are texts"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        BatchOptions(**changes)


def test_a_frame_is_given_the_rows_of_a_batch(
    engine_folder: Path, events: pd.DataFrame, plain: Path
) -> None:
    expected = rows_of(plain)
    for users in (["u000"], ["u003", "u021", "u039"]):
        frame = events[events["user_id"].isin(users)].assign(shop="another column")
        found = transform(frame, engine_folder, BatchOptions(k=4))
        mine = expected[expected["user_id"].isin(users)].reset_index(drop=True)
        found = found.sort_values(["user_id", "rank"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, mine)
    assert not len(transform(events.iloc[:0], engine_folder))
    kinds = "user_id string, rank int, item_id string, title string, score double, reason string"
    assert kinds == SPARK_SCHEMA
