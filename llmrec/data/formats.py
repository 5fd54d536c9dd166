"""Readers of published layouts: MovieLens, RecBole's atomic files, Complete Journey."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.file_frames import make_catalog, make_log
from llmrec.data.tables import TableReader, parquet_columns, read_parquet
from llmrec.data.validation import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID
from llmrec.errors import DataError
from llmrec.types import IntArray

# Complete Journey
EXCLUDED_PRODUCTS = ("COUPON", "COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")
_TRANSACTION_COLUMNS = ["household_id", "basket_id", "product_id", "transaction_timestamp"]
_PRODUCT_COLUMNS = ["product_id", "product_category", "product_type"]
# MovieLens
_RATING_COLUMNS = (USER_ID, ITEM_ID, RATING, TIMESTAMP)
_MOVIE_COLUMNS = (ITEM_ID, TITLE, CATEGORIES)
_MISSING_GENRES = ["unknown", "(no genres listed)"]
_GENRE_FLAGS = (  # of u.item, in its order
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance"),
    *("Sci-Fi", "Thriller", "War", "Western"),
)
# RecBole
_CATEGORY_COLUMNS = (CATEGORIES, "class", "genre", "genres", "category")
_QUOTED_NAMES = re.compile(r"(?:'[^']*'|\"[^\"]*\")(?:[\s,]+(?:'[^']*'|\"[^\"]*\"))*")


@dataclass(frozen=True)
class LayoutOptions:
    """How a layout is read, where a user says.

    Attributes
    ----------
    separator
        Of categories in a cell; None: the layout's own.
    cleaning
        Of `Interactions.from_frame`.
    clusters
        How many clusters of titles are categories, where items have none; None: the default.
    """

    separator: str | None = None
    cleaning: Mapping[str, Any] = field(default_factory=dict)
    clusters: int | None = None


def read_movielens_100k(folder: Path, options: LayoutOptions) -> Dataset:
    """Read GroupLens's MovieLens 100K: ``u.data`` and ``u.item``, whose genres are 0/1 flags."""
    reader = TableReader()
    names = [ITEM_ID, TITLE, "released", "video released", "link", *_GENRE_FLAGS]
    items = reader.delimited(folder / "u.item", "|", names, encoding="latin-1")
    if missing := [name for name in names if name not in items]:
        raise DataError(f"u.item has {items.shape[1]} values a line, and none for {missing[0]!r}.")
    genres = list(_GENRE_FLAGS[1:])
    items[CATEGORIES] = [
        [genre for genre, flag in zip(genres, row, strict=True) if flag == "1"]
        for row in items[genres].itertuples(index=False)
    ]
    ratings = reader.delimited(
        folder / "u.data", "\t", _RATING_COLUMNS, numbers=(RATING, TIMESTAMP)
    )
    files = folder / "u.data", folder / "u.item"
    return _movielens_dataset("ml-100k", ratings, items, files, reader, options)


def read_movielens_1m(folder: Path, options: LayoutOptions) -> Dataset:
    """Read MovieLens 1M: ``ratings.dat`` and ``movies.dat``, separated by two colons."""
    reader = TableReader()
    ratings = reader.delimited(
        folder / "ratings.dat",
        "::",
        _RATING_COLUMNS,
        encoding="latin-1",
        numbers=(RATING, TIMESTAMP),
    )
    movies = reader.delimited(folder / "movies.dat", "::", _MOVIE_COLUMNS, encoding="latin-1")
    files = folder / "ratings.dat", folder / "movies.dat"
    return _movielens_dataset("ml-1m", ratings, movies, files, reader, options)


def read_movielens_csv(folder: Path, options: LayoutOptions) -> Dataset:
    """Read MovieLens 20M and later: ``ratings.csv`` and ``movies.csv``."""
    reader = TableReader()
    ratings = reader.delimited(folder / "ratings.csv", quoted=True, numbers=(RATING, TIMESTAMP))
    movies = reader.delimited(folder / "movies.csv", quoted=True)
    return _movielens_dataset(
        folder.resolve().name,
        ratings.rename(columns={"userId": USER_ID, "movieId": ITEM_ID}),
        movies.rename(columns={"movieId": ITEM_ID, "genres": CATEGORIES}),
        (folder / "ratings.csv", folder / "movies.csv"),
        reader,
        options,
    )


