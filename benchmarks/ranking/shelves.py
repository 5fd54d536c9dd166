"""Shelves of items that are new to a log, and the people to rank them for.

A shelf is what is ranked for everybody who takes some of it in 28 days and has a past. Of kind
"launch" are the items that are first taken in these days; of kind "new" those that were first taken
in the eight weeks before. Nobody is ranked for by an item that they have taken before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, truncate_log
from llmrec.data.validation import ITEM_ID, TIMESTAMP
from llmrec.types import BoolArray, IntArray

SPAN, NEW_SPAN, DAY = np.timedelta64(28, "D"), np.timedelta64(56, "D"), np.timedelta64(1, "D")
PLACES = {"validation": (5, 4, 3), "test": (2, 1)}  # spans of 28 days before the log's end
ShelfKind = Literal["launch", "new"]
FirstTimes = pd.Series  # item id to when it was first taken


def shelf_starts(log: Interactions) -> dict[str, list[np.datetime64]]:
    """Give the days on which shelves begin, by split: those that the log has a past of."""
    end = log.timestamp.max().astype("datetime64[D]") + DAY
    found = {split: [end - place * SPAN for place in places] for split, places in PLACES.items()}
    first = log.timestamp.min()
    return {split: [day for day in days if day > first] for split, days in found.items()}


@dataclass(frozen=True, eq=False)
class ItemShelf:
    """New items, and the people to rank them for.

    Attributes
    ----------
    kind, start
        Which items, and from when on they are taken.
    known
        The dataset with the events before that, and all items up to 28 days later.
    items
        (n_shelf,) indices into its catalog.
    histories
        Of n_people before the start.
    taken, had
        (n_people, n_shelf) what they took within 28 days, and what they had taken before.
    """

    kind: ShelfKind
    start: np.datetime64
    known: Dataset
    items: IntArray
    histories: list[History]
    taken: BoolArray
    had: BoolArray

    @property
    def user_ids(self) -> list[str]:
        """(n_people,) of the histories."""
        return [history.user_id for history in self.histories]


def shelves_from(dataset: Dataset, day: np.datetime64) -> dict[ShelfKind, ItemShelf]:
    """Give both kinds of shelves of the 28 days from a day on.

    A catalog that comes from the log names the items that it had by their end, each by the titles
    from before the day, or by its first one. One that is given apart stays whole.
    """
    start = day.astype("datetime64[ms]")
    first = _first_times(dataset)
    named = _with_items_until(dataset, start, first)
    log = named.log.align_to(named.catalog)
    known = replace(named, log=truncate_log(log, start))
    times = first.reindex(named.catalog.item_ids).to_numpy("datetime64[ms]")
    launched = (times >= start) & (times < start + SPAN)
    recent = (times >= start - NEW_SPAN) & (times < start)
    kinds: dict[ShelfKind, BoolArray] = {"launch": launched, "new": recent}
    return {kind: _shelf(kind, start, known, log, chosen) for kind, chosen in kinds.items()}


def _first_times(dataset: Dataset) -> FirstTimes[Any]:
    """Give when each item was first taken, be it that the purchase was cancelled later."""
    if dataset.item_rows is not None:
        return dataset.item_rows.groupby(ITEM_ID)[TIMESTAMP].min()
    log = dataset.log
    return pd.Series(log.timestamp).groupby(np.asarray(log.item_ids)[log.item_idx]).min()


def _with_items_until(dataset: Dataset, start: np.datetime64, first: FirstTimes[Any]) -> Dataset:
    rows = dataset.item_rows
    if rows is None:
        return dataset
    # A new item has the title of its first sale, not the one that it will have most often.
    rows = rows[rows[ITEM_ID].map(first) < start + SPAN]
    said = (rows[TIMESTAMP] < start) | (rows[TIMESTAMP] == rows[ITEM_ID].map(first))
    return replace(dataset, item_rows=rows[said]).with_categories_before(start)


def _shelf(
    kind: ShelfKind, start: np.datetime64, known: Dataset, log: Interactions, chosen: BoolArray
) -> ItemShelf:
    """Give the shelf of the chosen items; ``log`` has what is taken from the start on, too."""
    items = np.flatnonzero(chosen)
    place = np.cumsum(chosen) - 1
    of_shelf = chosen[log.item_idx] & log.user_ids.isin(known.log.user_ids)[log.user_idx]
    pair = log.user_idx * len(chosen) + log.item_idx
    before = of_shelf & (log.timestamp < start)
    sold = of_shelf & (log.timestamp >= start) & (log.timestamp < start + SPAN)
    sold &= ~np.isin(pair, pair[before])
    users, row = np.unique(log.user_idx[sold], return_inverse=True)
    taken, had = np.zeros((2, len(users), len(items)), dtype=bool)
    taken[row, place[log.item_idx[sold]]] = True
    before &= np.isin(log.user_idx, users)
    had[np.searchsorted(users, log.user_idx[before]), place[log.item_idx[before]]] = True
    earlier = [known.log.user_index(str(log.user_ids[user])) for user in users]
    histories = known.histories(start, earlier) if earlier else []
    return ItemShelf(kind, start, known, items, histories, taken, had)
