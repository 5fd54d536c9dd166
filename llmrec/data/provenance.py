"""What a fit has seen of a log, so that nothing is evaluated on the same events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.calendar import PeriodLength, as_time
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.errors import DataError
from llmrec.types import IntArray


@dataclass(frozen=True, eq=False)
class Fitted:
    """The newest events that a fit has seen.

    Attributes
    ----------
    before
        No event at or after this time was seen.
    log
        Fingerprint of the log.
    stops
        (n_users,) with periods counted in events, people reach a period at different times: the log
        position after the last event fitted on of each user (0: none). What others took later in
        time may then have been seen, in their own windows and in the mix of everybody: "before"
        holds person by person. With calendar periods None.
    """

    before: np.datetime64
    log: str
    stops: IntArray | None = None

    @classmethod
    def on(cls, *windows: Sequence[Window]) -> Fitted:
        """Say what a fit on (several lists of) windows has seen; DataError if there is none."""
        found = [window for part in windows for window in part]
        if not found:
            raise DataError("no window to fit on")
        before = max(window.target.period.end for window in found)
        log, stops = found[0].history.log, None
        if found[0].history.length.unit == "events":
            stops = np.zeros(log.n_users, dtype=np.int64)
            users = [window.history.user_idx for window in found]
            np.maximum.at(stops, users, [window.target.stop for window in found])
        return cls(before, log.fingerprint, stops)

    def saw(self, window: Window) -> bool:
        """Whether a window's target starts before the end of what the fit has seen.

        Person by person only where the window was cut at the person's own event, and of this log;
        at one time for everybody otherwise.
        """
        history, target = window.history, window.target
        own = history.length.unit == "events" and history.cutoff == target.period.start
        if self.stops is not None and own and history.log.fingerprint == self.log:
            return bool(self.stops[history.user_idx] > target.start)
        return bool(self.before > history.cutoff)

    def joined(self, *others: Fitted | None) -> Fitted:
        """Say what this and other fits have seen together; None is one that has seen nothing."""
        found = self
        for other in others:
            if other is None:
                continue
            stops = found.stops
            if stops is not None and other.stops is not None and found.log == other.log:
                stops = np.maximum(stops, other.stops)
            elif other.before > found.before:
                stops = other.stops
            found = Fitted(max(found.before, other.before), found.log, stops)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stops = None if self.stops is None else self.stops.tolist()
        return {"before": str(self.before), "log": self.log, "stops": stops}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fitted:
        """Read what `to_dict` gave; DataError if the time is none."""
        stops = values["stops"]
        stops = None if stops is None else np.array(stops, dtype=np.int64)
        return cls(as_time(values["before"]), values["log"], stops)


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