def read_recbole(folder: Path, options: LayoutOptions) -> Dataset:
    """Read RecBole's ``NAME.inter`` and ``NAME.item``, whose headers say what a column holds.

    A "token" is text, a "token_seq" several of them: apart by spaces, or each in quotes.
    """
    reader = TableReader()
    inter, item = only_file(folder, "*.inter"), only_file(folder, "*.item")
    ratings, _ = _read_atomic(reader, inter)
    items, kinds = _read_atomic(reader, item)
    items = items.rename(columns={"movie_title": TITLE})
    if found := [name for name in _CATEGORY_COLUMNS if name in items]:
        items = items.rename(columns={found[0]: CATEGORIES})
        if kinds[found[0]] == "token_seq" and options.separator is None:
            named = items[CATEGORIES].mask(items[CATEGORIES].isin(_MISSING_GENRES))
            items[CATEGORIES] = named.map(_split_tokens, na_action="ignore")
    if TITLE in items and "release_year" in items:
        year = items["release_year"]
        items[TITLE] = items[TITLE].where(
            ~year.str.fullmatch(r"\d{4}").fillna(False).astype(bool),
            items[TITLE] + " (" + year + ")",
        )
    return _movielens_dataset(inter.stem, ratings, items, (inter, item), reader, options)


def only_file(folder: Path, pattern: str) -> Path:
    """Find the one file whose name is of a pattern; DataError if there are several."""
    first, *others = sorted(folder.glob(pattern))
    if others:
        raise DataError(f"{first} and {others[0].name} may both be meant: leave one of them there.")
    return first


def _read_atomic(reader: TableReader, path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read an atomic file, and give the kind of each column by its name."""
    frame = reader.delimited(path, "\t", numbers=("timestamp:float", "rating:float"))
    if frame.shape[1] == 1:
        raise DataError(
            f"{path}: no tab stands between {frame.columns[0][:60]!r}: the values of atomic files "
            "are separated by tabs."
        )
    kinds = dict(column.partition(":")[::2] for column in frame.columns)
    return frame.rename(columns=lambda name: name.partition(":")[0]), kinds


def _split_tokens(text: str) -> list[str]:
    """Split a token_seq: names in quotes, or words apart by spaces."""
    text = text.strip()
    if _QUOTED_NAMES.fullmatch(text):
        return [one[1:-1] for one in re.findall(r"'[^']*'|\"[^\"]*\"", text)]
    return text.split()


def _movielens_dataset(
    name: str,
    ratings: pd.DataFrame,
    items: pd.DataFrame,
    files: tuple[Path, Path],
    reader: TableReader,
    options: LayoutOptions,
) -> Dataset:
    if CATEGORIES in items:
        items[CATEGORIES] = items[CATEGORIES].mask(items[CATEGORIES].isin(_MISSING_GENRES))
    catalog = make_catalog(items, files[1], separator=options.separator)
    log = make_log(ratings, files[0], catalog, **options.cleaning)
    return Dataset(
        name,
        log,
        catalog,
        "10 events",
        "films",
        "viewer",
        "exclude",
        "watched",
        reading=tuple(reader.findings),
    )


def has_completejourney_columns(folder: Path) -> bool:
    """Whether ``transactions.parquet`` has the columns of Complete Journey."""
    names = parquet_columns(folder / "transactions.parquet")
    return {"household_id", "basket_id"} <= set(names)


def read_completejourney(folder: Path, options: LayoutOptions) -> Dataset:
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
    log = make_log(
        lines,
        folder / "transactions.parquet",
        columns={"user_id": "household_id", "timestamp": "transaction_timestamp"},
        identity=["basket_id", "product_id"],
        leave_out={"coupon or fuel": excluded, "line without a category": codes < 0},
        **options.cleaning,
    )
    catalog = Catalog.from_frame(items[items[ITEM_ID].isin(log.item_ids)])
    return Dataset(
        "completejourney",
        log.align_to(catalog),
        catalog,
        "28D",
        "groceries",
        "shopper",
        "allow",
        "bought",
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
    # Butter of the category Butter needs no category beside it to be told from other butter.
    shared &= items[TITLE].str.lower() != items[CATEGORIES].str.lower()
    items[TITLE] = items[TITLE].mask(shared, items[TITLE] + " (" + items[CATEGORIES] + ")")
    items[CATEGORIES] = items[CATEGORIES].map(lambda name: [name])
    return items, np.asarray(codes, dtype=np.int64)


def title_case(text: str) -> str:
    """Write capitals as words: "FLUID MILK PRODUCTS" as "Fluid Milk Products".

    Only the case of letters changes, so different names stay different; letters after a digit
    ("15PK") stay as they are.
    """
    return re.sub(r"(?<![0-9A-Z'])[A-Z][A-Z']*", lambda word: word[0].capitalize(), text)
