"""Small neural networks: CellMLP, GRU, Transformer, recurrent recommender network, VAE."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from llmrec.forecasters.network_inputs import PeriodInputs, TrainingPlan, cross_entropy

RECENT_PERIODS = 6  # periods whose counts are features of a category one by one
RECENCY = 0.8  # weight of a period relative to the next newer one, in what a person took
AFFINITY_WIDTH = 32  # hidden width of CellMLP's map from all categories to all categories
LATENT_DRAWS = 16  # fixed draws of the VAE's z, whose mean is the forecast
KL_WEIGHT = 1e-3  # of the VAE, per event; below 1 as in Liang et al. 2018, section 2.2.2


class CellMLP(nn.Module):
    """q = softmax(log prior + mlp(features of the person and category) + affinity).

    One network scores every category by what the person took of it (how much, how often, how
    lately), what everybody took of it and how that changes, and the person's activity. A narrow map
    from all categories to all categories adds which go together. No parameter raises a category for
    everybody: it would learn the season of the training periods.
    """

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(
        epochs=10,
        epochs_if_cut=3,
        patience=4,
        batch_size=64,
        learning_rate=3e-3,
        weight_decay=1e-2,
    )

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 48) -> None:
        super().__init__()
        n_features = 2 * min(RECENT_PERIODS, n_periods) + 13
        self.cell = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )
        self.taste = nn.Sequential(
            nn.Linear(n_categories, AFFINITY_WIDTH),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(AFFINITY_WIDTH, n_categories, bias=False),
        )
        for last in (self.cell[-1], self.taste[-1]):
            nn.init.zeros_(last.weight)  # training starts from the prior

    def forward(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights."""
        taken = _unit(decayed_log_counts(inputs.counts, RECENCY))
        scores = self.cell(cell_features(inputs)).squeeze(2) + self.taste(taken)
        return torch.log_softmax(inputs.prior + scores, dim=1)

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


