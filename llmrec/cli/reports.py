"""Commands about logs and models: evaluate, track-record, datasets, env; their tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.comparison_tables import show_comparison, show_impressions
from llmrec.cli.forecaster_names import default_names, read_names
from llmrec.cli.log_options import KnownBefore, load_log, with_reading_options
from llmrec.cli.options import (
    AsJson,
    Backend,
    Data,
    Models,
    OptionalForecasters,
    Precision,
    app,
    model_options,
)
from llmrec.cli.paths import require_folder
from llmrec.cli.render import console, print_json
from llmrec.data import embedded
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.names import clean_text
from llmrec.data.options import ReadingOptions
from llmrec.engine_config import DEFAULT_MODEL
from llmrec.engine_folder import is_engine
from llmrec.errors import DataError

if TYPE_CHECKING:
    from llmrec.evaluation.saved_engine import SavedEngine

TRACK_RECORD_COLUMNS = {
    "log_loss": ("log-loss, nats per event", "{:.4f}"),
    "gain_on_mean": ("  gain on the mean of the past", "{:+.4f}"),
    "gain_on_counting": ("  gain on counting", "{:+.4f}"),
    "jsd": ("divergence from observed, bits", "{:.4f}"),
    "coverage80": ("inside the 80 % interval", "{:.0%}"),
    "said": ("statements: probability said", "{:.0%}"),
    "came_true": ("statements that came true", "{:.0%}"),
}


def show_track_record(scores: pd.DataFrame, record: pd.DataFrame, *, one_by_one: bool) -> None:
    """Print track records, each forecast too if wanted, and what is not scored and why."""
    if one_by_one:
        console.print(_each(scores), "")
    for _, part in record.groupby(["model", "period", "in_advance"]):
        console.print(_record(part), "")
    for remark in _remarks(scores):
        console.print(Text(clean_text(remark, 1_000), style="dim"))


def _record(record: pd.DataFrame) -> Group:
    """Lay out the record of one model, a line a metric."""
    first = record.iloc[0]
    made = "in advance" if first["in_advance"] else "in hindsight"
    title = f"{clean_text(first['model'])}, {first['period']}, made {made}"
    view = Table(box=None, header_style="dim", pad_edge=False)
    counted = ["receipts"] if "user_id" in record else ["people", "receipts"]
    for column in ("", "mean", "95 % interval", *counted):
        label = "forecasts" if column == "receipts" else column  # its name in files
        view.add_column(label, justify="right" if column else "left", no_wrap=True)
    rows = (
        record.rename(columns={"n": "people"}).set_index("metric").loc[list(TRACK_RECORD_COLUMNS)]
    )
    for (name, form), row in zip(
        TRACK_RECORD_COLUMNS.values(), rows.to_dict("records"), strict=True
    ):
        value, low, high = (_number(form, row[column]) for column in ("value", "low", "high"))
        bounds = "-" if low == "-" else f"({low}, {high})"
        view.add_row(name, value, bounds, *(str(row[column]) for column in counted))
    return Group(Text(title, style="bold"), view)


def _each(scores: pd.DataFrame) -> Table:
    """Lay out stored forecasts, a line each; those that are not scored have a status instead."""
    view = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("from", "model", "events", "loss", "on mean", "on counting", "true"):
        justify: Any = "left" if column in ("from", "model") else "right"
        view.add_column(column, justify=justify, overflow="fold")
    shown = {"log_loss": "{:.3f}", "gain_on_mean": "{:+.3f}", "gain_on_counting": "{:+.3f}"}
    for row in scores.to_dict("records"):
        numbers = [_number(form, row[metric]) for metric, form in shown.items()]
        if row["status"] != "scored":
            numbers[0] = row["status"]
        events, true = _number("{:.0f}", row["events"]), _number("{:.0%}", row["came_true"])
        when, model = f"{row['cutoff']:%Y-%m-%d}", Text(clean_text(row["model"]))
        view.add_row(when, model, events, *numbers, true)
    return view


def _remarks(scores: pd.DataFrame) -> list[str]:
    """Say what is not scored and why, what is no forecast, and whose past has changed since."""
    remarks = []
    unscored = scores[scores["status"] != "scored"]
    if len(unscored):
        counts = ", ".join(
            f"{n} {status}" for status, n in unscored["status"].value_counts().items()
        )
        remarks.append(f"Not scored: {counts}.")
        remarks += [why for why in unscored["why"].unique()[:5] if why]
    if late := int((~scores["in_advance"]).sum()):
        remarks.append(f"{late} made in hindsight: the log then reached beyond the cutoff.")
    scored = scores["status"].isin(["scored", "nothing taken"])
    if changed := int((scored & ~scores["same_past"]).sum()):
        remarks.append(f"{changed} saw a past that the log no longer holds: it has been changed.")
    return remarks


def _number(form: str, value: float) -> str:
    return "-" if pd.isna(value) else form.format(value)


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give a table's rows as plain values for JSON; NaN becomes null."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", date_format="iso"))
    return rows


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows of the same keys as a table, or as JSON."""
    if as_json:
        print_json(rows)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    console.print(table)


