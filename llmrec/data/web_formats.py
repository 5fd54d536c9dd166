"""Readers of published logs of web sites: MIND, Amazon Reviews 2023, HetRec Last.fm, Steam."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llmrec.data.calendar import MILLISECOND
from llmrec.data.dataset import Dataset
from llmrec.data.file_frames import make_catalog, make_log
from llmrec.data.formats import LayoutOptions, only_file
from llmrec.data.impressions import IMPRESSIONS, Impressions
from llmrec.data.interactions import Interactions
from llmrec.data.log_items import TAG, catalog_of_rows
from llmrec.data.source_rows import name_rows, tell_first_row
from llmrec.data.table_folder import join_parts, name_parts
from llmrec.data.tables import TableReader, name_file, name_in_errors
from llmrec.data.text_files import open_binary
from llmrec.data.times import parse_timestamps
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    RATING,
    TIMESTAMP,
    TITLE,
    USER_ID,
    require_columns,
)
from llmrec.errors import DataError

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
_REVIEW_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz")
# HetRec Last.fm
_TAG_TIMES = "user_taggedartists-timestamps.dat"
_EVENT_COLUMNS = [USER_ID, ITEM_ID, TIMESTAMP]
# MIND
_BEHAVIOR_COLUMNS = ("impression_id", USER_ID, TIMESTAMP, "history", IMPRESSIONS)
_NEWS_COLUMNS = (
    *(ITEM_ID, CATEGORIES, "subcategory", TITLE, "abstract", "url", "entities", "mentions"),
)
# Steam
_GAME_FIELDS = {
    "id": pa.string(),
    "app_name": pa.string(),
    TITLE: pa.string(),
    "genres": pa.list_(pa.string()),
    "tags": pa.list_(pa.string()),
}
_STEAM_FIELDS = {
    "username": pa.string(),
    "user_id": pa.string(),
    "product_id": pa.string(),
    "date": pa.string(),
}


def read_mind(folder: Path, options: LayoutOptions) -> Dataset:
    """Read ``behaviors.tsv`` and ``news.tsv``.

    Events are the clicked impressions, and the clicks of the column ``history``. Those carry no
    time; they are known to precede the user's first impression, and are put milliseconds before it,
    in their order. So periods are counted in events here: calendar periods would be wrong. What
    was shown, clicked or not, is in the dataset's ``impressions``; entities are not read.
    """
    reader = TableReader()
    news = reader.delimited(folder / "news.tsv", "\t", _NEWS_COLUMNS)
    behaviors = _read_behaviors(reader, folder / "behaviors.tsv")
    with name_file(folder / "behaviors.tsv"), name_rows(behaviors.index):
        parsed = parse_timestamps(
            behaviors[TIMESTAMP], options.cleaning.get("dates") or "month-first"
        )
    behaviors[TIMESTAMP] = parsed.times
    events = _clicks(behaviors)
    if not len(events):
        raise DataError(
            "behaviors.tsv: nobody has a history, and no impression was clicked: none ends in -1, "
            "as in a test part. Give a part with clicks."
        )
    catalog = make_catalog(news, folder / "news.tsv", separator=options.separator)
    # Times of a history are made up: what a day holds says nothing of bots.
    cleaning = {**options.cleaning, "dates": None, "bot_events_per_day": None}
    place = behaviors.index.get_indexer(events.index)
    unusable = {reason: rows[place] for reason, rows in parsed.unusable.items()}
    log = make_log(events, folder / "behaviors.tsv", catalog, leave_out=unusable, **cleaning)
    log = replace(log, day_first=parsed.day_first)
    said = tuple(reader.findings) + tuple(
        replace(one, example=tell_first_row(one.example, behaviors.index))
        for one in parsed.findings
    )
    with name_file(folder / "behaviors.tsv"):
        shown = Impressions.from_frame(behaviors, catalog)
    return Dataset(
        "mind",
        log,
        catalog,
        "10 events",
        "articles",
        "reader",
        "exclude",
        "read",
        reading=said,
        impressions=shown,
    )


def _clicks(behaviors: pd.DataFrame) -> pd.DataFrame:
    """Give the events of impressions, with the index of their rows: earlier clicks, then others."""
    clicked = behaviors[IMPRESSIONS].str.findall(r"(\S+)-1(?!\S)")
    first = behaviors.sort_values(TIMESTAMP, kind="stable").drop_duplicates(USER_ID)
    earlier = first.assign(**{ITEM_ID: first["history"].fillna("").str.split()})
    columns = [USER_ID, ITEM_ID, TIMESTAMP]
    earlier = earlier[columns].explode(ITEM_ID)
    to_go = earlier.groupby(USER_ID).cumcount(ascending=False) + 1  # clicks up to the impression
    earlier[TIMESTAMP] -= to_go.to_numpy() * MILLISECOND
    others = behaviors.assign(**{ITEM_ID: clicked})[columns].explode(ITEM_ID)
    # An impression without a click and a user without a history are rows of no event.
    return pd.concat([earlier, others]).dropna(subset=[ITEM_ID])


def _read_behaviors(reader: TableReader, path: Path) -> pd.DataFrame:
    """Read impressions; a file of four columns has no ids of impressions."""
    table = reader.delimited(path, "\t", _BEHAVIOR_COLUMNS)
    if table.shape[1] == len(_BEHAVIOR_COLUMNS) - 1:
        table.columns = pd.Index(_BEHAVIOR_COLUMNS[1:])
    if table.shape[1] < len(_BEHAVIOR_COLUMNS) - 1:
        raise DataError(
            f"{path} has {table.shape[1]} columns; {', '.join(_BEHAVIOR_COLUMNS)} are needed."
        )
    return table


def read_amazon(folder: Path, options: LayoutOptions) -> Dataset:
    """Read every ``meta_NAME.jsonl`` of a folder with its ``NAME.jsonl`` or ratings ``NAME.csv``.

    Any of them may be gzipped. An item's category is the second step of its path ``categories``
    (the first is the same for a whole file), or ``main_category`` where the path is shorter.
    """
    reader = TableReader()
    metas = sorted(folder.glob("meta_*.jsonl*"))
    reviews = [_find_reviews(path) for path in metas]
    items = join_parts(metas, [_read_products(reader, path) for path in metas])
    items = items.reindex(columns=list(dict.fromkeys([*items, CATEGORIES, "main_category"])))
    items[CATEGORIES] = items[CATEGORIES].astype("object").str.get(1).fillna(items["main_category"])
    items[CATEGORIES] = [[name] for name in items[CATEGORIES]]
    columns = {ITEM_ID: "parent_asin"}
    catalog = make_catalog(items, name_parts(metas), columns, separator=options.separator)
    events = join_parts(reviews, [_read_reviews(reader, path) for path in reviews])
    log = make_log(events, name_parts(reviews), catalog, columns, **options.cleaning)
    name = f"amazon-{'+'.join(path.name.partition('.')[0] for path in reviews)}"
    return Dataset(
        name,
        log,
        catalog,
        "10 events",
        "products",
        "shopper",
        "exclude",
        "bought",
        reading=tuple(reader.findings),
    )


def _find_reviews(meta: Path) -> Path:
    """Find the reviews, or the ratings alone, that belong to a file of products."""
    name = meta.name.removeprefix("meta_").partition(".jsonl")[0]
    tried = [meta.with_name(name + suffix) for suffix in _REVIEW_SUFFIXES]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(f"{meta} has no reviews beside it: {' or '.join(one.name for one in tried)}.")


def _read_products(reader: TableReader, path: Path) -> pd.DataFrame:
    table = reader.json_lines(path, _PRODUCT_FIELDS)
    with name_file(path):
        require_columns(table, {ITEM_ID: "parent_asin"}, can_map=False)
    return table


def _read_reviews(reader: TableReader, path: Path) -> pd.DataFrame:
    if ".jsonl" in path.name:
        table = reader.json_lines(path, _REVIEW_FIELDS)
    else:
        table = reader.delimited(path, quoted=True, numbers=(RATING, TIMESTAMP))
    needed = {USER_ID: USER_ID, ITEM_ID: "parent_asin", TIMESTAMP: TIMESTAMP}
    with name_file(path):
        require_columns(table, needed, can_map=False)
    return table


def read_lastfm(folder: Path, options: LayoutOptions) -> Dataset:
    """Read HetRec 2011's Last.fm: who gave an artist which tag, when.

    An event is a person at an artist at a time, whatever the number of tags. An artist's categories
    are the tags that it was given most often; what nobody had tagged before a time is not known
    then.
    """
    reader = TableReader()
    tags = _read_names(reader, folder / "tags.dat", "tagID", "tagValue")
    artists = _read_names(reader, folder / "artists.dat", "id", "name")
    given = reader.delimited(folder / _TAG_TIMES, "\t", numbers=(TIMESTAMP,))
    given = given.rename(columns={"userID": USER_ID, "artistID": ITEM_ID})
    with name_file(folder / _TAG_TIMES):
        require_columns(given, {name: name for name in (*_EVENT_COLUMNS, "tagID")}, can_map=False)
    log = make_log(given.drop_duplicates(_EVENT_COLUMNS), folder / _TAG_TIMES, **options.cleaning)
    given[TAG] = given["tagID"].map(tags)
    given[TITLE] = given[ITEM_ID].map(artists)
    rows = _given_tags(log, given)
    catalog = catalog_of_rows(rows, options.separator)
    return Dataset(
        "lastfm",
        log.align_to(catalog),
        catalog,
        "10 events",
        "artists",
        "listener",
        "exclude",
        "tagged",
        reading=tuple(reader.findings),
        item_rows=rows,
    )


def _read_names(reader: TableReader, path: Path, key: str, name: str) -> dict[str, str]:
    """Read a file that says what ids are called."""
    table = reader.delimited(path, "\t", encoding="latin-1")
    with name_file(path):
        require_columns(table, {key: key, name: name}, can_map=False)
    return dict(zip(table[key], table[name], strict=True))


def _given_tags(log: Interactions, given: pd.DataFrame) -> pd.DataFrame:
    """Give the rows of tags whose event is in the log, with its item and time."""
    event = given.groupby(_EVENT_COLUMNS, sort=False, dropna=False).ngroup()
    kept = np.full(len(given), -1)  # events of the log, by their place among the distinct ones
    kept[log.source_row] = np.arange(len(log))
    place = kept[event]
    rows = given.loc[place >= 0, [TITLE, TAG]]
    events = place[place >= 0]
    rows = rows.assign(
        **{ITEM_ID: log.item_ids[log.item_idx[events]], TIMESTAMP: log.timestamp[events]}
    )
    return rows.sort_values([ITEM_ID, TIMESTAMP], kind="stable", ignore_index=True)


def read_steam(folder: Path, options: LayoutOptions) -> Dataset:
    """Read ``steam_reviews.json`` and ``steam_games.json``, maybe gzipped, an object a line.

    The published files hold objects as Python writes them; JSON is read, too. A game's categories
    are its genres, or its tags where it has none.
    """
    reader = TableReader()
    reviews = only_file(folder, "steam_reviews*.json*")
    games = only_file(folder, "steam_games*.json*")
    items = _read_objects(reader, games, _GAME_FIELDS)
    items = items.reindex(columns=list(_GAME_FIELDS))
    items[CATEGORIES] = items["genres"].where(items["genres"].str.len() > 0, items["tags"])
    items[TITLE] = items["app_name"].fillna(items[TITLE])
    events = _read_objects(reader, reviews, _STEAM_FIELDS)
    user = "username" if "username" in events else "user_id"
    catalog = make_catalog(items, games, {ITEM_ID: "id"}, separator=options.separator)
    columns = {USER_ID: user, ITEM_ID: "product_id", TIMESTAMP: "date"}
    log = make_log(events, reviews, catalog, columns, **options.cleaning)
    return Dataset(
        "steam",
        log,
        catalog,
        "10 events",
        "games",
        "player",
        "exclude",
        "played",
        reading=tuple(reader.findings),
    )


def _read_objects(reader: TableReader, path: Path, fields: Mapping[str, Any]) -> pd.DataFrame:
    """Read some fields of objects, one a line, as JSON or as Python writes them."""
    rows = []
    with name_in_errors(path), open_binary(path) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1 and _is_json(line):
                return reader.json_lines(path, fields)
            try:
                found = ast.literal_eval(line.decode("utf-8").strip())
                rows.append({name: found[name] for name in fields if name in found})
            except (ValueError, SyntaxError, TypeError, RecursionError) as error:
                shown = line[:60].decode("utf-8", "replace").rstrip()
                raise DataError(f"line {number} is no object: {shown!r}. Correct it.") from error
        if not rows:
            raise DataError("it holds no rows.")
    return pd.DataFrame(rows)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(b"[")  # a list of all objects, over several lines
    return True
