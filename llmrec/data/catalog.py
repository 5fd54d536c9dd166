"""Items with titles and categories: a sparse matrix between them; clusters of item texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    TITLE,
    CleaningReport,
    format_id,
    lookup_id,
    require_columns,
    to_pandas,
)
from llmrec.errors import DataError, MissingExtraError
from llmrec.types import BoolArray, FloatArray, IntArray

MAX_TITLE_LENGTH, MAX_CATEGORY_LENGTH = 200, 60  # characters of a cleaned title and category name
TERMS_PER_NAME = 3  # of a cluster's name
_MAX_NAME_LENGTH = 1_000  # of a category name before it is shortened
# Control, format (bidirectional, zero-width), surrogate, private, unassigned.
_INVISIBLE_UNICODE_CLASSES = {"Cc", "Cf", "Cs", "Co", "Cn"}


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
    """

    item_ids: pd.Index[str]
    titles: tuple[str, ...]
    categories: tuple[str, ...]
    category_shares: sparse.csr_array
    report: CleaningReport

    @classmethod
    def from_frame(
        cls, frame: Any, columns: Mapping[str, str] | None = None, *, separator: str = "|"
    ) -> Catalog:
        """Validate and clean a frame of items.

        Parameters
        ----------
        frame
            pandas or polars frame, or a ``datasets.Dataset``, one row an item.
        columns
            Our name (item_id, title, categories) to the frame's name. Title defaults to the id.
        separator
            Splits ``categories`` where they are strings; lists are taken as they are.

        Raises
        ------
        DataError
            If a column is missing, there is no item, or no item has a category.
        """
        frame = to_pandas(frame).reset_index(drop=True)
        names = {ITEM_ID: ITEM_ID, TITLE: TITLE, CATEGORIES: CATEGORIES, **(columns or {})}
        optional = {TITLE} - set(columns or {})
        require_columns(frame, {ours: names[ours] for ours in names if ours not in optional})
        ids = frame[names[ITEM_ID]].map(format_id, na_action="ignore").astype("str")
        missing = ids.isna() | (ids.str.strip() == "")
        twice = ids.duplicated() & ~missing
        report = CleaningReport(len(frame)).with_dropped("missing item_id", np.flatnonzero(missing))
        report = report.with_dropped("item_id seen before", np.flatnonzero(twice))
        frame, ids = frame[~(missing | twice)], ids[~(missing | twice)]
        if not len(frame):
            raise DataError(f"the catalog is empty.\n{report}")
        titles = frame.get(names[TITLE], ids)
        names_of_items = [_split_names(value, separator) for value in frame[names[CATEGORIES]]]
        categories, shares = _category_shares(names_of_items)
        return cls(
            item_ids=pd.Index(ids.to_numpy(), dtype="str"),
            titles=tuple(
                clean_text(title) or clean_text(item_id)
                for title, item_id in zip(titles, ids, strict=True)
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
        frame[CATEGORIES] = [[name] for name in cluster_names(texts, n_categories, seed)]
        return cls.from_frame(frame, names)

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
            items = [
                item for item, title in enumerate(self.titles) if title.lower() == text.lower()
            ]
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


def clean_text(value: object, limit: int = MAX_TITLE_LENGTH) -> str:
    """Make text from data safe to print and to prompt with.

    NFKC; control, bidirectional and zero-width characters gone; white space collapsed; at most
    ``limit`` characters, the last one an ellipsis if it was cut.
    """
    text = "" if _is_missing(value) else str(value)
    text = text[: limit * 8]  # a 10 MB title must not cost 10 MB of work
    if not text.isprintable():
        text = "".join(
            " " if char.isspace() else char
            for char in text
            if char.isspace() or unicodedata.category(char) not in _INVISIBLE_UNICODE_CLASSES
        )
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cluster_names(texts: Sequence[str], n_categories: int, seed: int = 0) -> list[str]:
    """Give each text the name of its cluster.

    TF-IDF, k-means with ``seed``, and the three terms of largest weight in a cluster's centre.

    Raises
    ------
    DataError
        If there are fewer distinct texts than clusters, or no words at all.
    MissingExtraError
        Without scikit-learn.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise MissingExtraError(
            "clustered categories need: pip install 'llmrec[clusters]'"
        ) from error

    if len(set(texts)) < n_categories:
        raise DataError(f"{len(set(texts))} distinct texts cannot make {n_categories} categories.")
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=20_000)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise DataError(f"the item texts hold no words to cluster by ({error}).") from error
    clusters = KMeans(n_categories, n_init=3, random_state=seed).fit(weights)
    terms = vectorizer.get_feature_names_out()
    heaviest = np.argsort(-clusters.cluster_centers_, axis=1, kind="stable")[:, :TERMS_PER_NAME]
    names = _number_repeated(["-".join(terms[row]) for row in heaviest])
    return [names[label] for label in clusters.labels_]


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value  # NaN and NaT differ from themselves


def _split_names(value: Any, separator: str) -> list[str]:
    """Give the cleaned, distinct category names of one item, in order."""
    if isinstance(value, str):
        parts: Sequence[object] = value.split(separator)
    elif pd.api.types.is_scalar(value):
        parts = [] if _is_missing(value) else [format_id(value)]
    else:
        parts = list(value)
    cleaned = (clean_text(part, _MAX_NAME_LENGTH) for part in parts)
    return list(dict.fromkeys(name for name in cleaned if name))


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
    return tuple(_shorten(names)), shares


def _shorten(names: Sequence[str]) -> list[str]:
    """Cut long names; those that would then be equal end in a number."""
    result: dict[str, None] = {}
    for name in names:
        short, n = clean_text(name, MAX_CATEGORY_LENGTH), 1
        while short in result:
            n += 1
            short = f"{clean_text(name, MAX_CATEGORY_LENGTH - 6)} {n}"
        result[short] = None
    return list(result)


def _number_repeated(names: list[str]) -> list[str]:
    """Give the names, the second and later uses of one with a number."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result
