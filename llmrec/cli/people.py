"""Commands about people: demo, forecast, recommend, explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Group
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.log_options import load_log, read_time, with_reading_options
from llmrec.cli.options import (
    AsJson,
    Backend,
    Calibrate,
    Cutoff,
    Data,
    Description,
    EditText,
    Horizon,
    K,
    Model,
    ModelWords,
    Mute,
    NewItems,
    Precision,
    Strength,
    Until,
    User,
    Users,
    WriterModel,
    WriterUrl,
    app,
    model_options,
    parse_edit_options,
)
from llmrec.cli.paths import CHART_KINDS, require_chart_path, require_folder
from llmrec.data.calendar import DAY
from llmrec.data.dataset import Dataset
from llmrec.data.options import ReadingOptions
from llmrec.data.periods import History, Window
from llmrec.data.readers import load_dataset
from llmrec.data.windows import holdout_windows
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.explain import plots
from llmrec.explain.evidence import format_day, to_date
from llmrec.explain.explanation_page import save_explanation
from llmrec.explain.writer import Completer
from llmrec.forecast import Forecast
from llmrec.person_summary import person_summary
from llmrec.session_inputs import Recommendation


@app.command()
def demo(
    users: Annotated[int, typer.Option(min=1, help="Users of each log, drawn with --seed.")] = 3,
    seed: int = 0,
    model: Model = "smollm2-135m",
    writer_url: WriterUrl = "",
    writer_model: WriterModel = "",
    out: Annotated[Path, typer.Option(help="Folder for the charts.")] = Path("llmrec-demo"),
    as_json: AsJson = False,
) -> None:
    """Forecast, rank and explain for people of two real logs; compare with what they then did."""
    require_folder(out)
    writer = _writer(writer_url, writer_model)
    results = []
    for name in ("completejourney", "ml-100k"):
        dataset = load_dataset(name)
        windows = _held_out(dataset)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:users])
        engine = _engine(model, dataset, windows[0].history.cutoff, writer)
        people = [engine.history(windows[row].history.user_id) for row in chosen]
        forecasts = engine.forecast_many(people)
        _remark_on_writer(engine)
        for row, history, forecast in zip(chosen, people, forecasts, strict=True):
            items = engine.session(history, forecast=forecast).recommend(10)
            chart = _save_chart(out / f"{name}-{history.user_id}", history, forecast, items)
            result = person_summary(dataset, history, forecast, items)
            result["happened"] = _observed(windows[row], items)
            results.append(result | {"chart": str(chart)})
            if not as_json:
                render.show_person(dataset, history, forecast, items, result["happened"])
                render.console.print(Text(f"  Chart: {chart}\n", style="dim"))
    if as_json:
        render.print_json(results)


@app.command()
@with_reading_options
def forecast(
    user: Users,
    reading: ReadingOptions,
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    writer_url: WriterUrl = "",
    writer_model: WriterModel = "",
    backend: Backend = None,
    precision: Precision = None,
    cutoff: Cutoff = None,
    horizon: Horizon = 1,
    chart: Annotated[Path | None, typer.Option(help="Write the picture: .png or .html.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder to store forecasts in, for `llmrec track-record`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast people's next period, or a later one, and draw how their interests moved."""
    if chart is not None and len(user) > 1:
        raise DataError("a chart shows one person: give one --user, or no --chart.")
    if chart is not None:
        require_chart_path(chart)
    if writer_url and horizon != 1:
        raise DataError("a server words the next period alone: give no --horizon to --writer-url")
    if store is not None:
        if horizon != 1:
            raise DataError("forecasts of the next period are stored: give no --horizon to --store")
        require_folder(store)
    writer, dataset = _writer(writer_url, writer_model), load_log(data, reading)
    engine = _engine(model, dataset, cutoff, writer, model_options(backend, precision))
    people = [engine.history(user_id) for user_id in user]
    forecasts = engine.forecast_many(people, horizon)
    _remark_on_writer(engine)
    made = people, forecasts
    if chart is not None:
        _save_chart(chart.with_suffix(""), people[0], forecasts[0], [], kinds=(chart.suffix,))
    stored = {} if store is None else {"receipt": _store_forecasts(store, dataset, *made)}
    if as_json:
        pairs = zip(people, forecasts, strict=True)
        found = [person_summary(engine.dataset, *pair, []) | stored for pair in pairs]
        render.print_json(found if len(found) > 1 else found[0])
        return
    for history, result in zip(people, forecasts, strict=True):
        render.show_person(engine.dataset, history, result, [])
    for path in stored.values():
        render.console.print(Text(f"  Stored: {path}", style="dim"))


