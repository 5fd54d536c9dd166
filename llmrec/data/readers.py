"""Loading of any log: by an embedded name, from a folder in a known layout, or from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.data import formats
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import log_folder
from llmrec.data.files import read_table_file
from llmrec.data.interactions import Interactions
from llmrec.data.synthetic import make_synthetic_world, relabel_categories
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    USER_ID,
    require_columns,
    to_pandas,
)
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy

SYNTHETIC_PREFIX = "synthetic-"
# The files that tell a layout, and its reader; the first that fits is taken.
_LAYOUTS: tuple[tuple[tuple[str, ...], Callable[[Path], Dataset]], ...] = (
    (("*.inter", "*.item"), formats.read_recbole),
    (("u.data", "u.item"), formats.read_movielens_100k),
    (("ratings.dat", "movies.dat"), formats.read_movielens_1m),
    (("ratings.csv", "movies.csv"), formats.read_movielens_csv),
    (("transactions.parquet", "products.parquet"), formats.read_completejourney),
    (("behaviors.tsv", "news.tsv"), formats.read_mind),
    (("meta_*.jsonl*",), formats.read_amazon),
)
_EVENT_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, RATING)
_ITEM_COLUMNS = (ITEM_ID, TITLE, CATEGORIES)


def load_dataset(name: str | Path) -> Dataset:
    """Load a log with its catalog.

    Parameters
    ----------
    name
        "ml-100k" or "completejourney": embedded logs ("./ml-100k" is a folder of yours).
        "synthetic": the made-up log of `make_synthetic_world`, whose best forecast is known;
        "synthetic-3": another one, of seed 3 and with category names of its own. A folder of
        MovieLens (100K, 1M, 20M, latest, RecBole), Complete Journey, MIND or Amazon Reviews 2023. A
        .csv, .tsv or .parquet file with columns user_id, item_id, timestamp, categories and, if
        there, title and rating.

    Raises
    ------
    DataError
        If it is none of these, or a file of it is broken; the message names file and line.
    """
    if str(name) == "synthetic":
        return make_synthetic_world().dataset
    seed = str(name).removeprefix(SYNTHETIC_PREFIX)
    if seed != str(name) and seed.isdecimal():
        dataset = make_synthetic_world(seed=int(seed)).dataset
        return replace(relabel_categories(dataset, int(seed)), name=str(name))
    path = _find_path(name)
    try:
        if path.is_file():
            return read_table(path, name=path.name.partition(".")[0])
        return _choose_reader(path)(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_table(
    log: Any,
    catalog: Any = None,
    columns: Mapping[str, str] | None = None,
    *,
    name: str = "table",
    period: str = "28D",
    noun: str = "items",
    person: str = "person",
    repeat: RepeatPolicy = "allow",
) -> Dataset:
    """Make a dataset of any table of events and any table of items.

    Parameters
    ----------
    log
        Path of a .csv, .tsv or .parquet file, pandas or polars frame, or ``datasets.Dataset``:
        user_id, item_id, timestamp, and maybe rating.
    catalog
        The same for items: item_id, categories (lists, or text separated by "|"), maybe title.
        Or a `Catalog`. None: the log's own columns of these names.
    columns
        Our name to the tables' name, for those that differ.
    name, period, noun, person, repeat
        See `Dataset`.

    Raises
    ------
    DataError
        If a column is missing, or nothing survives cleaning.
    """
    columns = dict(columns or {})
    known = dict.fromkeys((*_EVENT_COLUMNS, *_ITEM_COLUMNS))
    if unknown := set(columns) - set(known):
        raise DataError(f"columns: {min(unknown)!r} is none of our names ({', '.join(known)}).")
    user_id, item_id = columns.get(USER_ID, USER_ID), columns.get(ITEM_ID, ITEM_ID)
    events = _as_frame(log, (user_id, item_id))
    if isinstance(catalog, Catalog):
        items = catalog
    else:
        if catalog is None:
            require_columns(events, {ITEM_ID: item_id})
            item_frame = events.drop_duplicates(item_id)
        else:
            item_frame = _as_frame(catalog, (item_id,))
        items = Catalog.from_frame(item_frame, _only(columns, _ITEM_COLUMNS))
    interactions = Interactions.from_frame(events, _only(columns, _EVENT_COLUMNS))
    return Dataset(name, interactions.align_to(items), items, period, noun, person, repeat)


def _find_path(name: str | Path) -> Path:
    try:
        return log_folder(str(name))
    except DataError as error:
        if not Path(name).exists():
            raise DataError(
                f"{error} A made-up one is called 'synthetic'. Nor is there such a folder or file."
            ) from error
    return Path(name)


def _choose_reader(folder: Path) -> Callable[[Path], Dataset]:
    for files, reader in _LAYOUTS:
        if all(any(folder.glob(file)) for file in files):
            return reader
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    known = "; ".join(" + ".join(files) for files, _ in _LAYOUTS)
    raise DataError(f"no known layout. Found {found}; known are {known}. Or use read_table.")


def _only(columns: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: columns[name] for name in names if name in columns}


def _as_frame(table: Any, ids: Sequence[str]) -> pd.DataFrame:
    return read_table_file(Path(table), ids) if isinstance(table, (str, Path)) else to_pandas(table)
