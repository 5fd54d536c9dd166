"""Item scorers by vectors of items: of their titles, or of a block of their features."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial

from llmrec.data.catalog import Catalog
from llmrec.forecast import ItemScorer
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.text_ease import EaseByText, EaseWithText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel

# Each EASE takes 9 s and .9 GB at so many items, and grows with their cube and square.
MAX_EASE_ITEMS = 6_000
# Of item-to-item scores: in a blend the logarithm of almost 0 would dominate the other scorers.
SIMILARITY_FLOOR = 0.01
# Of an item taken, in an EASE that is sparse. They cost .001 of NDCG@10 at most on validation, and
# a matrix of 3,000 items needs a quarter of the room (LOG.md).
KEPT_WEIGHTS = 400
# 400 would leave new items too few: .004 of NDCG@10 less for a log of 100 people (LOG.md).
KEPT_TEXT_WEIGHTS = 1_000
# By name, of a block of features; None: of titles.
VECTOR_SCORERS: Mapping[str, Callable[[str | None], ItemScorer]] = {
    "TitleKernel": lambda block: TitleKernel(features=block),
    "TextPopularity": lambda block: TextPopularity(features=block),
    "EaseByText": lambda block: ItemToItem(EaseByText(features=block), floor=SIMILARITY_FLOOR),
    "EaseWithText": lambda block: ItemToItem(
        EaseWithText(features=block, keep=KEPT_TEXT_WEIGHTS), 224.0, "days", "log", SIMILARITY_FLOOR
    ),
    "FactorsFromText": lambda block: FactorsFromText(features=block),
}


def kind_of(name: str) -> str:
    """Give the kind of a scorer by its name: of "TitleKernel@image" it is "TitleKernel"."""
    return name.partition("@")[0]


def possible_vector_scorers(catalog: Catalog) -> tuple[str, ...]:
    """Give the names of `VECTOR_SCORERS` that can be fitted for a catalog.

    EASE of both kinds up to `MAX_EASE_ITEMS` items; `FactorsFromText` where the package that fits
    its factors is installed.
    """
    impossible = {"EaseByText", "EaseWithText"} if catalog.n_items > MAX_EASE_ITEMS else set[str]()
    if importlib.util.find_spec("implicit") is None:
        impossible.add("FactorsFromText")
    return tuple(name for name in VECTOR_SCORERS if name not in impossible)


def feature_scorers(catalog: Catalog) -> Mapping[str, Callable[[], ItemScorer]]:
    """Give the possible scorers of each of a catalog's blocks, such as "TitleKernel@image".

    They are those of titles, with features in the titles' place: they score items that nobody has
    taken, and what a block is worth in a blend validation has to say. Without features there are
    none.
    """
    return {
        f"{name}@{block}": partial(VECTOR_SCORERS[name], block)
        for block in catalog.features
        for name in possible_vector_scorers(catalog)
    }
