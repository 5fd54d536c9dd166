"""What everybody took and when, without who took it, and counts of it between two times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog, category_sums
from llmrec.data.interactions import Interactions
from llmrec.data.kept_arrays import KeptArrays
from llmrec.errors import DataError, ModelLoadError
from llmrec.types import BoolArray, FloatArray, IntArray, TimeArray

Counted = Literal["events", "moments", "takers"]
_N_ITEMS = "n_items"


@dataclass(frozen=True, eq=False)
class Population:
    """The events of all people in the order of time, without the people. Make one with `of`.

    Attributes
    ----------
    item_idx
        (n_events,) items, as indices into the catalog.
    timestamp
        (n_events,) datetime64[ms], UTC, never falling.
    is_last_of_moment
        (n_events,) whether no other event of the same person, moment and item follows: three packs
        in a basket are one purchase.
    is_first_of_person
        (n_events,) whether its person took the item for the first time.
    n_items
        Items of the catalog.
    """

    item_idx: IntArray
    timestamp: TimeArray
    is_last_of_moment: BoolArray
    is_first_of_person: BoolArray
    n_items: int

    @classmethod
    def of(cls, log: Interactions) -> Population:
        """Give the population of a log, which is made once as long as the log exists.

        Raises
        ------
        DataError
            If the log holds no event.
        """
        if log not in _POPULATIONS:
            if not len(log):
                raise DataError("a log without events has no population: give one (population=...)")
            order = np.argsort(log.timestamp, kind="stable")
            repeated = is_repeated_at_moment(log.user_idx, log.timestamp, log.item_idx)
            made = cls(
                log.item_idx[order],
                log.timestamp[order],
                ~repeated[order],
                _is_first_of_person(log)[order],
                len(log.item_ids),
            )
            _POPULATIONS.setdefault(log, made)  # threads that ask at once share the first
        return _POPULATIONS[log]

    def keep_for(self, log: Interactions) -> None:
        """Make it what `of` gives for a log; it has to be that log's."""
        _POPULATIONS[log] = self

    def __repr__(self) -> str:
        """Say how much it holds, in a line."""
        first, last = str(self.start)[:10], str(self.end - MILLISECOND)[:10]
        return f"Population({self.n_events:,} events of {self.n_items:,} items, {first} to {last})"

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.item_idx)

    @property
    def start(self) -> np.datetime64:
        """Time of the first event."""
        first: np.datetime64 = self.timestamp[0]
        return first

    @property
    def end(self) -> np.datetime64:
        """The time just after the last event."""
        last: np.datetime64 = self.timestamp[-1] + MILLISECOND
        return last

    def item_counts(
        self, starts: TimeArray, ends: TimeArray, counted: Counted = "events"
    ) -> FloatArray:
        """(n_spans, n_items) counts of all users with start <= time < end, by item.

        Parameters
        ----------
        starts, ends
            (n_spans,) each. Spans may repeat; one that ends before it starts is empty.
        counted
            "events"; "moments": of several events of one person, moment and item the last alone;
            "takers": of each person the first event with an item.
        """
        times, items = {
            "events": (self.timestamp, self.item_idx),
            "moments": self._moments,
            "takers": self._takers,
        }[counted]
        spans = _Spans.of(times, items, starts, ends)
        shape = (spans.n_edges, self.n_items)
        flat = np.bincount(spans.edge * self.n_items + spans.items, minlength=shape[0] * shape[1])
        return spans.differences(flat.reshape(shape).astype(np.float64))

    def category_counts(self, catalog: Catalog, starts: TimeArray, ends: TimeArray) -> FloatArray:
        """(n_spans, n_categories) events by category, without an array as wide as the catalog.

        It is read-only. Small ones are kept: people who are asked about one after the other have
        one cutoff, and each would have all events counted again.
        """

        def count() -> tuple[FloatArray]:
            spans = _Spans.of(self.timestamp, self.item_idx, starts, ends)
            sums = category_sums(catalog, spans.edge, spans.items, spans.n_edges)
            return (spans.differences(sums),)

        spans_key = starts.dtype, starts.tobytes(), ends.dtype, ends.tobytes()
        return self.kept.get(("counts", catalog, *spans_key), count)[0]

    def before(self, cutoff: np.datetime64) -> Population:
        """Give the population as it was just before a cutoff.

        An event that another one of its person, moment and item follows is no less before a cutoff:
        the two are of one time.

        Raises
        ------
        DataError
            If nothing was taken before it.
        """
        n = int(np.searchsorted(self.timestamp, cutoff, side="left"))
        return self if n == self.n_events else self.select(slice(n))

    def align(self, own: Catalog, other: Catalog) -> Population:
        """Give the population with ``item_idx`` pointing into another catalog than its own.

        Events of items that the other does not know, or knows without a category, are left out, as
        `Interactions.align_to` does.

        Raises
        ------
        DataError
            If nothing is left.
        """
        if own.item_ids is other.item_ids:
            return self
        positions = other.item_ids.get_indexer(own.item_ids).astype(np.int64)
        kept = (positions >= 0) & other.has_category[positions]
        moved = replace(self, item_idx=positions[self.item_idx], n_items=other.n_items)
        return moved.select(kept[self.item_idx])

    def save(self, path: Path) -> None:
        """Write it to a Parquet file, atomically."""
        from llmrec.data.parquet_files import write_parquet_table

        columns = (
            self.item_idx,
            self.timestamp,
            self.is_last_of_moment,
            self.is_first_of_person,
        )
        values = {_N_ITEMS: self.n_items}
        write_parquet_table(path, columns, _schema(), values, deltas=["timestamp"])

    @classmethod
    def load(cls, path: Path, catalog: Catalog) -> Population:
        """Read what `save` wrote, of the catalog's items.

        Raises
        ------
        ModelLoadError
            If the file is missing or broken, of another catalog, without events, or out of order.
        """
        from llmrec.data.parquet_files import read_parquet_table

        table, values = read_parquet_table(path, _schema())
        items, times, last, first = (column.to_numpy() for column in table.columns)
        n_items = values.get(_N_ITEMS)
        if n_items != catalog.n_items:
            raise ModelLoadError(
                f"{path} is of a catalog of {n_items} items, and this has {catalog.n_items}: they "
                "are parts of different engines."
            )
        if not len(items):
            raise ModelLoadError(f"{path} holds no event.")
        if outside := items[(items < 0) | (items >= catalog.n_items)].tolist():
            raise ModelLoadError(
                f"{path}: item {outside[0]} is not in the catalog, whose items are "
                f"0..{catalog.n_items - 1}."
            )
        if falls := np.flatnonzero(times[1:] < times[:-1]).tolist():
            raise ModelLoadError(
                f"{path}: the times are not in order, row {falls[0] + 1} is before the row above."
            )
        return cls(items.astype(np.int64), times, last, first, catalog.n_items)

    @cached_property
    def kept(self) -> KeptArrays:
        """What was counted in it last."""
        return KeptArrays()

    @cached_property
    def _moments(self) -> tuple[TimeArray, IntArray]:
        return self.timestamp[self.is_last_of_moment], self.item_idx[self.is_last_of_moment]

    @cached_property
    def _takers(self) -> tuple[TimeArray, IntArray]:
        return self.timestamp[self.is_first_of_person], self.item_idx[self.is_first_of_person]

    def select(self, rows: slice | BoolArray) -> Population:
        """Give some of the events; DataError if there is none."""
        items = self.item_idx[rows]
        if not len(items):
            raise DataError("no event of the population is left.")
        return Population(
            items,
            self.timestamp[rows],
            self.is_last_of_moment[rows],
            self.is_first_of_person[rows],
            self.n_items,
        )


