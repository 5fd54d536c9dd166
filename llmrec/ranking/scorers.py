"""Item scorers that need no fit: popularity, and what a person takes again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.calendar import DAY, MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.counts import shared_population
from llmrec.data.periods import History
from llmrec.data.population import is_repeated_at_moment
from llmrec.data.stored import Stored
from llmrec.ranking.contributions import Contributions, past_items
from llmrec.ranking.fitted import parameters_from, refusing, settings_of
from llmrec.types import FloatArray, IntArray

ALL_TIME_DAYS = 36_500.0  # a span as long as any log
DEFAULT_HALF_LIFE_DAYS = 84.0


@dataclass(frozen=True)
class _PopularityScorer:
    """What scorers by what everybody took in the last days before the cutoff have in common."""

    days: float = 28.0
    pseudo_count: float = 1.0

    def __post_init__(self) -> None:
        require_positive(days=self.days, pseudo_count=self.pseudo_count)

    def stored(self) -> Stored:
        """Give its parameters: what is popular is counted in the log that is ranked for."""
        return Stored(type(self).__name__, settings_of(self))

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> Self:
        """Make it again for any catalog; ModelLoadError for parameters that cannot be."""
        with refusing(stored.kind):
            return cls(**parameters_from(stored.values))

    def counts(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) how often everybody took each item in these days."""
        span = round(self.days * (DAY / MILLISECOND)) * MILLISECOND
        starts = np.array([history.cutoff - span for history in histories])
        ends = np.array([history.cutoff for history in histories])
        return shared_population(histories).item_counts(starts, ends, "moments")

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError if the populations differ."""
        if not histories:
            return np.empty((0, 0))
        newest, rows = one_of_each_cutoff(histories)
        shares = self._shares(newest)
        return np.asarray(np.log(shares, out=shares)[rows], dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) positive numbers; rows sum to 1."""
        if not histories:
            return np.empty((0, 0))
        newest, rows = one_of_each_cutoff(histories)
        return np.asarray(self._shares(newest)[rows])

    def _shares(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) `raw_scores` of at least one history."""
        raise NotImplementedError

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the raw scores of these items: nothing in them is of the person."""
        past = past_items(history)
        parts = np.zeros((len(items), len(past)))
        return Contributions(past, parts, self.raw_scores([history])[0, items])


@dataclass(frozen=True)
class RecentPopularity(_PopularityScorer):
    """Scores items by what everybody took in the last days before the cutoff.

    What a person takes of one item at one moment counts once: three packs in a basket are one
    purchase.

    Parameters
    ----------
    days
        Length of the span, > 0: events with cutoff - days <= time < cutoff count.
    pseudo_count
        Added to the events of every item, > 0, so that no item is impossible.
    """

    @property
    def name(self) -> str:
        """Its name in explanations."""
        if self.days >= ALL_TIME_DAYS:
            return "popular so far"
        return f"popular in the last {self.days:g} days"

    def _shares(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) each item's smoothed share of the recent events; rows sum to 1."""
        shares = self.counts(histories)
        shares += self.pseudo_count
        shares /= shares.sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True)
