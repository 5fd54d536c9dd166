"""Commands about everybody: batch, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from llmrec.batch.cost import MAX_MEASURED, STEPS_OF, BatchCost, measure_cost
from llmrec.batch.job import BatchSummary, run_batch
from llmrec.batch.job import Progress as ShowProgress
from llmrec.batch.people import BatchOptions, Reasons
from llmrec.cli import render
from llmrec.cli.log_options import with_reading_options
from llmrec.cli.options import AsJson, Backend, Data, K, Precision, app, model_options
from llmrec.cli.paths import require_folder
from llmrec.data.options import ReadingOptions
from llmrec.engine_config import ModelChoice
from llmrec.errors import DataError

MODEL_CHOICES: dict[str, ModelChoice] = {"all": "auto", "auto": "selective", "none": None}
UseModel = Annotated[
    str,
    typer.Option(
        metavar="|".join(MODEL_CHOICES),
        help="Whom the engine's LLM forecasts for; auto: those whom its calibration shows to gain.",
    ),
]
NOT_WHOLE = 3  # exit status: something could not be read, or somebody not served


@app.command()
@with_reading_options
def batch(
    engine: Annotated[str, typer.Argument(help="Folder of a saved engine.")],
    out: Annotated[Path, typer.Option(help="Folder for what comes out.")],
    reading: ReadingOptions,
    data: Data = "ml-100k",
    k: K = 10,
    reasons: Annotated[
        str, typer.Option(metavar="|".join(get_args(Reasons)), help="causes: items ranked again.")
    ] = "short",
    cutoff: Annotated[
        str | None,
        typer.Option(help="Start of the period to forecast; default: the end of the log."),
    ] = None,
    llm: UseModel = "all",
    backend: Backend = None,
    precision: Precision = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, or actors of Ray.")] = 1,
    ray: Annotated[
        str | None, typer.Option(help='Address of a Ray cluster, or "local" for one here.')
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a stop.")] = False,
    events_per_shard: Annotated[
        int, typer.Option(min=1, help="About how many events are in memory, and in a file.")
    ] = BatchOptions.events_per_shard,
    as_json: AsJson = False,
) -> None:
    """Forecast and recommend to everybody in a log, as Parquet files.

    Plain Parquet files with columns user_id, item_id and timestamp are read in pieces; any other
    log is loaded whole. Exit status 3: some file or person is missing, the rest is there.
    """
    require_folder(out)
    options = BatchOptions(
        k=k,
        reasons=cast(Reasons, reasons),  # BatchOptions says what it may be
        cutoff=cutoff,
        model=_model_choice(llm),
        model_options=model_options(backend, precision),
        events_per_shard=events_per_shard,
    )
    with render.warnings_as_lines(), _progress() as show:
        made = run_batch(
            engine,
            data,
            out,
            options,
            reading=reading,
            workers=workers,
            ray=ray,
            resume=resume,
            show=show,
        )
    if as_json:
        render.print_json(asdict(made))
    else:
        _show(made, out)
    if not made.is_whole:
        raise typer.Exit(NOT_WHOLE)


@contextmanager
def _progress() -> Iterator[ShowProgress]:
    """Give what draws a bar of shards on stderr, with the time left."""
    columns = (
        TextColumn("shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[people]:,} people"),
    )
    with Progress(*columns, console=render.make_console(stderr=True), transient=True) as bar:

        def show(done: int, total: int, people: int) -> None:
            if not bar.tasks:
                bar.add_task("", people=0)
            bar.update(bar.tasks[0].id, completed=done, total=total, people=people)

        yield show


def _model_choice(llm: str) -> ModelChoice:
    if llm not in MODEL_CHOICES:
        raise DataError(f"--llm {llm!r}: write {', '.join(MODEL_CHOICES)}.")
    return MODEL_CHOICES[llm]


def _show(made: BatchSummary, out: Path) -> None:
    shards = f"{made.n_shards} shard" + "s" * (made.n_shards > 1)
    resumed = f", {made.n_resumed} of them from before" if made.n_resumed else ""
    folders = f"{out / 'recommendations'} and {out / 'forecasts'}"
    lines = [f"{made.n_people:,} people in {shards}{resumed}, as of {made.cutoff[:16]}: {folders}"]
    if made.n_by_model:
        lines.append(f"The language model forecast for {made.n_by_model:,} of them.")
    n_rows = made.n_events + made.n_rejected_rows
    counts = [
        (made.n_rejected_rows, f"of {n_rows:,} rows are no events"),
        (made.n_failed, "people failed"),
        (made.n_without_past, "people have no event before then"),
    ]
    if shown := [f"{count:,} {what}" for count, what in counts if count]:
        lines.append(f"{out / 'rejected'}: {', '.join(shown)}, with the reason of each.")
    left_out = [f"{count:,} {reason}" for reason, count in made.left_out.items()]
    lines += [f"Left out when the log was loaded: {'; '.join(left_out)}."] * bool(left_out)
    lines += [f"{file} could not be read: {what}" for file, what in made.unreadable.items()]
    for line in lines:
        render.print_remark(line)


@app.command()
@with_reading_options
def cost(
    engines: Annotated[list[str], typer.Argument(help="Folders of saved engines.")],
    reading: ReadingOptions,
    data: Data = "ml-100k",
    people: Annotated[float, typer.Option("--people", "--users", min=1, help="How many.")] = 1e6,
    k: K = 10,
    llm: UseModel = "all",
    measured: Annotated[int, typer.Option(min=1, help="People to serve here.")] = MAX_MEASURED,
    as_json: AsJson = False,
) -> None:
    """Serve some people of a log here, and say what a batch of many would take, and where."""
    options = BatchOptions(k=k, model=_model_choice(llm))
    with render.warnings_as_lines():
        found = [
            measure_cost(one, data, options, reading=reading, n_measured=measured)
            for one in engines
        ]
    if as_json:
        render.print_json([asdict(one) for one in found])
        return
    for one in found:
        render.console.print(_cost_table(one, int(people)), _steps_table(one), sep="\n")


def _cost_table(cost: BatchCost, n_people: int) -> Table:
    """Give CPU hours, memory and disk of each kind of reasons."""
    title = (
        f"{cost.engine} (effort {cost.effort}): {n_people:,} people, by {cost.n_measured:,} here"
    )
    table = Table("reasons", title=title, title_justify="left")
    for name in ("people a CPU second", "CPU hours", "GB out", "peak MB"):
        table.add_column(name, justify="right")
    for reasons in STEPS_OF:
        table.add_row(
            reasons,
            f"{1 / cost.seconds(reasons):,.0f}",
            f"{cost.cpu_hours(n_people, reasons):,.2f}",
            f"{cost.disk_gb(n_people, reasons):,.2f}",
            f"{cost.peak_mb:,.0f}",
        )
    return table


def _steps_table(cost: BatchCost) -> Table:
    """Give where the time goes."""
    table = Table("step", title="where the time goes", title_justify="left")
    table.add_column("CPU ms a person", justify="right")
    table.add_column("share with short reasons", justify="right")
    whole = cost.seconds("short")
    for step, seconds in cost.seconds_of.items():
        share = f"{seconds / whole:.0%}" if step in STEPS_OF["short"] else ""
        table.add_row(step, f"{seconds * 1000:,.2f}", share)
    return table
