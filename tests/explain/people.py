"""Histories written as letters, one string a week: "aab" is two Apples, one Bread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.forecast import Forecast, Source
from llmrec.types import FloatArray

CATEGORIES = ("Apples", "Bread", "Cola", "Dips")
APPLES, BREAD, COLA, DIPS = range(4)
ITEMS_EACH = 3
START = np.datetime64("2020-01-01T08:00:00", "s")


@cache
def catalog(categories: tuple[str, ...] = CATEGORIES, titles: str = "{} no. {}") -> Catalog:
    """Three items a category: "a0", "a1", "a2" are Apples."""
    rows = [
        (f"{chr(97 + position)}{number}", titles.format(name, number), [name])
        for position, name in enumerate(categories)
        for number in range(ITEMS_EACH)
    ]
    return Catalog.from_frame(pd.DataFrame(rows, columns=["item_id", "title", "categories"]))


def person(weeks: Sequence[str], items: Catalog | None = None, user_id: str = "ann") -> History:
    """Make a person's history; "zoe", who is in the same log, takes one of each every week.

    The n-th event of a week is n hours after its start; a letter's items take turns.
    """
    letters = [chr(97 + position) for position in range(len((items or catalog()).categories))]
    rows, turns = [], dict.fromkeys(letters, 0)
    for week, taken in enumerate(weeks):
        start = START + np.timedelta64(7 * week, "D")
        rows += [("zoe", f"{letter}0", start) for letter in letters]
        for hour, letter in enumerate(taken):
            item_id = f"{letter}{turns[letter] % ITEMS_EACH}"
            turns[letter] += 1
            rows.append((user_id, item_id, start + np.timedelta64(hour, "h")))
    log = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    cutoff = (START + np.timedelta64(7 * len(weeks), "D")).astype("datetime64[ms]")
    histories = make_histories(log, items or catalog(), "7D", cutoff)
    return next(history for history in histories if history.user_id in (user_id, "zoe"))


def make_forecast(*category_weights: float, concentration: float = 50.0) -> Forecast:
    """Make a forecast of these weights, without statements."""
    weights = np.array(category_weights)
    return Forecast(weights / weights.sum(), concentration, "", (), Source("by hand", "counting"))


@dataclass(frozen=True)
class FixedScorer:
    """Gives everybody the same scores: the later an item stands in the catalog, the less."""

    name: str
    slope: float

    def scores(self, histories: Sequence[History]) -> FloatArray:
        items = np.arange(histories[0].catalog.n_items)
        scores = -self.slope * items / len(items) - np.log(len(items))
        return np.tile(scores, (len(histories), 1))
