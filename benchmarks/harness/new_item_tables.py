"""Tables of what text is worth: items new to a log, and logs of few people."""

from __future__ import annotations

from benchmarks.harness.formatting import (
    Row,
    format_difference,
    format_interval,
    format_ndcg,
    render_table,
)
from benchmarks.harness.labels import (
    LOG_TITLES,
    ONLINE_RETAIL,
    QUICK,
    WITHOUT_TEXT,
    WITHOUT_TITLES,
)
from benchmarks.harness.results import Rows, load_rows_if_any
from benchmarks.harness.summaries import MISSING, NDCG

SHELVES, POPULAR = "Shelves", "TextPopularity"  # models of the rows of `ranking.launches`
SHELF_MODELS = ("Random", "RecentPopularity", POPULAR, "TitleKernel", QUICK)
QUICK_WITHOUT_TEXT, QUICK_WITHOUT_TITLES = QUICK + WITHOUT_TEXT, QUICK + WITHOUT_TITLES
YOUNG_SHOP = "young shop / "  # and how many people, in a split


def launch_table() -> str:
    """NDCG@10 of shelves of new items, with intervals over people; "" before it is measured."""
    lines = []
    for data, title in LOG_TITLES.items():
        rows = load_rows_if_any(launches_name(data))
        for kind in ("launch", "new"):
            for split in ("test", "all"):
                found = _rows_of(rows, f"{split} / {kind}")
                if (SHELVES, "items") not in found:
                    continue
                sizes = [f"{found[SHELVES, size]['value']:.0f}" for size in ("items", "people")]
                values = [_format_if_any(found, model) for model in SHELF_MODELS]
                gain = found.get((QUICK, f"{NDCG} above {POPULAR}"))
                above = format_difference(gain) if gain else MISSING
                lines.append([f"{title}, {kind}, {split}", *sizes, *values, above])
    header = ["shelves", "items", "people", *SHELF_MODELS, f"{QUICK} above {POPULAR}"]
    return render_table(header, lines) + "\n" if lines else ""


def launches_name(data: str) -> str:
    """Name the result file of the shelves of a log."""
    return "ranking/launches" + f"_{data}" * (data != ONLINE_RETAIL)


def young_shop_table() -> str:
    """NDCG@10 of engines of logs of few people, with text and without; "" before that.

    "Without titles" is where categories are clusters of titles: the forecast does not tilt it.
    """
    lines = []
    for data, title in LOG_TITLES.items():
        rows = load_rows_if_any(f"ranking/young_shop_{data}")
        for split in dict.fromkeys(split for _, split, *_ in rows):
            found = _rows_of(rows, split)
            engines = (QUICK_WITHOUT_TITLES, QUICK_WITHOUT_TEXT, QUICK)
            peers = [m for m, metric in found if metric == NDCG and not m.startswith("llmrec")]
            best = max(peers, key=lambda peer: float(found[peer, NDCG]["value"]))
            cells = [_format_if_any(found, model) for model in engines]
            of_best = f"{best} {format_ndcg(found[best, NDCG]['value'])}"
            gains = [
                format_difference(found[QUICK, metric]) if (QUICK, metric) in found else MISSING
                for metric in (f"{NDCG} above {one}" for one in (*engines[:2], best))
            ]
            lines.append([title, split.removeprefix(YOUNG_SHOP), *cells, *gains, of_best])
    gained = ["titles add", "text scorers add", "above the best peer", "which is"]
    header = ["log", "people", QUICK_WITHOUT_TITLES, QUICK_WITHOUT_TEXT, QUICK, *gained]
    return render_table(header, lines) + "\n" if lines else ""


def _rows_of(rows: Rows, split: str) -> dict[tuple[str, str], Row]:
    """Rows of a split, by model and metric."""
    return {key[2:]: row for key, row in rows.items() if key[1] == split}


def _format_if_any(rows: dict[tuple[str, str], Row], model: str) -> str:
    return format_interval(rows[model, NDCG]) if (model, NDCG) in rows else MISSING
