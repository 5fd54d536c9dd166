"""What is known of a person before a cutoff, what came after it, and the pair of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from llmrec.contracts import FloatArray, IntArray
from llmrec.data.calendar import DAY, Period, PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.counts import category_sums
from llmrec.data.interactions import Interactions
from llmrec.data.timestamps import TimeArray
from llmrec.errors import DataError

ABSENT_PERIODS = 2  # one period without is chance, two are a pause


@dataclass(frozen=True, eq=False)
class History:
    """One person's events before a cutoff, cut into periods, oldest first.

    Attributes
    ----------
    offsets
        (n_periods + 1,) events of period ``p`` are the log positions ``offsets[p]:offsets[p + 1]``.
    bounds
        (n_periods + 1,) datetime64[ms]: calendar periods end where the next begins; with periods
        of n events a bound is the time of the first event at or after it.
    cutoff
        The forecast is about the period that starts here. Calendar: no event at or after it.
        Events: ties in time are ordered by their place in the file.
    """

    log: Interactions
    catalog: Catalog
    user_idx: int
    offsets: IntArray
    bounds: TimeArray
    cutoff: np.datetime64
    length: PeriodLength

    @property
    def user_id(self) -> str:
        """The id the log's owner uses."""
        return str(self.log.user_ids[self.user_idx])

    @property
    def n_periods(self) -> int:
        """Number of periods, empty ones included."""
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def event_ids(self) -> range:
        """Log positions of the events, oldest first."""
        return range(int(self.offsets[0]), int(self.offsets[-1]))

    @property
    def item_idx(self) -> IntArray:
        """(n_events,) items taken, oldest first."""
        return self.log.item_idx[self.offsets[0] : self.offsets[-1]]

    @property
    def days_ago(self) -> FloatArray:
        """(n_events,) days from each event to the cutoff, oldest first."""
        times = self.log.timestamp[self.offsets[0] : self.offsets[-1]]
        return np.asarray((self.cutoff - times) / DAY, dtype=np.float64)

    @property
    def periods(self) -> tuple[Period, ...]:
        """The spans of time behind the offsets."""
        return tuple(Period(a, b) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True))

    @cached_property
    def category_counts(self) -> FloatArray:
        """(n_periods, n_categories) events by category; an item counts 1 over its categories."""
        rows = np.repeat(np.arange(self.n_periods), np.diff(self.offsets))
        return category_sums(self.catalog, rows, self.item_idx, self.n_periods)

    @property
    def absent_lately(self) -> npt.NDArray[np.bool_]:
        """(n_categories,) which the newest `ABSENT_PERIODS` non-empty periods do without."""
        counts = self.category_counts[self.category_counts.sum(axis=1) > 0]
        return np.asarray(~counts[-ABSENT_PERIODS:].any(axis=0))


@dataclass(frozen=True, eq=False)
class Target:
    """What really happened in the period after a cutoff: log positions ``start:stop``."""

    log: Interactions
    catalog: Catalog
    start: int
    stop: int
    period: Period

    @property
    def n_events(self) -> int:
        """Number of events."""
        return self.stop - self.start

    @property
    def item_idx(self) -> IntArray:
        """(n_events,) items taken, oldest first."""
        return self.log.item_idx[self.start : self.stop]

    @cached_property
    def category_counts(self) -> FloatArray:
        """(n_categories,) events by category."""
        rows = np.zeros(self.n_events, dtype=np.int64)
        counts: FloatArray = category_sums(self.catalog, rows, self.item_idx, 1)[0]
        return counts


@dataclass(frozen=True, eq=False)
class Window:
    """A history and what came next; the two never overlap."""

    history: History
    target: Target

    def __post_init__(self) -> None:
        if self.history.offsets[-1] > self.target.start:
            raise DataError(
                f"window of user {self.history.user_id!r} overlaps its cutoff: the history ends at "
                f"event {self.history.offsets[-1]}, the target starts at event {self.target.start}."
            )
