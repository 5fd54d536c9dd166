"""Edits of a forecast as data: more, less or nothing of a category."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from numbers import Real

import numpy as np
import numpy.typing as npt

from llmrec.data.calendar import to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.errors import DataError, EditError
from llmrec.forecast import Forecast

MAX_FACTOR = 100.0
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


@dataclass(frozen=True)
class Edit:
    """More, less or nothing of one category.

    Parameters
    ----------
    category
        Name of a category of the catalog.
    factor
        Multiplies the category's weight, in [0, 100]; 0 mutes it: its items come after all others.
    until
        From this time on the edit does nothing: "2018-03-01", a date or a datetime, stored as
        datetime64[ms]; None: it never ends.
    lock
        The category's share becomes exactly its forecast weight times the factor; otherwise the
        share also changes when the weights are rescaled to sum to 1.

    Raises
    ------
    EditError
        If the category is no name, the factor is no number or out of bounds, or ``until`` is no
        time.
    """

    category: str
    factor: float
    until: np.datetime64 | date | str | None = None
    lock: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.category, str):
            raise EditError(f"a category is edited by its name, not by {self.category!r}")
        if not (isinstance(self.factor, Real) and 0 <= self.factor <= MAX_FACTOR):
            raise EditError(
                f"edit of {self.category!r}: the factor must lie in 0..{MAX_FACTOR:g} "
                f"(0 mutes, 1 changes nothing), not {self.factor!r}"
            )
        if self.until is not None:
            try:
                object.__setattr__(self, "until", to_datetime64(self.until))
            except DataError as error:
                raise EditError(f"edit of {self.category!r}: until {error}") from error

    def is_active(self, at: np.datetime64 | None) -> bool:
        """Whether the edit is in force at a time; None: at any."""
        return self.until is None or at is None or bool(at < to_datetime64(self.until))


def apply_edits(
    forecast: Forecast,
    edits: Sequence[Edit],
    catalog: Catalog,
    at: np.datetime64 | None = None,
) -> Forecast:
    """Multiply category weights by the edits' factors and rescale them to sum to 1.

    Locked categories get exactly their weight times the factor; the others share the rest in
    proportion. The forecast's description and statements stay as they are.

    Parameters
    ----------
    at
        Edits that ended at or before this time do nothing; None: none has ended.

    Raises
    ------
    EditError
        If the forecast does not fit the catalog, a category is unknown, two active edits of one
        category differ, locked shares sum to more than 1, or nothing is left to share the rest.
    """
    if len(forecast.category_weights) != catalog.n_categories:
        raise EditError(
            f"the forecast has {len(forecast.category_weights)} category weights, the catalog "
            f"{catalog.n_categories} categories: make the forecast with this catalog."
        )
    active = active_edits(edits, catalog, at)
    if not active:
        return forecast
    weights = forecast.category_weights.copy()
    whole = weights.sum()  # 1 but for rounding: dividing just as much leaves the rest as it is
    locked = np.zeros(len(weights), dtype=np.bool_)
    for category, edit in active.items():
        weights[category] *= edit.factor
        locked[category] = edit.lock
    rest, free = whole - weights[locked].sum(), weights[~locked].sum()
    if rest < -1e-12:
        names = _quote_names(edit for edit in active.values() if edit.lock)
        raise EditError(f"locked shares sum to {whole - rest:.6g} > 1: lower a factor of {names}.")
    if free > 0:
        weights[~locked] = weights[~locked] / free * max(rest, 0)
    elif rest > 1e-6:
        raise EditError(
            f"no category is left to share {rest:.3g} of the forecast: unmute or unlock one of "
            f"{_quote_names(active.values())}."
        )
    return forecast.with_weights(weights)


def active_edits(
    edits: Sequence[Edit], catalog: Catalog, at: np.datetime64 | None = None
) -> dict[int, Edit]:
    """Give the edits that are in force at a time (None: any), by category index.

    Raises
    ------
    EditError
        If the argument is no list of edits, a category is unknown (the message has near names), or
        two active edits of a category differ.
    """
    if isinstance(edits, str | Edit) or not all(isinstance(edit, Edit) for edit in edits):
        raise EditError(
            f"edits are a list, such as [Edit('{catalog.categories[0]}', 2)], not "
            f"{str(edits)[:80]!r}; parse_edits(text, catalog, cutoff).edits parses text."
        )
    active: dict[int, Edit] = {}
    if not edits:
        return active
    index_of = {name: index for index, name in enumerate(catalog.categories)}
    for edit in edits:
        if edit.category not in index_of:
            near = get_close_matches(edit.category, catalog.categories, n=3, cutoff=0.5)
            raise EditError(
                f"edit of an unknown category {edit.category[:80]!r}; near names: "
                f"{', '.join(near or catalog.categories[:3])}."
            )
        if not edit.is_active(at):
            continue
        other = active.setdefault(index_of[edit.category], edit)
        if (other.factor, other.lock) != (edit.factor, edit.lock):
            raise EditError(
                f"two edits of {edit.category!r} contradict each other: "
                f"“{edit_sentence(other)}” and “{edit_sentence(edit)}” Keep one."
            )
    return active


def compose_edits(
    edits: Sequence[Edit],
    names: Sequence[str],
    factor: float,
    at: np.datetime64 | None = None,
) -> tuple[Edit, ...]:
    """Multiply categories by a factor on top of edits: one list that edits no category twice.

    An edit in force at the time (None: any) is multiplied, and keeps its lock and its end.
    EditError if a product is above 100.
    """
    edited = {edit.category for edit in edits if edit.is_active(at)}
    composed = (
        replace(edit, factor=edit.factor * factor)
        if edit.category in names and edit.is_active(at)
        else edit
        for edit in edits
    )
    return (*composed, *(Edit(name, factor) for name in names if name not in edited))


def muted_item_mask(
    edits: Sequence[Edit], catalog: Catalog, at: np.datetime64 | None = None
) -> npt.NDArray[np.bool_]:
    """(n_items,) whether each item has any share of a category that is muted at a time."""
    active = active_edits(edits, catalog, at) if edits else {}
    muted = [category for category, edit in active.items() if edit.factor == 0]
    if not muted:
        return np.zeros(catalog.n_items, dtype=np.bool_)
    return np.asarray(catalog.category_shares[:, muted].sum(axis=1) > 0)


def edit_sentence(edit: Edit, unmuted: Sequence[str] = (), quoted: bool = False) -> str:
    """Write an edit as a plain sentence.

    Parameters
    ----------
    unmuted
        If any: the sentence is instead that only these categories are not muted.
    quoted
        Put names in quotes.
    """
    names = list(unmuted or (edit.category,))
    if quoted:
        names = ['"' + name.replace('"', '""') + '"' for name in names]
    joined = " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
    end = "" if edit.until is None else f" until {_format_time(to_datetime64(edit.until))}"
    if unmuted:
        return f"Only {joined}{end}."
    if edit.lock and edit.factor == 1:
        return f"Keep {joined} as it is{end}."
    if edit.factor == 0 and not edit.lock:
        return f"No {joined}{end}."
    times = repr(float(edit.factor)).removesuffix(".0") + " times"
    amount = {2.0: "twice", 0.5: "half"}.get(edit.factor, times)
    sentence = f"{'exactly ' * edit.lock}{amount} as much {joined}{end}."
    return sentence[0].upper() + sentence[1:]


def _quote_names(edits: Iterable[Edit]) -> str:
    return ", ".join(repr(edit.category) for edit in edits)


def _format_time(time: np.datetime64) -> str:
    """Write a time in words if it is the start of a day."""
    date, _, clock = str(time.astype("datetime64[ms]")).partition("T")
    if clock != "00:00:00.000":
        return f"{date}T{clock}"
    year, month, day = date.split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"
