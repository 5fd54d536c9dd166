"""A recurrent recommender network: people and categories both move."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy, decayed, steps
from llmrec.forecasters.network import Training


class RRN(nn.Module):
    """softmax(log prior + <person's state, category's state> + <state and taste, factors>).

    After Wu et al. 2017 (Recurrent Recommender Networks, eq. 5), with categories as items: a GRU
    over the person's periods, one over what everybody took of each category in the same periods,
    and a linear term of the person's state and taste. All of it lies before the cutoff: the
    forecast is strictly forward in time. Taste comes from what a person took and not from an id,
    so that people never seen in training have one.
    """

    plan: ClassVar[Training] = Training(epochs=16, patience=4, batch_size=128)

    def __init__(
        self, n_categories: int, n_periods: int, hidden: int = 48, of_category: int = 8
    ) -> None:
        super().__init__()
        del n_periods
        self.enter = nn.Sequential(nn.Linear(n_categories + 1, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.person = nn.GRU(hidden, hidden, batch_first=True)
        self.category = nn.GRU(2, of_category, batch_first=True)
        self.meet = nn.Linear(hidden, of_category)
        self.taste = nn.Sequential(nn.Linear(n_categories, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.factors = nn.Linear(2 * hidden, n_categories, bias=False)
        nn.init.zeros_(self.factors.weight)  # training starts from the prior
        nn.init.zeros_(self.meet.weight)
        nn.init.zeros_(self.meet.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights."""
        states, _ = self.person(self.enter(steps(inputs)))
        person = states[:, -1]
        taken = decayed(inputs.counts, 0.8)
        taste = self.taste(taken / taken.norm(dim=1, keepdim=True).clamp(min=1))
        moving = torch.einsum("nd,ncd->nc", self.meet(person), self._categories(inputs.everyone))
        lasting: Tensor = self.factors(torch.cat((person, taste), dim=1))
        return torch.log_softmax(inputs.prior + moving + lasting, dim=1)

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)

    def _categories(self, everyone: Tensor) -> Tensor:
        """(n, n_categories, of_category) states; people of one calendar share theirs."""
        n, n_periods, n_categories = everyone.shape
        flat, which = torch.unique(everyone.reshape(n, -1), dim=0, return_inverse=True)
        level = flat.reshape(-1, n_periods, n_categories).log()
        moves = torch.diff(level, dim=1, prepend=level[:, :1])
        series = torch.stack((level - level.mean(dim=1, keepdim=True), moves), dim=3)
        series = series.transpose(1, 2).reshape(-1, n_periods, 2)
        _, last = self.category(series)
        return last[0].reshape(len(flat), n_categories, -1)[which]
