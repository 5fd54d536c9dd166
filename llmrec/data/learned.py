"""What an item scorer was fitted on, so that it can refuse to score what it has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.calendar import as_time
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, PeriodLength, make_histories
from llmrec.errors import DataError

_WHOLE_PAST = PeriodLength(36_500, "days")


def check_learned(learned: Learned | None, name: str, histories: Sequence[History]) -> None:
    """Refuse to score before a fit, and what `Learned.check` refuses."""
    if learned is None:
        raise ValueError(f"{name!r} is not fitted: call fit(log, catalog, cutoff) first.")
    learned.check(name, histories)


@dataclass(frozen=True, eq=False)
class Learned:
    """Events that a scorer learned from.

    Attributes
    ----------
    until
        Time before which all of them lie, if one was given; None: a log was learned whole, and each
        person's history must hold all that it says of them.
    n_events
        Of each person, by user id.
    """

    item_ids: pd.Index[str]
    until: np.datetime64 | None
    n_events: pd.Series[int]

    @classmethod
    def on(
        cls, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None
    ) -> tuple[Learned, list[History]]:
        """Give it, and everybody's past before the cutoff (default: all of it).

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        """
        histories = make_histories(log, catalog, _WHOLE_PAST, cutoff)
        counts = pd.Series({history.user_id: history.n_events for history in histories})
        if not counts.sum():
            raise ValueError(f"no event lies before the cutoff {cutoff}: choose a later one.")
        until = None if cutoff is None else histories[0].cutoff
        return cls(catalog.item_ids, until, counts), histories

    def check(self, name: str, histories: Sequence[History]) -> None:
        """Refuse histories of another catalog, and those that end before what was learned.

        Raises
        ------
        DataError
            Naming the scorer, the person and the way out.
        """
        for history in histories:
            if not history.catalog.item_ids.equals(self.item_ids):
                raise DataError(f"{name!r} was fitted on another catalog: fit it on this.")
            if self.until is not None and history.cutoff < self.until:
                raise DataError(
                    f"{name!r} saw events up to {self.until}, after the cutoff "
                    f"{history.cutoff} of user {history.user_id!r}: fit it with an earlier cutoff."
                )
            seen = int(self.n_events.get(history.user_id, 0))
            if self.until is None and seen > history.n_events:
                raise DataError(
                    f"{name!r} saw {seen} events of user {history.user_id!r}, whose history holds "
                    f"{history.n_events}: fit it on a log without the others, or with a cutoff."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "item_ids": self.item_ids.tolist(),
            "until": None if self.until is None else str(self.until),
            "n_events": self.n_events.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Learned:
        """Read what `to_dict` gave; DataError if the time is none."""
        item_ids = pd.Index(np.array(values["item_ids"], dtype=object), dtype="str")
        until = None if values["until"] is None else as_time(values["until"])
        return cls(item_ids, until, pd.Series(values["n_events"], dtype=np.int64))
