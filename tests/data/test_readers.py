from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from datasets import Dataset as HubDataset

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.formats import title_case
from llmrec.data.readers import load_dataset, read_table
from llmrec.data.synthetic import make_synthetic_world
from llmrec.data.windows import make_windows
from llmrec.errors import DataError

NOON = 1_577_880_000


def write(folder: Path, encoding: str = "utf-8", **files: str) -> Path:
    """Write files whose names have a dot for the first underscore: ``u_data`` is ``u.data``."""
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding=encoding)
    return folder


def taken(dataset: Dataset) -> list[tuple[str, str]]:
    log = dataset.log
    return [
        (log.user_ids[user], dataset.catalog.titles[item])
        for user, item in zip(log.user_idx, log.item_idx, strict=True)
    ]


def categories(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    items = dataset.catalog
    return {title: items.categories_of(item) for item, title in enumerate(items.titles)}


def movielens_100k(folder: Path) -> Path:
    flags = "0|1|0|0|1" + "|0" * 14
    return write(
        folder,
        "latin-1",
        u_data=f"7\t2\t3\t{NOON + 1}\n7\t1\t5\t{NOON}\n9\t3\t1\t{NOON}\n",
        u_item=f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n"
        f'2|"Quoted (1996)|01-Jan-1996||http://y|{"0|" * 18}1\n'
        f"3|unknown||||1{'|0' * 18}\n",
    )


def test_movielens_100k_has_its_genres_in_flags(tmp_path: Path) -> None:
    dataset = load_dataset(movielens_100k(tmp_path))
    assert dataset.name == "ml-100k"
    assert taken(dataset) == [("7", "Misérables, Les (1995)"), ("7", '"Quoted (1996)')]
    assert categories(dataset) == {
        "Misérables, Les (1995)": ("Action", "Children's"),
        '"Quoted (1996)': ("Western",),
        "unknown": (),
    }
    assert dataset.log.report.dropped == {"item without a category": 1}
    assert (dataset.person, dataset.noun, dataset.repeat) == ("viewer", "films", "exclude")


def test_recbole_files_have_typed_headers_and_genres_apart_by_spaces(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        f"7\t1\t5\t{NOON}\n7\t2\t4\t{NOON + 1}\n9\t3\t1\t{NOON}\n"
    )
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's\n2\tNA\tV\tSci-Fi\n3\tunkonwn\t\tunknown\n"
    )
    dataset = load_dataset(tmp_path)
    assert dataset.name == "ml-100k"
    assert categories(dataset) == {
        "Toy Story (1995)": ("Animation", "Children's"),
        "NA": ("Sci-Fi",),
        "unkonwn": (),
    }
    assert taken(dataset) == [("7", "Toy Story (1995)"), ("7", "NA")]


def test_movielens_1m_is_separated_by_two_colons(tmp_path: Path) -> None:
    write(
        tmp_path,
        "latin-1",
        ratings_dat=f"1::10::5::{NOON}\n1::20::4::{NOON + 1}\n",
        movies_dat='10::Café: "A Life" (1999)::Drama|Sci-Fi\n20::M (1931)::Film-Noir\n',
    )
    dataset = load_dataset(tmp_path)
    assert dataset.name == "ml-1m"
    assert categories(dataset) == {
        'Café: "A Life" (1999)': ("Drama", "Sci-Fi"),
        "M (1931)": ("Film-Noir",),
    }
    assert dataset.log.rating is not None
    assert dataset.log.rating.tolist() == [5, 4]


def test_movielens_latest_is_csv_with_quoted_titles(tmp_path: Path) -> None:
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    write(
        folder,
        ratings_csv=f"userId,movieId,rating,timestamp\n1,10,4.5,{NOON}\n1,20,3,{NOON}\n",
        movies_csv='movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n'
        "20,Plain (2000),(no genres listed)\n",
    )
    dataset = load_dataset(folder)
    assert dataset.name == "ml-latest-small"
    assert categories(dataset) == {
        "American President, The (1995)": ("Comedy", "Drama"),
        "Plain (2000)": (),
    }
    assert dataset.log.report.dropped == {"item without a category": 1}


def complete_journey(folder: Path) -> Path:
    products = [
        (1, "FLUID MILK PRODUCTS", "FLUID MILK WHITE ONLY"),
        (2, "FLUID MILK PRODUCTS", "FLUID MILK WHITE ONLY"),
        (3, "LAMB", "PREMIUM"),
        (4, "LIQUOR", "PREMIUM"),
        (5, "SOFT DRINKS", "SOFT DRINKS 15PK CAN CAR (EXCL"),
        (6, "COUPON/MISC ITEMS", "ELECTRONIC GIFT CARDS"),
        (7, None, None),
        (8, "CIGARS", None),
        (9, "FROZEN PACKAGE MEAT", "NEVER BOUGHT"),
    ]
    lines = [(1, 100, product) for product in (1, 2, 3, 4, 5, 6, 7, 8, 77)]
    names = ["product_id", "product_category", "product_type"]
    pd.DataFrame(products, columns=names).to_parquet(folder / "products.parquet")
    frame = pd.DataFrame(lines, columns=["household_id", "basket_id", "product_id"])
    frame["transaction_timestamp"] = pd.Timestamp("2017-01-01 11:53:26")
    frame.to_parquet(folder / "transactions.parquet")
    return folder


