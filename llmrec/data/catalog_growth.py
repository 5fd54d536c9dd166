"""A catalog with more items, at its end: those of before keep their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.item_rows import merge_item_rows
from llmrec.data.names import clean_text, shorten_names
from llmrec.data.validation import CATEGORIES, ITEM_ID, TITLE, require_columns, to_pandas


def with_new_items(catalog: Catalog, frame: Any, separator: str | None = None) -> Catalog:
    """Give a catalog with the items of a frame that it does not have and has categories for.

    All that was fitted knows the categories of the catalog, so none is added: of a new item those
    count that are known, and an item without one is left out. New items have no features.

    Parameters
    ----------
    frame
        Columns item_id and categories, and perhaps title, as `Catalog.from_frame` reads them.
    separator
        As of `Catalog.from_frame`.

    Raises
    ------
    DataError
        If a column is missing, or ids cannot be read.
    """
    frame = to_pandas(frame).reset_index(drop=True)
    require_columns(frame, {ITEM_ID: ITEM_ID, CATEGORIES: CATEGORIES}, optional=[TITLE])
    items = merge_item_rows(frame[ITEM_ID], frame.get(TITLE), frame[CATEGORIES], separator)
    place = {name: column for column, name in enumerate(catalog.categories)}
    known = [_places_of(names, place) for names in items.names]
    is_new = catalog.item_ids.get_indexer(items.ids) < 0
    new = [row for row in np.flatnonzero(is_new).tolist() if known[row]]
    if not new:
        return catalog
    grown = replace(
        catalog,
        item_ids=pd.Index([*catalog.ids, *items.ids[new]], dtype="str"),
        titles=(*catalog.titles, *(items.titles[row] or clean_text(items.ids[row]) for row in new)),
        category_shares=_with_rows(catalog.category_shares, [known[row] for row in new]),
        features={},
    )
    return grown.with_features_of(catalog)


def _places_of(names: Sequence[str], place: dict[str, int]) -> list[int]:
    """Give the sorted places of those names that are categories."""
    return sorted({place[short] for name in names if (short := shorten_names([name])[0]) in place})


def _with_rows(shares: sparse.csr_array, categories: Sequence[Sequence[int]]) -> sparse.csr_array:
    """Give category shares with a row more for each list of categories, divided alike."""
    sizes = np.array([len(row) for row in categories])
    columns = np.concatenate([np.array(row, dtype=shares.indices.dtype) for row in categories])
    ends = shares.indptr[-1] + np.cumsum(sizes)
    return sparse.csr_array(
        (
            np.concatenate((shares.data, np.repeat(1.0 / sizes, sizes))),
            np.concatenate((shares.indices, columns)),
            np.concatenate((shares.indptr, ends.astype(shares.indptr.dtype))),
        ),
        shape=(shares.shape[0] + len(sizes), shares.shape[1]),
    )
