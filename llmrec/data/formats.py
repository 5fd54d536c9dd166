"""Readers of published layouts: MovieLens, Complete Journey, MIND, Amazon Reviews 2023."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.files import read_delimited, read_json_lines, read_parquet
from llmrec.data.interactions import Interactions
from llmrec.data.validation import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID
from llmrec.types import IntArray

# Amazon Reviews 2023
_REVIEW_FIELDS = {
    USER_ID: pa.string(),
    "parent_asin": pa.string(),
    TIMESTAMP: pa.int64(),
    RATING: pa.float64(),
}
_PRODUCT_FIELDS = {
    "parent_asin": pa.string(),
    TITLE: pa.string(),
    "main_category": pa.string(),
    CATEGORIES: pa.list_(pa.string()),
}
# Complete Journey
EXCLUDED_PRODUCTS = ("COUPON", "COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")
_TRANSACTION_COLUMNS = ["household_id", "basket_id", "product_id", "transaction_timestamp"]
_PRODUCT_COLUMNS = ["product_id", "product_category", "product_type"]
# MIND
_BEHAVIOR_COLUMNS = ("impression_id", USER_ID, TIMESTAMP, "history", "impressions")
_NEWS_COLUMNS = (
    *(ITEM_ID, CATEGORIES, "subcategory", TITLE, "abstract", "url", "entities", "mentions"),
)
# MovieLens
_RATING_COLUMNS = (USER_ID, ITEM_ID, RATING, TIMESTAMP)
_MOVIE_COLUMNS = (ITEM_ID, TITLE, CATEGORIES)
_MISSING_GENRES = ["unknown", "(no genres listed)"]
_GENRE_FLAGS = (  # of u.item, in its order
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance"),
    *("Sci-Fi", "Thriller", "War", "Western"),
)


def read_movielens_100k(folder: Path) -> Dataset:
    """Read GroupLens's MovieLens 100K: ``u.data`` and ``u.item``, whose genres are 0/1 flags."""
    names = [ITEM_ID, TITLE, "released", "video released", "link", *_GENRE_FLAGS]
    items = read_delimited(folder / "u.item", "|", names, encoding="latin-1")
    genres = list(_GENRE_FLAGS[1:])
    items[CATEGORIES] = [
        [genre for genre, flag in zip(genres, row, strict=True) if flag == 1]
        for row in items[genres].itertuples(index=False)
    ]
    return _movielens_dataset(
        "ml-100k", read_delimited(folder / "u.data", "\t", _RATING_COLUMNS), items
    )


def read_movielens_1m(folder: Path) -> Dataset:
    """Read MovieLens 1M: ``ratings.dat`` and ``movies.dat``, separated by two colons."""
    ratings = read_delimited(folder / "ratings.dat", "::", _RATING_COLUMNS, encoding="latin-1")
    movies = read_delimited(folder / "movies.dat", "::", _MOVIE_COLUMNS, encoding="latin-1")
    return _movielens_dataset("ml-1m", ratings, movies)


def read_movielens_csv(folder: Path) -> Dataset:
    """Read MovieLens 20M and later: ``ratings.csv`` and ``movies.csv``."""
    ratings = read_delimited(folder / "ratings.csv", ",", quoted=True)
    movies = read_delimited(folder / "movies.csv", ",", quoted=True)
    return _movielens_dataset(
        folder.resolve().name,
        ratings.rename(columns={"userId": USER_ID, "movieId": ITEM_ID}),
        movies.rename(columns={"movieId": ITEM_ID, "genres": CATEGORIES}),
    )


def read_recbole(folder: Path) -> Dataset:
    """Read RecBole's ``NAME.inter`` and ``NAME.item``: typed headers, genres apart by spaces."""
    (inter, *_), (item, *_) = sorted(folder.glob("*.inter")), sorted(folder.glob("*.item"))
    ratings, items = (
        read_delimited(path, "\t").rename(columns=lambda name: name.partition(":")[0])
        for path in (inter, item)
    )
    items = items.rename(columns={"class": CATEGORIES, "genre": CATEGORIES, "movie_title": TITLE})
    if CATEGORIES in items:
        items[CATEGORIES] = items[CATEGORIES].str.replace(" ", "|")
    if TITLE in items and "release_year" in items:
        year = items["release_year"].astype("str")
        items[TITLE] = items[TITLE].where(
            ~year.str.fullmatch(r"\d{4}").fillna(False), items[TITLE] + " (" + year + ")"
        )
    return _movielens_dataset(inter.stem, ratings, items)


def _movielens_dataset(name: str, ratings: pd.DataFrame, items: pd.DataFrame) -> Dataset:
    if CATEGORIES in items:
        items[CATEGORIES] = items[CATEGORIES].mask(items[CATEGORIES].isin(_MISSING_GENRES))
    catalog = Catalog.from_frame(items)
    log = Interactions.from_frame(ratings, unit="s").align_to(catalog)
    return Dataset(name, log, catalog, "10 events", "films", "viewer", "exclude")


