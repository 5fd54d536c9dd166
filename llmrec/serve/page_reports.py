"""What the pages tell of the log, of the engine, and of forecasts that were stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.check import check_dataset
from llmrec.data.dataset import Dataset
from llmrec.engine_info import describe_engine
from llmrec.errors import DataError
from llmrec.evaluation.forecast_store import filter_forecasts, load_forecasts
from llmrec.evaluation.track_record import score_forecasts
from llmrec.explain.evidence import format_day, to_date


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
        stored = filter_forecasts(load_forecasts(folder), user_id)
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


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.0%}"
