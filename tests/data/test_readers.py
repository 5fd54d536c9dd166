from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from datasets import Dataset as HubDataset

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.readers import load_dataset, read_table
from llmrec.data.synthetic import make_synthetic_world
from llmrec.errors import DataError
from tests.data.log_files import NOON, categories_of, events_of, write_files


def movielens_1m(folder: Path) -> Path:
    return write_files(
        folder, {"ratings.dat": f"1::10::5::{NOON}\n", "movies.dat": "10::M (1931)::Film-Noir\n"}
    )


LOG = pd.DataFrame({"who": ["a", "a"], "what": ["x", "y"], "when": ["2020-01-01", "2020-01-02"]})
ITEMS = pd.DataFrame({"what": ["x", "y"], "name": ["X", "Y"], "kinds": ["A|B", "B"]})
COLUMNS = {
    "user_id": "who",
    "item_id": "what",
    "timestamp": "when",
    "title": "name",
    "categories": "kinds",
}


def check(dataset: Dataset) -> None:
    assert events_of(dataset) == [("a", "X"), ("a", "Y")]
    assert categories_of(dataset) == {"X": ("A", "B"), "Y": ("B",)}


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.from_pandas, HubDataset.from_pandas])
def test_any_frame_is_read_with_a_column_mapping(kind: Any) -> None:
    check(read_table(kind(LOG), kind(ITEMS), COLUMNS))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_any_table_file_is_read_with_a_column_mapping(tmp_path: Path, suffix: str) -> None:
    for frame, name in ((LOG, "log"), (ITEMS, "items")):
        path = tmp_path / (name + suffix)
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    check(read_table(tmp_path / f"log{suffix}", str(tmp_path / f"items{suffix}"), COLUMNS))


def test_one_file_may_hold_events_and_items(tmp_path: Path) -> None:
    whole = LOG.merge(ITEMS, on="what").rename(columns={v: k for k, v in COLUMNS.items()})
    whole.to_csv(tmp_path / "shop.csv", index=False)
    dataset = load_dataset(tmp_path / "shop.csv")
    check(dataset)
    assert dataset.name == "shop"


def test_a_mapping_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="'user' is none of our names"):
        read_table(LOG, ITEMS, {"user": "who"})


def test_the_made_up_log_has_a_name_and_a_folder_of_that_name_is_still_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset("synthetic")
    assert dataset.name == "synthetic"
    assert dataset.log.fingerprint == make_synthetic_world().dataset.log.fingerprint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()
    assert load_dataset(movielens_1m(tmp_path / "synthetic")).name == "ml-1m"
    assert load_dataset("./synthetic").name == "ml-1m"


def test_synthetic_logs_of_other_seeds_have_people_and_labels_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, again, two = (load_dataset(f"synthetic-{seed}") for seed in (1, 1, 2))
    assert one.name == "synthetic-1"
    assert one.catalog.categories == again.catalog.categories != two.catalog.categories
    assert one.log.fingerprint == again.log.fingerprint != two.log.fingerprint
    default = load_dataset("synthetic").catalog
    for item in range(default.n_items):
        (label,), (name,) = one.catalog.categories_of(item), default.categories_of(item)
        assert label.endswith(f" {name}")
    monkeypatch.chdir(tmp_path)
    for folder in ("synthetic-1", "synthetic-x"):
        (tmp_path / folder).mkdir()
        assert load_dataset(movielens_1m(tmp_path / folder)).name == "ml-1m"
    assert load_dataset("synthetic-1").name == "synthetic-1"
    assert load_dataset("synthetic-x").name == "ml-1m"
    with pytest.raises(DataError, match=r"'synthetic-y'.*Nor is there such a folder"):
        load_dataset("synthetic-y")


@pytest.mark.parametrize("name", ["synthetic", "synthetic-2"])
@pytest.mark.parametrize(
    "options",
    [
        {"columns": {"user_id": "who"}},
        {"dates": "day-first"},
        {"separator": ","},
        {"keep_bots": True},
        {"keep_outliers": True},
        {"clusters": 5},
    ],
)
def test_a_made_up_log_refuses_options_of_how_files_are_read(
    name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=f"made up, not read: leave {next(iter(options))} out"):
        load_dataset(name, **options)


def test_an_unknown_name_and_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'netflix'.*ml-100k.*'synthetic'\. Nor is there such a folder"
    ):
        load_dataset("netflix")
    write_files(tmp_path, {"notes.txt": "hello", "log.xlsx": ""})
    with pytest.raises(
        DataError, match=r"layout. Found log\.xlsx, notes\.txt; known are .*u\.data"
    ):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"log\.xlsx is a spreadsheet: save it as CSV"):
        load_dataset(tmp_path / "log.xlsx")
    with pytest.raises(DataError, match=r"lost\.csv is not there"):
        read_table(tmp_path / "lost.csv")


def test_an_error_begins_with_the_file_that_it_is_about(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp\na,x,2024-01-01\n"
    files = {"events.csv": events, "items.csv": "item_id,title\nx,X\n"}
    write_files(tmp_path, files)
    for read in (
        lambda: load_dataset(tmp_path),
        lambda: read_table(tmp_path / "events.csv", tmp_path / "items.csv"),
    ):
        with pytest.raises(DataError) as caught:
            read()
        assert str(caught.value).startswith(f"{tmp_path / 'items.csv'}: column 'categories'")


def test_a_renamed_column_of_a_file_is_named_with_those_found(tmp_path: Path) -> None:
    files = {
        "ratings.csv": f"user,movieId,rating,timestamp\n1,10,4.5,{NOON}\n",
        "movies.csv": "movieId,title,genres\n10,X,Drama\n",
    }
    write_files(tmp_path, files)
    with pytest.raises(
        DataError, match=r"ratings\.csv: column 'user_id' is missing \(.*: user, "
    ) as caught:
        load_dataset(tmp_path)
    # Of a known layout no columns can be given.
    assert str(caught.value).endswith("Give it this name in the file.")


def test_ids_of_a_csv_are_text_so_007_and_7_are_two_people(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text(
        "user_id,item_id,timestamp,categories\n"
        "007,01,2020-01-01,A\n7,1,2020-01-02,B\n1234567890123456789,1,2020-01-03,B\n,1,2020-01-04,B\n"
    )
    found = read_table(path)
    assert set(found.log.user_ids) == {"007", "7", "1234567890123456789"}
    assert set(found.catalog.item_ids) == {"01", "1"}


def test_a_catalog_made_before_can_be_given() -> None:
    table = pd.DataFrame(
        {
            "user_id": ["u"] * 4,
            "item_id": list("abcd"),
            "timestamp": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"]),
            "title": ["red wine", "white wine", "rye bread", "white bread"],
        }
    )
    items = Catalog.with_clustered_categories(table, n_categories=2)
    assert read_table(table, items).catalog is items
