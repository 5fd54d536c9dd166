"""Logs of several platforms as one: people are matched by id, items and categories stay apart.

An item or category of the platform "drug" is called "drug: ..." in what is joined. Platforms are in
the order of their names, whatever the order in which they are given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.event_order import sort_events
from llmrec.data.interactions import Interactions
from llmrec.data.item_features import join_features
from llmrec.data.names import clean_text
from llmrec.data.report import CleaningReport, Finding
from llmrec.errors import DataError
from llmrec.types import FloatArray, IntArray

SEPARATOR = ": "  # between the name of a platform and what an item or category is called there
MAX_NAME_LENGTH = 30


@dataclass(frozen=True)
class Platforms:
    """Which items and categories of a joined catalog belong to which platform.

    Attributes
    ----------
    names
        (n_platforms,) in alphabetical order; empty where nothing was joined.
    item_offsets, category_offsets
        (n_platforms + 1,) those of platform ``p`` are ``offsets[p]:offsets[p + 1]``.
    """

    names: tuple[str, ...]
    item_offsets: tuple[int, ...]
    category_offsets: tuple[int, ...]

    @classmethod
    def of(cls, catalogs: Mapping[str, Catalog]) -> Platforms:
        """Count the items and categories of each platform's own catalog."""
        return cls(
            tuple(catalogs),
            _offsets([catalog.n_items for catalog in catalogs.values()]),
            _offsets([catalog.n_categories for catalog in catalogs.values()]),
        )

    def items(self, name: str) -> IntArray:
        """(n,) items of a platform, as `rank` takes candidates; DataError if there is none such."""
        return self._range(name, self.item_offsets)

    def categories(self, name: str) -> IntArray:
        """(n,) categories of a platform, see `Forecast.within`; DataError if there is none such."""
        return self._range(name, self.category_offsets)

    def position(self, name: str) -> int:
        """Place of a platform among the names; DataError if there is none such."""
        if name not in self.names:
            known = f"there is {', '.join(self.names)}" if self.names else "nothing was joined"
            raise DataError(f"no platform is called {name!r}: {known}.")
        return self.names.index(name)

    def _range(self, name: str, offsets: Sequence[int]) -> IntArray:
        place = self.position(name)
        return np.arange(offsets[place], offsets[place + 1], dtype=np.int64)


def join_catalogs(catalogs: Mapping[str, Catalog]) -> Catalog:
    """Give one catalog of several platforms' items; titles and features stay as they are.

    Items of a platform that lacks a block of features have none.

    Raises
    ------
    DataError
        If a block has another number of columns on another platform.
    """
    parts = catalogs.items()
    item_ids = [f"{name}{SEPARATOR}{item}" for name, part in parts for item in part.item_ids]
    categories = [f"{name}{SEPARATOR}{one}" for name, part in parts for one in part.categories]
    shares = sparse.block_diag([part.category_shares for _, part in parts], format="csr")
    rows = {name: part.n_items for name, part in parts}
    return Catalog(
        item_ids=pd.Index(item_ids, dtype="str"),
        titles=tuple(title for _, part in parts for title in part.titles),
        categories=tuple(categories),
        category_shares=sparse.csr_array(shares),
        report=CleaningReport(len(item_ids)),
        features=join_features({name: part.features for name, part in parts}, rows),
    )


def split_catalog(catalog: Catalog, names: Sequence[str]) -> dict[str, Catalog]:
    """Give the platforms' own catalogs of one that `join_catalogs` made of them.

    Raises
    ------
    DataError
        If an item or a category is of none of these platforms, or those of one are not together.
    """
    found, end, n_categories = {}, 0, 0
    for name in names:
        start = f"{name}{SEPARATOR}"
        items = np.flatnonzero(catalog.item_ids.str.startswith(start))
        own = own_names(name, catalog.categories)
        categories = np.arange(n_categories, n_categories + len(own))
        together = np.array_equal(items, np.arange(end, end + len(items)))
        if not together or own_names(name, [catalog.categories[c] for c in categories]) != own:
            raise DataError(
                f"the items or categories of platform {name!r} are not together in the catalog."
            )
        blocks = {block: matrix[items] for block, matrix in catalog.features.items()}
        found[name] = Catalog(
            item_ids=catalog.item_ids[items].str.removeprefix(start),
            titles=catalog.titles[end : end + len(items)],
            categories=tuple(own),
            category_shares=catalog.category_shares[items][:, categories],
            report=CleaningReport(len(items)),
            features={block: rows for block, rows in blocks.items() if not np.isnan(rows).all()},
        )
        end, n_categories = end + len(items), n_categories + len(own)
    if names and (end, n_categories) != catalog.category_shares.shape:
        raise DataError(f"the catalog has items or categories beside those of {', '.join(names)}.")
    return found


