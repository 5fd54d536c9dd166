"""The checker of causes: ranks again without them, and counts in the log's own arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from llmrec.data.calendar import DAY
from llmrec.data.periods import History
from llmrec.explain.cause_search import N_COMPARED, has_edits
from llmrec.explain.causes import RECENT_DAYS, Causes
from llmrec.explain.evidence import Evidence, to_date
from llmrec.explain.new_item_reasons import MIN_COSINE, close_past_items, past_cosines
from llmrec.explain.statements import TOLERANCE
from llmrec.ranking.removal import RemovalRanker


def check_causes(causes: Causes, item_idx: int, removal: RemovalRanker) -> tuple[str, ...]:
    """Describe all errors of an item's causes; () if there is none.

    ``removal`` ranks the person as the list is ranked: one that has not ranked yet, so that what
    was found is ranked again.
    """
    ids = removal.history.catalog.item_ids
    cited = [*(one.latest for one in causes.named), *causes.close_titles]
    unknown = [one for one in cited if one.item_id not in ids]
    if unknown:
        return (f"{unknown[0].title} is not in the catalog",)
    past = [removal.history.catalog.item_index(one.latest.item_id) for one in causes.named]
    return (
        *_wrong_ranks(causes, item_idx, past, removal),
        *_wrong_events(causes, past, removal.history),
        *_wrong_effects(causes, item_idx, past, removal),
        *_wrong_newness(causes, item_idx, removal),
    )


def _wrong_ranks(
    causes: Causes, item: int, past: list[int], removal: RemovalRanker
) -> Iterator[str]:
    history, edited = removal.history, has_edits(removal)
    plain = replace(removal, edits=(), strength=removal.strength if edited else 0.0)
    rank = removal.rankings([()])[0].rank_of(item)
    without = removal.rankings([past])[0].rank_of(item) if past else None
    population = history.population
    recent = (population.timestamp < history.cutoff) & population.is_last_of_moment
    recent &= population.timestamp >= history.cutoff - RECENT_DAYS * DAY
    true = {
        "rank": rank,
        "rank_without": without,
        "tilt": "edits" if edited else "forecast",
        "rank_without_tilt": plain.rankings([()])[0].rank_of(item),
        "n_recent": int(np.count_nonzero(population.item_idx[recent] == item)),
    }
    for field, value in true.items():
        if getattr(causes, field) != value:
            yield f"{field} is {value}, not {getattr(causes, field)}"
    if without is not None and without < rank:
        yield "without its causes it ranks higher"


def _wrong_events(causes: Causes, past: list[int], history: History) -> Iterator[str]:
    for one, item in zip(causes.named, past, strict=True):
        if one.times != np.count_nonzero(history.item_idx == item):
            yield f"{one.latest} is not the last of {one.times} times"
        yield from _wrong_latest(one.latest, item, history)


def _wrong_latest(event: Evidence, item: int, history: History) -> Iterator[str]:
    """Describe what is wrong of an event that is cited as the newest of an item."""
    events = np.flatnonzero(history.item_idx == item) + int(history.offsets[0])
    if not len(events) or event.event_id != events[-1]:
        yield f"{event} is not the last of it"
    elif event.date != to_date(history.log.timestamp[events[-1]]):
        yield f"{event.title} was on another day than {event.date}"
    if event.title != history.catalog.titles[item]:
        yield f"{history.catalog.titles[item]} is not called {event.title}"


def _wrong_newness(causes: Causes, item: int, removal: RemovalRanker) -> Iterator[str]:
    history = removal.history
    population = history.population
    before = population.item_idx[population.timestamp < history.cutoff]
    is_new = not (np.any(before == item) or np.any(history.item_idx == item))
    if causes.is_new != is_new:
        yield "somebody has taken it" if causes.is_new else "nobody has taken it"
    close = [history.catalog.item_index(one.item_id) for one in causes.close_titles]
    for one, own in zip(causes.close_titles, close, strict=True):
        yield from _wrong_latest(one, own, history)
    cosines = past_cosines(item, close, removal.blend, causes.close_block)
    if len(cosines) < len(close) or (cosines < MIN_COSINE - TOLERANCE).any():
        yield "a past item is not close to it"
    (true,) = close_past_items(np.array([item]), history, removal.blend)
    if (true.items.tolist(), true.block) != (close, causes.close_block):
        yield "the closest past items are others, or close in something else"


def _wrong_effects(
    causes: Causes, item: int, past: list[int], removal: RemovalRanker
) -> Iterator[str]:
    best = removal.rankings([()])[0].item_idx[:N_COMPARED]
    known, effects = removal.effects(np.append(item, best))
    beyond = effects[0] - effects[1:].mean(axis=0)
    total = np.maximum(beyond, 0.0).sum()
    for one, own in zip(causes.named, past, strict=True):
        effect = float(beyond[known == own].sum())
        share = effect / total if total else 0.0
        if abs(one.effect - effect) > TOLERANCE or abs(one.share - share) > TOLERANCE:
            yield f"{one.latest.title} adds {effect:.4g}, {share:.1%} of what lifts"
    if [one.effect for one in causes.named] != sorted(one.effect for one in causes.named)[::-1]:
        yield "the largest cause is not named first"
