"""A log with its catalog, and the words and rules of its domain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the later stages need to know about a log.

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
    repeat: Literal["allow", "exclude"]

    def without_categories(self, names: Collection[str]) -> Dataset:
        """Give the log and catalog as if some categories, and all their items, did not exist.

        Raises
        ------
        DataError
            If a name is no category, or nothing is left.
        """
        if unknown := sorted(set(names) - set(self.catalog.categories)):
            raise DataError(f"{unknown[0]!r} is no category of {self.name}.")
        gone = np.isin(self.catalog.categories, list(names))
        kept = self.catalog.category_shares @ gone == 0
        catalog = replace(
            self.catalog,
            item_ids=self.catalog.item_ids[kept],
            titles=tuple(np.array(self.catalog.titles, dtype=object)[kept]),
            categories=tuple(np.array(self.catalog.categories, dtype=object)[~gone]),
            category_shares=self.catalog.category_shares[kept][:, ~gone],
        )
        return replace(self, catalog=catalog, log=self.log.align_to(catalog))
