"""LiveEngine: an engine that follows its events while it is asked."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pandas as pd

from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.engine import InterestEngine
from llmrec.errors import LlmrecError
from llmrec.ranking.edits import Edit
from llmrec.serve.sessions import SessionCache
from llmrec.serve.store import Added, EventStore, StoredEvent
from llmrec.serve.writer import EventWriter
from llmrec.session import UserSession
from llmrec.types import RepeatPolicy

LOGGER = logging.getLogger(__name__)


class LiveEngine:
    """An engine, the store of the events that it was sent, and the one thread that writes both.

    An engine that is asked is never changed: events make another one of it, which then takes its
    place, so that a session answers from one state from beginning to end.

    Usage::

        with LiveEngine(engine, EventStore("events.db")) as live:
            live.submit([StoredEvent("u1", "i1", 1_700_000_000_000)]).result()
            live.session("u1").recommend(10)

    Parameters
    ----------
    engine
        As it was fitted; it stays as it is.
    store
        Its events are appended when the live engine is started.
    refresh_seconds
        How often `InterestEngine.refresh` is called, if there are new events; 0: never.
    max_waiting
        Batches that may wait to be stored.
    """

    def __init__(
        self,
        engine: InterestEngine,
        store: EventStore,
        *,
        refresh_seconds: float = 60.0,
        max_waiting: int = 256,
    ) -> None:
        self.store, self.refresh_seconds = store, refresh_seconds
        self.last_refresh_seconds = 0.0
        self.n_not_applied = 0
        self._engine, self._last_seq = engine, 0
        self._n_since_refresh = 0
        self._swapping = threading.Lock()
        self._sessions = SessionCache()
        self._writer = EventWriter(store, self._follow, self._forget, max_waiting)
        self._stopping = threading.Event()
        self._refresher = threading.Thread(target=self._refresh_often, name="refresh", daemon=True)

    def __enter__(self) -> LiveEngine:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    @property
    def engine(self) -> InterestEngine:
        """The engine as of now; it does not change, later events make another one."""
        return self._engine

    @property
    def n_waiting(self) -> int:
        """Number of batches that wait to be stored."""
        return self._writer.n_waiting

    def start(self) -> None:
        """Forget whom the store says to, append its events, and begin to take new ones."""
        for user_id in self.store.forgotten():
            self._forget(user_id)
        self._follow()
        if self._n_since_refresh:
            self.refresh()
        self._writer.start()
        if self.refresh_seconds:
            self._refresher.start()

    def close(self) -> None:
        """Store what has been taken, then stop."""
        self._stopping.set()
        self._writer.close()
        if self._refresher.is_alive():
            self._refresher.join()
        self.store.close()

    def submit(self, events: Sequence[StoredEvent]) -> Future[Added]:
        """Store events, then append them to the engine; the future tells what became of each.

        Its error is a `StoreError` if the database does not answer.

        Raises
        ------
        StoreError
            If too many batches wait already.
        """
        return self._writer.add(events)

    def forget(self, user_id: str) -> Future[int]:
        """Delete a person from the store and the engine; the future gives the events deleted."""
        return self._writer.forget(user_id)

    def session(
        self,
        user_id: str,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> UserSession:
        """Open a session of one person: the parameters and errors are `InterestEngine.session`'s.

        What was scored for a person is used again until they take something, or half a minute long.
        """
        found = self._sessions.get(user_id, repeat, lambda: self._open(user_id, repeat))
        if not edits and strength is None:
            return found
        return found.edit(*edits, strength=strength)

    def refresh(self) -> None:
        """Solve anew what follows from the events; meanwhile the engine is asked as before."""
        began = time.perf_counter()
        with self._swapping:
            engine = copy.copy(self._engine)
            engine.refresh()
            self._engine = engine
            self._n_since_refresh = 0
        self._sessions.drop()
        self.last_refresh_seconds = time.perf_counter() - began

    def _open(self, user_id: str, repeat: RepeatPolicy | None) -> UserSession:
        return self._engine.session(user_id, repeat=repeat)

    def _follow(self) -> None:
        """Append what the store has and the engine has not."""
        while True:
            events, last = self.store.events_after(self._last_seq)
            if not events:
                return
            self._append(events)
            self._last_seq = last

    def _append(self, events: Sequence[StoredEvent]) -> None:
        """Append events; those that the engine refuses are counted, and do not stop the others."""
        try:
            with self._swapping:
                engine = copy.copy(self._engine)
                engine.append(_frame(events))
                self._engine = engine
        except LlmrecError as error:
            if len(events) == 1:
                self.n_not_applied += 1
                LOGGER.warning("an event of the store is not applied: %s", error)
                return
            middle = len(events) // 2
            self._append(events[:middle])
            self._append(events[middle:])
            return
        self._n_since_refresh += len(events)
        self._sessions.drop({event.user_id for event in events})

    def _forget(self, user_id: str) -> None:
        with self._swapping:
            engine = copy.copy(self._engine)
            engine.forget(user_id)
            self._engine = engine
        self._sessions.drop({user_id})

    def _refresh_often(self) -> None:
        while not self._stopping.wait(self.refresh_seconds):
            if self._n_since_refresh:
                try:
                    self.refresh()
                except Exception:  # the next one may do; lists go on from before
                    LOGGER.exception("the refresh failed")


def _frame(events: Sequence[StoredEvent]) -> pd.DataFrame:
    """Give events as a frame; it says of new items alone what they are."""
    frame = pd.DataFrame(
        {
            USER_ID: [event.user_id for event in events],
            ITEM_ID: [event.item_id for event in events],
            TIMESTAMP: np.array([event.time for event in events]).astype("datetime64[ms]"),
        }
    )
    if any(event.categories is not None for event in events):
        frame["title"] = [event.title for event in events]
        frame["categories"] = pd.Series([event.categories for event in events], dtype=object)
    return frame
