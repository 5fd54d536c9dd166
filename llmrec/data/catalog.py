"""Items with titles and categories, and a sparse matrix between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.ids import lookup_id
from llmrec.data.item_features import (
    COLUMN_PREFIX,
    FeatureMatrix,
    feature_lists,
    features_from_lists,
    match_features,
    read_features,
)
from llmrec.data.item_rows import merge_item_rows
from llmrec.data.names import clean_text, shorten_names
from llmrec.data.report import CleaningReport
from llmrec.data.title_clusters import TextClusters
from llmrec.data.validation import CATEGORIES, ITEM_ID, TITLE, require_columns, to_pandas
from llmrec.errors import DataError, ModelLoadError
from llmrec.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Catalog:
    """Items with their titles and categories. Build one with `from_frame`.

    Attributes
    ----------
    item_ids
        (n_items,) string ids.
    titles
        (n_items,) cleaned titles.
    categories
        (n_categories,) cleaned names, in the order of every category array of the package.
    category_shares
        (n_items, n_categories) sparse float64: how an item divides over its categories. Rows sum
        to 1, or to 0 for an item without a category.
    report
        What cleaning dropped.
    features
        (n_items, d) float32 of each block by name, see `with_features`; NaN in all columns of an
        item without.
    """

    item_ids: pd.Index[str]
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    category_shares: sparse.csr_array
    report: CleaningReport
    features: Mapping[str, FeatureMatrix] = field(default_factory=dict)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Mapping[str, str] | None = None,
        *,
        separator: str | None = None,
        times: str | None = None,
    ) -> Catalog:
        """Validate and clean a frame of items.

        Parameters
        ----------
        frame
            pandas or polars frame, or a ``datasets.Dataset``. An item may have several rows: its
            title and its categories are those of most of them, or of the latest.
        columns
            Our name (item_id, title, categories) to the frame's name. Title defaults to the id.
        separator
            Splits ``categories`` where they are texts (default: "|"). Lists are taken as they are,
            also those that are written as text.
        times
            Column that tells which row of an item is the latest (default: the last one is).

        Raises
        ------
        DataError
            If a column is missing, there is no item, or no item has a category.
        """
        frame = to_pandas(frame).reset_index(drop=True)
        names = {ITEM_ID: ITEM_ID, TITLE: TITLE, CATEGORIES: CATEGORIES, **(columns or {})}
        optional = {TITLE} - set(columns or {})
        needed = {ours: names[ours] for ours in names if ours not in optional}
        require_columns(frame, needed, optional=[*optional])
        items = merge_item_rows(
            frame[names[ITEM_ID]],
            frame.get(names[TITLE]),
            frame[names[CATEGORIES]],
            separator,
            None if times is None else frame[times],
        )
        report = CleaningReport(len(frame)).with_dropped(
            "missing item_id", np.flatnonzero(items.missing)
        )
        report = report.with_notes(*items.findings)
        if not len(items.ids):
            raise DataError(f"the catalog is empty.\n{report}")
        categories, shares = _category_shares(items.names)
        return cls(
            item_ids=items.ids,
            titles=tuple(
                title or clean_text(item_id)
                for title, item_id in zip(items.titles, items.ids, strict=True)
            ),
            categories=categories,
            category_shares=shares,
            report=report,
        )

    @classmethod
    def with_clustered_categories(
        cls,
        frame: Any,
        columns: Mapping[str, str] | None = None,
        *,
        n_categories: int = 20,
        seed: int = 0,
    ) -> Catalog:
        """Build a catalog whose categories are clusters of item texts, named by their terms.

        Texts are the ``text`` column if mapped, else the titles: TF-IDF, k-means, and the three
        terms of largest weight in each centre as its name. Needs the ``clusters`` extra.
        """
        frame = to_pandas(frame).reset_index(drop=True)
        names = {ITEM_ID: ITEM_ID, TITLE: TITLE, **(columns or {})}
        text = names.pop("text", names[TITLE])
        require_columns(frame, {**names, "text": text})
        texts = [clean_text(value, 2_000) for value in frame[text]]
        clusters = TextClusters.fit(texts, n_categories, seed)
        frame[CATEGORIES] = [[name] for name in clusters.assign(texts)]
        return cls.from_frame(frame, names)

    def with_features(self, name: str, matrix: Any) -> Catalog:
        """Give the catalog with one more block of features, which scorers compare items by.

        Items without features are counted in the report, and so are rows of unknown items.

        Parameters
        ----------
        name
            What the block is called, in explanations too: "image".
        matrix
            (n_items, d) numbers in the order of ``item_ids``, or the path of an ``.npy`` file of
            them; NaN in all columns of an item without features. Or a frame, or the path of a
            Parquet file, with a column ``item_id`` and columns of numbers, or one of lists; rows
            may be in any order, and items missing.

        Raises
        ------
        DataError
            If there is such a block, the features are not of these items, or a number is not
            finite; it names item and column.
        """
        found, findings = read_features(name, matrix, self.item_ids, self.features)
        features, report = {**self.features, name: found}, self.report.with_notes(*findings)
        return replace(self, features=features, report=report)

    def with_features_of(self, other: Catalog) -> Catalog:
        """Give the catalog with another one's features; items that it does not know have none."""
        if not other.features:
            return self
        return replace(self, features=match_features(other.features, other.item_ids, self.item_ids))

    def save(self, path: Path) -> None:
        """Write it to a Parquet file, atomically; of the report the number of items stays."""
        from llmrec.data.parquet_files import write_parquet_table

        shares = self.category_shares
        offsets = shares.indptr[1:-1]
        columns = (
            self.item_ids.tolist(),
            self.titles,
            np.split(shares.indices, offsets),
            np.split(shares.data, offsets),
        )
        lists = feature_lists(self.features)
        values = {CATEGORIES: self.categories}
        write_parquet_table(path, (*columns, *lists.values()), _schema(*lists), values)

    @classmethod
    def load(cls, path: Path) -> Catalog:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If the file is missing or broken, two items have one id, or an item's categories are not
            in the file or do not fit its shares.
        """
        from llmrec.data.parquet_files import read_parquet_table

        table, values = read_parquet_table(path, _schema(), _schema(COLUMN_PREFIX).field(-1))
        blocks = table.column_names[len(_schema()) :]
        ids, titles = table[ITEM_ID].to_pylist(), tuple(table[TITLE].to_pylist())
        names = values.get(CATEGORIES)
        try:
            if not ids or len(set(ids)) < len(ids):
                raise ValueError("it holds no item, or two of one id")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("its categories are no names")
            shares = _read_shares(table["category"], table["share"], len(names))
            features = features_from_lists({name: table[name] for name in blocks})
        except ValueError as error:
            raise ModelLoadError(f"{path} cannot be read: {error}") from error
        index = pd.Index(ids, dtype="str")
        return cls(index, titles, tuple(names), shares, CleaningReport(len(ids)), features)

    def __repr__(self) -> str:
        """Say how much it holds, in a line, with the first five categories."""
        names = ", ".join((*self.categories[:5], "...")[: self.n_categories])
        names += f"; features: {', '.join(self.features)}" * bool(self.features)
        return f"Catalog({self.n_items:,} items, {self.n_categories:,} categories: {names})"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids as plain texts: one of them is found ten times as fast."""
        return tuple(self.item_ids.tolist())

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    @property
    def n_categories(self) -> int:
        """Number of categories."""
        return len(self.categories)

    @cached_property
    def has_category(self) -> BoolArray:
        """(n_items,) whether the item has any category."""
        return np.asarray(np.diff(self.category_shares.indptr) > 0)

    def item_index(self, item_id: object) -> int:
        """Look an item up by id, or by its whole title in any case; DataError if not just one."""
        text = str(item_id)
        if text not in self.item_ids:
            wanted = text.lower()
            items = [i for i, title in enumerate(self.titles) if title.lower() == wanted]
            if len(items) > 1:
                ids = ", ".join(map(repr, self.item_ids[items[:5]]))
                raise DataError(f"{len(items)} items are called {text[:80]!r}: say which, {ids}.")
            if items:
                return items[0]
        return lookup_id(self.item_ids, item_id, "item", self.titles)

    def categories_of(self, item_idx: int) -> tuple[str, ...]:
        """Names of an item's categories, in the catalog's order."""
        start, stop = self.category_shares.indptr[item_idx : item_idx + 2]
        return tuple(self.categories[c] for c in self.category_shares.indices[start:stop])


