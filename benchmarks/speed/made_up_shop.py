"""A made-up shop as large as one likes, and scorers that are fitted on it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.ranking.blend import Blend
from llmrec.ranking.item_item import Cosine, ItemToItem, SequentialRules
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity

N_CATEGORIES, EVENTS_AN_ITEM, EVENTS_A_PERSON = 100, 2, 50


def shop(n_items: int, n_people: int) -> tuple[list[History], Blend]:
    """Fit a blend of four scorers on a made-up shop, and give the first people's histories."""
    catalog, log = catalog_and_log(n_items)
    pairs = [ItemToItem(kind).fit(log, catalog) for kind in (Cosine(), SequentialRules())]
    blend = Blend((RecentPopularity(), PersonalRepeat(), *pairs), (0.3, 0.7, 0.5, 0.5))
    return make_histories(log, catalog, "28D", users=range(n_people)), blend


def catalog_and_log(n_items: int) -> tuple[Catalog, Interactions]:
    """Make up items of one or two categories, of which few are taken often, within a year."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(n_items).astype(str)  # so that their order is not that of the items
    names = np.array([f"category {number}" for number in range(N_CATEGORIES)], dtype=object)
    first, second = rng.choice(names, (2, n_items))
    items = pd.DataFrame({"item_id": ids, "categories": first + "|" + second})
    n_events = EVENTS_AN_ITEM * n_items
    minutes = rng.integers(365 * 24 * 60, size=n_events).astype("timedelta64[m]")
    events = {
        "user_id": rng.integers(n_events // EVENTS_A_PERSON, size=n_events),
        "item_id": ids[(n_items * rng.random(n_events) ** 3).astype(np.int64)],
        "timestamp": np.datetime64("2024-01-01", "s") + minutes,
    }
    catalog = Catalog.from_frame(items)
    return catalog, Interactions.from_frame(pd.DataFrame(events)).align_to(catalog)
