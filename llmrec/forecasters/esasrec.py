"""eSASRec: a pre-norm Transformer over items, trained against many other items at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu

from llmrec.types import RepeatPolicy

FACTORS, BLOCKS, HEADS = 64, 2, 2
DROPOUT = 0.4
INIT_STD = 0.05
LAYER_RATE = 0.15  # of the learning rate of the item embeddings
WARMUP = 0.1  # share of the steps in which the rate rises
MAX_NORM = 1.0  # of a gradient
# Time between two events, in ms: at once, within a minute, 10 minutes, an hour, 6 hours, a day, a
# week, 4 weeks, 90 days, or longer.
GAPS = np.array([1, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_419_200, 7_776_000]) * 1_000
GAPS = GAPS.astype("timedelta64[ms]")
MAX_FULL_SOFTMAX = 10_000  # items; beyond, a step would hold too many scores
NEGATIVES = 2_048  # items that a step's labels are told apart from in a larger catalog


def taken_items(rows: Tensor, n_items: int) -> Tensor:
    """(n, length, n_items) whether each item is at a position of (n, length) rows, or before it."""
    length = rows.shape[1]
    places = torch.arange(length).expand_as(rows)
    first = torch.full((len(rows), max(n_items, int(rows.max()) + 1)), length)
    first.scatter_reduce_(1, rows, places, "amin")
    return first[:, None, :n_items] <= torch.arange(length)[:, None]


def label_loss(scores: Tensor, labels: Tensor, taken: Tensor | None = None) -> Tensor:
    """Cross-entropy of (n,) labels under (n, n_items) scores.

    Where (n, n_items) ``taken`` is given, that of the labels that are not taken, among all items
    that are not; 0 if there are none.
    """
    if taken is None:
        return cross_entropy(scores, labels)
    new = ~taken.gather(1, labels[:, None])[:, 0]
    possible = scores.masked_fill(taken, -torch.inf)[new]
    return cross_entropy(possible, labels[new], reduction="sum") / max(int(new.sum()), 1)


class LiGRBlock(nn.Module):
    """Attention and a SwiGLU layer, each gated by what it adds to (LiGR, arXiv 2502.03417).

    x <- x + sigmoid(W x) * layer(norm(x)), for either layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(FACTORS), nn.LayerNorm(FACTORS)
        self.attention_gate = nn.Linear(FACTORS, FACTORS)
        self.feed_gate = nn.Linear(FACTORS, FACTORS)
        self.qkv, self.out = nn.Linear(FACTORS, 3 * FACTORS), nn.Linear(FACTORS, FACTORS)
        self.up, self.down = nn.Linear(FACTORS, 4 * FACTORS), nn.Linear(2 * FACTORS, FACTORS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        """(n, length, FACTORS) from the same; ``bias`` (n, HEADS, length, length) of attention."""
        attended = self.dropout(self._attend(self.attention_norm(states), bias))
        states = states + torch.sigmoid(self.attention_gate(states)) * attended
        gate, values = self.up(self.feed_norm(states)).chunk(2, dim=-1)
        fed = self.dropout(self.down(silu(gate) * values))
        return states + torch.sigmoid(self.feed_gate(states)) * fed

    def _attend(self, states: Tensor, bias: Tensor) -> Tensor:
        n, length, _ = states.shape
        parts = self.qkv(states).view(n, length, 3, HEADS, FACTORS // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, FACTORS))
        return found


class ESASRec(nn.Module):
    """SASRec's aim with a newer Transformer and loss (Tikhonovich et al. 2025, arXiv 2508.06450).

    It predicts the item after every position. Attention knows how far apart two items are, and an
    item comes with how long after the previous one it was taken. Input and output share the item
    embeddings.
    """

    def __init__(self, n_items: int, length: int) -> None:
        super().__init__()
        self.item_num, self.pad_idx = n_items, n_items
        self.item_emb = nn.Embedding(n_items + 1, FACTORS)
        self.gap_emb = nn.Embedding(len(GAPS) + 2, FACTORS)
        self.blocks = nn.ModuleList(LiGRBlock() for _ in range(BLOCKS))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=INIT_STD)
        self.distance = nn.Parameter(torch.zeros(HEADS, length))  # bias of attention by distance
        self.norm, self.dropout = nn.LayerNorm(FACTORS), nn.Dropout(DROPOUT)

    def forward(self, rows: Tensor, gaps: Tensor | None = None) -> Tensor:
        """(n, length, FACTORS) states after each item of (n, length) rows, with their gaps."""
        states = self.item_emb(rows)
        if gaps is not None:
            states = states + self.gap_emb(gaps)
        states = self.dropout(states)
        bias = self._attention_bias(rows)
        for block in self.blocks:
            states = block(states, bias)
        found: Tensor = self.dropout(self.norm(states))
        return found

    def loss(
        self, rows: Tensor, gaps: Tensor | None = None, repeat: RepeatPolicy = "allow"
    ) -> Tensor:
        """Cross-entropy of the item after each position of (n, length + 1) rows.

        With ``repeat="exclude"`` of one that is not before it, among all that are not.
        """
        first = int((rows != self.pad_idx).any(dim=0).int().argmax())  # before it all is padding
        inputs, labels = rows[:, first:-1], rows[:, first + 1 :]
        predicted = inputs != self.pad_idx
        states = self(inputs, None if gaps is None else gaps[:, first:-1])[predicted]
        labels, taken = labels[predicted], None
        if repeat == "exclude":
            taken = taken_items(inputs, self.item_num)[predicted]
        if self.item_num <= MAX_FULL_SOFTMAX:
            scores = states @ self.item_emb.weight[: self.item_num].T
            return label_loss(scores, labels, taken)
        return self._sampled_loss(states, labels, taken)

    def optimizer_and_schedule(self, rate: float, steps: int) -> tuple[Any, Any]:
        """Give Adam and its learning rates: they rise at first, then fall to 0 as a cosine does.

        The item embeddings get ``rate``, the layers less.
        """
        table = [self.item_emb.weight]
        layers = [value for value in self.parameters() if value is not self.item_emb.weight]
        groups = [{"params": table}, {"params": layers, "lr": LAYER_RATE * rate}]
        optimizer = torch.optim.Adam(groups, lr=rate, betas=(0.9, 0.98))
        optimizer.register_step_pre_hook(self._clip_gradients)
        rising = max(1, round(WARMUP * steps))

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, steps - rising))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def _clip_gradients(self, *_: Any) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), MAX_NORM)

    def _sampled_loss(self, states: Tensor, labels: Tensor, taken: Tensor | None) -> Tensor:
        """Estimate the cross-entropy over the catalog by that over some items drawn uniformly.

        The scores of those stand for all others', so that log-probabilities stay such.
        """
        drawn = torch.randint(self.item_num, (NEGATIVES,))
        others = states @ self.item_emb(drawn).T + math.log(self.item_num / NEGATIVES)
        others = others.masked_fill(drawn[None] == labels[:, None], -torch.inf)
        own = (states * self.item_emb(labels)).sum(dim=1, keepdim=True)
        if taken is not None:
            taken = torch.cat([taken.gather(1, labels[:, None]), taken[:, drawn]], dim=1)
        return label_loss(torch.cat([own, others], dim=1), torch.zeros_like(labels), taken)

    def _attention_bias(self, rows: Tensor) -> Tensor:
        """(n, HEADS, length, length) what is added to attention; -inf for padding and for later.

        A position of padding attends to itself, for lack of anything else.
        """
        places = torch.arange(rows.shape[1])
        distance = places[:, None] - places[None]
        seen = (distance >= 0) & (rows != self.pad_idx)[:, None, None]
        seen = seen | (distance == 0)
        return torch.where(seen, self.distance[:, distance.clamp(min=0)], -torch.inf)
