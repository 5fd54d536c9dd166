"""Comparisons, audits and the track record of stored forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.evaluation.audits import audit as audit
    from llmrec.evaluation.comparison import compare as compare
    from llmrec.evaluation.forecast_store import save_forecasts as save_forecasts
    from llmrec.evaluation.html_report import save_report as save_report
    from llmrec.evaluation.track_record import score_forecasts as score_forecasts

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.evaluation.audits": ["audit"],
        "llmrec.evaluation.comparison": ["compare"],
        "llmrec.evaluation.forecast_store": ["save_forecasts"],
        "llmrec.evaluation.html_report": ["save_report"],
        "llmrec.evaluation.track_record": ["score_forecasts"],
    },
)
