"""Scores of one stage's histories that may be -inf, with the time they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmrec.data.periods import History
from llmrec.types import FloatArray


@dataclass(frozen=True, eq=False)
class CachedScores:
    """A net's scores of a stage's histories, and the seconds that it took to learn and score.

    Unlike `llmrec.ranking.blend.PrecomputedScorer` it takes -inf for items that a net does not
    know, and rows in the order of the histories.
    """

    rows: FloatArray
    seconds: float

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items), of that stage's histories alone."""
        if len(histories) != len(self.rows):
            raise ValueError(
                f"scores of {len(self.rows)} histories are cached, not {len(histories)}"
            )
        return self.rows
