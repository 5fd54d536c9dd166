"""A real server process: what it acknowledged outlives it, and no client stops the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed.serve_clients import (
    Connection,
    EventSource,
    ServerProcess,
    kill_under_load,
    load,
    name_of,
    stored_events,
)
from llmrec.serve.access import KEY_VARIABLE

ROOT = Path(__file__).parents[2]
Saved = tuple[Path, Path]


def make_server(saved_engine: Saved, database: str, folder: Path, *more: str) -> ServerProcess:
    engine, log = saved_engine
    arguments = [str(engine), "--data", str(log), "--period", "7D", "--no-llm", *more]
    return ServerProcess([*arguments, "--database", database], folder / "server.log")


def make_source(saved_engine: Saved) -> EventSource:
    events = pd.read_parquet(saved_engine[1])
    users, items = sorted(events["user_id"].unique()), sorted(events["item_id"].unique())
    return EventSource(users, items, np.datetime64("2020-03-01", "s"))


@pytest.fixture(scope="module")
def server(
    saved_engine: Saved, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    limits = ("--request-seconds", "1.5", "--max-body-mb", "0.1")
    started = make_server(saved_engine, str(folder / "events.db"), folder, *limits)
    started.start()
    yield started
    started.stop()


def check_kills(saved_engine: Saved, database: str, folder: Path, n_kills: int) -> None:
    server = make_server(saved_engine, database, folder)
    server.start()
    acknowledged = kill_under_load(server, make_source(saved_engine), n_kills=n_kills, seconds=0.5)
    server.stop()
    stored = stored_events(database)
    assert len(acknowledged) > 10 * n_kills
    assert acknowledged - set(stored) == set()
    assert set(stored.values()) == {1}


def test_acknowledged_events_outlive_kills_and_none_is_stored_twice(
    saved_engine: Saved, database: str, tmp_path: Path
) -> None:
    check_kills(saved_engine, database, tmp_path, n_kills=2)


@pytest.mark.slow
def test_acknowledged_events_outlive_thirty_kills(
    saved_engine: Saved, database: str, tmp_path: Path
) -> None:
    check_kills(saved_engine, database, tmp_path, n_kills=30)


def test_a_stop_under_load_stores_what_it_accepted(saved_engine: Saved, tmp_path: Path) -> None:
    database = str(tmp_path / "events.db")
    server, source = make_server(saved_engine, database, tmp_path), make_source(saved_engine)
    server.start()
    acknowledged: set[str] = set()

    def send() -> None:
        connection = Connection(server.port)
        while True:
            event = source.next()
            try:
                status, _ = connection.ask("POST", "/events", {"events": [event]})
            except ConnectionError:
                return
            if status == 202:
                acknowledged.add(name_of(event))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    server.stop()
    for thread in threads:
        thread.join()
    assert acknowledged
    assert acknowledged <= set(stored_events(database))


def test_lists_follow_events_while_many_ask(server: ServerProcess, saved_engine: Saved) -> None:
    users = [f"u{number:03d}" for number in range(20)]
    rates = {"seconds": 3, "lists_per_second": 10, "events_per_second": 5}
    found = load(server.port, make_source(saved_engine), users, n_clients=8, **rates)
    assert set(found.statuses) == {"list 200", "event 202"}
    assert found.stale == 0
    assert len(found.acknowledged) == 15


def raw(server: ServerProcess, sent: bytes, wait: float = 20) -> bytes:
    """Send bytes, and give what comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as opened:
        opened.sendall(sent)
        received = b""
        while part := opened.recv(65_536):
            received += part
            if b"\r\n\r\n" in received and b"100 Continue" not in received:
                return received
        return received


def test_a_client_that_sends_its_body_slowly_gets_408_and_stops_nobody(
    server: ServerProcess,
) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(raw(server, head))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    status, _ = Connection(server.port).ask("GET", "/users/u000/recommendations?reasons=none")
    assert status == 200
    assert time.perf_counter() - began < 1.5
    for thread in threads:
        thread.join()
    assert {answer.split()[1] for answer in answers} == {b"408"}


def test_a_connection_on_which_no_whole_next_head_comes_is_closed(server: ServerProcess) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for sent in (whole + b"GET /heal", b"GET /heal"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as opened:
            opened.sendall(sent)
            while opened.recv(65_536):
                pass  # until the server closes it


@pytest.mark.parametrize("size", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
def test_a_body_of_100_megabytes_is_refused_before_it_is_sent(
    server: ServerProcess, size: bytes
) -> None:
    chunk = b"20000\r\n" + b"x" * 0x20000 if b"chunked" in size else b"x"
    head = b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\n" + size + b"\r\n\r\n"
    answer = raw(server, head + chunk)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def run_serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmrec", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, KEY_VARIABLE: "", **environment},
    )


def test_it_does_not_listen_to_other_machines_without_a_key(saved_engine: Saved) -> None:
    found = run_serve(str(saved_engine[0]), "--host", "0.0.0.0")
    assert found.returncode == 1
    assert "LLMREC_API_KEY is not set" in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_an_address_in_use_is_told_in_a_line(
    server: ServerProcess, saved_engine: Saved, tmp_path: Path
) -> None:
    database = str(tmp_path / "events.db")
    found = run_serve(str(saved_engine[0]), "--port", str(server.port), "--database", database)
    assert found.returncode == 1
    assert "already in use" in found.stderr
    assert "Traceback" not in found.stderr


def test_help_shows_the_options_in_groups_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['llmrec', 'serve', '--help']\n"
        "from llmrec.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'sqlalchemy', 'uvicorn', 'prometheus_client'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "loaded: []" in found.stdout
    for group in ("Where it listens", "Events", "Limits", "How the log is read"):
        assert group in found.stdout


def test_a_missing_extra_is_named_with_the_pip_line() -> None:
    code = (
        "import sys, importlib.util; sys.argv = ['llmrec', 'serve', 'engine']\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'uvicorn' else find(name)\n"
        "from llmrec.cli import main\nmain()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'llmrec[serve]'" in found.stderr