class GatedHead(nn.Module):
    """(1 - g) softmax(log prior + change) + g softmax(scores), all linear in a state.

    Without biases, which would learn the season of the training periods.
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
        return gated_log_mixture(moved, self.scores(state), self.gate(state))


class GRU(nn.Module):
    """A GRU over a person's periods, with a `GatedHead` on its last state."""

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(epochs=16, patience=4, batch_size=128)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        del n_periods
        self.enter = nn.Sequential(nn.Linear(n_categories + 1, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.walk = nn.GRU(hidden, hidden, batch_first=True)
        self.leave = GatedHead(hidden, n_categories)

    def forward(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights."""
        states, _ = self.walk(self.enter(period_features(inputs)))
        log_weights: Tensor = self.leave(states[:, -1], inputs.prior)
        return log_weights

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


class Transformer(nn.Module):
    """Self-attention over the periods since the first event, with a `GatedHead` on the newest."""

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(
        epochs=16, patience=4, batch_size=128, learning_rate=1e-3
    )

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        self.enter = nn.Linear(n_categories + 1, hidden)
        self.age = nn.Parameter(0.1 * torch.randn(n_periods, hidden))
        block = nn.TransformerEncoderLayer(
            hidden, 4, 2 * hidden, dropout=0.2, batch_first=True, norm_first=True
        )
        self.walk = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.leave = GatedHead(hidden, n_categories)

    def forward(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights."""
        before = inputs.counts.sum(dim=2).cumsum(dim=1) == 0
        before[:, -1] = False  # attention needs one period where there is no event
        states = self.walk(
            self.enter(period_features(inputs)) + self.age, src_key_padding_mask=before
        )
        log_weights: Tensor = self.leave(states[:, -1], inputs.prior)
        return log_weights

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)


class RRN(nn.Module):
    """softmax(log prior + <person's state, category's state> + <state and taste, factors>).

    After Wu et al. 2017 (Recurrent Recommender Networks, eq. 5), with categories as items: a GRU
    over the person's periods, one over what everybody took of each category in the same periods,
    and a linear term of the person's state and taste. All inputs lie before the cutoff. Taste comes
    from what a person took and not from an id, so that people unseen in training have one.
    """

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(epochs=16, patience=4, batch_size=128)

    def __init__(
        self, n_categories: int, n_periods: int, hidden: int = 48, category_size: int = 8
    ) -> None:
        super().__init__()
        del n_periods
        self.enter = nn.Sequential(nn.Linear(n_categories + 1, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.person = nn.GRU(hidden, hidden, batch_first=True)
        self.category = nn.GRU(2, category_size, batch_first=True)
        self.meet = nn.Linear(hidden, category_size)
        self.taste = nn.Sequential(nn.Linear(n_categories, hidden), nn.Tanh(), nn.Dropout(0.2))
        self.factors = nn.Linear(2 * hidden, n_categories, bias=False)
        nn.init.zeros_(self.factors.weight)  # training starts from the prior
        nn.init.zeros_(self.meet.weight)
        nn.init.zeros_(self.meet.bias)

    def forward(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights."""
        states, _ = self.person(self.enter(period_features(inputs)))
        person = states[:, -1]
        taste = self.taste(_unit(decayed_log_counts(inputs.counts, RECENCY)))
        changing = torch.einsum(
            "nd,ncd->nc", self.meet(person), self._category_states(inputs.population)
        )
        lasting: Tensor = self.factors(torch.cat((person, taste), dim=1))
        return torch.log_softmax(inputs.prior + changing + lasting, dim=1)

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self(inputs), shares)

    def _category_states(self, population: Tensor) -> Tensor:
        """(n, n_categories, of_category) states; people of the same periods share theirs."""
        n, n_periods, n_categories = population.shape
        flat, which = torch.unique(population.reshape(n, -1), dim=0, return_inverse=True)
        level = flat.reshape(-1, n_periods, n_categories).log()
        moves = torch.diff(level, dim=1, prepend=level[:, :1])
        series = torch.stack((level - level.mean(dim=1, keepdim=True), moves), dim=3)
        series = series.transpose(1, 2).reshape(-1, n_periods, 2)
        _, last = self.category(series)
        return last[0].reshape(len(flat), n_categories, -1)[which]


class VAE(nn.Module):
    """z = mu + sigma * eps, decoded to the next period's interests (Mult-VAE, Liang et al. 2018).

    It is trained to predict the next period, not to reconstruct its input. The forecast is the mean
    of its predictive distribution; `sample` draws from it.
    """

    training_plan: ClassVar[TrainingPlan] = TrainingPlan(epochs=24, patience=4, batch_size=128)

    def __init__(self, n_categories: int, n_periods: int, hidden: int = 64) -> None:
        super().__init__()
        del n_periods
        self.encode = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(n_categories, 2 * hidden),
            nn.Tanh(),
            nn.Linear(2 * hidden, 2 * hidden),
        )
        self.decode = GatedHead(hidden, n_categories)
        fixed = torch.randn(LATENT_DRAWS // 2, hidden, generator=torch.Generator().manual_seed(0))
        self.register_buffer("eps", torch.cat((fixed, -fixed)))

    def forward(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights, of the mean over the fixed draws of z."""
        mu, log_sigma = self._encode(inputs)
        draws = [self._decode(mu + log_sigma.exp() * eps, inputs.prior) for eps in self.eps]
        return torch.logsumexp(torch.stack(draws), dim=0) - torch.log(
            mu.new_tensor(float(LATENT_DRAWS))
        )

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Mean cross-entropy of one draw, plus the weighted KL divergence of z from N(0, 1)."""
        mu, log_sigma = self._encode(inputs)
        z = mu + log_sigma.exp() * torch.randn_like(mu)
        kl = (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(dim=1).mean() / 2
        return cross_entropy(self._decode(z, inputs.prior), shares) + KL_WEIGHT * kl

    def sample(self, inputs: PeriodInputs, n: int, seed: int = 0) -> Tensor:
        """Draw (n, n_histories, n_categories) interest vectors of the next period."""
        mu, log_sigma = self._encode(inputs)
        random = torch.Generator().manual_seed(seed)
        eps = torch.randn((n, *mu.shape), generator=random, dtype=mu.dtype)
        return torch.stack(
            [self._decode(mu + log_sigma.exp() * draw, inputs.prior).exp() for draw in eps]
        )

    def _encode(self, inputs: PeriodInputs) -> tuple[Tensor, Tensor]:
        taken = _unit(decayed_log_counts(inputs.counts, RECENCY))
        mu, log_sigma = self.encode(taken).chunk(2, dim=1)
        return mu, log_sigma.clamp(-5, 2) - 1

    def _decode(self, z: Tensor, prior: Tensor) -> Tensor:
        log_weights: Tensor = self.decode(z, prior)
        return log_weights


# What `NetworkForecaster` can be loaded with, by the name of the class.
NETWORKS: dict[str, type[Any]] = {
    network.__name__: network for network in (CellMLP, GRU, Transformer, VAE, RRN)
}


def cell_features(inputs: PeriodInputs) -> Tensor:
    """(n, n_categories, n_features) features of each person and category."""
    counts, population = inputs.counts, inputs.population.log()
    n, length, n_categories = counts.shape
    recent = min(RECENT_PERIODS, length)
    ordinal = torch.arange(1, length + 1, dtype=counts.dtype)  # the newest period has the largest
    taken = (counts > 0).to(counts.dtype)
    active = (counts.sum(dim=2) > 0).to(counts.dtype)  # (n, length)
    periods = active.sum(dim=1, keepdim=True).clamp(min=1)
    total = counts.sum(dim=(1, 2))[:, None]
    share = counts.sum(dim=1) / total.clamp(min=1)
    now = population[:, -1]
    of_category = [
        *counts[:, -recent:].log1p().unbind(dim=1),
        *(population[:, -recent:] - now[:, None]).unbind(dim=1),
        *(decayed_log_counts(counts, rate) for rate in (0.5, 0.8, 1.0)),
        taken.sum(dim=1) / periods,
        (taken * ordinal[:, None]).amax(dim=1) / length,  # how lately
        share.sqrt(),
        now,
        now - (population * active[:, :, None]).sum(dim=1) / periods,
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


def period_features(inputs: PeriodInputs) -> Tensor:
    """(n, n_periods, n_categories + 1) roots of the person's shares by period, and log events."""
    events = inputs.counts.sum(dim=2, keepdim=True)
    return torch.cat(((inputs.counts / events.clamp(min=1)).sqrt(), events.log1p()), dim=2)


def decayed_log_counts(counts: Tensor, decay: float) -> Tensor:
    """(n, n_categories) log(1 + sum over periods of rate^age * count)."""
    ages = torch.arange(counts.shape[1] - 1, -1, -1, dtype=counts.dtype)
    return (counts * (decay**ages)[:, None]).sum(dim=1).log1p()


def _unit(counts: Tensor) -> Tensor:
    """Divide rows longer than 1 by their Euclidean norm."""
    return counts / counts.norm(dim=1, keepdim=True).clamp(min=1)


def gated_log_mixture(prior: Tensor, scores: Tensor, gate: Tensor) -> Tensor:
    """Log of (1 - g) prior + g softmax(scores), where g = sigmoid(gate), gate (n, 1)."""
    gated = logsigmoid(gate) + torch.log_softmax(scores, dim=1)
    return torch.logaddexp(logsigmoid(-gate) + prior, gated)
