"""Linear maps of text vectors in which distance says more of what goes together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from llmrec.data.periods import History
from llmrec.types import BoolArray, FloatArray

Projection = Literal["none", "whitened", "discriminant"]
Vectors = npt.NDArray[np.float32]
DIRECTIONS = 256  # that whitening keeps at most
# With as many directions as titles whitening makes all of them equally far from one another.
TITLES_PER_DIRECTION = 8
SHRINKAGE = 0.1  # of the spread within sets
PRIOR_SETS = 200.0  # what the discriminants take for granted, that all directions are alike
DAYS_OF_SET = 28.0
_ROWS_PER_BLOCK = 10_000
MIN_LENGTH = 1e-6  # of a vector, or of a direction's spread: less is rounding


def sets_taken(histories: Sequence[History]) -> sparse.csr_array:
    """(n_sets, n_items) 1 for the items of each person's each 28 days, counted from the cutoff."""
    spans = [np.floor(history.days_ago / DAYS_OF_SET).astype(np.int64) for history in histories]
    people = np.repeat(np.arange(len(histories)), [len(span) for span in spans])
    spans_of_log = np.concatenate(spans)
    keys = people * (1 + spans_of_log.max(initial=0)) + spans_of_log
    found_keys, row = np.unique(keys, return_inverse=True)
    items = np.concatenate([history.item_idx for history in histories])
    shape = (len(found_keys), histories[0].catalog.n_items)
    found = sparse.csr_array((np.ones(len(items)), (row, items)), shape=shape)
    found.data[:] = 1.0
    return found


def require_projection(projection: str) -> None:
    """Raise ValueError for a projection that is not known."""
    if projection not in get_args(Projection):
        known = ", ".join(map(repr, get_args(Projection)))
        raise ValueError(f"projection must be one of {known}, not {projection!r}")


def project_vectors(found: FloatArray, taken: sparse.csr_array, projection: Projection) -> Vectors:
    """(n_items, n) unit rows about the mean of the items that were taken, projected.

    Rows of zeros stay so, and rows at the mean become zeros. Only what was taken is fitted on.

    Parameters
    ----------
    found
        (n_items, d) vectors of the items' texts; they are overwritten.
    taken
        (n_sets, n_items) 1 for the items that go together: see `sets_taken`.
    projection
        "whitened": directions of the spread of distinct vectors, at most one for
        `TITLES_PER_DIRECTION` of them, each scaled to the same spread. "discriminant": each scaled
        by how far sets are apart in it for the spread within them, see `_discriminant`.
    """
    is_empty = _lengths(found) < MIN_LENGTH
    fitted = (taken.sum(axis=0) > 0) & ~is_empty
    if fitted.any():
        found -= found[fitted].mean(axis=0)
    if projection == "whitened":
        found = found @ _whitening(found[fitted])
    elif projection == "discriminant":
        found = found @ _discriminant(found, taken, fitted)
    lengths = _lengths(found)
    lengths[is_empty | (lengths < MIN_LENGTH)] = np.inf
    unit = np.empty(found.shape, np.float32)
    return np.divide(found, lengths[:, None], out=unit, casting="same_kind")


def _lengths(rows: FloatArray) -> FloatArray:
    """(n,) lengths of rows, without a copy of all of them."""
    blocks = [
        rows[start : start + _ROWS_PER_BLOCK] for start in range(0, len(rows), _ROWS_PER_BLOCK)
    ]
    return np.concatenate([np.empty(0), *(np.linalg.norm(block, axis=1) for block in blocks)])


def _whitening(centred: FloatArray) -> FloatArray:
    """(d, n) directions of largest spread, over their spread: PCA whitening (Kessy et al. 2018)."""
    n_titles = len(np.unique(centred.round(6), axis=0)) if len(centred) else 0
    most = min(DIRECTIONS, n_titles // TITLES_PER_DIRECTION)
    if not most:
        return np.eye(centred.shape[1])
    spreads, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    spreads, directions = np.sqrt(np.maximum(spreads[::-1], 0)), directions[:, ::-1]
    scales = np.divide(1.0, spreads, out=np.zeros_like(spreads), where=spreads > MIN_LENGTH)
    return np.asarray(directions[:, :most] * scales[:most])


def _discriminant(centred: FloatArray, taken: sparse.csr_array, fitted: BoolArray) -> FloatArray:
    """(d, d) directions w_k sqrt(l_k) of B w = l W w: the linear discriminants of sets.

    Fisher 1936, with the regularization of Friedman 1989: B is the spread of the sets' means, W
    that of items about the mean of their set, all sets alike. Of their mean diagonals
    `PRIOR_SETS` / n_sets is added to both, and `SHRINKAGE` to W: with few sets little is changed.
    Sets of one item are left out.
    """
    n_dimensions = centred.shape[1]
    sets = sparse.csr_array(taken[:, np.flatnonzero(fitted)])
    sizes = sets.sum(axis=1)
    sets, sizes = sparse.csr_array(sets[sizes > 1]), sizes[sizes > 1]
    if not len(sizes):
        return np.eye(n_dimensions)
    rows, weights = centred[fitted], sparse.csr_array(sparse.diags_array(1.0 / sizes) @ sets)
    means, weight = weights @ rows, weights.sum(axis=0) / len(sizes)
    between = means.T @ means / len(sizes)
    within = rows.T @ (weight[:, None] * rows) - between
    mean = weight @ rows
    between -= np.outer(mean, mean)
    prior = PRIOR_SETS / len(sizes)
    if min(within.trace(), between.trace()) < MIN_LENGTH:  # no set differs from others, or inside
        return np.eye(n_dimensions)
    ratios, directions = linalg.eigh(
        _with_ridge(between, prior), _with_ridge(within, prior + SHRINKAGE)
    )
    return np.asarray(directions * np.sqrt(ratios))


def _with_ridge(spread: FloatArray, share: float) -> FloatArray:
    """(d, d) a matrix plus a share of its mean diagonal on the diagonal."""
    return np.asarray(spread + share * spread.trace() / len(spread) * np.eye(len(spread)))
