"""The categories that targets hold: a log-loss needs weights there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.periods import Window
from llmrec.types import FloatArray, IntArray

CELLS_PER_BLOCK = 2**20  # most windows x categories in memory at a time: 8 MB


@dataclass(frozen=True, eq=False)
class TargetCells:
    """The cells (window, category) of targets that are not 0, to choose among fits by their loss.

    Of many categories a target holds few, and logarithms are taken at these alone.

    Attributes
    ----------
    rows, columns
        (n_cells,) the window and the category of each.
    shares
        (n_cells,) the category's share of the target, in (0, 1].
    n_windows, n_categories
        How many windows there are, those without events in their target included, and how many
        categories.
    """

    rows: IntArray
    columns: IntArray
    shares: FloatArray
    n_windows: int
    n_categories: int

    @classmethod
    def of(cls, targets: FloatArray) -> TargetCells:
        """Find the cells of (n_windows, n_categories) counts."""
        rows, columns = np.nonzero(targets)
        return cls(rows, columns, row_shares(targets)[rows, columns], *targets.shape)

    @classmethod
    def of_windows(cls, windows: Sequence[Window]) -> TargetCells:
        """Find the cells of windows' targets; at least one window.

        Counts of all windows and categories are never in memory together.
        """
        n_categories = windows[0].history.catalog.n_categories
        rows, columns, shares = [], [], []
        for block in row_blocks(len(windows), n_categories):
            found = cls.of(target_counts(windows[block]))
            rows.append(found.rows + block.start)
            columns.append(found.columns)
            shares.append(found.shares)
        of_all = np.concatenate(rows), np.concatenate(columns), np.concatenate(shares)
        return cls(*of_all, len(windows), n_categories)

    def blocks(self) -> Iterator[tuple[slice, slice, tuple[IntArray, IntArray]]]:
        """Yield blocks of windows, the cells of each, and where these are in the block's rows."""
        for block in row_blocks(self.n_windows, self.n_categories):
            yield block, *self.part(block)

    def part(self, rows: slice) -> tuple[slice, tuple[IntArray, IntArray]]:
        """Give the cells of windows that follow each other, and where these are in their rows."""
        cells = slice(*np.searchsorted(self.rows, (rows.start, rows.stop)))
        return cells, (self.rows[cells] - rows.start, self.columns[cells])

    def collect(self, weights_of: Callable[[slice], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Give the cells of weights that are made a block of windows at a time, and row sums.

        Parameters
        ----------
        weights_of
            Gives the (n_rows, n_categories) weights of some of the windows.

        Returns
        -------
        weights, totals
            (n_cells,) each cell's weight, and the sum of all weights of its window.
        """
        weights, totals = np.empty(len(self.rows)), np.empty(self.n_windows)
        for block, cells, places in self.blocks():
            made = weights_of(block)
            totals[block], weights[cells] = made.sum(axis=1), made[places]
        return weights, totals[self.rows]

    def take(self, weights: FloatArray) -> FloatArray:
        """(n_cells,) the cells of (n_windows, n_categories) weights."""
        return weights[self.rows, self.columns]

    def mean_log_loss(self, weights: FloatArray) -> float:
        """Mean log-loss per event of (n_cells,) positive weights; 0 for a target without events."""
        return float(-(self.shares * np.log(weights)).sum() / self.n_windows)


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield the rows of blocks of a table that hold `CELLS_PER_BLOCK` cells at most."""
    size = max(1, CELLS_PER_BLOCK // max(1, n_columns))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)
