"""A completions endpoint in this process, whose answers a test decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@dataclass
class Endpoint:
    """Where it listens, and what it was asked: bodies and headers."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def completion(text: object) -> bytes:
    """Give an answer of the endpoint with this text."""
    return json.dumps({"choices": [{"text": text}]}).encode()


@contextmanager
def completions_endpoint(answer: Answer) -> Iterator[Endpoint]:
    """Serve ``answer`` on a free port: it gives status and body, or raises to hang up."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.requests.append(body | {"path": self.path})
            endpoint.headers.append(dict(self.headers))
            try:
                status, found = answer(body)
            except ConnectionError:
                return
            self.send_response(status)
            self.send_header("Location", f"{endpoint.url}/elsewhere")
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            self.wfile.write(found)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
