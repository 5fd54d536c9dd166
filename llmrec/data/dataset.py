"""A log with its catalog, and the nouns and rules of its domain."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID, require_columns, to_pandas
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy

NEW_USER = "new user"


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
        mask = self.catalog.category_shares @ dropped == 0
        catalog = replace(
            self.catalog,
            item_ids=self.catalog.item_ids[mask],
            titles=tuple(np.array(self.catalog.titles, dtype=object)[mask]),
            categories=tuple(np.array(self.catalog.categories, dtype=object)[~dropped]),
            category_shares=self.catalog.category_shares[mask][:, ~dropped],
        )
        return replace(self, catalog=catalog, log=self.log.align_to(catalog))

    def new_user_history(self, frame: Any, cutoff: np.datetime64) -> History:
        """Give the history of somebody who is not in the log; later events are left out.

        Parameters
        ----------
        frame
            The person's events: columns item_id and timestamp, and user_id if the person is not to
            be called `NEW_USER`.

        Raises
        ------
        DataError
            If the frame holds no event of the catalog's items before the cutoff, several people, or
            one whom the log knows.
        """
        try:
            table = to_pandas(frame)
            require_columns(table, {ITEM_ID: ITEM_ID, TIMESTAMP: TIMESTAMP})
            if USER_ID not in table:
                table = table.assign(**{USER_ID: NEW_USER})
            events = truncate_log(Interactions.from_frame(table).align_to(self.catalog), cutoff)
            log = self.log.append_user(events)
        except DataError as error:
            raise DataError(f"the frame of a new user: {error}") from error
        return make_histories(log, self.catalog, self.period, cutoff, [log.n_users - 1])[0]
