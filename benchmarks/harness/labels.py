"""What rows of results call models, where scripts and tables must agree."""

from __future__ import annotations

from collections.abc import Sequence

COUNTING, MIXTURE, SASREC = "DecayedDirichlet", "GatedMixture", "GatedMixture + SASRec"
MOVIELENS, COMPLETE_JOURNEY, ONLINE_RETAIL = "ml-100k", "completejourney", "online-retail"
LOG_TITLES = {
    MOVIELENS: "MovieLens 100K",
    COMPLETE_JOURNEY: "Complete Journey",
    ONLINE_RETAIL: "Online Retail",
}
LLMREC = "llmrec"  # what the name of every engine begins with
TWO_STAGE = "Two-stage trees"
TWO_STAGE_WITH_NET = f"{TWO_STAGE} with GRU4Rec"


# What is left out of an engine of few people, behind its label: scorers by title; the tilt, too.
WITHOUT_TEXT, WITHOUT_TITLES = " without text", " without titles"


def engine_label(effort: str, *, use_llm: bool = False, without: Sequence[str] = ()) -> str:
    """Name the row of an engine that was fitted with an effort."""
    label = f"{LLMREC} {effort}" + " with LLM" * use_llm
    return f"{label} without {', '.join(without)}" if without else label


QUICK, STANDARD, BEST = map(engine_label, ("quick", "standard", "best"))
BEST_WITH_LLM = engine_label("best", use_llm=True)
LEARNED = "trees and nets"  # what the scores are of, in a split of the laws of edits
