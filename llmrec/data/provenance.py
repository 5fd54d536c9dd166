"""Which events something was fitted on, so that it is not evaluated on the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.calendar import MILLISECOND, PeriodLength, to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories, truncate_log
from llmrec.data.versions import SPAN_KEYS, rename_keys
from llmrec.errors import DataError
from llmrec.types import IntArray

_WHOLE_PAST = PeriodLength(36_500, "days")


@dataclass(frozen=True, eq=False)
class TrainingSpan:
    """The events of a fit: those of windows (`of_windows`) or of a whole log (`of_log`).

    Attributes
    ----------
    before
        All events lie before this time. None: all events of a log, and each person's history must
        hold all ``n_events`` of them.
    log
        Fingerprint of the log; "" where ``item_ids`` and ``n_events`` are given.
    stops
        (n_users,) with periods counted in events, people reach a period at different times: the log
        position after each user's last event in the fit (0: none). Events of others that are later
        in time may be in the fit, in their own windows and in the population mix: "before" holds
        person by person. With calendar periods None.
    item_ids
        (n_items,) the catalog of the fit; None: any.
    n_events
        (n_users,) events of each person in the fit, by user id; None: not counted.
    """

    before: np.datetime64 | None
    log: str = ""
    stops: IntArray | None = None
    item_ids: pd.Index[str] | None = None
    n_events: pd.Series[int] | None = None

    @classmethod
    def of_windows(cls, *windows: Sequence[Window]) -> TrainingSpan:
        """Give the span of a fit on (several lists of) windows; DataError if there is none."""
        found = [window for part in windows for window in part]
        if not found:
            raise DataError("no window to fit on")
        before = max(window.target.period.end for window in found)
        log, stops = found[0].history.log, None
        if found[0].history.period_length.unit == "events":
            stops = np.zeros(log.n_users, dtype=np.int64)
            users = [window.history.user_idx for window in found]
            np.maximum.at(stops, users, [window.target.stop for window in found])
        return cls(before, log.fingerprint, stops)

    @classmethod
    def of_log(
        cls, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | str | None
    ) -> tuple[TrainingSpan, list[History]]:
        """Give the span of a fit on a log, and people's pasts before the cutoff (default: all).

        Those without one are left out: a row without events can change how a sum is rounded.

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        """
        everybody = make_histories(log, catalog, _WHOLE_PAST, cutoff)
        histories = [history for history in everybody if history.n_events]
        counts = pd.Series({history.user_id: history.n_events for history in histories})
        if not histories:
            raise ValueError(f"no event lies before the cutoff {cutoff}: choose a later one.")
        before = None if cutoff is None else histories[0].cutoff
        return cls(before, item_ids=catalog.item_ids, n_events=counts), histories

    def covers(self, window: Window) -> bool:
        """Whether a window's target starts before the end of the span.

        The end is the person's own where the window is of this log and was cut at one of their
        events; otherwise one time for everybody.
        """
        history, target = window.history, window.target
        own = history.period_length.unit == "events" and history.cutoff == target.period.start
        if self.stops is not None and own and history.log.fingerprint == self.log:
            return bool(self.stops[history.user_idx] > target.start)
        if self.before is None:
            return self._n_seen(history) > history.n_events
        return bool(self.before > history.cutoff)

    def require_unseen(self, name: str, histories: Sequence[History]) -> None:
        """Refuse histories of another catalog, and those that end before the span does.

        Raises
        ------
        DataError
            Naming the scorer, the person and the way out.
        """
        for history in histories:
            if self.item_ids is not None and not history.catalog.item_ids.equals(self.item_ids):
                raise DataError(f"{name!r} was fitted on another catalog: fit it on this.")
            if self.before is not None and history.cutoff < self.before:
                raise DataError(
                    f"{name!r} saw events up to {self.before}, after the cutoff "
                    f"{history.cutoff} of user {history.user_id!r}: fit it with an earlier cutoff."
                )
            seen = self._n_seen(history)
            if self.before is None and seen > history.n_events + history.n_left_out:
                raise DataError(
                    f"{name!r} saw {seen} events of user {history.user_id!r}, whose history holds "
                    f"{history.n_events}: fit it on a log without the others, or with a cutoff."
                )

    def union(self, *others: TrainingSpan | None) -> TrainingSpan:
        """Give the span of this and other fits on windows together; None is an empty one."""
        found = self
        for other in others:
            if other is None:
                continue
            if found.before is None or other.before is None:
                raise ValueError("only spans with a time can be joined")
            stops = found.stops
            if stops is not None and other.stops is not None and found.log == other.log:
                stops = np.maximum(stops, other.stops)
            elif other.before > found.before:
                stops = other.stops
            found = TrainingSpan(max(found.before, other.before), found.log, stops)
        return found

    def time_only(self) -> TrainingSpan:
        """Give the time alone: of what goes into an engine's folder nothing tells who took what."""
        return TrainingSpan(self.before)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = {
            "before": None if self.before is None else str(self.before),
            "log": self.log,
            "stops": None if self.stops is None else self.stops.tolist(),
        }
        if self.item_ids is not None:
            values["item_ids"] = self.item_ids.tolist()
        if self.n_events is not None:
            values["n_events"] = self.n_events.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSpan:
        """Read what `to_dict` gave, now or in version 0.1; DataError if the time is none."""
        values = rename_keys(values, SPAN_KEYS)
        before, stops = values["before"], values.get("stops")
        item_ids, n_events = values.get("item_ids"), values.get("n_events")
        return cls(
            None if before is None else to_datetime64(before),
            values.get("log", ""),
            None if stops is None else np.array(stops, dtype=np.int64),
            None if item_ids is None else pd.Index(np.array(item_ids, dtype=object), dtype="str"),
            None if n_events is None else pd.Series(n_events, dtype=np.int64),
        )

    def _n_seen(self, history: History) -> int:
        return 0 if self.n_events is None else int(self.n_events.get(history.user_id, 0))


