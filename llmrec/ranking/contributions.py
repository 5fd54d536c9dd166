"""What of a person's past made an item's score: the parts of a sum, or what removal takes off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from llmrec.data.periods import History
from llmrec.forecast import ItemScorer
from llmrec.types import FloatArray, IntArray

MAX_SHARE = 0.999  # of a sum: what its logarithm loses without all of it would be infinite


@dataclass(frozen=True, eq=False)
class Contributions:
    """Raw scores of items as sums over a person's past items; `raw_scores` are the sums.

    Attributes
    ----------
    past_items
        (n_past,) distinct items of the history, the one taken last first.
    parts
        (n_items, n_past) what each of them adds; negative where it argues against an item.
    rest
        (n_items,) what is of no past item: popularity, and what interacts.
    scale
        What a raw score is: proportional to the item's "probability", or its "log" up to a
        constant.
    is_exact
        Whether the scorer is such a sum. Else a part is what the score loses without the past item.
    """

    past_items: IntArray
    parts: FloatArray
    rest: FloatArray
    scale: Literal["probability", "log"] = "probability"
    is_exact: bool = True

    @property
    def raw_scores(self) -> FloatArray:
        """(n_items,) sums of all parts."""
        return np.asarray(self.parts.sum(axis=1) + self.rest)

    @property
    def effects(self) -> FloatArray:
        """(n_items, n_past) what each past item adds to the logarithm of the score, in nats.

        That is -log(1 - share of the sum) for probabilities; 0 for an item whose sum is none.
        """
        if self.scale == "log":
            return self.parts
        totals = self.raw_scores[:, None]
        shares = np.divide(self.parts, totals, out=np.zeros_like(self.parts), where=totals > 0)
        return np.asarray(-np.log1p(-np.minimum(shares, MAX_SHARE)))


@runtime_checkable
class AdditiveScorer(Protocol):
    """An item scorer whose raw scores are sums over the items of the history."""

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) the sums that `scores` makes log-probabilities of."""
        ...

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items, exact to 1e-9."""
        ...


def past_items(history: History) -> IntArray:
    """(n_past,) distinct items of a history, the one taken last first."""
    newest_first = history.item_idx[::-1]
    _, first = np.unique(newest_first, return_index=True)
    return np.asarray(newest_first[np.sort(first)], dtype=np.int64)


def contributions_of(scorer: ItemScorer, history: History, items: IntArray) -> Contributions:
    """Give what each past item adds to the scores of items: exact, or else by removal."""
    if isinstance(scorer, AdditiveScorer):
        return scorer.contributions(history, items)
    return removal_contributions(scorer, history, items, past_items(history))


def removal_contributions(
    scorer: ItemScorer, history: History, items: IntArray, past: IntArray
) -> Contributions:
    """Score again without each of these past items, in one batch: what the scores then lose."""
    reduced = [history.without_items(past[[place]]) for place in range(len(past))]
    scores = scorer.scores([history, *reduced])[:, items]
    parts = (scores[0] - scores[1:]).T
    return Contributions(past, parts, scores[0] - parts.sum(axis=1), "log", is_exact=False)