@app.command(name="receipts", hidden=True)  # its name in 0.1
@app.command()
@with_reading_options
def track_record(
    folder: Annotated[Path, typer.Argument(help="The folder of `forecast --store`.")],
    reading: ReadingOptions,
    data: Data = "ml-100k",
    user: Annotated[str | None, typer.Option(help="Only this person's, one by one.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of models with this in the name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score stored forecasts whose period has passed: the record of models, or of one user."""
    from llmrec.evaluation.forecast_store import filter_forecasts, load_forecasts
    from llmrec.evaluation.track_record import score_forecasts, summarize_track_record

    loaded, dataset = load_forecasts(folder), load_log(data, reading)
    scores = score_forecasts(filter_forecasts(loaded, dataset, user, model), dataset)
    record = summarize_track_record(scores, by_user=user is not None)
    if as_json:
        tables = {"record": record, "receipts": scores}
        render.print_json({name: to_records(table) for name, table in tables.items()})
    else:
        show_track_record(scores, record, one_by_one=user is not None)


@app.command()
@with_reading_options
def evaluate(
    reading: ReadingOptions,
    data: Data = "ml-100k",
    forecasters: OptionalForecasters = None,
    model: Models = None,
    backend: Backend = None,
    precision: Precision = None,
    cutoff: KnownBefore = None,
    users: Annotated[
        int,
        typer.Option(min=0, help="Windows a split that the LLM, or an engine, is given; 0: all."),
    ] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of what is trained.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and its tables.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit forecasters on the past, evaluate them on held-out periods, and draw who wins where.

    An engine's folder as --model is evaluated as it was saved, by its lists and explanations, too.
    Where a log tells what was shown, scorers of titles and engines order what each list showed.
    """
    from llmrec.evaluation.comparison import compare
    from llmrec.evaluation.horizons import HORIZONS
    from llmrec.evaluation.html_report import save_report

    if out is not None:
        require_folder(out)
    names = default_names() if forecasters is None else read_names(forecasters)
    dataset = load_log(data, reading, cutoff)
    options = model_options(backend, precision)
    rows = _model_rows(dataset, model or [DEFAULT_MODEL], users or None, names, options)
    family = [name for name in names if name != "LLM"]
    found = compare(dataset, family, seeds=range(seeds), horizons=HORIZONS, **rows)
    of_lists = _impression_rows(dataset, rows["saved_engine"])
    if as_json:
        render.print_json(to_records(pd.concat((found.table, *of_lists))))
    else:
        show_comparison(data, found.table)
        for table in of_lists:
            show_impressions(data, table)
    if out is not None:
        path = save_report(found, out)
        for table in of_lists:
            atomic_write_bytes(out / "impressions.parquet", table.to_parquet(index=False))
        if not as_json:
            render.console.print(Text(f"Report: {path}"))


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """List the embedded logs and models, their licences, and whether they are installed."""
    rows = [
        {
            "name": part.name,
            "what": part.description,
            "from": f"{part.distribution} {part.version}",
            "licence": part.licence,
            "installed": _version(part.distribution) is not None,
        }
        for part in (*embedded.EMBEDDED_PARTS, embedded.GEMMA)
    ]
    print_rows(rows, as_json)


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions, device and cache folder: what a bug report needs."""
    names = ("llmrec", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "llguidance")
    rows = {"python": platform.python_version(), "platform": platform.platform()}
    rows |= {name: _version(name) or "not installed" for name in names}
    rows["cache"] = str(embedded.cache_root())
    if _version("torch"):
        import torch

        rows["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if as_json:
        render.print_json(rows)
    else:
        for name, value in rows.items():
            render.console.print(f"{name:>14}  {escape(value)}")


def load_language_model(model: str, **options: Any) -> Any:
    """Load a language model; torch is imported only now."""
    from llmrec.language.model import LanguageModel

    return LanguageModel.load(model, **options)


def _model_rows(
    dataset: Dataset,
    models: Sequence[str],
    users: int | None,
    names: Sequence[str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the arguments of `compare` for models: scores of one, and the engines among them."""
    from llmrec.evaluation.comparison import LLMScores
    from llmrec.evaluation.saved_engine import load_saved_engines

    engines = [model for model in models if is_engine(model)]
    bare = [model for model in models if model not in engines]
    if len(bare) > 1:
        raise DataError(f"--model {bare[1]} is a second language model: give one, and engines.")
    with render.warnings_as_lines():
        saved = load_saved_engines(engines, dataset, users, options=options)
    rows: dict[str, Any] = {"saved_engine": saved}
    if bare and "LLM" in names:
        scores = LLMScores.sample(dataset, users)
        rows["llm_scores"] = scores.score(load_language_model(bare[0], **options), dataset)
    return rows


def _impression_rows(dataset: Dataset, engines: Sequence[SavedEngine]) -> list[pd.DataFrame]:
    """Give the table of `compare_on_impressions`, or none where the log has no impression."""
    if dataset.impressions is None or not dataset.impressions.n_impressions:
        return []
    from llmrec.evaluation.impressions import compare_on_impressions

    return [compare_on_impressions(dataset, {one.name: one.engine for one in engines})]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