def events_fingerprint(log: Interactions) -> str:
    """Hash who took what, and when: the same however many other items the catalog lists."""
    used = np.flatnonzero(np.bincount(log.item_idx, minlength=len(log.item_ids)))
    used = used[log.item_ids[used].argsort()]
    places = np.empty(len(log.item_ids), dtype=np.int64)
    places[used] = np.arange(len(used))
    plain = replace(log, item_ids=log.item_ids[used], item_idx=places[log.item_idx])
    return plain.fingerprint


def log_fingerprints(dataset: Dataset, before: np.datetime64) -> set[str]:
    """Fingerprints that a dataset's log before a time has or had.

    Version 0.1 kept events of one time, and the items of a log without a catalog, in the order of
    the file, and items that came later in such a catalog.
    """
    known = dataset.known_before(before).log
    log = dataset.log.align_to(dataset.catalog)
    items = np.arange(len(log.item_ids))
    if dataset.item_rows is not None:
        first = np.full(len(items), np.iinfo(np.int64).max)
        np.minimum.at(first, log.item_idx, log.source_row)
        items = np.argsort(first, kind="stable")
    order = np.lexsort((log.source_row, log.timestamp.view(np.int64), log.user_idx))
    as_in_file = replace(
        log,
        item_ids=log.item_ids[items],
        item_idx=np.argsort(items)[log.item_idx[order]],
        timestamp=log.timestamp[order],
        source_row=log.source_row[order],
    )
    stored = known.fingerprint, events_fingerprint(known)
    return {*stored, truncate_log(as_in_file, before).fingerprint}


def has_fingerprint(dataset: Dataset, fingerprint: str) -> bool:
    """Whether a fingerprint is that of the dataset's whole log, now or in version 0.1."""
    end = dataset.log.timestamp.max() + MILLISECOND
    return fingerprint in log_fingerprints(dataset, end)


def require_fitted(span: TrainingSpan | None, name: str, histories: Sequence[History]) -> None:
    """Refuse to score without a fit, and what `TrainingSpan.require_unseen` refuses."""
    if span is None:
        raise ValueError(f"{name!r} is not fitted: call fit(log, catalog, cutoff) first.")
    span.require_unseen(name, histories)
