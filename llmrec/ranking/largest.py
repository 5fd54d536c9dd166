"""The largest entries of a list, and of the rows of a matrix, and some rows of a sparse one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from llmrec.types import FloatArray, IntArray

_ROWS_PER_BATCH = 1_000  # bounds the memory of their order
_VALUES_PER_COLUMN = 64  # of which one, the largest, is sorted


def largest_entries(similarity: sparse.csr_array, n: int) -> sparse.csr_array:
    """Select the n largest entries of each row; of equal ones those of smaller index."""
    sizes = np.diff(similarity.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((similarity.indices, -similarity.data, rows))
    position = np.arange(len(order)) - np.repeat(similarity.indptr[:-1], sizes)
    selected = order[position < n]
    offsets = np.append(0, np.minimum(sizes, n).cumsum()).astype(similarity.indptr.dtype)
    entries = (similarity.data[selected], similarity.indices[selected], offsets)
    found = sparse.csr_array(entries, shape=similarity.shape)
    found.sort_indices()
    return found


def largest_of_rows(dense: npt.NDArray[np.float32], n: int) -> sparse.csr_array:
    """Select the n entries of greatest size, of either sign, in each row of a dense matrix."""
    n_columns = dense.shape[1]
    if n >= n_columns:
        return sparse.csr_array(dense)
    blocks = []
    for start in range(0, len(dense), _ROWS_PER_BATCH):
        block = dense[start : start + _ROWS_PER_BATCH]
        columns = _columns_of_largest(np.abs(block), n)
        values = np.take_along_axis(block, columns, axis=1)
        offsets = np.arange(len(block) + 1) * n
        entries = (values.ravel(), columns.ravel(), offsets)
        blocks.append(sparse.csr_array(entries, shape=block.shape))
    found = sparse.csr_array(sparse.vstack(blocks))
    found.eliminate_zeros()
    return found


def _columns_of_largest(sizes: npt.NDArray[np.float32], n: int) -> IntArray:
    """(n_rows, n) columns of the n largest entries of each row, rising.

    What cannot be among them is left out first, as in `places_of_largest`. A row in which the n-th
    largest is tied is sorted in whole: numpy takes of equal ones those that it comes upon.
    """
    found = np.empty((len(sizes), n), dtype=np.int64)
    is_left = np.ones(len(sizes), dtype=np.bool_)
    n_parts = sizes.shape[1] // _VALUES_PER_COLUMN
    if n_parts > n:
        parts = sizes[:, : n_parts * _VALUES_PER_COLUMN]
        maxima = parts.reshape(len(sizes), _VALUES_PER_COLUMN, n_parts).max(axis=1)
        least = np.partition(maxima, -n, axis=1)[:, -n]
        is_candidate = (sizes >= least[:, None]) & (least > 0)[:, None]
        rows, columns = np.nonzero(is_candidate)
        counts = np.bincount(rows, minlength=len(sizes))
        values = np.full((len(sizes), max(n, counts.max())), -1.0, dtype=np.float32)
        is_value = np.arange(values.shape[1]) < counts[:, None]
        values[is_value] = sizes[rows, columns]
        kept = values >= np.partition(values, -n, axis=1)[:, [-n]]
        is_left = (counts < n) | (kept.sum(axis=1) > n)
        found[~is_left] = columns[kept[is_value] & ~is_left[rows]].reshape(-1, n)
    if is_left.any():
        whole = np.argpartition(-sizes[is_left], n - 1, axis=1)[:, :n]
        found[is_left] = np.sort(whole, axis=1)
    return found


def places_of_largest(values: FloatArray, n: int) -> IntArray:
    """Places, in order, of all values that are no smaller than the n-th largest of them.

    They are exact. The n-th largest of the maxima of parts of the values is no larger than the
    n-th largest value: what is below it is left out before anything is sorted. Sorting all the
    values of a large catalog, most of which are equal, took most of a ranking's time.
    """
    n_columns = len(values) // _VALUES_PER_COLUMN
    if n >= len(values):
        return np.arange(len(values))
    if n_columns <= n:
        return np.flatnonzero(values >= np.partition(values, -n)[-n])
    maxima = values[: n_columns * _VALUES_PER_COLUMN].reshape(_VALUES_PER_COLUMN, -1).max(axis=0)
    places = np.flatnonzero(values >= np.partition(maxima, -n)[-n])
    found = values[places]
    return np.asarray(places[found >= np.partition(found, -n)[-n]])


def sparse_rows(matrix: sparse.csr_array, rows: IntArray) -> sparse.csr_array:
    """Select rows of a sparse matrix: ``matrix[rows]``, in half of its time for a few."""
    starts = matrix.indptr[rows]
    sizes = matrix.indptr[rows + 1] - starts
    offsets = np.append(0, sizes.cumsum()).astype(matrix.indptr.dtype)
    places = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    entries = (matrix.data[places], matrix.indices[places], offsets)
    return sparse.csr_array(entries, shape=(len(rows), matrix.shape[1]))
