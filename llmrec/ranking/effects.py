"""The effect of edits on a ranking, predicted before they are applied and verified after.

The laws. Without edits an item's score is s_i = b_i + strength * sum_c m_ic * log((w_c + e) /
(v_c + e)): the blend b and its mix v depend on neither the forecast w nor the edits, item shares
m_i sum to 1 or 0, e is EPSILON. Edits turn w into w'. Write d_c for log((w'_c + e) / (w_c + e)) and
D_i for the change of s_i.

- Exact: D_i = edit_strength * sum_c m_ic * d_c, which is what edits add to s_i.
- Direction: an item of the largest D can only rise, one of the smallest only fall, where D of a
  muted item is below any other. From s_j <= s_i and D_j <= D_i follows s'_j <= s'_i.
- Monotone: a larger factor on c never lowers an item of c alone against any other. w'_c / w_c >= 1
  >= w'_j / w_j for j != c, so d_c >= 0 >= d_j, and no mean of d's, nor 0, is above d_c.
- Muted: an item with any share of a muted category ranks below every item with none, at every
  strength. The ranking separates the two before it compares scores.
- Additive: two unlocked edits at once are one after the other, in either order. w * f_1 * f_2,
  divided by its sum, is the same whether or not it was divided by its sum in between.
- Undoable: an unlocked factor f > 0, then 1/f, gives w back: f/f = 1. So does a locked one where
  others keep at least 1e-4 throughout: they shrink by (1 - f w_c) / (1 - w_c), then grow by it.
- Idempotent, whatever the order: edits act by category, and two equal ones of a category are one.
- Removable, and expiring: only the edits that are left matter. Nothing is stored between calls.
- Locked: w'_c = w_c * f to the last bit, whatever the other edits: only the others are rescaled.
- Strength: D is proportional to that of edits; at 0 no edit but muting moves anything.

All to 1e-9 in scores. Items closer than that are tied, and the order of tied items may change.
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
from llmrec.ranking.ranking import (
    Ranking,
    Reranker,
    log_weights,
    validate_k,
    validate_strength,
)
from llmrec.types import BoolArray, FloatArray, IntArray

TOLERANCE = 1e-9  # scores no further apart are the same
NOTHING_LISTED = "Nothing is left: all that could be listed is muted or was {verb}."
Direction = Literal["can only rise", "can only fall", "may go either way", "stays"]


@dataclass(frozen=True, eq=False)
class EditEffect:
    """The predicted effect of edits, and of a change of strength; nothing is applied.

    Attributes
    ----------
    edits, expired_edits
        Those in force at the history's cutoff, by category; those that have ended and do nothing.
    before, after
        The forecast without the edits, and with them.
    strength_before
        Strength of the tilt without the edits.
    new_strength
        Another one that was asked for, of forecast and edits alike; None: their own.
    category_changes
        (n_categories,) change of the score of an item that belongs to this category only.
    item_idx
        (n,) all items that may be ranked, best first, before the edits.
    scores, score_changes
        (n,) their scores before, and by how much each will change.
    muted
        (n,) which of them will rank below all others.
    catalog, rerank
        The catalog, and what ranks the person's items again, for `verify`.
    """

    edits: Mapping[int, Edit]
    expired_edits: tuple[Edit, ...]
    before: Forecast
    after: Forecast
    strength_before: float
    new_strength: float | None
    category_changes: FloatArray
    item_idx: IntArray
    scores: FloatArray
    score_changes: FloatArray
    muted: BoolArray
    catalog: Catalog
    rerank: Reranker

    @property
    def strength_after(self) -> float:
        """Strength of the tilt to the forecast, with the edits."""
        return self.strength_before if self.new_strength is None else self.new_strength

    @property
    def may_rise(self) -> BoolArray:
        """(n,) which items may pass some other item: the rest can only fall, or stay."""
        return np.asarray(
            self._effective_changes > self._effective_changes.min(initial=np.inf) + TOLERANCE
        )

    @property
    def may_fall(self) -> BoolArray:
        """(n,) which items some other item may pass: the rest can only rise, or stay."""
        return np.asarray(
            self._effective_changes < self._effective_changes.max(initial=-np.inf) - TOLERANCE
        )

    def direction(self, category: int) -> Direction:
        """Give the way in which an item of this category alone can move among the others."""
        push = self.category_changes[category] - self._muting_drop * self.is_muted(category)
        rises = push > self._effective_changes.min(initial=np.inf) + TOLERANCE
        falls = push < self._effective_changes.max(initial=-np.inf) - TOLERANCE
        if rises and falls:
            return "may go either way"
        return "can only rise" if rises else "can only fall" if falls else "stays"

    def predicted_list(self, k: int) -> IntArray:
        """(n,) items of the predicted list, best first; n <= k, and none of a muted category.

        ValueError if k < 1.
        """
        validate_k(k)
        order = np.argsort(-(self.scores + self.score_changes), kind="stable")
        return self.item_idx[order[~self.muted[order]][:k]]

    def verify(self, k: int = 10) -> EditOutcome:
        """Rank again with the edits: the list of k, and whether the prediction holds.

        ValueError if k < 1.
        """
        validate_k(k)
        ranking = self.rerank(tuple(self.edits.values()), strength=self.new_strength)
        muted = set(self.item_idx[self.muted].tolist())
        before = self.item_idx[:k].tolist()
        now = [item for item in ranking.item_idx[:k].tolist() if item not in muted]
        ranks = {i: (before.index(i) + 1, now.index(i) + 1) for i in now if i in before}
        largest_error, violations = self._compare(ranking)
        return EditOutcome(
            k=k,
            listed=tuple(now),
            entered=tuple(item for item in now if item not in before),
            left=tuple(item for item in before if item not in now),
            moved={item: pair for item, pair in ranks.items() if pair[0] != pair[1]},
            largest_error=largest_error,
            violations=violations,
        )

    def is_muted(self, category: int) -> bool:
        """Whether a category is muted."""
        return category in self.edits and self.edits[category].factor == 0

    @property
    def _muting_drop(self) -> float:
        """More than any two changes differ by: muting outweighs them all."""
        return float(np.ptp(np.append(self.score_changes, self.category_changes))) + 1

    @cached_property
    def _effective_changes(self) -> FloatArray:
        """(n,) an item may pass another only if its number is the larger."""
        return self.score_changes - self._muting_drop * self.muted

    def _compare(self, ranking: Ranking) -> tuple[float, tuple[str, ...]]:
        """Give the largest error of a predicted score, and the claims that do not hold."""
        if set(ranking.item_idx.tolist()) != set(self.item_idx.tolist()):
            return np.inf, ("the same items are ranked",)
        by_item = np.argsort(self.item_idx)
        rows = by_item[np.searchsorted(self.item_idx, ranking.item_idx, sorter=by_item)]
        predicted, muted = (self.scores + self.score_changes)[rows], self.muted[rows]
        error = float(np.abs(ranking.scores - predicted).max(initial=0.0))
        same_side = muted[1:] == muted[:-1]
        first, last = _rank_bounds(self.scores)
        rank = np.arange(len(rows))
        claims = {
            "every score is the predicted one": error <= TOLERANCE,
            "the order is the predicted one": (
                np.diff(predicted)[same_side] <= 2 * TOLERANCE
            ).all(),
            "muted items stand below all others": (muted[1:] >= muted[:-1]).all(),
            "what can only rise has not fallen": (self.may_fall[rows] | (rank <= last[rows])).all(),
            "what can only fall has not risen": (self.may_rise[rows] | (rank >= first[rows])).all(),
        }
        return error, tuple(claim for claim, holds in claims.items() if not holds)


@dataclass(frozen=True)
class EditOutcome:
    """The list of k that ranking again with the edits gives, and whether the prediction holds.

    Attributes
    ----------
    listed
        Items of the list now, best first; none of a muted category.
    entered, left
        Items that are on it only now, and that were on it only before; in the order of the list.
    moved
        Item to its 1-based rank before and now, for those on both lists whose rank changed.
    largest_error
        Largest distance of a score, of all items that may be ranked, from the predicted one.
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
        """Whether everything is as predicted."""
        return not self.violations


