"""The events that a server has accepted, in SQLite or PostgreSQL.

Of people who were deleted it remembers salted hashes of their ids, and when it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from llmrec.errors import DataError, StoreError
from llmrec.serve.forgotten_people import (
    FORGOTTEN,
    META,
    blocks,
    find_forgotten,
    hash_earlier_ids,
    hash_new_id,
)

SCHEMA_VERSION = 1
ROWS_PER_READ = 10_000
_CONNECT_SECONDS, _STATEMENT_SECONDS = 3, 20
_VERSIONS = sa.Table("llmrec_schema", META, sa.Column("version", sa.Integer, primary_key=True))
_EVENTS = sa.Table(
    "llmrec_events",
    META,
    sa.Column(
        "seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True
    ),
    sa.Column("key", sa.Text, nullable=False, unique=True),  # what makes an event the same again
    sa.Column("user_id", sa.Text, nullable=False, index=True),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),  # milliseconds since 1970, UTC
    sa.Column("title", sa.Text),
    sa.Column("categories", sa.JSON(none_as_null=True)),
    sqlite_autoincrement=True,  # a number that was deleted is not given again
)


@dataclass(frozen=True)
class StoredEvent:
    """Somebody took an item at a time.

    Attributes
    ----------
    time
        Milliseconds since 1970, UTC.
    event_id
        What its sender calls it; None: it is the same as any of this person, item and time.
    title, categories
        Of an item that is new; None where it is known.
    """

    user_id: str
    item_id: str
    time: int
    event_id: str | None = None
    title: str | None = None
    categories: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """A text that only the same event has."""
        if self.event_id is not None:
            return f"id {self.event_id}"
        return f"at {self.time} {len(self.user_id)} {self.user_id} {self.item_id}"

    @property
    def contents(self) -> tuple[str, str, int]:
        """What two events of one id must agree in."""
        return self.user_id, self.item_id, self.time


@dataclass(frozen=True)
class Added:
    """What became of a batch: the places of its events, each in one of these.

    Attributes
    ----------
    accepted, duplicates
        Stored now, or before; an event that the batch has twice is a duplicate the second time.
    forgotten
        Of people who were deleted later than that: they are not stored.
    conflicts
        With an event id that is stored with other contents: if any, nothing of the batch is stored.
    """

    accepted: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()
    conflicts: tuple[int, ...] = ()


class EventStore:
    """Stores events, each once; what a method has stored when it returns is on the disk.

    It is for one server: the events of another that writes to the same database come into a live
    engine later, with the next ones of its own.

    Parameters
    ----------
    url
        A path for SQLite, or an address such as ``postgresql+psycopg://user@host/name``.

    Raises
    ------
    DataError
        If the database is not one of events, or of a later version.
    StoreError
        If it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url if "://" in url else f"sqlite:///{url}")
        if self._url.drivername == "postgresql":
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        if not self.is_sqlite and self._url.get_backend_name() != "postgresql":
            raise DataError(
                f"{self._url.get_backend_name()} is not supported: give a path, which SQLite "
                "writes, or postgresql+psycopg://..."
            )
        self._engine = sa.create_engine(self._url, **self._options())
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._insert: Any = sqlite.insert if self.is_sqlite else postgresql.insert
        self._open()

    @property
    def name(self) -> str:
        """Where it is, without a password, which may be among the options, too."""
        return self._url.set(query={}).render_as_string(hide_password=True)

    def add(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Added]:
        """Store several batches in one transaction, and say what became of each.

        Raises
        ------
        StoreError
            If the database does not answer. Whether the events are stored is not known then: they
            are to be sent again, which stores each once.
        """
        with self._transaction() as connection:
            everything = [event for batch in batches for event in batch]
            known = self._find(connection, everything)
            forgotten = find_forgotten(connection, {event.user_id for event in everything})
            added, rows = [], []
            for batch in batches:
                found, new = _sort_out(batch, known, forgotten)
                added.append(found)
                known |= new
                rows += [batch[place] for place in found.accepted]
            if rows:
                connection.execute(sa.insert(_EVENTS), [_row(event) for event in rows])
        return added

    def forget(self, user_id: str) -> int:
        """Delete a person's events for good, and remember to do without them; gives their number.

        Events of the same id that are later than now, and than all of these, are of somebody new.
        """
        own = _EVENTS.c.user_id == user_id
        with self._transaction() as connection:
            newest = connection.scalar(sa.select(sa.func.max(_EVENTS.c.time)).where(own))
            deleted = connection.execute(sa.delete(_EVENTS).where(own))
            hashed = hash_new_id(connection, user_id)
            row = {"user_id": hashed, "time": max(int(time.time() * 1000), newest or 0)}
            new = self._insert(FORGOTTEN).values(row)
            connection.execute(new.on_conflict_do_update(index_elements=["user_id"], set_=row))
            count = deleted.rowcount
        if self.is_sqlite:  # what was deleted is in the write-ahead log, too
            with self._connection() as connection:
                connection.commit()
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def has_person(self, user_id: str) -> bool:
        """Whether there are events of a person."""
        wanted = sa.select(_EVENTS.c.seq).where(_EVENTS.c.user_id == user_id).limit(1)
        with self._connection() as connection:
            return connection.scalar(wanted) is not None

    def forgotten(self, user_ids: Iterable[str]) -> list[str]:
        """List those of some people who were deleted."""
        with self._connection() as connection:
            return list(find_forgotten(connection, set(user_ids)))

    def events_after(self, seq: int) -> tuple[list[StoredEvent], int]:
        """Give the next events after a number, 10,000 at most, and the number of the last one."""
        columns = _EVENTS.c
        wanted = sa.select(_EVENTS).where(columns.seq > seq).order_by(columns.seq)
        with self._connection() as connection:
            rows = connection.execute(wanted.limit(ROWS_PER_READ)).all()
        return [_event(row) for row in rows], rows[-1].seq if rows else seq

    def count(self, user_id: str | None = None) -> int:
        """Count the events, of one person or of all."""
        wanted = sa.select(sa.func.count()).select_from(_EVENTS)
        if user_id is not None:
            wanted = wanted.where(_EVENTS.c.user_id == user_id)
        with self._connection() as connection:
            return connection.scalar(wanted) or 0

    def ping(self) -> None:
        """Raise StoreError if the database does not answer."""
        with self._connection() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _options(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"connect_args": {"timeout": _STATEMENT_SECONDS}}
        options = f"-c statement_timeout={1000 * _STATEMENT_SECONDS} -c synchronous_commit=on"
        seconds = {"connect_timeout": _CONNECT_SECONDS, "tcp_user_timeout": 1000 * _CONNECT_SECONDS}
        return {"pool_pre_ping": True, "connect_args": {"options": options, **seconds}}

    def _open(self) -> None:
        """Make the tables in an empty database; refuse those of somebody else."""
        with self._transaction() as connection:
            tables = sa.inspect(connection).get_table_names()
            if not tables:
                META.create_all(connection)
                connection.execute(self._insert(_VERSIONS).values(version=SCHEMA_VERSION))
            elif _VERSIONS.name not in tables:
                raise DataError(
                    f"{self.name} holds table {sorted(tables)[0]!r} and no events of `llmrec "
                    "serve`: give an empty database, or a new path"
                )
            version = connection.scalar(sa.select(_VERSIONS.c.version))
            if version == SCHEMA_VERSION:
                hash_earlier_ids(connection)
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{self.name} is of version {version} of the tables, and this llmrec knows "
                f"{SCHEMA_VERSION}: update llmrec, or give a new path"
            )

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Give a connection; errors of the database are named."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            cause = str(getattr(error, "orig", error)).strip().partition("\n")[0]
            if "not a database" in cause:
                raise DataError(f"{self.name} is no SQLite database: give a new path") from error
            raise StoreError(f"{self.name}: {cause}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._connection() as connection, connection.begin():
            yield connection

    def _find(
        self, connection: sa.Connection, events: Sequence[StoredEvent]
    ) -> dict[str, tuple[str, str, int]]:
        """Give the stored contents of those of the events whose key is stored."""
        columns, found = _EVENTS.c, dict[str, tuple[str, str, int]]()
        wanted = sa.select(columns.key, columns.user_id, columns.item_id, columns.time)
        for block in blocks({event.key for event in events}):
            for row in connection.execute(wanted.where(columns.key.in_(block))):
                found[row.key] = (row.user_id, row.item_id, row.time)
        return found


def _sort_out(
    batch: Sequence[StoredEvent],
    known: dict[str, tuple[str, str, int]],
    forgotten: dict[str, int],
) -> tuple[Added, dict[str, tuple[str, str, int]]]:
    """Say what becomes of a batch, and give the keys and contents of what is new in it."""
    new: dict[str, tuple[str, str, int]] = {}
    places: dict[str, list[int]] = {name: [] for name in Added.__dataclass_fields__}
    for place, event in enumerate(batch):
        stored = known.get(event.key) or new.get(event.key)
        if stored is not None:
            name = "duplicates" if stored == event.contents else "conflicts"
        elif event.time <= forgotten.get(event.user_id, -1):
            name = "forgotten"
        else:
            name, new[event.key] = "accepted", event.contents
        places[name].append(place)
    if places["conflicts"]:
        return Added(conflicts=tuple(places["conflicts"])), {}
    return Added(**{name: tuple(found) for name, found in places.items()}), new


def _row(event: StoredEvent) -> dict[str, Any]:
    return {
        "key": event.key,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "time": event.time,
        "title": event.title,
        "categories": None if event.categories is None else list(event.categories),
    }


def _event(row: Any) -> StoredEvent:
    event_id = row.key.removeprefix("id ") if row.key.startswith("id ") else None
    categories = None if row.categories is None else tuple(row.categories)
    return StoredEvent(row.user_id, row.item_id, row.time, event_id, row.title, categories)


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Make each commit last through a loss of power, and what is deleted unreadable."""
    connection.isolation_level = None  # or Python's module would make tables out of transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
