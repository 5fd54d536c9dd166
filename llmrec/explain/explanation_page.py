"""One item's whole explanation as a picture and as a page that needs no knowledge of the model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.errors import DataError
from llmrec.explain.causes import PastEffect, format_ordinal
from llmrec.explain.explanation import Explanation, score_parts
from llmrec.explain.facts import format_percent
from llmrec.explain.figures import fit_fonts, new_figure, to_svg
from llmrec.explain.plots import COLORS, MUTED_COLOR, TEXT_COLOR, shorten
from llmrec.explain.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = "explanation.html.jinja"
LIFTS_COLOR, AGAINST_COLOR = COLORS[0], COLORS[1]
MAX_TITLE_LENGTH = 40  # what fits at the left of the bars
ROW_HEIGHT = 0.34  # inches of one bar with its name


def causes_figure(found: Explanation) -> Figure:
    """Draw the share of each past item that lifts an item, with the rank without it.

    Those that speak against it are below, in another colour. Without any, the figure says so.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure = _draw_figure(found)
    fit_fonts(figure)
    return figure


def save_explanation(found: Explanation, path: Path | str) -> None:
    """Write the explanation as a page (.html) or its figure (.png); nobody sees half a file.

    Raises
    ------
    DataError
        If the path has another ending.
    """
    path = Path(path)
    if path.suffix not in (".html", ".png"):
        raise DataError(f"an explanation is written as .html or .png, not {path.suffix!r}")
    if path.suffix == ".png":
        content = io.BytesIO()
        causes_figure(found).savefig(content, format="png", metadata={"Software": None})
        atomic_write_bytes(path, content.getvalue())
    else:
        atomic_write_text(path, render_explanation_html(found))


def render_explanation_html(found: Explanation) -> str:
    """Give one self-contained page: the reason, the figure, statements, evidence and the score."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("llmrec.explain", "."), autoescape=True, undefined=StrictUndefined
    )
    item = found.item
    page = environment.get_template(TEMPLATE).render(
        title=found.change.title,
        item=item,
        place=f"Rank {item.rank:,} of {found.n_ranked:,}; the list has {found.k}." if item else "",
        figure=Markup(to_svg(_draw_figure(found))) if found.past else "",
        against=found.against,
        evidence=dict.fromkeys(map(str, item.evidence)) if item else (),
        parts=score_parts(item) if item else {},
        change=found.change.text,
    )
    return printable(page)


def _draw_figure(found: Explanation) -> Figure:
    rows = [*found.lifting, *found.lowering]
    n_rows = max(len(rows), 1)
    top = 1.1 + ROW_HEIGHT * n_rows
    figure = new_figure(figsize=(9.6, top), dpi=150, facecolor="white")
    axes = figure.add_axes((0.36, 0.06, 0.42, ROW_HEIGHT * n_rows / top))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(n_rows - 0.5, -0.5)
    total = sum(one.effect for one in rows if one.effect > 0) or 1.0
    for row, one in enumerate(rows):
        _draw_row(axes, row, one, min(abs(one.effect) / total, 1.0))
    title = shorten(found.change.title, MAX_TITLE_LENGTH)
    heading = f"What lifts {title} to rank {found.rank_by_score:,}"
    note = "share of what these past items add · its rank without each of them"
    if found.item is None:
        heading, note = title, "it may not be listed"
    elif not rows:
        note = "nothing of this person's own past that was tried lifts it"
    style: dict[str, Any] = {"color": TEXT_COLOR, "parse_math": False}
    figure.text(0.03, 1 - 0.35 / top, heading, fontsize=12, weight="bold", **style)
    figure.text(0.03, 1 - 0.65 / top, note, fontsize=9, **style | {"color": MUTED_COLOR})
    return figure


def _draw_row(axes: Axes, row: int, one: PastEffect, length: float) -> None:
    lifts = one.effect > 0
    axes.barh(row, length, height=0.62, color=LIFTS_COLOR if lifts else AGAINST_COLOR)
    name = shorten(one.latest.title, MAX_TITLE_LENGTH)
    style: dict[str, Any] = {"va": "center", "fontsize": 9, "parse_math": False}
    axes.text(-0.02, row, name, ha="right", color=TEXT_COLOR, **style)
    share = format_percent(one.share) if lifts else "speaks against it"
    label = f"{share} · without it {format_ordinal(one.rank_without)}"
    axes.text(length + 0.015, row, label, color=MUTED_COLOR, **style)
