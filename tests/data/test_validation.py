from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from datasets import Dataset as HubDataset

from llmrec.data.validation import is_frame, require_columns, to_float, to_pandas
from llmrec.errors import DataError


def floats(values: Any) -> list[float]:
    return to_float(pd.Series(values, name="rating")).tolist()


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, HubDataset.from_dict])
def test_pandas_polars_and_hub_tables_are_frames(kind: Any) -> None:
    table = kind({"user_id": ["a"]})
    assert is_frame(table)
    assert to_pandas(table)["user_id"].tolist() == ["a"]


def test_something_else_is_no_frame() -> None:
    assert not is_frame([("a",)])
    with pytest.raises(DataError, match=r"expected a pandas or polars frame.*list"):
        to_pandas([("a",)])


def test_a_column_that_is_missing_or_there_twice_is_named_with_the_way_out() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["who", "when", "when"])
    with pytest.raises(DataError, match=r"'user_id' is missing \(columns found: who, when, when\)"):
        require_columns(frame, {"user_id": "user_id"})
    with pytest.raises(DataError, match=r"'when' is there more than once .*Rename one of them"):
        require_columns(frame, {"timestamp": "when"})
    with pytest.raises(DataError, match=r"\(columns found: none\)"):
        require_columns(pd.DataFrame(), {"user_id": "user_id"})


def test_missing_numbers_are_nan() -> None:
    expected = [4.0, np.nan, 3.5]
    for values in ([4, None, 3.5], ["4", "", "3.5"], ["4", "NaN", " 3.5 "], ["4", None, "3,5"]):
        np.testing.assert_equal(floats(values), expected)
    np.testing.assert_equal(floats(pd.array([4, None], dtype="Int64")), [4, np.nan])


def test_the_comma_is_the_decimal_one_where_there_is_no_point() -> None:
    assert floats(["4,5", "3"]) == [4.5, 3]
    for values in (["4,5", "1.000"], ["1,000,000", "4,5"]):
        with pytest.raises(DataError, match=r"column 'rating', row 0: '.*,.*' is not a number"):
            floats(values)


def test_what_is_no_number_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match="column 'rating', row 1: 'good' is not a number"):
        floats([3, "good"])
