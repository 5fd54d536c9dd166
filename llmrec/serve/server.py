"""The server process: a socket, uvicorn's limits, and the application."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llmrec.explain.printable import printable
from llmrec.serve.access import Access
from llmrec.serve.app import create_app
from llmrec.serve.live import LiveEngine
from llmrec.serve.pages import PageSources
from llmrec.serve.settings import ServeSettings

KEEP_ALIVE_SECONDS, HEADER_SECONDS = 10, 10
SWITCH_SECONDS = 0.001


class HeadTimeoutProtocol(H11Protocol):
    """Closes a connection on which the whole head of a next request does not come in time."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless that was the rest of a head."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None and not self.transport.is_closing():
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LogFormatter(logging.Formatter):
    """Writes a record's message as one line, and nothing that a terminal would act on."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the lines of a record; more than one for an error's place in the code alone."""
        return printable(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Give the first line: a line break in a message begins no other record."""
        return " ".join(super().formatMessage(record).splitlines())


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"()": LogFormatter, "fmt": "%(levelname)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "propagate": False},
        "llmrec": {"handlers": ["stderr"], "propagate": False},
    },
}


def bind(host: str, port: int) -> socket.socket:
    """Give a socket that is bound, so that an address in use is told before the engine is loaded.

    Raises
    ------
    OSError
        If nobody can listen there.
    """
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise OSError(f"{host}:{port}: {error.strerror}. Give another --port.") from error
    return opened


def serve(
    live: LiveEngine,
    settings: ServeSettings,
    access: Access,
    opened: socket.socket,
    log_level: str = "warning",
    show_ready: Callable[[str], None] | None = None,
    sources: PageSources | None = None,
) -> None:
    """Answer requests until the process is told to stop (SIGINT or SIGTERM).

    Then nothing new is taken, requests under way are answered, and what was accepted is stored.

    Parameters
    ----------
    opened
        What `bind` gave.
    show_ready
        Is given the address when the server listens.
    sources
        What the pages show beside the engine.
    """
    # Answers are computed in threads of this interpreter: its loop is to get its turn in time.
    sys.setswitchinterval(SWITCH_SECONDS)
    config = uvicorn.Config(
        create_app(live, settings, access, sources),
        http=HeadTimeoutProtocol,
        log_level=log_level,
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    if show_ready is not None:
        host, port = opened.getsockname()[:2]
        show_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    uvicorn.Server(config).run(sockets=[opened])
