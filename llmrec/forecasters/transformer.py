"""A Transformer over interest vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy, steps
from llmrec.forecasters.network import Training
from llmrec.forecasters.recurrent import Head


class Transformer(nn.Module):
    """The newest period attends to all since the first event; forecasts as `GRU` does."""

    plan: ClassVar[Training] = Training(epochs=16, patience=4, batch_size=128, rate=1e-3)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        self.enter = nn.Linear(n_categories + 1, hidden)
        self.age = nn.Parameter(0.1 * torch.randn(n_periods, hidden))
        block = nn.TransformerEncoderLayer(
            hidden, 4, 2 * hidden, dropout=0.2, batch_first=True, norm_first=True
        )
        self.walk = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.leave = Head(hidden, n_categories)

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights."""
        before = inputs.counts.sum(dim=2).cumsum(dim=1) == 0
        before[:, -1] = False  # somebody must be looked at where there is no event
        states = self.walk(self.enter(steps(inputs)) + self.age, src_key_padding_mask=before)
        log_weights: Tensor = self.leave(states[:, -1], inputs.prior)
        return log_weights

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)
