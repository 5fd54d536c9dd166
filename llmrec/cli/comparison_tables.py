"""Comparisons of forecasters and engines as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from llmrec.cli.render import console

COLUMN_LEGEND = (
    "loss: nats per event; gain: paired, with its 95 % interval over people; skill: against the "
    "mean; 80 %: observations inside the 80 % interval."
)
ENGINE_LEGEND = (
    "Lists are over all items. gain: paired, with its 95 % interval over people; holds: statements "
    "and explanations that history and forecast support; said: mean probability of the statements; "
    "true: those that came true; both of {} people at most."
)
IMPRESSION_LEGEND = (
    "Each list that was shown, ordered by what precedes it; means over lists, with the 95 % "
    "interval of AUC over people. {:,} of {:,} lists are left out: nothing or everything of them "
    "was clicked."
)
IMPRESSION_COLUMNS = {"mrr": "MRR", "ndcg@5": "NDCG@5", "ndcg@10": "NDCG@10"}
LIST_COLUMNS = ("model", "n", "NDCG@10", "gain on popularity", "recall", "holds", "said", "true")
Cells = dict[tuple[str, str], dict[Any, Any]]  # rows of a table by model and metric


def show_comparison(title: str, table: pd.DataFrame) -> None:
    """Print a line a model, the best first, of what matters most; the report has the rest.

    Engines have a second table, of their lists and explanations.
    """
    whole = table[table["slice"] == "all"]
    for split in dict.fromkeys(whole["split"]):
        rows: list[dict[Any, Any]] = whole[whole["split"] == split].to_dict("records")
        cells = {(str(row["model"]), str(row["metric"])): row for row in rows}
        console.print(_forecasts(f"{title}, {split}", cells))
        if any(metric == "ndcg@10" for _, metric in cells):
            console.print("", _lists(f"{title}, {split}: lists and explanations", cells), "")
            for line in _differences(cells):
                console.print(Text(line))
    console.print(Text(COLUMN_LEGEND, style="dim"))
    if (whole["metric"] == "ndcg@10").any():
        from llmrec.evaluation.engine_scores import MAX_PEOPLE

        console.print(Text(ENGINE_LEGEND.format(MAX_PEOPLE), style="dim"))


def show_impressions(title: str, table: pd.DataFrame) -> None:
    """Print how models order what was shown: all lists, and those whose clicks are all new."""
    for name, part in table.groupby("slice", sort=False):
        rows: list[dict[Any, Any]] = part.to_dict("records")
        cells = {(str(row["model"]), str(row["metric"])): row for row in rows}
        about = "what was shown" if name == "all" else "where nobody had clicked before the clicked"
        view = _table(f"{title}, {about}", ("model", "n", "AUC", *IMPRESSION_COLUMNS.values()))
        auc = {model: row for (model, metric), row in cells.items() if metric == "auc"}
        for model in sorted(auc, key=lambda one: -np.nan_to_num(auc[one]["value"])):
            value, low, high = (f"{auc[model][key]:.3f}" for key in ("value", "low", "high"))
            others = (f"{cells[model, one]['value']:.3f}" for one in IMPRESSION_COLUMNS)
            count = str(auc[model]["n"])
            view.add_row(Text(model), count, f"{value} ({low}, {high})", *others)
        console.print("", view)
    whole = table[table["slice"] == "all"]
    measured = whole.loc[whole["metric"] == "auc", "n"].iloc[0]
    every = whole.loc[whole["metric"] == "measured", "n"].iloc[0]
    console.print(Text(IMPRESSION_LEGEND.format(every - measured, every), style="dim"))


def _forecasts(title: str, cells: Cells) -> Table:
    view = _table(title, ("model", "n", "loss", "gain on counting", "skill", "80 %"))
    losses = {model: row["value"] for (model, name), row in cells.items() if name == "log_loss"}
    for model in sorted(losses, key=lambda model: losses[model]):
        view.add_row(
            Text(model),
            str(cells[model, "log_loss"]["n"]),
            f"{losses[model]:.4f}",
            _interval(cells[model, "log_loss_gain"], 4),
            f"{cells[model, 'skill']['value']:+.4f}",
            f"{cells[model, 'coverage80']['value']:.0%}",
        )
    return view


def _lists(title: str, cells: Cells) -> Table:
    view = _table(title, LIST_COLUMNS)
    ndcg = {model: row["value"] for (model, name), row in cells.items() if name == "ndcg@10"}
    for model in sorted(ndcg, key=lambda model: -ndcg[model]):
        held = [
            cells[model, name]["value"]
            for name in ("statements_supported", "explanations_supported")
        ]
        said, true = (cells[model, f"statements_{name}"]["value"] for name in ("said", "true"))
        view.add_row(
            Text(model),
            str(cells[model, "ndcg@10"]["n"]),
            f"{ndcg[model]:.4f}",
            _interval(cells[model, "ndcg@10_gain"], 3),
            f"{cells[model, 'recall@10']['value']:.4f}",
            "-" if np.isnan(held).all() else f"{np.nanmin(held):.0%}",
            *("-" if np.isnan(share) else f"{share:.0%}" for share in (said, true)),
        )
    return view


def _differences(cells: Cells) -> list[str]:
    """Say how much better each engine's lists are than those of the first, over the same people."""
    first, *others = [model for model, name in cells if name == "ndcg@10"]
    rows = [(model, cells.get((model, "ndcg@10_difference"))) for model in others]
    return [
        f"{model} against {first}: NDCG@10 {_interval(row, 4)}, paired, {row['n']} people"
        for model, row in rows
        if row
    ]


def _table(title: str, columns: Sequence[str]) -> Table:
    view = Table(title=Text(title), box=None, header_style="dim", pad_edge=False)
    for column in columns:
        is_name = column == "model"
        view.add_column(
            column, justify="left" if is_name else "right", no_wrap=not is_name, overflow="fold"
        )
    return view


def _interval(row: dict[Any, Any], digits: int) -> str:
    value, low, high = (f"{row[name]:+.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}, {high})"
