"""The description of a forecast: what the model proposes to say, checked, in true sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmrec.contracts import Forecast, Kind
from llmrec.data.periods import History
from llmrec.explain.statements import derive, reviewed, sentence

STATEMENTS = 4


def described(
    history: History, forecast: Forecast, claims: Sequence[tuple[Kind, int]], unread: int = 0
) -> Forecast:
    """Give the forecast with checked statements and a description made of them.

    ``claims`` are what the model said (``unread``: pieces it wrote that say nothing checkable).
    Those that history and forecast support come first; the rejected ones are counted in the source;
    what counting derives fills up to four statements.
    """
    accepted, rejected = reviewed(claims, history, forecast)
    accepted = accepted[:STATEMENTS]
    spoken = {statement.category for statement in accepted}
    derived = [s for s in derive(history, forecast, limit=STATEMENTS) if s.category not in spoken]
    statements = (*accepted, *derived[: STATEMENTS - len(accepted)])
    source = replace(
        forecast.source,
        proposed=len(accepted),
        rejected=len(rejected) + unread,
    )
    sentences = [sentence(statement, history, forecast) for statement in statements]
    return replace(
        forecast,
        description=" ".join(sentences) or "Nothing in this history points up or down.",
        statements=statements,
        source=source,
    )
