"""Ids of people and items: text, whatever they look like; what is no id is refused by its row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from llmrec.data.column_errors import naming_column
from llmrec.data.report import Finding
from llmrec.errors import DataError
from llmrec.types import BoolArray, IntArray

# What programs write for a missing value. "NA" is not among them: a film may be called so.
MISSING_WORDS = frozenset(
    (
        *("nan", "NaN", "NaT", "<NA>", "N/A", "n/a", "#N/A", r"\N"),
        *("None", "none", "null", "NULL", "(null)", "undefined"),
    )
)
MAX_COMPARED = 5_000  # names that are compared with an unknown one
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)(\.0+)?")
_GUARDED = re.compile(r'="(.*)"', re.DOTALL)  # keeps a spreadsheet from reading 00012 as a number
_SHORTENED = r"[1-9](?:[.,][0-9]+)?E\+[0-9]{2}"  # what one shows of a long number
# Neither is to be seen: signs without width, and spaces of any kind and number.
_WITHOUT_WIDTH = "[\u00ad\u200b-\u200f\u2060\ufeff]+"
_SPACES = "[ \t\r\n\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+"
_NOTABLE, _FEW = re.compile(f"{_WITHOUT_WIDTH}|{_SPACES}|{_SHORTENED}"), 1_000
# Kinds that pandas finds in a column of objects, of which every value is an id or missing.
_KINDS_OF_IDS = ("string", "integer", "empty")
_TOO_LARGE = "too large for a float to hold: read ids as text"


@dataclass(frozen=True)
class Ids:
    """A column of ids as numbers.

    Attributes
    ----------
    codes
        (n_rows,) 0..n-1 in the order of the ids' texts, so that row order cannot matter; -1 where
        an id is missing or empty.
    labels
        (n,) the ids.
    findings
        What of them was changed, and which are nearly the same.
    """

    codes: IntArray
    labels: pd.Index[str]
    findings: tuple[Finding, ...] = ()


def format_id(value: object) -> str:
    """Write an id as text: whole numbers without a decimal point, so that 7, 7.0 and "7" agree."""
    if isinstance(value, (float, np.floating, Decimal)) and math.isfinite(value) and value % 1 == 0:
        return str(int(value))
    return str(value)


def read_ids(column: pd.Series[Any], *, join_decimals: bool = True) -> Ids:
    """Read a column of ids.

    Text stays as it is: 007 and 7 are two people. Whole numbers that a missing value has made
    floats are whole again, and so are texts where a column of nothing but whole numbers has some
    with a decimal point (12.0); not without ``join_decimals``, where the column is a piece of one.

    Raises
    ------
    DataError
        If a value is no id: a boolean, bytes, a list, a time, infinity, half a character, or a
        number too large for a float to hold exactly. The message names column, row and value.
    """
    with naming_column(column.name):
        return _read_ids(_plain(column), join_decimals)


def _read_ids(column: pd.Series[Any], join_decimals: bool) -> Ids:
    _require_ids(column)
    codes, uniques = pd.factorize(column)
    strings = pd.Index([format_id(value) for value in uniques], dtype=object)
    _require_characters(column.name, codes, strings)
    texts, are_guarded = _take_off_guards(list(strings))
    none = np.zeros(len(texts), dtype=bool)
    whole, decimals = _join_decimals(texts) if join_decimals else (texts, none)
    is_missing = np.array([text.strip() == "" or text in MISSING_WORDS for text in whole], bool)
    again, labels = pd.factorize(pd.Index(whole, dtype="str").where(~is_missing), sort=True)
    ids = Ids(np.append(again, -1)[codes].astype(np.int64), pd.Index(labels, dtype="str"))
    changes = (
        (are_guarded, 'ids in column {!r} are read without the ="" around them'),
        (decimals, "whole numbers with a decimal point in column {!r} are read without it"),
    )
    findings = [
        _tell_change(column, ids, rule, np.append(changed, False)[codes])
        for changed, rule in changes
        if changed.any()
    ]
    return replace(ids, findings=(*findings, *_find_near_ids(column.name, ids)))


def _tell_change(column: pd.Series[Any], ids: Ids, rule: str, rows: BoolArray) -> Finding:
    """Tell of the (n_rows,) rows whose ids are read otherwise than they are written."""
    row = int(rows.argmax())
    read = ids.labels[ids.codes[row]] if ids.codes[row] >= 0 else "missing"
    example = f"row {row}: {column.iloc[row]!s} is {read}"
    return Finding(rule.format(column.name), int(rows.sum()), example, "changed")


def _find_near_ids(name: object, ids: Ids) -> list[Finding]:
    """Tell of ids that nobody can tell apart, and of those that may have been several."""
    if len(ids.labels) <= _FEW and not any(map(_NOTABLE.search, ids.labels)):
        return []  # as most often: the few ids of new events cost no column of pandas
    return [*_find_unseen(name, ids), *_find_shortened(name, ids)]


def _find_unseen(name: object, ids: Ids) -> list[Finding]:
    """Tell of ids that are others but for white space and invisible characters."""
    if not ids.labels.str.contains(f"{_WITHOUT_WIDTH}|{_SPACES}").any():
        return []
    visible = ids.labels.str.replace(_WITHOUT_WIDTH, "", regex=True)
    visible = visible.str.replace(_SPACES, " ", regex=True).str.strip()
    unseen = (visible != ids.labels) & visible.duplicated(keep=False)
    if not unseen.any():
        return []
    row, count = _first_row(ids, unseen)
    one = ids.codes[row]
    same = np.flatnonzero(visible == visible[one])
    other = same[same != one][0]
    rule = (
        f"only white space or invisible characters tell {int(unseen.sum()):,} of the ids in "
        f"column {name!r} from others, and they are ids of their own"
    )
    example = f"row {row}: {ids.labels[one]!r} beside {ids.labels[other]!r}"
    return [Finding(rule, count, example, "read")]


def _find_shortened(name: object, ids: Ids) -> list[Finding]:
    """Tell of ids such as 4.00639E+12, of which several ids may have become one."""
    short = np.asarray(ids.labels.str.fullmatch(_SHORTENED), dtype=bool)
    if not short.any():
        return []
    row, count = _first_row(ids, short)
    rule = (
        f"{int(short.sum()):,} of the ids in column {name!r} look like numbers that a spreadsheet "
        "shortened: ids that differ in later digits are one, so export them as text"
    )
    return [Finding(rule, count, f"row {row}: {ids.labels[ids.codes[row]]}", "read")]


def _first_row(ids: Ids, some: BoolArray) -> tuple[int, int]:
    """Give the first row of some of the (n,) ids, and how many rows have one."""
    rows = np.append(some, False)[ids.codes]
    return int(rows.argmax()), int(rows.sum())


def lookup_id(ids: pd.Index[str], wanted: object, what: str, titles: Sequence[str] = ()) -> int:
    """Look an id up, 12.0 also as 12; a DataError names near ids, and near ones of the titles."""
    text = format_id(wanted)
    found = find_id(ids, text)
    if found < 0 and (decimal := _WHOLE.fullmatch(text)) and decimal[1]:
        found = find_id(ids, text.partition(".")[0])
    if found < 0:
        near = near_names(ids, text, titles)
        raise DataError(
            f"{what} {text[:80]!r} is not known ({len(ids):,} {what}s; for example "
            f"{', '.join(repr(str(one)[:80]) for one in near)})."
        )
    return found


def near_names(ids: pd.Index[str], text: str, titles: Sequence[str] = ()) -> list[str]:
    """Give up to three ids, or titles, that look like a text; the first ids if none does."""
    from difflib import get_close_matches

    names = _with_common_start([*ids[:100_000], *titles[:100_000]], text)
    return get_close_matches(text, names, n=3, cutoff=0.5) or list(ids[:3])


def _with_common_start(names: list[str], text: str) -> list[str]:
    """Give the names that begin as a text does, if there are many; else all of them.

    To compare 100,000 takes most of a second, which anybody could ask a server for.
    """
    for length in range(1, len(text) + 1):
        if len(names) <= MAX_COMPARED:
            break
        names = [name for name in names if name.startswith(text[:length])] or names[:MAX_COMPARED]
    return names[:MAX_COMPARED]


def find_id(ids: pd.Index[str], text: str) -> int:
    """Give the place of an id among distinct ones; -1 if it is none of them."""
    try:
        place = ids.get_loc(text)
    except KeyError:
        return -1
    assert isinstance(place, int), "ids are distinct"
    return place


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """Give a column as objects, unless all that its dtype can hold are texts or numbers."""
    kind, dtype = pd.api.types, column.dtype
    held = dtype.categories.dtype if isinstance(dtype, pd.CategoricalDtype) else dtype
    is_text = isinstance(held, pd.api.extensions.ExtensionDtype) and kind.is_string_dtype(held)
    if is_text or kind.is_integer_dtype(held) or (held is dtype and kind.is_float_dtype(held)):
        return column
    return column.astype(object)


def _require_ids(column: pd.Series[Any]) -> None:
    """Raise a DataError for the first value of a column that can be no id."""
    kind = pd.api.types
    if kind.is_float_dtype(column.dtype):
        values = column.to_numpy(na_value=np.nan)
        for rows, what in (
            (np.isinf(values), "infinite"),
            (np.abs(values) >= _largest_exact(values.dtype), _TOO_LARGE),
        ):
            if rows.any():
                _refuse(column, int(rows.argmax()), what)
    if (
        kind.is_object_dtype(column.dtype)
        and kind.infer_dtype(column, skipna=True) not in _KINDS_OF_IDS
    ):
        for row, value in enumerate(column):
            if what := _what_is_wrong(value):
                _refuse(column, row, what)


def _largest_exact(dtype: Any) -> float:
    """Give the number from which on floats of a dtype do not hold every whole number."""
    return float(2.0 ** (np.finfo(dtype).nmant + 1))


def _what_is_wrong(value: object) -> str:
    """Say why a value is no id; "" if it is one, or missing."""
    if isinstance(value, (bool, np.bool_)):
        return "a boolean"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes: decode them to text"
    if isinstance(value, (float, np.floating, Decimal)):
        if math.isinf(value):
            return "infinite"
        is_exact = isinstance(value, Decimal)
        if not is_exact and abs(float(value)) >= _largest_exact(np.asarray(value).dtype):
            return _TOO_LARGE
        return ""
    if isinstance(value, (str, int, np.integer, UUID)):
        return ""
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    return f"of type {type(value).__name__}"


def _refuse(column: pd.Series[Any], row: int, what: str) -> None:
    raise DataError(
        f"column {column.name!r}, row {row}: {str(column.iloc[row])[:80]!r} is no id but {what}. "
        "Ids are texts or whole numbers."
    )


def _require_characters(name: object, codes: IntArray, strings: pd.Index[Any]) -> None:
    """Raise a DataError for the first id with half a character (a lone surrogate) in it."""
    try:
        "".join(strings).encode()
    except UnicodeEncodeError:
        broken = [code for code, text in enumerate(strings) if re.search("[\ud800-\udfff]", text)]
        row = int(np.isin(codes, broken).argmax())
        raise DataError(
            f"column {name!r}, row {row}: {ascii(strings[codes[row]])[:80]} has half a character "
            "in it (a lone surrogate): read the file in its own encoding."
        ) from None


def _take_off_guards(strings: list[str]) -> tuple[list[str], BoolArray]:
    """Take off ="" that a spreadsheet was to read ids as text by; and say which ids had it."""
    if not any(text.startswith('="') for text in strings):
        return strings, np.zeros(len(strings), dtype=bool)
    are_guarded = np.array([bool(_GUARDED.fullmatch(text)) for text in strings], dtype=bool)
    texts = [_GUARDED.sub(lambda one: one[1].replace('""', '"'), text) for text in strings]
    return texts, are_guarded


def _join_decimals(strings: Sequence[str]) -> tuple[list[str], BoolArray]:
    """Take .0 off where all ids are whole numbers; and say which ids had it."""
    has_point = np.array([text.endswith("0") and "." in text for text in strings], bool)
    if has_point.any():
        matches = [_WHOLE.fullmatch(text) for text in strings]
        if all(
            match or text.strip() == "" or text in MISSING_WORDS
            for match, text in zip(matches, strings, strict=True)
        ):
            return [text.partition(".")[0] for text in strings], has_point
    return list(strings), np.zeros(len(strings), dtype=bool)
