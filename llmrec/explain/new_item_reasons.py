"""What is said of an item that nobody has taken yet: which past items are close to it, and in what.

They are close by their titles; or, where no past title is, in a block of the catalog's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmrec.data.periods import History
from llmrec.ranking.blend import Blend
from llmrec.ranking.new_items import is_new_item
from llmrec.ranking.text_scorers import TitleKernel
from llmrec.types import FloatArray, IntArray

MIN_COSINE = 0.3  # of two items that are called close
MAX_CLOSE = 2


class ClosePastItems(NamedTuple):
    """Past items that are close to a new one, and the block of features in which they are.

    Attributes
    ----------
    items
        (n,) that which pulls most first, `MAX_CLOSE` at most.
    block
        "": they are close by their titles, or there is none.
    """

    items: IntArray
    block: str = ""


def close_past_items(items: IntArray, history: History, blend: Blend) -> list[ClosePastItems]:
    """Give for each item the past items that are close to it and pull it most.

    Only an item that nobody has taken yet has some, and only where the blend weighs a `TitleKernel`
    of titles or of a block: titles come first, then the blocks as in the blend.
    """
    new = is_new_item(history)[items] & bool(history.n_events)
    found = [ClosePastItems(np.empty(0, dtype=np.int64))] * len(items)
    for kernel in _kernels(blend):
        places = [place for place in np.flatnonzero(new).tolist() if not len(found[place].items)]
        if not places:
            break
        pulls = kernel.contributions(history, items[places])
        cosines = kernel.cosines(history, items[places])
        for place, pull, close in zip(places, pulls.parts, cosines, strict=True):
            order = np.argsort(-pull, kind="stable")
            order = order[close[order] >= MIN_COSINE][:MAX_CLOSE]
            if len(order):
                found[place] = ClosePastItems(pulls.past_items[order], kernel.features or "")
    return found


def past_cosines(item: int, past: Sequence[int], blend: Blend, block: str) -> FloatArray:
    """(n,) cosines of an item's vector with those of past items; empty without such vectors.

    ``block`` is that of `ClosePastItems`.
    """
    for kernel in _kernels(blend):
        if (kernel.features or "") == block:
            vectors = kernel.vectors.astype(np.float64)
            return np.array([vectors[item] @ vectors[one] for one in past])
    return np.empty(0)


def _kernels(blend: Blend) -> list[TitleKernel]:
    """Give the kernels that the blend weighs, that of titles first."""
    pairs = zip(blend.scorers, blend.weights, strict=True)
    kernels = [one for one, weight in pairs if weight and isinstance(one, TitleKernel)]
    return sorted(kernels, key=lambda one: one.features is not None)