def test_complete_journey_items_are_types_within_a_category(tmp_path: Path) -> None:
    dataset = load_dataset(complete_journey(tmp_path))
    assert dataset.name == "completejourney"
    assert categories(dataset) == {
        "Cigars": ("Cigars",),
        "Fluid Milk White Only": ("Fluid Milk Products",),
        "Premium (Lamb)": ("Lamb",),
        "Premium (Liquor)": ("Liquor",),
        "Soft Drinks 15PK Can Car": ("Soft Drinks",),
    }
    assert dataset.catalog.item_ids[1] == "Fluid Milk Products: Fluid Milk White Only"


def test_complete_journey_keeps_two_products_of_one_type_and_counts_what_it_drops(
    tmp_path: Path,
) -> None:
    dataset = load_dataset(complete_journey(tmp_path))
    titles = [title for _, title in taken(dataset)]
    assert titles.count("Fluid Milk White Only") == 2
    assert len(titles) == 6
    assert dataset.log.report.dropped == {"coupon or fuel": 1, "line without a category": 2}
    assert dataset.log.report.rows_read == 9


def test_words_in_capitals_get_title_case_and_stay_different() -> None:
    names = ["CHILDREN'S 12/18&15PK", "BREAD:ITALIAN/FRENCH", "MISC. DAIRY", "CHIPS&SNACKS"]
    words = [title_case(name) for name in names]
    assert words == ["Children's 12/18&15PK", "Bread:Italian/French", "Misc. Dairy", "Chips&Snacks"]
    assert [word.upper() for word in words] == names


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_amazon_reviews_are_json_lines(tmp_path: Path, suffix: str) -> None:
    reviews = [
        {"user_id": "U", "parent_asin": item, "timestamp": NOON * 1000 + n, "rating": 5.0}
        for n, item in enumerate(["A", "B", "lost"])
    ]
    meta: list[dict[str, Any]] = [
        {"parent_asin": "A", "title": "Comb", "categories": ["Beauty", "Hair, Care", "Combs"]},
        {"parent_asin": "B", "title": "Oil", "main_category": "All Beauty", "categories": []},
    ]
    for name, rows in (("All_Beauty", reviews), ("meta_All_Beauty", meta)):
        text = "".join(json.dumps(row | {"text": "long"}) + "\n" for row in rows).encode()
        (tmp_path / (name + suffix)).write_bytes(gzip.compress(text) if "gz" in suffix else text)
    dataset = load_dataset(tmp_path)
    assert dataset.name == "amazon-All_Beauty"
    assert categories(dataset) == {"Comb": ("Hair, Care",), "Oil": ("All Beauty",)}
    assert taken(dataset) == [("U", "Comb"), ("U", "Oil")]
    assert dataset.log.timestamp[0] == np.datetime64(NOON, "s")
    assert dataset.log.report.dropped == {"item not in the catalog": 1}


def test_mind_puts_earlier_clicks_before_the_first_impression(tmp_path: Path) -> None:
    news = [("N1", "sports", "One"), ("N2", "news", 'A "quote'), ("N3", "travel", "Three")]
    write(
        tmp_path,
        news_tsv="".join(f"{n}\t{c}\tsub\t{t}\tabstract\turl\t[]\t[]\n" for n, c, t in news),
        behaviors_tsv="1\tU1\t11/13/2019 8:36:57 AM\tN3 N1\tN1-0 N2-0\n"
        "2\tU1\t11/12/2019 6:11:30 PM\tN3 N1\tN2-1 N13-1 N1-0\n"
        "3\tU2\t11/12/2019 6:11:30 PM\t\tN1-1 N2-1\n",
    )
    dataset = load_dataset(tmp_path)
    assert taken(dataset) == [
        ("U1", "Three"),
        ("U1", "One"),
        ("U1", 'A "quote'),
        ("U2", "One"),
        ("U2", 'A "quote'),
    ]
    assert dataset.log.timestamp[2] == np.datetime64("2019-11-12T18:11:30", "ms")
    assert dataset.log.timestamp[1] == np.datetime64("2019-11-12T18:11:29.999", "ms")
    assert categories(dataset)["Three"] == ("travel",)
    assert len(make_windows(dataset.log, dataset.catalog, "1 event")) == 2


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
    assert taken(dataset) == [("a", "X"), ("a", "Y")]
    assert categories(dataset) == {"X": ("A", "B"), "Y": ("B",)}


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
    assert load_dataset(movielens_100k(tmp_path / "synthetic")).name == "ml-100k"
    assert load_dataset("./synthetic").name == "ml-100k"


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
        assert load_dataset(movielens_100k(tmp_path / folder)).name == "ml-100k"
    assert load_dataset("synthetic-1").name == "synthetic-1"
    assert load_dataset("synthetic-x").name == "ml-100k"
    with pytest.raises(DataError, match=r"'synthetic-y'.*Nor is there such a folder"):
        load_dataset("synthetic-y")


