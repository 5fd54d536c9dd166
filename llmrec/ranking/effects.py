"""What edits will do to one person's ranking, said before they are applied and checked after.

The laws. An item's score is s_i = b_i + strength * sum_c m_ic * log((w_c + e) / (v_c + e)): blend b
and mix v know neither the forecast w nor the edits, item shares m_i sum to 1 or 0, e is EPSILON.
Edits turn w into w'. Write d_c for log((w'_c + e) / (w_c + e)) and D_i for the change of s_i.

- Exact: D_i = strength * sum_c m_ic * d_c. Subtract s_i from s'_i; b and v cancel.
- Direction: an item of the largest D can only rise, one of the smallest only fall, where D of a
  muted item is below any other. From s_j <= s_i and D_j <= D_i follows s'_j <= s'_i.
- Monotone: a larger factor on c never lowers an item of c alone against any other. w'_c / w_c >= 1
  >= w'_j / w_j for j != c, so d_c >= 0 >= d_j, and no mean of d's, nor 0, is above d_c.
- Muted: an item with any share of a muted category stands below every item with none, at every
  strength. The ranking puts the two apart before it looks at scores.
- Additive: two unlocked edits are one after the other, in either order. w * f_1 * f_2, divided by
  its sum, does not mind whether it was divided by its sum in between.
- Undoable: an unlocked factor f > 0, then 1/f, gives w back: f/f = 1. So does a locked one where
  others keep at least 1e-4 throughout: they shrink by (1 - f w_c) / (1 - w_c), then grow by it.
- Idempotent, whatever the order: edits act by category, and two equal ones of a category are one.
- Removable, and expiring: what edits are left alone decides. Rankings keep nothing between calls.
- Locked: w'_c = w_c * f to the last bit, whatever the other edits: only the others are rescaled.
- Strength: D is proportional to it; at 0 no edit but muting moves anything.

All to 1e-9 in scores. Items closer than that count as tied, and a tie may turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.ranking.edits import Edit, active_edits, apply_edits, muted_item_mask
from llmrec.ranking.ranking import EPSILON, Ranking, Reranker, validate_k, validate_strength
from llmrec.types import BoolArray, FloatArray, IntArray

TOLERANCE = 1e-9  # scores no further apart are the same
Direction = Literal["can only rise", "can only fall", "may go either way", "stays"]


@dataclass(frozen=True, eq=False)
class EditEffect:
    """What edits, and a change of strength, will do; nothing is applied.

    Attributes
    ----------
    edits, ended
        Those that count at the history's cutoff, by category; those that have ended and do nothing.
    before, after
        The forecast without the edits, and with them.
    strength_before, strength_after
        How hard each tilts the ranking.
    category_changes
        (n_categories,) change of the score of an item that belongs to this category only.
    item_idx
        (n,) all items that may be ranked, best first, before the edits.
    scores, score_changes
        (n,) their scores before, and by how much each will change.
    muted
        (n,) which of them will stand below all others.
    catalog, rerank
        What the numbers are about, and the way to rank again, for `verify`.
    """

    edits: Mapping[int, Edit]
    ended: tuple[Edit, ...]
    before: Forecast
    after: Forecast
    strength_before: float
    strength_after: float
    category_changes: FloatArray
    item_idx: IntArray
    scores: FloatArray
    score_changes: FloatArray
    muted: BoolArray
    catalog: Catalog
    rerank: Reranker

    @property
    def may_rise(self) -> BoolArray:
        """(n,) which items some other item loses ground to: the rest can only fall, or stay."""
        return np.asarray(self._push > self._push.min(initial=np.inf) + TOLERANCE)

    @property
    def may_fall(self) -> BoolArray:
        """(n,) which items lose ground to some other item: the rest can only rise, or stay."""
        return np.asarray(self._push < self._push.max(initial=-np.inf) - TOLERANCE)

    def direction(self, category: int) -> Direction:
        """Say which way an item of this category alone can move among the others."""
        push = self.category_changes[category] - self._drop * self.mutes(category)
        rises = push > self._push.min(initial=np.inf) + TOLERANCE
        falls = push < self._push.max(initial=-np.inf) - TOLERANCE
        if rises and falls:
            return "may go either way"
        return "can only rise" if rises else "can only fall" if falls else "stays"

    def predicted_list(self, k: int) -> IntArray:
        """(n,) items of the list foretold, best first; n <= k, and none of a muted category.

        ValueError if k < 1.
        """
        validate_k(k)
        order = np.argsort(-(self.scores + self.score_changes), kind="stable")
        return self.item_idx[order[~self.muted[order]][:k]]

    def verify(self, k: int = 10) -> EditOutcome:
        """Rank again with the edits, and say what came of the list of k and of the prediction.

        ValueError if k < 1.
        """
        validate_k(k)
        ranking = self.rerank(tuple(self.edits.values()), strength=self.strength_after)
        muted = set(self.item_idx[self.muted].tolist())
        was = self.item_idx[:k].tolist()
        now = [item for item in ranking.item_idx[:k].tolist() if item not in muted]
        ranks = {item: (was.index(item) + 1, now.index(item) + 1) for item in now if item in was}
        largest_error, broken = self._compared(ranking)
        return EditOutcome(
            k=k,
            listed=tuple(now),
            entered=tuple(item for item in now if item not in was),
            left=tuple(item for item in was if item not in now),
            moved={item: pair for item, pair in ranks.items() if pair[0] != pair[1]},
            largest_error=largest_error,
            violations=broken,
        )

    def mutes(self, category: int) -> bool:
        """Whether a category is muted."""
        return category in self.edits and self.edits[category].factor == 0

    @property
    def _drop(self) -> float:
        """More than any two changes differ by: what muting costs beside them."""
        return float(np.ptp(np.append(self.score_changes, self.category_changes))) + 1

    @cached_property
    def _push(self) -> FloatArray:
        """(n,) an item may pass another only if its number is the larger."""
        return self.score_changes - self._drop * self.muted

    def _compared(self, ranking: Ranking) -> tuple[float, tuple[str, ...]]:
        """Give the largest error of a foretold score, and the claims that the ranking breaks."""
        if set(ranking.item_idx.tolist()) != set(self.item_idx.tolist()):
            return np.inf, ("the same items are ranked",)
        by_item = np.argsort(self.item_idx)
        rows = by_item[np.searchsorted(self.item_idx, ranking.item_idx, sorter=by_item)]
        foretold, muted = (self.scores + self.score_changes)[rows], self.muted[rows]
        error = float(np.abs(ranking.scores - foretold).max(initial=0.0))
        same_side = muted[1:] == muted[:-1]
        first, last = _ranks_before(self.scores)
        rank = np.arange(len(rows))
        claims = {
            "every score is the one foretold": error <= TOLERANCE,
            "the order is the one foretold": (np.diff(foretold)[same_side] <= 2 * TOLERANCE).all(),
            "muted items stand below all others": (muted[1:] >= muted[:-1]).all(),
            "what can only rise has not fallen": (self.may_fall[rows] | (rank <= last[rows])).all(),
            "what can only fall has not risen": (self.may_rise[rows] | (rank >= first[rows])).all(),
        }
        return error, tuple(claim for claim, held in claims.items() if not held)


@dataclass(frozen=True)
class EditOutcome:
    """What ranking again with the edits gave: the list of k, and whether the prediction held.

    Attributes
    ----------
    listed
        Items of the list now, best first; none of a muted category.
    entered, left
        Items that are on it only now, and that were on it only before; in the order of the list.
    moved
        Item to its 1-based rank before and now, for those that stayed on the list and moved.
    largest_error
        Largest distance of a score, of all items that may be ranked, from the one foretold.
    violations
        Claims of the prediction that do not hold; empty if all do.
    """

    k: int
    listed: tuple[int, ...]
    entered: tuple[int, ...]
    left: tuple[int, ...]
    moved: Mapping[int, tuple[int, int]]
    largest_error: float
    violations: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything came as foretold."""
        return not self.violations


