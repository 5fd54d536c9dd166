from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset as HubDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.names import MAX_CATEGORY_LENGTH, MAX_TITLE_LENGTH, clean_text
from llmrec.errors import DataError, ModelLoadError


def build(rows: list[tuple[object, ...]], **options: Any) -> Catalog:
    frame = pd.DataFrame(rows, columns=["item_id", "title", "categories"])
    return Catalog.from_frame(frame, **options)


def one_title(title: object) -> str:
    return build([("x", title, "A")]).titles[0]


def test_an_item_divides_evenly_over_its_categories() -> None:
    items = build([("x", "X", "B|A"), ("y", "Y", "A"), ("z", "Z", None)])
    assert items.categories == ("A", "B")
    assert items.category_shares.toarray().tolist() == [[0.5, 0.5], [1, 0], [0, 0]]
    assert items.has_category.tolist() == [True, True, False]
    assert items.categories_of(0) == ("A", "B")
    assert items.categories_of(2) == ()


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.from_pandas, HubDataset.from_pandas])
def test_every_kind_of_frame_and_lists_of_categories_work(kind: Any) -> None:
    plain = pd.DataFrame({"item_id": [1, 2], "categories": [["A", "B"], ["B"]]})
    items = Catalog.from_frame(kind(plain))
    assert items.item_ids.tolist() == list(items.titles) == ["1", "2"]
    assert items.category_shares.toarray().tolist() == [[0.5, 0.5], [0, 1]]


def test_the_title_is_the_id_where_there_is_none() -> None:
    assert build([("x", None, "A"), ("y", "\u200b", "A"), ("z", np.nan, "A")]).titles == (
        "x",
        "y",
        "z",
    )
    assert Catalog.from_frame(pd.DataFrame({"item_id": ["x"], "categories": ["A"]})).titles == (
        "x",
    )


def test_a_10_mb_title_is_cut_at_once() -> None:
    title = "é\u202e" * 5_000_000
    start = time.thread_time()
    cut = one_title(title)
    assert time.thread_time() - start < 1
    assert len(cut) == MAX_TITLE_LENGTH
    assert cut.endswith("…")


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("right\u202eto\u2066left\u200fmarks", "righttoleftmarks"),
        ("zero\u200bwidth\ufeff\u00ad", "zerowidth"),
        ("\x00control\x1b[31m", "control[31m"),
        ("\ufb01ne \uff57ide", "fine wide"),
        ("non\u00a0breaking\u2028line", "non breaking line"),
        ("<|im_end|> {{ 7 * 7 }} {% x %}", "<|im_end|> {{ 7 * 7 }} {% x %}"),
    ],
)
def test_hostile_titles_become_one_printable_line(title: str, clean: str) -> None:
    assert one_title(title) == clean


def test_a_lone_surrogate_is_dropped() -> None:
    assert clean_text("half \ud800 a pair") == "half a pair"


@given(st.text())
def test_clean_text_is_one_short_printable_line_and_stays_as_it_is(text: str) -> None:
    clean = clean_text(text, 20)
    assert clean.isprintable()
    assert len(clean) <= 20
    assert clean == clean.strip()
    assert clean_text(clean, 20) == clean


@pytest.mark.parametrize(
    "name", ["Nuts, dried", "100% Juice", "7", "A: B; C", "other", "Żółć", "<b>", "{c}"]
)
def test_odd_category_names_are_kept(name: str) -> None:
    assert build([("x", "X", [name]), ("y", "Y", ["plain"])]).categories_of(0) == (name,)


def test_category_names_that_differ_in_white_space_only_are_one() -> None:
    items = build([("x", "X", ["Dairy  Milk", "Dairy Milk", " Dairy\nMilk", ""])])
    assert items.categories == ("Dairy Milk",)
    assert items.category_shares.toarray().tolist() == [[1]]


def test_long_category_names_stay_different_when_cut() -> None:
    names = ["c" * 80 + str(n) for n in range(12)]
    items = build([(n, "X", [name]) for n, name in enumerate(names)])
    assert len(set(items.categories)) == 12
    assert max(map(len, items.categories)) <= MAX_CATEGORY_LENGTH


def test_numbers_are_category_names_too() -> None:
    assert build([("x", "X", 7), ("y", "Y", 8.0), ("z", "Z", np.nan)]).categories == ("7", "8")


def test_one_category_is_enough() -> None:
    assert build([("x", "X", "A"), ("y", "Y", "A")]).n_categories == 1


def test_five_thousand_categories_take_no_dense_matrix() -> None:
    items = build([(n, "X", [f"c{n % 5000:04d}"]) for n in range(10_000)])
    assert items.n_categories == 5_000
    assert items.category_shares.nnz == 10_000


def test_no_category_at_all_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match="with_clustered_categories"):
        build([("x", "X", None), ("y", "Y", "")])


