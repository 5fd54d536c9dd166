"""Item scorers, their blend, and rankings tilted to a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.ranking.blend import Blend as Blend
    from llmrec.ranking.blend import fit_blend as fit_blend
    from llmrec.ranking.fitting import evaluate_rankings as evaluate_rankings
    from llmrec.ranking.gbdt import GBDTReranker as GBDTReranker
    from llmrec.ranking.item_item import ItemToItem as ItemToItem
    from llmrec.ranking.lm_scorer import LMItemScorer as LMItemScorer
    from llmrec.ranking.ranking import Ranking as Ranking
    from llmrec.ranking.ranking import rank as rank

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.ranking.blend": ["Blend", "fit_blend"],
        "llmrec.ranking.fitting": ["evaluate_rankings"],
        "llmrec.ranking.gbdt": ["GBDTReranker"],
        "llmrec.ranking.item_item": ["ItemToItem"],
        "llmrec.ranking.lm_scorer": ["LMItemScorer"],
        "llmrec.ranking.ranking": ["Ranking", "rank"],
    },
)
