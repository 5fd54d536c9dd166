"""A variational autoencoder from the interests so far to those of the next period."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmrec.forecasters.inputs import Inputs, cross_entropy, decayed
from llmrec.forecasters.network import Training
from llmrec.forecasters.recurrent import Head

DRAWS = 16  # of z, fixed, whose mean is the forecast
RECENCY = 0.8  # weight of a period relative to the next newer one
KL_WEIGHT = 1e-3  # per event; below 1 as in Liang et al. 2018, section 2.2.2


class VAE(nn.Module):
    """z = mu + sigma * eps, decoded to the next period's interests (Mult-VAE, Liang et al. 2018).

    It is trained to give the next period and not the one it was shown. The forecast is the mean of
    its predictive distribution; `sample` draws from it.
    """

    plan: ClassVar[Training] = Training(epochs=24, patience=4, batch_size=128)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        del n_periods
        self.encode = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(n_categories, 2 * hidden),
            nn.Tanh(),
            nn.Linear(2 * hidden, 2 * hidden),
        )
        self.decode = Head(hidden, n_categories)
        fixed = torch.randn(DRAWS // 2, hidden, generator=torch.Generator().manual_seed(0))
        self.register_buffer("eps", torch.cat((fixed, -fixed)))

    def forward(self, inputs: Inputs) -> Tensor:
        """(n, n_categories) log weights, of the mean over the fixed draws of z."""
        mu, log_sigma = self._z(inputs)
        drawn = [self._given(mu + log_sigma.exp() * eps, inputs.prior) for eps in self.eps]
        return torch.logsumexp(torch.stack(drawn), dim=0) - torch.log(mu.new_tensor(float(DRAWS)))

    def loss(self, inputs: Inputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy of one draw, plus the weighted KL divergence of z from N(0, 1)."""
        mu, log_sigma = self._z(inputs)
        z = mu + log_sigma.exp() * torch.randn_like(mu)
        kl = (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(dim=1).mean() / 2
        return cross_entropy(self._given(z, inputs.prior), shares) + KL_WEIGHT * kl

    def sample(self, inputs: Inputs, n: int, seed: int = 0) -> Tensor:
        """Draw (n, n_histories, n_categories) interest vectors of the next period."""
        mu, log_sigma = self._z(inputs)
        random = torch.Generator().manual_seed(seed)
        eps = torch.randn((n, *mu.shape), generator=random, dtype=mu.dtype)
        return torch.stack(
            [self._given(mu + log_sigma.exp() * one, inputs.prior).exp() for one in eps]
        )

    def _z(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        taken = decayed(inputs.counts, RECENCY)
        taken = taken / taken.norm(dim=1, keepdim=True).clamp(min=1)
        mu, log_sigma = self.encode(taken).chunk(2, dim=1)
        return mu, log_sigma.clamp(-5, 2) - 1

    def _given(self, z: Tensor, prior: Tensor) -> Tensor:
        log_weights: Tensor = self.decode(z, prior)
        return log_weights
