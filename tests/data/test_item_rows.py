from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.log_items import item_rows_of_log
from llmrec.data.readers import read_table
from llmrec.data.report import Finding
from llmrec.errors import DataError

COLUMNS = ["user_id", "item_id", "timestamp", "title", "categories"]
DIFFER = "rows of one item differ in their {}: the most frequent counts, then the latest"


def catalog(*rows: tuple[object, object], **options: Any) -> Catalog:
    """Give the catalog of rows of one item: titles and categories."""
    table = [("i", *row) for row in rows]
    return Catalog.from_frame(
        pd.DataFrame(table, columns=["item_id", "title", "categories"]), **options
    )


def findings(items: Catalog) -> dict[str, tuple[int, str]]:
    return {one.rule: (one.rows, one.example) for one in items.report.findings}


def contents(items: Catalog) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (item_id, items.titles[item], items.categories_of(item))
        for item, item_id in enumerate(items.item_ids)
    ]


def test_the_most_frequent_title_and_categories_count() -> None:
    items = catalog(("Grene tea", "Dirnks"), ("Green tea", "Drinks"), ("Green tea", "Drinks"))
    assert contents(items) == [("i", "Green tea", ("Drinks",))]
    assert items.categories == ("Drinks",)


def test_of_equally_frequent_ones_the_latest_counts() -> None:
    assert contents(catalog(("A", "X"), ("B", "Y"))) == [("i", "B", ("Y",))]
    table = pd.DataFrame(
        [("i", "A", "X", 2), ("i", "B", "Y", 1)], columns=["item_id", "title", "categories", "at"]
    )
    table["at"] = table["at"].astype("datetime64[s]")
    assert contents(Catalog.from_frame(table, times="at")) == [("i", "A", ("X",))]
    for rows in (table, table[::-1]):
        equal = Catalog.from_frame(rows.assign(at=table["at"].max()), times="at")
        assert contents(equal) == [("i", "A", ("X",))]


def test_rows_that_say_nothing_do_not_count() -> None:
    items = catalog((None, ""), ("", np.nan), ("Tea", None), (None, "Drinks"), ("nan", "[]"))
    assert contents(items) == [("i", "Tea", ("Drinks",))]
    assert not items.report.findings


def test_conflicts_are_counted_with_an_example() -> None:
    items = catalog(("A", "X"), ("B", "Y|Z"), ("B", "Y|Z"), ("C", "X"))
    assert findings(items) == {
        DIFFER.format("titles"): (2, "item 'i': 'B' counts, not 'A'"),
        DIFFER.format("categories"): (2, "item 'i': 'X' counts, not 'Y|Z'"),
    }


def test_categories_in_another_order_or_form_are_no_conflict() -> None:
    items = catalog(("A", ["X", "Y"]), ("A", ["Y", "X"]), ("A", np.array(["X", "Y"])), ("A", "Y|X"))
    assert contents(items) == [("i", "A", ("X", "Y"))]
    assert not items.report.findings


def test_long_arrays_that_differ_in_their_middle_are_two_values() -> None:
    names = [f"c{n}" for n in range(2_000)]
    other = [*names[:1_000], "other", *names[1_001:]]
    frame = pd.DataFrame({"item_id": [1, 2], "categories": [np.array(names), np.array(other)]})
    items = Catalog.from_frame(frame)
    assert "other" in items.categories_of(1)
    assert "other" not in items.categories_of(0)


def test_undone_entities_are_told() -> None:
    items = catalog(("Fish &amp; Chips", "A"), ("Fish & Chips", "A"))
    assert contents(items) == [("i", "Fish & Chips", ("A",))]
    assert findings(items) == {
        "entities of HTML in column 'title' are undone": (1, "Fish &amp; Chips")
    }


def test_categories_that_no_item_has_are_no_categories() -> None:
    frame = pd.DataFrame(
        {"item_id": ["a"], "categories": pd.Categorical(["A"], categories=["A", "ghost"])}
    )
    assert Catalog.from_frame(frame).categories == ("A",)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from("xyz"),
        st.integers(1, 4).map(lambda day: f"2024-01-0{day}"),
        st.sampled_from(["T", "U", None]),
        st.sampled_from(["A", "B", "B|A", None]),
    ),
    max_size=15,
)
FIRST = ("a", "w", "2024-01-01", "W", "A")  # so that some item always has a category


def table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame([FIRST, *rows], columns=COLUMNS)


@settings(max_examples=40)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_neither_catalog_nor_log(
    rows: list[tuple[Any, ...]], random: Any
) -> None:
    one = read_table(table(rows))
    other = read_table(table(random.sample(rows, len(rows))))
    assert contents(one.catalog) == contents(other.catalog)
    assert one.log.fingerprint == other.log.fingerprint
    assert [(f.rule, f.rows) for f in one.findings] == [(f.rule, f.rows) for f in other.findings]


@settings(max_examples=40)
@given(ROWS, st.integers(2, 5))
def test_a_dataset_before_a_cutoff_is_that_of_the_log_cut_there(
    rows: list[tuple[Any, ...]], day: int
) -> None:
    cutoff = f"2024-01-0{day}"
    known = read_table(table(rows)).known_before(np.datetime64(cutoff, "ms"))
    cut = read_table(table([row for row in rows if row[2] < cutoff]))
    assert contents(known.catalog) == contents(cut.catalog)
    assert known.catalog.categories == cut.catalog.categories
    assert known.log.fingerprint == cut.log.fingerprint


