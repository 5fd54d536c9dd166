"""A GRU over interest vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy, gated, steps
from llmrec.forecasters.network import Training


class GRU(nn.Module):
    """Mixes softmax(log prior + change) with a free forecast, both linear in the last state."""

    plan: ClassVar[Training] = Training(epochs=16, patience=4, batch_size=128)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        del n_periods
        self.enter = nn.Sequential(nn.Linear(n_categories + 1, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.walk = nn.GRU(hidden, hidden, batch_first=True)
        self.leave = Head(hidden, n_categories)

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights."""
        states, _ = self.walk(self.enter(steps(inputs)))
        log_weights: Tensor = self.leave(states[:, -1], inputs.prior)
        return log_weights

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


class Head(nn.Module):
    """(1 - g) softmax(log prior + change) + g softmax(scores), all linear in a state.

    Without biases: one would learn the season of the training periods.
    """

    def __init__(self, hidden: int, n_categories: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.change = nn.Linear(hidden, n_categories, bias=False)
        self.scores = nn.Linear(hidden, n_categories, bias=False)
        self.gate = nn.Linear(hidden, 1)
        nn.init.zeros_(self.change.weight)  # training starts near the prior
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, state: Tensor, prior: Tensor) -> Tensor:
        """(n, n_categories) log weights from (n, hidden) states and the prior's log weights."""
        state = self.drop(state)
        moved = torch.log_softmax(prior + self.change(state), dim=1)
        return gated(moved, self.scores(state), self.gate(state))
