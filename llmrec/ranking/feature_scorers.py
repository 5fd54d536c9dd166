"""Item scorers by the features that items of a catalog have: one set of them for each block."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial

from llmrec.data.catalog import Catalog
from llmrec.forecast import ItemScorer
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.text_ease import EaseByText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel

MAX_EASE_ITEMS = 6_000  # as for titles: `llmrec.ranking.registry` says why
SIMILARITY_FLOOR = 0.01  # as there


def feature_scorers(catalog: Catalog) -> Mapping[str, Callable[[], ItemScorer]]:
    """Give the scorers of a catalog's blocks of features by name, such as "TitleKernel@image".

    They are those of titles, with features in the titles' place: they score items that nobody has
    taken, and what a block is worth in a blend validation has to say. `EaseByText` up to
    `MAX_EASE_ITEMS` items; `FactorsFromText` only where the package that fits it is installed.
    Without features there are none.
    """
    makers: dict[str, Callable[[str], ItemScorer]] = {
        "TitleKernel": lambda block: TitleKernel(features=block),
        "TextPopularity": lambda block: TextPopularity(features=block),
    }
    if catalog.n_items <= MAX_EASE_ITEMS:
        makers["EaseByText"] = lambda block: ItemToItem(
            EaseByText(features=block), floor=SIMILARITY_FLOOR
        )
    if importlib.util.find_spec("implicit") is not None:
        makers["FactorsFromText"] = lambda block: FactorsFromText(features=block)
    return {
        f"{name}@{block}": partial(make, block)
        for block in catalog.features
        for name, make in makers.items()
    }
