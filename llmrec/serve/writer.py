"""The one thread that stores events and has the engine follow them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

from llmrec.errors import StoreError
from llmrec.serve.store import Added, EventStore, StoredEvent

MAX_EVENTS_PER_COMMIT = 10_000
RETRY_SECONDS = 1.0  # until what is stored is brought to the engine again, where that failed
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    events: Sequence[StoredEvent]
    future: Future[Added] = field(default_factory=Future)


@dataclass(frozen=True)
class _Deletion:
    user_id: str
    future: Future[int] = field(default_factory=Future)


class EventWriter:
    """Stores batches in the order in which they come, those that wait together in one commit.

    Parameters
    ----------
    follow
        Is called after each commit, to append what was stored to the engine; and again, a second
        later, while it fails: the database may have stopped in between.
    forget
        Is called with the id of a person who was deleted from the store.
    max_waiting
        Batches that may wait.
    """

    def __init__(
        self,
        store: EventStore,
        follow: Callable[[], None],
        forget: Callable[[str], None],
        max_waiting: int,
    ) -> None:
        self._store, self._follow, self._forget = store, follow, forget
        self._waiting: queue.Queue[_Batch | _Deletion | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="llmrec writer")
        self._closing = threading.Lock()
        self._is_open = self._is_behind = False

    @property
    def n_waiting(self) -> int:
        """Number of batches and deletions that wait."""
        return self._waiting.qsize()

    def start(self) -> None:
        """Begin to store."""
        self._is_open = True
        self._thread.start()

    def close(self) -> None:
        """Store what waits, take nothing more, and stop."""
        with self._closing:
            was_open, self._is_open = self._is_open, False
        if was_open:
            self._waiting.put(None)
            self._thread.join()

    def add(self, events: Sequence[StoredEvent]) -> Future[Added]:
        """Store events; StoreError if too much waits, and in the future if it cannot be stored."""
        batch = _Batch(events)
        self._put(batch)
        return batch.future

    def forget(self, user_id: str) -> Future[int]:
        """Delete a person; errors are those of `add`."""
        deletion = _Deletion(user_id)
        self._put(deletion)
        return deletion.future

    def _put(self, task: _Batch | _Deletion) -> None:
        with self._closing:
            if not self._is_open:
                raise StoreError("the server is being stopped: send it again later")
            try:
                self._waiting.put_nowait(task)
            except queue.Full:
                waiting = f"{self._waiting.maxsize} batches wait to be stored"
                raise StoreError(f"{waiting}: send it again later") from None

    def _run(self) -> None:
        while True:
            for kind, tasks in groupby(self._take(), type):
                if kind is _Batch:
                    self._store_batches(cast(list[_Batch], list(tasks)))
                elif kind is _Deletion:
                    for task in cast(Iterator[_Deletion], tasks):
                        self._delete(task)
                else:
                    return

    def _take(self) -> list[_Batch | _Deletion | None]:
        """Wait for a task, and take those with it that fit into a commit."""
        tasks = [self._wait()]
        n_events = _count(tasks[0])
        while n_events < MAX_EVENTS_PER_COMMIT and tasks[-1] is not None:
            try:
                tasks.append(self._waiting.get_nowait())
            except queue.Empty:
                break
            n_events += _count(tasks[-1])
        # One whose sender has gone away while it waited is not begun.
        return [one for one in tasks if not one or one.future.set_running_or_notify_cancel()]

    def _wait(self) -> _Batch | _Deletion | None:
        """Wait for a task; meanwhile try again what could not be brought to the engine."""
        while True:
            try:
                return self._waiting.get(timeout=RETRY_SECONDS if self._is_behind else None)
            except queue.Empty:
                self._is_behind = not self._apply(self._follow)

    def _store_batches(self, batches: Sequence[_Batch]) -> None:
        try:
            added = self._store.add([batch.events for batch in batches])
        except Exception as error:  # of whatever kind: who sent it must be told
            self._is_behind = True  # whether it is stored is not known
            for batch in batches:
                batch.future.set_exception(error)
            return
        self._is_behind = not self._apply(self._follow)
        for batch, one in zip(batches, added, strict=True):
            batch.future.set_result(one)

    def _delete(self, deletion: _Deletion) -> None:
        try:
            count = self._store.forget(deletion.user_id)
        except Exception as error:
            deletion.future.set_exception(error)
            return
        self._apply(lambda: self._forget(deletion.user_id))
        deletion.future.set_result(count)

    def _apply(self, change: Callable[[], None]) -> bool:
        """Change the engine by what is stored, and say whether that went well.

        What goes wrong here is stored all the same.
        """
        try:
            change()
        except StoreError as error:
            LOGGER.warning("what is stored is not brought to the engine yet: %s", error)
            return False
        except Exception:
            LOGGER.exception("what was stored could not be brought to the engine")
            return False
        return True


def _count(task: _Batch | _Deletion | None) -> int:
    return len(task.events) if isinstance(task, _Batch) else 1
