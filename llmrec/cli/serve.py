"""Command serve: an engine over HTTP, which follows the events that it is sent."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from llmrec.cli import render
from llmrec.cli.log_options import load_log, with_reading_options
from llmrec.cli.options import Backend, Precision, app, model_options
from llmrec.data.options import ReadingOptions
from llmrec.engine import InterestEngine
from llmrec.errors import MissingExtraError

DATABASE = "llmrec-events.db"
PACKAGES = ("fastapi", "multipart", "prometheus_client", "sqlalchemy", "uvicorn")
LISTENING, EVENTS, LIMITS = "Where it listens", "Events", "Limits"
Database = Annotated[
    str,
    typer.Option(
        help="File of SQLite, or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
        envvar="LLMREC_DATABASE",  # the list of processes shows options to everybody
        rich_help_panel=EVENTS,
    ),
]


@app.command()
@with_reading_options
def serve(
    engine: Annotated[str, typer.Argument(help="Folder of a saved engine.")],
    reading: ReadingOptions,
    data: Annotated[
        str | None, typer.Option(help="Log that the events continue; default: the engine's people.")
    ] = None,
    llm: Annotated[
        bool, typer.Option("--llm/--no-llm", help="Whether the engine's language model is used.")
    ] = True,
    backend: Backend = None,
    precision: Precision = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address; others than 127.0.0.1 need LLMREC_API_KEY.", rich_help_panel=LISTENING
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any free one.", rich_help_panel=LISTENING)
    ] = 8000,
    database: Database = DATABASE,
    refresh_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="How often lists are solved anew; 0: never.", rich_help_panel=EVENTS
        ),
    ] = 60.0,
    max_events: Annotated[
        int, typer.Option(min=1, help="Events of one request.", rich_help_panel=LIMITS)
    ] = 10_000,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="Megabytes of one request.", rich_help_panel=LIMITS)
    ] = 8.0,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests that may wait.", rich_help_panel=LIMITS)
    ] = 256,
    threads: Annotated[
        int, typer.Option(min=1, help="That forecast and rank.", rich_help_panel=LIMITS)
    ] = 2,
    request_seconds: Annotated[
        float, typer.Option(min=0.1, help="Until a request is given up.", rich_help_panel=LIMITS)
    ] = 30.0,
    log_level: Annotated[
        str, typer.Option(help="What is logged: error, warning, info, debug.")
    ] = "warning",
) -> None:
    """Serve an engine over HTTP: events come in, forecasts and lists follow them.

    Clients show the key of the environment variable LLMREC_API_KEY, if it is set, as
    `Authorization: Bearer KEY`. The description of the interface is at /openapi.json.
    """
    _require_packages()
    from llmrec.serve.access import Access
    from llmrec.serve.live import LiveEngine
    from llmrec.serve.server import bind
    from llmrec.serve.server import serve as run
    from llmrec.serve.settings import ServeSettings
    from llmrec.serve.store import EventStore

    settings = ServeSettings(
        host=host,
        port=port,
        max_body_bytes=round(max_body_mb * 2**20),
        max_events=max_events,
        max_waiting=max_waiting,
        threads=threads,
        request_seconds=request_seconds,
    )
    access = Access.from_environment(host)
    store = EventStore(database)
    with bind(host, port) as opened, render.warnings_as_lines():
        served = InterestEngine.from_pretrained(
            engine,
            data=None if data is None else load_log(data, reading),
            model="auto" if llm else None,
            **model_options(backend, precision),
        )
        waiting = settings.max_waiting
        with LiveEngine(
            served, store, refresh_seconds=refresh_seconds, max_waiting=waiting
        ) as live:
            run(live, settings, access, opened, log_level, _show_ready)


def _show_ready(address: str) -> None:
    render.print_remark(f"Serving at {address}; stop with Ctrl+C.")


def _require_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(
            f"serving needs the package {missing[0]}: pip install 'llmrec[serve]'"
        )
