"""What the pages tell of people, wishes, the log, the engine, and forecasts that were stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from llmrec.data.check import check_dataset
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.engine_info import describe_engine
from llmrec.errors import DataError, EditError
from llmrec.evaluation.forecast_store import filter_forecasts, load_forecasts
from llmrec.evaluation.track_record import score_forecasts
from llmrec.explain.evidence import format_day, to_date
from llmrec.ranking.edit_parser import edit_sentences, parse_edits
from llmrec.serve.page_state import PageState


def log_reports(dataset: Dataset, engine_folder: str | None) -> list[tuple[str, list[str]]]:
    """Give what `llmrec check` and `llmrec info` say, each with its heading, in lines."""
    if not dataset.log.n_users:
        check = ["This engine holds no log: it serves people whose events are given."]
    else:
        check = check_dataset(dataset).lines()
    if engine_folder is None:
        info = ["This engine was fitted here and not saved; `llmrec fit` writes a folder."]
    else:
        try:
            info = describe_engine(engine_folder).lines()
        except DataError as error:
            info = [str(error)]
    return [("The log, as `llmrec check` reads it", check), ("The engine, `llmrec info`", info)]


def stored_rows(
    folder: Path | None, dataset: Dataset, user_id: str
) -> tuple[list[dict[str, Any]], str]:
    """Give a person's stored forecasts with their scores, newest first; or why there are none."""
    if folder is None:
        return [], "No folder of stored forecasts was given; `llmrec forecast --store` makes one."
    try:
        stored = filter_forecasts(load_forecasts(folder), dataset, user_id)
        known = score_forecasts(stored, dataset).set_index("receipt").to_dict("index")
    except DataError as error:
        return [], str(error)
    rows = []
    for one in reversed(stored):
        row = known[one.receipt]
        gain = float(row["gain_on_counting"])
        rows.append(
            {
                "made": format_day(to_date(one.made)),
                "period": f"{one.period} from {format_day(to_date(one.cutoff))}",
                "model": one.model,
                "advance": "in advance" if one.in_advance else "in hindsight",
                "status": str(row["why"] or row["status"]),
                "events": "" if np.isnan(row["events"]) else f"{row['events']:.0f}",
                "gain": "" if np.isnan(gain) else f"{gain:+.3f}",
                "said": _percent(row["said"]),
                "came_true": _percent(row["came_true"]),
                "description": one.forecast.description,
            }
        )
    return rows, ""


def people_rows(log: Interactions, places: Sequence[int] | Any) -> list[dict[str, Any]]:
    """Give ids, numbers of events and the day of the newest one of users of a log."""
    starts, ends = log.user_offsets[places], log.user_offsets[np.asarray(places, dtype=int) + 1]
    return [
        {
            "id": str(log.user_ids[place]),
            "n_events": int(end - start),
            "last": format_time(log.timestamp[end - 1]) if end > start else "",
        }
        for place, start, end in zip(places, starts, ends, strict=True)
    ]


def wish_preview(state: PageState, history: History) -> dict[str, Any] | None:
    """Say what of a wish was understood, and give the address that applies it; None without one."""
    if not state.text:
        return None
    catalog, at = history.catalog, history.cutoff
    try:
        parsed = parse_edits(state.text, catalog, at)
        applied = state.with_edits(parsed.edits, catalog, at)
    except EditError as error:
        return {"sentences": [], "assumed": [], "issues": [str(error)], "apply": ""}
    return {
        "sentences": edit_sentences(parsed.edits, catalog),
        "assumed": parsed.assumed,
        "issues": [issue.text for issue in parsed.issues],
        "apply": person_address(history.user_id, applied.query()) if parsed.edits else "",
    }


def person_address(user_id: str, query: str = "") -> str:
    """Give the address of a person's page."""
    return f"/people/{quote(user_id, safe='')}{'?' * bool(query)}{query}"


def format_time(time: np.datetime64) -> str:
    """Give the day of a time in words."""
    return format_day(to_date(time))


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.0%}"
