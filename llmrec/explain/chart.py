"""The figure: category shares by period as lines, and the forecast with its intervals."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.contracts import FloatArray, Forecast, IntArray
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History, PeriodLength
from llmrec.errors import MissingExtraError
from llmrec.explain.evidence import day, day_of, past_shares, percent
from llmrec.explain.timeline import Timeline, heading, leading_categories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DATES = 5
# Okabe and Ito's palette, told apart with any colour vision; yellow is left out: too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT, SHADE = "#333333", "#767676", "#f3f1ec"
LABEL_GAP = 0.062  # of the height of the axes: one line of text
NAME_LENGTH = 26  # what fits at the right of the axes


def figure(history: History, forecast: Forecast, *, top: int = 6) -> Figure:
    """Draw the leading categories' shares by period, and the forecast with 80 % intervals.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    ValueError
        If ``top`` is not in 1..7: there are no more colours that everybody can tell apart.
    """
    if not 1 <= top <= len(COLOURS):
        raise ValueError(f"top must lie in 1..{len(COLOURS)} (one colour each), not {top}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("charts need matplotlib: pip install 'llmrec[charts]'") from error
    timeline, ahead = Timeline.of(history), forecast.category_weights
    leading = leading_categories(past_shares(history), ahead, top)
    drawn = Figure(figsize=(9.6, 5.0), dpi=150, facecolor="white")
    axes = drawn.add_axes((0.055, 0.08, 0.67, 0.75))
    intervals = forecast.intervals(0.8)
    _dress(axes, history, timeline)
    for rank, category in enumerate(leading):
        _line(axes, timeline, ahead, intervals, int(category), rank, len(leading))
    highest = np.nanmax([*timeline.shares[:, leading].ravel(), *intervals[leading].ravel()])
    axes.set_ylim(0, 1.04 * float(highest))
    _label(axes, history, ahead, leading)
    _caption(drawn, history, timeline.length)
    return drawn


def svg(drawn: Figure) -> str:
    """Give the figure as an SVG element; the texts in it are escaped."""
    import matplotlib

    content = io.StringIO()
    # Text stays text (found, read aloud, no glyph missing), ids do not depend on the day.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmrec"}):
        drawn.savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    return text[text.index("<svg") :]


def _dress(axes: Axes, history: History, timeline: Timeline) -> None:
    """Axis, dates and the shaded forecast period: a period is 1 wide, the forecast at n."""
    n = len(timeline.starts)
    axes.set_xlim(-0.5, n + 0.5)
    axes.axvspan(n - 0.5, n + 0.5, color=SHADE, linewidth=0, zorder=0)
    starts = [*timeline.starts, history.cutoff]
    ticks = np.unique(np.linspace(0, n, MOST_DATES).round().astype(int))
    days = [day(day_of(starts[tick])) for tick in ticks]
    once = [label * (label != before) for label, before in zip(days, ["", *days], strict=False)]
    axes.set_xticks(ticks - 0.5, once, ha="left")
    axes.yaxis.set_major_formatter(lambda share, _: percent(share))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=FAINT, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cccccc")


def _line(
    axes: Axes,
    timeline: Timeline,
    ahead: FloatArray,
    intervals: FloatArray,
    category: int,
    rank: int,
    n_lines: int,
) -> None:
    n, colour, shares = len(timeline.starts), COLOURS[rank], timeline.shares[:, category]
    filled = np.flatnonzero(~np.isnan(shares))
    line = timeline.smooth[filled, category]
    # Side by side inside the shade, so that no interval hides another.
    at = n + 0.7 * ((rank + 0.5) / n_lines - 0.5)
    axes.plot(range(n), shares, "o", color=colour, markersize=3.5, markeredgewidth=0, alpha=0.4)
    axes.plot(filled, line, color=colour, linewidth=2, solid_capstyle="round")
    if n:
        axes.plot([filled[-1], at], [line[-1], ahead[category]], color=colour, lw=1, ls=":")
    axes.vlines(at, *intervals[category], color=colour, linewidth=2.2, alpha=0.45)
    axes.plot(at, ahead[category], "o", color=colour, markersize=6, markeredgecolor="white")


def _label(axes: Axes, history: History, ahead: FloatArray, leading: IntArray) -> None:
    """Names and shares at the right end, moved apart as little as it takes."""
    from scipy.optimize import isotonic_regression

    heights = ahead[leading][::-1] / axes.get_ylim()[1]
    steps = LABEL_GAP * np.arange(len(leading))
    apart = isotonic_regression(heights - steps).x.clip(0, 1 - steps[-1]) + steps
    for rank, (category, height) in enumerate(zip(leading, apart[::-1], strict=True)):
        name = clean_text(history.catalog.categories[category], NAME_LENGTH)
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "fontsize": 9}
        axes.text(1.012, height, "●", color=COLOURS[rank], **place)
        axes.text(1.115, height, percent(ahead[category]), color=INK, ha="right", **place)
        axes.text(1.125, height, name, color=INK, parse_math=False, **place)


def _caption(drawn: Figure, history: History, length: PeriodLength) -> None:
    x = 0.012
    drawn.text(x, 0.94, heading(history), fontsize=12, color=INK, weight="bold", parse_math=False)
    note = (
        f"Dots: shares in each period of {length}; lines: pooled with the periods before and "
        "after. Shaded: the forecast, with 80% intervals."
    )
    drawn.text(x, 0.885, note, fontsize=9, color=FAINT)
