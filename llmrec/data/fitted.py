"""What a fit has seen of a log, so that nobody judges it on the same events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.contracts import IntArray
from llmrec.data.calendar import as_time
from llmrec.data.histories import Window
from llmrec.errors import DataError


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
