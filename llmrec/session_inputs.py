"""What sessions of one person share, and the items that they recommend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import get_args

import numpy as np

from llmrec.data.join import Platforms
from llmrec.data.periods import History
from llmrec.engine_config import EngineParts
from llmrec.errors import DataError
from llmrec.explain.item import ItemExplanation
from llmrec.explain.reword import reword
from llmrec.forecast import Forecast, StatementModel
from llmrec.ranking.blend import Blend
from llmrec.ranking.new_items import is_new_item
from llmrec.ranking.ranking import Reranker, make_reranker
from llmrec.types import IntArray, RepeatPolicy, Shelf

Rewording = Callable[[Sequence[ItemExplanation]], list[ItemExplanation]]


@dataclass(frozen=True)
class Recommendation:
    """One item of a list, and why it is there."""

    item_id: str
    title: str
    rank: int
    score: float
    explanation: ItemExplanation

    @property
    def why(self) -> str:
        """The explanation in a sentence or two."""
        return self.explanation.text


@dataclass(frozen=True, eq=False)
class SessionInputs:
    """What all sessions of one person share, whatever their edits: the forecast and the scores.

    Attributes
    ----------
    history
        The person's events before the cutoff.
    blend
        Scores the items; it scores this history once.
    scorer
        The blend that scores other histories, too: this one without some of its events.
    strength, edit_strength
        How hard the forecast, and what edits change of it, tilt the ranking where a session sets no
        other strength.
    repeat
        Whether items already taken may be listed.
    make_forecast
        Forecasts the history; it is called once, when the forecast is first needed.
    reword
        Puts explanations into a language model's words, checked.
    new_items, new_strength
        What ranks items that nobody has taken yet, and how hard the forecast tilts that; None: the
        blend does, with the same strength.
    shelf
        Which items are ranked.
    platform_items, platform_categories
        (n,) those of the platform whose items alone are ranked; None: of all.
    """

    history: History
    blend: Blend
    scorer: Blend
    strength: float
    edit_strength: float
    repeat: RepeatPolicy
    make_forecast: Callable[[History], Forecast]
    reword: Rewording
    new_items: Blend | None = None
    new_strength: float = 0.0
    shelf: Shelf = "all"
    platform_items: IntArray | None = None
    platform_categories: IntArray | None = None

    @cached_property
    def forecast(self) -> Forecast:
        """The next period, before any edit."""
        return self.make_forecast(self.history)

    def with_forecast(
        self, forecast: Forecast | None, statements: StatementModel | None
    ) -> SessionInputs:
        """Give the same with a forecast made before, if there is one; DataError if it is later."""
        if forecast is None:
            return self
        if forecast.horizon != 1:
            raise DataError(f"a session is of the next period, not of horizon={forecast.horizon}")
        if forecast.statement_model is None:  # of a store, or made apart
            forecast = replace(forecast, statement_model=statements)
        return replace(self, make_forecast=lambda history: forecast)

    def of_new_items(self) -> SessionInputs:
        """Give the same for lists of the items alone that nobody has taken yet."""
        known = replace(self, shelf="new", make_forecast=lambda history: self.forecast)
        if self.new_items is None:
            return known
        blend, strength = self.new_items, self.new_strength
        return replace(known, blend=blend, scorer=blend, strength=strength)

    @cached_property
    def candidates(self) -> IntArray | None:
        """(n,) the items of the shelf and the platform; None: all."""
        if self.shelf == "all":
            return self.platform_items
        new = np.flatnonzero(is_new_item(self.history))
        return new if self.platform_items is None else np.intersect1d(new, self.platform_items)

    def within_platform(self, forecast: Forecast) -> Forecast:
        """Give a forecast of the platform's categories alone, if these weigh something."""
        own = self.platform_categories
        if own is None or not forecast.category_weights[own].any():
            return forecast
        return forecast.within(own)

    @cached_property
    def reranker(self) -> Reranker:
        """Ranks the items under edits; they are scored when it is made."""
        return make_reranker(
            self.history,
            self.forecast,
            self.blend,
            strength=self.strength,
            edit_strength=self.edit_strength,
            repeat=self.repeat,
            candidates=self.candidates,
        )


def inputs_of_engine(
    parts: EngineParts,
    history: History,
    make_forecasts: Callable[[Sequence[History], bool], list[Forecast]],
    forecast: Forecast | None,
    repeat: RepeatPolicy | None,
    shelf: Shelf,
    platform: str | None,
    scored: Blend | None = None,
) -> SessionInputs:
    """Give what a person's sessions share, of an engine as it is now.

    Parameters
    ----------
    make_forecasts
        Forecasts histories; its second argument says to keep what describing them computes.
    scored
        The blend with the history's scores, where they are known.
    forecast, repeat, shelf, platform
        As of `InterestEngine.session`, whose errors are raised.
    """
    blend = scored or blend_of_shelf(shelf, parts.blend, parts.new_items)
    inputs = SessionInputs(
        *(history, blend, parts.blend, parts.settings.strength, parts.settings.edit_strength),
        repeat or parts.dataset.repeat,
        lambda history: make_forecasts([history], True)[0],
        partial(reword, parts.language.model if parts.language else None),
        *(parts.new_items, parts.settings.new_strength),
    )
    inputs = inputs.with_forecast(forecast, parts.statements)
    inputs = of_platform(inputs, parts.dataset.platforms, platform)
    return inputs if shelf == "all" else replace(inputs.of_new_items(), blend=blend)


def blend_of_shelf(shelf: Shelf, blend: Blend, new_items: Blend | None) -> Blend:
    """Give what ranks the items of a shelf; DataError if there is no such one."""
    if shelf not in get_args(Shelf):
        raise DataError(f"shelf is {shelf!r}; it should be {' or '.join(get_args(Shelf))}")
    return blend if shelf == "all" else new_items or blend


def of_platform(inputs: SessionInputs, platforms: Platforms, name: str | None) -> SessionInputs:
    """Give the same for lists of one platform's items (None: of all); DataError if unknown."""
    if name is None:
        return inputs
    items, categories = platforms.items(name), platforms.categories(name)
    return replace(inputs, platform_items=items, platform_categories=categories)


def place_new_items(
    items: Sequence[Recommendation], new: Sequence[Recommendation], k: int
) -> list[Recommendation]:
    """Give a list of k items with all new ones in it, at every k / n_new-th place."""
    ids = {one.item_id for one in new}
    found = [one for one in items if one.item_id not in ids][: k - len(new)]
    for number, one in enumerate(new, start=1):
        found.insert(number * k // len(new) - 1, one)
    return [replace(one, rank=place) for place, one in enumerate(found, start=1)]
