"""Fitted scorers for a catalog with more items at its end, which they know nothing of yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec.data.catalog import Catalog
from llmrec.data.stored import Stored
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitted import StorableScorer
from llmrec.ranking.registry import LM_SCORER, is_net, load_scorer
from llmrec.ranking.seasonal import Seasonal


def takes_new_items(blend: Blend) -> bool:
    """Whether all scorers can score items that come later.

    A net has an output for each item of its training and no other, and what a scorer of a user's
    own does with more items nobody knows.
    """
    return all(map(_takes_new_items, blend.scorers))


def _takes_new_items(scorer: ItemScorer) -> bool:
    scorer = scorer.scorer if isinstance(scorer, Seasonal) else scorer
    is_stored = isinstance(scorer, StorableScorer) and not is_net(scorer)
    return is_stored or type(scorer).__name__ == LM_SCORER  # which reads the catalog's titles


def blend_with_items(blend: Blend, n_before: int, catalog: Catalog) -> Blend:
    """Give a blend for a catalog that has more items than the ``n_before`` of the scorers' fit.

    New items have the popularity of an item that nobody took, no similarity to any other, and
    factors and vectors of 0, until the scorers are fitted again.
    """
    grown = tuple(_scorer_with_items(scorer, n_before, catalog) for scorer in blend.scorers)
    return replace(blend, scorers=grown)


def _scorer_with_items(scorer: ItemScorer, n_before: int, catalog: Catalog) -> ItemScorer:
    if not isinstance(scorer, StorableScorer):  # it reads titles from the catalog that is scored
        return scorer
    return load_scorer(_stored_with_items(scorer.stored(), n_before, catalog.n_items), catalog)


def _stored_with_items(stored: Stored, n_before: int, n_items: int) -> Stored:
    """Give what a scorer is made of, with more items in each of its arrays."""
    arrays = dict(stored.arrays)
    for name, array in stored.arrays.items():
        arrays[name] = _with_rows(name, array, n_before, n_items)
    parts = {
        name: _stored_with_items(part, n_before, n_items) for name, part in stored.parts.items()
    }
    return replace(stored, arrays=arrays, parts=parts)


def _with_rows(name: str, array: npt.NDArray[Any], n_before: int, n_items: int) -> npt.NDArray[Any]:
    n_more = n_items - n_before
    block, _, part = name.partition(".")
    if part in ("data", "indices"):  # of a sparse matrix, whose new rows are empty
        return array
    if part == "columns":
        return np.array([n_items], dtype=array.dtype)
    if part == "indptr":
        return np.append(array, np.full(n_more, array[-1]))
    if block == "popularity":
        return np.append(array, np.full(n_more, array.min()))
    width = [(0, n_more)] * (array.ndim if block == "matrix" else 1)
    return np.pad(array, width + [(0, 0)] * (array.ndim - len(width)))
