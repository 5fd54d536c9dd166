"""A log with its catalog, and the nouns and rules of its domain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy


@dataclass(frozen=True, eq=False)
class Dataset:
    """A log, its catalog, and what forecasts and rankings of it need to know.

    Attributes
    ----------
    name
        What tables of results call it.
    log
        The events, aligned with the catalog.
    catalog
        The items.
    period
        The period length that suits the log, such as "28D" or "10 events".
    noun, person
        What items and users are called in prompts and explanations: "films", "viewer".
    repeat
        Whether items already taken may be recommended again.
    """

    name: str
    log: Interactions
    catalog: Catalog
    period: str
    noun: str
    person: str
    repeat: RepeatPolicy

    def without_categories(self, names: Collection[str]) -> Dataset:
        """Give the dataset without some categories and all their items.

        Raises
        ------
        DataError
            If a name is no category, or nothing is left.
        """
        if unknown := sorted(set(names) - set(self.catalog.categories)):
            raise DataError(f"{unknown[0]!r} is no category of {self.name}.")
        dropped = np.isin(self.catalog.categories, list(names))
        kept = self.catalog.category_shares @ dropped == 0
        catalog = replace(
            self.catalog,
            item_ids=self.catalog.item_ids[kept],
            titles=tuple(np.array(self.catalog.titles, dtype=object)[kept]),
            categories=tuple(np.array(self.catalog.categories, dtype=object)[~dropped]),
            category_shares=self.catalog.category_shares[kept][:, ~dropped],
        )
        return replace(self, catalog=catalog, log=self.log.align_to(catalog))
