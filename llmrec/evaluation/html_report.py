"""The report of a comparison: one self-contained HTML page, and the tidy tables behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.files import atomic_folder, atomic_write_bytes, atomic_write_text, others_in
from llmrec.data.names import clean_text
from llmrec.data.periods import Window
from llmrec.evaluation import report_figures
from llmrec.evaluation.comparison import PERSISTENCE, REFERENCE, Comparison
from llmrec.evaluation.horizons import HORIZON_SLICE
from llmrec.explain.printable import printable
from llmrec.forecast import Forecaster

REPORT_FILE, TEMPLATE_FILE = "report.html", "report.html.jinja"
REPORT_METRICS = (
    "log_loss",
    "log_loss_gain",
    "skill",
    "drift_captured",
    "jsd",
    "brier",
    "ece",
    "coverage80",
    "emerging_recall",
    "false_retention",
)
ENGINE_METRICS = (
    "ndcg@10",
    "ndcg@10_gain",
    "recall@10",
    "statements_supported",
    "statements_true",
    "explanations_supported",
)
N_PEOPLE = 5


def save_report(comparison: Comparison, folder: Path, seed: int = 0) -> Path:
    """Write report.html, scores.parquet (one row a model and user) and table.parquet as one.

    The page shows five people of the last split, sampled by the seed. Returns its path.
    """
    frames = {"scores.parquet": comparison.scores, "table.parquet": comparison.table}
    page = render_report(comparison, seed)
    with atomic_folder(folder, keep=others_in(folder, (REPORT_FILE, *frames))) as new:
        for name, frame in frames.items():
            atomic_write_bytes(new / name, frame.to_parquet(index=False))
        atomic_write_text(new / REPORT_FILE, page)
    return folder / REPORT_FILE


def render_report(comparison: Comparison, seed: int = 0) -> str:
    """Render the page: figures first, then the numbers in them, then five people."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("llmrec.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    table, models = comparison.table, _rank_models(comparison.table)
    bins = {split: found.bins for split, found in comparison.results.items()}
    dataset = comparison.dataset
    of_engines = [metric for metric in ENGINE_METRICS if (table["metric"] == metric).any()]
    columns = (*REPORT_METRICS, *of_engines)
    page = environment.get_template(TEMPLATE_FILE).render(
        dataset=clean_text(dataset.name),
        period=dataset.period,
        n_users=dataset.log.n_users,
        n_events=len(dataset.log),
        n_categories=dataset.catalog.n_categories,
        reference=REFERENCE,
        persistence=PERSISTENCE,
        winners=[_winner(table, split) for split in comparison.windows],
        gains=report_figures.plot_gains(table),
        drift=report_figures.plot_skill_by_drift(table, models),
        calibration=report_figures.plot_calibration(bins, models),
        coverage=report_figures.plot_coverage(table, models),
        wins=report_figures.plot_wins(comparison.scores),
        horizons=report_figures.plot_horizons(table),
        columns=columns,
        has_engines=len(columns) > len(REPORT_METRICS),
        numbers={split: _metric_rows(table, split, columns) for split in comparison.windows},
        slices={split: _gains_by_slice(table, split) for split in comparison.windows},
        person=clean_text(dataset.person),
        people=_sample_people(comparison, models, seed),
    )
    return printable(page)


def _rank_models(table: pd.DataFrame) -> list[str]:
    """Models by mean log-loss gain over the splits, the best first."""
    found = table[(table["slice"] == "all") & (table["metric"] == "log_loss_gain")]
    order = found.groupby("model")["value"].mean().sort_values(ascending=False)
    return [str(model) for model in order.index]


def _winner(table: pd.DataFrame, split: str) -> dict[str, Any]:
    """Give the best model of a split, and by how much it is."""
    chosen = (table["slice"] == "all") & (table["split"] == split)
    loss = table[chosen & (table["metric"] == "log_loss")]
    whole = loss[loss["n"] == loss["n"].max()]  # models that forecast everybody
    best = whole.sort_values("value").iloc[0]
    gain = table[chosen & (table["metric"] == "log_loss_gain") & (table["model"] == best["model"])]
    return {
        "split": split,
        "best": best["model"],
        "n": best["n"],
        "loss": best["value"],
        **gain[["value", "low", "high"]].iloc[0].to_dict(),
    }


def _metric_rows(table: pd.DataFrame, split: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """One row a model, best first, with each metric's value and interval."""
    part = table[(table["slice"] == "all") & (table["split"] == split)]
    cells = {(row.model, row.metric): row for row in part.itertuples()}
    found = []
    for model in _rank_models(part):
        row: dict[str, Any] = {"model": model, "n": cells[model, "log_loss"].n}
        for metric in columns:
            cell: Any = cells.get((model, metric))
            value = float("nan") if cell is None else float(cell.value)
            text = f"{value:.4f}" if np.isfinite(value) else "-"
            interval = ""
            if cell is not None and np.isfinite(cell.low):
                interval = f"{cell.low:.4f} to {cell.high:.4f}"
            row[metric] = {"text": text, "interval": interval}
        found.append(row)
    return found


def _gains_by_slice(table: pd.DataFrame, split: str) -> dict[str, Any]:
    """Gains on the reference by slice, with a shade from -1 (loses most) to 1 (gains most)."""
    part = table[(table["split"] == split) & (table["metric"] == "log_loss_gain")]
    part = part[~part["slice"].str.startswith(HORIZON_SLICE)]
    names = [name for name in ("all", "cold", "stable", "drifting") if name in set(part["slice"])]
    wide = part.pivot(index="model", columns="slice", values="value")[names]
    order = [model for model in _rank_models(table) if model in wide.index]
    scale = float(np.quantile(np.abs(wide.fillna(0.0).to_numpy()), 0.8)) or 1.0
    n: Any = part.groupby("slice")["n"].max()
    return {
        "names": [f"{name} (n = {n[name]})" for name in names],
        "rows": [
            (
                model,
                [
                    (value, 0.0 if value != value else max(-1.0, min(1.0, value / scale)))
                    for value in values
                ],
            )
            for model, values in zip(order, wide.loc[order].to_numpy().tolist(), strict=True)
        ],
    }


def _sample_people(
    comparison: Comparison, models: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    split = list(comparison.windows)[-1]
    forecasters = comparison.forecasters[split]
    scores = comparison.results[split].scores
    n_models = scores.groupby("user_id")["model"].count()
    candidates = set(n_models[n_models == n_models.max()].index)  # people that all models forecast
    windows = [w for w in comparison.windows[split] if w.history.user_id in candidates]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:N_PEOPLE])
    names = [REFERENCE, *[model for model in models if model != REFERENCE][:3]]
    names += [model for model in forecasters if model.startswith("LLM alone")]
    first = {name: forecasters[name][0] for name in names}
    return [_person(windows[row], first, scores) for row in chosen]


def _person(
    window: Window, forecasters: Mapping[str, Forecaster], scores: pd.DataFrame
) -> dict[str, Any]:
    history, target = window.history, window.target
    forecasts = {
        name: forecaster.forecast([history])[0].category_weights
        for name, forecaster in forecasters.items()
    }
    own = scores[scores["user_id"] == history.user_id].set_index("model")["log_loss"]
    return {
        "user_id": clean_text(history.user_id, 40),
        "events": history.n_events,
        "observed": target.n_events,
        "losses": [(name, float(own[name])) for name in forecasts],
        "svg": report_figures.plot_person(
            history.catalog.categories, history.category_counts, target.category_counts, forecasts
        ),
    }
