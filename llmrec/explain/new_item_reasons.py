"""What is said of an item that nobody has taken yet: which past items have titles like its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.data.periods import History
from llmrec.ranking.blend import Blend
from llmrec.ranking.new_items import is_new_item
from llmrec.ranking.text_scorers import TitleKernel
from llmrec.types import FloatArray, IntArray

MIN_COSINE = 0.3  # of two titles that are called close
MAX_CLOSE = 2


def close_past_items(items: IntArray, history: History, blend: Blend) -> list[IntArray]:
    """Give for each item the past items with close titles that pull it most, two at most.

    Only an item that nobody has taken yet has some, and only where the blend has a `TitleKernel`.
    """
    nothing, new = np.empty(0, dtype=np.int64), is_new_item(history)
    kernel = _title_kernel(blend.scorers)
    if kernel is None or not new[items].any() or not history.n_events:
        return [nothing] * len(items)
    pulls, cosines = kernel.contributions(history, items), kernel.cosines(history, items)
    found = []
    for item, pull, close in zip(items.tolist(), pulls.parts, cosines, strict=True):
        order = np.argsort(-pull, kind="stable")
        order = order[close[order] >= MIN_COSINE][:MAX_CLOSE]
        found.append(pulls.past_items[order] if new[item] else nothing)
    return found


def title_cosines(item: int, past: Sequence[int], blend: Blend) -> FloatArray:
    """(n,) cosines of an item's title vector with those of past items; empty without vectors."""
    kernel = _title_kernel(blend.scorers)
    if kernel is None:
        return np.empty(0)
    vectors = kernel.vectors.astype(np.float64)
    return np.array([vectors[item] @ vectors[one] for one in past])


def _title_kernel(scorers: Sequence[object]) -> TitleKernel | None:
    kernels = (one for one in scorers if isinstance(one, TitleKernel))
    return next((one for one in kernels if one.features is None), None)
