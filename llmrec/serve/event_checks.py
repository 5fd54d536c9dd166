"""Which of the events that were sent can be stored, and why the others cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.ids import MISSING_WORDS, find_id
from llmrec.errors import DataError
from llmrec.serve.live import LiveEngine
from llmrec.serve.schemas import Event, EventsReport, Remark
from llmrec.serve.settings import ServeSettings
from llmrec.serve.store import Added, StoredEvent

MAX_NEAR = 3  # unknown items of a request for which near ids are looked for: it takes long


@dataclass(frozen=True)
class EventCheck:
    """Events of a request, before they are stored.

    Attributes
    ----------
    usable, places
        What can be stored, and the places of these in the request.
    rejected, notes
        What is said of the others, and of usable ones that are out of the ordinary.
    """

    usable: tuple[StoredEvent, ...]
    places: tuple[int, ...]
    rejected: tuple[Remark, ...]
    notes: tuple[Remark, ...]

    @classmethod
    def of(cls, sent: Sequence[Event], live: LiveEngine, settings: ServeSettings) -> EventCheck:
        """Check each event: its time, and that its item is known or says what it is."""
        rules = _Rules(live, settings)
        usable, places, rejected, notes = [], [], [], []
        for place, one in enumerate(sent):
            event = one.stored()
            if reason := rules.reason_against(event):
                rejected.append(Remark(index=place, reason=reason))
                continue
            if event.time < rules.first:
                notes.append(Remark(index=place, reason=rules.before_first))
            usable.append(event)
            places.append(place)
        return cls(tuple(usable), tuple(places), tuple(rejected), tuple(notes))

    def report(self, added: Added) -> EventsReport:
        """Say what became of the events, once they are stored."""
        reason = "its person was deleted after that time, and stays deleted"
        late = [Remark(index=self.places[place], reason=reason) for place in added.forgotten]
        accepted = {self.places[place] for place in added.accepted}
        return EventsReport(
            accepted=len(added.accepted),
            duplicates=len(added.duplicates),
            rejected=sorted((*self.rejected, *late), key=lambda remark: remark.index),
            notes=[note for note in self.notes if note.index in accepted],
        )


class _Rules:
    """What events of one request are compared with."""

    def __init__(self, live: LiveEngine, settings: ServeSettings) -> None:
        dataset = live.engine.dataset
        self._catalog, self._n_near = dataset.catalog, 0
        self._takes_new_items = live.engine.takes_new_items
        self._latest = round((time.time() + settings.future_seconds) * 1000)
        times = dataset.log.timestamp
        first = times.min() if len(times) else np.datetime64(0, "ms")
        self.first = int(first.astype("datetime64[ms]").astype(np.int64))
        self.before_first = f"it is before the first event of the log, {str(first)[:10]}"

    def reason_against(self, event: StoredEvent) -> str:
        """Say why an event cannot be stored; "" if it can."""
        if event.time < 0:
            return "its time is before 1970"
        if event.time > self._latest:
            return "its time is more than a day ahead of this server's clock"
        for name, text in (("user_id", event.user_id), ("item_id", event.item_id)):
            if text in MISSING_WORDS:
                return f"its {name} is {text!r}, which stands for a missing one"
        if find_id(self._catalog.item_ids, event.item_id) < 0:
            return self._reason_against_item(event)
        return ""

    def _reason_against_item(self, event: StoredEvent) -> str:
        known = [name for name in event.categories or () if name in self._catalog.categories]
        if known and not self._takes_new_items:
            return f"item {event.item_id!r} is new, and this engine takes new items in a fit alone"
        if known:
            return ""
        way = "give `categories`, some of them known, for a new item"
        if event.categories is not None:
            return f"item {event.item_id!r} is new, and none of its categories is known"
        self._n_near += 1
        if self._n_near > MAX_NEAR:
            return f"item {event.item_id!r} is unknown; {way}"
        try:
            self._catalog.item_index(event.item_id)
        except DataError as error:
            return f"{error} Or {way}."
        return ""
