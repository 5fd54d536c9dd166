"""LiveEngine: an engine that follows its events while it is asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pandas as pd

from llmrec.data.ids import find_id, format_id
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.ranking.edits import Edit
from llmrec.serve.sessions import SessionCache
from llmrec.serve.store import Added, EventStore, StoredEvent
from llmrec.serve.writer import EventWriter
from llmrec.session import UserSession
from llmrec.types import RepeatPolicy

LOGGER = logging.getLogger(__name__)


class LiveEngine:
    """An engine, the store of the events that it was sent, and the one thread that writes both.

    Sessions answer from the state in which they were opened; `InterestEngine.append` and `refresh`
    put another one in its place.

    Usage::

        with LiveEngine(engine, EventStore("events.db")) as live:
            live.submit([StoredEvent("u1", "i1", 1_700_000_000_000)]).result()
            live.session("u1").recommend(10)

    Parameters
    ----------
    engine
        Whose log the events continue.
    store
        Its events are appended when the live engine is started.
    refresh_seconds
        How often `InterestEngine.refresh` is called, if there are new events; 0: never.
    max_waiting
        Batches that may wait to be stored.
    prompt_bytes
        Memory for what the language model has read of people, so that it reads on; 0: it reads
        whole prompts.

    Attributes
    ----------
    n_not_applied
        Events that are stored, and that the engine did not take.
    last_refresh_seconds
        How long the last refresh took; 0 before the first.
    """

    def __init__(
        self,
        engine: InterestEngine,
        store: EventStore,
        *,
        refresh_seconds: float = 60.0,
        max_waiting: int = 256,
        prompt_bytes: int = 2**30,
    ) -> None:
        if engine.language is not None and prompt_bytes:
            engine.language.continue_prompts(max_bytes=prompt_bytes)
        self.engine, self.store, self.refresh_seconds = engine, store, refresh_seconds
        self.n_not_applied, self.last_refresh_seconds = 0, 0.0
        self._last_seq = self._n_since_refresh = 0
        self._sessions, self._counting = SessionCache(), threading.Lock()
        self._writer = EventWriter(store, self._follow, self._forget, max_waiting)
        self._stopping = threading.Event()
        self._refresher = threading.Thread(target=self._refresh_often, name="llmrec refresh")

    def __enter__(self) -> LiveEngine:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    @property
    def n_waiting(self) -> int:
        """Number of batches that wait to be stored."""
        return self._writer.n_waiting

    @property
    def prompt_bytes(self) -> int:
        """Memory that the language model's prompts take now."""
        language = self.engine.language
        prefixes = None if language is None else language.model.prefixes
        return 0 if prefixes is None else prefixes.n_bytes

    def start(self) -> None:
        """Forget whom the store says to, append its events, and begin to take new ones.

        Raises
        ------
        StoreError
            If the database does not answer.
        """
        for user_id in self.store.forgotten(self.engine.dataset.log.user_ids):
            self._forget(user_id)
        self._follow()
        if self.refresh_seconds and self._n_since_refresh:
            self._try_refresh()
        self._writer.start()
        if self.refresh_seconds:
            self._refresher.start()

    def close(self) -> None:
        """Store what has been taken, then stop; once closed it stays so."""
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

    def knows(self, user_id: str) -> bool:
        """Whether the engine or the store has events of a person."""
        return self._is_in_engine(format_id(user_id)) or self.store.has_person(user_id)

    def forget(self, user_id: str) -> Future[int]:
        """Delete a person from store and engine; the future gives the number of stored events."""
        return self._writer.forget(user_id)

    def session(
        self,
        user_id: object,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
        words: bool = True,
    ) -> UserSession:
        """Open a session of one person: parameters and errors are `InterestEngine.session`'s.

        What was scored is used again until the person takes something, or for half a minute.
        ``words``: whether the forecast is described, which takes longer than the numbers.
        """
        name, engine = format_id(user_id), self.engine
        if words or repeat is not None:
            key = name, repeat, True
            found = self._sessions.get(key, lambda: engine.session(name, repeat=repeat))
        else:
            key = name, None, False
            found = self._sessions.get(key, lambda: next(engine.sessions([name], words=False))[1])
        return found.edit(*edits, strength=strength) if edits or strength is not None else found

    def refresh(self) -> None:
        """Solve anew what follows from the events; meanwhile the engine is asked as before.

        Raises
        ------
        DataError
            If the engine has no log.
        """
        began, n_events = time.perf_counter(), self._n_since_refresh
        self.engine.refresh()
        self._count_changes(-n_events)
        self._sessions.drop()
        self.last_refresh_seconds = time.perf_counter() - began

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
            report = self.engine.append(_frame(events))
        except Exception as error:  # one that cannot be taken is not to stop those after it
            if len(events) > 1:
                self._append(events[: len(events) // 2])
                self._append(events[len(events) // 2 :])
                return
            self.n_not_applied += 1
            LOGGER.warning("an event of the store is not applied: %s", error)
            return
        self.n_not_applied += len(events) - report.n_accepted - report.n_duplicates
        self._count_changes(report.n_accepted)
        self._sessions.drop({event.user_id for event in events})

    def _forget(self, user_id: str) -> None:
        if self._is_in_engine(user_id):
            self.engine.forget(user_id)
            self._count_changes(1)  # statistics have seen the events until the next refresh
        self._sessions.drop({user_id})

    def _is_in_engine(self, user_id: str) -> bool:
        return find_id(self.engine.dataset.log.user_ids, user_id) >= 0

    def _count_changes(self, n: int) -> None:
        with self._counting:
            self._n_since_refresh += n

    def _refresh_often(self) -> None:
        while not self._stopping.wait(self.refresh_seconds):
            if self._n_since_refresh:
                self._try_refresh()

    def _try_refresh(self) -> None:
        """Refresh; if that fails, lists go on with what was solved before."""
        try:
            self.refresh()
        except DataError as error:
            self._n_since_refresh = 0
            LOGGER.info("no refresh: %s", error)
        except Exception:
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