def predict_effect(
    forecast: Forecast,
    edits: Sequence[Edit],
    history: History,
    rerank: Reranker,
    strength: float,
    new_strength: float | None = None,
    edit_strength: float | None = None,
) -> EditEffect:
    """Predict what edits do to a person's forecast and to the score of every item.

    Parameters
    ----------
    rerank
        Ranks the items that may be ranked by this forecast; here it is called without edits only.
    strength, edit_strength
        Those of ``rerank``; None: the same.
    new_strength
        Of forecast and edits, once there are edits; None: as before.

    Raises
    ------
    EditError
        If the edits cannot be applied or contradict each other, or a strength is out of bounds.
    """
    catalog, at = history.catalog, history.cutoff
    if new_strength is not None:
        edit_strength = new_strength
    elif edit_strength is None:
        edit_strength = strength
    after = apply_edits(forecast, edits, catalog, at)
    validate_strength(edit_strength)
    now = rerank((), strength=strength)
    changes = edit_strength * (log_weights(after) - log_weights(forecast))
    if new_strength is not None and new_strength != strength:
        pull = _category_pull(rerank((), strength=1.0), catalog)
        changes += (new_strength - strength) * pull
    return EditEffect(
        edits=active_edits(edits, catalog, at),
        expired_edits=tuple(edit for edit in edits if not edit.is_active(at)),
        before=forecast,
        after=after,
        strength_before=strength,
        new_strength=new_strength,
        category_changes=changes,
        item_idx=now.item_idx,
        scores=now.scores,
        score_changes=catalog.category_shares[now.item_idx] @ changes,
        muted=muted_item_mask(edits, catalog, at)[now.item_idx],
        catalog=catalog,
        rerank=rerank,
    )


