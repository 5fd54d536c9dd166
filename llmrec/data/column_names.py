"""Columns that are called otherwise than ours: by a given name, or by a usual one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from llmrec.data.report import Finding
from llmrec.data.tables import TableReader
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    RATING,
    SHORT_NAMES,
    TIMESTAMP,
    TITLE,
    USER_ID,
    require_columns,
)
from llmrec.errors import DataError

# Usual names of columns by ours, in letters and digits alone. The first text with one counts: a
# column user_id beside a column customer is the one that is meant.
_USUAL_NAMES = {
    USER_ID: (
        "userid user customerid visitorid reviewerid userpseudoid memberid",
        "customer visitor reviewer clientid",
    ),
    ITEM_ID: (
        "itemid item productid articleid movieid bookid businessid parentasin songid trackid",
        "asin product sku isbn",
    ),
    TIMESTAMP: (
        "timestamp time datetime date eventtime createdat eventtimestamp unixreviewtime",
        "ts tdat eventdate purchasedate orderdate reviewtime createdon",
    ),
    RATING: ("rating",),
    TITLE: ("title name itemname productname",),
    CATEGORIES: (
        "categories category genres genre",
        "categoryname genrelist itemcategory productcategory categorycode",
        "categoryid",
    ),
}
_OPTIONAL = (RATING, TITLE)


def match_columns(
    frame: pd.DataFrame, ours: Sequence[str], given: Mapping[str, str], reader: TableReader
) -> dict[str, str]:
    """Give our names of columns with the frame's: those given, and usual ones where ours lack.

    A given name counts where the frame has it, or lacks ours: an item may be called sku in events
    and item_id in items. A usual name counts if just one column has one, and is reported. DataError
    if a column that is read is there twice, or two may be the one that is needed.
    """
    found = {
        name: given[name]
        for name in ours
        if name in given and (given[name] in frame or name not in frame)
    }
    taken = set(found.values())
    for name in ours:
        if name in found or name in frame.columns:
            continue
        usual = _find_usual(frame, name, taken)
        if len(usual) > 1 and name not in _OPTIONAL:
            short = SHORT_NAMES[name]
            raise DataError(
                f"columns {usual[0]!r} and {usual[1]!r} may both be {name}: say which, "
                f"columns={{{name!r}: {usual[0]!r}}}, or --columns {short}={usual[0]}."
            )
        if len(usual) == 1:
            found[name] = usual[0]
            rule = f"column {usual[0]!r} is read as {name}"
            said = Finding(rule, len(frame), "", "read")
            if said not in reader.findings:
                reader.findings.append(said)
    names = {name: found.get(name, name) for name in ours}
    require_columns(frame, {name: column for name, column in names.items() if column in frame})
    return found


def _find_usual(frame: pd.DataFrame, name: str, taken: set[str]) -> list[str]:
    """Name the columns that have a usual name of ours, but those of lesser ones."""
    free = {str(column): None for column in frame.columns if column not in taken}
    for usual in _USUAL_NAMES[name]:
        if found := [column for column in free if _letters(column) in usual.split()]:
            return found
    return []


def _letters(column: str) -> str:
    return re.sub(r"[^a-z0-9]", "", column.lower())
