"""SASRec and BERT4Rec: what a person takes next, item by item, and the forecast made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from tqdm import tqdm

from llmrec.contracts import FloatArray, Forecast, IntArray, Source
from llmrec.data.files import write_bytes, write_text
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window
from llmrec.errors import DataError, MissingExtraError, ModelLoadError, TrainingError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.mixing import fit_share, mixed, shares_of
from llmrec.forecasters.spread import UNFITTED, Spread, fit_spread, forecasts_of

try:
    import torch
    from cornac.models.sasrec.sasrec import SASRecModel
    from cornac.models.transformer_rec.transformer_rec import TransformerRecModel
    from safetensors.torch import load_file, save
    from torch import Tensor
    from torch.nn.functional import cross_entropy
except ImportError as error:
    raise MissingExtraError(
        "SASRec and BERT4Rec need cornac and torch: pip install 'llmrec[sequential]'"
    ) from error

Name = Literal["SASRec", "BERT4Rec"]
LENGTH = 50  # items that a net sees
RECENT = 6  # sequences of a person to learn from, the newest
FACTORS, BLOCKS, HEADS, DROPOUT = 64, 2, 2, 0.5
MASKED = 0.2  # of the items before the newest that BERT4Rec has to guess
BATCH, RATE, PATIENCE = 64, 2e-3, 3
SLICE = 256  # histories scored at a time
PARAMETERS_FILE, ABOUT_FILE = "sequential.safetensors", "forecaster.json"


class NextItem:
    """The next item by SASRec or BERT4Rec; as a forecast, summed over categories.

    q = (1 - share) * counting + share * sum_i p(next item is i) * category shares of i. The nets are
    cornac's; they learn here by cross-entropy over the whole catalog, since cornac's own loop draws
    negatives by popularity, after which a softmax of the scores is no probability. SASRec (Kang &
    McAuley 2018) learns at every place of a sequence; BERT4Rec (Sun et al. 2019) to guess masked
    items: the newest, as when it is asked, and a fifth of the others.
    """

    def __init__(
        self, model: Name, prior: GlobalDrift | None = None, *, epochs: int = 30
    ) -> None:
        if model not in get_args(Name):
            raise DataError(f"no next-item model is called {model!r}: choose SASRec or BERT4Rec")
        self.model: Name = model
        self.prior, self.epochs = prior or GlobalDrift(), epochs
        self.item_ids = pd.Index([], dtype="str")
        self.share, self.seed, self.spread = 0.0, 0, UNFITTED
        self.fitted: Fitted | None = None
        self.curve: list[float] = []
        self._net: Any = None
        self._popularity = torch.empty(0)

    def fit(
        self, training: Sequence[Window], validation: Sequence[Window], *, seed: int = 0
    ) -> NextItem:
        """Train on what lies before the validation targets, and give itself back.

        The epoch kept and the share are those of least log-loss on the validation windows; ``curve``
        holds this loss after each epoch.

        Raises
        ------
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        self.fitted, self.seed = Fitted.on(training, validation), seed
        self.prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        catalog = validation[0].history.catalog
        histories = [window.history for window in validation]
        targets = np.stack([window.target.category_counts for window in validation])
        counted = self.prior.category_weights(histories)
        self.item_ids = catalog.item_ids
        taken = [items[-RECENT * LENGTH :] for items in _taken(training, validation)]
        counts = np.bincount(np.concatenate(taken), minlength=catalog.n_items) + 0.5
        self._popularity = torch.from_numpy(np.log(counts / counts.sum()))
        with torch.random.fork_rng(devices=[]):
            self._train(_sequences(taken, catalog.n_items), histories, counted, targets)
        learned = self._category_shares(histories)
        self.share, _ = fit_share(counted, learned, targets)
        self.spread = fit_spread(histories, mixed(counted, learned, self.share), targets)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item to be the next, in float64.

        A person without events gets what is popular in the events learned from.

        Raises
        ------
        TrainingError
            If not fitted.
        DataError
            If a history is of another catalog.
        """
        if self._net is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it, or load a checkpoint")
        if any(not history.catalog.item_ids.equals(self.item_ids) for history in histories):
            raise DataError(f"{self.model} was fitted on another catalog: fit it on this one")
        found = [np.empty((0, len(self.item_ids)))]
        for start in range(0, len(histories), SLICE):
            part = histories[start : start + SLICE]
            rows = _rows([history.item_idx for history in part], LENGTH, len(self.item_ids))
            empty = torch.tensor([not history.n_events for history in part])[:, None]
            with torch.inference_mode():
                scores = torch.log_softmax(_asked(self._net, torch.from_numpy(rows)), dim=1)
            found.append(torch.where(empty, self._popularity, scores).double().numpy())
        return np.concatenate(found)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        learned = self._category_shares(histories)
        return mixed(self.prior.category_weights(histories), learned, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source(self.model, "counting", seed=self.seed)
        return forecasts_of(source, histories, self.category_weights(histories), self.spread)

    def _category_shares(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) what the net alone says; rows sum to 1."""
        found = []
        for start in range(0, len(histories), SLICE):
            part = histories[start : start + SLICE]
            found.append(shares_of(np.exp(self.scores(part)) @ part[0].catalog.shares))
        return np.concatenate(found)

    def _train(self, rows, histories, counted, targets):
        import time
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        self._net = _new(self.model, len(self.item_ids))
        optimizer = torch.optim.Adam(self._net.parameters(), lr=RATE, betas=(0.9, 0.98))
        ones = targets / targets.sum(1, keepdims=True)
        t0 = time.time()
        best, state = np.inf, {}
        for epoch in range(self.epochs):
            self._net.train()
            order = rng.permutation(len(rows)); tot = []
            for start in range(0, len(rows), BATCH):
                optimizer.zero_grad()
                loss = _loss(self._net, torch.from_numpy(rows[order[start : start + BATCH]]))
                loss.backward()
                optimizer.step()
                tot.append(float(loss))
            self._net.eval()
            learned = self._category_shares(histories)
            share, l = fit_share(counted, learned, targets)
            alone = -(ones * np.log(learned)).sum(1).mean()
            print(epoch, f"train {np.mean(tot):.4f} alone {alone:.4f} share {share} mixed {l:.4f} {time.time()-t0:.0f}s", flush=True)
            if l < best:
                best, state = l, {k: v.clone() for k, v in self._net.state_dict().items()}
        self._net.load_state_dict(state)
        self._net.double().eval()


