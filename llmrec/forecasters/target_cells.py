"""The categories that targets hold: a log-loss needs weights there and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec.data.counts import row_shares
from llmrec.types import FloatArray, IntArray


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
    n_windows
        How many windows there are, those without events in their target included.
    """

    rows: IntArray
    columns: IntArray
    shares: FloatArray
    n_windows: int

    @classmethod
    def of(cls, targets: FloatArray) -> TargetCells:
        """Find the cells of (n_windows, n_categories) counts."""
        rows, columns = np.nonzero(targets)
        return cls(rows, columns, row_shares(targets)[rows, columns], len(targets))

    def take(self, weights: FloatArray) -> FloatArray:
        """(n_cells,) the cells of (n_windows, n_categories) weights."""
        return weights[self.rows, self.columns]

    def mean_log_loss(self, weights: FloatArray) -> float:
        """Mean log-loss per event of (n_cells,) positive weights; 0 for a target without events."""
        return float(-(self.shares * np.log(weights)).sum() / self.n_windows)
