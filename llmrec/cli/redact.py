"""The command that writes a log without what tells who somebody is: redact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from llmrec.cli import render
from llmrec.cli.log_options import load_log, with_reading_options
from llmrec.cli.options import DATA_HELP, AsJson, app
from llmrec.cli.paths import require_folder
from llmrec.data.options import ReadingOptions
from llmrec.data.redaction import Redactor, count_kinds, save_redacted
from llmrec.errors import DataError


@app.command()
@with_reading_options
def redact(
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    out: Annotated[Path, typer.Option(help="New folder for the log without them.")],
    reading: ReadingOptions,
    names: Annotated[
        Path | None,
        typer.Option(
            help="File of names to replace, too, one a line.", exists=True, dir_okay=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a log whose titles hold no mail address, telephone number or name that is given.

    The folder gets the events, the items, and how often each kind was replaced; any command takes
    it as --data. The log itself stays as it is.
    """
    if out.exists():
        raise DataError(f"{out} is there already: give a new folder.")
    require_folder(out)
    redactor = Redactor([] if names is None else _read_names(names))
    found, counts = redactor.redact_dataset(load_log(data, reading))
    save_redacted(found, counts, out)
    rows = count_kinds(counts)
    if as_json:
        render.print_json(rows)
        return
    table = Table("in titles and categories", "replaced", box=None)
    for kind, n in rows.items():
        table.add_row(kind, f"{n:,}")
    render.console.print(table)
    render.console.print(f"Written to {out}; the log itself is as it was.", markup=False)


def _read_names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): save it as UTF-8.") from error
