"""The people whom an engine is asked about: ids of its log, histories, or frames of events."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from llmrec.data.counts import batches_by_log
from llmrec.data.dataset import Dataset
from llmrec.data.history_keys import HistoryKey, history_key
from llmrec.data.ids import format_id
from llmrec.data.interactions import UNKNOWN_ITEM
from llmrec.data.periods import History
from llmrec.data.validation import is_frame
from llmrec.engine_config import EngineParts
from llmrec.errors import DataError
from llmrec.ranking.blend import Blend
from llmrec.ranking.blocks import people_blocks

SCORES_PER_BATCH = 20_000_000  # of all scorers, people and items together: 160 MB
NUMBERS_PER_CATEGORY = 12  # that a forecast with its statements has: two for each of their kinds


def find_histories(parts: EngineParts, users: Iterable[object]) -> list[History]:
    """Give the history of each user: as it is, looked up by id, or made of a frame.

    Raises
    ------
    DataError
        If an id is unknown, near ones are named; or a history or a frame cannot be used.
    """
    if isinstance(users, str) or is_frame(users):
        raise DataError("users are a list, such as [user]; of one person ask session(user)")
    users = list(users)
    ids = [user for user in users if not isinstance(user, History) and not is_frame(user)]
    places = [_user_index(parts, user) for user in ids]
    known = iter(parts.dataset.histories(parts.cutoff, places))
    return [_given_history(parts, user) or next(known) for user in users]


def find_batches(
    parts: EngineParts, users: Iterable[object], n_scorers: int = 0
) -> Iterator[tuple[list[int], list[History]]]:
    """Give the histories of users in batches of one population, each with its places.

    The scores of a batch by so many scorers are at most `SCORES_PER_BATCH`, and so are the numbers
    of its forecasts. No two people of a batch have one `history_key`, by which scores are stored,
    as frames without ids may. It raises as `find_histories` does.
    """
    histories, catalog = find_histories(parts, users), parts.dataset.catalog
    most = max(catalog.n_items * n_scorers, catalog.n_categories * NUMBERS_PER_CATEGORY)
    size = max(1, SCORES_PER_BATCH // most)
    for places in batches_by_log(histories, size):
        for batch in _without_equal_keys(places, histories):
            yield batch, [histories[place] for place in batch]


def _without_equal_keys(places: Sequence[int], histories: Sequence[History]) -> Iterator[list[int]]:
    """Divide places so that each part has a `history_key` once."""
    parts: list[list[int]] = []
    seen: Counter[HistoryKey] = Counter()
    for place in places:
        key = history_key(histories[place])
        if seen[key] == len(parts):
            parts.append([])
        parts[seen[key]].append(place)
        seen[key] += 1
    yield from parts


def precompute_by_block(blend: Blend, histories: Sequence[History]) -> Iterator[Blend]:
    """Give each history the blend with its scores, see `Blend.precompute`.

    The first block is scored at once, and each other one when its first blend is asked for.
    """
    n_items = histories[0].catalog.n_items if histories else 1
    blocks = people_blocks(len(histories), n_items, len(blend.scorers))
    parts = [histories[block] for block in blocks]
    first = [blend.precompute(part) for part in parts[:1]]

    def each() -> Iterator[Blend]:
        for place, part in enumerate(parts):
            scored = blend.precompute(part) if place else first.pop()
            yield from [scored] * len(part)

    return each()


def _user_index(parts: EngineParts, user_id: object) -> int:
    if format_id(user_id) in parts.later_users:
        raise DataError(
            f"user {str(user_id)[:80]!r} has no event before the cutoff {parts.cutoff}, and so "
            "no history yet: give a later cutoff."
        )
    return parts.dataset.log.user_index(user_id)


def _given_history(parts: EngineParts, user: object) -> History | None:
    if is_frame(user):
        return _history_of_frame(parts.dataset, user, parts.cutoff)
    if not isinstance(user, History):
        return None
    user = user.attach(parts.dataset.catalog, parts.dataset.everybody)
    if not user.catalog.item_ids.equals(parts.dataset.catalog.item_ids):
        raise DataError(f"the history of user {user.user_id!r} is of another catalog than this")
    return user


def _history_of_frame(dataset: Dataset, frame: Any, cutoff: np.datetime64) -> History:
    """Give the history of a person by their events; a warning counts those of unknown items.

    Events at or after the cutoff are left out; a frame without rows is of somebody without a past.
    """
    history = dataset.new_user_history(frame, cutoff, allow_empty=True)
    if unknown := history.log.report.dropped.get(UNKNOWN_ITEM, 0):
        warnings.warn(
            f"{unknown} of {len(frame)} events are of items that the engine does not know: they "
            "are left out",
            stacklevel=6,  # where the session was asked for
        )
    return history
