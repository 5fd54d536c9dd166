"""Descriptions by llama.cpp's own server on the embedded weights, over HTTP."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from llmrec import InterestEngine
from llmrec.data.embedded import gguf_file
from llmrec.explain.describe import check_description
from tests.real_parts import needs_real_parts

LLAMA_SERVER = shutil.which("llama-server")
pytestmark = [
    pytest.mark.slow,
    needs_real_parts,
    pytest.mark.skipif(LLAMA_SERVER is None, reason="llama-server of llama.cpp is not on the PATH"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the server on a free port, and stop it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", port, "-c", 8192, "-np", 4, "-t", 1]
    assert LLAMA_SERVER is not None
    command = [LLAMA_SERVER, "-m", gguf_file("smollm2-135m"), *options]
    log: Path = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as file:
        server = subprocess.Popen([str(part) for part in command], stdout=file, stderr=file)
        try:
            wait_until_healthy(server, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text(errors="replace")[-2_000:]
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text(errors="replace")[-2_000:])


def test_a_real_server_keeps_to_the_grammar_and_its_words_pass_the_checks(url: str) -> None:
    engine = InterestEngine.from_pretrained(data="ml-100k", model=None, writer=url)
    people = engine.histories(list(range(0, 943, 80)))
    forecasts = engine.forecast_many(people)
    assert engine.writer is not None
    print(engine.writer.summary())
    counts = engine.writer.counts
    assert set(counts) <= {"by the server", "with nothing to say"}
    assert counts["by the server"] >= len(people) / 2
    plain = InterestEngine.from_pretrained(data="ml-100k", model=None).forecast_many(people)
    for history, one, rule in zip(people, forecasts, plain, strict=True):
        assert check_description(history, one) is None
        assert one.source.rejected == 0
        assert (one.category_weights == rule.category_weights).all()
    assert [one.description for one in forecasts] != [one.description for one in plain]