def join_logs(logs: Mapping[str, Interactions], catalog: Catalog) -> Interactions:
    """Give one log of several platforms' events.

    A person's events of one time are in the order of the platforms, and those of one platform stay
    in their order.

    Parameters
    ----------
    logs
        Each aligned with its platform's own catalog.
    catalog
        The `join_catalogs` of these.
    """
    parts = list(logs.values())
    user_ids = pd.Index(sorted({user for part in parts for user in part.user_ids}), dtype="str")
    users = np.concatenate([user_ids.get_indexer(part.user_ids)[part.user_idx] for part in parts])
    first = _offsets([len(part.item_ids) for part in parts])
    items = np.concatenate([part.item_idx + n for part, n in zip(parts, first, strict=False)])
    times = np.concatenate([part.timestamp for part in parts])
    ratings = np.concatenate([_ratings(part) for part in parts])
    order = sort_events(users, times, np.arange(len(times)))
    days = {part.day_first for part in parts}
    return Interactions(
        user_ids=user_ids,
        item_ids=catalog.item_ids,
        user_offsets=np.concatenate(([0], np.cumsum(np.bincount(users)))),
        item_idx=items[order].astype(np.int64),
        timestamp=times[order],
        source_row=np.arange(len(times)),
        rating=None if np.isnan(ratings).all() else ratings[order],
        report=CleaningReport(len(times)),
        day_first=days.pop() if len(days) == 1 else None,
        left_out={
            f"{name}{SEPARATOR}{reason}": ids
            for name, part in logs.items()
            for reason, ids in part.left_out.items()
        },
    )


def log_of_platform(log: Interactions, platforms: Platforms, name: str) -> Interactions:
    """Give the events of one platform in a joined log, with indices into its own catalog.

    Raises
    ------
    DataError
        If there is no such platform, or no event of it.
    """
    items = platforms.items(name)
    elsewhere = ~np.isin(log.item_idx, items)
    own = log.drop_events({f"not of platform {name!r}": elsewhere})
    has_ratings = own.rating is not None and not np.isnan(own.rating).all()
    return replace(
        own,
        item_ids=log.item_ids[items],
        item_idx=own.item_idx - items[0],
        source_row=np.arange(len(own)),
        rating=own.rating if has_ratings else None,
        report=CleaningReport(len(own)),
    )


def require_names(names: Sequence[object]) -> None:
    """Raise a DataError for names that items cannot be called by, or for fewer than two."""
    if len(names) < 2:
        raise DataError(f"{len(names)} platforms cannot be joined: give at least two, by name.")
    found: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"the name of a platform is {name!r}: give a text that is not empty.")
        if SEPARATOR.strip() in name:
            raise DataError(
                f"the name of platform {name!r} contains {SEPARATOR.strip()!r}, which stands "
                "between a platform and its items: choose a name without it."
            )
        if name != clean_text(name, MAX_NAME_LENGTH):
            raise DataError(
                f"the name of platform {name[:80]!r} is too long or has invisible characters: "
                f"choose one of at most {MAX_NAME_LENGTH} characters."
            )
        if (same := found.setdefault(name.casefold(), name)) != name:
            raise DataError(f"platforms {same!r} and {name!r} have one name: tell them apart.")


def require_same(what: str, values: Mapping[str, object]) -> None:
    """Raise a DataError, naming two platforms, unless all values are equal."""
    (first, value), *others = values.items()
    for other, theirs in others:
        if theirs != value:
            raise DataError(
                f"{what} is {value!s} on {first!r} and {theirs!s} on {other!r}: give all platforms "
                "the same before they are joined."
            )


def require_logs(sizes: Mapping[str, int]) -> None:
    """Raise a DataError for a platform without a log: what everybody took is not enough."""
    if empty := [name for name, n_events in sizes.items() if not n_events]:
        raise DataError(
            f"platform {empty[0]!r} holds no log of its people: give the dataset with the events."
        )


@contextmanager
def name_platform(name: str) -> Iterator[None]:
    """Say in a DataError which platform it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"platform {name!r}: {error}") from error


def own_names(platform: str, names: Collection[str]) -> list[str]:
    """Give what the categories of one platform among these names are called there."""
    start = f"{platform}{SEPARATOR}"
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def join_findings(findings: Mapping[str, Sequence[Finding]]) -> tuple[Finding, ...]:
    """Give the findings of all platforms, each with its platform's name before the rule."""
    return tuple(
        replace(one, rule=f"{name}{SEPARATOR}{one.rule}")
        for name, found in findings.items()
        for one in found
    )


def count_common_people(logs: Mapping[str, Interactions]) -> tuple[Finding, ...]:
    """Tell how many people each two platforms share, and how many events they have there.

    Raises
    ------
    DataError
        If somebody of a platform is on no other.
    """
    findings, shared = [], dict.fromkeys(logs, 0)
    for one, other in combinations(logs, 2):
        own, theirs = logs[one], logs[other]
        common = own.user_ids.intersection(theirs.user_ids)
        events = sum(int(log.user_ids.isin(common)[log.user_idx].sum()) for log in (own, theirs))
        rule = f"{len(common):,} people are on both {one!r} and {other!r}"
        example = f"such as {common.min()!r}" if len(common) else ""
        findings.append(Finding(rule, events, example, "read"))
        for name in (one, other):
            shared[name] += len(common)
    for name, n in shared.items():
        if not n:
            other = next(one for one in logs if one != name)
            mine, foreign = logs[name].user_ids[0], logs[other].user_ids[0]
            raise DataError(
                f"platform {name!r} has no person in common with another: people are called such "
                f"as {mine[:80]!r} there, and {foreign[:80]!r} on {other!r}. Write their ids alike."
            )
    return tuple(findings)


def common_word(words: Sequence[str], otherwise: str) -> str:
    """Give the word that all platforms use, or else another one."""
    return words[0] if len(set(words)) == 1 else otherwise


def _ratings(log: Interactions) -> FloatArray:
    return np.full(len(log), np.nan) if log.rating is None else log.rating


def _offsets(sizes: Sequence[int]) -> tuple[int, ...]:
    return (0, *np.cumsum(sizes).tolist())
