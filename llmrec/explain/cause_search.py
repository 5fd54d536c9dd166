"""The search for causes: ranks items again without the past items that may lift them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.data.calendar import DAY
from llmrec.data.periods import History
from llmrec.explain.causes import RECENT_DAYS, Cause, Causes, PastEffect
from llmrec.explain.evidence import Evidence, cite_events
from llmrec.explain.new_item_reasons import close_past_items
from llmrec.ranking.edits import active_edits
from llmrec.ranking.new_items import is_new_item
from llmrec.ranking.ranking import Ranking, Reranker, rank_of
from llmrec.ranking.removal import RankedItems, RemovalRanker
from llmrec.types import FloatArray, IntArray, TimeArray

N_COMPARED = 400  # best items: an effect is what a past item adds beyond what it adds to these
MIN_SECOND_EFFECT = 0.25  # of the first: what adds less is not named
N_TRIED = 3  # past items of largest effect that are removed, until a rank falls
MAX_PAST_EFFECTS = 8


def find_causes(items: IntArray, removal: RemovalRanker, rerank: Reranker) -> list[Causes]:
    """Find what lifts items, and rank again without it, all items in one batch.

    Parameters
    ----------
    items
        (n,) item indices, each of which may be ranked.
    removal, rerank
        Rank the same person under the same edits and strengths.
    """
    if not len(items):
        return []
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
    new, close = is_new_item(history), close_past_items(items, history, removal.blend)
    found = []
    for place, item in enumerate(items.tolist()):
        named, rank_without = chosen[place]
        found.append(
            Causes(
                ranks[place],
                _describe(effects[place], past, named, history),
                rank_without,
                "edits" if has_edits(removal) else "forecast",
                rank_of(tilted, item),
                recent[place],
                bool(new[item]),
                tuple(_events_of(one, history)[0] for one in close[place].items.tolist()),
                close[place].block,
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
            ranking.rank_of(item),
        )
        for past_item, effect, ranking in zip(past[largest].tolist(), lost, rankings, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: -one.effect))


def _lead(ranking: Ranking | RankedItems, item: int, compared: IntArray) -> float:
    """Give by how much an item's score exceeds the mean of others'."""
    scores = dict(zip(ranking.item_idx.tolist(), ranking.scores.tolist(), strict=True))
    others = [scores[other] for other in compared.tolist()]
    return float(scores[item] - np.mean(others))


def has_edits(removal: RemovalRanker) -> bool:
    """Whether edits are in force."""
    history = removal.history
    return bool(active_edits(removal.edits, history.catalog, history.cutoff))


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
    return [order[:2], *alone] if is_pair and past[order[1]] != item else alone


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
            [next(rankings).rank_of(int(items[place])) for _ in each]
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


def _without_tilt(removal: RemovalRanker, rerank: Reranker, now: Ranking) -> Ranking:
    if has_edits(removal):
        return rerank(())
    return rerank((), strength=0.0) if removal.strength else now


def _recent_counts(history: History, items: IntArray) -> list[int]:
    """Count how often everybody took each item in the last days before the cutoff."""
    ends: TimeArray = np.array([history.cutoff])
    starts: TimeArray = np.array([history.cutoff - RECENT_DAYS * DAY])
    counts = history.population.item_counts(starts, ends, "moments")[0]
    return [int(count) for count in counts[items]]
