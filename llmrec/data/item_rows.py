"""What several rows say of one item: one title and one set of categories each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.column_errors import naming_column
from llmrec.data.ids import read_ids
from llmrec.data.names import clean_text, clean_title, spell_names, split_names, undo_entities
from llmrec.data.report import Finding
from llmrec.types import BoolArray, IntArray

_CONFLICT = "rows of one item differ in their {}: the most frequent counts, then the latest"
_JOINED = "categories in column {!r} that are the same in plain characters (NFKC) are one"
_ENTITIES = "entities of HTML in column {!r} are undone"


@dataclass(frozen=True)
class Items:
    """Items in the order in which a table first names them.

    Attributes
    ----------
    ids, titles, names
        (n_items,) ids, cleaned titles ("" without one), and tuples of category names.
    missing
        (n_rows,) the rows without an id.
    findings
        What was changed, and where rows of one item differ.
    """

    ids: pd.Index[str]
    titles: list[str]
    names: list[tuple[str, ...]]
    missing: BoolArray
    findings: tuple[Finding, ...]


def merge_item_rows(
    ids: pd.Series[Any],
    titles: pd.Series[Any] | None,
    categories: pd.Series[Any],
    separator: str | None,
    times: pd.Series[Any] | None = None,
) -> Items:
    """Give each item the title and the categories that most of its rows have, or the latest.

    Rows that are empty there do not count. ``times`` tell which row is the latest; without them it
    is the last one. Columns have the same index, 0..n_rows-1.
    """
    found = read_ids(ids)
    missing = found.codes < 0
    item, order = pd.factorize(found.codes[~missing])
    latest = np.arange(len(ids)) if times is None else times.to_numpy("datetime64[ms]").view(int)
    rows = _Rows(item, np.asarray(latest)[~missing], found.labels[order])
    findings = list(found.findings)
    chosen_titles: list[Any] = [""] * len(order)
    if titles is not None:
        chosen_titles = rows.choose(titles[~missing], clean_title, "titles", findings)
    spellings: dict[str, set[str]] = {}

    def clean_names(value: Any) -> tuple[str, ...]:
        spelled = list(spell_names(value, separator))
        for name, written in spelled:
            spellings.setdefault(name, set()).add(written)
        return tuple(sorted({name for name, _ in spelled}))

    chosen_names = rows.choose(categories[~missing], clean_names, "categories", findings)
    findings += _find_joined_names(categories[~missing], separator, spellings)
    names = [value or () for value in chosen_names]
    return Items(found.labels[order], chosen_titles, names, missing, tuple(findings))


def _find_joined_names(
    column: pd.Series[Any], separator: str | None, spellings: Mapping[str, set[str]]
) -> list[Finding]:
    """Tell of category names that differ as they are written, and are one once cleaned."""
    joined = {name: sorted(written) for name, written in spellings.items() if len(written) > 1}
    if not joined:
        return []
    rows = [any(name in joined for name in split_names(value, separator)) for value in column]
    name = min(joined)
    first, second = (repr(written)[:80] for written in joined[name][:2])
    example = f"{first} and {second} are {name!r}"
    return [Finding(_JOINED.format(column.name), sum(rows), example, "changed")]


@dataclass(frozen=True)
class _Rows:
    """(n_rows,) items of rows, and how late each is; (n_items,) ids for messages."""

    items: IntArray
    latest: IntArray
    ids: pd.Index[str]

    def choose(
        self,
        column: pd.Series[Any],
        clean: Callable[[Any], Any],
        what: str,
        findings: list[Finding],
    ) -> list[Any]:
        """Give each item the value that most of its rows have; "" or () where none has one."""
        with naming_column(column.name):
            cleaned = _clean_once(column, clean)
        name = str(column.name)
        if rows := int(cleaned.has_entities[cleaned.raw].sum()):
            row = int(cleaned.has_entities[cleaned.raw].argmax())
            example = clean_text(column.iloc[row], 80)
            findings.append(Finding(_ENTITIES.format(name), rows, example, "changed"))
        chosen = self._most_frequent(cleaned.codes, len(cleaned.values))
        differs = (cleaned.codes >= 0) & (cleaned.codes != chosen[self.items])
        if differs.any():
            row = int(differs.argmax())
            item = self.items[row]
            theirs, ours = cleaned.values[cleaned.codes[row]], cleaned.values[chosen[item]]
            example = f"item {self.ids[item]!r}: {_show(ours)} counts, not {_show(theirs)}"
            rule = _CONFLICT.format(what)
            findings.append(Finding(rule, int(differs.sum()), example, "changed"))
        empty = clean(None)
        return [cleaned.values[code] if code >= 0 else empty for code in chosen]

    def _most_frequent(self, values: IntArray, n_values: int) -> IntArray:
        """(n_items,) the value that most rows of an item have, or the latest; -1 if none has one.

        Of values as frequent and as late the first is taken.
        """
        chosen = np.full(len(self.ids), -1)
        some = values >= 0
        pairs, keys = pd.factorize(self.items[some] * n_values + values[some])
        counts, latest = np.bincount(pairs), np.full(len(keys), np.iinfo(np.int64).min)
        np.maximum.at(latest, pairs, self.latest[some])
        item, value = keys // max(n_values, 1), keys % max(n_values, 1)
        best = np.lexsort((-value, latest, counts))  # the last one of an item is assigned last
        chosen[item[best]] = value[best]
        return chosen


@dataclass(frozen=True)
class _Cleaned:
    """A column cleaned once a distinct value.

    ``codes`` (n_rows,) point into the sorted cleaned ``values``, -1 where there is none;
    ``raw`` (n_rows,) point into the distinct values as they were, of which some have entities.
    """

    codes: IntArray
    values: list[Any]
    raw: IntArray
    has_entities: BoolArray


def _clean_once(column: pd.Series[Any], clean: Callable[[Any], Any]) -> _Cleaned:
    keys = column.map(hashable) if has_lists(column) else column
    raw, uniques = pd.factorize(keys)
    cleaned = [clean(value.value if isinstance(value, _Boxed) else value) for value in uniques]
    values = sorted({value for value in cleaned if value})
    place = {value: code for code, value in enumerate(values)}
    codes = np.array([place.get(value, -1) for value in cleaned] + [-1], dtype=np.int64)[raw]
    texts = [str(value.value if isinstance(value, _Boxed) else value) for value in uniques]
    has_entities = np.array([undo_entities(text) != text for text in texts] + [False], dtype=bool)
    return _Cleaned(codes, values, np.asarray(raw, dtype=np.int64), has_entities)


@dataclass(frozen=True)
class _Boxed:
    """A list or mapping with a key that can be hashed."""

    key: str
    value: Any

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Boxed) and self.key == other.key


def has_lists(column: pd.Series[Any]) -> bool:
    """Whether a column may hold values that cannot be hashed."""
    if not pd.api.types.is_object_dtype(column.dtype):
        return not isinstance(column.dtype, pd.StringDtype) and column.dtype.kind == "O"
    return pd.api.types.infer_dtype(column, skipna=True) != "string"


def hashable(value: Any) -> Any:
    """Give a value that equals only equal ones and can be hashed; texts and numbers as they are."""
    if isinstance(value, np.ndarray):
        value = value.tolist()  # numpy shortens what it writes of long arrays
    return value if isinstance(value, (str, float, int)) else _Boxed(repr(value), value)


def _show(value: str | Sequence[str]) -> str:
    return repr(value if isinstance(value, str) else "|".join(value))[:80]