_POPULATIONS: WeakKeyDictionary[Interactions, Population] = WeakKeyDictionary()


def _schema() -> Any:
    import pyarrow as pa

    names = ("item_idx", "timestamp", "is_last_of_moment", "is_first_of_person")
    types = (pa.int32(), pa.timestamp("ms"), pa.bool_(), pa.bool_())
    return pa.schema(list(zip(names, types, strict=True)))


def is_repeated_at_moment(users: IntArray, times: TimeArray, items: IntArray) -> BoolArray:
    """(n_events,) which events another one of the same user, moment and item follows.

    The events of a user are together, in the order of time.
    """
    starts = np.ones(len(items), dtype=np.bool_)
    starts[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    keys = np.cumsum(starts) * (items.max(initial=0) + 1) + items
    order = np.argsort(keys, kind="stable")  # of equal ones the later event is later
    repeated = np.zeros(len(keys), dtype=np.bool_)
    repeated[order[:-1]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def _is_first_of_person(log: Interactions) -> BoolArray:
    """(n_events,) whether an event is the first of its person with its item."""
    pairs = log.user_idx * (log.item_idx.max(initial=0) + 1) + log.item_idx
    first = np.zeros(len(pairs), dtype=np.bool_)
    first[np.unique(pairs, return_index=True)[1]] = True  # a person's events are in order
    return first


@dataclass(frozen=True, eq=False)
class _Spans:
    """Events between the first and last edge of some spans, each with the edge after it."""

    first: IntArray  # (n_spans,) edge where a span starts
    last: IntArray  # (n_spans,) edge where it ends
    edge: IntArray  # (n_events,) next edge after an event
    items: IntArray  # (n_events,)
    n_edges: int

    @classmethod
    def of(cls, times: TimeArray, items: IntArray, starts: TimeArray, ends: TimeArray) -> _Spans:
        edges, inverse = np.unique(np.stack((starts, ends)), return_inverse=True)
        first, last = inverse.reshape(2, -1)
        positions = np.searchsorted(times, edges, side="left")
        edge = np.repeat(np.arange(1, len(edges)), np.diff(positions))
        return cls(first, last, edge, items[positions[0] : positions[-1]], len(edges))

    def differences(self, counts: FloatArray) -> FloatArray:
        """(n_spans, n) counts inside each span, from (n_edges, n) counts between the edges.

        ``counts`` become those up to each edge.
        """
        for before, counted in pairwise(counts):  # cumsum down the columns is 20 times slower
            counted += before
        inside: FloatArray = counts[np.maximum(self.first, self.last)] - counts[self.first]
        return np.maximum(inside, 0.0, out=inside)  # a sum of shares may come out as -1e-16
