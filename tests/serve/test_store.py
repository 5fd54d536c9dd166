"""The store of events keeps its promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from llmrec.errors import DataError, StoreError
from llmrec.serve.forgotten_people import FORGOTTEN
from llmrec.serve.store import Added, EventStore, StoredEvent
from tests.serve.postgres import PostgresServer

EVENT = StoredEvent("u1", "i1", 1_700_000_000_123)
NAMED = replace(EVENT, event_id="order 1", title="Käse <b>", categories=("Food", "Cheese"))


@pytest.fixture
def store(database: str) -> Iterator[EventStore]:
    opened = EventStore(database)
    yield opened
    opened.close()


def events(n: int, user: str = "u1") -> list[StoredEvent]:
    return [StoredEvent(user, f"i{number}", 1_000 + number) for number in range(n)]


def test_events_come_back_as_they_were_in_their_order(store: EventStore) -> None:
    sent = [NAMED, *events(3), replace(EVENT, user_id="ü\N{SNOWMAN}'\"; DROP TABLE x")]
    assert store.add([sent]) == [Added(accepted=(0, 1, 2, 3, 4))]
    found, last = store.events_after(0)
    assert found == sent
    assert store.events_after(last) == ([], last)


def test_an_event_is_stored_once_whoever_sends_it_again(store: EventStore, database: str) -> None:
    assert store.add([[EVENT, NAMED, EVENT], [EVENT]]) == [
        Added(accepted=(0, 1), duplicates=(2,)),
        Added(duplicates=(0,)),
    ]
    again = EventStore(database)
    assert again.add([[NAMED, EVENT]]) == [Added(duplicates=(0, 1))]
    assert again.count() == 2
    again.close()


def test_an_id_with_other_contents_stores_nothing_of_its_batch_alone(store: EventStore) -> None:
    store.add([[NAMED]])
    other = replace(NAMED, item_id="i2")
    assert store.add([[EVENT, other], events(2)]) == [
        Added(conflicts=(1,)),
        Added(accepted=(0, 1)),
    ]
    twice = [replace(EVENT, event_id="new"), replace(EVENT, event_id="new", time=5)]
    assert store.add([twice]) == [Added(conflicts=(1,))]
    assert store.count() == 3


def test_who_is_deleted_stays_deleted_until_they_come_back(store: EventStore) -> None:
    store.add([events(5), events(2, "u2")])
    assert store.forget("u1") == 5
    assert store.forgotten(["u0", "u1", "u2"]) == ["u1"]
    assert store.add([events(1)]) == [Added(forgotten=(0,))]
    later = replace(EVENT, time=int(time.time() * 1000) + 60_000)
    assert store.add([[later]]) == [Added(accepted=(0,))]
    assert {event.user_id for event in store.events_after(0)[0]} == {"u1", "u2"}
    assert store.forget("nobody") == 0


def test_events_ahead_of_the_clock_stay_deleted_too(store: EventStore) -> None:
    ahead = StoredEvent("u", "i", int(time.time() * 1000) + 7_200_000)
    store.add([[ahead]])
    assert store.has_person("u")
    store.forget("u")
    assert not store.has_person("u")
    assert store.add([[ahead]])[0].forgotten == (0,)


def test_ids_that_an_earlier_version_remembered_are_hashed_when_it_is_opened(
    store: EventStore, database: str
) -> None:
    with store._transaction() as connection:
        for user, when in (("old", 5_000), ("older", 4_000)):
            connection.execute(sa.insert(FORGOTTEN).values(user_id=user, time=when))
    again = EventStore(database)
    again.forget("u1")
    assert sorted(again.forgotten(["old", "older", "u1", "u2"])) == ["old", "older", "u1"]
    assert again.add([events(1, "old")]) == [Added(forgotten=(0,))]
    with again._connection() as connection:
        held = list(connection.scalars(sa.select(FORGOTTEN.c.user_id)))
    assert len({one.rpartition("-")[0] for one in held}) == 1
    assert all(one.startswith("salted-") for one in held)
    again.close()


def test_numbers_of_deleted_events_are_not_given_again(store: EventStore) -> None:
    store.add([events(3)])
    _, last = store.events_after(0)
    store.forget("u1")
    store.add([events(1, "u2")])
    assert [event.user_id for event in store.events_after(last)[0]] == ["u2"]


def test_sqlite_has_nothing_left_of_who_was_deleted_in_its_files(tmp_path: Path) -> None:
    store = EventStore(str(tmp_path / "events.db"))
    store.add([events(200, "secretperson"), events(200, "u2")])
    store.forget("secretperson")
    store.close()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"i199" in held
    assert b"secretperson" not in held


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    store = EventStore(str(tmp_path / "events.db"))
    with store._connection() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                 ("journal_mode", "synchronous")]  # fmt: skip
    assert modes == ["wal", 2]
    store.close()


def test_a_database_of_something_else_is_refused_and_stays_as_it_is(database: str) -> None:
    url = database if "://" in database else f"sqlite:///{database}"
    own = sa.create_engine(url)
    with own.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (name TEXT)")
    with pytest.raises(DataError, match="holds table 'customers' and no events"):
        EventStore(database)
    assert sa.inspect(own).get_table_names() == ["customers"]
    own.dispose()


def test_a_later_version_of_the_tables_is_refused(store: EventStore, database: str) -> None:
    with store._transaction() as connection:
        connection.exec_driver_sql("UPDATE llmrec_schema SET version = 7")
    with pytest.raises(DataError, match=r"version 7 .* update llmrec"):
        EventStore(database)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database\n" * 1_000)
    with pytest.raises(DataError, match="is no SQLite database"):
        EventStore(str(path))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("mysql://somebody@127.0.0.1/x", "not supported"),
        ("postgresql://somebody:hidden@127.0.0.1:1/x", "refused"),
        ("/no/such/folder/events.db", "unable to open"),
    ],
)
def test_what_cannot_be_opened_is_told_without_the_password(url: str, error: str) -> None:
    with pytest.raises((DataError, StoreError), match=error) as found:
        EventStore(url)
    assert "hidden" not in str(found.value)


def test_a_locked_file_is_told_and_used_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.serve.store._STATEMENT_SECONDS", 0.1)
    path = tmp_path / "events.db"
    store = EventStore(str(path))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.add([[EVENT]])
        other.execute("ROLLBACK")
    assert store.add([[EVENT]]) == [Added(accepted=(0,))]
    store.close()


def test_a_stopped_postgresql_is_told_and_used_again_later(postgres: PostgresServer) -> None:
    store = EventStore(postgres.new_database("stopped"))
    store.add([[EVENT]])
    postgres.stop()
    try:
        with pytest.raises(StoreError):
            store.add([events(2)])
        with pytest.raises(StoreError):
            store.ping()
    finally:
        postgres.start()
    assert store.add([[EVENT, *events(2)]]) == [Added(accepted=(1, 2), duplicates=(0,))]
    store.close()
