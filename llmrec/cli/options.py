"""The app, the options that its commands share, and edits read from options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrec.data.periods import History
from llmrec.errors import EditError
from llmrec.forecast import Forecast
from llmrec.ranking.edit_parser import (
    ParsedEdits,
    match_category,
    parse_description_edits,
    parse_edits,
)
from llmrec.ranking.edits import Edit

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
OptionalNames = list[str] | None
InModelWords = Annotated[
    bool, typer.Option("--in-model-words", help="Let the model choose the words of reasons.")
]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the list.")]


def _edit_option(what: str, **checks: Any) -> Any:
    """Give an option that stands among the wishes in --help."""
    panel = "Wishes: what should differ from the forecast"
    return typer.Option(help=what, rich_help_panel=panel, **checks)


EditText = Annotated[
    str, _edit_option('In words: "more thrillers, no horror until March, keep drama".')
]
Description = Annotated[
    Path | None,
    _edit_option(
        "File: the forecast's description, with wishes written into it.",
        exists=True,
        dir_okay=False,
    ),
]
Mute = Annotated[OptionalNames, _edit_option("Nothing of a category; again for another.")]
Until = Annotated[str | None, _edit_option("Day on which wishes end that say no end of their own.")]
Strength = Annotated[float | None, _edit_option("Tilt; 0: none, 1: as forecast.")]


def _parsed_edits(
    history: History,
    forecast: Forecast,
    wish: str,
    description: Path | None,
    mute: OptionalNames,
    until: str | None,
) -> ParsedEdits:
    """Put the edits of options and of words together; EditError if no word is understood."""
    catalog, at = history.catalog, history.cutoff
    muted = tuple(Edit(match_category(name, catalog), 0.0) for name in mute or ())
    said = [ParsedEdits(muted), parse_edits(wish, catalog, at)]
    if description is not None:
        edited = description.read_text(encoding="utf-8-sig", errors="replace")
        said.append(parse_description_edits(forecast.description, edited, catalog, at))
        if not (said[-1].edits or said[-1].issues):
            raise EditError(f"{description}: no wish is written into the forecast's description.")
    found = ParsedEdits.merge(said)
    if found.issues and not found.edits:
        raise EditError("\n".join(one.text for one in found.issues))
    return found if until is None else replace(found, edits=_ending(found.edits, until))


def _ending(edits: Sequence[Edit], until: str) -> tuple[Edit, ...]:
    """Let edits without an end end then; EditError if there is none."""
    if all(edit.until is not None for edit in edits):
        raise EditError(f"--until {until} ends nothing: no wish is without an end of its own.")
    return tuple(replace(edit, until=until) if edit.until is None else edit for edit in edits)
