"""Windows whose histories differ from the real ones in one respect, for audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from llmrec.data.catalog import CATEGORY_LENGTH, Catalog, clean_text
from llmrec.data.periods import History, Window
from llmrec.errors import DataError


def shuffled(windows: Sequence[Window], seed: int = 0) -> list[Window]:
    """Deal each history's events over its own slots at random.

    A slot keeps its time and period, so a period keeps its number of events; which item (and
    rating) it holds is drawn. The log is a new one; what lies at or after a user's cutoff is as it
    was. The mix of what everybody took in a period, which counting falls back on, moves with it
    (its season goes), and so does what was taken up to a time where users are cut at different
    times: read a change beside that of the mean, which knows no order of its own.

    Raises
    ------
    DataError
        If a user has two windows (what is history in one may be target in the other), or windows
        are of different logs.
    """
    if not windows:
        return []
    log = windows[0].history.log
    users = {window.history.user_idx for window in windows}
    if len(users) < len(windows) or any(window.history.log is not log for window in windows):
        raise DataError(
            f"{len(windows)} windows of {len(users)} users: a shuffled log needs one window a "
            "user, all of one log. Shuffle the windows of each split apart."
        )
    order = np.arange(len(log))
    for window in windows:
        ids = window.history.event_ids
        rng = np.random.default_rng((seed, window.history.user_idx))
        order[ids.start : ids.stop] = rng.permutation(order[ids.start : ids.stop])
    mixed = replace(
        log,
        item_idx=log.item_idx[order],
        source_row=log.source_row[order],
        rating=None if log.rating is None else log.rating[order],
    )
    return [
        Window(replace(window.history, log=mixed), replace(window.target, log=mixed))
        for window in windows
    ]


def truncated(windows: Sequence[Window], n: int) -> list[Window]:
    """Leave the newest n events of each history; 0 leaves a user of whom nothing is known.

    Calendar periods stay, emptied; periods of events go with their events. The log stays whole, so
    the events cut off still count in what everybody took. DataError if n < 0.
    """
    if n < 0:
        raise DataError(f"n={n}: a history cannot have fewer than 0 events.")
    return [replace(window, history=_newest(window.history, n)) for window in windows]


def renamed(
    windows: Sequence[Window], names: Mapping[str, str] | None = None, seed: int = 0
) -> list[Window]:
    """Give categories other names; their order and what they hold stay.

    Parameters
    ----------
    names
        Name to new name, for those that change. None: all become "group 01", "group 02", ..., the
        numbers drawn at random.

    Raises
    ------
    DataError
        If a name is no category, or two categories would have the same name.
    """
    if not windows:
        return []
    catalog = windows[0].history.catalog
    if names is None:
        found = _numbered("group", catalog.n_categories, 2, seed)
    else:
        if unknown := sorted(set(names) - set(catalog.categories)):
            raise DataError(f"{unknown[0]!r} is no category of this catalog.")
        found = tuple(
            clean_text(names.get(category, category), CATEGORY_LENGTH)
            for category in catalog.categories
        )
    if twice := sorted({name for name in found if found.count(name) > 1 or not name}):
        raise DataError(f"categories must have names of their own; {twice[0]!r} is not one.")
    return _with_catalog(windows, replace(catalog, categories=found))


def anonymised(windows: Sequence[Window], seed: int = 0) -> list[Window]:
    """Call the items "item 0001", "item 0002", ..., the numbers drawn at random."""
    if not windows:
        return []
    catalog = windows[0].history.catalog
    titles = _numbered("item", catalog.n_items, 4, seed)
    return _with_catalog(windows, replace(catalog, titles=titles))


def _newest(history: History, n: int) -> History:
    offsets = np.maximum(history.offsets, history.offsets[-1] - n)
    if history.length.unit != "events":
        return replace(history, offsets=offsets)
    filled = np.flatnonzero(np.diff(offsets))
    if not len(filled):
        # Somebody without events has one empty period, which starts and ends at the cutoff.
        return replace(history, offsets=offsets[-2:], bounds=np.repeat(history.bounds[-1:], 2))
    offsets = offsets[filled[0] :]
    bounds = np.append(history.log.timestamp[offsets[:-1]], history.bounds[-1])
    return replace(history, offsets=offsets, bounds=bounds)


def _numbered(word: str, n: int, width: int, seed: int) -> tuple[str, ...]:
    """(n,) the word with numbers from 1 on, of equal width and in random order."""
    width = max(width, len(str(n)))
    numbers = np.random.default_rng(seed).permutation(n) + 1
    return tuple(f"{word} {number:0{width}d}" for number in numbers.tolist())


def _with_catalog(windows: Sequence[Window], catalog: Catalog) -> list[Window]:
    return [
        Window(replace(window.history, catalog=catalog), replace(window.target, catalog=catalog))
        for window in windows
    ]
