"""What one person's history needs of a log and of a catalog, so that it can be sent alone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.report import CleaningReport


def select_own_parts(
    log: Interactions, catalog: Catalog, user_idx: int, stop: int
) -> tuple[Interactions, Catalog]:
    """Give the log of a person's events before position ``stop``, and a catalog of their items.

    The catalog has all categories, and no features; neither tells what reading found in the rows of
    others.
    """
    own = log.select_person(user_idx, np.arange(log.user_offsets[user_idx], stop))
    items, item_idx = np.unique(own.item_idx, return_inverse=True)
    found = Catalog(
        catalog.item_ids[items],
        tuple(catalog.titles[item] for item in items),
        catalog.categories,
        catalog.category_shares[items],
        CleaningReport(len(items)),
    )
    report = CleaningReport(len(own))
    return replace(own, item_ids=found.item_ids, item_idx=item_idx, report=report), found


def point_to_catalog(log: Interactions, catalog: Catalog) -> Interactions:
    """Give a log whose items are all in a catalog with ``item_idx`` pointing into it."""
    items = catalog.item_ids.get_indexer(log.item_ids)[log.item_idx]
    return replace(log, item_ids=catalog.item_ids, item_idx=items.astype(np.int64))


def hash_item_ids(catalog: Catalog) -> str:
    """Short hash of a catalog's item ids in their order; computed once a catalog."""
    if catalog not in _HASHES:
        digest = hashlib.sha256("\x1f".join(catalog.ids).encode())
        _HASHES[catalog] = digest.hexdigest()[:16]
    return _HASHES[catalog]


_HASHES: WeakKeyDictionary[Catalog, str] = WeakKeyDictionary()
