"""The best items of a person: by score, of equal scores the more popular first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmrec.data.periods import History
from llmrec.data.population import Population
from llmrec.ranking.largest import places_of_largest
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray

Popularity = Callable[[Population, np.datetime64], FloatArray]


def best_muted_last(
    scores: FloatArray,
    possible: BoolArray,
    muted: BoolArray,
    k: int,
    history: History,
    popularity: Popularity,
) -> IntArray:
    """(n,) possible items, best first, those that are muted after all others; n <= k."""
    best = _best(scores, possible & ~muted, k, history, popularity)
    if len(best) == k or not muted.any():
        return best
    last = _best(scores, possible & muted, k - len(best), history, popularity)
    return np.concatenate((best, last))


def _best(
    scores: FloatArray, possible: BoolArray, k: int, history: History, popularity: Popularity
) -> IntArray:
    """(n,) possible items of largest score, best first; n <= k."""
    if possible.all():
        items = places_of_largest(scores, k)
    else:
        items = np.flatnonzero(possible)
        items = items[places_of_largest(scores[items], k)]
    items = items[np.argsort(-scores[items])]
    if (np.diff(scores[items]) == 0).any():  # counting the log is slow, so only where items tie
        items = items[history.catalog.item_ids[items].argsort()]
        popular = popularity(history.population, history.cutoff)[items]
        items = items[np.lexsort((-popular, -scores[items]))]  # stable: the rest stay by id
    return items[:k]


def popularity_at(population: Population, cutoff: np.datetime64) -> FloatArray:
    """(n_items,) events of all users before the cutoff."""
    ends: TimeArray = np.array([cutoff])
    counts = population.item_counts(np.minimum(population.start, ends), ends)
    return np.asarray(counts[0], dtype=np.float64)
