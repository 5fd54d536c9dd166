"""The catalog of a log that has none of its own: what its rows say of items, up to any time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.item_rows import has_lists, hashable, merge_item_rows
from llmrec.data.report import Finding
from llmrec.data.title_clusters import TitleCategories
from llmrec.data.validation import CATEGORIES, ITEM_ID, TIMESTAMP, TITLE

TAG = "tag"  # a column of rows that each have one name that an item was given
TAGS_PER_ITEM = 3


def item_rows_of_log(log: Interactions, frame: pd.DataFrame) -> pd.DataFrame:
    """Give what the rows of a log say of its items: item_id, title, categories, timestamp.

    An item of which all rows say the same has its earliest row only. Rows that cleaning dropped say
    nothing. They are in the order of items and times, whatever the order of the log's rows.

    Parameters
    ----------
    log
        Made of the frame.
    frame
        Its title, if there, and categories under our names; the rows in their order.
    """
    items, times = log.item_idx, log.timestamp.view(np.int64)
    said = [name for name in (TITLE, CATEGORIES) if name in frame]
    differs = np.zeros(len(log.item_ids), dtype=bool)
    for name in said:
        values = frame[name].map(hashable) if has_lists(frame[name]) else frame[name]
        codes = pd.factorize(values)[0][log.source_row]
        one = np.empty(len(log.item_ids), dtype=codes.dtype)
        one[items] = codes  # of whichever row of an item
        differs[items[codes != one[items]]] = True
    earliest = np.full(len(log.item_ids), np.iinfo(np.int64).max)
    np.minimum.at(earliest, items, times)
    events = np.flatnonzero(differs[items] | (times == earliest[items]))
    events = events[np.lexsort((times[events], items[events]))]
    first = np.diff(items[events], prepend=-1) > 0
    events = events[first | differs[items[events]]]
    table = frame[said].iloc[log.source_row[events]].reset_index(drop=True)
    table.insert(0, ITEM_ID, log.item_ids[items[events]])
    return table.assign(**{TIMESTAMP: log.timestamp[events]})


def catalog_of_rows(rows: pd.DataFrame, separator: str | None) -> Catalog:
    """Make the catalog of what `item_rows_of_log` gave.

    Rows with a column `TAG` in place of categories have one name each: those that an item was given
    most often are its categories.

    Raises
    ------
    DataError
        If no item of them has a category.
    """
    if TAG in rows:
        rows = _most_given(rows)
    return Catalog.from_frame(rows, separator=separator, times=TIMESTAMP)


def catalog_of_titles(
    rows: pd.DataFrame, about: TitleCategories, before: np.datetime64 | None = None
) -> tuple[Catalog, TitleCategories]:
    """Make the catalog of what `item_rows_of_log` gave where that has titles and no categories.

    Parameters
    ----------
    rows
        item_id, title and timestamp.
    about
        Its clusters are kept where they are of titles from before ``before``.
    before
        Clusters are of the titles that the rows before this time have (None: all rows); items that
        come later get the nearest one.

    Returns
    -------
    The catalog, and the clusters that its categories are.

    Raises
    ------
    DataError
        If no row lies before that time, or its titles hold no words.
    MissingExtraError
        Without scikit-learn.
    """
    items, findings = _merge_titles(rows)
    if before is None or not about.is_known_before(before):
        early = None if before is None else rows[TIMESTAMP] < before
        known = items if early is None or early.all() else _merge_titles(rows[early])[0]
        about = about.fit(known[TITLE].tolist(), before)
    assert about.clusters is not None
    names = about.clusters.assign(items[TITLE].tolist())
    items[CATEGORIES] = [[name] for name in names]
    catalog = Catalog.from_frame(items)
    rule = f"categories are {catalog.n_categories} clusters of titles"
    said = Finding(rule, catalog.n_items, f"such as {names[0]}", "read")
    return replace(catalog, report=catalog.report.with_notes(said, *findings)), about


def _merge_titles(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Give one row an item, its id and most frequent title (or the id); and where rows differ."""
    rows = rows.reset_index(drop=True)
    nothing = pd.Series(np.nan, index=rows.index)
    items = merge_item_rows(rows[ITEM_ID], rows[TITLE], nothing, None, rows[TIMESTAMP])
    titles = [title or name for title, name in zip(items.titles, items.ids, strict=True)]
    return pd.DataFrame({ITEM_ID: items.ids, TITLE: titles}), items.findings


def _most_given(rows: pd.DataFrame) -> pd.DataFrame:
    """Give one row an item: the names that it was given most often, and when it got the first."""
    counts = rows.groupby([ITEM_ID, TAG], sort=True).size().rename("n").reset_index()
    counts = counts.sort_values([ITEM_ID, "n"], ascending=[True, False], kind="stable")
    top = counts.groupby(ITEM_ID).head(TAGS_PER_ITEM)
    first = rows.groupby(ITEM_ID, sort=True)[[TITLE, TIMESTAMP]].first()
    names = top.groupby(ITEM_ID)[TAG].agg(list)
    return first.assign(**{CATEGORIES: names}).reset_index()
