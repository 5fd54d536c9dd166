"""Headers: rows that repeat one, as in files put end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from llmrec.errors import DataError
from llmrec.types import BoolArray

_MARK = "\ufeff"  # begins a file, and stays in the middle of files put end to end


def repeated_headers(table: pd.DataFrame) -> BoolArray:
    """(n_rows,) whether a row has the names of the columns, in their order.

    Raises
    ------
    DataError
        If a row has them in another order: what follows it would be read as other columns.
    """
    again = np.zeros(len(table), dtype=bool)
    names = list(table.columns)
    if not len(table) or not all(_is_text(table.iloc[:, place]) for place in range(len(names))):
        return again  # a column of numbers or times holds no header
    first = table.iloc[:, 0]
    possible = [
        text.format(name) for name in names for text in ("{}", _MARK + "{}", _MARK + '"{}"')
    ]
    for place in map(int, np.flatnonzero(first.isin(possible).to_numpy())):
        row = [_as_name(value) for value in table.iloc[place]]
        again[place] = row == names
        if row != names and sorted(row) == sorted(names):
            raise DataError(
                f"row {table.index[place]} names the columns in another order ({', '.join(row)}) "
                f"than the first line ({', '.join(names)}): give these files one by one in a "
                "folder, or put their columns in one order."
            )
    return again


def _as_name(value: object) -> str:
    text = value if isinstance(value, str) else ""  # a header may end in a separator
    text = text.removeprefix(_MARK).strip('"') if text.startswith(_MARK) else text
    return " ".join(text.split())


def _is_text(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)