def predict_effect(
    forecast: Forecast,
    edits: Sequence[Edit],
    history: History,
    rerank: Reranker,
    strength: float,
    strength_after: float | None = None,
) -> EditEffect:
    """Say what edits will do to a person's forecast and to the score of every item.

    Parameters
    ----------
    rerank
        Ranks all items that may be ranked from this forecast; here it is asked without edits only.
    strength, strength_after
        How hard the forecast tilts the ranking before, and with the edits; None: the same.

    Raises
    ------
    EditError
        If the edits cannot be applied or contradict each other, or a strength is out of bounds.
    """
    catalog, at = history.catalog, history.cutoff
    to = strength if strength_after is None else strength_after
    after = apply_edits(forecast, edits, catalog, at)
    validate_strength(to)
    now = rerank((), strength=strength)
    changes = to * _log(after) - to * _log(forecast)
    if to != strength:
        changes += (to - strength) * _pull_of_strength_1(rerank((), strength=1.0), catalog)
    return EditEffect(
        edits=active_edits(edits, catalog, at),
        ended=tuple(edit for edit in edits if not edit.is_active(at)),
        before=forecast,
        after=after,
        strength_before=strength,
        strength_after=to,
        category_changes=changes,
        item_idx=now.item_idx,
        scores=now.scores,
        score_changes=catalog.category_shares[now.item_idx] @ changes,
        muted=muted_item_mask(edits, catalog, at)[now.item_idx],
        catalog=catalog,
        rerank=rerank,
    )


