"""A server with OpenAI's completions endpoint: lines after prompts, or why there is none."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from llmrec.errors import DataError
from llmrec.language.completion import MAX_ANSWER_BYTES, Completion, read_completion
from llmrec.language.grammar import to_gbnf

KEY_VARIABLE = "LLMREC_WRITER_KEY"
MAX_NEW_TOKENS = 128
N_CONNECTIONS = 4
MAX_FAILURES = 3  # in a row; then the server is not asked for a while
PAUSE_SECONDS = 300.0
REFUSED_REQUEST = ("HTTP 400", "HTTP 422")  # of servers that take no unknown field


class CompletionServer:
    """A server that continues plain prompts at ``URL/completions``, as OpenAI's and llama.cpp's do.

    It is asked for the likeliest text, under the grammar in llama.cpp's dialect; a server that
    refuses the grammar is asked without. Nothing is tried twice: whatever goes wrong is the
    `Completion`'s failure. After `MAX_FAILURES` in a row it is not asked for `PAUSE_SECONDS`. The
    key is that of the environment variable LLMREC_WRITER_KEY, if it is set; it is not kept.

    Parameters
    ----------
    url
        Where the endpoints begin, "http://localhost:8080/v1".
    model
        Its name at the server; "": the server's only one.
    timeout
        Seconds (> 0) for one answer.

    Raises
    ------
    DataError
        If the URL, the time-out or the key cannot be used.
    """

    def __init__(self, url: str, model: str = "", *, timeout: float = 60.0) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise DataError(f"timeout is {timeout!r}; it should be a number of seconds above 0")
        self.url, self.model, self.timeout = _checked_url(url), model, timeout
        _headers()
        self._opener = build_opener(_NoRedirect)
        self._takes_grammar = True
        self._lock = threading.Lock()
        self._n_failures, self._paused_until = 0, -math.inf

    def complete(self, prompts: Sequence[str], grammars: Sequence[str]) -> list[Completion]:
        """Give the line after each prompt, `N_CONNECTIONS` at a time.

        Parameters
        ----------
        prompts, grammars
            (n_prompts,) texts, and grammars of grammar.py, which the server may not keep to.
        """
        with ThreadPoolExecutor(N_CONNECTIONS) as pool:
            return list(pool.map(self._complete, prompts, grammars))

    def _complete(self, prompt: str, grammar: str) -> Completion:
        with self._lock:
            if time.monotonic() < self._paused_until:
                return Completion(failure=f"not asked after {MAX_FAILURES} failures in a row")
        found = self._ask(prompt, to_gbnf(grammar))
        with self._lock:
            self._n_failures = self._n_failures + 1 if found.failure else 0
            if self._n_failures >= MAX_FAILURES:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
        return found

    def _ask(self, prompt: str, grammar: str) -> Completion:
        values: dict[str, Any] = {"model": self.model} if self.model else {}
        values |= {"prompt": prompt, "max_tokens": MAX_NEW_TOKENS, "stop": ["\n"]}
        values |= {"temperature": 0, "seed": 0}
        if self._takes_grammar:
            found = self._post(values | {"grammar": grammar})
            if found.failure not in REFUSED_REQUEST:
                return found
        found = self._post(values)
        if not found.failure:
            self._takes_grammar = False
        return found

    def _post(self, values: dict[str, Any]) -> Completion:
        body, deadline = json.dumps(values).encode(), time.monotonic() + self.timeout
        request = Request(f"{self.url}/completions", body, _headers())
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return read_completion(_read_answer(response, deadline))
        except HTTPError as error:
            # What the server says about it is not shown: it may repeat the key.
            error.close()
            return Completion(failure=f"HTTP {error.code}")
        except (OSError, HTTPException, ValueError) as error:
            timed_out = isinstance(getattr(error, "reason", error), TimeoutError)
            return Completion(failure="timed out" if timed_out else "no connection")


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirection an error: another host is to get neither prompts nor the key."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read_answer(response: HTTPResponse, deadline: float) -> bytes:
    """Read one byte beyond `MAX_ANSWER_BYTES` at most; TimeoutError after the deadline."""
    found = b""
    while len(found) <= MAX_ANSWER_BYTES:
        if time.monotonic() > deadline:  # the socket's own time-out begins anew with each piece
            raise TimeoutError
        piece = response.read1(MAX_ANSWER_BYTES + 1 - len(found))
        if not piece:
            break
        found += piece
    return found


def _headers() -> dict[str, str]:
    """Give the headers of a request, with the key if there is one."""
    headers, key = {"Content-Type": "application/json"}, os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise DataError(f"{KEY_VARIABLE} holds a character that no key has: set it again")
    return headers | {"Authorization": f"Bearer {key}"} if key else headers


def _checked_url(url: str) -> str:
    """Give a URL without the slash at its end; DataError if it is of no server's endpoints."""
    way_out = f"give one such as http://localhost:8080/v1, and a key in {KEY_VARIABLE}"
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("http", "https") or not (url.isascii()):
        raise DataError(f"the writer's URL is not one of a server: {way_out}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise DataError(f"the writer's URL holds a password, '?' or '#': {way_out}")
    return url.rstrip("/")