def strength_text(effect: EditEffect) -> str:
    """Give a sentence on the change of strength; "" if it stays the same."""
    before, after = effect.strength_before, effect.strength_after
    if after == before:
        return ""
    return f"The forecast tilts the list with a strength of {after:g} instead of {before:g}."


def rank_changes(outcome: EditOutcome) -> dict[int, str]:
    """Give the change of each listed item that is new or has another rank: "new", "was 7"."""
    moved = {item: f"was {before}" for item, (before, _) in outcome.moved.items()}
    return moved | dict.fromkeys(outcome.entered, "new")


def outcome_verdict(effect: EditEffect, outcome: EditOutcome) -> str:
    """Give a sentence on whether ranking again gave what was predicted."""
    if not len(effect.item_idx):
        return "No item may be ranked, so there is nothing to verify."
    if outcome.holds:
        return (
            f"Verified by ranking again: the scores of all {len(effect.item_idx):,} items are as "
            f"predicted (largest error {outcome.largest_error:.0e}), and so is their order."
        )
    return f"NOT as predicted. Ranking again broke: {'; '.join(outcome.violations)}."


def _category_pull(ranking: Ranking, catalog: Catalog) -> FloatArray:
    """(n_categories,) what a whole share adds to a score; 0 where no ranked item has a share."""
    shares = catalog.category_shares[ranking.item_idx].sum(axis=0)
    pull: FloatArray = ranking.category_parts.sum(axis=0) / np.where(shares > 0, shares, 1)
    return pull


def _rank_bounds(scores: FloatArray) -> tuple[IntArray, IntArray]:
    """(n,) and (n,) first and last 0-based rank that ties leave to items sorted by score."""
    ascending = scores[::-1]
    first = len(scores) - np.searchsorted(ascending, scores + 2 * TOLERANCE, side="right")
    last = len(scores) - np.searchsorted(ascending, scores - 2 * TOLERANCE, side="left") - 1
    return first, last
