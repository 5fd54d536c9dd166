"""UserSession: one person's history, forecast, edits and ranked items, each computed once."""

from __future__ import annotations

from dataclasses import dataclass

from llmrec.explain.item import ItemExplanation

CALIBRATION_POOL = 1_000  # best items by score, of which a calibrated list is chosen


@dataclass(frozen=True)
class Recommendation:
    """One item of a list, and why it is there."""

    item_id: str
    title: str
    rank: int
    score: float
    explanation: ItemExplanation

    @property
    def why(self) -> str:
        """The explanation in a sentence or two."""
        return self.explanation.text