def category_sums(
    catalog: Catalog,
    rows: IntArray,
    items: IntArray,
    n_rows: int,
    weights: FloatArray | None = None,
) -> FloatArray:
    """(n_rows, n_categories) sums of the category shares of (n_events,) items, row by row."""
    shares, n_cells = catalog.category_shares, n_rows * catalog.n_categories
    n_categories = np.diff(shares.indptr)  # of each item
    if (n_categories == 1).all():  # nothing to divide, as in most shops
        cells = rows * catalog.n_categories + shares.indices[items]
        sums = np.bincount(cells, weights, minlength=n_cells)
        return np.asarray(sums.reshape(n_rows, catalog.n_categories), dtype=np.float64)
    sizes = n_categories[items]
    start = np.cumsum(sizes) - sizes
    entries = np.arange(sizes.sum()) + np.repeat(shares.indptr[items] - start, sizes)
    values = shares.data[entries]
    if weights is not None:
        values = values * np.repeat(weights, sizes)
    cells = np.repeat(rows * catalog.n_categories, sizes) + shares.indices[entries]
    sums = np.bincount(cells, values, minlength=n_cells)
    return np.asarray(sums.reshape(n_rows, catalog.n_categories), dtype=np.float64)


def drop_categories(catalog: Catalog, names: Collection[str], dataset: str) -> Catalog:
    """Give a catalog without some categories and all their items; DataError if none is left."""
    dropped = np.isin(catalog.categories, list(names))
    if dropped.all():
        raise DataError(f"no category of {dataset} is left without {', '.join(sorted(names))}.")
    if not dropped.any():
        return catalog
    mask = catalog.category_shares @ dropped == 0
    return replace(
        catalog,
        item_ids=catalog.item_ids[mask],
        titles=tuple(np.array(catalog.titles, dtype=object)[mask]),
        categories=tuple(np.array(catalog.categories, dtype=object)[~dropped]),
        category_shares=catalog.category_shares[mask][:, ~dropped],
        features={name: matrix[mask] for name, matrix in catalog.features.items()},
    )


