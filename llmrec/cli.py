"""The command line: parses, calls, prints."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.text import Text

from llmrec import printing
from llmrec.contracts import Forecast
from llmrec.data import embedded
from llmrec.data.calendar import DAY
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History, Window, holdout_windows
from llmrec.data.readers import Dataset, load_dataset
from llmrec.engine import InterestEngine, Recommendation
from llmrec.errors import DataError, EditError, LlmrecError
from llmrec.explain import picture
from llmrec.explain.evidence import day, day_of
from llmrec.ranking.edits import Edit
from llmrec.ranking.wishes import Wishes, find_category, parse_edited, parse_wishes

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Data = Annotated[str, typer.Option(help="ml-100k, completejourney, or a folder or file of a log.")]
Model = Annotated[str, typer.Option(help="smollm2-135m, a local folder, or a hub id.")]
User = Annotated[str, typer.Option(help="User id, as the log writes it.")]
Users = Annotated[
    list[str], typer.Option("--user", help="User id; give the option again for more people.")
]
Cutoff = Annotated[str | None, typer.Option(help="Start of the period to forecast, 2017-12-03.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Forecasters = Annotated[
    str, typer.Option(help="Names, with commas between; LLM is the language model; all: all.")
]
Names = list[str] | None
InModelWords = Annotated[
    bool, typer.Option("--in-model-words", help="Let the model choose the words of reasons.")
]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the list.")]


def _wished(what: str, **checks: Any) -> Any:
    """Give an option that stands among the wishes in --help."""
    panel = "Wishes: what should differ from the forecast"
    return typer.Option(help=what, rich_help_panel=panel, **checks)


Wish = Annotated[str, _wished('In words: "more thrillers, no horror until March, keep drama".')]
Description = Annotated[
    Path | None,
    _wished(
        "File: the forecast's description, with wishes written into it.",
        exists=True,
        dir_okay=False,
    ),
]
Mute = Annotated[Names, _wished("Nothing of a category; again for another.")]
Until = Annotated[str | None, _wished("Day on which wishes end that say no end of their own.")]
Strength = Annotated[float | None, _wished("Tilt; 0: none, 1: as forecast.")]


def main() -> None:
    """Run the command line; an error of ours is one line and exit status 1.

    Unless OMP_NUM_THREADS says otherwise, torch gets a thread a physical core: on a busy machine a
    thread for each logical one is many times slower.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
    try:
        app()
    except LlmrecError as error:
        lines = (clean_text(line, 1_000) for line in str(error).splitlines())
        Console(stderr=True).print(Text("error: ", style="red"), Text("\n".join(lines)), sep="")
        sys.exit(1)


@app.command()
def demo(
    users: Annotated[int, typer.Option(min=1, help="Users of each log, drawn with --seed.")] = 3,
    seed: int = 0,
    model: Model = "smollm2-135m",
    out: Annotated[Path, typer.Option(help="Folder for the charts.")] = Path("llmrec-demo"),
    as_json: AsJson = False,
) -> None:
    """Forecast, rank and explain for people of two real logs; compare with what they then did."""
    results = []
    for name in ("completejourney", "ml-100k"):
        dataset = load_dataset(name)
        windows = _held_out(dataset)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:users])
        engine = InterestEngine.from_pretrained(
            model, data=dataset, cutoff=windows[0].history.cutoff
        )
        people = [engine.history(windows[row].history.user_id) for row in chosen]
        forecasts = engine.forecast_many(people)
        for row, history, forecast in zip(chosen, people, forecasts, strict=True):
            items = engine.recommend(history, 10, forecast=forecast)
            chart = _save_chart(out / f"{name}-{history.user_id}", history, forecast, items)
            result = printing.summary(dataset, history, forecast, items)
            result["happened"] = _happened(windows[row], items)
            results.append(result | {"chart": str(chart)})
            if not as_json:
                printing.show_person(dataset, history, forecast, items, result["happened"])
                printing.console.print(Text(f"  Chart: {chart}\n", style="dim"))
    if as_json:
        printing.print_json(results)


