"""What the command line shows: people, lists, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
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
from llmrec.explain.evidence import day, percent
from llmrec.explain.item import ItemExplanation
from llmrec.explain.whole import Explanation, score_parts
from llmrec.explain.wording import wording_note
from llmrec.ranking.effects import EditEffect, EditOutcome
from llmrec.ranking.wishes import Wishes, sentences

console = Console(highlight=False)
CHANGES_SHOWN = 8  # categories
NOTHING = "Nothing is left: all that could be listed is muted or was taken."
MIXED = (
    "The list is mixed to follow the forecast (dial {:g}), not ordered by score alone. Effects of "
    "edits, and why an item is not listed, are told of the list by score."
)

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


RECORD = {
    "log_loss": ("log-loss, nats per event", "{:.4f}"),
    "gain_on_mean": ("  gain on the mean of the past", "{:+.4f}"),
    "gain_on_counting": ("  gain on counting", "{:+.4f}"),
    "jsd": ("divergence from what came, bits", "{:.4f}"),
    "coverage80": ("inside the 80 % interval", "{:.0%}"),
    "came_true": ("statements that came true", "{:.0%}"),
}


def show_receipts(scores: pd.DataFrame, record: pd.DataFrame, *, one_by_one: bool) -> None:
    """Print track records, each receipt too if wanted, and what is not scored and why."""
    if one_by_one:
        console.print(_each(scores), "")
    for _, part in record.groupby(["model", "period", "in_advance"]):
        console.print(_record(part), "")
    for remark in _remarks(scores):
        console.print(Text(clean_text(remark, 1_000), style="dim"))


def _record(record: pd.DataFrame) -> Group:
    """Lay out the record of one model, a line a metric."""
    first = record.iloc[0]
    made = "in advance" if first["in_advance"] else "in hindsight"
    title = f"{clean_text(first['model'])}, {first['period']}, made {made}"
    view = Table(box=None, header_style="dim", pad_edge=False)
    counted = ["receipts"] if "user_id" in record else ["people", "receipts"]
    for column in ("", "mean", "95 % interval", *counted):
        view.add_column(column, justify="right" if column else "left", no_wrap=True)
    rows = record.rename(columns={"n": "people"}).set_index("metric").loc[list(RECORD)]
    for (name, form), row in zip(RECORD.values(), rows.to_dict("records"), strict=True):
        value, low, high = (_number(form, row[column]) for column in ("value", "low", "high"))
        bounds = "-" if low == "-" else f"({low}, {high})"
        view.add_row(name, value, bounds, *(str(row[column]) for column in counted))
    return Group(Text(title, style="bold"), view)


def _each(scores: pd.DataFrame) -> Table:
    """Lay out receipts, a line each; those that are not scored have a status instead."""
    view = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("from", "model", "events", "loss", "on mean", "on counting", "true"):
        justify: Any = "left" if column in ("from", "model") else "right"
        view.add_column(column, justify=justify, overflow="fold")
    shown = {"log_loss": "{:.3f}", "gain_on_mean": "{:+.3f}", "gain_on_counting": "{:+.3f}"}
    for row in scores.to_dict("records"):
        numbers = [_number(form, row[metric]) for metric, form in shown.items()]
        if row["status"] != "scored":
            numbers[0] = row["status"]
        events, true = _number("{:.0f}", row["events"]), _number("{:.0%}", row["came_true"])
        when, model = f"{row['cutoff']:%Y-%m-%d}", Text(clean_text(row["model"]))
        view.add_row(when, model, events, *numbers, true)
    return view


def _remarks(scores: pd.DataFrame) -> list[str]:
    """Say what is not scored and why, what is no forecast, and whose past has changed since."""
    remarks = []
    unscored = scores[scores["status"] != "scored"]
    if len(unscored):
        counts = ", ".join(
            f"{n} {status}" for status, n in unscored["status"].value_counts().items()
        )
        remarks.append(f"Not scored: {counts}.")
        remarks += [why for why in unscored["why"].unique()[:5] if why]
    if late := int((~scores["in_advance"]).sum()):
        remarks.append(f"{late} made in hindsight: the log at hand reached beyond the cutoff.")
    judged = scores["status"].isin(["scored", "nothing taken"])
    if changed := int((judged & ~scores["same_past"]).sum()):
        remarks.append(f"{changed} saw a past that the log no longer holds: it has been changed.")
    return remarks


def _number(form: str, value: float) -> str:
    return "-" if pd.isna(value) else form.format(value)


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Give a table's rows as plain values for JSON; NaN becomes null."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", date_format="iso"))
    return rows


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
    worded = f"{source.proposed} of the statements above are in the model's words"
    refused = f"; {source.rejected} of its claims did not hold and are not shown"
    note = (
        f"{source.model}: {source.how} ({source.why}). {worded}{refused * bool(source.rejected)}."
    )
    parts.append(Padding(Text(note, style="dim"), (0, 2, 1, 2)))
    if items:
        parts.append(listing(items))
    if happened is not None:
        parts.append(Padding(Text(outcome(happened)), (1, 2, 0, 2)))
    console.print(Group(*parts))


def listing(items: Sequence[Recommendation], moves: Mapping[str, str] | None = None) -> Group:
    """Lay out recommended items, each with its reason and, by item id, how it moved.

    If the model was asked to word the reasons, one line says how often that held.
    """
    lines: list[Any] = [] if items else [Text(f"  {NOTHING}")]
    for item in items:
        move = f"  ({moves[item.item_id]})" if moves and item.item_id in moves else ""
        lines.append(Text(f"{item.rank:>4}  {item.title}{move}", style="bold"))
        lines.append(Padding(Text(item.why, style="dim"), (0, 2, 0, 6)))
    if note := wording_note([item.explanation for item in items]):
        lines.append(Padding(Text(note), (1, 2, 0, 2)))
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


def foretold(wishes: Wishes, effect: EditEffect) -> Group:
    """Lay out what was understood, what was not, and what it will do."""
    counting = [edit for edit in wishes.edits if edit not in effect.ended]
    understood = [
        *sentences(counting, effect.catalog),
        *(f"{sentence} It has ended and does nothing." for sentence in _ended(effect)),
        *(f"“{said}” was taken for {name}." for said, name in wishes.taken_for),
    ]
    if change := strength_change(effect):
        understood.append(change)
    lines: list[Any] = [Text("Understood", style="bold")]
    lines += [Padding(Text(line), (0, 0, 0, 2)) for line in understood]
    if wishes.misread:
        lines.append(Text("Not understood, and left out", style="bold red"))
    lines += [Padding(Text(one.text), (0, 0, 0, 2)) for one in wishes.misread]
    return Group(*lines, Text(""), Text("What it will do", style="bold"), _changes(effect))


def came_of_it(
    effect: EditEffect, outcome: EditOutcome, items: Sequence[Recommendation], by_score: bool
) -> Group:
    """Lay out the list with the edits and whether all was foretold; if by score, what changed."""
    ids, titles = effect.catalog.item_ids, effect.catalog.titles
    moved = {ids[item]: move for item, move in moves(outcome).items()} if by_score else {}
    parts: list[Any] = [Text("\nThe list with it", style="bold"), listing(items, moved)]
    if by_score and outcome.left:
        left = "; ".join(titles[item] for item in outcome.left)
        parts.append(Padding(Text(f"Left the list: {left}."), (1, 2, 0, 2)))
    parts.append(Padding(Text(verdict(effect, outcome)), (1, 2, 0, 2)))
    return Group(*parts)


def strength_change(effect: EditEffect) -> str:
    """Say how hard the forecast tilts the list, if that changes; else ""."""
    before, after = effect.strength_before, effect.strength_after
    if after == before:
        return ""
    return f"The forecast tilts the list with a strength of {after:g} instead of {before:g}."


def moves(outcome: EditOutcome) -> dict[int, str]:
    """Say of each listed item that is new, or stood elsewhere: "new", "was 7"."""
    moved = {item: f"was {was}" for item, (was, _) in outcome.moved.items()}
    return moved | dict.fromkeys(outcome.entered, "new")


def verdict(effect: EditEffect, outcome: EditOutcome) -> str:
    """Say whether ranking again gave what was foretold."""
    if not len(effect.item_idx):
        return "No item may be ranked, so there is nothing to verify."
    if outcome.held:
        return (
            f"Verified by ranking again: the scores of all {len(effect.item_idx):,} items are as "
            f"foretold (largest error {outcome.largest_error:.0e}), and so is their order."
        )
    return f"NOT as foretold. Ranking again broke: {'; '.join(outcome.broken)}."


def effect_summary(wishes: Wishes, effect: EditEffect, outcome: EditOutcome) -> dict[str, Any]:
    """Give edits, their effect and what came of it as plain values for JSON."""
    names, ids = effect.catalog.categories, effect.catalog.item_ids
    before, after = effect.before.category_weights, effect.after.category_weights
    return {
        "understood": sentences(wishes.edits, effect.catalog),
        "edits": [vars(edit) for edit in wishes.edits],
        "ended": _ended(effect),
        "taken_for": dict(wishes.taken_for),
        "not_understood": [vars(one) for one in wishes.misread],
        "strength": [effect.strength_before, effect.strength_after],
        "categories": {
            names[c]: {
                "weight_before": float(before[c]),
                "weight_after": float(after[c]),
                "score_change": float(effect.category_changes[c]),
                "items_of_it_alone": effect.direction(c),
            }
            for c in _shown(effect)
        },
        "entered": [ids[item] for item in outcome.entered],
        "left": [ids[item] for item in outcome.left],
        "moved": {ids[item]: ranks for item, ranks in outcome.moved.items()},
        "largest_error": outcome.largest_error,
        "held": outcome.held,
        "broken": outcome.broken,
    }


def _ended(effect: EditEffect) -> list[str]:
    return sentences(effect.ended, effect.catalog)


def _shown(effect: EditEffect) -> list[int]:
    """List the edited categories, those whose share moves most first; without edits the largest."""
    moved = np.abs(effect.after.category_weights - effect.before.category_weights)
    chosen = sorted(effect.edits, key=lambda category: -moved[category])
    return (chosen or effect.before.top(CHANGES_SHOWN).tolist())[:CHANGES_SHOWN]


def _changes(effect: EditEffect) -> Table:
    """Lay out shares before and after, and what that does to items of one category alone."""
    view = Table(box=None, header_style="dim", pad_edge=True, padding=(0, 1))
    for column in ("category", "share", "then", "score", "items of it alone"):
        view.add_column(column, justify="right" if column in ("share", "then", "score") else "left")
    before, after = effect.before.category_weights, effect.after.category_weights
    shown = _shown(effect)
    for c in shown:
        view.add_row(
            Text(effect.catalog.categories[c], overflow="ellipsis", no_wrap=True),
            percent(before[c]),
            percent(after[c]),
            f"{effect.category_changes[c]:+.2f}",
            "are not listed" if effect.mutes(c) else effect.direction(c),
        )
    others = np.setdiff1d(np.arange(len(before)), shown)
    if others.size:
        low, high = effect.category_changes[others].min(), effect.category_changes[others].max()
        change = f"{low:+.2f}" if high - low < 0.005 else f"{low:+.2f} to {high:+.2f}"
        rest = f"the {len(others)} others"
        view.add_row(rest, percent(before[others].sum()), percent(after[others].sum()), change, "")
    return view


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
        "wording": wording_note([item.explanation for item in items]),
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
