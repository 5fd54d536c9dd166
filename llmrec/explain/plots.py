"""A person's interests by period, and the forecast with its intervals: terminal, PNG, HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from llmrec.data.calendar import PeriodLength
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.names import MAX_CATEGORY_LENGTH, clean_text
from llmrec.data.periods import History
from llmrec.explain.evidence import format_day, format_period_ahead, to_date
from llmrec.explain.facts import format_percent, history_shares
from llmrec.explain.figures import MISSING_SIGN, fit_fonts, new_figure, to_svg
from llmrec.explain.item import ItemExplanation
from llmrec.explain.next_counts import format_count, next_counts
from llmrec.explain.printable import printable
from llmrec.explain.reword import wording_note
from llmrec.explain.statements import change_direction
from llmrec.forecast import Forecast
from llmrec.forecasters.dispersion import events_per_period
from llmrec.types import FloatArray, IntArray, TimeArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_POINTS = 24  # more periods than this are merged, from the newest back
MAX_USER_ID_LENGTH = 26

TEMPLATE = "person.html.jinja"
# Okabe and Ito's palette, distinct with any colour vision; yellow is left out: too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TEXT_COLOR, MUTED_COLOR, SHADE_COLOR = "#333333", "#767676", "#f3f1ec"
TOP = 6  # categories in the figure
MAX_DATES = 5
LABEL_GAP = 0.062  # of the height of the axes: one line of text
MAX_NAME_LENGTH = 26  # what fits at the right of the axes; wide characters count twice
STEP_NOTE = (
    "Where the dotted step is steep, the forecast differs from the newest periods: it weighs "
    "older ones, too."
)

SPARKLINE_BLOCKS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"
BAR_CELLS = 10
MAX_WIDTH = 96  # further apart, the eye loses the row
ARROWS = {1: ("↑", "bold cyan"), 0: ("→", "dim"), -1: ("↓", "yellow")}


@dataclass(frozen=True, eq=False)
class ShareSeries:
    """Shares by (merged) period, from the first non-empty one on.

    ``length`` is that of a merged period; ``starts`` is (n,); ``shares`` and ``smooth`` (each
    period pooled with the two beside it) are (n, n_categories), with NaN where there is no event.
    """

    length: PeriodLength
    starts: TimeArray
    shares: FloatArray
    smooth: FloatArray

    @classmethod
    def of(cls, history: History) -> ShareSeries:
        """Merge periods, newest first, until there are few enough to see."""
        counts = history.category_counts
        filled = np.flatnonzero(counts.any(axis=1))
        first = int(filled[0]) if len(filled) else len(counts)
        step = -(-(len(counts) - first) // MAX_POINTS) or 1
        begins = np.arange(len(counts) - step, first - step, -step)[::-1].clip(min=first)
        if not len(begins):
            return cls(history.period_length, history.bounds[:0], counts[:0], counts[:0])
        merged = np.add.reduceat(counts, begins, axis=0)
        pooled = merged.copy()
        pooled[1:] += merged[:-1]
        pooled[:-1] += merged[1:]
        length = replace(history.period_length, n=history.period_length.n * step)
        return cls(length, history.bounds[begins], _row_shares(merged), _row_shares(pooled))


def top_categories(past: FloatArray, expected: FloatArray, top: int) -> IntArray:
    """Give the categories of the largest share, past or expected, ordered by expected share.

    Of equal shares, which are many where each category was taken once, the most expected are given.
    """
    largest = np.lexsort((-expected, -np.maximum(past, expected)))[:top]
    return largest[np.argsort(-expected[largest], kind="stable")]


def render_terminal(history: History, forecast: Forecast, *, top: int = 8) -> RenderableType:
    """Draw the leading categories as text, one row each, for a terminal of 80 columns or more.

    Each row has its own sparkline scale. The last column has whole numbers that the category's
    count lies between with about 80 %, and their own probability, see `next_counts`. Names are
    never parsed as markup.
    """
    series, past, expected = (
        ShareSeries.of(history),
        history_shares(history),
        forecast.category_weights,
    )
    leading, direction = top_categories(past, expected, top), change_direction(history, forecast)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim", expand=True)
    table.add_column("category", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(_time_span(history, series), no_wrap=True)
    table.add_column("so far", justify="right", no_wrap=True)
    table.add_column("forecast", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    n_next, counts = next_counts(history, forecast, leading)
    table.add_column(f"of {'next ' * (forecast.horizon == 1)}{n_next}", no_wrap=True)
    for category, count in zip(leading, counts, strict=True):
        arrow, style = ARROWS[int(direction[category])]
        table.add_row(
            Text(clean_text(history.catalog.categories[category], MAX_CATEGORY_LENGTH)),
            Text(_sparkline(series.shares[:, category]), style="blue"),
            format_percent(past[category]),
            Text(format_percent(expected[category]), style="bold"),
            Text(arrow, style=style),
            format_count(count),
        )
    return Group(Text(person_heading(history, forecast), style="bold"), Constrain(table, MAX_WIDTH))


def interest_figure(history: History, forecast: Forecast, *, top: int = TOP) -> Figure:
    """Draw the leading categories' shares by period, and the forecast with 80 % intervals.

    A note on the figure says how many characters of the names no installed font has.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ValueError
        If ``top`` is not in 1..7: there are no more colours that everybody can distinguish.
    """
    if not 1 <= top <= len(COLORS):
        raise ValueError(f"top must lie in 1..{len(COLORS)} (one colour each), not {top}")
    figure = _draw_figure(history, forecast, top)
    if n_missing := fit_fonts(figure):
        characters = "1 character" if n_missing == 1 else f"{n_missing} characters"
        note = f"{MISSING_SIGN}: {characters} that no font here has; an .html chart shows them."
        figure.text(0.012, 0.01, note, fontsize=8, color=MUTED_COLOR)
    return figure


def _draw_figure(history: History, forecast: Forecast, top: int) -> Figure:
    figure = new_figure(figsize=(9.6, 5.0), dpi=150, facecolor="white")
    series, expected = ShareSeries.of(history), forecast.category_weights
    leading = top_categories(history_shares(history), expected, top)
    axes = figure.add_axes((0.055, 0.09, 0.67, 0.73))
    intervals = forecast.intervals(0.8, float(events_per_period([history])[0]), leading)
    _draw_axes(axes, history, series)
    for rank, category in enumerate(leading):
        interval = intervals[rank]
        _draw_category(axes, series, expected, interval, int(category), rank, len(leading))
    highest = np.nanmax([*series.shares[:, leading].ravel(), *intervals.ravel()])
    axes.set_ylim(0, 1.04 * float(highest))
    _draw_labels(axes, history, expected, leading)
    _draw_caption(figure, person_heading(history, forecast), series.length)
    return figure


def save_png(history: History, forecast: Forecast, path: Path | str) -> None:
    """Write the figure as PNG; nobody ever sees half a file."""
    content = io.BytesIO()
    interest_figure(history, forecast).savefig(content, format="png", metadata={"Software": None})
    atomic_write_bytes(Path(path), content.getvalue())


def save_html(
    history: History,
    forecast: Forecast,
    explanations: Sequence[ItemExplanation],
    path: Path | str,
) -> None:
    """Write the page as UTF-8; nobody ever sees half a file."""
    atomic_write_text(Path(path), render_html(history, forecast, explanations))


def render_html(
    history: History, forecast: Forecast, explanations: Sequence[ItemExplanation]
) -> str:
    """Give one self-contained page: the description, the figure, the list with its reasons."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("llmrec.explain", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        user_id=clean_text(history.user_id, MAX_USER_ID_LENGTH),
        description=forecast.description,
        figure=Markup(to_svg(_draw_figure(history, forecast, TOP))),
        period=format_period_ahead(history, forecast.horizon),
        explanations=explanations,
        wording=wording_note(explanations),
        source=forecast.source,
    )
    return printable(page)