@app.command()
def forecast(
    user: Users,
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    cutoff: Cutoff = None,
    chart: Annotated[Path | None, typer.Option(help="Write the picture: .png or .html.")] = None,
    receipt: Annotated[
        Path | None, typer.Option(help="Folder to keep forecasts in, for `llmrec receipts`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast people's next period and draw how their interests moved."""
    if chart is not None and len(user) > 1:
        raise DataError("a chart shows one person: give one --user, or no --chart.")
    dataset = load_dataset(data)
    engine = _engine(model, dataset, cutoff)
    people = [engine.history(user_id) for user_id in user]
    forecasts = engine.forecast_many(people)
    if chart is not None:
        _save_chart(chart.with_suffix(""), people[0], forecasts[0], [], kinds=(chart.suffix,))
    kept = {} if receipt is None else {"receipt": _keep(receipt, dataset, people, forecasts)}
    if as_json:
        pairs = zip(people, forecasts, strict=True)
        found = [printing.summary(engine.dataset, *pair, []) | kept for pair in pairs]
        printing.print_json(found if len(found) > 1 else found[0])
        return
    for history, result in zip(people, forecasts, strict=True):
        printing.show_person(engine.dataset, history, result, [])
    for path in kept.values():
        printing.console.print(Text(f"  Receipt: {path}", style="dim"))


@app.command()
def receipts(
    folder: Annotated[Path, typer.Argument(help="Where `llmrec forecast --receipt` kept them.")],
    data: Data = "ml-100k",
    user: Annotated[str | None, typer.Option(help="Only this person's, one by one.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of models with this in the name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score kept forecasts whose period has passed: the track record of models, or of one user."""
    from llmrec.evaluation.receipts import chosen, load
    from llmrec.evaluation.track_record import score, track_record

    scores = score(chosen(load(folder), user, model), load_dataset(data))
    record = track_record(scores, by_user=user is not None)
    if as_json:
        tables = {"record": record, "receipts": scores}
        printing.print_json({name: printing.plain(table) for name, table in tables.items()})
    else:
        printing.show_receipts(scores, record, one_by_one=user is not None)


@app.command()
def recommend(
    user: User,
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    cutoff: Cutoff = None,
    k: K = 10,
    why_not: Annotated[
        str | None, typer.Option(help="Item id or whole title: why is it not listed?")
    ] = None,
    calibrate: Annotated[
        float, typer.Option(help="How far the list's mix follows the forecast, 0 to 1.")
    ] = 0,
    in_model_words: InModelWords = False,
    wish: Wish = "",
    description: Description = None,
    mute: Mute = None,
    until: Until = None,
    strength: Strength = None,
    as_json: AsJson = False,
) -> None:
    """Recommend items to one person, each with its reason.

    With wishes: first what was understood and what it will do, then the list with it.
    """
    engine = _engine(model, load_dataset(data), cutoff)
    history = engine.history(user)
    result = engine.forecast(history)
    wishes = _wishes(history, result, wish, description, mute, until)
    changed: dict[str, Any] = {"forecast": result, "edits": wishes.edits, "strength": strength}
    items = engine.recommend(
        history, k, calibrate=calibrate, in_model_words=in_model_words, **changed
    )
    answer = engine.why_not(history, why_not, k, **changed).text if why_not else ""
    mixed = printing.MIXED.format(calibrate) if calibrate else ""
    shown = printing.summary(engine.dataset, history, result, items)
    shown |= {"why_not": answer, "mixed": mixed}
    view = printing.listing(items)
    if wishes.edits or strength is not None:
        effect = engine.effect(history, **changed)
        outcome = effect.verify(k)
        shown |= {"effect": printing.effect_summary(wishes, effect, outcome)}
        came_of_it = printing.came_of_it(effect, outcome, items, by_score=not calibrate)
        view = Group(printing.foretold(wishes, effect), came_of_it)
    if as_json:
        printing.print_json(shown)
        return
    printing.console.print(view, *(Text(line) for line in (mixed, answer) if line), sep="\n")


@app.command()
def explain(
    user: Annotated[str, typer.Argument(help="User id, as the log writes it.")],
    item: Annotated[str, typer.Argument(help="Item id or whole title, on the list or not.")],
    data: Data = "ml-100k",
    model: Model = "smollm2-135m",
    cutoff: Cutoff = None,
    k: K = 10,
    in_model_words: InModelWords = False,
    wish: Wish = "",
    description: Description = None,
    mute: Mute = None,
    until: Until = None,
    strength: Strength = None,
    as_json: AsJson = False,
) -> None:
    """Explain one item: its score, the forecast and events behind it, and what would move it.

    With wishes: first what was understood and what it will do; then the list with it is explained.
    """
    engine = _engine(model, load_dataset(data), cutoff)
    history = engine.history(user)
    result = engine.forecast(history)
    wishes = _wishes(history, result, wish, description, mute, until)
    changed: dict[str, Any] = {"forecast": result, "edits": wishes.edits, "strength": strength}
    found = engine.explain(history, item, k, in_model_words=in_model_words, **changed)
    shown = {"dataset": engine.dataset.name, "user_id": user, **found.to_dict()}
    view = printing.explained(found)
    if wishes.edits or strength is not None:
        effect = engine.effect(history, **changed)
        shown |= {"effect": printing.effect_summary(wishes, effect, effect.verify(k))}
        view = Group(printing.foretold(wishes, effect), Text(""), view)
    if as_json:
        printing.print_json(shown)
    else:
        printing.console.print(view)


@app.command()
def evaluate(
    data: Data = "ml-100k",
    forecasters: Forecasters = "LastPeriod,RidgeAutoregression,GatedMixture,LLM",
    model: Model = "smollm2-135m",
    users: Annotated[int, typer.Option(min=0, help="Windows the LLM reads a split; 0: all.")] = 200,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of what is trained.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and its tables.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit forecasters on the past, judge them on held-out periods, and draw who wins where."""
    from llmrec.evaluation.page import save_report
    from llmrec.evaluation.report import compare

    dataset, names = load_dataset(data), _names(forecasters)
    readings = _readings(dataset, model, users or None) if "LLM" in names else None
    family = [name for name in names if name != "LLM"]
    found = compare(dataset, family, seeds=range(seeds), readings=readings)
    if as_json:
        printing.console.print_json(found.table.to_json(orient="records"))
    else:
        printing.show_comparison(data, found.table)
    if out is not None:
        path = save_report(found, out)
        if not as_json:
            printing.console.print(Text(f"Report: {path}"))


@app.command()
def audit(
    kind: Annotated[str, typer.Argument(help="order, names, titles or length.")],
    data: Data = "ml-100k",
    forecasters: Forecasters = "RidgeAutoregression,LLM",
    model: Model = "smollm2-135m",
    users: Annotated[int, typer.Option(min=1, help="Test windows, drawn at random.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Shuffle the order, rename categories, hide titles or cut histories, and say what it costs."""
    from llmrec.evaluation.audits import audit_dataset

    names = _names(forecasters)
    reader = _language_model(model) if "LLM" in names else None
    family = [name for name in names if name != "LLM"]
    table = audit_dataset(load_dataset(data), kind, family, reader, users)
    if as_json:
        printing.console.print_json(table.to_json(orient="records"))
    else:
        printing.show_table(f"{data}: what the audit of {kind} changes", table)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """List the embedded logs and models, their licences, and whether they are installed."""
    rows = [
        {
            "name": part.name,
            "what": part.what,
            "from": f"{part.distribution} {part.version}",
            "licence": part.licence,
            "installed": _version(part.distribution) is not None,
        }
        for part in embedded.PARTS
    ]
    printing.print_rows(rows, as_json)


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
        printing.print_json(rows)
    else:
        for name, value in rows.items():
            printing.console.print(f"{name:>14}  {escape(value)}")


def _engine(model: str, dataset: Dataset, cutoff: str | None) -> InterestEngine:
    """Load an engine; a line on stderr tells if the period starts long after the log ends."""
    engine = InterestEngine.from_pretrained(model, data=dataset, cutoff=cutoff)
    end = dataset.log.timestamp.max()
    if engine.cutoff > end + DAY:
        ends, starts = day(day_of(end)), day(day_of(engine.cutoff))
        known = f"The log ends on {ends}; the period to forecast starts on {starts}, beyond it."
        Console(stderr=True).print(Text(known, style="yellow"))
    return engine


def _wishes(
    history: History,
    forecast: Forecast,
    wish: str,
    description: Path | None,
    mute: Names,
    until: str | None,
) -> Wishes:
    """Put the edits of options and of words together; EditError if no word is understood."""
    catalog, at = history.catalog, history.cutoff
    muted = tuple(Edit(find_category(name, catalog), 0.0) for name in mute or ())
    said = [Wishes(muted), parse_wishes(wish, catalog, at)]
    if description is not None:
        edited = description.read_text(encoding="utf-8-sig", errors="replace")
        said.append(parse_edited(forecast.description, edited, catalog, at))
        if not (said[-1].edits or said[-1].misread):
            raise EditError(f"{description}: no wish is written into the forecast's description.")
    found = Wishes.together(said)
    if found.misread and not found.edits:
        raise EditError("\n".join(one.text for one in found.misread))
    return found if until is None else replace(found, edits=_ending(found.edits, until))


def _ending(edits: Sequence[Edit], until: str) -> tuple[Edit, ...]:
    """Let edits without an end end then; EditError if there is none."""
    if all(edit.until is not None for edit in edits):
        raise EditError(f"--until {until} ends nothing: no wish is without an end of its own.")
    return tuple(replace(edit, until=until) if edit.until is None else edit for edit in edits)


def _names(forecasters: str) -> list[str]:
    """Split a list of forecasters; DataError names those that do not exist."""
    from llmrec.forecasters.family import BUILDERS

    known = [*BUILDERS, "LLM"]
    names = known if forecasters == "all" else [name.strip() for name in forecasters.split(",")]
    if wrong := [name for name in names if name not in known]:
        raise DataError(f"no forecaster is called {wrong[0]!r}; choose from {', '.join(known)}")
    return names


def _language_model(model: str) -> Any:
    from llmrec.language.model import LanguageModel

    return LanguageModel.load(model)


def _readings(dataset: Dataset, model: str, users: int | None) -> Any:
    from llmrec.evaluation.report import Readings

    return Readings.drawn(dataset, users).read(_language_model(model), dataset)


def _held_out(dataset: Dataset) -> list[Window]:
    """Windows at the log's end, all cut at one time, to compare forecasts with what happened."""
    windows = holdout_windows(dataset.log, dataset.catalog, dataset.period)
    if not windows:
        raise DataError(f"{dataset.name} has no user with events before and in its last period")
    return windows


def _happened(window: Window, items: Sequence[Recommendation]) -> dict[str, Any]:
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
    kinds: Sequence[str] = (".png", ".html"),
) -> Path:
    """Write the chart in the wanted forms; gives the last path."""
    path = stem
    for kind in kinds:
        path = stem.parent / f"{stem.name}{kind}"
        if kind == ".png":
            picture.save_png(history, forecast, path)
        elif kind == ".html":
            picture.save_html(history, forecast, [item.explanation for item in items], path)
        else:
            raise DataError(f"a chart is written as .png or .html, not {kind!r}")
    return path


def _keep(
    folder: Path, dataset: Dataset, people: Sequence[History], forecasts: Sequence[Forecast]
) -> Path:
    from llmrec.evaluation.receipts import store

    return store(folder, dataset, people, forecasts)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
