"""What the command line shows: people, lists, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from llmrec.contracts import Forecast
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History
from llmrec.data.readers import Dataset
from llmrec.engine import Recommendation
from llmrec.explain import picture
from llmrec.explain.evidence import day
from llmrec.explain.item import ItemExplanation
from llmrec.explain.whole import Explanation, score_parts

console = Console(highlight=False)


SAID = (
    "loss: nats per event; gain: paired, with its 95 % interval over people; skill: against the "
    "mean; 80 %: observations inside the 80 % interval."
)


def show_comparison(title: str, table: pd.DataFrame) -> None:
    """Print a line a model, the best first, of what matters most; the report has the rest."""
    whole = table[table["slice"] == "all"]
    for split in dict.fromkeys(whole["split"]):
        rows: list[dict[Any, Any]] = whole[whole["split"] == split].to_dict("records")
        cells = {(row["model"], row["metric"]): row for row in rows}
        models = {row["model"]: row["value"] for key, row in cells.items() if key[1] == "log_loss"}
        view = Table(title=Text(f"{title}, {split}"), box=None, header_style="dim", pad_edge=False)
        for column in ("model", "n", "loss", "gain on counting", "skill", "80 %"):
            view.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
        for model in sorted(models, key=lambda model: models[model]):
            gain = cells[model, "log_loss_gain"]
            view.add_row(
                Text(model),
                str(cells[model, "log_loss"]["n"]),
                f"{models[model]:.4f}",
                f"{gain['value']:+.4f} ({gain['low']:+.4f}, {gain['high']:+.4f})",
                f"{cells[model, 'skill']['value']:+.4f}",
                f"{cells[model, 'coverage80']['value']:.0%}",
            )
        console.print(view)
    console.print(Text(SAID, style="dim"))


def show_table(title: str, table: pd.DataFrame) -> None:
    """Print a tidy table whole."""
    view = Table(title=Text(f"{title}; 95 % intervals over users"))
    numbers = ("value", "low", "high")
    columns = [column for column in table if column not in ("dataset", "audit")]
    for column in columns:
        view.add_column(str(column), justify="right" if column in (*numbers, "n") else "left")
    for row in table.to_dict("records"):
        view.add_row(*(f"{row[c]:.4f}" if c in numbers else str(row[c]) for c in columns))
    console.print(view)


def show_person(
    dataset: Dataset,
    history: History,
    forecast: Forecast,
    items: Sequence[Recommendation],
    happened: dict[str, Any] | None = None,
) -> None:
    """Print a person's picture, description, list, and what then happened."""
    source = forecast.source
    parts: list[Any] = [
        Rule(Text(clean_text(f"{dataset.name}: {dataset.person} {history.user_id}"))),
        picture.terminal(history, forecast),
        Padding(Text(forecast.description), (1, 2)),
    ]
    note = (
        f"{source.model}: {source.how} ({source.why}). Of the statements above the model proposed "
        f"{source.proposed}; {source.rejected} more of its claims did not hold and are not shown."
    )
    parts.append(Padding(Text(note, style="dim"), (0, 2, 1, 2)))
    if items:
        parts.append(listing(items))
    if happened is not None:
        parts.append(Padding(Text(outcome(happened)), (1, 2, 0, 2)))
    console.print(Group(*parts))


def listing(items: Sequence[Recommendation]) -> Group:
    """Lay out recommended items, each with its reason."""
    lines: list[Any] = []
    for item in items:
        lines.append(Text(f"{item.rank:>4}  {item.title}", style="bold"))
        lines.append(Padding(Text(item.why, style="dim"), (0, 2, 0, 6)))
    return Group(*lines)


def explained(found: Explanation) -> Group:
    """Lay out all that explains one item, part by part."""
    item, change = found.item, Padding(Text(found.change.text), (0, 2))
    if item is None:
        return Group(change)
    place = Text(f"Rank {item.rank:,} of {found.n_ranked:,}; the list has {found.k}", style="dim")
    parts: list[Any] = [Rule(Text(item.title)), place, Padding(Text(item.text), (1, 2, 0, 2))]
    if item.refused:
        refused = f"What the model wrote did not hold and is not shown: {item.refused}."
        parts.append(Padding(Text(refused, style="dim"), (1, 2, 0, 2)))
    if item.statements:
        parts.append(Text("\nWhat the forecast says", style="bold"))
        parts += [Padding(Text(told.text), (0, 2)) for told in item.statements]
    parts += [Text("\nEvidence", style="bold"), Padding(_evidence(item), (0, 2))]
    parts += [Text("\nThe score, in parts", style="bold"), Padding(_split(item), (0, 2))]
    return Group(*parts, Text("\nWhat would change it", style="bold"), change)


def _evidence(item: ItemExplanation) -> Table:
    """Lay out events by day and title, then how many there are of the item and its categories."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for date, title in dict.fromkeys((event.date, event.title) for event in item.evidence):
        table.add_row(day(date), Text(title))
    counts = {"this very item": item.times_taken, **item.category_events}
    for what, n in counts.items():
        table.add_row(f"{n:,}", Text(f"{'event' if n == 1 else 'events'} of {what}"), style="dim")
    return table


def _split(item: ItemExplanation) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for name, part in score_parts(item).items():
        table.add_row(Text(name), f"{part:+.4f}")
    table.add_row("score", f"{item.score:+.4f}", style="bold")
    return table


def summary(
    dataset: Dataset, history: History, forecast: Forecast, items: Sequence[Recommendation]
) -> dict[str, Any]:
    """Give a forecast and a list as plain values for JSON."""
    names = dataset.catalog.categories
    weights = forecast.category_weights
    return {
        "dataset": dataset.name,
        "user_id": history.user_id,
        "period": str(history.length),
        "cutoff": str(history.cutoff),
        "category_weights": {names[c]: float(weights[c]) for c in forecast.top(20)},
        "concentration": forecast.concentration,
        "description": forecast.description,
        "statements": [
            vars(statement) | {"category": names[statement.category]}
            for statement in forecast.statements
        ],
        "source": vars(forecast.source),
        "items": [item.explanation.to_dict() for item in items],
    }


def outcome(happened: dict[str, Any]) -> str:
    """Say what then happened, and which of the list was taken."""
    top = ", ".join(f"{name} {share:.0%}" for name, share in happened["top"].items())
    hits = ": " + "; ".join(happened["hits"]) if happened["hits"] else ""
    return (
        f"What then happened: {happened['events']} events; the largest categories: {top}. "
        f"Taken of the {happened['listed']} listed: {len(happened['hits'])}{hits}."
    )


def print_json(value: Any) -> None:
    """Print a value as JSON and nothing else."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows of the same keys as a table, or as JSON."""
    if as_json:
        print_json(rows)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    console.print(table)
