"""What rows of results call models, where scripts and tables must agree."""

from __future__ import annotations

COUNTING, MIXTURE, SASREC = "DecayedDirichlet", "GatedMixture", "GatedMixture + SASRec"
LLMREC = "llmrec"  # a blend with everything
WITHOUT_TITLES = f"{LLMREC} without titles"  # ... but the scorer of an LLM's title probabilities
TUNED_LLM = "the tuned LLM"  # forecasts that lists are tilted to
OBSERVED = "the observed weights"
TWO_STAGE = "Two-stage trees"
TWO_STAGE_WITH_NET = f"{TWO_STAGE} with GRU4Rec"


def untilted(blend: str) -> str:
    """Name the row of a blend's lists by score alone."""
    return f"{blend}, no tilt"


def tilted(blend: str, forecast: str) -> str:
    """Name the row of a blend's lists, tilted to a forecast."""
    return f"{blend}, tilted to {forecast}"
