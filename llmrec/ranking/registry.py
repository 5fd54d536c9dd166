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
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, Successors
from llmrec.ranking.scorers import ImplicitALS, PersonalRepeat, RecentPopularity
from llmrec.types import Repeat

FORETOLD = "ForetoldItems"  # the one that needs a language model: see `llmrec.ranking.foretold`
FLOOR = 0.01  # of pairs' scores: in a blend the logarithm of almost nothing outshouts the others
# An engine fits its scorers whenever it is loaded. Each EASE takes 9 s and .9 GB at so many items,
# and grows with their cube and square.
ITEMS_FOR_EASE = 6_000
# Names are kept in files: what one means must not change. All but Cosine were chosen on validation,
# Successors on periods of events (LOG.md). Cosine, and Successors on calendar periods, stand in for
# EASE where a catalog is too large for it: on no such log have they been validated.
SCORERS: Mapping[str, Callable[[], ItemScorer]] = {
    "RecentPopularity": RecentPopularity,
    "PersonalRepeat": PersonalRepeat,
    "ImplicitALS": ImplicitALS,
    "Ease": lambda: ItemToItem(Ease(), floor=FLOOR),
    "EaseByEvents": lambda: ItemToItem(Ease(1000.0), 6.6, floor=FLOOR),
    "EaseByDays": lambda: ItemToItem(Ease(1000.0, "log"), 224.0, "days", "log", FLOOR),
    "Cosine": lambda: ItemToItem(Cosine(), floor=FLOOR),
    "Successors": lambda: ItemToItem(Successors(), 3.1, counts="count", floor=FLOOR),
}


@runtime_checkable
class Learner(Protocol):
    """A scorer that has to be fitted first."""

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
    ) -> ItemScorer:
        """Learn from all users' events before the cutoff (default: all events)."""
        ...


def fitted_scorer(
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
            f"no scorer is called {name!r}: choose from {', '.join(SCORERS)}, and {FORETOLD} with "
            "a model that has a memory of titles"
        )
    scorer = SCORERS[name]()
    return scorer.fit(log, catalog, cutoff) if isinstance(scorer, Learner) else scorer


def name_of(scorer: ItemScorer) -> str | None:
    """Find the name under which the same scorer is made; None if it is set like none of them."""
    if type(scorer).__name__ == FORETOLD:
        return FORETOLD
    return next((name for name, make in SCORERS.items() if repr(make()) == repr(scorer)), None)


def scorers_for(period: str, n_items: int, repeat: Repeat) -> tuple[str, ...]:
    """Name the scorers to blend for a log, by its nature.

    What was taken before counts where it may be listed again. What goes with it comes from a
    regression up to `ITEMS_FOR_EASE`, from counts beyond. Periods of events order what a person
    takes, days do not.
    """
    by_events = PeriodLength.parse(period).unit == "events"
    small = n_items <= ITEMS_FOR_EASE
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
