"""A server of `llmrec serve` in a process of its own, and clients that load and kill it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from llmrec.serve.store import EventStore

START_SECONDS = 120.0
_READY = re.compile(r"Serving at (http://\S+);")
Event = dict[str, Any]


class ServerProcess:
    """A server that is started and stopped, or killed, at one address.

    Parameters
    ----------
    arguments
        Of `llmrec serve`; ``--port 0`` is added, and then the port that it got.
    log
        File of what it says.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._arguments, self._log, self.port = list(arguments), log, 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers; RuntimeError with its words if it does not."""
        command = [sys.executable, "-m", "llmrec", "serve", *self._arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stderr=log, stdout=log
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            said = self._log.read_text(errors="replace")
            if found := _READY.search(said):
                self.port = urlsplit(found[1]).port or 0
                if self._is_up():
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {self._log.read_text(errors='replace')}")

    def _is_up(self) -> bool:
        try:
            return Connection(self.port).ask("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop, and give its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def resident_mb(self) -> float:
        """Memory that it holds now."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far, of all its threads."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Connection:
    """Asks a server over one connection that stays open; again over a new one if it broke."""

    def __init__(self, port: int) -> None:
        self._port, self._http = port, http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Give status and answer; OSError if there is none."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            self._http.request(method, path, data, headers)
            answer = self._http.getresponse()
            return answer.status, json.loads(answer.read())
        except (http.client.HTTPException, OSError, ValueError) as error:
            self._http.close()
            raise ConnectionError(str(error)) from error


@dataclass
class LoadFigures:
    """What clients saw."""

    list_seconds: list[float] = field(default_factory=list)
    follow_seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    stale: int = 0  # lists that did not know of an event which was acknowledged before
    acknowledged: set[str] = field(default_factory=set)


class EventSource:
    """Makes events that are all different, each later than the one before.

    Each second one has an id; the others are told apart by person, item and time.
    """

    def __init__(self, users: Sequence[str], items: Sequence[str], start: np.datetime64) -> None:
        self._users, self._items, self._start = users, items, start
        self._numbers = itertools.count()

    def next(self) -> Event:
        """Give the next event."""
        number = next(self._numbers)
        time_of = self._start + np.timedelta64(number, "s")
        event: Event = {
            "user_id": self._users[number * 7919 % len(self._users)],
            "item_id": self._items[number * 104_729 % len(self._items)],
            "time": f"{time_of}Z",
        }
        return event | {"event_id": f"event {number}"} if number % 2 else event


def event_name(user_id: str, item_id: str, milliseconds: int) -> str:
    """Give what tells the events of `EventSource` apart."""
    return f"{user_id} {item_id} {milliseconds // 1000}"


def name_of(event: Event) -> str:
    """Give what tells an event that was sent apart from the others."""
    at = int(np.datetime64(event["time"].removesuffix("Z"), "ms").astype(np.int64))
    return event_name(event["user_id"], event["item_id"], at)


def load(
    port: int,
    source: EventSource,
    users: Sequence[str],
    *,
    seconds: float,
    lists_per_second: float,
    events_per_second: float,
    n_clients: int = 64,
    query: str = "k=10",
    at_times: Callable[[float], None] = lambda elapsed: None,
) -> LoadFigures:
    """Ask for lists, and send events, at steady rates by clients that each wait for their answers.

    A list's time counts from the moment at which it was due: a slow answer delays what comes after
    it on its connection, and that is counted, too. After an event the client asks for the person's
    list; the event's time is until that answer.
    """
    rate, figures, lock = lists_per_second + events_per_second, LoadFigures(), threading.Lock()
    n_total, event_share = int(seconds * rate), events_per_second / rate
    numbers, began = itertools.count(), time.perf_counter() + 0.5

    def run() -> None:
        connection = Connection(port)
        while (number := next(numbers)) < n_total:
            due = began + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            is_event = int((number + 1) * event_share) > int(number * event_share)
            try:
                if is_event:
                    _send_and_follow(connection, source, query, due, figures, lock)
                else:
                    user = users[number * 6_700_417 % len(users)]
                    path = f"/users/{quote(user)}/recommendations?{query}"
                    status, _ = connection.ask("GET", path)
                    with lock:
                        figures.list_seconds.append(time.perf_counter() - due)
                        figures.statuses[f"list {status}"] += 1
            except ConnectionError as error:
                with lock:
                    figures.statuses[f"no answer: {error}"] += 1

    threads = [threading.Thread(target=run) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        at_times(time.perf_counter() - began)
        time.sleep(0.2)
    return figures


def _send_and_follow(
    connection: Connection,
    source: EventSource,
    query: str,
    due: float,
    figures: LoadFigures,
    lock: threading.Lock,
) -> None:
    """Send an event, then ask for the list of its person until it knows of the event."""
    event = source.next()
    status, _ = connection.ask("POST", "/events", {"events": [event]})
    with lock:
        figures.statuses[f"event {status}"] += 1
    if status != 202:
        return
    path = f"/users/{quote(event['user_id'])}/recommendations?{query}"
    status, found = connection.ask("GET", path)
    with lock:
        figures.acknowledged.add(name_of(event))
        figures.statuses[f"list {status}"] += 1
        figures.follow_seconds.append(time.perf_counter() - due)
        figures.stale += status != 200 or found["cutoff"] <= event["time"].removesuffix("Z")


def kill_under_load(
    server: ServerProcess,
    source: EventSource,
    *,
    n_kills: int,
    seconds: float,
    n_clients: int = 4,
    seed: int = 0,
) -> set[str]:
    """Kill a server again and again while events are sent; give the names of the acknowledged ones.

    Clients send a batch again until it is acknowledged, as one does who does not know whether it
    was stored. The server runs before and after.
    """
    acknowledged, lock, stop = set[str](), threading.Lock(), threading.Event()

    def send() -> None:
        connection = Connection(server.port)
        while not stop.is_set():
            batch = [source.next() for _ in range(5)]
            while not stop.is_set():
                try:
                    status, _ = connection.ask("POST", "/events", {"events": batch})
                except ConnectionError:
                    time.sleep(0.01)
                    continue
                if status == 202:
                    with lock:
                        acknowledged.update(map(name_of, batch))
                    break

    threads = [threading.Thread(target=send) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(seed)
    for _ in range(n_kills):
        time.sleep(seconds * (0.5 + rng.random()))
        server.kill()
        server.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return acknowledged


def stored_events(database: str) -> Counter[str]:
    """Count how often each event is stored, by its name."""
    store = EventStore(database)
    found = Counter(event_name(one.user_id, one.item_id, one.time) for one in _all_events(store))
    store.close()
    return found


def _all_events(store: EventStore) -> Iterator[Any]:
    events, last = store.events_after(0)
    while events:
        yield from events
        events, last = store.events_after(last)
