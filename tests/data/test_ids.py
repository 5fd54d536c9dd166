from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.ids import MISSING_WORDS, format_id, lookup_id, near_names, read_ids
from llmrec.data.interactions import Interactions
from llmrec.data.tables import TableReader
from llmrec.errors import DataError


def read(values: Any, dtype: Any = None) -> list[str | None]:
    column = values if isinstance(values, pd.Series) else pd.Series(values, dtype=dtype)
    ids = read_ids(column.rename("user_id"))
    return [None if code < 0 else ids.labels[code] for code in ids.codes]


def refuse(values: Any, row: int, why: str, dtype: Any = object) -> None:
    with pytest.raises(DataError, match=rf"column 'user_id', row {row}: .*{why}"):
        read(values, dtype)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda text: text.strip() != ""
)


@settings(max_examples=50)
@given(st.lists(TEXTS.filter(lambda text: not text.endswith("0")), min_size=1))
def test_text_stays_text_whatever_it_looks_like(texts: list[str]) -> None:
    texts = [text for text in texts if text not in MISSING_WORDS]
    assert read(texts, object) == texts


def test_texts_that_mean_the_same_number_are_different_ids() -> None:
    texts = ["007", "07", "7", "1e5", "100000", "\u0667", "+7", "7.", "1,000", "true", "inf", " 7"]
    assert read(texts) == texts


@settings(max_examples=25)
@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1), st.randoms())
def test_whole_numbers_are_the_same_ids_in_every_dtype(numbers: list[int], random: Any) -> None:
    expected = [str(number) for number in numbers]
    dtypes = ["int64", "Int64", "float64", "Float64", "int64[pyarrow]", "str", "category", object]
    assert read(numbers, random.choice(dtypes)) == expected


@pytest.mark.parametrize("dtype", ["float64", "Float64", "Int64", object, "double[pyarrow]"])
def test_a_missing_id_makes_no_fraction_of_the_others(dtype: str) -> None:
    assert read([12, None, 13], dtype) == ["12", None, "13"]


def test_ids_of_nineteen_digits_stay_apart_beside_a_missing_one() -> None:
    large = [2**62 + 1, 2**62, None]
    assert read(large, "Int64") == read(large, object) == [str(2**62 + 1), str(2**62), None]


def test_point_zero_goes_where_all_ids_are_whole_numbers_and_is_told() -> None:
    ids = read_ids(pd.Series(["13", "12.0", "12"], name="user_id"))
    assert ids.labels[ids.codes].tolist() == ["13", "12", "12"]
    (finding,) = ids.findings
    assert (finding.rows, finding.example, finding.effect) == (1, "row 1: 12.0 is 12", "changed")


@pytest.mark.parametrize("other", ["u\u200b1", "u1\ufeff", "u1\u00a0", "\u202fu1"])
def test_ids_that_differ_by_invisible_characters_only_stay_apart_and_are_told(other: str) -> None:
    ids = read_ids(pd.Series(["u1", other, "u2"], name="user_id"))
    assert len(ids.labels) == 3
    (finding,) = ids.findings
    assert (finding.rows, finding.effect) == (1, "read")
    assert finding.example == f"row 1: {other!r} beside 'u1'"


def test_the_guard_of_a_spreadsheet_is_taken_off_and_told() -> None:
    ids = read_ids(pd.Series(['="00012"', "00012", '="a""b"', '=""'], name="item_id"))
    assert [None if code < 0 else ids.labels[code] for code in ids.codes] == [
        "00012",
        "00012",
        'a"b',
        None,
    ]
    (finding,) = ids.findings
    assert finding.rule == "ids in column 'item_id' are read without the =\"\" around them"
    assert (finding.rows, finding.effect) == (3, "changed")
    assert finding.example == 'row 0: ="00012" is 00012'


def test_ids_that_a_spreadsheet_shortened_are_told() -> None:
    ids = read_ids(pd.Series(["4.00639E+12", "7", "4.00639E+12", "1e5"], name="item_id"))
    (finding,) = ids.findings
    assert finding.rule.startswith("1 of the ids in column 'item_id' look like numbers")
    assert (finding.rows, finding.example) == (2, "row 0: 4.00639E+12")


def test_ids_that_differ_by_white_space_only_stay_apart_and_are_told() -> None:
    ids = read_ids(pd.Series(["u1", "u1 ", "u2", "u1 ", "\tu1", " u3", None], name="user_id"))
    assert len(ids.labels) == 5
    (finding,) = ids.findings
    assert finding.rule.startswith(
        "only white space or invisible characters tell 2 of the ids in column 'user_id'"
    )
    assert (finding.rows, finding.effect) == (3, "read")
    assert finding.example.startswith("row 1: 'u1 ' beside ")
    assert not read_ids(pd.Series(["u1", " u2", "u 1"])).findings


@pytest.mark.parametrize("texts", [["12.0", "12", "x"], ["1.0", "3.1"], ["012", "12.0"]])
def test_point_zero_stays_where_some_id_is_no_whole_number(texts: list[str]) -> None:
    assert read(texts) == texts


