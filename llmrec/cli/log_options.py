"""The options that say how a log is read, on every command that takes one."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import Field
from typing import Annotated, Any

import numpy as np
import typer

from llmrec.cli.render import print_remark
from llmrec.data.calendar import parse_cutoff
from llmrec.data.check import summarize_reading
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import is_embedded
from llmrec.data.options import READING_FIELDS, ReadingOptions, raising

PANEL = "How the log is read"
_ORDERS = {True: "days", False: "months"}
KnownBefore = Annotated[
    str | None,
    typer.Option("--cutoff", help="Leave out what happened at or after it, 2017-12-03."),
]


def with_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Put an option for each field of `ReadingOptions` in the place of the argument ``reading``."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name in READING_FIELDS}
        command(**values, reading=ReadingOptions(**given))

    own = [given for given in signature.parameters.values() if given.name != "reading"]
    parameters = [*own, *map(_parameter, READING_FIELDS.values())]
    run.__annotations__ = {given.name: given.annotation for given in parameters}
    setattr(run, "__signature__", signature.replace(parameters=parameters))  # noqa: B010  (mypy)
    return run


def load_log(data: str, reading: ReadingOptions, cutoff: str | None = None) -> Dataset:
    """Load a log, or what was known of it before a cutoff; stderr says in a line what was read.

    Nothing is said of embedded logs, nor of one that left nothing to decide.

    Raises
    ------
    DataError
        If the log or the cutoff cannot be read, or nothing lies before the cutoff.
    """
    dataset = load_before(data, reading, cutoff)
    if dataset.findings and not is_embedded(data):
        same = " with the same options" if reading.to_dict() or cutoff else ""
        command = f"`llmrec check {shlex.quote(data)}`{same}"
        print_remark(f"{summarize_reading(dataset)} {command} shows more.")
    return dataset


def load_before(data: str, reading: ReadingOptions, cutoff: str | None) -> Dataset:
    """Load a log, or what was known of it before a cutoff, without a word about it."""
    dataset = reading.load(data)
    if cutoff is None:
        return dataset
    return dataset.known_before(read_time("Cutoff", cutoff, dataset.log.day_first))


def read_time(name: str, text: str, day_first: bool | None) -> np.datetime64:
    """Read a time of an option, in the log's order of day and month; stderr has how it was read.

    Nothing is said of a time that begins with its year.
    """
    time = parse_cutoff(text, day_first)
    day, clock = str(time.astype("datetime64[m]")).split("T")
    if not text.strip().startswith(day[:4]):
        at = "" if clock == "00:00" else f" {clock}"
        order = "" if day_first is None else f" ({_ORDERS[day_first]} first, as in the log)"
        print_remark(f"{name} {text} is read as {day}{at}{order}.")
    return time


def _parameter(option: Field[Any]) -> inspect.Parameter:
    """Give the parameter of a command for one field of `ReadingOptions`."""
    about, flag = option.metadata, f"--{option.name.replace('_', '-')}"
    if option.default is False:
        kind: Any = bool
        shown = typer.Option(flag, help=about["help"], rich_help_panel=PANEL)
    else:
        kind = Any
        shown = typer.Option(
            flag,
            parser=raising(typer.BadParameter, about["parse"]),
            metavar=about["metavar"],
            help=about["help"],
            rich_help_panel=PANEL,
        )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[kind, shown],
    )