def test_an_unknown_name_and_an_unknown_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'netflix'.*ml-100k.*'synthetic'\. Nor is there such a folder"
    ):
        load_dataset("netflix")
    write(tmp_path, notes_txt="hello")
    with pytest.raises(DataError, match=r"no known layout. Found notes\.txt; known are .*u\.data"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match=r"notes\.txt is not a \.csv, \.tsv or \.parquet"):
        load_dataset(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"lost\.csv is not there"):
        read_table(tmp_path / "lost.csv")


def test_a_line_with_too_many_values_is_named(tmp_path: Path) -> None:
    movielens_100k(tmp_path)
    write(tmp_path, u_data=f"7\t2\t3\t{NOON}\n7\t1\t5\t{NOON}\t9\t9\n")
    with pytest.raises(DataError, match=r"u\.data: Expected 4 fields in line 2, saw 6"):
        load_dataset(tmp_path)


def test_a_line_with_too_few_values_is_dropped_and_counted(tmp_path: Path) -> None:
    movielens_100k(tmp_path)
    write(tmp_path, u_data=f"7\t2\t3\t{NOON}\n7\t1\n")
    assert load_dataset(tmp_path).log.report.dropped == {"missing or impossible time": 1}


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    movielens_100k(tmp_path)
    write(tmp_path, u_data="")
    with pytest.raises(DataError, match=r"u\.data: it holds no rows"):
        load_dataset(tmp_path)
    write(tmp_path, log_csv="")
    with pytest.raises(DataError, match=r"log\.csv: No columns to parse"):
        load_dataset(tmp_path / "log.csv")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user_id,item_id\ncafé,x\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"log\.csv is in another encoding"):
        load_dataset(path)


def test_a_renamed_column_of_a_file_is_named_with_those_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        ratings_csv=f"user,movieId,rating,timestamp\n1,10,4.5,{NOON}\n",
        movies_csv="movieId,title,genres\n10,X,Drama\n",
    )
    with pytest.raises(DataError, match=r"'user_id' is missing \(columns found: user, item_id"):
        load_dataset(tmp_path)


def test_a_broken_or_incomplete_parquet_file_is_named(tmp_path: Path) -> None:
    complete_journey(tmp_path)
    pd.DataFrame({"product_id": [1]}).to_parquet(tmp_path / "products.parquet")
    with pytest.raises(DataError, match=r"products\.parquet: column 'product_category' is missing"):
        load_dataset(tmp_path)
    content = (tmp_path / "transactions.parquet").read_bytes()
    (tmp_path / "transactions.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"transactions\.parquet: .*Correct or replace the file"):
        load_dataset(tmp_path)


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    good = json.dumps({"user_id": "U", "parent_asin": "A", "timestamp": NOON * 1000}) + "\n"
    (tmp_path / "meta_X.jsonl").write_text('{"parent_asin": "A", "main_category": "C"}\n')
    (tmp_path / "X.jsonl").write_text(good + good + '{"user_id": "U", \n')
    with pytest.raises(DataError, match=r"X\.jsonl: line 3 is not JSON .*user_id"):
        load_dataset(tmp_path)
    (tmp_path / "X.jsonl").write_text(good.replace("timestamp", "sortTimestamp"))
    with pytest.raises(DataError, match=r"'timestamp' is missing \(columns found: user_id"):
        load_dataset(tmp_path)
    (tmp_path / "X.jsonl").write_text(good.replace(str(NOON * 1000), '"yesterday"'))
    with pytest.raises(DataError, match=r"X\.jsonl: JSON parse error.*timestamp"):
        load_dataset(tmp_path)


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    meta = b'{"parent_asin": "A", "main_category": "C"}\n'
    rows = "".join(json.dumps({"user_id": str(n), "parent_asin": "A"}) + "\n" for n in range(999))
    (tmp_path / "meta_X.jsonl.gz").write_bytes(gzip.compress(meta))
    (tmp_path / "X.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:500])
    with pytest.raises(DataError, match=r"X\.jsonl\.gz: "):
        load_dataset(tmp_path)


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
