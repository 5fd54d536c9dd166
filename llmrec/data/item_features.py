"""Blocks of numbers that items have, such as vectors of their images: read and checked by item."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.ids import read_ids
from llmrec.data.report import Finding
from llmrec.data.tables import name_file, name_in_errors, read_parquet
from llmrec.data.validation import CATEGORIES, ITEM_ID, TITLE, is_frame, require_columns, to_pandas
from llmrec.errors import DataError
from llmrec.types import FloatArray

# A row of NaN is of an item without features; no other value is NaN or infinite.
FeatureMatrix = npt.NDArray[np.float32]
MAX_COLUMNS = 4096  # of a block: projections take time by their cube
RESERVED_NAMES = (ITEM_ID, TITLE, CATEGORIES, "titled")  # as explanations call what is of titles
COLUMN_PREFIX = "features:"  # of a block's name, in a saved catalog
_NAME = re.compile(r"[^\W_][\w-]{0,39}")  # explanations, files and columns are called by it
_LARGEST = float(np.finfo(np.float32).max)


def read_features(
    name: str, given: Any, item_ids: pd.Index[str], others: Collection[str] = ()
) -> tuple[FeatureMatrix, tuple[Finding, ...]]:
    """Read the features of items, and say which items have none and which rows are of no item.

    Parameters
    ----------
    name
        What the block is called; ``others`` are there already.
    given
        See `Catalog.with_features`.
    item_ids
        (n_items,) those of the catalog.

    Returns
    -------
    tuple
        (n_items, d) float32, read-only, NaN in the rows of items without features; and findings.

    Raises
    ------
    DataError
        If the name cannot be one, or the features are not of these items or no finite numbers.
    """
    _require_name(name, others)
    if isinstance(given, str | Path):
        with name_file(Path(given)):
            return read_features(name, _read_file(name, Path(given)), item_ids)
    if is_frame(given):
        values, columns, findings = _match_rows(name, to_pandas(given), item_ids)
    else:
        values, findings = _matrix_of(name, given), []
        columns = [str(column) for column in range(values.shape[1])]
        if len(values) != len(item_ids):
            raise DataError(
                f"features {name!r} have {len(values):,} rows, and the catalog has "
                f"{len(item_ids):,} items: give a row an item, in the order of catalog.item_ids, "
                f"or a frame with a column {ITEM_ID!r}."
            )
    found = _require_finite(name, values, columns, item_ids)
    absent = np.flatnonzero(np.isnan(found[:, 0]))
    if len(absent) == len(item_ids):
        raise DataError(f"no item of the catalog has features {name!r}: write ids as it does.")
    if len(absent):
        rule = f"items without features {name!r}"
        findings.append(Finding(rule, len(absent), str(item_ids[absent[0]]), "read"))
    return found, tuple(findings)


def match_features(
    features: Mapping[str, FeatureMatrix], item_ids: pd.Index[str], wanted: pd.Index[str]
) -> dict[str, FeatureMatrix]:
    """Give the blocks of other items, by their ids: those that are new have no features."""
    rows = item_ids.get_indexer(wanted)
    found = {}
    for name, matrix in features.items():
        matched = np.array(matrix[rows])
        matched[rows < 0] = np.nan
        found[name] = _read_only(matched)
    return found


def join_features(
    features: Mapping[str, Mapping[str, FeatureMatrix]], n_items: Mapping[str, int]
) -> dict[str, FeatureMatrix]:
    """Give the blocks of several platforms' items, one platform after another.

    Items of a platform without a block have no features in it.

    Parameters
    ----------
    features
        The blocks of each platform.
    n_items
        How many items each platform has.

    Raises
    ------
    DataError
        If a block has another number of columns on another platform.
    """
    found = {}
    for block in sorted({name for own in features.values() for name in own}):
        widths = {name: own[block].shape[1] for name, own in features.items() if block in own}
        (first, width), *others = widths.items()
        for name, other in others:
            if other != width:
                raise DataError(
                    f"features {block!r} have {width} columns on {first!r} and {other} on "
                    f"{name!r}: make both with one encoder, or give them two names."
                )
        missing = {name: np.full((n, width), np.nan, np.float32) for name, n in n_items.items()}
        rows = [own.get(block, missing[name]) for name, own in features.items()]
        found[block] = _read_only(np.concatenate(rows))
    return found


def feature_lists(features: Mapping[str, FeatureMatrix]) -> dict[str, list[FeatureMatrix]]:
    """Give a column for each block, with a list for each item, which is empty without features."""
    return {
        f"{COLUMN_PREFIX}{name}": [row[: 0 if np.isnan(row[0]) else None] for row in matrix]
        for name, matrix in features.items()
    }


def features_from_lists(columns: Mapping[str, Any]) -> dict[str, FeatureMatrix]:
    """Make the blocks of Arrow columns of `feature_lists`; ValueError if they are none."""
    return {
        column.removeprefix(COLUMN_PREFIX): _matrix_of_lists(column, lists.combine_chunks())
        for column, lists in columns.items()
    }


def _matrix_of_lists(column: str, lists: Any) -> FeatureMatrix:
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    lengths = np.diff(lists.offsets.to_numpy())
    width = int(lengths.max(initial=0))
    if not np.isin(lengths, (0, width)).all() or not np.isfinite(values).all():
        raise ValueError(f"column {column!r} has lists of several lengths, or no finite numbers")
    found = np.full((len(lengths), max(width, 1)), np.nan, dtype=np.float32)
    if width:
        found[lengths > 0] = values.reshape(-1, width)
    return _read_only(found)


def _require_name(name: str, others: Collection[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"features cannot be called {str(name)[:60]!r}: a name has letters, digits, '-' and "
            "'_', at most 40, and begins with a letter or digit."
        )
    if name in RESERVED_NAMES:
        raise DataError(f"features cannot be called {name!r}: the catalog calls something else so.")
    if name in others:
        raise DataError(
            f"the catalog has features {name!r} already: give these another name, or add them to "
            "the catalog before it had some."
        )


def _read_file(name: str, path: Path) -> Any:
    """Read a matrix of an npy file, or a frame of a Parquet file."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return read_parquet(path)
    if kind != ".npy":
        raise DataError(f"features {name!r} are read from .npy and .parquet files, not from {path}")
    with name_in_errors(path):
        return np.load(path)


