"""Networks from item sequences to scores of the next item; SASRec and BERT4Rec are cornac's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import pad
except ImportError as error:
    raise MissingExtraError("next-item nets need torch: pip install 'llmrec[llm]'") from error

from llmrec.forecasters.esasrec import GAPS, ESASRec, label_loss, taken_items
from llmrec.types import IntArray, RepeatPolicy, TimeArray

NextItemName = Literal["SASRec", "BERT4Rec", "GRU4Rec", "eSASRec"]
BATCH_SIZE = 32
MAX_SEQUENCE = 50  # items that a network gets
FACTORS, BLOCKS, HEADS = 64, 2, 2
DROPOUT = {"SASRec": 0.5, "BERT4Rec": 0.2, "GRU4Rec": 0.5}
INIT_STD = 0.05  # of initial parameters; with cornac's 0.02 even a cycle is learned far slower
MASK_RATE = 0.2  # of the items before the newest that BERT4Rec is trained to predict


class GRU4Rec(nn.Module):
    """A gated recurrent network over items (Hidasi et al. 2016, arXiv 1511.06939).

    Input and output share the item embeddings.
    """

    def __init__(self, n_items: int, dropout: float) -> None:
        super().__init__()
        self.item_num, self.pad_idx = n_items, n_items
        self.item_emb = nn.Embedding(n_items + 1, FACTORS)
        nn.init.normal_(self.item_emb.weight, std=INIT_STD)
        self.dropout = nn.Dropout(dropout)
        self.net = nn.GRU(FACTORS, FACTORS, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, MAX_SEQUENCE, FACTORS) states after each item of (n, MAX_SEQUENCE) rows."""
        embedded = self.item_emb(rows) * (rows != self.pad_idx)[:, :, None]  # padding is 0
        states: Tensor = self.dropout(self.net(self.dropout(embedded))[0])
        return states


def build_net(model: NextItemName, n_items: int) -> Any:
    """Build the network of this name.

    The item index n_items is padding, n_items + 1 is BERT4Rec's mask.

    Raises
    ------
    MissingExtraError
        If it is cornac's, and cornac is not installed.
    """
    if model == "GRU4Rec":
        return GRU4Rec(n_items, DROPOUT[model])
    if model == "eSASRec":
        return ESASRec(n_items, MAX_SEQUENCE)
    try:
        from cornac.models.sasrec.sasrec import SASRecModel
        from cornac.models.transformer_rec.transformer_rec import TransformerRecModel
    except ImportError as error:
        raise MissingExtraError(
            f"{model} needs cornac: pip install 'llmrec[sequential]'"
        ) from error
    own = {"use_biases": False} if model == "SASRec" else {"backbone": "bert"}
    net = (SASRecModel if model == "SASRec" else TransformerRecModel)(
        n_items,
        embedding_dim=FACTORS,
        maxlen=MAX_SEQUENCE,
        n_layers=BLOCKS,
        n_heads=HEADS,
        dropout=DROPOUT[model],
        **own,
    )
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=INIT_STD)
    return net


def hidden_states(net: Any, rows: Tensor, gaps: Tensor | None = None) -> Tensor:
    """(n, MAX_SEQUENCE, FACTORS) states at each position of (n, MAX_SEQUENCE) rows.

    ``gaps`` of the same shape are those of `gap_buckets`, which eSASRec alone reads; None: unknown.
    """
    if isinstance(net, ESASRec):
        aware: Tensor = net(rows, gaps)
        return aware
    if isinstance(net, GRU4Rec):
        states: Tensor = net(rows)
        return states
    if _is_masked(net):
        encoded: Tensor = net.encode(rows)
        return encoded
    outputs: list[Tensor] = []  # SASRec computes all positions and returns the last alone
    hook = net.last_layernorm.register_forward_hook(lambda _net, _in, out: outputs.append(out))
    net(None, rows, rows[:, -1], return_hidden=True)
    hook.remove()
    return outputs[0]


def _is_masked(net: Any) -> bool:
    """Whether it is BERT4Rec, which predicts masked items; told without importing cornac."""
    return hasattr(net, "mask_idx")


def _item_scores(net: Any, states: Tensor) -> Tensor:
    """(n, n_items) unnormalised log-probabilities from (n, FACTORS) states."""
    scores = states @ net.item_emb.weight[: net.item_num].T
    if _is_masked(net):
        scores = scores + net.item_biases.weight[: net.item_num].T
    return scores


def next_item_logits(net: Any, rows: Tensor, gaps: Tensor | None = None) -> Tensor:
    """(n, n_items) unnormalised log-probabilities of the item after (n, MAX_SEQUENCE) rows."""
    if _is_masked(net):
        rows = pad(rows[:, 1:], (0, 1), value=net.mask_idx)
    return _item_scores(net, hidden_states(net, rows, gaps)[:, -1])


def next_item_loss(
    net: Any, rows: Tensor, gaps: Tensor | None = None, repeat: RepeatPolicy = "allow"
) -> Tensor:
    """Cross-entropy over the catalog, of (n, MAX_SEQUENCE + 1) rows.

    With ``repeat="exclude"`` only of items that are new in their row, among the new ones.
    """
    if isinstance(net, ESASRec):
        return net.loss(rows, gaps, repeat)
    inputs, labels = rows[:, :-1], rows[:, 1:]
    predicted = inputs != net.pad_idx
    if _is_masked(net):
        predicted = (torch.rand(labels.shape) < MASK_RATE) & (labels != net.pad_idx)
        predicted[:, -1] = True
        inputs = labels.masked_fill(predicted, net.mask_idx)
    taken = None
    if repeat == "exclude":
        taken = taken_items(inputs, net.item_num)
        if _is_masked(net):  # it sees the whole row at each position
            taken = taken[:, -1:].expand_as(taken)
        taken = taken[predicted]
    scores = _item_scores(net, hidden_states(net, inputs)[predicted])
    return label_loss(scores, labels[predicted], taken)


def optimizer_and_schedule(net: Any, rate: float, steps: int) -> tuple[Any, Any]:
    """Give Adam and its learning rates; they fall to 0, eSASRec's after they have risen."""
    if isinstance(net, ESASRec):
        return net.optimizer_and_schedule(rate, steps)
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def last_items(taken: Sequence[IntArray], length: int, padding: int) -> IntArray:
    """(n, length) each person's last items, padded on the left."""
    rows = np.full((len(taken), length), padding)
    for row, items in zip(rows, taken, strict=True):
        row[length - min(len(items), length) :] = items[-length:]
    return rows


def gap_buckets(times: TimeArray) -> IntArray:
    """(n_events,) how long before an event the previous one was, as place in `GAPS`.

    The first has no previous one: 0.
    """
    gaps = np.zeros(len(times), dtype=np.int64)
    gaps[1:] = 1 + np.searchsorted(GAPS, np.diff(times), side="right")
    return gaps


def training_sequences(taken: Sequence[IntArray], padding: int) -> IntArray:
    """(n, MAX_SEQUENCE + 1) sequences cut from a person's last items on; they overlap by one."""
    parts = [items[:stop] for items in taken for stop in range(len(items), 1, -MAX_SEQUENCE)]
    return last_items(parts, MAX_SEQUENCE + 1, padding)
