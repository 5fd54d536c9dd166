"""MovieLens in the layouts it is found in: 100K, 1M, latest, and RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.frames import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID
from llmrec.data.interactions import Interactions
from llmrec.data.tables import read_text

_RATINGS = (USER_ID, ITEM_ID, RATING, TIMESTAMP)
_MOVIES = (ITEM_ID, TITLE, CATEGORIES)
_NO_GENRE = ["unknown", "(no genres listed)"]
# The flags of u.item, in its order.
_FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance"),
    *("Sci-Fi", "Thriller", "War", "Western"),
)


def read_100k(folder: Path) -> Dataset:
    """Read GroupLens's MovieLens 100K: ``u.data`` and ``u.item``, whose genres are 0/1 flags."""
    names = [ITEM_ID, TITLE, "released", "video released", "link", *_FLAGS]
    items = read_text(folder / "u.item", "|", names, encoding="latin-1")
    genres = list(_FLAGS[1:])
    items[CATEGORIES] = [
        [genre for genre, flag in zip(genres, row, strict=True) if flag == 1]
        for row in items[genres].itertuples(index=False)
    ]
    return _dataset("ml-100k", read_text(folder / "u.data", "\t", _RATINGS), items)


def read_1m(folder: Path) -> Dataset:
    """Read MovieLens 1M: ``ratings.dat`` and ``movies.dat``, separated by two colons."""
    ratings = read_text(folder / "ratings.dat", "::", _RATINGS, encoding="latin-1")
    movies = read_text(folder / "movies.dat", "::", _MOVIES, encoding="latin-1")
    return _dataset("ml-1m", ratings, movies)


def read_latest(folder: Path) -> Dataset:
    """Read MovieLens 20M and later: ``ratings.csv`` and ``movies.csv``."""
    ratings = read_text(folder / "ratings.csv", ",", quoted=True)
    movies = read_text(folder / "movies.csv", ",", quoted=True)
    return _dataset(
        folder.resolve().name,
        ratings.rename(columns={"userId": USER_ID, "movieId": ITEM_ID}),
        movies.rename(columns={"movieId": ITEM_ID, "genres": CATEGORIES}),
    )


def read_atomic(folder: Path) -> Dataset:
    """Read RecBole's ``NAME.inter`` and ``NAME.item``: typed headers, genres apart by spaces."""
    (inter, *_), (item, *_) = sorted(folder.glob("*.inter")), sorted(folder.glob("*.item"))
    ratings, items = (
        read_text(path, "\t").rename(columns=lambda name: name.partition(":")[0])
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
    return _dataset(inter.stem, ratings, items)


def _dataset(name: str, ratings: pd.DataFrame, items: pd.DataFrame) -> Dataset:
    if CATEGORIES in items:
        items[CATEGORIES] = items[CATEGORIES].mask(items[CATEGORIES].isin(_NO_GENRE))
    catalog = Catalog.from_frame(items)
    log = Interactions.from_frame(ratings, unit="s").aligned(catalog)
    return Dataset(name, log, catalog, "10 events", "films", "viewer", "exclude")
