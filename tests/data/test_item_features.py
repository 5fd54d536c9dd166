"""Blocks of features: read by item from every source, stored to the bit, invalid ones refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec import read_table
from llmrec.data.catalog import Catalog
from llmrec.data.item_features import MAX_COLUMNS
from llmrec.engine_folder import catalog_fingerprint
from llmrec.errors import DataError, ModelLoadError

NAN = float("nan")
IDS = ["a", "007", "c"]
ROWS = np.array([[1.0, 2.5], [NAN, NAN], [-3.0, 0.0]])


def make_catalog(ids: list[str] = IDS) -> Catalog:
    return Catalog.from_frame(
        pd.DataFrame({"item_id": ids, "categories": ["A", "B", "A"][: len(ids)]})
    )


def frame_of_columns(kind: Callable[[dict[str, Any]], Any] = pd.DataFrame) -> Any:
    """The rows of `ROWS`, turned round, without that of the item that has none."""
    return kind({"item_id": ["c", "a"], "width": [-3.0, 1.0], "height": [0.0, 2.5]})


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(path)
    return path


def npy(path: Path) -> Path:
    np.save(path, ROWS)
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "array": lambda _: ROWS,
    "lists": lambda _: ROWS.tolist(),
    "npy": lambda folder: npy(folder / "rows.npy"),
    "npy, path as text": lambda folder: str(npy(folder / "rows.npy")),
    "pandas": lambda _: frame_of_columns(),
    "polars": lambda _: frame_of_columns(pl.DataFrame),
    "parquet": lambda folder: written(folder / "rows.parquet", frame_of_columns()),
    "parquet of lists": lambda folder: written(
        folder / "lists.parquet",
        pd.DataFrame({"item_id": IDS, "vector": [[1.0, 2.5], None, [-3.0, 0.0]]}),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_block(source: str, tmp_path: Path) -> None:
    items = make_catalog()
    found = items.with_features("image", SOURCES[source](tmp_path))
    np.testing.assert_array_equal(found.features["image"], ROWS.astype(np.float32))
    assert found.features["image"].dtype == np.float32
    assert found.item_ids is items.item_ids
    assert not items.features
    assert "features: image" in repr(found)


@given(st.permutations(range(3)))
def test_the_order_of_a_frames_rows_does_not_matter(order: list[int]) -> None:
    frame = pd.DataFrame({"item_id": IDS, "x": [1.0, 2.0, 3.0]}).iloc[order]
    found = make_catalog().with_features("x", frame)
    np.testing.assert_array_equal(found.features["x"][:, 0], [1, 2, 3])


def test_items_without_features_and_rows_without_an_item_are_counted() -> None:
    frame = pd.DataFrame({"item_id": ["a", "x", None, "y"], "v": [1.0, 2.0, 3.0, 4.0]})
    report = make_catalog().with_features("image", frame).report
    found = {one.rule: (one.rows, one.example, one.effect) for one in report.findings}
    assert found == {
        "items without features 'image'": (2, "007", "read"),
        "rows of features 'image' without item_id": (1, "row 2", "dropped"),
        "rows of features 'image' of items that are not in the catalog": (2, "row 1", "dropped"),
    }


def rows_with(value: float) -> np.ndarray[Any, Any]:
    return np.array([[1.0, 2.0], [3.0, value], [1.0, 1.0]])


def frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((2, 2)), "have 2 rows, and the catalog has 3 items"),
        (np.ones((3, 0)), "have no column"),
        (np.ones((3, MAX_COLUMNS + 1)), "4,097 columns, and 4,096 are the most"),
        (np.ones(3), r"must be a matrix .*shape \(3,\)"),
        (np.ones((3, 2), dtype=complex), "complex128"),
        ([["x"]] * 3, "must be a matrix"),
        ([[1.0], [1.0, 2.0], [1.0]], "no matrix of numbers"),
        (None, "not NoneType"),
        (rows_with(NAN), r"of item '007': nan in column '1' is no finite number"),
        (rows_with(np.inf), r"of item '007': inf in column '1'"),
        (rows_with(-1e39), r"of item '007': -1e\+39 in column '1'"),
        (np.full((3, 2), NAN), "no item of the catalog has features"),
        (frame(item_id=["x", "y"], v=[1, 2]), "no item of the catalog has features"),
        (frame(item_id=["a", "c", "a"], v=[1, 2, 3]), "rows of item 'a', such as 0 and 2"),
        (frame(item_id=["a", "c"], v=[1, 2], w=[NAN, 1]), "of item 'a': nan in column 'w'"),
        (frame(item_id=["a"], v=["red"]), "column 'v' holds no numbers"),
        (frame(item_id=["a"]), "have no column"),
        (frame(v=[1.0]), "column 'item_id' is missing"),
        (frame(item_id=["a", "c"], v=[[1, 2], [1]]), r"item 'c' \(row 1\) are no list of 2"),
        (frame(item_id=["a", "c"], v=[[1, NAN], [1, 2]]), r"of item 'a': nan in column 'v\[1\]'"),
        (frame(item_id=["a"], v=[[[1], [2]]]), r"item 'a' \(row 0\) are no list"),
    ],
)
def test_features_that_cannot_be_are_refused_by_item_and_column(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_catalog().with_features("image", rows)


@pytest.mark.parametrize(
    "name", ["", "a b", "_a", "a/b", "a" * 41, "title", "item_id", "titled", 3]
)
def test_a_name_that_cannot_be_one_is_refused(name: Any) -> None:
    with pytest.raises(DataError, match="features cannot be called"):
        make_catalog().with_features(name, ROWS)


def test_a_second_block_of_a_name_is_refused() -> None:
    items = make_catalog().with_features("image", ROWS)
    with pytest.raises(DataError, match="has features 'image' already"):
        items.with_features("image", ROWS)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    np.save(tmp_path / "short.npy", ROWS[:2])
    np.save(tmp_path / "objects.npy", np.array([["a", {}]], dtype=object))
    for name in ("broken.npy", "broken.parquet", "short.npy", "objects.npy", "absent.npy", "x.csv"):
        with pytest.raises(DataError, match=name):
            make_catalog().with_features("image", tmp_path / name)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30)
@given(
    arrays(np.float32, st.tuples(st.just(3), st.integers(1, 4)), elements=FLOATS), st.integers(0, 2)
)
def test_saved_features_are_the_same_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray[Any, Any], missing: int
) -> None:
    rows[missing] = NAN
    items = make_catalog().with_features("image", rows).with_features("ünï-1", ROWS)
    path = tmp_path_factory.getbasetemp() / "featured.parquet"
    items.save(path)
    loaded = Catalog.load(path)
    assert list(loaded.features) == ["image", "ünï-1"]
    for name, matrix in items.features.items():
        assert loaded.features[name].tobytes() == matrix.tobytes()
    assert catalog_fingerprint(loaded) == catalog_fingerprint(items)


def test_a_fingerprint_tells_features_apart_and_is_the_old_one_without() -> None:
    items = make_catalog()
    other = ROWS + np.array([0.0, 1.0])
    found = {
        catalog_fingerprint(one)
        for one in (
            items,
            items.with_features("image", ROWS),
            items.with_features("sound", ROWS),
            items.with_features("image", other),
        )
    }
    assert len(found) == 4
    assert catalog_fingerprint(replace(items, features={})) == catalog_fingerprint(items)
    one = items.with_features("image", ROWS).with_features("sound", other)
    same = items.with_features("sound", other).with_features("image", ROWS)
    assert catalog_fingerprint(one) == catalog_fingerprint(same)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2.0], [], [1.0]], pa.list_(pa.float32())), "lists of several lengths"),
        (pa.array([[1.0], [], [None]], pa.list_(pa.float32())), "no finite numbers"),
        (pa.array([[1.0], [], [np.inf]], pa.list_(pa.float32())), "no finite numbers"),
        (pa.array([[1.0], None, [1.0]], pa.list_(pa.float32())), "has an empty cell"),
        (pa.array([1.0, 2.0, 3.0], pa.float32()), "its columns are"),
    ],
)
def test_a_damaged_block_in_a_file_is_refused(tmp_path: Path, column: Any, message: str) -> None:
    path = tmp_path / "catalog.parquet"
    make_catalog().with_features("image", ROWS).save(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, "features:image", column), path)
    with pytest.raises(ModelLoadError, match=rf"catalog\.parquet.*{message}"):
        Catalog.load(path)


def test_features_follow_their_items_where_a_log_or_a_category_is_cut() -> None:
    events = pd.DataFrame(
        {
            "user_id": ["u"] * 4,
            "item_id": ["z", "y", "x", "w"],
            "timestamp": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-02-01"],
            "categories": ["A", "B", "A", "A"],
        }
    )
    dataset = read_table(events, period="7D")
    ids = dataset.catalog.item_ids
    numbers = {item_id: float(ord(item_id)) for item_id in ids}
    items = dataset.catalog.with_features("code", np.array([[numbers[one]] for one in ids]))
    dataset = replace(dataset, catalog=items)
    for cut in (
        dataset.known_before(np.datetime64("2020-01-15")),
        dataset.without_categories(["B"]),
        dataset.with_categories_before(np.datetime64("2020-01-15")),
    ):
        found = cut.catalog
        expected = [numbers[item_id] for item_id in found.item_ids]
        np.testing.assert_array_equal(found.features["code"][:, 0], expected)
    assert "w" not in dataset.known_before(np.datetime64("2020-01-15")).catalog.item_ids