@app.command()
@with_reading_options
def recommend(
    user: User,
    reading: ReadingOptions,
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    writer_url: WriterUrl = "",
    writer_model: WriterModel = "",
    backend: Backend = None,
    precision: Precision = None,
    cutoff: Cutoff = None,
    k: K = 10,
    why_not: Annotated[
        str | None, typer.Option(help="Item id or whole title: why is it not listed?")
    ] = None,
    calibrate: Calibrate = 0,
    new_items: NewItems = 0,
    model_words: ModelWords = False,
    edit: EditText = "",
    description: Description = None,
    mute: Mute = None,
    until: Until = None,
    strength: Strength = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items to one person, each with its reason.

    With edits: first what was understood and what it will do, then the list with it.
    """
    writer, options = _writer(writer_url, writer_model), model_options(backend, precision)
    engine = _engine(model, load_log(data, reading), cutoff, writer, options, describe=False)
    session = engine.session(user)
    parsed = parse_edit_options(session, edit, description, mute, until)
    session = session.edit(*parsed.edits, strength=strength)
    chosen: dict[str, Any] = {"calibrate": calibrate, "model_words": model_words}
    items = session.recommend(k, new_items=new_items, **chosen)
    answer = session.why_not(why_not, k).text if why_not else ""
    mixed = render.CALIBRATED_NOTE.format(calibrate) if calibrate else ""
    shown = person_summary(engine.dataset, session.history, session.forecast, items)
    shown |= {"why_not": answer, "mixed": mixed}
    _remark_on_writer(engine)
    verb = session.history.verb
    view = render.render_list(items, verb=verb)
    if parsed.edits or strength is not None:
        effect = session.effect()
        outcome = effect.verify(k)
        shown |= {"effect": render.effect_summary(parsed, effect, outcome)}
        verified = render.render_outcome(
            effect, outcome, items, by_score=not (calibrate or new_items), verb=verb
        )
        view = Group(render.render_effect(parsed, effect), verified)
    if as_json:
        render.print_json(shown)
        return
    render.console.print(view, *(Text(line) for line in (mixed, answer) if line), sep="\n")


@app.command()
@with_reading_options
def explain(
    user: Annotated[str, typer.Argument(help="User id, as the log writes it.")],
    item: Annotated[str, typer.Argument(help="Item id or whole title, on the list or not.")],
    reading: ReadingOptions,
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    writer_url: WriterUrl = "",
    writer_model: WriterModel = "",
    backend: Backend = None,
    precision: Precision = None,
    cutoff: Cutoff = None,
    k: K = 10,
    model_words: ModelWords = False,
    edit: EditText = "",
    description: Description = None,
    mute: Mute = None,
    until: Until = None,
    strength: Strength = None,
    chart: Annotated[Path | None, typer.Option(help="Write it as a page: .html, or .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain one item: its score, the forecast and events behind it, and what would move it.

    With edits: first what was understood and what it will do; then the list with it is explained.
    """
    if chart is not None:
        require_chart_path(chart)
    writer, options = _writer(writer_url, writer_model), model_options(backend, precision)
    engine = _engine(model, load_log(data, reading), cutoff, writer, options)
    session = engine.session(user)
    parsed = parse_edit_options(session, edit, description, mute, until)
    session = session.edit(*parsed.edits, strength=strength)
    found = session.explain(item, k, model_words=model_words)
    if chart is not None:
        save_explanation(found, chart)
    shown = {"dataset": engine.dataset.name, "user_id": user, **found.to_dict()}
    view = render.render_explanation(found)
    _remark_on_writer(engine)
    if parsed.edits or strength is not None:
        effect = session.effect()
        shown |= {"effect": render.effect_summary(parsed, effect, effect.verify(k))}
        view = Group(render.render_effect(parsed, effect), Text(""), view)
    if as_json:
        render.print_json(shown)
    else:
        render.console.print(view)


def _writer(url: str, model: str) -> Completer | None:
    """Give the server that words descriptions, if there is one, before a log is read."""
    if model and not url:
        raise DataError("--writer-model is of a server: give its --writer-url, too.")
    if not url:
        return None
    from llmrec.language.completion_server import CompletionServer

    return CompletionServer(url, model)


def _engine(
    model: str,
    dataset: Dataset,
    cutoff: np.datetime64 | str | None,
    writer: Completer | None,
    options: Mapping[str, Any] | None = None,
    *,
    describe: bool = True,
) -> InterestEngine:
    """Load an engine; lines on stderr tell what of it is left out, and of a period far ahead."""
    start = cutoff
    if isinstance(cutoff, str):
        start = read_time("Cutoff", cutoff, dataset.log.day_first)
    with render.warnings_as_lines():
        engine = InterestEngine.from_pretrained(
            model,
            data=dataset,
            cutoff=start,
            describe=describe,
            writer=writer,
            **options or {},
        )
    end = dataset.log.timestamp.max()
    if engine.cutoff > end + DAY:
        ends, starts = format_day(to_date(end)), format_day(to_date(engine.cutoff))
        known = f"The log ends on {ends}; the period to forecast starts on {starts}, beyond it."
        render.print_remark(known)
    return engine


def _remark_on_writer(engine: InterestEngine) -> None:
    """Say on stderr what became of the descriptions that a server was to word."""
    if engine.writer is not None and engine.writer.counts:
        render.print_remark(engine.writer.summary())


def _held_out(dataset: Dataset) -> list[Window]:
    """Windows at the log's end, all cut at one time, to compare forecasts with what happened."""
    windows = holdout_windows(dataset.log, dataset.catalog, dataset.period)
    if not windows:
        raise DataError(f"{dataset.name} has no user with events before and in its last period")
    return windows


def _observed(window: Window, items: Sequence[Recommendation]) -> dict[str, Any]:
    """Give what the person then really took: the heaviest categories, and the hits of the list."""
    taken = set(window.target.catalog.item_ids[window.target.item_idx])
    counts = window.target.category_counts
    top = np.argsort(-counts, kind="stable")[:3]
    names = window.target.catalog.categories
    return {
        "events": window.target.n_events,
        "top": {names[c]: float(counts[c] / counts.sum()) for c in top if counts[c] > 0},
        "hits": [item.title for item in items if item.item_id in taken],
        "listed": len(items),
    }


def _save_chart(
    stem: Path,
    history: History,
    forecast: Forecast,
    items: Sequence[Recommendation],
    kinds: Sequence[str] = CHART_KINDS,
) -> Path:
    """Write the chart in the wanted forms; gives the last path."""
    path = stem
    for kind in kinds:
        path = stem.parent / f"{stem.name}{kind}"
        if kind == ".png":
            plots.save_png(history, forecast, path)
        else:
            plots.save_html(history, forecast, [item.explanation for item in items], path)
    return path


def _store_forecasts(
    folder: Path, dataset: Dataset, people: Sequence[History], forecasts: Sequence[Forecast]
) -> Path:
    from llmrec.evaluation.forecast_store import save_forecasts

    return save_forecasts(folder, dataset, people, forecasts)