def _row_shares(counts: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)


def person_heading(history: History, forecast: Forecast) -> str:
    """Say whose picture it is, and of what; plain text."""
    user_id = clean_text(history.user_id, MAX_USER_ID_LENGTH)
    return (
        f"User {user_id} · {history.n_events:,} events before "
        f"{format_day(to_date(history.cutoff))} · "
        f"forecast of {format_period_ahead(history, forecast.horizon)}"
    )


def _time_span(history: History, series: ShareSeries) -> Text:
    if not len(series.starts):
        return Text("no period")
    first, last = format_day(to_date(series.starts[0])), format_day(to_date(history.cutoff))
    return Text(first if first == last else f"{first} to {last}")


def _sparkline(shares: FloatArray) -> str:
    """Draw equally wide periods; blank if one was empty, the lowest block for a share of 0."""
    width = MAX_POINTS // max(len(shares), 1)
    highest = np.nanmax(shares, initial=0) or 1.0
    levels = np.ceil(np.nan_to_num(shares) / highest * (len(SPARKLINE_BLOCKS) - 1)).astype(int)
    return "".join(
        width * (" " if np.isnan(share) else SPARKLINE_BLOCKS[level])
        for share, level in zip(shares, levels, strict=True)
    )


def share_bar(part: float) -> str:
    """Draw a share of 0 to 1 in blocks, `BAR_CELLS` wide at most."""
    eighths = round(part * BAR_CELLS * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _draw_axes(axes: Axes, history: History, series: ShareSeries) -> None:
    """Axis, dates and the shaded forecast period: a period is 1 wide, the forecast at n."""
    n = len(series.starts)
    axes.set_xlim(-0.5, n + 0.5)
    axes.axvspan(n - 0.5, n + 0.5, color=SHADE_COLOR, linewidth=0, zorder=0)
    starts = [*series.starts, history.cutoff]
    ticks = np.unique(np.linspace(0, n, MAX_DATES).round().astype(int))
    days = [format_day(to_date(starts[tick])) for tick in ticks]
    once = [label * (label != before) for label, before in zip(days, ["", *days], strict=False)]
    axes.set_xticks(ticks - 0.5, once, ha="left")
    axes.yaxis.set_major_formatter(lambda share, _: format_percent(share))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED_COLOR, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cccccc")


def _draw_category(
    axes: Axes,
    series: ShareSeries,
    expected: FloatArray,
    interval: FloatArray,
    category: int,
    rank: int,
    n_lines: int,
) -> None:
    n, color, shares = len(series.starts), COLORS[rank], series.shares[:, category]
    filled = np.flatnonzero(~np.isnan(shares))
    line = series.smooth[filled, category]
    # Side by side inside the shade, so that no interval hides another.
    x = n + 0.7 * ((rank + 0.5) / n_lines - 0.5)
    axes.plot(range(n), shares, "o", color=color, markersize=3.5, markeredgewidth=0, alpha=0.4)
    axes.plot(filled, line, color=color, linewidth=2, solid_capstyle="round")
    if n:
        axes.plot([filled[-1], x], [line[-1], expected[category]], color=color, lw=1, ls=":")
    axes.vlines(x, *interval, color=color, linewidth=2.2, alpha=0.45)
    axes.plot(x, expected[category], "o", color=color, markersize=6, markeredgecolor="white")


def _draw_labels(axes: Axes, history: History, expected: FloatArray, leading: IntArray) -> None:
    """Names and shares at the right end, moved apart as little as it takes."""
    from scipy.optimize import isotonic_regression

    heights = expected[leading][::-1] / axes.get_ylim()[1]
    steps = LABEL_GAP * np.arange(len(leading))
    apart = isotonic_regression(heights - steps).x.clip(0, 1 - steps[-1]) + steps
    for rank, (category, height) in enumerate(zip(leading, apart[::-1], strict=True)):
        name = shorten(history.catalog.categories[category])
        percent = format_percent(expected[category])
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "fontsize": 9}
        axes.text(1.012, height, "●", color=COLORS[rank], **place)
        axes.text(1.115, height, percent, color=TEXT_COLOR, ha="right", **place)
        axes.text(1.125, height, name, color=TEXT_COLOR, parse_math=False, **place)