def _category_shares(
    names_of_items: Sequence[Sequence[str]],
) -> tuple[tuple[str, ...], sparse.csr_array]:
    """Give the sorted categories, and how each item divides over them."""
    names = sorted({name for item in names_of_items for name in item})
    if not names:
        raise DataError(
            "no item has a category. Name the column (columns={'categories': ...}), or make "
            "categories from item texts: Catalog.with_clustered_categories."
        )
    position = {name: index for index, name in enumerate(names)}
    sizes = np.array([len(item) for item in names_of_items])
    columns = np.array([position[name] for item in names_of_items for name in item], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    values = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
    shares = sparse.csr_array((values, columns, offsets), shape=(len(names_of_items), len(names)))
    shares.sort_indices()
    return tuple(shorten_names(names)), shares


def _schema(*blocks: str) -> Any:
    """Columns of a saved catalog: a row an item, its categories by their places in the names."""
    import pyarrow as pa

    names = (ITEM_ID, TITLE, "category", "share")
    types = (pa.string(), pa.string(), pa.list_(pa.int32()), pa.list_(pa.float64()))
    of_blocks = ((name, pa.list_(pa.float32())) for name in blocks)
    return pa.schema([*zip(names, types, strict=True), *of_blocks])


def _read_shares(categories: Any, shares: Any, n_categories: int) -> sparse.csr_array:
    """Make the sparse shares of two list columns; ValueError if they are none."""
    lists, values = (column.combine_chunks() for column in (categories, shares))
    offsets = lists.offsets.to_numpy()
    if not np.array_equal(offsets, values.offsets.to_numpy()):
        raise ValueError("an item has more categories than shares, or fewer")
    data, indices = values.flatten().to_numpy(), lists.flatten().to_numpy().astype(np.int64)
    if not (np.isfinite(data) & (data > 0)).all():
        raise ValueError("a share is not finite and > 0")
    matrix = sparse.csr_array(
        (data, indices, offsets.astype(np.int64)), shape=(len(lists), n_categories)
    )
    matrix.check_format(full_check=True)
    return matrix
