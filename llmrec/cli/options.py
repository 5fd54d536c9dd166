"""The app, the options that its commands share, and edits read from options."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from typer.core import TyperGroup

from llmrec.cli.log_options import read_time
from llmrec.data.versions import FLAGS
from llmrec.errors import DataError, EditError
from llmrec.forecasters.horizon import MAX_HORIZON
from llmrec.language import backends
from llmrec.ranking.edit_parser import (
    ParsedEdits,
    match_category,
    parse_description_edits,
    parse_edits,
)
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import MAX_STRENGTH
from llmrec.session import UserSession


class RenamedFlags(TyperGroup):
    """Takes the flags that version 0.1 had, too; --help does not show them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give flags of 0.1 their names of today, then parse."""
        renamed = [re.sub(r"^--[a-z-]+", lambda flag: FLAGS.get(flag[0], flag[0]), a) for a in args]
        return super().parse_args(ctx, renamed)


app = typer.Typer(
    cls=RenamedFlags,
    add_completion=False,
    no_args_is_help=True,
    help="Forecast what people will take next, recommend from it, and explain.",
)

DATA_HELP = "ml-100k, completejourney, or a folder or file of a log."
Data = Annotated[str, typer.Option(help=DATA_HELP)]
MODEL_HELP = "smollm2-135m, gemma-3-270m, a local folder, or a hub id."
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="As for recommend; give the option again for more engines' folders."
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(help="What runs the model: torch, openvino (fast on a CPU), vllm (a GPU)."),
]
Precision = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16, float16, 8bit or 4bit; default: as it was calibrated."),
]
User = Annotated[str, typer.Option(help="User id, as the log writes it.")]
Users = Annotated[
    list[str], typer.Option("--user", help="User id; give the option again for more people.")
]
Cutoff = Annotated[str | None, typer.Option(help="Start of the period to forecast, 2017-12-03.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Forecasters = Annotated[
    str, typer.Option(help="Names, with commas between; LLM is the language model; all: all.")
]
OptionalForecasters = Annotated[
    str | None,
    typer.Option(
        "--forecasters",
        help="As for audit; default: LastPeriod, RidgeAutoregression, GatedMixture, LLM.",
    ),
]
OptionalNames = list[str] | None
WriterUrl = Annotated[
    str,
    typer.Option(help="Server that words descriptions: http://HOST:PORT/v1; it is sent titles."),
]
WriterModel = Annotated[str, typer.Option(help="Name of the model at --writer-url.")]
ModelWords = Annotated[
    bool, typer.Option("--model-words", help="Let the model choose the words of reasons.")
]
Horizon = Annotated[
    int, typer.Option(min=1, max=MAX_HORIZON, help="Which period after the cutoff; 1: the next.")
]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Length of the list.")]


def refuse_nan(value: float | None) -> float | None:
    """Give an option's number back; BadParameter if it is nan, which click's ranges let pass."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number.")
    return value


NewItems = Annotated[
    int, typer.Option(min=0, help="How many of the list nobody has taken yet; --k for all.")
]
Calibrate = Annotated[
    float,
    typer.Option(
        min=0, max=1, callback=refuse_nan, help="How far the list's mix follows the forecast."
    ),
]


def _edit_option(what: str, **checks: Any) -> Any:
    """Give an option that stands among the edits in --help."""
    panel = "Edits: what should differ from the forecast"
    return typer.Option(help=what, rich_help_panel=panel, **checks)


EditText = Annotated[
    str, _edit_option('In words: "more thrillers, no horror until March, keep drama".')
]
Description = Annotated[
    Path | None,
    _edit_option(
        "File: the forecast's description, with edits written into it.",
        exists=True,
        dir_okay=False,
    ),
]
Mute = Annotated[OptionalNames, _edit_option("Nothing of a category; again for another.")]
Until = Annotated[str | None, _edit_option("Day on which edits end that say no end of their own.")]
Strength = Annotated[
    float | None,
    _edit_option("Tilt; 0: none, 1: as forecast.", min=0, max=MAX_STRENGTH, callback=refuse_nan),
]


def model_options(backend: str | None, precision: str | None) -> dict[str, Any]:
    """Give the options of `LanguageModel.load` for what was chosen; none if nothing was."""
    bits, numbers = get_args(backends.Quantization), get_args(backends.Precision)
    if precision is not None and precision not in (*bits, *numbers):
        known = ", ".join((*numbers, *bits))
        raise DataError(f"--precision is {precision!r}; it should be one of {known}")
    given = {"backend": backend, "quantize" if precision in bits else "dtype": precision}
    return {name: value for name, value in given.items() if value is not None}


def parse_edit_options(
    session: UserSession,
    text: str,
    description: Path | None,
    mute: OptionalNames,
    until: str | None,
) -> ParsedEdits:
    """Put the edits of options and of words together; EditError if no word is understood."""
    catalog, cutoff = session.history.catalog, session.history.cutoff
    muted = tuple(Edit(match_category(name, catalog), 0.0) for name in mute or ())
    parsed = [ParsedEdits(muted), parse_edits(text, catalog, cutoff)]
    if description is not None:
        edited = description.read_text(encoding="utf-8-sig", errors="replace")
        forecast = session.forecast.description
        parsed.append(parse_description_edits(forecast, edited, catalog, cutoff))
        if not (parsed[-1].edits or parsed[-1].issues):
            raise EditError(f"{description}: no edit is written into the forecast's description.")
    found = ParsedEdits.merge(parsed).require_edits()
    if until is None:
        return found
    end = read_time("--until", until, session.history.log.day_first)
    return replace(found, edits=_with_end(found.edits, until, end))


def _with_end(edits: Sequence[Edit], until: str, end: np.datetime64) -> tuple[Edit, ...]:
    """Give edits without an end this one; EditError if all have one."""
    if all(edit.until is not None for edit in edits):
        raise EditError(f"--until {until} ends nothing: no edit is without an end of its own.")
    return tuple(replace(edit, until=end) if edit.until is None else edit for edit in edits)
