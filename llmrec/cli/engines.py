"""Commands about engines: fit, info."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.padding import Padding
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.log_options import load_log, read_time, with_reading_options
from llmrec.cli.options import AsJson, Backend, Cutoff, Data, Precision, app, model_options
from llmrec.cli.paths import require_engine_folder, require_folder
from llmrec.data.dataset import Dataset
from llmrec.data.options import ReadingOptions
from llmrec.data.periods import Window
from llmrec.engine import InterestEngine
from llmrec.engine_config import DEFAULT_MODEL
from llmrec.engine_folder import CALIBRATION_FILE, is_engine
from llmrec.engine_info import EngineInfo, describe_engine
from llmrec.engine_language import find_trained_windows
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.language.adapters import AdapterMetadata

NO_MODEL = "none"


def _read_effort(text: str) -> Effort:
    """Read an effort; BadParameter if there is none of that name."""
    found: dict[str, Effort] = {name: name for name in get_args(Effort)}
    if text not in found:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(found)}.")
    return found[text]


@app.command()
@with_reading_options
def fit(
    out: Annotated[Path, typer.Option(help="The engine's folder, to be written.")],
    reading: ReadingOptions,
    data: Data = "ml-100k",
    effort: Annotated[
        Any,
        typer.Option(
            parser=_read_effort,
            metavar="|".join(get_args(Effort)),
            help="quick: counting, nets of other logs, item statistics. standard: the best mixture "
            "of numeric forecasters, and trees. best: nets and the language model, too.",
        ),
    ] = "standard",
    model: Annotated[
        str, typer.Option(help=f"Language model: as for recommend, or {NO_MODEL}.")
    ] = DEFAULT_MODEL,
    backend: Backend = None,
    precision: Precision = None,
    encoder: Annotated[
        str, typer.Option(help="Of titles, tried beside words: all-minilm-l6-v2, folder, hub id.")
    ] = "",
    cutoff: Cutoff = None,
    seed: Annotated[int, typer.Option(help="Of what is trained or drawn.")] = 0,
    without: Annotated[
        str, typer.Option(help="Members not to use, with commas between; see `llmrec info`.")
    ] = "",
    users: Annotated[
        int, typer.Option(min=0, help="Windows the language model reads; 0: all.")
    ] = 500,
    keep_work: Annotated[
        bool, typer.Option("--keep-work", help="Keep the work folder beside the engine's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit an engine on a log and save it, whole: it serves people without the log.

    What is trained is stored in a work folder beside it, .NAME.fit, at once: after a kill the same
    command goes on from there.
    """
    _require_out(out, effort, model)
    work = out.with_name(f".{out.absolute().name}.fit")
    require_folder(work)
    dataset = _with_encoder(load_log(data, reading), encoder)
    engine = _load(model, dataset, cutoff, model_options(backend, precision))
    with render.warnings_as_lines(), _progress() as show, _remark_on_work(work):
        engine.fit(
            effort,
            seed=seed,
            leave_out=trained_windows(engine, dataset) if effort == "best" else None,
            n_windows=users or None,
            without=[one.strip() for one in without.split(",") if one.strip()],
            work_folder=work,
            show=show,
        )
        engine.save_pretrained(out)
    if not keep_work:
        shutil.rmtree(work, ignore_errors=True)
    _show(describe_engine(out), as_json)


def _with_encoder(dataset: Dataset, encoder: str) -> Dataset:
    """Give a dataset with vectors of its titles, if an encoder is named."""
    if not encoder:
        return dataset
    from llmrec.language.title_features import with_encoded_titles

    return with_encoded_titles(dataset, encoder)


def _load(
    model: str, dataset: Dataset, cutoff: str | None, options: Mapping[str, Any]
) -> InterestEngine:
    """Load what is to be fitted: the log as it was known, and the language model."""
    begin = None if cutoff is None else read_time("Cutoff", cutoff, dataset.log.day_first)
    with render.warnings_as_lines():
        return InterestEngine.from_pretrained(
            DEFAULT_MODEL if model == NO_MODEL else model,
            data=dataset,
            cutoff=begin,
            model=None if model == NO_MODEL else "auto",
            refit=is_engine(model),
            **options,
        )


@app.command()
def info(
    engine: Annotated[str, typer.Argument(help="An engine's folder; ml-100k, completejourney.")],
    as_json: AsJson = False,
) -> None:
    """Say what an engine was fitted on, what it is made of, and what each member is worth.

    Its files are compared with what was saved; neither a log nor a model is loaded.
    """
    _show(describe_engine(engine), as_json)


def _show(info: EngineInfo, as_json: bool) -> None:
    if as_json:
        render.print_json(info.to_dict())
        return
    for line in info.lines():
        text = line.lstrip()
        render.console.print(Padding(Text(text), (0, 0, 0, len(line) - len(text))))


def _require_out(out: Path, effort: Effort, model: str) -> None:
    """Refuse a folder that could not be written to after the fit, before anything is fitted."""
    require_engine_folder(out)
    if (out / CALIBRATION_FILE).is_file() and effort != "best" and model != NO_MODEL:
        raise DataError(
            f"{out} has a calibrated language model, and effort {effort!r} calibrates none: give "
            f"--effort best, --model {NO_MODEL}, or another --out."
        )


def trained_windows(engine: InterestEngine, dataset: Dataset) -> Callable[[Window], bool] | None:
    """Say which windows of the whole log the engine's adapter has learned from."""
    if engine.language is None:
        return None
    model = engine.language.model
    about = AdapterMetadata.load_if_present(Path(model.adapter or model.name))
    return find_trained_windows(about, dataset)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give what shows a line of progress on stderr: in place on a terminal, else one by one."""
    console = render.make_console(stderr=True)
    if not console.is_terminal:
        yield lambda line: console.print(Text(line), soft_wrap=True)
        return
    with console.status("") as status:
        yield lambda line: status.update(Text(line))


@contextmanager
def _remark_on_work(work: Path) -> Iterator[None]:
    """Say after an interruption that what was trained is stored."""
    try:
        yield
    except BaseException:
        if work.is_dir():
            render.print_remark(
                f"What was trained until now is stored in {work}: the same command goes on from "
                "there."
            )
        raise
