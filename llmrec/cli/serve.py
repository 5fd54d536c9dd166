"""Command serve: an engine over HTTP, which follows the events that it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrec.cli import render
from llmrec.cli.log_options import load_log, read_time, with_reading_options
from llmrec.cli.options import Backend, Precision, app, model_options
from llmrec.data.dataset import Dataset
from llmrec.data.options import ReadingOptions
from llmrec.engine import InterestEngine
from llmrec.errors import MissingExtraError, OptionError
from llmrec.serve.settings import ServeSettings

DATABASE, DEFAULTS = "llmrec-events.db", ServeSettings()
PACKAGES = ("fastapi", "multipart", "prometheus_client", "sqlalchemy", "uvicorn")
LOG_LEVELS = ("error", "warning", "info", "debug")
LISTENING, EVENTS, LIMITS = "Where it listens", "Events", "Limits"


def _option(panel: str, what: str, **checks: Any) -> Any:
    return typer.Option(help=what, rich_help_panel=panel, **checks)


Data = Annotated[
    str | None, typer.Option(help="Log that the events continue; default: an engine without a log.")
]
Cutoff = Annotated[
    str | None, typer.Option(help="Where the log of --data is cut; pages show what came after it.")
]
Forecasts = Annotated[
    Path | None, typer.Option(help="Folder of `forecast --store`, for pages of people.")
]
UseModel = Annotated[
    bool, typer.Option("--llm/--no-llm", help="Whether the engine's language model is used.")
]
Host = Annotated[str, _option(LISTENING, "Address; others than 127.0.0.1 need LLMREC_API_KEY.")]
Port = Annotated[int, _option(LISTENING, "0: any free one.", min=0, max=65_535)]
Database = Annotated[
    str,
    _option(
        EVENTS,
        "File of SQLite, or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
        envvar="LLMREC_DATABASE",  # the list of processes shows options to everybody
    ),
]
Refresh = Annotated[float, _option(EVENTS, "How often lists are solved anew; 0: never.", min=0)]
MaxEvents = Annotated[int, _option(LIMITS, "Events of one request.", min=1)]
MaxBody = Annotated[float, _option(LIMITS, "Megabytes of one request.", min=0.001)]
MaxWaiting = Annotated[int, _option(LIMITS, "Requests that may wait.", min=1)]
PromptMb = Annotated[
    float, _option(LIMITS, "Megabytes of prompts that the model reads on from; 0: none.", min=0)
]
Threads = Annotated[int, _option(LIMITS, "That forecast and rank.", min=1)]
Seconds = Annotated[float, _option(LIMITS, "Until a request is given up.", min=0.1)]
LogLevel = Annotated[str, typer.Option(metavar="|".join(LOG_LEVELS), help="What is logged.")]


@app.command()
@with_reading_options
def serve(
    engine: Annotated[str, typer.Argument(help="Folder of a saved engine.")],
    reading: ReadingOptions,
    data: Data = None,
    cutoff: Cutoff = None,
    forecasts: Forecasts = None,
    llm: UseModel = True,
    backend: Backend = None,
    precision: Precision = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    database: Database = DATABASE,
    refresh_seconds: Refresh = 60.0,
    max_events: MaxEvents = DEFAULTS.max_events,
    max_body_mb: MaxBody = DEFAULTS.max_body_bytes / 2**20,
    max_waiting: MaxWaiting = DEFAULTS.max_waiting,
    max_prompt_mb: PromptMb = 1024.0,
    threads: Threads = DEFAULTS.threads,
    request_seconds: Seconds = DEFAULTS.request_seconds,
    log_level: LogLevel = "warning",
) -> None:
    """Serve an engine over HTTP: events come in, forecasts and lists follow them.

    Clients show the key of the environment variable LLMREC_API_KEY, if it is set, as
    `Authorization: Bearer KEY`. The description of the interface is at /openapi.json; pages of
    people, their forecasts and lists are at /.
    """
    _require_packages()
    _check_options(log_level, data, cutoff)
    from llmrec.serve.access import Access
    from llmrec.serve.live import LiveEngine
    from llmrec.serve.pages import PageSources
    from llmrec.serve.server import bind
    from llmrec.serve.server import serve as run
    from llmrec.serve.store import EventStore

    settings = ServeSettings(
        max_body_bytes=round(max_body_mb * 2**20),
        max_events=max_events,
        max_waiting=max_waiting,
        threads=threads,
        request_seconds=request_seconds,
    )
    access = Access.from_environment(host)
    store = EventStore(database)
    with bind(host, port) as opened, render.warnings_as_lines():
        log = None if data is None else load_log(data, reading)
        options = {"model": "auto" if llm else None, **model_options(backend, precision)}
        served = _load(engine, log, cutoff, options)
        sources = PageSources(log if cutoff else None, forecasts, engine)
        limits = {"max_waiting": max_waiting, "prompt_bytes": round(max_prompt_mb * 2**20)}
        with LiveEngine(served, store, refresh_seconds=refresh_seconds, **limits) as live:
            run(live, settings, access, opened, log_level, _show_ready, sources)


def _check_options(log_level: str, data: str | None, cutoff: str | None) -> None:
    if log_level not in LOG_LEVELS:
        raise OptionError(f"--log-level {log_level!r}: write {', '.join(LOG_LEVELS)}.")
    if cutoff and data is None:
        raise OptionError("--cutoff cuts the log of --data: give both, or neither.")


def _load(
    engine: str, log: Dataset | None, cutoff: str | None, options: Mapping[str, Any]
) -> InterestEngine:
    """Load the engine, with the log if there is one, which is cut if that is asked for.

    Its periods are those of the calendar: one event more does not move all of them.
    """
    begin = read_time("Cutoff", cutoff, log.log.day_first) if cutoff and log else None
    loaded: dict[str, Any] = {"data": log, "cutoff": begin, "anchor": "calendar"}
    return InterestEngine.from_pretrained(engine, **loaded, **options)


def _show_ready(address: str) -> None:
    render.print_remark(f"Serving at {address}; stop with Ctrl+C.")


def _require_packages() -> None:
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingExtraError(
            f"serving needs the package {missing[0]}: pip install 'llmrec[serve]'"
        )
