"""What the server refuses, with defaults that run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """Limits of the server.

    Attributes
    ----------
    max_body_bytes
        Of a request; a larger one is answered with 413 before it is read to its end.
    max_events
        Of one request.
    max_waiting
        Requests that may wait for a thread, and batches that may wait to be stored; one more is
        answered with 503.
    max_connections
        Open connections, the idle ones included; one more is answered with 503.
    threads
        That forecast and rank. They share one interpreter: more of them make answers later, not
        faster.
    request_seconds
        Until an answer is 504; a body that is not whole by then is 408.
    stop_seconds
        That requests under way get when the server is stopped.
    future_seconds
        How far ahead of the clock an event's time may be.
    """

    max_body_bytes: int = 8 * 2**20
    max_events: int = 10_000
    max_waiting: int = 256
    max_connections: int = 512
    threads: int = 2
    request_seconds: float = 30.0
    stop_seconds: int = 20
    future_seconds: int = 24 * 3600
