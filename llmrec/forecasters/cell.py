"""One small net over (user, category) cells, shared by all categories."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy
from llmrec.forecasters.network import Training

RECENT = 6  # periods whose counts are features one by one


class CellMLP(nn.Module):
    """q = softmax(log prior + net(features of the cell)): the hardest numeric forecaster here.

    Every category is judged by the same net from what the person took of it (how much, how often,
    how lately), what everybody took of it and how that moves, and what kind of person it is.
    """

    plan: ClassVar[Training] = Training(epochs=24, patience=5, batch_size=64, rate=3e-3)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 48) -> None:
        super().__init__()
        n = 2 * min(RECENT, n_periods) + 13
        self.taste = nn.Sequential(nn.Linear(n_categories, 32), nn.GELU(), nn.Dropout(0.2))
        self.of_taste = nn.Linear(32, n_categories, bias=False)
        nn.init.zeros_(self.of_taste.weight)
        self.net = nn.Sequential(
            nn.Linear(n, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights."""
        scores = self.last(self.net(cells(inputs))).squeeze(2)
        rates = 0.8 ** torch.arange(inputs.counts.shape[1] - 1, -1, -1, dtype=inputs.counts.dtype)
        v = (inputs.counts * rates[:, None]).sum(dim=1).log1p()
        v = v / v.norm(dim=1, keepdim=True).clamp(min=1)
        return torch.log_softmax(inputs.prior + scores + self.of_taste(self.taste(v)), dim=1)

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


def cells(inputs: Inputs) -> Tensor:
    """(n, n_categories, n_features) what is known of each category for each person."""
    counts, everyone = inputs.counts, inputs.everyone.log()
    n, length, n_categories = counts.shape
    recent = min(RECENT, length)
    ages = torch.arange(length - 1, -1, -1, dtype=counts.dtype)
    decayed = [(counts * (rate**ages)[:, None]).sum(dim=1).log1p() for rate in (0.5, 0.8, 1.0)]
    taken = (counts > 0).to(counts.dtype)
    active = (counts.sum(dim=2) > 0).to(counts.dtype)  # (n, length)
    periods = active.sum(dim=1, keepdim=True).clamp(min=1)
    newest = (taken * (length - ages)[:, None]).amax(dim=1) / length  # 1: taken last period
    total = counts.sum(dim=(1, 2))[:, None]
    share = counts.sum(dim=1) / total.clamp(min=1)
    entropy = -(share * share.clamp(min=1e-9).log()).sum(dim=1, keepdim=True)
    of_person = [total.log1p(), counts[:, -1].sum(dim=1, keepdim=True).log1p(), periods.log(), entropy]
    now = everyone[:, -1]
    before = (everyone * active[:, :, None]).sum(dim=1) / periods
    features = [
        *counts[:, -recent:].log1p().unbind(dim=1),
        *(everyone[:, -recent:] - now[:, None]).unbind(dim=1),
        *decayed,
        taken.sum(dim=1) / periods,
        newest,
        share.sqrt(),
        now,
        now - before,
        inputs.prior,
        *(value.expand(n, n_categories) for value in of_person),
    ]
    return torch.stack(features, dim=2)
