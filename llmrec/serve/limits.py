"""What keeps one client from the others' share: sizes, times, and work that may wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_AFTER = {"Retry-After": "1"}
_T = TypeVar("_T")


class WorkerPool:
    """Runs what takes time in a few threads, and refuses what would wait too long.

    Parameters
    ----------
    threads, max_waiting
        As in `ServeSettings`.
    seconds
        Until `run` gives up.
    """

    def __init__(self, threads: int, max_waiting: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(threads, "llmrec answers")
        self._room = threading.BoundedSemaphore(threads + max_waiting)
        self._seconds = seconds

    async def run(self, answer: Callable[[], _T]) -> _T:
        """Give what a function returns; HTTPException 503 if too much waits, 504 if it is late."""
        if not self._room.acquire(blocking=False):
            raise HTTPException(503, "too many requests wait: ask again later", RETRY_AFTER)
        future = self._pool.submit(answer)
        future.add_done_callback(lambda done: self._room.release())
        return await self.wait_for(future)

    async def wait_for(self, future: Future[_T]) -> _T:
        """Give the result of a future; HTTPException 504 if it is late. What waits is dropped."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            text = f"no answer within {self._seconds:g} seconds: ask again later"
            raise HTTPException(504, text, RETRY_AFTER) from None

    def close(self) -> None:
        """Wait for what runs, and drop what has not begun."""
        self._pool.shutdown(cancel_futures=True)


class BodyMiddleware:
    """Reads the bodies of requests: whole, not too large, and not too slow.

    A body without a length, sent in chunks, is read no further than the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or answer it with 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            length = int(Headers(scope=scope).get("content-length", 0))
            async with asyncio.timeout(self._seconds):
                body = None if length > self._max_bytes else await self._read(receive)
        except TimeoutError:
            text = f"the body was not whole after {self._seconds:g} seconds"
            await _refuse(408, text)(scope, receive, send)
            return
        if body is None:
            text = f"the body is larger than {self._max_bytes:,} bytes: send it in parts"
            await _refuse(413, text)(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive_body() -> Message:
            return next(messages, None) or await receive()

        await self._app(scope, receive_body, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Read a body; None if it is too large."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _refuse(status: int, text: str) -> JSONResponse:
    # What of the body is still under way would be read as the next request.
    return JSONResponse({"detail": text}, status, {"Connection": "close"})
