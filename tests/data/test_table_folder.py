"""Tables as warehouses export them: one file a table, or a folder of parts."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.readers import load_dataset
from llmrec.errors import DataError
from tests.data.log_files import categories_of, events_of, rules_of, write_files

ORDERS = {
    "customer_id": ["007", "7", "007"],
    "product_id": ["x", "y", "y"],
    "created_at": ["2024-01-01 10:00:00", "2024-01-02 11:00:00", "2024-01-03 12:00:00"],
}
SHELF = {"product_id": ["x", "y"], "product_name": ["X, red", "Y"], "category": ["A|B", "B"]}


def parquet(columns: Mapping[str, Any]) -> bytes:
    """Write a table as Parquet."""
    file = io.BytesIO()
    pd.DataFrame(columns).to_parquet(file, index=False)
    return file.getvalue()


def csv(columns: Mapping[str, Any], rows: slice = slice(None)) -> str:
    return pd.DataFrame(columns).iloc[rows].to_csv(index=False)


@pytest.mark.parametrize(
    "files",
    [
        {"orders.csv": csv(ORDERS), "products.csv": csv(SHELF)},
        {"Orders.parquet": parquet(ORDERS), "products.parquet": parquet(SHELF)},
        {"transactions.parquet": parquet(ORDERS), "products.parquet": parquet(SHELF)},
        {
            "orders/part-00000.parquet": parquet(ORDERS),
            "orders/_SUCCESS": "",
            "orders/.part-00000.parquet.crc": b"\x00",
            "products.csv": csv(SHELF),
            "customers.csv": "customer_id,name\n7,Bo\n",
        },
        {
            "orders/part-00000.csv": csv(ORDERS, slice(1)),
            "orders/part-00001.csv": csv(ORDERS, slice(0)),  # one may be empty
            "orders/part-00002.csv.gz": gzip.compress(csv(ORDERS, slice(1, 3)).encode()),
            "products.csv/part-00000.csv": csv(SHELF),
        },
        {"part-00000.csv": csv(ORDERS, slice(2)), "part-00001.csv": csv(ORDERS, slice(2, 3))}
        | {"products.csv": csv(SHELF)},
    ],
)
def test_a_warehouse_export_is_read_without_an_option(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    dataset = load_dataset(write_files(tmp_path, files))
    assert events_of(dataset) == [("007", "X, red"), ("007", "Y"), ("7", "Y")]
    assert categories_of(dataset) == {"X, red": ("A", "B"), "Y": ("B",)}
    assert dataset.log.timestamp[0] == np.datetime64("2024-01-01T10:00:00")
    assert rules_of(dataset)["column 'customer_id' is read as user_id"] == 3


@pytest.mark.parametrize(
    "files",
    [
        {"orders.csv": csv(ORDERS), "orders.parquet": parquet(ORDERS)},
        {"events.csv": csv(ORDERS), "orders.csv": csv(ORDERS)},
        {"orders.csv": csv(ORDERS), "orders/part-0.csv": csv(ORDERS)},
        {"orders.csv": csv(ORDERS), "items.csv": csv(SHELF), "products.csv": csv(SHELF)},
    ],
)
def test_tables_that_may_both_be_meant_are_refused(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    with pytest.raises(DataError, match=r" and .* may both be meant: leave one of them"):
        load_dataset(write_files(tmp_path, {"products.csv": csv(SHELF)} | files))


def test_a_part_with_other_columns_is_named_with_both(tmp_path: Path) -> None:
    other = csv(ORDERS).replace("customer_id", "client")
    files = {"orders/part-0.csv": csv(ORDERS), "orders/part-1.csv": other}
    message = r"part-1\.csv has other columns \(client, .*\) than part-0\.csv \(customer_id"
    with pytest.raises(DataError, match=message):
        load_dataset(write_files(tmp_path, files))


def test_a_usual_name_that_two_columns_have_is_not_guessed(tmp_path: Path) -> None:
    both = csv(ORDERS | {"visitor_id": ["1", "2", "3"]})
    files = {"orders.csv": both, "products.csv": csv(SHELF)}
    message = "'customer_id' and 'visitor_id' may both be user_id: .*--columns user=customer_id"
    with pytest.raises(DataError, match=message):
        load_dataset(write_files(tmp_path, files))
    dataset = load_dataset(tmp_path, columns={"user_id": "visitor_id"})
    assert dataset.log.user_ids.tolist() == ["1", "2", "3"]


def test_a_given_name_counts_in_the_table_that_has_it(tmp_path: Path) -> None:
    events = csv(ORDERS).replace("product_id", "sku")
    items = csv(SHELF).replace("product_id", "item_id")
    write_files(tmp_path, {"orders.csv": events, "products.csv": items})
    dataset = load_dataset(tmp_path, columns={"item_id": "sku"})
    assert events_of(dataset) == [("007", "X, red"), ("007", "Y"), ("7", "Y")]
    with pytest.raises(
        DataError, match=r"'nr', given for item_id, is missing \(.*orders\.csv: .*products\.csv: "
    ):
        load_dataset(tmp_path, columns={"item_id": "nr"})


def test_a_given_name_that_the_only_table_lacks_is_refused(tmp_path: Path) -> None:
    log = csv(ORDERS | {"item_id": "x", "category": "A"})
    write_files(tmp_path, {"orders.csv": log})
    for given in ({"item_id": "sku"}, {"title": "heading"}, {"timestamp": "when"}):
        with pytest.raises(DataError, match=f"'{next(iter(given.values()))}', given for"):
            load_dataset(tmp_path, columns=given)


LOG = {**ORDERS, "category": ["A", "B", "B"]}


@pytest.mark.parametrize(
    "names",
    [
        ("events.csv", "events_2023_2.csv"),
        ("events.csv", "events (1).csv"),
        ("orders-1.csv", "orders-2.csv"),
        ("jan.csv", "feb.csv"),
    ],
)
def test_files_of_one_name_or_of_one_header_are_parts_of_one_table(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    first, second = names
    write_files(tmp_path, {first: csv(LOG, slice(1)), second: csv(LOG, slice(1, 3))})
    assert len(load_dataset(tmp_path).log) == 3


def test_a_table_of_a_longer_name_is_read_if_it_is_the_only_one(tmp_path: Path) -> None:
    files = {"transactions_train.csv": csv(ORDERS), "products.csv": csv(SHELF)}
    others = {"customers.csv": "customer_id,age\n7,40\n", "transactions_types.csv": "type\n1\n"}
    with pytest.raises(DataError, match=r"_train\.csv and .*_types\.csv may both be meant"):
        load_dataset(write_files(tmp_path, files | others))
    (tmp_path / "transactions_types.csv").unlink()
    assert len(load_dataset(tmp_path).log) == 3


def test_a_table_of_a_longer_name_and_the_same_columns_is_not_left_out_silently(
    tmp_path: Path,
) -> None:
    write_files(tmp_path, {"events.csv": csv(LOG), "events_types.csv": "type\n1\n"})
    assert len(load_dataset(tmp_path).log) == 3
    write_files(tmp_path, {"events_more.csv": csv(LOG)})
    with pytest.raises(DataError, match=r"events\.csv and .*events_more\.csv may both be meant"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("user", "item", "time", "category"),
    [
        ("visitorid", "itemid", "timestamp", "categoryid"),
        ("reviewerID", "asin", "unixReviewTime", "category"),
        ("user_pseudo_id", "item_id", "event_timestamp", "item_category"),
        ("customer_id", "article_id", "t_dat", "genre_list"),
        ("customer", "movieId", "purchase_date", "category_name"),
    ],
)
def test_usual_names_of_columns_are_found(
    tmp_path: Path, user: str, item: str, time: str, category: str
) -> None:
    names = dict(zip(ORDERS, (user, item, time), strict=True))
    log = pd.DataFrame(LOG).rename(columns=names | {"category": category})
    write_files(tmp_path, {"log.csv": log.to_csv(index=False)})
    assert events_of(load_dataset(tmp_path / "log.csv")) == [("007", "x"), ("007", "y"), ("7", "y")]


def test_the_id_is_meant_where_a_name_stands_beside_it(tmp_path: Path) -> None:
    log = LOG | {"customer": "Bo", "product": "Tea", "category_id": "9", "ts": "1"}
    write_files(tmp_path, {"log.csv": csv(log)})
    dataset = load_dataset(tmp_path / "log.csv")
    assert dataset.log.user_ids.tolist() == ["007", "7"]
    assert dataset.catalog.categories == ("A", "B")


def test_ids_that_lost_their_zeros_are_shown_beside_those_that_did_not(tmp_path: Path) -> None:
    orders = csv(ORDERS | {"product_id": ["017", "018", "018"]})
    shelf = csv(SHELF | {"product_id": ["16", "17"]})
    write_files(tmp_path, {"orders.csv": orders, "products.csv": shelf})
    with pytest.raises(DataError, match="such as '017' in the log, and '17' in the catalog"):
        load_dataset(tmp_path)
