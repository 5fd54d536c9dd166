"""The largest entries of the rows of a matrix, as a sparse matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

_ROWS_PER_BATCH = 1_000  # bounds the memory of their order


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
        columns = np.sort(np.argpartition(-np.abs(block), n - 1, axis=1)[:, :n], axis=1)
        values = np.take_along_axis(block, columns, axis=1)
        offsets = np.arange(len(block) + 1) * n
        entries = (values.ravel(), columns.ravel(), offsets)
        blocks.append(sparse.csr_array(entries, shape=block.shape))
    found = sparse.csr_array(sparse.vstack(blocks))
    found.eliminate_zeros()
    return found
