"""People, lists and effects of edits as text on a terminal, and as JSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderHook
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from llmrec.data.dataset import Dataset
from llmrec.data.names import clean_text
from llmrec.data.periods import History
from llmrec.explain import plots
from llmrec.explain.causes import format_ordinal
from llmrec.explain.evidence import format_day
from llmrec.explain.explanation import Explanation, score_parts
from llmrec.explain.facts import format_percent
from llmrec.explain.item import ItemExplanation
from llmrec.explain.printable import printable, to_json
from llmrec.explain.reword import wording_note
from llmrec.forecast import Forecast
from llmrec.ranking.edit_parser import ParsedEdits, edit_sentences
from llmrec.ranking.effects import (
    NOTHING_LISTED,
    EditEffect,
    EditOutcome,
    outcome_verdict,
    rank_changes,
    strength_text,
)
from llmrec.session_inputs import Recommendation

CHANGES_SHOWN = 8  # categories
CALIBRATED_NOTE = (
    "The list is mixed to follow the forecast (dial {:g}), not ordered by score alone. Effects of "
    "edits, and why an item is not listed, are about the list by score."
)


@dataclass(frozen=True)
class _Printable:
    """A renderable whose texts are printable, wherever in the log they come from."""

    content: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _PrintableOnly(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(one) for one in renderables]


def make_console(**options: Any) -> Console:
    """Make a console that prints no control or bidirectional character of the data."""
    found = Console(highlight=False, **options)
    found.push_render_hook(_PrintableOnly())
    return found


console = make_console()


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print what is warned of inside as lines on stderr, without a place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(one.message) for one in caught if one.category is UserWarning):
        print_remark(message)


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
        plots.render_terminal(history, forecast),
        Padding(Text(forecast.description), (1, 2)),
    ]
    verb = "is" if source.proposed == 1 else "are"
    model_words = f"{source.proposed} of the statements above {verb} in the model's words"
    refused = f"; {source.rejected} of its claims did not hold and are not shown"
    claims = f" {model_words}{refused * bool(source.rejected)}."
    how = "counting alone, in its place" if source.how == "fallback" else source.how
    why = f" ({source.why})" if source.why else ""
    has_model = bool(source.adapter or source.prompt or source.proposed)
    note = f"{source.model}: {how}{why}.{claims * has_model}"
    parts.append(Padding(Text(note, style="dim"), (0, 2, 1, 2)))
    if items:
        parts.append(render_list(items))
    if happened is not None:
        parts.append(Padding(Text(outcome_text(happened, history.verb)), (1, 2, 0, 2)))
    console.print(Group(*parts))


def render_list(
    items: Sequence[Recommendation],
    moves: Mapping[str, str] | None = None,
    *,
    verb: str = "taken",
) -> Group:
    """Lay out recommended items, each with its reason and, by item id, how it moved.

    If the model reworded the reasons, one line says how many of its texts hold.
    """
    lines: list[Any] = [] if items else [Text(f"  {NOTHING_LISTED.format(verb=verb)}")]
    for item in items:
        move = f"  ({moves[item.item_id]})" if moves and item.item_id in moves else ""
        lines.append(Text(f"{item.rank:>4}  {item.title}{move}", style="bold"))
        lines.append(Padding(Text(item.why, style="dim"), (0, 2, 0, 6)))
    if note := wording_note([item.explanation for item in items]):
        lines.append(Padding(Text(note), (1, 2, 0, 2)))
    return Group(*lines)


def render_explanation(found: Explanation) -> Group:
    """Lay out all that explains one item, part by part."""
    item, change = found.item, Padding(Text(found.change.text), (0, 2))
    if item is None:
        return Group(change)
    place = Text(f"Rank {item.rank:,} of {found.n_ranked:,}; the list has {found.k}", style="dim")
    parts: list[Any] = [Rule(Text(item.title)), place, Padding(Text(item.text), (1, 2, 0, 2))]
    if item.rejection:
        refused = f"What the model wrote did not hold and is not shown: {item.rejection}."
        parts.append(Padding(Text(refused, style="dim"), (1, 2, 0, 2)))
    if found.lifting:
        parts.append(Text("\nWhat lifts it: its rank without each", style="bold"))
        parts.append(Padding(_lifting(found), (0, 2)))
    if found.against:
        parts.append(Text("\nWhat speaks against it", style="bold"))
        parts += [Padding(Text(line), (0, 2)) for line in found.against]
    if item.statements:
        parts.append(Text("\nWhat the forecast says", style="bold"))
        parts += [Padding(Text(statement.text), (0, 2)) for statement in item.statements]
    parts += [Text("\nEvidence", style="bold"), Padding(_evidence(item), (0, 2))]
    parts += [Text("\nThe score, in parts", style="bold"), Padding(_split(item), (0, 2))]
    return Group(*parts, Text("\nWhat would change it", style="bold"), change)


def _lifting(found: Explanation) -> Table:
    """Lay out past items with the share of each in what lifts, as bars, and the rank without it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="cyan", min_width=plots.BAR_CELLS)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True, style="dim")
    for one in found.lifting:
        rank = format_ordinal(one.rank_without)
        title = Text(one.latest.title)
        table.add_row(plots.share_bar(one.share), format_percent(one.share), title, rank)
    return table


