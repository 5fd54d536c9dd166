"""The command that says what was read of a log: check."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from llmrec.cli import render
from llmrec.cli.log_options import KnownBefore, load_before, with_reading_options
from llmrec.cli.options import DATA_HELP, AsJson, app
from llmrec.data.check import check_dataset
from llmrec.data.options import ReadingOptions


@app.command()
@with_reading_options
def check(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    reading: ReadingOptions,
    cutoff: KnownBefore = None,
    as_json: AsJson = False,
) -> None:
    """Say what was read of a log, what was set aside by which rule, and what to expect of it."""
    found = check_dataset(load_before(data, reading, cutoff))
    if as_json:
        render.print_json(found.to_dict())
        return
    for line in found.lines():
        text = line.lstrip()
        render.console.print(Padding(Text(text), (0, 0, 0, len(line) - len(text))))