def _new(model: Name, n_items: int) -> Any:
    """Build cornac's net of this name; the index n_items is padding, n_items + 1 BERT4Rec's mask."""
    sizes = {"embedding_dim": FACTORS, "maxlen": LENGTH, "n_layers": BLOCKS, "n_heads": HEADS}
    if model == "SASRec":
        return SASRecModel(n_items, use_biases=False, dropout=DROPOUT, **sizes)
    return TransformerRecModel(n_items, backbone="bert", dropout=DROPOUT, **sizes)


def _states(net: Any, rows: Tensor) -> Tensor:
    """(n, LENGTH, FACTORS) what a net knows at each place of (n, LENGTH) rows."""
    if isinstance(net, TransformerRecModel):
        return net.encode(rows)
    found: list[Tensor] = []  # SASRec computes all places and gives the last alone
    hook = net.last_layernorm.register_forward_hook(lambda _net, _in, out: found.append(out))
    net(None, rows, rows[:, -1], return_hidden=True)
    hook.remove()
    return found[0]


def _item_scores(net: Any, states: Tensor) -> Tensor:
    """(n, n_items) unnormalised log-probabilities from (n, FACTORS) states."""
    scores = states @ net.item_emb.weight[: net.item_num].T
    if isinstance(net, TransformerRecModel):
        scores = scores + net.item_biases.weight[: net.item_num].T
    return scores


def _asked(net: Any, rows: Tensor) -> Tensor:
    """(n, n_items) unnormalised log-probabilities of the item after (n, LENGTH) rows."""
    if isinstance(net, TransformerRecModel):
        rows = torch.nn.functional.pad(rows[:, 1:], (0, 1), value=net.mask_idx)
    return _item_scores(net, _states(net, rows)[:, -1])


def _loss(net: Any, rows: Tensor) -> Tensor:
    """Cross-entropy over the catalog, of (n, LENGTH + 1) rows."""
    inputs, wanted = rows[:, :-1], rows[:, 1:]
    known = inputs != net.pad_idx
    if isinstance(net, TransformerRecModel):
        known = (torch.rand(wanted.shape) < MASKED) & (wanted != net.pad_idx)
        known[:, -1] = True
        inputs = wanted.masked_fill(known, net.mask_idx)
    return cross_entropy(_item_scores(net, _states(net, inputs)[known]), wanted[known])


def _taken(training: Sequence[Window], validation: Sequence[Window]) -> list[IntArray]:
    """Items of each person in the windows, oldest first, up to where they may be learned from."""
    log = validation[0].history.log
    stops = np.zeros(log.n_users, dtype=np.int64)
    for windows, ends in (
        (training, [window.target.stop for window in training]),
        (validation, [window.target.start for window in validation]),
    ):
        np.maximum.at(stops, [window.history.user_idx for window in windows], ends)
    return [log.item_idx[start:stop] for start, stop in zip(log.user_offsets, stops) if stop > start]


def _rows(sequences: Sequence[IntArray], length: int, padding: int) -> IntArray:
    """(n, length) the last items of each sequence, padded on the left."""
    rows = np.full((len(sequences), length), padding)
    for row, items in zip(rows, sequences, strict=True):
        newest = items[-length:]
        row[length - len(newest) :] = newest
    return rows


def _sequences(taken: Sequence[IntArray], padding: int) -> IntArray:
    """(n, LENGTH + 1) long sequences cut from their end; neighbours share an item."""
    parts = [items[:stop] for items in taken for stop in range(len(items), 1, -LENGTH)]
    return _rows(parts, LENGTH + 1, padding)
