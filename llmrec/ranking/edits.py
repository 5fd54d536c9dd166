"""Edits: what a person changes in their own forecast, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from llmrec.contracts import Forecast
from llmrec.data.catalog import Catalog

MAX_FACTOR = 100.0


@dataclass(frozen=True)
class Edit:
    """More, less or nothing of one category.

    Parameters
    ----------
    category
        Name of a category of the catalog.
    factor
        Multiplies the category's weight, in [0, 100]; 0 mutes it.
    until
        From this time on the edit does nothing; None: it never ends.
    lock
        The category's share becomes exactly its forecast weight times the factor; otherwise the
        share also gives and takes when weights are made to sum to 1 again.

    Raises
    ------
    ValueError
        If the factor is out of bounds, or ``until`` is not a time.
    """

    category: str
    factor: float
    until: np.datetime64 | None = None
    lock: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= MAX_FACTOR:
            raise ValueError(
                f"edit of {self.category!r}: the factor must lie in 0..{MAX_FACTOR:g} "
                f"(0 mutes, 1 changes nothing), not {self.factor}"
            )
        if self.until is not None and np.isnat(self.until):
            raise ValueError(f"edit of {self.category!r}: until is not a time; give one, or None")

    def is_active(self, at: np.datetime64 | None) -> bool:
        """Whether the edit still counts at a time; None: at any."""
        return self.until is None or at is None or bool(at < self.until)


def apply_edits(
    forecast: Forecast,
    edits: Sequence[Edit],
    catalog: Catalog,
    at: np.datetime64 | None = None,
) -> Forecast:
    """Multiply category weights by the edits' factors and make them sum to 1 again.

    Locked categories get exactly their weight times the factor; the others share the rest in
    proportion. The words of the forecast stay what they were.

    Parameters
    ----------
    at
        Edits that ended at or before this time do nothing; None: none has ended.

    Raises
    ------
    ValueError
        If the forecast does not fit the catalog, a category is unknown, two active edits of one
        category differ, locked shares sum to more than 1, or nothing is left to share the rest.
    """
    if len(forecast.category_weights) != catalog.n_categories:
        raise ValueError(
            f"the forecast has {len(forecast.category_weights)} category weights, the catalog "
            f"{catalog.n_categories} categories: make the forecast with this catalog."
        )
    active = _active_by_category(edits, catalog, at)
    if not active:
        return forecast
    weights = forecast.category_weights.copy()
    locked = np.zeros(len(weights), dtype=np.bool_)
    for category, edit in active.items():
        weights[category] *= edit.factor
        locked[category] = edit.lock
    rest, free = 1 - weights[locked].sum(), weights[~locked].sum()
    named = ", ".join(repr(edit.category) for edit in active.values())
    if rest < -1e-12:
        raise ValueError(f"locked shares sum to {1 - rest:.6g} > 1: lower a factor of {named}.")
    if free > 0:
        weights[~locked] *= max(rest, 0) / free
    elif rest > 1e-6:
        raise ValueError(
            f"no category is left to share {rest:.3g} of the forecast: unmute or unlock one of "
            f"{named}."
        )
    return forecast.with_weights(weights)


def _active_by_category(
    edits: Sequence[Edit], catalog: Catalog, at: np.datetime64 | None
) -> dict[int, Edit]:
    position = {name: index for index, name in enumerate(catalog.categories)}
    active: dict[int, Edit] = {}
    for edit in edits:
        if edit.category not in position:
            near = get_close_matches(edit.category, catalog.categories, n=3, cutoff=0.5)
            raise ValueError(
                f"edit of an unknown category {edit.category[:80]!r}; near names: "
                f"{', '.join(near or catalog.categories[:3])}."
            )
        if not edit.is_active(at):
            continue
        other = active.setdefault(position[edit.category], edit)
        if (other.factor, other.lock) != (edit.factor, edit.lock):
            raise ValueError(
                f"two edits of {edit.category!r} contradict each other: {other} and {edit}. "
                "Keep one."
            )
    return active
