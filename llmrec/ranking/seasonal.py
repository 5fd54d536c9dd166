"""A scorer plus a trend of what everybody takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.stored import Stored
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import scorer_name
from llmrec.ranking.contributions import AdditiveScorer, Contributions, contributions_of
from llmrec.ranking.fitted import FittableScorer, StorableScorer, refusing
from llmrec.ranking.scorers import ALL_TIME_DAYS, RecentPopularity, require_positive
from llmrec.types import FloatArray, IntArray


@dataclass
class Seasonal:
    """Scores by another scorer, plus power * log(recent popularity / all-time popularity).

    Parameters
    ----------
    scorer
        The other one; `fit` fits it, where it has to be fitted.
    days
        Length of the span before the cutoff in which popularity is recent, > 0.
    power
        > 0; how much of the trend is added.
    """

    scorer: ItemScorer
    days: float = 28.0
    power: float = 0.5

    def __post_init__(self) -> None:
        require_positive(days=self.days, power=self.power)

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return f"{scorer_name(self.scorer)} in season"

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
    ) -> Seasonal:
        """Fit the other scorer on all users' events before the cutoff (default: all events)."""
        if isinstance(self.scorer, FittableScorer):
            self.scorer = self.scorer.fit(log, catalog, cutoff)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError if the logs differ."""
        if not histories:
            return np.empty((0, 0))
        recent, whole = RecentPopularity(self.days), RecentPopularity(ALL_TIME_DAYS)
        trend = recent.scores(histories) - whole.scores(histories)
        scores = self.scorer.scores(histories) + self.power * trend
        return np.asarray(log_softmax(scores, axis=1), dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) those of the other scorer: the trend multiplies all parts alike."""
        if isinstance(self.scorer, AdditiveScorer):
            return self.scorer.raw_scores(histories)
        return self.scorer.scores(histories)

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the other scorer's raw scores of these items."""
        return contributions_of(self.scorer, history, items)

    def stored(self) -> Stored:
        """Give the parameters, and the other scorer as a part; ValueError if it is not fitted."""
        if not isinstance(self.scorer, StorableScorer):
            raise ValueError(f"{scorer_name(self.scorer)!r} cannot be stored")
        values = {"days": self.days, "power": self.power}
        return Stored("Seasonal", values, parts={"scorer": self.scorer.stored()})

    @classmethod
    def from_stored(
        cls, stored: Stored, catalog: Catalog, load: Callable[[Stored, Catalog], ItemScorer]
    ) -> Seasonal:
        """Make it again; ``load`` makes the other scorer. ModelLoadError for what cannot be."""
        with refusing(stored.kind):
            return cls(load(stored.parts["scorer"], catalog), **stored.values)
