"""A live engine is what its log and its store make it, however often it is started."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from llmrec.engine import InterestEngine
from llmrec.errors import DataError, StoreError
from llmrec.serve.live import LiveEngine
from llmrec.serve.store import Added, EventStore, StoredEvent
from llmrec.serve.writer import EventWriter
from tests.serve.conftest import OpenEngine

DAY = 86_400_000
START = int(np.datetime64("2020-02-12", "ms").astype(int))


def events(n: int, user: str = "u000") -> list[StoredEvent]:
    return [
        StoredEvent(user, f"i{5 * (number % 5) + 4:03d}", START + number * 60_000)
        for number in range(n)
    ]


def list_of(live: LiveEngine, user: str) -> list[str]:
    return [one.item_id for one in live.session(user).recommend(8, causes=False)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


def test_a_restart_gives_the_same_engine(path: str, open_engine: OpenEngine) -> None:
    with LiveEngine(open_engine(), EventStore(path), refresh_seconds=0) as live:
        live.submit(events(5)).result()
        live.submit(events(4, "new person")).result()
        assert live.forget("u001").result() == 0
        live.submit(events(3, "u002")).result()
        before = {user: list_of(live, user) for user in ("u000", "u002", "new person")}
        cutoff = live.engine.cutoff
    with LiveEngine(open_engine(), EventStore(path), refresh_seconds=0) as live:
        assert {user: list_of(live, user) for user in before} == before
        assert live.engine.cutoff == cutoff
        with pytest.raises(DataError, match="'u001' is not known"):
            live.session("u001")


def test_who_comes_back_after_a_deletion_has_only_the_later_events(
    path: str, open_engine: OpenEngine
) -> None:
    later = StoredEvent("u000", "i004", int(time.time() * 1000) + 60_000)
    with LiveEngine(open_engine(), EventStore(path)) as live:
        live.forget("u000").result()
        live.submit([later]).result()
        assert live.session("u000").history.n_events == 1
    with LiveEngine(open_engine(), EventStore(path)) as live:
        assert live.session("u000").history.n_events == 1


def test_events_of_a_commit_whose_answer_was_lost_reach_the_engine_with_the_next(
    path: str, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EventStore(path)
    with LiveEngine(open_engine(), store) as live:
        add, n_before = store.add, live.session("u000").history.n_events

        def lose_answer(batches: Sequence[Sequence[StoredEvent]]) -> list[Added]:
            add(batches)
            raise StoreError("the connection was lost")

        with monkeypatch.context() as patch:
            patch.setattr(store, "add", lose_answer)
            with pytest.raises(StoreError, match="lost"):
                live.submit(events(3)).result()
        assert live.submit(events(3)).result().duplicates == (0, 1, 2)
        assert live.session("u000").history.n_events == n_before + 3


def test_events_that_could_not_be_read_back_reach_the_engine_without_further_ones(
    path: str, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.serve.writer.RETRY_SECONDS", 0.01)
    store = EventStore(path)
    with LiveEngine(open_engine(), store) as live:
        read, n_before = store.events_after, live.session("u000").history.n_events
        failures = iter([StoreError("the database stopped")] * 3)

        def fail_thrice(seq: int) -> tuple[list[StoredEvent], int]:
            if (failure := next(failures, None)) is not None:
                raise failure
            return read(seq)

        monkeypatch.setattr(store, "events_after", fail_thrice)
        assert live.submit(events(3)).result().accepted == (0, 1, 2)
        deadline = time.monotonic() + 10
        while live.session("u000").history.n_events == n_before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert live.session("u000").history.n_events == n_before + 3


def test_an_event_that_the_engine_refuses_stops_no_other(
    path: str, open_engine: OpenEngine
) -> None:
    store = EventStore(path)
    unknown = StoredEvent("u000", "of another log", START)
    store.add([[*events(2), unknown, *events(3, "u001")]])
    with LiveEngine(open_engine(), store) as live:
        assert live.n_not_applied == 1
        n_events = live.engine.history("u001").n_events
        assert n_events == open_engine().history("u001").n_events + 3


def test_a_refresh_follows_new_events_by_itself(path: str, open_engine: OpenEngine) -> None:
    with LiveEngine(open_engine(), EventStore(path), refresh_seconds=0.05) as live:
        live.submit(events(5)).result()
        until = time.monotonic() + 20
        while not live.last_refresh_seconds and time.monotonic() < until:
            time.sleep(0.02)
        assert live.last_refresh_seconds > 0


def test_statistics_are_solved_anew_without_a_person_who_was_deleted(
    path: str, open_engine: OpenEngine
) -> None:
    with LiveEngine(open_engine(), EventStore(path), refresh_seconds=0.05) as live:
        blend = live.engine.blend
        live.forget("u000").result()
        until = time.monotonic() + 20
        while live.engine.blend is blend and time.monotonic() < until:
            time.sleep(0.02)
        assert live.engine.blend is not blend


def test_what_was_taken_is_stored_before_it_stops_and_nothing_after(
    path: str, open_engine: OpenEngine
) -> None:
    live = LiveEngine(open_engine(), EventStore(path))
    live.start()
    taken = [live.submit([one]) for one in events(30)]
    live.close()
    assert all(future.result().accepted == (0,) for future in taken)
    with pytest.raises(StoreError, match="being stopped"):
        live.submit(events(1))
    live.close()
    store = EventStore(path)
    assert store.count() == 30
    store.close()


def test_a_full_queue_refuses_and_what_is_cancelled_there_is_not_stored(path: str) -> None:
    store, enter, leave = EventStore(path), threading.Event(), threading.Event()

    def follow() -> None:
        enter.set()
        leave.wait(10)

    writer = EventWriter(store, follow, lambda user_id: None, max_waiting=2)
    writer.start()
    first = writer.add(events(1))
    enter.wait(10)
    second, third = writer.add(events(1, "u1")), writer.add(events(1, "u2"))
    with pytest.raises(StoreError, match="2 batches wait"):
        writer.add(events(1, "u3"))
    assert second.cancel()
    leave.set()
    writer.close()
    assert first.result().accepted == third.result().accepted == (0,)
    assert [one.user_id for one in store.events_after(0)[0]] == ["u000", "u2"]
    store.close()


def test_sessions_are_opened_safely_beside_writes(path: str, open_engine: OpenEngine) -> None:
    with LiveEngine(open_engine(), EventStore(path), refresh_seconds=0.05) as live:
        errors: list[Exception] = []
        stop = threading.Event()

        def ask() -> None:
            try:
                while not stop.is_set():
                    for user in ("u000", "u001", "u002"):
                        session = live.session(user)
                        assert session.check(session.explain(session.recommend(1)[0].item_id)) == ()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        for number in range(30):
            live.submit(events(40)[number : number + 1]).result()
        stop.set()
        thread.join()
        assert errors == []


def test_an_engine_without_a_log_serves_those_of_its_events(
    saved_engine: tuple[Path, Path], path: str
) -> None:
    folder, _ = saved_engine
    for _ in range(2):
        engine = InterestEngine.from_pretrained(str(folder), model=None)
        with LiveEngine(engine, EventStore(path), refresh_seconds=0.05) as live:
            with pytest.raises(DataError):
                live.session("u001")
            live.submit(events(5)).result()
            assert len(list_of(live, "u000")) == 8