def _log(forecast: Forecast) -> FloatArray:
    return np.log(forecast.category_weights + EPSILON)


def _pull_of_strength_1(ranking: Ranking, catalog: Catalog) -> FloatArray:
    """(n_categories,) what a whole share adds to a score; 0 where no ranked item has a share."""
    shares = catalog.category_shares[ranking.item_idx].sum(axis=0)
    pull: FloatArray = ranking.category_parts.sum(axis=0) / np.where(shares > 0, shares, 1)
    return pull


def _ranks_before(scores: FloatArray) -> tuple[IntArray, IntArray]:
    """(n,) and (n,) first and last 0-based rank that ties leave to items sorted by score."""
    rising = scores[::-1]
    first = len(scores) - np.searchsorted(rising, scores + 2 * TOLERANCE, side="right")
    last = len(scores) - np.searchsorted(rising, scores - 2 * TOLERANCE, side="left") - 1
    return first, last


NOTHING_LISTED = "Nothing is left: all that could be listed is muted or was taken."


def strength_text(effect: EditEffect) -> str:
    """Say how hard the forecast tilts the list, if that changes; else ""."""
    before, after = effect.strength_before, effect.strength_after
    if after == before:
        return ""
    return f"The forecast tilts the list with a strength of {after:g} instead of {before:g}."


def rank_changes(outcome: EditOutcome) -> dict[int, str]:
    """Say of each listed item that is new, or stood elsewhere: "new", "was 7"."""
    moved = {item: f"was {was}" for item, (was, _) in outcome.moved.items()}
    return moved | dict.fromkeys(outcome.entered, "new")


def outcome_verdict(effect: EditEffect, outcome: EditOutcome) -> str:
    """Say whether ranking again gave what was foretold."""
    if not len(effect.item_idx):
        return "No item may be ranked, so there is nothing to verify."
    if outcome.holds:
        return (
            f"Verified by ranking again: the scores of all {len(effect.item_idx):,} items are as "
            f"foretold (largest error {outcome.largest_error:.0e}), and so is their order."
        )
    return f"NOT as foretold. Ranking again broke: {'; '.join(outcome.violations)}."
