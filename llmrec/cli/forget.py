"""Command forget: a person removed from everything that is named, with a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.log_options import with_reading_options
from llmrec.cli.options import AsJson, app
from llmrec.cli.paths import require_folder
from llmrec.data.files import atomic_write_text
from llmrec.data.forget_certificate import Trained
from llmrec.data.options import ReadingOptions
from llmrec.errors import DataError
from llmrec.forgetting import ForgetPlaces, forget_everywhere

Folders = list[Path] | None


def _folders(name: str, what: str) -> Any:
    return typer.Option(name, help=f"{what}; give the option again for another.")


def _read_trained(text: str) -> Trained:
    """Read what becomes of trained parts; BadParameter if there is none of that name."""
    found: dict[str, Trained] = {name: name for name in get_args(Trained)}
    if text not in found:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(found)}.")
    return found[text]


@app.command()
@with_reading_options
def forget(
    user: Annotated[str, typer.Argument(help="User id, as the log writes it.")],
    reading: ReadingOptions,
    data: Annotated[str, typer.Option(help="The log: a file or folder, which is written.")],
    model: Annotated[Folders, _folders("--model", "Folder of an engine")] = None,
    stored: Annotated[Folders, _folders("--stored", "Folder of `forecast --store`")] = None,
    examples: Annotated[Folders, _folders("--examples", "Folder of training examples")] = None,
    prompts: Annotated[
        Folders, _folders("--prompts", "Folder of prompts that a model reads on from")
    ] = None,
    serve_database: Annotated[
        str | None,
        typer.Option(
            help="Of `llmrec serve`, which does not run now; with it running, ask it to DELETE.",
            envvar="LLMREC_DATABASE",
        ),
    ] = None,
    trained: Annotated[
        Any,
        typer.Option(
            parser=_read_trained,
            metavar="|".join(get_args(Trained)),
            help="What saw the person in engines. keep: named. fit: fitted again without them. "
            "refuse: nothing is done if there is any.",
        ),
    ] = "keep",
    llm: Annotated[
        bool, typer.Option("--llm/--no-llm", help="Whether engines keep their language models.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write the certificate here, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Forget a person: in the log, engines, stored forecasts, training examples and a server.

    What refuses does so before anything is changed; an interrupted run goes on when it is started
    again. Batch output, reports and charts that were written are not looked at.
    """
    if out is not None:
        _require_certificate_path(out)
    places = ForgetPlaces(
        data,
        reading,
        tuple(model or ()),
        tuple(stored or ()),
        tuple(examples or ()),
        tuple(prompts or ()),
        serve_database,
        trained,
        llm,
    )
    with render.warnings_as_lines():
        found = forget_everywhere(user, places)
    if as_json:  # first, for nothing is left to say it of again
        render.print_json(found.to_dict())
    else:
        for line in found.lines():
            render.console.print(Text(line), soft_wrap=True)
    if out is not None:
        atomic_write_text(out, json.dumps(found.to_dict(), indent=1))


def _require_certificate_path(out: Path) -> None:
    """Refuse a path where no certificate can be written, before anybody is forgotten."""
    require_folder(out.parent)
    if out.is_dir():
        raise DataError(f"{out} is a folder: give the path of a file for the certificate.")
