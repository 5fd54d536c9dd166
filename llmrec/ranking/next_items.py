"""A linear map from what people had just taken to what they took next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from llmrec.data.periods import History
from llmrec.ranking.largest import largest_of_rows
from llmrec.ranking.scorers import require_positive
from llmrec.types import FloatArray, IntArray

MAX_ITEMS = 10_000  # of a dense matrix in double precision: .8 GB, and three of them at a time
MAX_MOMENTS = 300_000  # places in histories that the map is learned from, evenly spread
MIN_INPUT_WEIGHT = 0.03  # of an item taken long ago; those of less are left out


@dataclass(frozen=True)
class NextItems:
    """Ridge regression of the next items on the items before, like SLIT of Choi et al. (2021).

    B = (X'X + regularization * I)^-1 X'Y (arXiv 2103.16104, equation 9). Each row of X is a place
    in a history: the items taken up to there, which count half after ``half_life`` events. The row
    of Y are the items of the next ``ahead`` events, each weighing ``fade`` of the one before it.

    Parameters
    ----------
    regularization
        > 0; the larger, the more frequent pairs dominate.
    half_life, ahead, fade
        In events; > 0, and ``fade`` in (0, 1].
    keep
        Weights that stay of each item taken, the largest in size; None: all of them.
    """

    regularization: float = 2000.0
    half_life: float = 8.0
    ahead: int = 10
    fade: float = 0.9
    keep: int | None = None
    name: ClassVar[str] = "taken next by those who had just taken the same"

    def __post_init__(self) -> None:
        require_positive(
            regularization=self.regularization,
            half_life=self.half_life,
            ahead=self.ahead,
            fade=self.fade,
            keep=self.keep,
        )
        if self.fade > 1:
            raise ValueError(f"fade must lie in (0, 1], not {self.fade}")

    def matrix(self, histories: Sequence[History]) -> Any:
        """(n_items, n_items) float32, dense, or sparse with ``keep`` weights in each row.

        Raises
        ------
        ValueError
            If the catalog is too large for the dense one.
        """
        n_items = histories[0].catalog.n_items
        if n_items > MAX_ITEMS:
            raise ValueError(
                f"NextItems solves for a matrix of {n_items} x {n_items} items; it can take at "
                f"most {MAX_ITEMS}: use SequentialRules, which store few pairs an item."
            )
        items = np.concatenate([history.item_idx for history in histories]).astype(np.int32)
        users = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
        places = np.flatnonzero(users[1:] == users[:-1]) + 1  # of events with one before them
        places = places[:: -(-len(places) // MAX_MOMENTS) or 1]
        if not len(places):
            return np.zeros((n_items, n_items), dtype=np.float32)
        n_before = int(np.log2(1 / MIN_INPUT_WEIGHT) * self.half_life) + 1
        before = np.exp2(-np.arange(n_before) / self.half_life)
        x = _neighbours(items, users, places, -1 - np.arange(n_before), before, n_items)
        after = np.asarray(self.fade ** np.arange(self.ahead), dtype=np.float64)
        y = _neighbours(items, users, places, np.arange(self.ahead), after, n_items)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices(n_items)] += self.regularization
        solved = linalg.solve(gram, (x.T @ y).toarray(), assume_a="pos", overwrite_a=True)
        dense = np.asarray(solved, dtype=np.float32)
        return dense if self.keep is None else largest_of_rows(dense, self.keep)


def _neighbours(
    items: npt.NDArray[np.int32],
    users: IntArray,
    places: IntArray,
    offsets: IntArray,
    weights: FloatArray,
    n_items: int,
) -> sparse.csr_array:
    """(n_places, n_items) the same person's items at offsets from each place, weighted."""
    rows, columns, values = [], [], []
    for offset, weight in zip(offsets, weights, strict=True):
        at = places + offset
        inside = (at >= 0) & (at < len(items))
        inside[inside] = users[at[inside]] == users[places[inside]]
        rows.append(np.flatnonzero(inside))
        columns.append(items[at[inside]])
        values.append(np.full(len(columns[-1]), weight))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_array(entries, shape=(len(places), n_items))
