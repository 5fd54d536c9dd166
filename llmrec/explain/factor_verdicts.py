"""Whether an item is listed when some categories are multiplied, for many factors at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llmrec.data.catalog import Catalog
from llmrec.ranking.edits import MAX_FACTOR, Edit, active_edits
from llmrec.ranking.effects import TOLERANCE
from llmrec.ranking.largest import sparse_rows
from llmrec.ranking.ranking import EPSILON, Ranking
from llmrec.types import BoolArray, FloatArray

LISTED, UNKNOWN, NOT_LISTED = 1, 0, -1
Verdicts = npt.NDArray[np.int8]
# Where less is left to unlocked categories, rounding of the locked ones moves their logarithms.
_MIN_REST = 1e-4
_SCORES_PER_BLOCK = 1_000_000  # items times factors: 8 MB


def verdicts_by_factor(
    now: Ranking,
    item_idx: int,
    k: int,
    catalog: Catalog,
    edits: Sequence[Edit],
    at: np.datetime64 | None,
    names: Sequence[str],
    factors: FloatArray,
) -> Verdicts:
    """(n_factors,) whether an item is among the first k: `LISTED`, `NOT_LISTED` or `UNKNOWN`.

    Edits change a score by edit_strength * sum_c m_ic * d_c (see `llmrec.ranking.effects`), so a
    product of matrices gives the scores under all factors. It does not tell where scores about the
    k-th are closer than rounding, or where edits may be refused: there the item has to be ranked.

    Parameters
    ----------
    now
        All items that may be ranked, under the edits; the item may be listed.
    edits, at
        Those of ``now``; the time at which they are in force, None: any.
    names, factors
        Categories, and what all of them are multiplied by on top of the edits, as `compose_edits`
        does; >= 0.
    """
    columns = [catalog.categories.index(name) for name in names]
    active = active_edits(edits, catalog, at)
    multipliers = np.ones((1 + len(factors), catalog.n_categories))  # the first row: as it is now
    for category, edit in active.items():
        multipliers[:, category] = edit.factor
    multipliers[1:, columns] *= factors[:, None]
    locked = np.zeros(catalog.n_categories, dtype=np.bool_)
    locked[[category for category, edit in active.items() if edit.lock]] = True
    changes, is_known = _score_changes(now, multipliers, locked)
    verdicts = np.full(len(factors), UNKNOWN, dtype=np.int8)
    verdicts[is_known] = _verdicts_of(now, item_idx, k, catalog, changes[:, is_known])
    mutes = (multipliers[1:, columns] == 0).any(axis=1)
    verdicts[is_known & mutes] = NOT_LISTED
    return verdicts


def _score_changes(
    now: Ranking, multipliers: FloatArray, locked: BoolArray
) -> tuple[FloatArray, BoolArray]:
    """(n_categories, n_factors) change of the score of an item of one category alone.

    And (n_factors,) whether the edits can be applied for certain, and the change is exact.
    """
    weights = now.forecast.category_weights * multipliers
    rest = now.forecast.category_weights.sum() - weights[:, locked].sum(axis=1)
    free = weights[:, ~locked].sum(axis=1)
    is_known = (np.minimum(rest, free) > _MIN_REST) & (multipliers <= MAX_FACTOR).all(axis=1)
    scales = np.divide(rest, free, out=np.ones_like(free), where=is_known)
    weights[:, ~locked] *= scales[:, None]
    logs = np.log(weights + EPSILON)
    return now.edit_strength * (logs[1:] - logs[0]).T, is_known[1:] & is_known[0]


def _verdicts_of(
    now: Ranking, item_idx: int, k: int, catalog: Catalog, changes: FloatArray
) -> Verdicts:
    """(n_factors,) verdicts by (n_categories, n_factors) changes, that no item gets muted by."""
    scores = now.scores[: np.count_nonzero(~now.muted)]  # muted items come last
    place = int(np.flatnonzero(now.item_idx == item_idx)[0])
    own = scores[place] + (sparse_rows(catalog.category_shares, now.item_idx[[place]]) @ changes)[0]
    tolerance = TOLERANCE * max(1.0, float(np.abs(scores).max()))
    # Shares sum to 1 at most: no score rises by more than that of an item of one category.
    lowest = (own - np.maximum(changes.max(axis=0), 0.0)).min(initial=np.inf) - tolerance
    n_rivals = int(np.searchsorted(-scores, -lowest, side="right"))
    rivals = np.flatnonzero(np.arange(n_rivals) != place)
    shares = sparse_rows(catalog.category_shares, now.item_idx[rivals])
    verdicts = np.full(changes.shape[1], UNKNOWN, dtype=np.int8)
    size = max(1, _SCORES_PER_BLOCK // max(1, n_rivals))
    for start in range(0, len(verdicts), size):
        block = slice(start, start + size)
        lead = scores[rivals, None] + shares @ changes[:, block] - own[block]
        verdicts[block][(lead >= -tolerance).sum(axis=0) < k] = LISTED
        verdicts[block][(lead > tolerance).sum(axis=0) >= k] = NOT_LISTED
    return verdicts
