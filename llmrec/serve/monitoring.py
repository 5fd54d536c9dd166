"""What /metrics tells."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmrec.serve.live import LiveEngine
from llmrec.serve.schemas import EventsReport

LATENCY_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
UNKNOWN_ROUTE = "none"
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")  # others would be series without end


class ServerMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, live: LiveEngine) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        names = ("method", "route", "status")
        self.requests = Counter("llmrec_requests", "Requests answered.", names, registry=registry)
        self.seconds = Histogram(
            "llmrec_request_seconds",
            "Time from a request to the end of its answer.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.events = Counter(
            "llmrec_events", "Events sent, by what became of them.", ("outcome",), registry=registry
        )
        gauges = {
            "llmrec_batches_waiting": ("Batches that wait to be stored.", lambda: live.n_waiting),
            "llmrec_events_not_applied": (
                "Events that are stored and that the engine did not take.",
                lambda: live.n_not_applied,
            ),
            "llmrec_refresh_seconds": (
                "How long the last refresh took.",
                lambda: live.last_refresh_seconds,
            ),
            "llmrec_prompt_bytes": (
                "Memory of what the language model has read of people.",
                lambda: live.prompt_bytes,
            ),
        }
        for name, (about, read) in gauges.items():
            Gauge(name, about, registry=registry).set_function(read)

    def count_events(self, report: EventsReport) -> None:
        """Count what became of the events of a request."""
        counts = (report.accepted, report.duplicates, len(report.rejected))
        for outcome, count in zip(("accepted", "duplicate", "rejected"), counts, strict=True):
            self.events.labels(outcome).inc(count)


class MetricsMiddleware:
    """Counts and times requests by route, not by path: ids of people are no names of series."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            is_known = route != UNKNOWN_ROUTE and scope["method"] in METHODS
            method = scope["method"] if is_known else "any"
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - began)
