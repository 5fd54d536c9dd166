"""Causes of an item's rank: past items, popularity and forecast, each by ranking again without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.calendar import DAY
from llmrec.data.names import clean_text
from llmrec.data.periods import History
from llmrec.explain.facts import (
    MAX_SENTENCE_TITLE_LENGTH,
    Evidence,
    cite_events,
    format_day,
    parse_evidence,
)
from llmrec.ranking.edits import active_edits
from llmrec.ranking.ranking import Ranking, Reranker, rank_of
from llmrec.ranking.removal import RemovalRanker
from llmrec.types import FloatArray, IntArray, TimeArray

N_COMPARED = 400  # best items: an effect is what a past item adds beyond what it adds to these
MIN_SECOND_EFFECT = 0.25  # of the first: what adds less is not named
RECENT_DAYS = 28
MAX_PAST_EFFECTS = 8
N_TRIED = 3  # past items of largest effect that are removed, until a rank falls


@dataclass(frozen=True)
class Cause:
    """A past item that lifts another one, or the same one again.

    Attributes
    ----------
    latest
        The person's newest event of it.
    times
        How often they took it.
    effect
        What it adds to the score beyond what it adds to the best items on average, in nats, over
        the blend's additive scorers.
    share
        Of what all past items add so, where they add; in (0, 1].
    """

    latest: Evidence
    times: int
    effect: float
    share: float


@dataclass(frozen=True)
class PastEffect:
    """What one past item does to another one's rank, by ranking again without it.

    Attributes
    ----------
    latest, times
        As for `Cause`.
    effect
        What the score loses without it, against the mean of the best items: negative where it
        argues against the item.
    share
        Of what the lifting ones of all past items looked at add; 0 where it argues against.
    rank_without
        1-based.
    """

    latest: Evidence
    times: int
    effect: float
    share: float
    rank_without: int

    def __str__(self) -> str:
        """Title, and the rank without it: "Alien (1979) (without it 48th)"."""
        title = clean_text(self.latest.title, MAX_SENTENCE_TITLE_LENGTH)
        return f"{title} (without it {format_ordinal(self.rank_without)})"


@dataclass(frozen=True)
class Causes:
    """What an item's rank rests on, as ranking again shows.

    Attributes
    ----------
    rank
        By score, 1-based.
    named
        The past items that lift it most, two at most, the largest effect first.
    rank_without
        Its rank if the person had never taken the named items; None where none is named.
    rank_without_tilt
        Its rank without the edits that are in force, or else without the forecast's tilt.
    n_recent
        How often everybody took it in the last `RECENT_DAYS` days.
    dropped
        Titles of past items that were not named, since without them it would not rank lower.
    """

    rank: int
    named: tuple[Cause, ...] = ()
    rank_without: int | None = None
    rank_without_tilt: int | None = None
    n_recent: int = 0
    dropped: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Causes:
        """Make it from the dict of its fields, as JSON has them."""
        named = tuple(
            Cause(**{**one, "latest": parse_evidence([one["latest"]])[0]})
            for one in values["named"]
        )
        return cls(**{**values, "named": named, "dropped": tuple(values["dropped"])})

    @property
    def tilt_lifts(self) -> bool:
        """Whether edits, or the forecast, give it a better rank."""
        return self.rank_without_tilt is not None and self.rank_without_tilt > self.rank

    def sentences(self, item_id: str, verb: str) -> tuple[str, ...]:
        """Variants of the sentence that names the past items, the plainest first."""
        if not self.named:
            return self._popularity_sentences(verb)
        first = self.named[0]
        if first.latest.item_id == item_id:
            return self._repeat_sentences(first, verb)
        titles = [clean_text(c.latest.title, MAX_SENTENCE_TITLE_LENGTH) for c in self.named]
        these, it = " and ".join(titles), "it" if len(titles) == 1 else "these two"
        if self._is_lifted:
            outcome = f"without {it} this would be {format_ordinal(self.rank_without or 0)}"
            return (
                f"Because you have {verb} {these}: {outcome}.",
                f"You have {verb} {these}; {outcome}.",
            )
        return (
            f"Much that you have {verb} speaks for it, most of all {these}; without {it} this "
            f"would still be {format_ordinal(self.rank)}.",
        )

    @property
    def _is_lifted(self) -> bool:
        return self.rank_without is not None and self.rank_without > self.rank

    def _repeat_sentences(self, own: Cause, verb: str) -> tuple[str, ...]:
        did, last = verb[:1].upper() + verb[1:], format_day(own.latest.date)
        still = "" if self._is_lifted else "still "
        outcome = f"without that it would {still}be {format_ordinal(self.rank_without or 0)}"
        if own.times == 1:
            return (
                f"{did} once before, on {last}: {outcome}.",
                f"It was {verb} before, once, on {last}; {outcome}.",
            )
        return (
            f"{did} {own.times} times before, last on {last}: {outcome}.",
            f"It was {verb} before, {own.times} times, most recently on {last}; {outcome}.",
        )

    def _popularity_sentences(self, verb: str) -> tuple[str, ...]:
        nothing = f"no one or two things that you have {verb} lift it"
        if not self.n_recent:
            return (f"{nothing[:1].upper()}{nothing[1:]}.",)
        times = "once" if self.n_recent == 1 else f"{self.n_recent:,} times"
        return (
            f"Popular lately: {verb} {times} by everybody in the last {RECENT_DAYS} days; "
            f"{nothing}.",
        )


def find_causes(items: IntArray, removal: RemovalRanker, rerank: Reranker) -> list[Causes]:
    """Find what lifts items, and rank again without it, all items in one batch.

    Parameters
    ----------
    items
        (n,) item indices, each of which may be ranked.
    removal, rerank
        Rank the same person under the same edits and strengths.
    """
    history, now = removal.history, rerank(removal.edits)
    compared = now.item_idx[:N_COMPARED]
    past, effects = removal.effects(np.concatenate((items, compared)))
    effects = effects[: len(items)] - effects[len(items) :].mean(axis=0)
    ranks = [rank_of(now, item) or 0 for item in items.tolist()]
    sets = [
        _sets_to_try(row, past, item) for row, item in zip(effects, items.tolist(), strict=True)
    ]
    chosen = _first_that_lift(sets, ranks, past, items, removal)
    tilted, recent = _without_tilt(removal, rerank, now), _recent_counts(history, items)
    found = []
    for place, item in enumerate(items.tolist()):
        tried, (named, rank_without) = sets[place], chosen[place]
        found.append(
            Causes(
                ranks[place],
                _describe(effects[place], past, named, history),
                rank_without,
                rank_of(tilted, item),
                recent[place],
                _titles(past[tried[0]], history) if tried and not len(named) else (),
            )
        )
    return found


def find_past_effects(
    item: int, removal: RemovalRanker, rerank: Reranker, limit: int = MAX_PAST_EFFECTS
) -> tuple[PastEffect, ...]:
    """Rank an item again without each of the past items that matter most to it, the largest first.

    Parameters
    ----------
    item
        Item index.
    limit
        How many past items at most.
    removal, rerank
        As for `find_causes`.
    """
    history, now = removal.history, rerank(removal.edits)
    compared = now.item_idx[:N_COMPARED]
    past, effects = removal.effects(np.append(compared, item))
    largest = np.argsort(-np.abs(effects[-1] - effects[:-1].mean(axis=0)), kind="stable")[:limit]
    rankings = removal.rankings([[past_item] for past_item in past[largest].tolist()])
    lost = [_lead(now, item, compared) - _lead(one, item, compared) for one in rankings]
    total = sum(max(effect, 0.0) for effect in lost)
    found = [
        PastEffect(
            *_events_of(past_item, history),
            effect,
            max(effect, 0.0) / total if total else 0.0,
            rank_of(ranking, item) or 0,
        )
        for past_item, effect, ranking in zip(past[largest].tolist(), lost, rankings, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: -one.effect))


def _lead(ranking: Ranking, item: int, compared: IntArray) -> float:
    """Give by how much an item's score exceeds the mean of others'."""
    scores = dict(zip(ranking.item_idx.tolist(), ranking.scores.tolist(), strict=True))
    others = [scores[other] for other in compared.tolist()]
    return float(scores[item] - np.mean(others))


def format_ordinal(number: int) -> str:
    """Format a rank: "1st", "48th", "1,203rd"."""
    ending = "th"
    if number % 100 not in (11, 12, 13):
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _sets_to_try(effects: FloatArray, past: IntArray, item: int) -> list[IntArray]:
    """List sets of places of past items that may lift an item most: two together, or one alone.

    Of equal effects the item taken last comes first. An item that was taken itself is alone.
    """
    order = np.argsort(-effects, kind="stable")[:N_TRIED]
    order = order[effects[order] > 0]
    if len(order) and past[order[0]] == item:
        return [order[:1]]
    alone = [order[[place]] for place in range(len(order))]
    is_pair = len(order) > 1 and effects[order[1]] >= MIN_SECOND_EFFECT * effects[order[0]]
    return [order[:2], *alone] if is_pair else alone


def _first_that_lift(
    sets: Sequence[Sequence[IntArray]],
    ranks: Sequence[int],
    past: IntArray,
    items: IntArray,
    removal: RemovalRanker,
) -> list[tuple[IntArray, int | None]]:
    """Give for each item the first set without which it ranks lower, and the rank it then has.

    Where there is none, it is the first set, if the item keeps its rank without it; else no place.
    """

    def ranks_without(of: Sequence[int], tried: slice) -> list[list[int]]:
        asked = [[past[one].tolist() for one in sets[place][tried]] for place in of]
        rankings = iter(removal.rankings([one for each in asked for one in each]))
        return [
            [rank_of(next(rankings), int(items[place])) or 0 for _ in each]
            for place, each in zip(of, asked, strict=True)
        ]

    found = ranks_without(range(len(items)), slice(1))
    unsettled = [
        place
        for place, (rank, first) in enumerate(zip(ranks, found, strict=True))
        if not any(without > rank for without in first)
    ]
    for place, more in zip(unsettled, ranks_without(unsettled, slice(1, None)), strict=True):
        found[place] = found[place] + more
    chosen: list[tuple[IntArray, int | None]] = []
    for one, rank, without in zip(sets, ranks, found, strict=True):
        lifting = [n for n, other in enumerate(without) if other > rank]
        keeping = [0] if without and without[0] == rank else []
        settled = (lifting or keeping)[:1]
        chosen.append((one[settled[0]], without[settled[0]]) if settled else (past[:0], None))
    return chosen


def _describe(
    effects: FloatArray, past: IntArray, places: IntArray, history: History
) -> tuple[Cause, ...]:
    """Describe past items, with the share of each in what lifts."""
    total = float(np.maximum(effects, 0.0).sum())
    return tuple(
        Cause(*_events_of(int(past[place]), history), float(effects[place]), effects[place] / total)
        for place in places
    )


def _events_of(item: int, history: History) -> tuple[Evidence, int]:
    """Give the newest event of a past item, and how many there are."""
    events = np.flatnonzero(history.item_idx == item) + int(history.offsets[0])
    return cite_events(events[-1:].tolist(), history)[0], len(events)


def _titles(items: IntArray, history: History) -> tuple[str, ...]:
    return tuple(history.catalog.titles[item] for item in items.tolist())


def _without_tilt(removal: RemovalRanker, rerank: Reranker, now: Ranking) -> Ranking:
    history = removal.history
    if active_edits(removal.edits, history.catalog, history.cutoff):
        return rerank(())
    return rerank((), strength=0.0) if removal.strength else now


def _recent_counts(history: History, items: IntArray) -> list[int]:
    """Count how often everybody took each item in the last days before the cutoff."""
    ends: TimeArray = np.array([history.cutoff])
    starts: TimeArray = np.array([history.cutoff - RECENT_DAYS * DAY])
    counts = history.population.item_counts(starts, ends, "moments")[0]
    return [int(count) for count in counts[items]]
