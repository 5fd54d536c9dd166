"""The figures of the report as SVG; every series carries its model's name for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec.data.names import clean_text
from llmrec.evaluation.horizons import HORIZON_SLICE
from llmrec.explain.figures import new_figure, to_svg
from llmrec.explain.plots import COLORS, TEXT_COLOR
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


GREY, GRID_COLOR = "#9a9a9a", "#e4e1da"
MAX_COLORED_MODELS = 6  # models drawn in colour in a figure of lines; the others are grey


def plot_gains(table: pd.DataFrame) -> str:
    """Draw what each model gains on the reference, with its interval, one panel a split."""
    found = table[(table["slice"] == "all") & (table["metric"] == "log_loss_gain")]
    order = found.groupby("model")["value"].mean().sort_values().index
    panels = list(dict.fromkeys(found["split"]))
    figure, axes = _make_panels(len(panels), height=0.27 * len(order) + 0.9, sharey=True)
    for axis, split in zip(axes, panels, strict=True):
        part = found[found["split"] == split].set_index("model").reindex(order)
        at = np.arange(len(order))
        axis.axvline(0, color=GREY, linewidth=1)
        right = 1.1 * max(float(part["high"].max()), 1e-4)
        left = min(-0.3 * right, max(1.1 * float(part["low"].min()), -1.2 * right))
        axis.set_xlim(left, right)
        for y, (model, row) in zip(at, part.iterrows(), strict=True):
            color = COLORS[0] if row["low"] > 0 else COLORS[1] if row["high"] < 0 else GREY
            if row["value"] < left:  # far off: an arrow at the edge, and its value
                marks = axis.plot(left, y, "<", color=color, markersize=5, clip_on=False)
                axis.annotate(
                    f"{row['value']:.3f}",
                    (left, y),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            else:
                marks = axis.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2)
                marks += axis.plot(row["value"], y, "o", color=color, markersize=5)
            for mark in marks:
                mark.set_gid(_gid(str(model)))
        axis.set_yticks(at, order)
        axis.set_title(split, loc="left", fontsize=10, color=TEXT_COLOR)
        axis.set_xlabel("nats per event gained on counting")
    return _to_svg(figure)


def plot_skill_by_drift(table: pd.DataFrame, models: Sequence[str]) -> str:
    """Draw skill against the decile of realised drift, one panel a split."""
    found = table[(table["metric"] == "skill") & table["slice"].str.startswith("drift ")]
    panels = list(dict.fromkeys(found["split"]))
    figure, axes = _make_panels(len(panels), height=3.4, sharey=True)
    for axis, split in zip(axes, panels, strict=True):
        part = found[found["split"] == split]
        wide = part.pivot(index="slice", columns="model", values="value")
        wide = wide.reindex([f"drift {decile}" for decile in range(1, 11)])
        axis.axhline(0, color=GREY, linewidth=1)
        _draw_lines(axis, {m: (np.arange(1, 11), wide[m].to_numpy()) for m in wide}, models)
        axis.set_xticks(range(1, 11))
        axis.set_xlabel("decile of realised drift (10: moved most)")
        axis.set_title(split, loc="left", fontsize=10, color=TEXT_COLOR)
        best = wide[[m for m in models if m in wide][:MAX_COLORED_MODELS]].fillna(0.0).to_numpy()
        axis.set_ylim(min(-0.01, 1.3 * float(best.min())), max(0.01, 1.15 * float(best.max())))
    axes[0].set_ylabel("skill against the mean")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _to_svg(figure)


def plot_calibration(bins: Mapping[str, pd.DataFrame], models: Sequence[str]) -> str:
    """Draw observed against forecast shares on logarithmic axes, one panel a split."""
    figure, axes = _make_panels(len(bins), height=3.6, sharey=True)
    for axis, (split, found) in zip(axes, bins.items(), strict=True):
        found = found[(found["forecast"] > 0) & (found["observed"] > 0)]
        ends = [float(found["forecast"].min()), float(found["forecast"].max())]
        axis.plot(ends, ends, color=GREY, linewidth=1)
        series = {
            str(model): (part["forecast"].to_numpy(), part["observed"].to_numpy())
            for model, part in found.groupby("model", sort=False)
        }
        _draw_lines(axis, series, models)
        axis.set(xscale="log", yscale="log", xlabel="forecast share of a category")
        axis.set_title(split, loc="left", fontsize=10, color=TEXT_COLOR)
    axes[0].set_ylabel("observed share")
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _to_svg(figure)


def plot_coverage(table: pd.DataFrame, models: Sequence[str]) -> str:
    """Draw how often 50, 80 and 90 % intervals hold what was observed, one panel a split."""
    found = table[(table["slice"] == "all") & table["metric"].str.startswith("coverage")]
    panels, order = list(dict.fromkeys(found["split"])), list(models)[::-1]
    figure, axes = _make_panels(len(panels), height=0.24 * len(order) + 0.9, sharey=True)
    for axis, split in zip(axes, panels, strict=True):
        for place, level in enumerate((50, 80, 90)):
            part = found[(found["split"] == split) & (found["metric"] == f"coverage{level}")]
            values = part.set_index("model")["value"].reindex(order)
            axis.axvline(level / 100, color=COLORS[place], linewidth=1, alpha=0.6)
            (marks,) = axis.plot(values, np.arange(len(order)), "o", color=COLORS[place], ms=5)
            marks.set_label(f"{level} %")
        axis.set_yticks(np.arange(len(order)), order)
        axis.set_xlabel("share of observations inside")
        axis.set_title(split, loc="left", fontsize=10, color=TEXT_COLOR)
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _to_svg(figure)


def plot_horizons(table: pd.DataFrame) -> str:
    """Draw loss, gain on counting and coverage by horizon, see `horizon_table`; "" without rows."""
    found = table[table["slice"].str.startswith(HORIZON_SLICE)]
    if found.empty:
        return ""
    found = found.assign(horizon=found["slice"].str.removeprefix(HORIZON_SLICE).astype(int))
    panels = {
        "log_loss": "log-loss, nats per event",
        "log_loss_gain": "nats per event gained on counting",
        "coverage80": "share of observations inside 80 %",
    }
    figure, axes = _make_panels(len(panels), height=3.0)
    for axis, (metric, label) in zip(axes, panels.items(), strict=True):
        rows = found[found["metric"] == metric]
        for place, (model, part) in enumerate(rows.groupby("model", sort=False)):
            reach = np.stack((part["value"] - part["low"], part["high"] - part["value"]))
            marks = axis.errorbar(part["horizon"], part["value"], reach, fmt="o-", ms=4, capsize=3)
            for mark in (marks[0], *marks[1], *marks[2]):
                mark.set(color=COLORS[place], gid=_gid(str(model)))
            marks.set_label(str(model))
        if metric == "coverage80":
            axis.axhline(0.8, color=GREY, linewidth=1)
        axis.set_xticks(sorted(set(found["horizon"])))
        axis.set_xlabel("periods ahead")
        axis.set_ylabel(label)
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _to_svg(figure)


def plot_wins(scores: pd.DataFrame) -> str:
    """Draw for how many people each model had the least log-loss, by third of realised drift."""
    whole = scores.groupby("model")["user_id"].count()
    scores = scores[scores["model"].isin(whole[whole == whole.max()].index)]  # that forecast all
    scores = scores[scores["log_loss"].notna()]
    best = scores.loc[scores.groupby(["split", "user_id"])["log_loss"].idxmin()]
    third = best.groupby("split")["drift"].rank(pct=True)
    best = best.assign(
        third=pd.cut(
            third, [0, 1 / 3, 2 / 3, 1], labels=["moved least", "moved some", "moved most"]
        )
    )
    counts = best.groupby(["model", "third"], observed=False).size().unstack() / len(best)
    counts = counts.loc[counts.sum(axis=1).sort_values().index]
    figure, (axis,) = _make_panels(1, height=0.27 * len(counts) + 0.9)
    left = np.zeros(len(counts))
    for place, third_name in enumerate(counts):
        values = counts[third_name].to_numpy()
        axis.barh(
            counts.index, values, left=left, color=COLORS[place], alpha=0.8, label=str(third_name)
        )
        left += values
    axis.set_xlabel("share of people forecast best by this model")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return _to_svg(figure)


def plot_person(
    names: Sequence[str],
    past: FloatArray,
    observed: FloatArray,
    forecasts: Mapping[str, FloatArray],
) -> str:
    """Draw one person: history by period, each forecast, and the observed period, by category.

    ``past`` is (n_periods, n_categories) counts, ``observed`` (n_categories,) counts and each
    forecast (n_categories,) weights. The eight categories of most weight anywhere are shown.
    """
    shares = past / np.maximum(past.sum(axis=1, keepdims=True), 1)
    target = observed / max(observed.sum(), 1)
    weight = np.max([target, *forecasts.values(), past.sum(axis=0) / max(past.sum(), 1)], axis=0)
    top = np.argsort(-weight, kind="stable")[:8][::-1]
    figure, (left, right) = _make_panels(2, height=3.0, sharey=True, widths=(1, 1.5))
    left.imshow(shares[-12:, top].T, aspect="auto", cmap="Blues", vmin=0, origin="lower")
    labels = [clean_text(names[c], 28) for c in top]
    left.set_yticks(range(len(top)), labels, parse_math=False)  # a dollar sign is a dollar sign
    left.set(xticks=[], xlabel="past periods, newest right")
    right.hlines(np.arange(len(top)), 0, weight[top].max() * 1.05, color=GRID_COLOR, linewidth=0.8)
    for place, (model, weights) in enumerate(forecasts.items()):
        shift = 0.12 * (place - (len(forecasts) - 1) / 2)
        (marks,) = right.plot(weights[top], np.arange(len(top)) + shift, "o", ms=5, label=model)
        marks.set(color=COLORS[place % len(COLORS)], gid=_gid(model))
    right.plot(
        target[top], np.arange(len(top)), "D", color=TEXT_COLOR, ms=8, mfc="none", label="happened"
    )
    right.set_xlabel("share of the next period")
    right.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _to_svg(figure)


def _draw_lines(axis: Axes, series: Mapping[str, tuple[Any, Any]], models: Sequence[str]) -> None:
    """Draw the first models in colour and with a label, the others in grey beneath them."""
    colored = [model for model in models if model in series][:MAX_COLORED_MODELS]
    for model, (x, y) in series.items():
        if model not in colored:
            (line,) = axis.plot(x, y, color=GREY, linewidth=0.7, alpha=0.5, zorder=1)
            line.set_gid(_gid(model))
    for place, model in enumerate(colored):
        (line,) = axis.plot(*series[model], "o-", color=COLORS[place], ms=3, linewidth=1.5)
        line.set(gid=_gid(model), label=model, zorder=3)


def _make_panels(
    n: int, *, height: float, sharey: bool = False, widths: Sequence[float] | None = None
) -> tuple[Figure, Sequence[Axes]]:
    """Make a figure of n panels in a row, without frames."""
    figure = new_figure(figsize=(10.5, height), layout="constrained")
    grid: Any = figure.subplots(1, n, squeeze=False, sharey=sharey, width_ratios=widths)
    for axis in grid[0]:
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(GREY)
        axis.tick_params(colors=TEXT_COLOR, labelsize=8.5, length=0)
        axis.xaxis.label.set(fontsize=9, color=TEXT_COLOR)
        axis.yaxis.label.set(fontsize=9, color=TEXT_COLOR)
        axis.grid(axis="x", color=GRID_COLOR, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, list(grid[0])


def _to_svg(figure: Figure) -> str:
    return re.sub("<metadata>.*?</metadata>", "", to_svg(figure), flags=re.DOTALL)


def _gid(model: str) -> str:
    return "model " + "".join(c if c.isalnum() else "-" for c in model)
