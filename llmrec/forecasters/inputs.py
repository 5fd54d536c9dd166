"""What a small net is given: histories as tensors of counts, and what its loss is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from llmrec.contracts import IntArray
from llmrec.data.periods import History, Window, common_counts, period_counts, target_counts
from llmrec.forecasters.counting import DecayedDirichlet, normalised
from llmrec.forecasters.mixing import shares_of

SLICE = 512  # histories counted at a time


class Inputs(NamedTuple):
    """What a net sees of n histories.

    ``counts`` (n, n_periods, n_categories) are the person's events by period, newest last, zeros
    before their first; ``everyone`` of the same shape are the shares of all users in the same
    periods; ``prior`` (n, n_categories) are the log weights of counting.
    """

    counts: Tensor
    everyone: Tensor
    prior: Tensor


@dataclass(frozen=True, eq=False)
class Arrays:
    """Inputs of many histories, in memory once; `inputs` gives rows as tensors."""

    counts: Any  # (n, n_periods, n_categories)
    everyone: Any  # (n_spans, n_categories) shares
    which: IntArray  # (n, n_periods) span of each period
    prior: Any  # (n, n_categories) log weights

    @classmethod
    def of(
        cls, histories: Sequence[History], prior: DecayedDirichlet, n_periods: int, dtype: Any
    ) -> Arrays:
        """Count the last periods of histories and of everybody, in the precision asked for."""
        catalog = histories[0].catalog
        counts = np.empty((len(histories), n_periods, catalog.n_categories), dtype=dtype)
        for start in range(0, len(histories), SLICE):
            part = histories[start : start + SLICE]
            counts[start : start + SLICE] = period_counts(part, n_periods)
        spans, which = common_counts(histories, n_periods)
        everyone = normalised(spans + 0.5).astype(dtype)
        weights = np.log(prior.category_weights(histories)).astype(dtype)
        return cls(counts, everyone, which, weights)

    def inputs(self, rows: IntArray | slice = slice(None)) -> Inputs:
        """Give the inputs of some rows."""
        return Inputs(
            torch.from_numpy(self.counts[rows]),
            torch.from_numpy(self.everyone[self.which[rows]]),
            torch.from_numpy(self.prior[rows]),
        )


def target_shares(windows: Sequence[Window]) -> Tensor:
    """(n_windows, n_categories) float32 shares of each target; 0 if no item had a category."""
    counts = target_counts(windows)
    return torch.from_numpy(shares_of(counts).astype(np.float32))


def steps(inputs: Inputs) -> Tensor:
    """(n, n_periods, n_categories + 1) roots of the person's shares by period, and log events."""
    events = inputs.counts.sum(dim=2, keepdim=True)
    return torch.cat(((inputs.counts / events.clamp(min=1)).sqrt(), events.log1p()), dim=2)


def decayed(counts: Tensor, rate: float) -> Tensor:
    """(n, n_categories) log(1 + sum over periods of rate^age * count)."""
    ages = torch.arange(counts.shape[1] - 1, -1, -1, dtype=counts.dtype)
    return (counts * (rate**ages)[:, None]).sum(dim=1).log1p()


def cross_entropy(log_weights: Tensor, shares: Tensor) -> Tensor:
    """Mean nats per event: -sum_c share_c log q_c."""
    return -(shares * log_weights).sum(dim=1).mean()


def gated(prior: Tensor, scores: Tensor, gate: Tensor) -> Tensor:
    """Log of (1 - g) prior + g softmax(scores), where g = sigmoid(gate), gate (n, 1)."""
    believed = logsigmoid(gate) + torch.log_softmax(scores, dim=1)
    return torch.logaddexp(logsigmoid(-gate) + prior, believed)