def shorten(name: str, limit: int = MAX_NAME_LENGTH) -> str:
    """Cut a name to what fits beside the axes."""
    name = clean_text(name, limit)
    while cell_len(name) > limit:
        name = f"{name.removesuffix('…')[:-1]}…"
    return name


def _draw_caption(figure: Figure, heading: str, length: PeriodLength) -> None:
    """Heading, what dots and lines are, and what a sudden step is."""
    from matplotlib.lines import Line2D

    x = 0.012
    figure.text(x, 0.945, heading, fontsize=12, color=TEXT_COLOR, weight="bold", parse_math=False)
    kinds: dict[str, dict[str, Any]] = {
        f"share in a period of {length}": {"ls": "", "marker": "o", "ms": 3.5, "alpha": 0.5},
        "pooled with the periods beside it": {"lw": 2},
        "step to the forecast": {"lw": 1, "ls": ":"},
        "forecast, 80% interval": {"lw": 2.2, "alpha": 0.6, "marker": "o"},
    }
    figure.legend(
        [Line2D([], [], color=TEXT_COLOR, **style) for style in kinds.values()],
        list(kinds),
        loc="center left",
        bbox_to_anchor=(x, 0.905),
        bbox_transform=figure.transFigure,
        ncols=len(kinds),
        borderpad=0,
        borderaxespad=0,
        frameon=False,
        fontsize=9,
        labelcolor=MUTED_COLOR,
    )
    figure.text(x, 0.855, STEP_NOTE, fontsize=9, color=MUTED_COLOR)
