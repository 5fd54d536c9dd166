"""One small net over (user, category) cells, shared by all categories."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy, decayed
from llmrec.forecasters.network import Training

RECENT = 6  # periods whose counts are features one by one
TASTE = 32  # width of the map from all that a person took


class CellMLP(nn.Module):
    """q = softmax(log prior + net(features of the cell) + taste): hard to beat.

    Every category is judged by the same net from what the person took of it (how much, how often,
    how lately), what everybody took of it and how that moves, and what kind of person it is. A
    narrow map from all categories to all categories adds what goes with what. There is no
    parameter that lifts a category for everybody: that would be the season of the training.
    """

    plan: ClassVar[Training] = Training(
        epochs=10, patience=4, batch_size=64, rate=3e-3, weight_decay=1e-2
    )

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 48) -> None:
        super().__init__()
        n_features = 2 * min(RECENT, n_periods) + 13
        self.cell = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )
        self.taste = nn.Sequential(
            nn.Linear(n_categories, TASTE),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(TASTE, n_categories, bias=False),
        )
        for last in (self.cell[-1], self.taste[-1]):
            nn.init.zeros_(last.weight)  # training starts from the prior

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights."""
        taken = decayed(inputs.counts, 0.8)
        taken = taken / taken.norm(dim=1, keepdim=True).clamp(min=1)
        scores = self.cell(cells(inputs)).squeeze(2) + self.taste(taken)
        return torch.log_softmax(inputs.prior + scores, dim=1)

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


def cells(inputs: Inputs) -> Tensor:
    """(n, n_categories, n_features) what is known of each category for each person."""
    counts, everyone = inputs.counts, inputs.everyone.log()
    n, length, n_categories = counts.shape
    recent = min(RECENT, length)
    ordinal = torch.arange(1, length + 1, dtype=counts.dtype)  # the newest period has the largest
    taken = (counts > 0).to(counts.dtype)
    active = (counts.sum(dim=2) > 0).to(counts.dtype)  # (n, length)
    periods = active.sum(dim=1, keepdim=True).clamp(min=1)
    total = counts.sum(dim=(1, 2))[:, None]
    share = counts.sum(dim=1) / total.clamp(min=1)
    now = everyone[:, -1]
    of_category = [
        *counts[:, -recent:].log1p().unbind(dim=1),
        *(everyone[:, -recent:] - now[:, None]).unbind(dim=1),
        *(decayed(counts, rate) for rate in (0.5, 0.8, 1.0)),
        taken.sum(dim=1) / periods,
        (taken * ordinal[:, None]).amax(dim=1) / length,  # how lately
        share.sqrt(),
        now,
        now - (everyone * active[:, :, None]).sum(dim=1) / periods,
        inputs.prior,
    ]
    of_person = [
        total.log1p(),
        counts[:, -1].sum(dim=1, keepdim=True).log1p(),
        periods.log(),
        -(share * share.clamp(min=1e-9).log()).sum(dim=1, keepdim=True),  # entropy
    ]
    features = [*of_category, *(value.expand(n, n_categories) for value in of_person)]
    return torch.stack(features, dim=2)
