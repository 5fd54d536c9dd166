"""Choosing on validation windows how hard the forecast tilts the ranking."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.contracts import Forecaster
from llmrec.data.periods import Window
from llmrec.evaluation.backtest import evaluate_rankings
from llmrec.ranking.blend import Blend, Repeat
from llmrec.ranking.tilt import rank

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fit_strength(
    forecaster: Forecaster,
    blend: Blend,
    windows: Sequence[Window],
    *,
    repeat: Repeat = "allow",
    k: int = 10,
) -> float:
    """Find the tilt of greatest NDCG@k on windows; the smallest of equals."""
    histories = [window.history for window in windows]
    forecasts = forecaster.forecast(histories)
    rankings = {
        str(strength): rank(forecasts, histories, blend, k=k, strength=strength, repeat=repeat)
        for strength in STRENGTHS
    }
    table = evaluate_rankings(rankings, windows, repeat=repeat, k=k)
    ndcg = table[table["metric"] == f"ndcg@{k}"].set_index("model")["value"]
    return float(str(ndcg.idxmax()))
