"""Writes the two small tables of README.md, who forecasts and who ranks best, between their marks.

Run: python -m benchmarks.harness.front_page
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.harness.formatting import format_ndcg, render_table
from benchmarks.harness.labels import (
    BEST,
    COUNTING,
    ONLINE_RETAIL,
    QUICK,
    STANDARD,
    TWO_STAGE,
    TWO_STAGE_WITH_NET,
)
from benchmarks.harness.results import Rows, load_rows_if_any
from benchmarks.harness.summaries import MISSING, NDCG, part_rows
from llmrec.data.files import atomic_write_text

FRONT_PAGE = Path(__file__).parents[2] / "README.md"
END = "<!-- up to here -->"
FORECASTERS = {  # model in the results: start of the result files, and what the row is called
    "LastPeriod": ("quality", "the last period again"),
    COUNTING: ("quality", "counting: log-loss"),
    "CellMLP": ("quality", "`CellMLP`, a net"),
    **{engine: ("engines", engine) for engine in (QUICK, STANDARD, BEST)},
}
FORECAST_COLUMNS = {  # the column's title: a log, and its tests
    "Complete Journey": ("completejourney", ("test 1", "test 2")),
    "Online Retail": (ONLINE_RETAIL, ("test 1", "test 2")),
    "MovieLens": ("ml-100k", ("test",)),
}
# Models in the results, the first that a split has counts, and what the row is called.
RANKERS: dict[tuple[str, ...], str] = {
    ("EASE",): "EASE",
    ("GRU4Rec",): "GRU4Rec",
    (TWO_STAGE_WITH_NET, TWO_STAGE): f"{TWO_STAGE} (MovieLens: with GRU4Rec)",
    **{(engine,): engine for engine in (QUICK, STANDARD, BEST)},
}
RANKING_COLUMNS = {  # the column's title: result file, and parts of its split
    "MovieLens": ("next-period", ["next period / test"]),
    "Complete Journey, repeats": (
        "repeat-allowed",
        [f"next 28 days, repeat allowed / test {n}" for n in (1, 2)],
    ),
    "the same, only new": (
        "explore-only",
        [f"next 28 days, explore only / test {n}" for n in (1, 2)],
    ),
    "Online Retail, only new": (
        "retail-explore",
        [f"next 28 days, explore only / test {n}" for n in (1, 2)],
    ),
}


def mark(name: str) -> str:
    """Make the comment that a block of README.md begins with."""
    return f"<!-- {name}, made by benchmarks.harness.front_page -->"


def forecast_block() -> str:
    """Gains of forecasters on counting ± half their intervals, nats per event; its log-loss."""
    lines = []
    for model, (source, label) in FORECASTERS.items():
        cells = []
        for data, splits in FORECAST_COLUMNS.values():
            rows = load_rows_if_any(f"forecasting/{source}_{data}")
            found = [split for split in splits if (data, split, model, "log_loss") in rows]
            shown = [_gain_cell(rows, data, split, model) for split in found]
            cells.append(", ".join(shown) or MISSING)
        lines.append([label, *cells])
    return render_table(["gain on counting", *FORECAST_COLUMNS], lines)


def _gain_cell(rows: Rows, dataset: str, split: str, model: str) -> str:
    if model == COUNTING:
        return f"{rows[dataset, split, model, 'log_loss']['value']:.3f}"
    gain = rows[dataset, split, model, "log_loss_gain"]
    half = (gain["high"] - gain["low"]) / 2
    return f"{gain['value']:+.3f} ± {half:.3f}".replace("0.", ".")


def ranking_block() -> str:
    """NDCG@10 of six rankers; of Complete Journey and Online Retail on both tests."""
    lines = []
    for models, label in RANKERS.items():
        cells = []
        for name, parts in RANKING_COLUMNS.values():
            tests = [part_rows(f"ranking/compare_{name}", part) for part in parts]
            found = [model for model in models if (model, NDCG) in tests[0]]
            keys = [(model, NDCG) for model in found[:1]]
            values = [test.get(key) for key in keys for test in tests]
            shown = [format_ndcg(row["value"]) if row else MISSING for row in values]
            cells.append(", ".join(shown) or MISSING)
        lines.append([label, *cells])
    return render_table(["NDCG@10", *RANKING_COLUMNS], lines)


BLOCKS: dict[str, Callable[[], str]] = {"forecasts": forecast_block, "rankings": ranking_block}


def rewrite(text: str) -> str:
    """Give the page with its blocks as the result files have them; a page without marks as it is.

    Raises
    ------
    ValueError
        If a block has no end.
    """
    for name, build in BLOCKS.items():
        start = mark(name)
        if start not in text:
            continue
        before, _, rest = text.partition(start)
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f"after {start} the page has no {END}")
        text = f"{before}{start}\n\n{build()}\n\n{END}{after}"
    return text


if __name__ == "__main__":
    atomic_write_text(FRONT_PAGE, rewrite(FRONT_PAGE.read_text(encoding="utf-8")))
