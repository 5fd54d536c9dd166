"""The HTTP interface of a live engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llmrec.errors import DataError, EditError, StoreError
from llmrec.serve.access import Access, AccessMiddleware
from llmrec.serve.limits import RETRY_AFTER, BodyMiddleware, WorkerPool
from llmrec.serve.live import LiveEngine
from llmrec.serve.monitoring import MetricsMiddleware, ServerMetrics
from llmrec.serve.pages import PageSources, pages_router
from llmrec.serve.responses import detail_response
from llmrec.serve.routes import api_router
from llmrec.serve.settings import ServeSettings

DESCRIPTION = (
    "Events come in, forecasts and lists follow them. People and items are named as the log names "
    "them; an unknown one is 404 with near ones. Errors are one line, `detail`."
)


def create_app(
    live: LiveEngine,
    settings: ServeSettings | None = None,
    access: Access | None = None,
    sources: PageSources | None = None,
) -> FastAPI:
    """Give the application: routes, pages, limits, access and metrics around a live engine.

    The live engine is to be started before; it is closed when the application is. ``sources`` is
    what the pages show beside it.
    """
    settings, access = settings or ServeSettings(), access or Access()
    workers = WorkerPool(settings.threads, settings.max_waiting, settings.request_seconds)
    metrics = ServerMetrics(live)

    @asynccontextmanager
    async def close_at_end(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(workers.close)
        await run_in_threadpool(live.close)

    app = FastAPI(
        title="llmrec",
        description=DESCRIPTION,
        version=version("llmrec"),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=close_at_end,
    )
    app.include_router(api_router(live, settings, workers, metrics))
    app.include_router(pages_router(live, access if access.is_needed else None, sources, workers))
    app.add_exception_handler(RequestValidationError, _tell_validation)
    app.add_exception_handler(StoreError, _tell_unavailable)
    app.add_exception_handler(HTTPException, _tell_refused)
    for kind in (DataError, EditError):
        app.add_exception_handler(kind, _tell_unusable)
    app.add_middleware(BodyMiddleware, settings.max_body_bytes, settings.request_seconds)
    app.add_middleware(AccessMiddleware, access=access)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    return app


def _tell_validation(request: Request, error: Exception) -> JSONResponse:
    """Say the first of what is wrong with a request, and where, in one line."""
    assert isinstance(error, RequestValidationError)
    first, *others = error.errors()
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    more = f" (and {len(others):,} more)" if others else ""
    cause = first.get("ctx", {}).get("error") if first["type"] == "json_invalid" else None
    text = f"{first['msg']}: {cause}" if cause else first["msg"]
    return detail_response(f"{place}: {text}{more}", 422)


def _tell_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return detail_response(str(error.detail), error.status_code, dict(error.headers or {}))


def _tell_unusable(request: Request, error: Exception) -> JSONResponse:
    return detail_response(str(error), 422)


def _tell_unavailable(request: Request, error: Exception) -> JSONResponse:
    return detail_response(str(error), 503, RETRY_AFTER)
