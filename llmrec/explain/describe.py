"""The description of a forecast: what the model proposes to say, checked, in true sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llmrec.contracts import Forecast, Kind
from llmrec.data.periods import History
from llmrec.explain.statements import derive, reviewed, sentence
from llmrec.explain.truth import CLAIMS


def described(
    history: History, forecast: Forecast, claims: Mapping[tuple[Kind, int], str], unread: int = 0
) -> Forecast:
    """Give the forecast with checked statements and a description made of them.

    ``claims`` are what the model said: (kind, category) and the phrase it chose, which is kept
    (``unread``: pieces it wrote that say nothing checkable, or nothing more). Those that history
    and forecast support come first; the rejected ones are counted in the source; what counting
    derives fills up to four statements.
    """
    accepted, rejected = reviewed(claims, history, forecast)
    accepted = accepted[:CLAIMS]
    spoken = {statement.category for statement in accepted}
    derived = [s for s in derive(history, forecast, limit=CLAIMS) if s.category not in spoken]
    statements = (*accepted, *derived[: CLAIMS - len(accepted)])
    source = replace(
        forecast.source,
        proposed=len(accepted),
        rejected=len(rejected) + unread,
    )
    sentences = [
        sentence(statement, history, forecast, claims.get((statement.kind, statement.category), ""))
        for statement in statements
    ]
    return replace(
        forecast,
        description=" ".join(sentences) or "Nothing in this history points up or down.",
        statements=statements,
        source=source,
    )