def test_nothing_is_known_before_the_first_event() -> None:
    with pytest.raises(DataError, match="the log names no item before 2024-01-01"):
        read_table(table([])).known_before(np.datetime64("2024-01-01", "ms"))


def test_a_later_cutoff_brings_nothing_back() -> None:
    rows = [("a", "x", "2024-01-03", "X", "B"), ("a", "y", "2024-01-05", "Y", "C")]
    known = read_table(table(rows)).with_catalog_before(np.datetime64("2024-01-02", "ms"))
    assert known.known_before(np.datetime64("2024-01-04", "ms")).catalog.categories == ("A",)


def test_excluded_categories_stay_out_at_every_cutoff() -> None:
    days = {"2024-01-02": "A", "2024-01-03": "B", "2024-01-04": "B"}
    rows = [("a", "x", day, "X", name) for day, name in days.items()]
    rows.append(("a", "y", "2024-01-02", "Y", "C"))
    dataset = read_table(table(rows)).without_categories(["A"])
    assert contents(dataset.catalog) == [("x", "X", ("B",)), ("y", "Y", ("C",))]
    known = dataset.known_before(np.datetime64("2024-01-03", "ms"))
    assert contents(known.catalog) == [("y", "Y", ("C",))]
    with pytest.raises(DataError, match=r"no category of .* is left without A, C"):
        dataset.without_categories(["C"]).known_before(np.datetime64("2024-01-03", "ms"))


def test_a_catalog_given_apart_may_list_items_that_nobody_has_taken() -> None:
    items = pd.DataFrame({"item_id": ["w", "new"], "categories": ["A", "B"]})
    known = read_table(table([]), items).known_before(np.datetime64("2024-02-01", "ms"))
    assert known.catalog.categories == ("A", "B")


def test_dropped_rows_say_nothing_of_items() -> None:
    rows = [("a", "x", "2024-01-02", "X", "A"), ("b", "x", "", "Y", "B")] * 3
    dataset = read_table(table(rows))
    assert contents(dataset.catalog) == [("w", "W", ("A",)), ("x", "X", ("A",))]


def test_an_item_of_which_all_rows_say_the_same_has_its_earliest_row() -> None:
    frame = table(
        [
            ("b", "x", "2024-01-03", "X", "A"),
            ("a", "x", "2024-01-02", "X", "A"),
            ("a", "y", "2024-01-04", "Y", "A"),
            ("b", "y", "2024-01-03", "Z", "A"),
        ]
    )
    rows = item_rows_of_log(Interactions.from_frame(frame), frame[["title", "categories"]])
    assert list(
        zip(rows["item_id"], rows["title"], rows["timestamp"].astype(str), strict=True)
    ) == [
        ("w", "W", "2024-01-01"),
        ("x", "X", "2024-01-02"),
        ("y", "Z", "2024-01-03"),
        ("y", "Y", "2024-01-04"),
    ]


def test_columns_of_another_name_and_lists_of_things_are_read_from_the_log() -> None:
    frame = table([]).assign(kinds=[[{"id": 1, "name": "Tea"}, {"id": 2, "name": "Green"}]])
    dataset = read_table(frame.drop(columns="categories"), columns={"categories": "kinds"})
    assert dataset.catalog.categories == ("Green", "Tea")


def test_a_separator_counts_before_a_cutoff_too() -> None:
    rows = [("a", "x", "2024-01-02", "X", "B;C"), ("a", "y", "2024-01-03", "Y", "D")]
    known = read_table(table(rows), separator=";").known_before(np.datetime64("2024-01-03", "ms"))
    assert known.catalog.categories == ("A", "B", "C")


def test_a_title_column_that_is_there_twice_is_refused() -> None:
    frame = pd.concat([table([]), table([])[["title"]]], axis=1)
    with pytest.raises(DataError, match="'title' is there more than once"):
        read_table(frame)


def test_a_missing_item_id_is_counted() -> None:
    items = Catalog.from_frame(
        pd.DataFrame({"item_id": ["a", None, ""], "categories": ["A", "B", "C"]})
    )
    assert items.categories == ("A",)
    assert items.report.findings == (Finding("missing item_id", 2, "row 1", "dropped"),)


def test_comparisons_know_earlier_categories_and_later_items_of_them() -> None:
    rows = [
        ("ana", "tea", "2024-01-01", "Drinks"),
        ("ana", "bread", "2024-01-02", "Bakery"),
        ("ben", "tea", "2024-02-01", "Garden"),  # what is said of it now was not known then
        ("ben", "tea", "2024-02-02", "Garden"),
        ("ben", "juice", "2024-02-03", "Drinks"),
        ("ben", "tulips", "2024-02-04", "Garden"),
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "categories"])
    known = read_table(frame).with_categories_before(np.datetime64("2024-01-15", "ms"))
    catalog = known.catalog
    assert catalog.categories == ("Bakery", "Drinks")
    assert sorted(catalog.item_ids) == ["bread", "juice", "tea"]
    assert catalog.categories_of(catalog.item_index("tea")) == ("Drinks",)
    assert len(known.log) == 5


def test_categories_that_become_one_by_cleaning_are_told_and_spaces_are_not() -> None:
    rows = [("", "Lego™|Toys"), ("", "LegoTM | Toys"), ("", "Toys")]
    table = pd.DataFrame(rows, columns=["title", "categories"]).assign(item_id=["a", "b", "c"])
    items = Catalog.from_frame(table)
    assert items.categories == ("LegoTM", "Toys")
    rule = "categories in column 'categories' that are the same in plain characters (NFKC) are one"
    assert findings(items) == {rule: (2, "'LegoTM' and 'Lego™' are 'LegoTM'")}