def _matrix_of(name: str, given: Any) -> FloatArray:
    """(n_rows, d) what is given, as float64."""
    try:
        found = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(f"features {name!r} are no matrix of numbers: {error}") from error
    if found.ndim != 2 or found.dtype.kind not in "fiub":
        raise DataError(
            f"features {name!r} must be a matrix (n_items, d) of numbers, a frame, or the path of "
            f"a file, not {type(given).__name__} of shape {found.shape} and type {found.dtype}."
        )
    _require_width(name, found.shape[1])
    return found.astype(np.float64)


def _require_width(name: str, n_columns: int) -> None:
    if not n_columns:
        raise DataError(f"features {name!r} have no column: leave them out, or give numbers.")
    if n_columns > MAX_COLUMNS:
        raise DataError(
            f"features {name!r} have {n_columns:,} columns, and {MAX_COLUMNS:,} are the most: "
            "reduce them, such as by a singular value decomposition."
        )


def _match_rows(
    name: str, frame: pd.DataFrame, item_ids: pd.Index[str]
) -> tuple[FloatArray, list[str], list[Finding]]:
    """(n_items, d) the rows of a frame by the ids of the items; names of columns, and findings."""
    frame = frame.reset_index(drop=True)
    require_columns(frame, {ITEM_ID: ITEM_ID}, can_map=False)
    ids = read_ids(frame[ITEM_ID])
    values, columns = _values_of(name, frame.drop(columns=ITEM_ID), frame[ITEM_ID])
    has_id = ids.codes >= 0
    rows_by_id = pd.Series(ids.codes[has_id], np.flatnonzero(has_id))
    if (repeated := rows_by_id[rows_by_id.duplicated(keep=False)]).size:
        first, second, *_ = repeated.index[repeated == repeated.iloc[0]]
        raise DataError(
            f"features {name!r} have several rows of item {ids.labels[repeated.iloc[0]]!r}, such "
            f"as {first} and {second}: give one row an item."
        )
    places = np.append(item_ids.get_indexer(ids.labels), -1)[ids.codes]
    findings = [
        Finding(f"rows of features {name!r} {what}", int(rows.sum()), f"row {rows.argmax()}")
        for what, rows in (
            (f"without {ITEM_ID}", ~has_id),
            ("of items that are not in the catalog", has_id & (places < 0)),
        )
        if rows.any()
    ]
    found = np.full((len(item_ids), values.shape[1]), np.nan)
    found[places[places >= 0]] = values[places >= 0]
    return found, columns, findings


def _values_of(name: str, frame: pd.DataFrame, ids: pd.Series[Any]) -> tuple[FloatArray, list[str]]:
    """(n_rows, d) columns of numbers, or the one column of lists; and what they are called."""
    if frame.shape[1] == 1 and pd.api.types.is_object_dtype(frame.dtypes.iloc[0]):
        found = _stack_lists(name, frame.iloc[:, 0], ids)
        return found, [f"{frame.columns[0]}[{place}]" for place in range(found.shape[1])]
    columns = list(map(str, frame.columns))
    _require_width(name, len(columns))
    for column, dtype in zip(columns, frame.dtypes, strict=True):
        if not pd.api.types.is_any_real_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(
            dtype
        ):
            raise DataError(
                f"features {name!r}: column {column!r} holds no numbers ({dtype}). Leave it out, "
                "or give all numbers of an item as one list."
            )
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), columns


def _stack_lists(name: str, cells: pd.Series[Any], ids: pd.Series[Any]) -> FloatArray:
    """(n_rows, d) lists of numbers as rows; NaN where there is no list."""
    has_list = np.array([np.ndim(cell) > 0 or not pd.isna(cell) for cell in cells], dtype=bool)
    width = max((np.size(cell) for cell in cells[has_list]), default=0)
    _require_width(name, width)
    found = np.full((len(cells), width), np.nan)
    for row in np.flatnonzero(has_list):
        try:
            values = np.asarray(cells.iloc[row], dtype=np.float64)
            if values.shape != (width,):
                raise ValueError("another length")
        except (ValueError, TypeError) as error:
            raise DataError(
                f"features {name!r} of item {ids.iloc[row]!r} (row {row}) are no list of {width} "
                f"numbers: {str(cells.iloc[row])[:60]}."
            ) from error
        found[row] = values
    return found


def _require_finite(
    name: str, values: FloatArray, columns: list[str], item_ids: pd.Index[str]
) -> FeatureMatrix:
    """(n_items, d) float32; DataError names the first item of which some numbers alone are none."""
    absent = np.isnan(values).all(axis=1)
    wrong = ~(np.abs(values) <= _LARGEST)
    wrong[absent] = False
    if wrong.any():
        item, column = np.argwhere(wrong)[0]
        raise DataError(
            f"features {name!r} of item {item_ids[item]!r}: {values[item, column]} in column "
            f"{columns[column]!r} is no finite number of single precision. An "
            "item without features has NaN in all columns, or no row."
        )
    found = values.astype(np.float32)
    found[absent] = np.nan
    return _read_only(found)


def _read_only(matrix: FeatureMatrix) -> FeatureMatrix:
    matrix.setflags(write=False)
    return matrix
