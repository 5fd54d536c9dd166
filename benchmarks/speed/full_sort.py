"""What a ranking must be: every item scored by the formula in plain numpy, and all sorted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit, apply_edits, muted_item_mask
from llmrec.ranking.rank import EPSILON
from llmrec.types import FloatArray, IntArray


def by_full_sort(
    forecast: Forecast,
    history: History,
    blend: Blend,
    edits: Sequence[Edit] = (),
    strength: float = 1.0,
) -> tuple[IntArray, FloatArray]:
    """(n_items,) all items by the formula of `rank`: muted last, score, popularity, id; scores."""
    catalog, log = history.catalog, history.log
    weights = apply_edits(forecast, edits, catalog, history.cutoff).category_weights
    blended = blend.scores([history])[0]
    implied = softmax(blended) @ catalog.category_shares
    pull = strength * np.log((weights + EPSILON) / (implied / implied.sum() + EPSILON))
    scores = blended + catalog.category_shares @ pull
    popular = np.bincount(log.item_idx[log.timestamp < history.cutoff], minlength=len(scores))
    muted = muted_item_mask(edits, catalog, history.cutoff)
    place = np.argsort(catalog.item_ids.argsort())
    best = np.lexsort((place, -popular, -scores, muted))
    return best, scores[best]
