"""The commands of `llmrec audit`: what forecasts need, and how people's interests drift."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from llmrec.cli import render
from llmrec.cli.forecaster_names import read_names
from llmrec.cli.log_options import KnownBefore, load_log, with_reading_options
from llmrec.cli.options import AsJson, Data, Forecasters, Model, app, refuse_nan
from llmrec.cli.reports import load_language_model, to_records
from llmrec.data.names import clean_text
from llmrec.data.options import ReadingOptions
from llmrec.errors import DataError

if TYPE_CHECKING:
    from llmrec.evaluation.drift_types import DriftAudit, PersonDrift

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
    help="Say what forecasts need, how interests drift, and what engines tell of their people.",
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


@audits.command()
@with_reading_options
def drift(
    reading: ReadingOptions,
    data: Data = "ml-100k",
    user: Annotated[str | None, typer.Option(help="Show this person's evidence.")] = None,
    cycle: Annotated[
        float, typer.Option(min=1, callback=refuse_nan, help="Days that a season's cycle has.")
    ] = 365.25,
    cutoff: KnownBefore = None,
    as_json: AsJson = False,
) -> None:
    """Say whose interests drift, and how: gradually, suddenly, with the seasons, there and back.

    Each person's own sittings are permuted; what everybody does is nobody's drift. Of those said to
    drift, at most 5 % are expected not to (Benjamini and Hochberg).
    """
    from llmrec.evaluation.drift_types import audit_drift

    dataset = load_log(data, reading, cutoff)
    if user is not None:
        dataset.log.user_index(user)  # refuses an unknown one before the work
    found = audit_drift(dataset, cycle)
    if user is not None:
        _show_person(user, found.of(user), as_json)
    elif as_json:
        people = [one.to_dict() for one in found.people]
        counts = to_records(found.table())
        render.print_json({"types": counts, "not_told": found.n_not_told, "people": people})
    else:
        _show_drift(data, found)


def _show_drift(data: str, found: DriftAudit) -> None:
    """Print how many people's interests drift in which way, and whose cannot be told."""
    view = Table("drift", "people", "share", "clearest example", box=None, header_style="dim")
    for row in found.table().to_dict("records"):
        example = Text(clean_text(row["example"]))
        view.add_row(row["type"], str(row["people"]), f"{row['share']:.0%}", example)
    title = f"{data}: drift of {len(found.people)} people, 5 % false discoveries"
    render.console.print(Text(clean_text(title), style="bold"), view)
    render.console.print(f"Not told: {found.n_not_told} people with too few days or events.")


def _show_person(user: str, person: PersonDrift | None, as_json: bool) -> None:
    """Print the evidence of one person's drift."""
    if as_json:
        not_told = {"user_id": user, "type": None}
        render.print_json(not_told if person is None else person.to_dict())
        return
    if person is None:
        text = f"{user}: not told, for too few days or events. That is not the same as no drift."
        render.console.print(Text(clean_text(text)))
        return
    lines = [
        f"{user}: {person.type}. {person.describe()}",
        f"p = {person.p_value:.4f}, q = {person.q_value:.4f} "
        f"({person.n_events} events, {person.n_sittings} sittings)",
        *(f"  {name:<10}{value:6.1f}" for name, value in person.statistics.items()),
    ]
    render.console.print(Text("\n".join(clean_text(line, 1_000) for line in lines)))