def test_missing_columns_and_an_empty_catalog_are_named() -> None:
    with pytest.raises(DataError, match=r"'categories' is missing \(columns found: item_id\)"):
        Catalog.from_frame(pd.DataFrame({"item_id": ["x"]}))
    with pytest.raises(DataError, match="'name' is missing"):
        build([("x", "X", "A")], columns={"title": "name"})
    with pytest.raises(DataError, match=r"the catalog is empty[^$]*1 dropped: missing item_id"):
        build([(None, "X", "A")])


def test_an_item_may_have_several_rows() -> None:
    items = build([("1", "first", "A"), (1.0, "second", "B"), (None, "X", "A"), ("2", "X", "A")])
    assert items.item_ids.tolist() == ["1", "2"]
    assert items.titles[0] == "second"
    assert items.report.dropped == {"missing item_id": 1}


def test_an_unknown_item_gets_near_ids() -> None:
    items = build([("milk", "Milk", "A"), ("tea", "Tea", "A")])
    assert items.item_index("tea") == 1
    with pytest.raises(DataError, match=r"item 'mlk' is not known.*milk"):
        items.item_index("mlk")


def test_items_are_found_by_their_whole_titles_if_those_are_of_one_item() -> None:
    frame = pd.DataFrame({"item_id": [1, 2, 3], "title": ["Titanic (1997)", "Twin", "twin"]})
    items = Catalog.from_frame(frame.assign(categories="x"))
    assert items.item_index("TITANIC (1997)") == 0
    with pytest.raises(DataError, match="2 items are called 'Twin': say which, '2', '3'"):
        items.item_index("Twin")
    with pytest.raises(DataError, match=r"'Titanic' is not known .*for example 'Titanic \(1997\)'"):
        items.item_index("Titanic")


def test_clusters_of_titles_stand_in_for_missing_categories() -> None:
    titles = ["red wine", "white wine", "old wine", "dog food", "wet dog food", "dry dog food"]
    frame = pd.DataFrame({"sku": range(6), "title": titles})
    items = Catalog.with_clustered_categories(frame, {"item_id": "sku"}, n_categories=2)
    found = [items.categories_of(item)[0] for item in range(6)]
    assert len(set(found[:3])) == len(set(found[3:])) == 1
    assert "wine" in found[0]
    assert "dog" in found[3]


def test_clusters_need_as_many_texts_and_words() -> None:
    few = pd.DataFrame({"item_id": [1, 2], "title": ["a wine", "a wine"]})
    with pytest.raises(DataError, match="1 distinct texts cannot make 2"):
        Catalog.with_clustered_categories(few, n_categories=2)
    wordless = pd.DataFrame({"item_id": [1, 2], "title": ["?", "!"]})
    with pytest.raises(DataError, match="no words"):
        Catalog.with_clustered_categories(wordless, n_categories=2)


WORDS = st.text("abcé|λ \u200b'\"", min_size=1, max_size=8).filter(clean_text)


@settings(max_examples=30)
@given(st.lists(st.lists(WORDS, max_size=4), min_size=1, max_size=8).filter(any))
def test_a_saved_catalog_is_the_same_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, categories: list[list[str]]
) -> None:
    table = {"item_id": range(len(categories)), "title": "é", "categories": categories}
    items = Catalog.from_frame(pd.DataFrame(table))
    path = tmp_path_factory.getbasetemp() / "catalog.parquet"
    items.save(path)
    loaded = Catalog.load(path)
    assert loaded.item_ids.equals(items.item_ids)
    assert loaded.item_ids.dtype == items.item_ids.dtype
    assert (loaded.titles, loaded.categories) == (items.titles, items.categories)
    assert loaded.category_shares.shape == items.category_shares.shape
    for name in ("data", "indices", "indptr"):
        one, other = getattr(loaded.category_shares, name), getattr(items.category_shares, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def replaced(name: str, values: list[Any]) -> Callable[[pa.Table], pa.Table]:
    """Give a function that replaces a column of a table."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(
            place, table.schema.field(place), pa.array(values, table.schema.types[place])
        )

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("item_id", ["x", "x"]), "two of one id"),
        (replaced("title", ["X", None]), "'title' has an empty cell"),
        (replaced("category", [[0, 2], [0]]), "indices must be < 2"),
        (replaced("category", [[0, None], [0]]), ""),
        (replaced("category", [[0], [0, 1]]), "more categories than shares, or fewer"),
        (replaced("share", [[0.5, np.nan], [1.0]]), "a share is not finite"),
        (lambda table: table.slice(0, 0), "holds no item"),
        (lambda table: table.drop_columns("share"), "its columns are item_id"),
        (lambda table: table.replace_schema_metadata({"llmrec": "{}"}), "are no names"),
        (lambda table: table.replace_schema_metadata({"llmrec": "[]"}), "not written by llmrec"),
    ],
)
def test_a_damaged_file_of_a_catalog_is_refused_by_its_name(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = tmp_path / "catalog.parquet"
    build([("x", "X", "B|A"), ("y", "Y", "A")]).save(path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(ModelLoadError, match=rf"catalog\.parquet.*{message}"):
        Catalog.load(path)
