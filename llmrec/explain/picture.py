"""A picture of how interests moved and where they are forecast to go: terminal, PNG, HTML page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from llmrec.contracts import FloatArray, Forecast
from llmrec.data.catalog import CATEGORY_LENGTH, clean_text
from llmrec.data.files import write_bytes, write_text
from llmrec.data.periods import History
from llmrec.explain.chart import figure, svg
from llmrec.explain.evidence import day, day_of, horizon, past_shares, percent
from llmrec.explain.item import ItemExplanation
from llmrec.explain.statements import moves
from llmrec.explain.timeline import (
    MOST_POINTS,
    USER_ID_LENGTH,
    Timeline,
    heading,
    leading_categories,
)
from llmrec.explain.wording import wording_note

SPARKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"
BAR_CELLS = 10
WIDEST = 96  # further apart, the eye loses the row
ARROWS = {1: ("↑", "bold cyan"), 0: ("→", "dim"), -1: ("↓", "yellow")}


def terminal(history: History, forecast: Forecast, *, top: int = 8) -> RenderableType:
    """Draw the leading categories as text, one row each, for a terminal of 80 columns or more.

    Each row has its own sparkline scale; the bars share one. Names are never read as markup.
    """
    timeline, past, ahead = Timeline.of(history), past_shares(history), forecast.category_weights
    leading, direction = leading_categories(past, ahead, top), moves(history, forecast)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim", expand=True)
    table.add_column("category", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(_span(history, timeline), no_wrap=True)
    table.add_column("so far", justify="right", no_wrap=True)
    table.add_column("forecast", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for category in leading:
        arrow, style = ARROWS[int(direction[category])]
        table.add_row(
            Text(clean_text(history.catalog.categories[category], CATEGORY_LENGTH)),
            Text(_sparkline(timeline.shares[:, category]), style="blue"),
            percent(past[category]),
            Text(percent(ahead[category]), style="bold"),
            Text(arrow, style=style),
            Text(_bar(ahead[category] / ahead[leading].max()), style=style),
        )
    return Group(Text(heading(history), style="bold"), Constrain(table, WIDEST))


def save_png(history: History, forecast: Forecast, path: Path | str) -> None:
    """Write the figure as PNG; a reader never sees half a file."""
    content = io.BytesIO()
    figure(history, forecast).savefig(content, format="png", metadata={"Software": None})
    write_bytes(Path(path), content.getvalue())


def save_html(
    history: History,
    forecast: Forecast,
    explanations: Sequence[ItemExplanation],
    path: Path | str,
) -> None:
    """Write the page as UTF-8; a reader never sees half a file."""
    write_text(Path(path), html(history, forecast, explanations))


def html(history: History, forecast: Forecast, explanations: Sequence[ItemExplanation]) -> str:
    """Give one self-contained page: the description, the figure, the list with its reasons."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return page.render(
        user_id=clean_text(history.user_id, USER_ID_LENGTH),
        description=forecast.description,
        figure=Markup(svg(figure(history, forecast))),
        horizon=horizon(history.length),
        explanations=explanations,
        wording=wording_note(explanations),
        source=forecast.source,
    )


def _span(history: History, timeline: Timeline) -> Text:
    if not len(timeline.starts):
        return Text("no period")
    first, last = day(day_of(timeline.starts[0])), day(day_of(history.cutoff))
    return Text(first if first == last else f"{first} to {last}")


def _sparkline(shares: FloatArray) -> str:
    """Draw equally wide periods; blank if one was empty, the lowest block for a share of 0."""
    width = MOST_POINTS // max(len(shares), 1)
    highest = np.nanmax(shares, initial=0) or 1.0
    levels = np.ceil(np.nan_to_num(shares) / highest * (len(SPARKS) - 1)).astype(int)
    return "".join(
        width * (" " if np.isnan(share) else SPARKS[level])
        for share, level in zip(shares, levels, strict=True)
    )


def _bar(part: float) -> str:
    eighths = round(part * BAR_CELLS * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The next {{ horizon }} of user {{ user_id }}</title>
<style>
body { margin: 2.5rem auto; max-width: 58rem; padding: 0 1.25rem; color: #333;
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .75rem }
h2 { font-size: 1.1rem; margin: 0 0 .5rem }
p { max-width: 46rem; margin: .4rem 0 }
figure { margin: 1.5rem 0 }
svg { width: 100%; height: auto; display: block }
ol { list-style: none; padding: 0; margin: 0 }
li { display: grid; grid-template-columns: 2rem 15rem 1fr; gap: 1rem; padding: .6rem 0;
     border-top: 1px solid #e6e6e6; overflow-wrap: anywhere }
li span:first-child, footer { color: #767676 }
li span:last-child { font-size: .9rem }
footer { margin-top: 2rem; font-size: .85rem }
@media (max-width: 40rem) {
  li { grid-template-columns: 2rem 1fr; row-gap: 0 }
  li span:last-child { grid-column: 2 }
}
</style>
</head>
<body>
<h1>The next {{ horizon }} of user {{ user_id }}</h1>
<p>{{ description }}</p>
<figure role="img" aria-label="Shares of categories by period, and their forecast">
{{ figure }}</figure>
{% if explanations %}<h2>The list, and why</h2>
<ol>
{% for item in explanations %}<li><span>{{ item.rank }}</span><strong>{{ item.title }}</strong>\
<span>{{ item.text }}</span></li>
{% endfor %}</ol>
{% endif %}<footer>Forecast: {{ source.model }}, {{ source.how }}{% if source.why %} \
({{ source.why }}){% endif %}. Statements in the model's words: {{ source.proposed }}; \
claims of it the checker rejected: {{ source.rejected }}.\
{% if wording %} {{ wording }}{% endif %}</footer>
</body>
</html>
"""
