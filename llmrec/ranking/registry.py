"""Item scorers by name, as the settings of an engine store them, and the default ones of a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from llmrec.data.calendar import PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, SequentialRules
from llmrec.ranking.scorers import ImplicitALS, PersonalRepeat, RecentPopularity
from llmrec.types import RepeatPolicy

LM_SCORER = "LMItemScorer"  # the one that needs a language model: see `llmrec.ranking.lm_scorer`
# Of item-to-item scores: in a blend the logarithm of almost 0 would dominate the other scorers.
SIMILARITY_FLOOR = 0.01
# An engine fits its scorers whenever it is loaded. Each EASE takes 9 s and .9 GB at so many items,
# and grows with their cube and square.
MAX_EASE_ITEMS = 6_000
# Names are stored in files: their meaning must not change. All but Cosine were chosen on
# validation, Successors on periods of events (LOG.md). Cosine, and Successors on calendar periods,
# replace EASE where a catalog is too large for it: on no such log have they been validated.
SCORERS: Mapping[str, Callable[[], ItemScorer]] = {
    "RecentPopularity": RecentPopularity,
    "PersonalRepeat": PersonalRepeat,
    "ImplicitALS": ImplicitALS,
    "Ease": lambda: ItemToItem(Ease(), floor=SIMILARITY_FLOOR),
    "EaseByEvents": lambda: ItemToItem(Ease(1000.0), 6.6, floor=SIMILARITY_FLOOR),
    "EaseByDays": lambda: ItemToItem(Ease(1000.0, "log"), 224.0, "days", "log", SIMILARITY_FLOOR),
    "Cosine": lambda: ItemToItem(Cosine(), floor=SIMILARITY_FLOOR),
    "Successors": lambda: ItemToItem(
        SequentialRules(), 3.1, counts="count", floor=SIMILARITY_FLOOR
    ),
}
POPULARITY_BLEND = {"RecentPopularity": 1.0}  # where no scorer has a weight


@runtime_checkable
class FittableScorer(Protocol):
    """A scorer that has to be fitted first."""

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
    ) -> ItemScorer:
        """Fit on all users' events before the cutoff (default: all events)."""
        ...


def build_scorer(
    name: str, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
) -> ItemScorer:
    """Build the scorer of a name, fitted on a log's events before the cutoff (default: all).

    Raises
    ------
    DataError
        If no scorer has the name; the message lists the names.
    """
    if name not in SCORERS:
        raise DataError(
            f"no scorer is called {name!r}: choose from {', '.join(SCORERS)}, and {LM_SCORER} with "
            "a model that has title embeddings"
        )
    scorer = SCORERS[name]()
    return scorer.fit(log, catalog, cutoff) if isinstance(scorer, FittableScorer) else scorer


def registered_name(scorer: ItemScorer) -> str | None:
    """Give the name that `build_scorer` builds an equal scorer from; None if there is none."""
    if type(scorer).__name__ == LM_SCORER:
        return LM_SCORER
    return next((name for name, make in SCORERS.items() if repr(make()) == repr(scorer)), None)


def default_scorers(period: str, n_items: int, repeat: RepeatPolicy) -> tuple[str, ...]:
    """Give the names of the scorers to blend for a log.

    `PersonalRepeat` where items may be listed again; item similarities by EASE up to
    `MAX_EASE_ITEMS`, by counts beyond; sequential rules where periods are counted in events.
    """
    by_events = PeriodLength.parse(period).unit == "events"
    is_small = n_items <= MAX_EASE_ITEMS
    names = ["RecentPopularity"]
    if repeat == "allow":
        names.append("PersonalRepeat")
    if is_small:
        names += ["Ease", "EaseByEvents"] if by_events else ["EaseByDays"]
    else:
        names.append("Cosine")
    if by_events or not is_small:
        names.append("Successors")
    return tuple(names)


def fallback_blend(repeat: RepeatPolicy) -> dict[str, float]:
    """Give the blend of a log that is too short to fit one on."""
    return {"PersonalRepeat": 1.0} if repeat == "allow" else dict(POPULARITY_BLEND)
