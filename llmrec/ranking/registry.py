"""Item scorers by name, as an engine's settings keep them, and which of them suit a log."""

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
SIMILARITY_FLOOR = (
    0.01  # of pairs' scores: in a blend the logarithm of almost nothing outshouts the others
)
# An engine fits its scorers whenever it is loaded. Each EASE takes 9 s and .9 GB at so many items,
# and grows with their cube and square.
MAX_EASE_ITEMS = 6_000
# Names are kept in files: what one means must not change. All but Cosine were chosen on validation,
# Successors on periods of events (LOG.md). Cosine, and Successors on calendar periods, stand in for
# EASE where a catalog is too large for it: on no such log have they been validated.
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


@runtime_checkable
class FittableScorer(Protocol):
    """A scorer that has to be fitted first."""

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
    ) -> ItemScorer:
        """Learn from all users' events before the cutoff (default: all events)."""
        ...


def build_scorer(
    name: str, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
) -> ItemScorer:
    """Make the scorer of a name, fitted on a log's events before the cutoff (default: all).

    Raises
    ------
    DataError
        If no scorer is called that; it names those that there are.
    """
    if name not in SCORERS:
        raise DataError(
            f"no scorer is called {name!r}: choose from {', '.join(SCORERS)}, and {LM_SCORER} with "
            "a model that has a memory of titles"
        )
    scorer = SCORERS[name]()
    return scorer.fit(log, catalog, cutoff) if isinstance(scorer, FittableScorer) else scorer


def registered_name(scorer: ItemScorer) -> str | None:
    """Find the name under which the same scorer is made; None if it is set like none of them."""
    if type(scorer).__name__ == LM_SCORER:
        return LM_SCORER
    return next((name for name, make in SCORERS.items() if repr(make()) == repr(scorer)), None)


def default_scorers(period: str, n_items: int, repeat: RepeatPolicy) -> tuple[str, ...]:
    """Name the scorers to blend for a log, by its nature.

    What was taken before counts where it may be listed again. What goes with it comes from a
    regression up to `MAX_EASE_ITEMS`, from counts beyond. Periods of events order what a person
    takes, days do not.
    """
    by_events = PeriodLength.parse(period).unit == "events"
    small = n_items <= MAX_EASE_ITEMS
    names = ["RecentPopularity"]
    if repeat == "allow":
        names.append("PersonalRepeat")
    if small:
        names += ["Ease", "EaseByEvents"] if by_events else ["EaseByDays"]
    else:
        names.append("Cosine")
    if by_events or not small:
        names.append("Successors")
    return tuple(names)
