"""Published layouts, one fixture each: read from their folder without an option."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.formats import title_case
from llmrec.data.readers import load_dataset
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from tests.data.log_files import (
    NOON,
    categories_of,
    events_of,
    json_lines,
    write_files,
)

# MovieLens


def test_movielens_100k_has_its_genres_in_flags(tmp_path: Path) -> None:
    flags = "0|1|0|0|1" + "|0" * 14
    films = (
        f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n"
        f'2|"Quoted (1996)|01-Jan-1996||http://y|{"0|" * 18}1\n'
        f"3|unknown||||1{'|0' * 18}\n"
    )
    ratings = f"7\t2\t3\t{NOON + 1}\n7\t1\t5\t{NOON}\n9\t3\t1\t{NOON}\n"
    dataset = load_dataset(
        write_files(tmp_path, {"u.data": ratings, "u.item": films.encode("latin-1")})
    )
    assert dataset.name == "ml-100k"
    assert events_of(dataset) == [("7", "Misérables, Les (1995)"), ("7", '"Quoted (1996)')]
    assert categories_of(dataset) == {
        "Misérables, Les (1995)": ("Action", "Children's"),
        '"Quoted (1996)': ("Western",),
        "unknown": (),
    }
    assert dataset.log.report.dropped == {"item without a category": 1}
    assert (dataset.person, dataset.noun, dataset.repeat) == ("viewer", "films", "exclude")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_movielens_1m_is_separated_by_two_colons(tmp_path: Path, encoding: str) -> None:
    films = '10::Café: "A Life" (1999)::Drama|Sci-Fi\n20::M (1931)::Film-Noir\n'
    ratings = f"1::10::5::{NOON}\n1::20::4::{NOON + 1}\n"
    files = {"movies.dat": films.encode(encoding), "ratings.dat": ratings}
    dataset = load_dataset(write_files(tmp_path, files))
    assert dataset.name == "ml-1m"
    assert categories_of(dataset) == {
        'Café: "A Life" (1999)': ("Drama", "Sci-Fi"),
        "M (1931)": ("Film-Noir",),
    }
    assert dataset.log.rating is not None
    assert dataset.log.rating.tolist() == [5, 4]


@pytest.mark.parametrize("name", ["ml-20m", "ml-latest-small"])
def test_movielens_20m_and_latest_are_csv_with_quoted_titles(tmp_path: Path, name: str) -> None:
    files = {
        "ratings.csv": f"userId,movieId,rating,timestamp\n1,10,4.5,{NOON}\n1,20,3,{NOON}\n",
        "movies.csv": 'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n'
        "20,Plain (2000),(no genres listed)\n",
        # Beside them, and not read:
        "tags.csv": f"userId,movieId,tag,timestamp\n9,20,witty,{NOON}\n",
        "links.csv": "movieId,imdbId,tmdbId\n10,0112346,9087\n",
        "genome-tags.csv": "tagId,tag\n1,007\n",
    }
    dataset = load_dataset(write_files(tmp_path / name, files))
    assert dataset.name == name
    assert events_of(dataset) == [("1", "American President, The (1995)")]
    assert categories_of(dataset) == {
        "American President, The (1995)": ("Comedy", "Drama"),
        "Plain (2000)": (),
    }
    assert dataset.log.report.dropped == {"item without a category": 1}


# RecBole

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"


def recbole(folder: Path, inter: str, item: str) -> Path:
    return write_files(folder, {"shop.inter": INTER + inter, "shop.item": item})


def test_recbole_files_have_typed_headers_and_genres_apart_by_spaces(tmp_path: Path) -> None:
    inter = f"7\t1\t5\t{NOON}\n7\t2\t4\t{NOON + 1}\n9\t3\t1\t{NOON}\n"
    item = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's\n2\tNA\tV\tSci-Fi\n3\tunkonwn\t\tunknown\n"
    )
    dataset = load_dataset(recbole(tmp_path, inter, item))
    assert dataset.name == "shop"
    assert categories_of(dataset) == {
        "Toy Story (1995)": ("Animation", "Children's"),
        "NA": ("Sci-Fi",),
        "unkonwn": (),
    }
    assert events_of(dataset) == [("7", "Toy Story (1995)"), ("7", "NA")]


@pytest.mark.parametrize("separator", [", ", " "])
def test_recbole_names_in_quotes_hold_spaces(tmp_path: Path, separator: str) -> None:
    names = separator.join(["'Home & Kitchen'", '"Children\'s Bedding"'])
    item = f"item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token\nx\tT\t{names}\tB\n"
    dataset = load_dataset(recbole(tmp_path, f"u\tx\t5\t{NOON}\n", item))
    assert categories_of(dataset) == {"T": ("Children's Bedding", "Home & Kitchen")}


def test_a_recbole_token_is_text(tmp_path: Path) -> None:
    inter = "".join(f"{one}\t1e5\t5\t{NOON}\n" for one in ("007", "07", "7"))
    item = "item_id:token\tclass:token\n1e5\t01\n100000\t1\n"
    dataset = load_dataset(recbole(tmp_path, inter, item))
    assert dataset.log.user_ids.tolist() == ["007", "07", "7"]
    assert dataset.catalog.item_ids.tolist() == ["1e5", "100000"]
    assert categories_of(dataset) == {"1e5": ("01",), "100000": ("1",)}


def test_recbole_files_that_are_not_two_are_refused(tmp_path: Path) -> None:
    files = {"a.inter": INTER + f"u\tx\t5\t{NOON}\n"}
    with pytest.raises(DataError, match=r"with \*\.inter there must be \*\.item"):
        load_dataset(write_files(tmp_path, files))
    item = {"a.item": "item_id:token\tclass:token\nx\tA\n"}
    with pytest.raises(DataError, match=r"a\.inter and .*b\.inter may both be meant"):
        load_dataset(write_files(tmp_path, item | {"b.inter": files["a.inter"]}))


def test_recbole_files_apart_by_spaces_are_refused(tmp_path: Path) -> None:
    item = "item_id:token class:token\nx A\n"
    with pytest.raises(DataError, match=r"shop\.item: no tab stands between 'item_id"):
        load_dataset(recbole(tmp_path, f"u\tx\t5\t{NOON}\n", item))


# MIND


@pytest.mark.parametrize("n_news_columns", [8, 4])
@pytest.mark.parametrize("has_impression_ids", [True, False])
def test_mind_puts_earlier_clicks_before_the_first_impression(
    tmp_path: Path, n_news_columns: int, has_impression_ids: bool
) -> None:
    news = [("N1", "sports", "One"), ("N2", "news", 'A "quote'), ("N3", "travel", "Three")]
    rows = [f"{n}\t{c}\tsub\t{t}\tabstract\turl\t[]\t[]".split("\t") for n, c, t in news]
    behaviors = (
        "1\tU1\t11/13/2019 8:36:57 AM\tN3 N1\tN1-0 N2-0\n"
        "2\tU1\t11/12/2019 6:11:30 PM\tN3 N1\tN2-1 N13-1 N1-0\n"
        "3\tU2\t11/12/2019 6:11:30 PM\t\tN1-1 N2-1\n"
    )
    if not has_impression_ids:
        behaviors = "".join(line.partition("\t")[2] for line in behaviors.splitlines(keepends=True))
    files = {
        "news.tsv": "".join("\t".join(row[:n_news_columns]) + "\n" for row in rows),
        "behaviors.tsv": behaviors,
    }
    dataset = load_dataset(write_files(tmp_path, files))
    assert events_of(dataset) == [
        ("U1", "Three"),
        ("U1", "One"),
        ("U1", 'A "quote'),
        ("U2", "One"),
        ("U2", 'A "quote'),
    ]
    assert dataset.log.timestamp[2] == np.datetime64("2019-11-12T18:11:30", "ms")
    assert dataset.log.timestamp[1] == np.datetime64("2019-11-12T18:11:29.999", "ms")
    assert categories_of(dataset)["Three"] == ("travel",)
    assert len(make_windows(dataset.log, dataset.catalog, "1 event")) == 2


def test_mind_takes_dates_and_tells_rows_of_its_file(tmp_path: Path) -> None:
    behaviors = (
        "1\tU1\t13/11/2019 8:36:57 AM\t\tN1-0 N2-1\n"
        "2\tU1\t12/11/2019 6:11:30 PM\tN2 N1\tN1-1\n"
        "3\tU2\tsoon\tN1 N2\tN1-1 N2-1\n"
        "4\t\t12/11/2019 6:11:30 PM\t\tN1-1\n"
    )
    news = "N1\tsports\tsub\tOne\nN2\tnews\tsub\tTwo\n"
    write_files(tmp_path, {"news.tsv": news, "behaviors.tsv": behaviors})
    dataset = load_dataset(tmp_path, dates="day-first")
    assert dataset.log.timestamp[-1] == np.datetime64("2019-11-13T08:36:57", "ms")
    assert dataset.log.day_first
    found = {one.rule: (one.rows, one.example) for one in dataset.findings}
    assert found == {
        "dates in column 'timestamp' are read day first": (
            3,
            "row 0: 13/11/2019 8:36:57 AM is 2019-11-13",
        ),
        "time that is not understood": (4, "row 2"),  # two clicks before, and two of them
        "missing user_id": (1, "row 3"),
        "impression without a user_id": (1, "row 3"),
        "impression without a time": (1, "row 2"),
    }
    assert "4 dropped: time that is not understood (rows 2)" in str(dataset.log.report)


def test_mind_without_clicks_and_histories_is_refused(tmp_path: Path) -> None:
    files = {
        "news.tsv": "N1\tsports\tsub\tOne\n",
        "behaviors.tsv": "1\tU1\t11/13/2019 8:36:57 AM\t\tN1 N2\n",
    }
    with pytest.raises(DataError, match=r"behaviors\.tsv: nobody has a history, and no impression"):
        load_dataset(write_files(tmp_path, files))


# Amazon Reviews 2023

REVIEWS: list[dict[str, Any]] = [
    {"user_id": "U", "parent_asin": item, "rating": 5.0, "timestamp": NOON * 1000 + n}
    for n, item in enumerate(["A", "B", "lost"])
]
PRODUCTS: list[dict[str, Any]] = [
    {"parent_asin": "A", "title": "Comb", "categories": ["Beauty", "Hair, Care", "Combs"]},
    {"parent_asin": "B", "title": "Oil", "main_category": "All Beauty", "categories": []},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz"])
def test_amazon_reviews_or_ratings_alone_stand_beside_products(tmp_path: Path, suffix: str) -> None:
    ratings = pd.DataFrame(REVIEWS).assign(history="")
    reviews = json_lines(row | {"text": "long", "price": str(n)} for n, row in enumerate(REVIEWS))
    text = ratings.to_csv(index=False) if ".csv" in suffix else reviews
    products = json_lines(
        row | {"price": price, "details": {}}
        for row, price in zip(PRODUCTS, (9.5, None), strict=True)
    )
    files = {
        f"All_Beauty{suffix}": gzip.compress(text.encode()) if ".gz" in suffix else text,
        "meta_All_Beauty.jsonl.gz": gzip.compress(products.encode()),
    }
    dataset = load_dataset(write_files(tmp_path, files))
    assert dataset.name == "amazon-All_Beauty"
    assert categories_of(dataset) == {"Comb": ("Hair, Care",), "Oil": ("All Beauty",)}
    assert events_of(dataset) == [("U", "Comb"), ("U", "Oil")]
    assert dataset.log.timestamp[0] == np.datetime64(NOON, "s")
    assert dataset.log.report.dropped == {"item not in the catalog": 1}


def test_broken_amazon_reviews_are_named_by_file_and_line_or_column(tmp_path: Path) -> None:
    good = json_lines(REVIEWS[:1])
    write_files(tmp_path, {"meta_X.jsonl": json_lines(PRODUCTS)})
    for reviews, message in (
        (good + good + '{"user_id": "U", \n', r"X\.jsonl: line 3 is not JSON .*user_id"),
        (good.replace("timestamp", "sortTimestamp"), r"'timestamp' is missing \(columns found: us"),
        (good.replace(str(NOON * 1000), '"now"'), r"X\.jsonl: column 'timestamp', row 0: a string"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset(write_files(tmp_path, {"X.jsonl": reviews}))


def test_a_broken_one_of_several_amazon_files_is_named_with_its_row(tmp_path: Path) -> None:
    files = {f"meta_{name}.jsonl": json_lines(PRODUCTS) for name in "XY"}
    header = "user_id,parent_asin,rating,timestamp\n"
    good = f"U,A,5,{NOON}\n"
    write_files(tmp_path, files | {"X.csv": header + 5 * good})
    for reviews, message in (
        (header.replace("timestamp", "at") + good, r"Y\.csv: column 'timestamp' is missing"),
        (header + good + good.replace(",5,", ",bad,"), r"column 'rating', row 1 of Y\.csv: 'bad'"),
    ):
        with pytest.raises(DataError, match=message):
            load_dataset(write_files(tmp_path, {"Y.csv": reviews}))


# HetRec Last.fm


def test_lastfm_events_are_tags_given_to_artists(tmp_path: Path) -> None:
    given = [(2, 1, 1, NOON), (2, 1, 2, NOON), (3, 2, 2, NOON + 1), (4, 2, 2, NOON + 2)]
    files: dict[str, str | bytes] = {
        # Its lines end in \r\n; its artists are UTF-8, its tags are not.
        "artists.dat": "id\tname\turl\tpictureURL\r\n"
        '1\tMALICE "MIZER\thttp://x\thttp://y\r\n2\tBjörk\thttp://z\t\r\n',
        "tags.dat": "tagID\ttagValue\r\n1\tmetal\r\n2\té pop\r\n".encode("latin-1"),
        "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\r\n"
        + "".join(f"{user}\t{artist}\t{tag}\t{at}000\r\n" for user, artist, tag, at in given)
        + "5\t2\t2\t-428720400000\r\n",
        # Beside them, and not read:
        "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\r\n",
        "user_artists.dat": "userID\tartistID\tweight\r\n2\t1\t13883\r\n",
    }
    dataset = load_dataset(write_files(tmp_path, files))
    assert events_of(dataset) == [("2", 'MALICE "MIZER'), ("3", "Björk"), ("4", "Björk")]
    assert categories_of(dataset) == {'MALICE "MIZER': ("metal", "é pop"), "Björk": ("é pop",)}
    assert sum(dataset.log.report.dropped.values()) == 1  # tagged in 1956


def test_a_tag_that_is_given_later_is_not_known_before(tmp_path: Path) -> None:
    early = [(1, 1, 1, NOON), (2, 1, 2, NOON), (2, 1, 1, NOON + 1), (3, 2, 4, NOON)]
    late = [(user, 1, tag, NOON + 9) for user in (4, 5, 6) for tag in (3, 4, 5)]
    broken = [(7, 1, 6, -428720400) for _ in range(9)]  # in 1956: these say nothing
    given = "".join(
        f"{u}\t{artist}\t{tag}\t{at}000\n" for u, artist, tag, at in early + late + broken
    )
    files = {
        "artists.dat": "id\tname\n1\tOne\n2\tTwo\n",
        "tags.dat": "tagID\ttagValue\n" + "".join(f"{tag}\ttag {tag}\n" for tag in range(1, 7)),
        "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\n" + given,
    }
    dataset = load_dataset(write_files(tmp_path, files))
    assert categories_of(dataset) == {"One": ("tag 3", "tag 4", "tag 5"), "Two": ("tag 4",)}
    known = dataset.known_before(np.datetime64(NOON + 5, "s"))
    assert categories_of(known) == {"One": ("tag 1", "tag 2"), "Two": ("tag 4",)}
    assert len(known.log) == 4


def test_a_column_that_last_fm_lacks_is_named_with_its_file(tmp_path: Path) -> None:
    files = {
        "artists.dat": "id\tname\n1\tOne\n",
        "tags.dat": "tagID\tvalue\n1\tmetal\n",
        "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\n"
        f"1\t1\t1\t{NOON}\n",
    }
    with pytest.raises(DataError, match=r"tags\.dat: column 'tagValue' is missing"):
        load_dataset(write_files(tmp_path, files))


# Steam

STEAM_REVIEWS: list[dict[str, Any]] = [
    {"username": "Chaos ★", "product_id": "10", "date": "2017-12-17", "early_access": False},
    {"username": "it's", "product_id": "20", "date": "2017-12-18", "user_id": "7656119"},
]
GAMES: list[dict[str, Any]] = [
    {"id": "10", "app_name": "Lost", "title": "Lost (DLC)", "genres": ["Action", "Indie"]},
    {"id": "20", "title": "Found", "tags": ["Strategy"], "early_access": True},
    {"title": "A game without an id", "genres": ["Action"]},
]


@pytest.mark.parametrize("write", [json.dumps, repr])
@pytest.mark.parametrize("is_gzipped", [True, False])
def test_steam_objects_are_written_as_json_or_by_python(
    tmp_path: Path, write: Any, is_gzipped: bool
) -> None:
    for name, rows in (("steam_reviews.json", STEAM_REVIEWS), ("steam_games.json", GAMES)):
        content = "".join(write(row) + "\n" for row in rows).encode()
        if is_gzipped:
            write_files(tmp_path, {f"{name}.gz": gzip.compress(content)})
        else:
            write_files(tmp_path, {name: content})
    dataset = load_dataset(tmp_path)
    assert events_of(dataset) == [("Chaos ★", "Lost"), ("it's", "Found")]
    assert categories_of(dataset) == {"Lost": ("Action", "Indie"), "Found": ("Strategy",)}


def test_broken_steam_files_are_named_by_line(tmp_path: Path) -> None:
    games = "".join(repr(row) + "\n" for row in GAMES)
    reviews = "".join(repr(row) + "\n" for row in STEAM_REVIEWS)
    files = {"steam_games.json": games, "steam_reviews.json": reviews + "{u'username': \n"}
    with pytest.raises(DataError, match=r"steam_reviews\.json: line 3 is no object: \"\{u'user"):
        load_dataset(write_files(tmp_path, files))
    packed = gzip.compress(reviews.encode())[:-9]
    with pytest.raises(DataError, match=r"steam_reviews\.json: .*Correct or replace"):
        load_dataset(write_files(tmp_path, {"steam_reviews.json": packed}))


# Complete Journey


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
    assert categories_of(dataset) == {
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
    titles = [title for _, title in events_of(dataset)]
    assert titles.count("Fluid Milk White Only") == 2
    assert len(titles) == 6
    assert dataset.log.report.dropped == {"coupon or fuel": 1, "line without a category": 2}
    assert dataset.log.report.rows_read == 9


def test_a_broken_or_incomplete_parquet_file_is_named(tmp_path: Path) -> None:
    complete_journey(tmp_path)
    pd.DataFrame({"product_id": [1]}).to_parquet(tmp_path / "products.parquet")
    with pytest.raises(DataError, match=r"products\.parquet: column 'product_category' is missing"):
        load_dataset(tmp_path)
    content = (tmp_path / "transactions.parquet").read_bytes()
    (tmp_path / "transactions.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"transactions\.parquet: .*Correct or replace the file"):
        load_dataset(tmp_path)


def test_words_in_capitals_get_title_case_and_stay_different() -> None:
    names = ["CHILDREN'S 12/18&15PK", "BREAD:ITALIAN/FRENCH", "MISC. DAIRY", "CHIPS&SNACKS"]
    words = [title_case(name) for name in names]
    assert words == ["Children's 12/18&15PK", "Bread:Italian/French", "Misc. Dairy", "Chips&Snacks"]
    assert [word.upper() for word in words] == names