class PopularityTrend(_PopularityScorer):
    """Scores items by how much more of what everybody took they were lately than ever.

    An item's probability is proportional to (c + K p) / p: c is how often it was taken lately, p
    its share of all that was taken, and K ``pseudo_count`` times the number of items, so that what
    was taken as often as ever has the same score as everything else, and so has everything where
    nothing was taken lately. A weight of w in a blend multiplies the others by that ratio to the w.

    Parameters
    ----------
    days
        Length of the span before the cutoff that is lately, > 0.
    pseudo_count
        Events that the share of old is worth, an item, > 0.
    """

    days: float = 14.0

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return f"taken more in the last {self.days:g} days than before"

    def _shares(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) (c + K p) / p, each row divided by its sum."""
        found = self.counts(histories)
        found /= RecentPopularity(ALL_TIME_DAYS, self.pseudo_count).raw_scores(histories)
        found += self.pseudo_count * found.shape[1]
        found /= found.sum(axis=1, keepdims=True)
        return found


def popularity_before(history: History) -> tuple[str, FloatArray]:
    """Give (n_items,) log-probabilities by popularity before the cutoff, and their name.

    By what everybody took lately; where that is the same for all items, by all that was taken.
    """
    recent = RecentPopularity()
    scores = recent.scores([history])[0]
    if np.ptp(scores) > 0:
        return recent.name, scores
    age = (history.cutoff - history.population.start) / DAY
    ever = RecentPopularity(days=max(age, recent.days) + 1)
    return "popular so far", ever.scores([history])[0]


@dataclass(frozen=True)
class PersonalRepeat:
    """Scores items by what the person took before, recent events more, and by what is popular.

    An item's probability is proportional to its decayed count in the history plus ``strength``
    times its popularity. What is taken of it at one moment counts once.

    Parameters
    ----------
    half_life_days
        Age at which an event counts half, > 0.
    strength
        Events that popularity is worth, > 0.
    popularity
        The distribution of what the person never took.
    """

    half_life_days: float = DEFAULT_HALF_LIFE_DAYS
    strength: float = 30.0
    popularity: RecentPopularity = field(default_factory=RecentPopularity)

    def __post_init__(self) -> None:
        require_positive(half_life_days=self.half_life_days, strength=self.strength)

    @property
    def name(self) -> str:
        """Its name in explanations."""
        if self.half_life_days == DEFAULT_HALF_LIFE_DAYS:
            return "taken before or popular"
        return f"taken before (half-life {self.half_life_days:g} days) or popular"

    def stored(self) -> Stored:
        """Give its parameters; its popularity is a part."""
        values = settings_of(self)
        del values["popularity"]
        return Stored("PersonalRepeat", values, parts={"popularity": self.popularity.stored()})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> PersonalRepeat:
        """Make it again for any catalog; ModelLoadError for parameters that cannot be."""
        with refusing(stored.kind):
            popularity = RecentPopularity.from_stored(stored.parts["popularity"], catalog)
            return cls(**parameters_from(stored.values), popularity=popularity)

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError if the populations differ."""
        if not histories:
            return np.empty((0, 0))
        newest, rows = one_of_each_cutoff(histories)
        popular = self.popularity.raw_scores(newest)
        popular *= self.strength
        each = [pd.factorize(row) for row in popular]
        taken, found = self._decayed_counts(histories), popular[rows]
        for row, cutoff, start, stop in zip(
            found, rows, taken.indptr[:-1], taken.indptr[1:], strict=True
        ):
            items = taken.indices[start:stop]
            row[items] += taken.data[start:stop]
            total, own = row.sum(), row[items]
            # What the person never took has few values, as often as anybody took it: a logarithm
            # of each is much less work than one of every item, and it is the same to the bit.
            places, values = each[cutoff]
            np.take(np.log(values / total), places, out=row, mode="clip")
            row[items] = np.log(own / total)
        return np.asarray(found, dtype=np.float64)

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) decayed counts plus ``strength`` times the popularity."""
        shares = self.popularity.raw_scores(histories)
        shares *= self.strength
        shares += self._decayed_counts(histories).toarray()
        return shares

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items: an item's own decayed count."""
        past = past_items(history)
        counts = self._decayed_counts([history]).toarray()[0, past]
        parts = np.where(items[:, None] == past, counts, 0.0)
        rest = self.strength * self.popularity.raw_scores([history])[0, items]
        return Contributions(past, parts, rest)

    def _decayed_counts(self, histories: Sequence[History]) -> sparse.csr_matrix:
        ages = np.concatenate([np.empty(0), *(history.days_ago for history in histories)])
        return item_counts(histories, np.exp2(-ages / self.half_life_days))


def one_of_each_cutoff(histories: Sequence[History]) -> tuple[list[History], IntArray]:
    """Give a history of each cutoff, and (n_users,) which of them has the cutoff of each.

    What everybody took before a cutoff is the same for all people: it is counted once.

    Raises
    ------
    ValueError
        If the histories are of several populations.
    """
    shared_population(histories)
    cutoffs = np.array([history.cutoff for history in histories])
    _, first, rows = np.unique(cutoffs, return_index=True, return_inverse=True)
    return [histories[place] for place in first], rows


def item_counts(
    histories: Sequence[History], weights: FloatArray | None = None
) -> sparse.csr_matrix:
    """(n_users, n_items) weighted number of moments at which each item was taken.

    ``weights`` (default 1) are of the events of all histories; the last event of a moment counts.
    """
    if not histories:
        return sparse.csr_matrix((0, 0))
    rows = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    spans = [slice(history.event_ids.start, history.event_ids.stop) for history in histories]
    items = np.concatenate([h.log.item_idx[span] for h, span in zip(histories, spans, strict=True)])
    times = np.concatenate(
        [h.log.timestamp[span] for h, span in zip(histories, spans, strict=True)]
    )
    last = ~is_repeated_at_moment(rows, times, items)
    values = np.ones(len(items)) if weights is None else weights
    shape = (len(histories), histories[0].catalog.n_items)
    return sparse.csr_matrix((values[last], (rows[last], items[last])), shape=shape)


def require_positive(**values: float | None) -> None:
    """Raise ValueError, with its name, for a parameter that is given and not finite and > 0."""
    for name, value in values.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, not {value}")