def read_completejourney(folder: Path) -> Dataset:
    """Read ``transactions.parquet`` and ``products.parquet``.

    An item is a product type within a category (the log has no product names, and the same type
    occurs under several categories), so each item has one category. Two products of one type in
    one basket are two events. Coupons, fuel and lines without a category are dropped and counted.
    """
    lines = read_parquet(folder / "transactions.parquet", _TRANSACTION_COLUMNS)
    products = read_parquet(folder / "products.parquet", _PRODUCT_COLUMNS)
    products = products.drop_duplicates("product_id")
    items, item_of_product = _items_of_products(products)
    # Position -1, an unknown product, takes the last entry: no item, and not excluded either.
    product = pd.Index(products["product_id"]).get_indexer(pd.Index(lines["product_id"]))
    codes = np.append(item_of_product, -1)[product]
    excluded = np.append(products["product_category"].isin(EXCLUDED_PRODUCTS), False)[product]
    lines[ITEM_ID] = pd.Categorical.from_codes(codes, pd.Index(items[ITEM_ID]))
    log = Interactions.from_frame(
        lines,
        {"user_id": "household_id", "timestamp": "transaction_timestamp"},
        identity=["basket_id", "product_id"],
        leave_out={"coupon or fuel": excluded, "line without a category": codes < 0},
    )
    catalog = Catalog.from_frame(items[items[ITEM_ID].isin(log.item_ids)])
    return Dataset(
        "completejourney", log.align_to(catalog), catalog, "28D", "groceries", "shopper", "allow"
    )


def _items_of_products(products: pd.DataFrame) -> tuple[pd.DataFrame, IntArray]:
    """Give the items, one a row, and (n_products,) each product's row among them, or -1."""
    category = products["product_category"]
    pairs = pd.DataFrame({CATEGORIES: category, TITLE: products["product_type"].fillna(category)})
    keys = [CATEGORIES, TITLE]
    codes = pairs.groupby(keys, sort=True).ngroup().fillna(-1).astype(np.int64)
    items = pairs[codes >= 0].drop_duplicates().sort_values(keys).apply(lambda c: c.map(title_case))
    items[ITEM_ID] = items[CATEGORIES] + ": " + items[TITLE]
    # Types are cut at 30 characters, often inside a bracket.
    items[TITLE] = items[TITLE].str.replace(r" *\([^()]*$", "", regex=True)
    shared = items[TITLE].duplicated(keep=False)
    items[TITLE] = items[TITLE].mask(shared, items[TITLE] + " (" + items[CATEGORIES] + ")")
    items[CATEGORIES] = items[CATEGORIES].map(lambda name: [name])
    return items, np.asarray(codes, dtype=np.int64)


def title_case(text: str) -> str:
    """Write capitals as words: "FLUID MILK PRODUCTS" as "Fluid Milk Products".

    Only the case of letters changes, so different names stay different; letters after a digit
    ("15PK") stay as they are.
    """
    return re.sub(r"(?<![0-9A-Z'])[A-Z][A-Z']*", lambda word: word[0].capitalize(), text)


def read_mind(folder: Path) -> Dataset:
    """Read ``behaviors.tsv`` and ``news.tsv``.

    Events are the clicked impressions, and the clicks of the column ``history``. Those carry no
    time; they are known to precede the user's first impression, and are put one millisecond before
    it, in their order. So periods are counted in events here: calendar periods would be wrong.
    """
    news = read_delimited(folder / "news.tsv", "\t", _NEWS_COLUMNS)
    behaviors = read_delimited(folder / "behaviors.tsv", "\t", _BEHAVIOR_COLUMNS)
    behaviors[TIMESTAMP] = pd.to_datetime(
        behaviors[TIMESTAMP], format="%m/%d/%Y %I:%M:%S %p", errors="coerce"
    )
    clicked = behaviors["impressions"].str.findall(r"(\S+)-1(?!\S)")
    first = behaviors.sort_values(TIMESTAMP, kind="stable").drop_duplicates(USER_ID)
    earlier = first.assign(**{TIMESTAMP: first[TIMESTAMP] - MILLISECOND})
    events = pd.concat(
        [
            earlier.assign(**{ITEM_ID: first["history"].str.split()}),
            behaviors.assign(**{ITEM_ID: clicked}),
        ]
    )[[USER_ID, ITEM_ID, TIMESTAMP]].explode(ITEM_ID, ignore_index=True)
    # An impression without a click and a user without a history are rows of no event.
    events = events.dropna(subset=[ITEM_ID])
    catalog = Catalog.from_frame(news)
    log = Interactions.from_frame(events, bot_events_per_day=None).align_to(catalog)
    return Dataset("mind", log, catalog, "10 events", "articles", "reader", "exclude")


def read_amazon(folder: Path) -> Dataset:
    """Read every ``meta_NAME.jsonl`` or ``.jsonl.gz`` of a folder with its ``NAME.jsonl``.

    An item's category is the second step of its path ``categories`` (the first is the same for a
    whole file), or ``main_category`` where the path is shorter.
    """
    metas = sorted(folder.glob("meta_*.jsonl*"))
    reviews = [path.with_name(path.name.removeprefix("meta_")) for path in metas]
    items = pd.concat([read_json_lines(path, _PRODUCT_FIELDS) for path in metas], ignore_index=True)
    items = items.reindex(columns=list(dict.fromkeys([*items, CATEGORIES, "main_category"])))
    items[CATEGORIES] = items[CATEGORIES].astype("object").str.get(1).fillna(items["main_category"])
    items[CATEGORIES] = [[name] for name in items[CATEGORIES]]
    catalog = Catalog.from_frame(items, {ITEM_ID: "parent_asin"})
    log = Interactions.from_frame(
        pd.concat([read_json_lines(path, _REVIEW_FIELDS) for path in reviews], ignore_index=True),
        {ITEM_ID: "parent_asin"},
        unit="ms",
    )
    name = f"amazon-{'+'.join(path.name.partition('.')[0] for path in reviews)}"
    return Dataset(
        name, log.align_to(catalog), catalog, "10 events", "products", "shopper", "exclude"
    )