def _evidence(item: ItemExplanation) -> Table:
    """Lay out events by day and title, then how many there are of the item and its categories."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for date, title in dict.fromkeys((event.date, event.title) for event in item.evidence):
        table.add_row(format_day(date), Text(title))
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


def render_effect(parsed: ParsedEdits, effect: EditEffect) -> Group:
    """Lay out what was understood, what was not, and what it will do."""
    counting = [edit for edit in parsed.edits if edit not in effect.expired_edits]
    understood = [
        *edit_sentences(counting, effect.catalog),
        *(f"{sentence} It has ended and does nothing." for sentence in _ended(effect)),
        *(f"“{said}” was taken for {name}." for said, name in parsed.assumed),
    ]
    if change := strength_text(effect):
        understood.append(change)
    lines: list[Any] = [Text("Understood", style="bold")]
    lines += [Padding(Text(line), (0, 0, 0, 2)) for line in understood]
    if parsed.issues:
        lines.append(Text("Not understood, and left out", style="bold red"))
    lines += [Padding(Text(one.text), (0, 0, 0, 2)) for one in parsed.issues]
    return Group(*lines, Text(""), Text("What it will do", style="bold"), _changes(effect))


def render_outcome(
    effect: EditEffect,
    outcome: EditOutcome,
    items: Sequence[Recommendation],
    *,
    by_score: bool,
    verb: str = "taken",
) -> Group:
    """Lay out the list with the edits and whether it is as predicted; if by score, the changes."""
    ids, titles = effect.catalog.item_ids, effect.catalog.titles
    moved = {ids[item]: move for item, move in rank_changes(outcome).items()} if by_score else {}
    parts: list[Any] = [
        Text("\nThe list with it", style="bold"),
        render_list(items, moved, verb=verb),
    ]
    if by_score and outcome.left:
        left = "; ".join(titles[item] for item in outcome.left)
        parts.append(Padding(Text(f"Left the list: {left}."), (1, 2, 0, 2)))
    parts.append(Padding(Text(outcome_verdict(effect, outcome)), (1, 2, 0, 2)))
    return Group(*parts)


def effect_summary(parsed: ParsedEdits, effect: EditEffect, outcome: EditOutcome) -> dict[str, Any]:
    """Give edits, their predicted effect and the outcome as plain values for JSON."""
    names, ids = effect.catalog.categories, effect.catalog.item_ids
    before, after = effect.before.category_weights, effect.after.category_weights
    return {
        "understood": edit_sentences(parsed.edits, effect.catalog),
        "edits": [vars(edit) for edit in parsed.edits],
        "ended": _ended(effect),
        "taken_for": dict(parsed.assumed),
        "not_understood": [vars(one) for one in parsed.issues],
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
        "held": outcome.holds,
        "broken": outcome.violations,
    }


def _ended(effect: EditEffect) -> list[str]:
    return edit_sentences(effect.expired_edits, effect.catalog)


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
            format_percent(before[c]),
            format_percent(after[c]),
            f"{effect.category_changes[c]:+.2f}",
            "are not listed" if effect.is_muted(c) else effect.direction(c),
        )
    others = np.setdiff1d(np.arange(len(before)), shown)
    if others.size:
        low, high = effect.category_changes[others].min(), effect.category_changes[others].max()
        change = f"{low:+.2f}" if high - low < 0.005 else f"{low:+.2f} to {high:+.2f}"
        rest = f"the {len(others)} others"
        view.add_row(
            rest,
            format_percent(before[others].sum()),
            format_percent(after[others].sum()),
            change,
            "",
        )
    return view


def outcome_text(happened: dict[str, Any], verb: str = "taken") -> str:
    """Say what then happened, and which of the list was taken."""
    top = ", ".join(f"{name} {share:.0%}" for name, share in happened["top"].items())
    hits = ": " + "; ".join(happened["hits"]) if happened["hits"] else ""
    did = verb[:1].upper() + verb[1:]
    return (
        f"What then happened: {happened['events']} events; the largest categories: {top}. "
        f"{did} of the {happened['listed']} listed: {len(happened['hits'])}{hits}."
    )


def print_remark(text: str) -> None:
    """Print a remark on stderr, where it does not mix with JSON, as one line."""
    shown = Text(clean_text(text, 1_000), style="yellow")
    make_console(stderr=True).print(shown, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON and nothing else."""
    print(to_json(value))
