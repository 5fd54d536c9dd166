"""The HTTP interface of a live engine."""

from __future__ import annotations

from fastapi import FastAPI

from llmrec.serve.access import Access, AccessMiddleware
from llmrec.serve.live import LiveEngine
from llmrec.serve.settings import ServeSettings


def create_app(
    live: LiveEngine, settings: ServeSettings | None = None, access: Access | None = None
) -> FastAPI:
    """Give the application: routes, limits, access and metrics around a live engine.

    The live engine is started and closed by who made it.
    """
    settings, access = settings or ServeSettings(), access or Access()
    app = FastAPI(title="llmrec")
    app.state.access = access
    app.add_middleware(AccessMiddleware, access=access)
    return app
