"""A person's forecast and list as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.explain.evidence import format_period_ahead
from llmrec.explain.next_counts import next_counts
from llmrec.explain.reword import wording_note
from llmrec.forecast import Forecast
from llmrec.session_inputs import Recommendation
from llmrec.types import IntArray

MAX_CATEGORIES = 20


def person_summary(
    dataset: Dataset, history: History, forecast: Forecast, items: Sequence[Recommendation]
) -> dict[str, Any]:
    """Give a forecast and a list as plain values for JSON."""
    names, top = dataset.catalog.categories, forecast.top(MAX_CATEGORIES)
    weights = forecast.category_weights
    return {
        "dataset": dataset.name,
        "user_id": history.user_id,
        "period": str(history.period_length),
        "cutoff": str(history.cutoff),
        "horizon": forecast.horizon,
        "forecast_of": format_period_ahead(history, forecast.horizon),
        "category_weights": {names[c]: float(weights[c]) for c in top},
        "concentration": forecast.concentration,
        "next_counts": _next_counts(history, forecast, top),
        "description": forecast.description,
        "statements": [
            vars(statement) | {"category": names[statement.category]}
            for statement in forecast.statements
        ],
        "source": vars(forecast.source),
        "items": [item.explanation.to_dict() for item in items],
        "wording": wording_note([item.explanation for item in items]),
    }


def _next_counts(history: History, forecast: Forecast, top: IntArray) -> dict[str, Any]:
    """Give the 80 % intervals of these categories, of as many events as a period has."""
    n, counts = next_counts(history, forecast, top)
    names = history.catalog.categories
    intervals = {names[c]: one._asdict() for c, one in zip(top, counts, strict=True)}
    return {"of": n, "intervals": intervals}
