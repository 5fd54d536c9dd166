"""What networks get of histories and how they are trained: counts, plans, batches, the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from llmrec.data.counts import normalize_rows, period_counts, population_counts
from llmrec.data.periods import History, Window
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.types import IntArray

HISTORIES_PER_BATCH = 512  # most histories counted, or predicted, at a time
CELLS_PER_BATCH = 160_000  # most histories x categories predicted at a time
TRAINING_CELLS_PER_BATCH = 2**16  # the same of a training step
# Most windows x categories to train on: time grows with them. Those of Complete Journey, of 298
# categories, are 4.6 million with the validation windows, and are all used.
MAX_TRAINING_CELLS = 5_000_000
MAX_VALIDATION_CELLS = 1_000_000  # most of them to choose the number of epochs on


class PeriodInputs(NamedTuple):
    """What a network gets of n histories.

    ``counts`` (n, n_periods, n_categories) are the person's events by period, newest last, zeros
    before their first; ``population`` of the same shape are the shares of all users in the same
    periods; ``prior`` (n, n_categories) are the log weights of counting.
    """

    counts: Tensor
    population: Tensor
    prior: Tensor


@dataclass(frozen=True, eq=False)
class PeriodArrays:
    """Inputs of many histories as arrays; `inputs` gives rows of them as tensors."""

    counts: Any  # (n, n_periods * n_categories) sparse
    span_shares: Any  # (n_spans, n_categories) shares of all users in a span of time
    span_of_period: IntArray  # (n, n_periods) row of ``span_shares``
    prior: Any  # (n, n_categories) log weights

    @classmethod
    def of(
        cls, histories: Sequence[History], prior: DecayedDirichlet, n_periods: int, dtype: Any
    ) -> PeriodArrays:
        """Count the last periods of histories and of everybody, in the precision ``dtype``."""
        n = rows_per_batch(HISTORIES_PER_BATCH, histories[0].catalog.n_categories)
        blocks = []
        for start in range(0, len(histories), n):
            counts = period_counts(histories[start : start + n], n_periods).astype(dtype)
            blocks.append(sparse.csr_array(counts.reshape(len(counts), -1)))
        spans, span_of_period = population_counts(histories, n_periods)
        span_shares = normalize_rows(spans + 0.5).astype(dtype)
        weights = np.log(prior.category_weights(histories)).astype(dtype)
        return cls(sparse.vstack(blocks, format="csr"), span_shares, span_of_period, weights)

    def inputs(self, rows: IntArray | slice = slice(None)) -> PeriodInputs:
        """Give the inputs of some rows."""
        span_of_period = self.span_of_period[rows]
        counts = self.counts[rows].toarray().reshape(*span_of_period.shape, -1)
        return PeriodInputs(
            torch.from_numpy(counts),
            torch.from_numpy(self.span_shares[span_of_period]),
            torch.from_numpy(self.prior[rows]),
        )


def cross_entropy(log_weights: Tensor, shares: Tensor) -> Tensor:
    """Mean nats per event: -sum_c share_c log q_c."""
    return -(shares * log_weights).sum(dim=1).mean()


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast a network is trained; the epoch of least validation loss counts.

    ``epochs_if_cut`` are the most where the windows have more than `MAX_TRAINING_CELLS`.
    """

    epochs: int = 30
    epochs_if_cut: int = 16
    patience: int = 4
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3


def rows_per_batch(rows: int, n_categories: int, cells: int = CELLS_PER_BATCH) -> int:
    """Give ``rows``, or as many as make that many cells if these are fewer; 1 at least."""
    return max(1, min(rows, cells // n_categories))


def newest_rows(windows: Sequence[Window], cells: int, seed: int = 0) -> IntArray:
    """Give the rows, in order, of the newest windows that have so many cells together, or of all.

    Which of those of one time are among them is drawn at random.
    """
    n = rows_per_batch(len(windows), windows[0].history.catalog.n_categories, cells)
    starts = np.array([window.target.period.start for window in windows], dtype="datetime64[ms]")
    drawn = np.random.default_rng(seed).permutation(len(windows))
    return np.sort(np.lexsort((drawn, -starts.view(np.int64)))[:n])