def test_numbers_and_texts_of_one_column_agree() -> None:
    values = [7, "7", 7.0, np.float32(7), Decimal("7.00"), "07"]
    assert read(values, object) == ["7"] * 5 + ["07"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, "", "  ", "NaN", "None", "NULL"])
def test_a_missing_id_is_nobody(missing: object) -> None:
    assert read(["a", missing], object) == ["a", None]
    assert read([missing], object) == [None]


def test_codes_follow_the_texts_and_not_the_rows() -> None:
    one, other = read_ids(pd.Series(["b", "a", "c"])), read_ids(pd.Series(["c", "b", "a"]))
    assert one.labels.tolist() == other.labels.tolist() == ["a", "b", "c"]
    assert one.codes.tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", [bool, "boolean", "bool[pyarrow]", "category", object])
def test_a_column_of_booleans_is_refused(dtype: Any) -> None:
    refuse([True, False], 0, "a boolean", dtype)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (True, "a boolean"),
        (np.True_, "a boolean"),
        (b"b", "bytes: decode them"),
        (bytearray(b"b"), "bytes"),
        (np.inf, "infinite"),
        (Decimal("-Infinity"), "infinite"),
        (2.0**53, "too large"),
        (np.float32(2**24), "too large"),
        (["x"], "of type list"),
        (("x", 1), "of type tuple"),
        ({"x": 1}, "of type dict"),
        (np.array(["x"]), "of type ndarray"),
        (1j, "of type complex"),
        (date(2024, 4, 3), "of type date"),
        (datetime(2024, 4, 3, tzinfo=UTC), "of type"),
        ("\ud800x", "half a character"),
    ],
)
@pytest.mark.parametrize("before", ["a", 1, None])
def test_what_is_no_id_is_refused_by_its_row(value: object, why: str, before: object) -> None:
    column = pd.Series([before, before, None], dtype=object)
    column[2] = value
    refuse(column, 2, why)


@pytest.mark.parametrize(
    ("column", "row", "why"),
    [
        (pd.Series([1.0, np.inf]), 1, "infinite"),
        (pd.Series([1.0, np.nan, 2.0**53]), 2, "too large"),
        (pd.Series([1, 2**24], dtype="float32"), 1, "too large"),
        (pd.Series(np.array([b"a"])), 0, "bytes"),
        (pd.Series(pa.array([b"a"]), dtype=pd.ArrowDtype(pa.binary())), 0, "bytes"),
        (pd.Series(pd.to_datetime(["2024-04-03"])), 0, "of type Timestamp"),
        (pd.Series([1.0, np.inf]).astype("category"), 1, "infinite"),
    ],
)
def test_columns_that_hold_no_ids_are_refused(column: pd.Series[Any], row: int, why: str) -> None:
    refuse(column, row, why)


def test_uuids_are_ids() -> None:
    assert read([UUID(int=7)], object) == ["00000000-0000-0000-0000-000000000007"]


@settings(max_examples=25)
@given(st.lists(st.one_of(st.integers(), TEXTS), min_size=1))
def test_an_id_is_found_as_it_was_given(values: list[int | str]) -> None:
    ids = read_ids(pd.Series(values, dtype=object))
    for value, code in zip(values, ids.codes, strict=True):
        if code >= 0 and not str(value).endswith(".0"):
            assert lookup_id(ids.labels, value, "user") == code


def test_an_id_is_the_same_in_a_frame_and_in_a_file(tmp_path: Path) -> None:
    rows = {"item_id": "x", "timestamp": "2024-04-03"}
    frame = pd.DataFrame({"user_id": [12, None, 7], **rows})
    frame.to_csv(tmp_path / "log.csv", index=False)
    assert "12.0" in (tmp_path / "log.csv").read_text()
    file = TableReader().table(tmp_path / "log.csv", ["timestamp"])
    logs = [Interactions.from_frame(frame), Interactions.from_frame(file)]
    assert [log.user_ids.tolist() for log in logs] == [["12", "7"]] * 2
    for log in logs:
        assert [log.user_index(key) for key in (12, "12", 12.0, "12.0", np.int64(12))] == [0] * 5


def test_a_text_with_point_zero_is_found_before_the_whole_number() -> None:
    ids = pd.Index(["12", "12.0", "007"], dtype="str")
    assert [lookup_id(ids, key, "user") for key in ("12", "12.0", 12.0, "007")] == [0, 1, 0, 2]
    with pytest.raises(DataError, match=r"user '7' is not known \(3 users; for example .*'007'"):
        lookup_id(ids, 7, "user")


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (7.0, "7"), (7.5, "7.5"), (Decimal("1E+2"), "100"), ("7.0", "7.0"), (1e22, None)],
)
def test_whole_numbers_are_written_without_a_point(value: object, text: str | None) -> None:
    assert format_id(value) == (text or str(10**22))


def test_near_ones_of_many_ids_are_found_by_how_they_begin() -> None:
    ids = pd.Index([f"{number:07}" for number in range(0, 1_000_000, 10)])
    assert "0123450" in near_names(ids, "0123451")
    assert len(near_names(ids, "zzz")) == 3
