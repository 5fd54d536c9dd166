"""Sessions of the people who were asked about last."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from llmrec.session import UserSession
from llmrec.types import RepeatPolicy

MAX_SESSIONS, MAX_SECONDS = 64, 30.0
_Key = tuple[str, RepeatPolicy | None, bool]


class SessionCache:
    """Keeps the last sessions for half a minute, and until their people take something."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[_Key, tuple[float, UserSession]] = OrderedDict()
        self._n_changes = 0

    def get(self, key: _Key, open_session: Callable[[], UserSession]) -> UserSession:
        """Give the session of a person, rule for repeats, and whether with words; or open one."""
        now = time.monotonic()
        with self._lock:
            at, session = self._found.get(key, (now, None))
            if session is not None and now < at + MAX_SECONDS:
                self._found.move_to_end(key)
                return session
            n_changes = self._n_changes
        session = open_session()
        with self._lock:
            if n_changes == self._n_changes:  # else it may be of the state before
                self._found[key] = (now, session)
                self._found.move_to_end(key)
                while len(self._found) > MAX_SESSIONS:
                    self._found.popitem(last=False)
        return session

    def drop(self, users: Collection[str] | None = None) -> None:
        """Drop the sessions of some people, by id; None: of all."""
        with self._lock:
            self._n_changes += 1
            for key in [key for key in self._found if users is None or key[0] in users]:
                del self._found[key]
