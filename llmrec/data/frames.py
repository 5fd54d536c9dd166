"""What is true of every frame that comes in: its kind, its columns, its ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.contracts import IntArray
from llmrec.errors import DataError

USER_ID, ITEM_ID, TIMESTAMP, RATING = "user_id", "item_id", "timestamp", "rating"
TITLE, CATEGORIES = "title", "categories"


def as_pandas(frame: Any) -> pd.DataFrame:
    """Give a pandas frame for a pandas or polars frame or a ``datasets.Dataset``."""
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(frame, "to_pandas"):
        return pd.DataFrame(frame.to_pandas())
    raise DataError(f"expected a pandas or polars frame or a datasets.Dataset, not {type(frame)}")


def require_columns(frame: pd.DataFrame, needed: Mapping[str, str]) -> None:
    """Raise a DataError if a needed column is missing or there twice.

    ``needed`` maps our name of a column to the frame's.
    """
    for ours, theirs in needed.items():
        found = int((frame.columns == theirs).sum())
        if found != 1:
            have = ", ".join(map(str, frame.columns)) or "none"
            raise DataError(
                f"column {theirs!r} is {'missing' if not found else 'there more than once'} "
                f"(columns found: {have[:500]}). Rename it, or map it: "
                f"columns={{{ours!r}: 'its name'}}."
            )


def id_string(value: object) -> str:
    """Write an id as text: whole numbers without a decimal point, so that 7, 7.0 and "7" agree."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        return str(int(value))
    return str(value)


def index_of(ids: pd.Index[str], wanted: object, what: str, titles: Sequence[str] = ()) -> int:
    """Look an id up; a DataError names near ids, and near ones of the titles."""
    from difflib import get_close_matches

    found = int(ids.get_indexer(pd.Index([str(wanted)]))[0])
    if found < 0:
        names = [*ids[:100_000], *titles[:100_000]]
        near = get_close_matches(str(wanted), names, n=3, cutoff=0.5) or list(ids[:3])
        raise DataError(
            f"{what} {str(wanted)[:80]!r} is not known ({len(ids):,} {what}s; for example "
            f"{', '.join(repr(str(one)[:80]) for one in near)})."
        )
    return found


def numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """(n_rows,) numbers, missing ones NaN; DataError names the first row that is none."""
    found = pd.to_numeric(column, errors="coerce")
    unread = (found.isna() & column.notna()).to_numpy()
    if unread.any():
        row = int(unread.argmax())
        raise DataError(
            f"column {column.name!r}, row {row}: {str(column.iloc[row])[:80]!r} is not a number. "
            "Correct it, or drop the column."
        )
    return found.to_numpy(np.float64, na_value=np.nan)


def index_by_string(column: pd.Series[Any]) -> tuple[IntArray, pd.Index[str]]:
    """Give (n_rows,) ids as numbers 0..n-1 in the order of their strings, and the strings.

    So row order cannot matter. Missing and empty ids are -1.
    """
    try:
        codes, uniques = pd.factorize(column)
    except TypeError as error:
        raise DataError(f"column {column.name!r} holds lists or objects, not ids.") from error
    strings = pd.Index([id_string(value) for value in uniques], dtype="str")
    again, labels = pd.factorize(strings.where(strings.str.strip() != ""), sort=True)
    return np.append(again, -1)[codes].astype(np.int64), pd.Index(labels, dtype="str")
