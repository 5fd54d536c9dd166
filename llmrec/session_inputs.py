"""What sessions of one person share, and the items that they recommend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmrec.data.periods import History
from llmrec.explain.item import ItemExplanation
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend
from llmrec.ranking.ranking import Reranker, make_reranker
from llmrec.types import RepeatPolicy

Rewording = Callable[[Sequence[ItemExplanation]], list[ItemExplanation]]


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


@dataclass(frozen=True, eq=False)
class SessionInputs:
    """What all sessions of one person share, whatever their edits: the forecast and the scores.

    Attributes
    ----------
    history
        The person's events before the cutoff.
    blend
        Scores the items; it scores this history once.
    scorer
        The blend that scores other histories, too: this one without some of its events.
    strength, edit_strength
        How hard the forecast, and what edits change of it, tilt the ranking where a session sets no
        other strength.
    repeat
        Whether items already taken may be listed.
    make_forecast
        Forecasts the history; it is called once, when the forecast is first needed.
    reword
        Puts explanations into a language model's words, checked.
    """

    history: History
    blend: Blend
    scorer: Blend
    strength: float
    edit_strength: float
    repeat: RepeatPolicy
    make_forecast: Callable[[History], Forecast]
    reword: Rewording

    @cached_property
    def forecast(self) -> Forecast:
        """The next period, before any edit."""
        return self.make_forecast(self.history)

    @cached_property
    def reranker(self) -> Reranker:
        """Ranks the items under edits; they are scored when it is made."""
        return make_reranker(
            self.history,
            self.forecast,
            self.blend,
            strength=self.strength,
            edit_strength=self.edit_strength,
            repeat=self.repeat,
        )
