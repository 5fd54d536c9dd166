"""Tables of the engines: what fits and loads cost, what members are worth, what the LLM adds."""

from __future__ import annotations

from benchmarks.harness.formatting import (
    Row,
    format_difference,
    format_gain,
    format_number,
    render_table,
)
from benchmarks.harness.labels import BEST, LOG_TITLES, ONLINE_RETAIL, QUICK, STANDARD, engine_label
from benchmarks.harness.results import Rows, has_results, load_rows_if_any
from benchmarks.harness.summaries import MISSING

EFFORTS = ("quick", "standard", "best")
WITHOUT = " without "
COST_LOGS = {**LOG_TITLES, "many-items": "10,000 made-up items"}
COSTS = ("CPU seconds of fit", "MB of the folder", "seconds to load", "same lists", "same scores")


def cost_table() -> str:
    """Render what each effort costs on each log, and whether a loaded engine ranks the same."""
    lines = []
    for data, title in COST_LOGS.items():
        if data == ONLINE_RETAIL and not has_results(f"engines/whole_{data}"):
            continue  # whoever lacks its file need not miss it
        rows = load_rows_if_any(f"engines/whole_{data}")
        for engine in (QUICK, STANDARD, BEST):
            found = {metric: row for (*_, model, metric), row in rows.items() if model == engine}
            cells = [format_number(found[m]["value"]) if m in found else MISSING for m in COSTS]
            lines.append([title, engine, *cells])
    return render_table(["log", "engine", *COSTS], lines) + "\n"


def member_table() -> str:
    """Render what lists and forecasts lose without each member; "" before it is measured."""
    tables = []
    for data, title in LOG_TITLES.items():
        rows = _member_rows(data)
        tests = list(dict.fromkeys(split for _, split, *_ in rows))
        names = dict.fromkeys(model for _, _, model, _ in rows if WITHOUT in model)
        cells = {
            (split, model): _format_change(metric, row)
            for (_, split, model, metric), row in rows.items()
            if metric.endswith(" lost")
        }
        lines = [[name, *(cells.get((test, name), "") for test in tests)] for name in names]
        if lines:
            tables.append(render_table([f"{title}: loss", *tests], lines) + "\n")
    return "\n".join(tables)


def _member_rows(data: str) -> Rows:
    """Give what was measured of the members of all efforts on a log."""
    found: Rows = {}
    for effort in EFFORTS:
        found |= load_rows_if_any(f"engines/members_{effort}_{data}")
    return found


def llm_table() -> str:
    """Render what the LLM adds to each effort; "" before it is measured."""
    lines = []
    for data, title in LOG_TITLES.items():
        rows = _member_rows(data)
        for effort in EFFORTS:
            with_llm = engine_label(effort, use_llm=True)
            for (_, split, model, metric), row in rows.items():
                if model == with_llm and metric.endswith(f" {engine_label(effort)}"):
                    lines.append([title, split, metric, _format_change(metric, row)])
    header = ["log", "test", "gain of the LLM", "value"]
    return render_table(header, lines) + "\n" if lines else ""


def _format_change(metric: str, row: Row) -> str:
    return format_gain(row, 4) if metric.startswith("log_loss") else format_difference(row)
