"""A log cut anew: other categories, fewer people and events, other periods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from llmrec.data.calendar import DAY, PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.types import IntArray

MAX_PEOPLE = 700
N_CATEGORIES = (150, 60, 30, 15, 8)  # that categories are merged into; or they stay as they are
N_CLUSTERS = (20, 40)  # of items of several categories
DAYS, EVENTS = (7, 14, 28, 56), (5, 10, 20, 40)  # of a period
EVENTS_KEPT = (1.0, 1.0, 0.5, 0.2)  # shares of the events that stay, drawn equally
LEAST_PERIODS = 5  # of a calendar log
SINGLE_VISIT_DAYS = 7  # of a log whose median person stays no longer
NOISE = 0.3  # of items around the clusters of their categories


def recut(dataset: Dataset, seed: int) -> Dataset:
    """Give a log cut anew in a way of its own: what is learned of many is not of one log alone."""
    rng = np.random.default_rng(seed)
    log = dataset.log.align_to(dataset.catalog)
    people = rng.permutation(log.n_users)[:MAX_PEOPLE]
    kept = np.isin(log.user_idx, people)
    kept &= rng.random(len(log)) < rng.choice(EVENTS_KEPT)
    log = log.drop_events({"left out of a re-cut": ~kept})
    days = (log.timestamp[log.user_offsets[1:] - 1] - log.timestamp[log.user_offsets[:-1]]) / DAY
    in_events = 0.7 if np.median(days) < SINGLE_VISIT_DAYS else 0.4
    if rng.random() < in_events:
        period = PeriodLength(int(rng.choice(EVENTS)), "events")
    else:
        span = (log.timestamp.max() - log.timestamp.min()) / DAY
        possible = [n for n in DAYS if n * LEAST_PERIODS <= span] or [DAYS[0]]
        period = PeriodLength(int(rng.choice(possible)), "days")
    catalog = merge_categories(dataset.catalog, rng)
    return replace(dataset, log=log, catalog=catalog, period=str(period), item_rows=None)


def merge_categories(catalog: Catalog, rng: np.random.Generator) -> Catalog:
    """Give a catalog with fewer categories: merged at random, into parts of unequal size.

    Half of the time, items of several categories get one instead: a cluster of such items.
    """
    n_categories = catalog.n_categories
    shares = catalog.category_shares
    if shares.nnz > 1.2 * catalog.n_items and rng.random() < 0.5:
        n_clusters = int(rng.choice(N_CLUSTERS))
        scores = shares @ rng.normal(0, 1, (n_categories, n_clusters))
        scores += rng.normal(0, NOISE, scores.shape)
        return _with_one_category(catalog, scores.argmax(axis=1))
    n = int(rng.choice([n_categories, *(n for n in N_CATEGORIES if n < n_categories)]))
    if n == n_categories:
        return catalog
    part_of = rng.choice(n, n_categories, p=rng.dirichlet(np.full(n, 1.5)))
    used, part = np.unique(part_of, return_inverse=True)
    ones = np.ones(n_categories)
    merge = sparse.csr_array((ones, (np.arange(n_categories), part)), (n_categories, len(used)))
    merged = sparse.csr_array(shares @ merge)
    merged.sort_indices()
    return replace(catalog, categories=_names(len(used)), category_shares=merged)


def _with_one_category(catalog: Catalog, category: IntArray) -> Catalog:
    """Give a catalog of items with one category each, (n_items,); those without one have none."""
    used, position = np.unique(category, return_inverse=True)
    items = np.flatnonzero(catalog.has_category)
    where = (items, position[items])
    shape = (catalog.n_items, len(used))
    shares = sparse.csr_array((np.ones(len(items)), where), shape)
    return replace(catalog, categories=_names(len(used)), category_shares=shares)


def _names(n: int) -> tuple[str, ...]:
    return tuple(f"part {number:03d}" for number in range(n))
