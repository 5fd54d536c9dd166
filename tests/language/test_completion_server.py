from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Event

import pytest

from llmrec.errors import DataError
from llmrec.language import completion_server
from llmrec.language.completion import MAX_ANSWER_BYTES, Completion
from llmrec.language.completion_server import (
    KEY_VARIABLE,
    MAX_FAILURES,
    N_CONNECTIONS,
    CompletionServer,
)
from llmrec.language.grammar import claims_grammar
from tests.completions import completion, completions_endpoint

GRAMMAR = claims_grammar([["Drama is rising", "Drama set to grow"], ["War is fading"]])


def complete_one(url: str, timeout: float = 10.0) -> Completion:
    (found,) = CompletionServer(url, timeout=timeout).complete(["So far:"], [GRAMMAR])
    return found


def test_lines_come_in_the_order_of_their_prompts_whichever_is_done_first() -> None:
    def answer(body: dict[str, str]) -> tuple[int, bytes]:
        time.sleep(0.02 * (4 - int(body["prompt"]) % 5))
        return 200, completion(f" line {body['prompt']}\nand another")

    prompts = [str(number) for number in range(15)]
    with completions_endpoint(answer) as endpoint:
        found = CompletionServer(endpoint.url).complete(prompts, [GRAMMAR] * 15)
    assert [one.text for one in found] == [f"line {prompt}" for prompt in prompts]


def test_the_likeliest_text_is_asked_for_with_the_models_name_if_it_has_one() -> None:
    with completions_endpoint(lambda _: (200, completion("x"))) as endpoint:
        CompletionServer(f"{endpoint.url}/", "small").complete(["So far:"], [GRAMMAR])
        complete_one(endpoint.url)
    named, plain = endpoint.requests
    assert (named["model"], named["prompt"], named["path"]) == (
        *("small", "So far:"),
        "/v1/completions",
    )
    assert (named["temperature"], named["seed"], named["stop"]) == (0, 0, ["\n"])
    assert named["grammar"].startswith("root ::= WORDS\n")
    assert "model" not in plain


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (500, b"", "HTTP 500"),
        (404, b"secret", "HTTP 404"),
        (302, b"", "HTTP 302"),
        (200, b"<html>", "not JSON"),
        (200, b"\xff\xfe", "not JSON"),
        (200, b"[" * 100_000, "not JSON"),
        (200, b"{}", "no completion"),
        (200, b'{"choices": []}', "no completion"),
        (200, b'["choices"]', "no completion"),
        (200, completion(None), "no completion"),
        (200, completion(" \n"), "empty"),
        (200, completion("Drama is rising, " * 1_000), "too long"),
        (200, completion("x" * 10 * MAX_ANSWER_BYTES), "too long"),
    ],
)
def test_an_answer_without_a_line_says_what_it_is(status: int, body: bytes, failure: str) -> None:
    with completions_endpoint(lambda _: (status, body)) as endpoint:
        assert complete_one(endpoint.url) == Completion(failure=failure)
    assert {one["path"] for one in endpoint.requests} == {"/v1/completions"}


def test_a_server_that_hangs_or_hangs_up_or_is_not_there_gives_no_line() -> None:
    done = Event()

    def hang(_: object) -> tuple[int, bytes]:
        done.wait(5)
        return 200, completion("late")

    def hang_up(_: object) -> tuple[int, bytes]:
        raise ConnectionError

    with completions_endpoint(hang) as endpoint:
        assert complete_one(endpoint.url, timeout=0.1).failure == "timed out"
        done.set()
    assert complete_one(endpoint.url).failure == "no connection"
    with completions_endpoint(hang_up) as endpoint:
        assert complete_one(endpoint.url).failure == "no connection"


def test_an_answer_that_never_ends_is_read_until_the_deadline_only() -> None:
    class Dripping:
        def read1(self, _: int) -> bytes:
            time.sleep(0.01)
            return b" "

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        completion_server._read_answer(Dripping(), started + 0.1)  # type: ignore[arg-type]
    assert time.monotonic() - started < 1


def test_after_three_failures_in_a_row_a_server_is_not_asked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = 500
    with completions_endpoint(lambda _: (status, completion("x"))) as endpoint:
        server = CompletionServer(endpoint.url)
        found = server.complete(["So far:"] * 200, [GRAMMAR] * 200)
        n_asked = len(endpoint.requests)
        assert MAX_FAILURES <= n_asked < MAX_FAILURES + N_CONNECTIONS
        assert [one.failure for one in found].count("HTTP 500") == n_asked
        assert found[-1].failure == "not asked after 3 failures in a row"
        status = 200
        assert server.complete(["So far:"], [GRAMMAR]) == [found[-1]]
        later = time.monotonic() + completion_server.PAUSE_SECONDS
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert server.complete(["So far:"], [GRAMMAR]) == [Completion("x")]


def test_a_server_that_takes_no_grammar_is_asked_without() -> None:
    def answer(body: dict[str, str]) -> tuple[int, bytes]:
        return (400, b"unknown field") if "grammar" in body else (200, completion("x"))

    with completions_endpoint(answer) as endpoint:
        server = CompletionServer(endpoint.url)
        for _ in range(3):
            assert server.complete(["So far:"], [GRAMMAR]) == [Completion("x")]
    assert ["grammar" in body for body in endpoint.requests] == [True, False, False, False]


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k-1234")
    with completions_endpoint(lambda _: (401, b"no such key: k-1234")) as endpoint:
        server = CompletionServer(endpoint.url)
        found = server.complete(["So far:"], [GRAMMAR])
    assert endpoint.headers[0]["Authorization"] == "Bearer k-1234"
    assert "k-1234" not in json.dumps(endpoint.requests)
    assert "k-1234" not in f"{found} {vars(server)} {vars(server._opener)}"
    monkeypatch.setenv(KEY_VARIABLE, "k-1234\nHost: elsewhere")
    with pytest.raises(DataError, match="LLMREC_WRITER_KEY") as error:
        CompletionServer(endpoint.url)
    assert "k-1234" not in str(error.value)
    monkeypatch.delenv(KEY_VARIABLE)
    with completions_endpoint(lambda _: (200, completion("x"))) as endpoint:
        complete_one(endpoint.url)
    assert "Authorization" not in endpoint.headers[0]


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8080/v1", "file:///etc/passwd", "ftp://host/v1", "http:///v1", "http://[/v1"),
        *("http://host:port/v1", "http://me:k-1234@host/v1", "http://host/v1?key=k-1234", ""),
    ],
)
def test_what_is_no_url_of_a_server_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(DataError, match="http://localhost:8080/v1") as error:
        CompletionServer(url)
    assert "k-1234" not in str(error.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_time_out_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(DataError, match="timeout"):
        CompletionServer("http://localhost:8080/v1", timeout=timeout)
