"""The commands of `llmrec audit`: what forecasts need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from llmrec.cli import render
from llmrec.cli.forecaster_names import read_names
from llmrec.cli.log_options import KnownBefore, load_log, with_reading_options
from llmrec.cli.options import AsJson, Data, Forecasters, Model, app
from llmrec.cli.reports import load_language_model, to_records
from llmrec.data.options import ReadingOptions
from llmrec.errors import DataError

COSTS = {
    "order": "Shuffle the order of each history, and say what it costs.",
    "names": "Rename the categories, and say what it costs.",
    "titles": "Hide the titles, and say what it costs.",
    "length": "Cut histories to their newest events, and say what it costs.",
}


class AuditGroup(TyperGroup):
    """Names the audits there are where one is asked for that there is not."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Give the command of an audit; DataError if there is none of that name."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            known = ", ".join(self.commands)
            raise DataError(f"no audit is called {args[0]!r}; choose from {known}.")
        return super().resolve_command(ctx, args)


audits = typer.Typer(
    cls=AuditGroup,
    no_args_is_help=True,
    help="Say what forecasts need: order, names, titles, length.",
)
app.add_typer(audits, name="audit")


def show_table(title: str, table: pd.DataFrame) -> None:
    """Print a tidy table whole."""
    view = Table(title=Text(f"{title}; 95 % intervals over users"))
    numbers = ("value", "low", "high")
    columns = [column for column in table if column not in ("dataset", "audit")]
    for column in columns:
        view.add_column(str(column), justify="right" if column in (*numbers, "n") else "left")
    for row in table.to_dict("records"):
        view.add_row(*(f"{row[c]:.4f}" if c in numbers else str(row[c]) for c in columns))
    render.console.print(view)


def _cost_audit(kind: str) -> Callable[..., None]:
    """Give the command that audits what one change of the histories costs."""

    def command(
        reading: ReadingOptions,
        data: Data = "ml-100k",
        forecasters: Forecasters = "RidgeAutoregression,LLM",
        model: Model = "smollm2-135m",
        cutoff: KnownBefore = None,
        users: Annotated[int, typer.Option(min=1, help="Test windows, drawn at random.")] = 200,
        as_json: AsJson = False,
    ) -> None:
        from llmrec.evaluation.audits import audit_dataset

        names = read_names(forecasters)
        reader = load_language_model(model) if "LLM" in names else None
        family = [name for name in names if name != "LLM"]
        table = audit_dataset(load_log(data, reading, cutoff), kind, family, reader, users)
        if as_json:
            render.print_json(to_records(table))
        else:
            show_table(f"{data}: what the audit of {kind} changes", table)

    return with_reading_options(command)


for _kind, _help in COSTS.items():
    audits.command(_kind, help=_help)(_cost_audit(_kind))
