"""Metrics of what was clicked of a list, as MIND's evaluation defines them.

With items in the order of their scores, the best first, ranks from 1 (Wu et al. 2020, MIND: A
Large-scale Dataset for News Recommendation, and the script published with it):

auc
    The share of pairs of a clicked and another item that are in this order; NaN where nothing or
    everything was clicked.
mrr
    The mean of 1 / rank over all clicked items, not over the first alone.
ndcg@5, ndcg@10
    Sum of (2^clicked - 1) / log2(rank + 1) down to the depth, divided by that of the best order.

The last three are NaN where nothing was clicked. Items of equal score get what they would in the
mean over all their orders: in ``auc`` a tied pair counts half, as in scikit-learn, and in the
others they share the discounts of their ranks (McSherry and Najork 2008). The script takes the
order that its sort leaves them in, so that equal scores gain or lose by where items stand in the
file; without ties the values are its own.
"""

from __future__ import annotations

import numpy as np

from llmrec.types import BoolArray, FloatArray, IntArray

AUC, MRR = "auc", "mrr"
NDCG_DEPTHS = {"ndcg@5": 5, "ndcg@10": 10}
IMPRESSION_METRICS = (AUC, MRR, *NDCG_DEPTHS)


def impression_metrics(
    scores: FloatArray, is_clicked: BoolArray, offsets: IntArray
) -> dict[str, FloatArray]:
    """(n_lists,) values of each of `IMPRESSION_METRICS` of lists, by name.

    Parameters
    ----------
    scores
        (n_shown,) the larger, the better; infinite ones are allowed.
    is_clicked
        (n_shown,) whether each item was clicked.
    offsets
        (n_lists + 1,) list ``i`` is ``offsets[i]:offsets[i + 1]``.

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError(f"the score of item {int(np.isnan(scores).argmax())} is NaN")
    n_shown = np.diff(offsets)
    lists = np.repeat(np.arange(len(n_shown)), n_shown)
    order = np.lexsort((-scores, lists))
    ranks = np.arange(1.0, len(order) + 1) - offsets[lists]
    group = _tied(scores[order], lists)
    clicked, n_lists = is_clicked[order].astype(np.float64), len(n_shown)

    def total(discounts: FloatArray) -> FloatArray:
        """(n_lists,) sum of the discounts of the clicked items, tied items sharing theirs."""
        shared = np.bincount(group, discounts) / np.bincount(group)
        return _sum_by_list(clicked * shared[group], lists, n_lists)

    n_clicked = _sum_by_list(clicked, lists, n_lists)
    n_pairs = n_clicked * (n_shown - n_clicked)
    # Of the ranks from the last item up, less what the clicked ones give among themselves.
    n_ordered = n_clicked * (n_shown + 1) - total(ranks) - n_clicked * (n_clicked + 1) / 2
    found = {AUC: _divide(n_ordered, n_pairs), MRR: _divide(total(1 / ranks), n_clicked)}
    discounts = 1 / np.log2(ranks + 1)
    for name, depth in NDCG_DEPTHS.items():
        best = np.cumsum(1 / np.log2(np.arange(2.0, depth + 2)))
        deepest = np.minimum(n_clicked, depth).astype(np.int64)
        ideal = np.where(deepest > 0, best[deepest - 1], 0.0)
        found[name] = _divide(total(np.where(ranks <= depth, discounts, 0.0)), ideal)
    return found


def _sum_by_list(values: FloatArray, lists: IntArray, n_lists: int) -> FloatArray:
    return np.asarray(np.bincount(lists, values, minlength=n_lists), dtype=np.float64)


def _tied(scores: FloatArray, lists: IntArray) -> IntArray:
    """(n_shown,) the group of equal scores in one list that each sorted item is in, from 0."""
    is_first = np.ones(len(scores), dtype=np.bool_)
    is_first[1:] = (scores[1:] != scores[:-1]) | (lists[1:] != lists[:-1])
    return np.asarray(np.cumsum(is_first) - 1, dtype=np.int64)


def _divide(above: FloatArray, below: FloatArray) -> FloatArray:
    """Divide; NaN where there is nothing to divide by."""
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan))
