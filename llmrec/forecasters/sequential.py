"""SASRec, BERT4Rec and GRU4Rec: they score the next item, and forecast by its categories."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm

from llmrec.data.calendar import MILLISECOND
from llmrec.data.counts import row_shares, target_counts
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import (
    DEFAULT_DISPERSION,
    Dispersion,
    fit_dispersion,
    fit_interpolation,
    interpolate,
    make_forecasts,
)
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.sequential_nets import (
    BATCH_SIZE,
    MAX_SEQUENCE,
    NextItemName,
    build_net,
    last_items,
    next_item_logits,
    next_item_loss,
    training_sequences,
)
from llmrec.types import FloatArray, IntArray

PARAMETERS_FILE, METADATA_FILE = "sequential.safetensors", "forecaster.json"
SEQUENCES_PER_USER = 6  # training sequences of a person, the newest
# BERT4Rec predicts fewer items a step than the others.
DEFAULT_STEPS = {"SASRec": 900, "BERT4Rec": 1600, "GRU4Rec": 1800}
DEFAULT_RATES = {"SASRec": 2e-3, "BERT4Rec": 2e-3, "GRU4Rec": 2e-2}
HISTORIES_PER_BATCH = 256  # histories scored at a time
EMPTY_SPAN = TrainingSpan(
    None, item_ids=pd.Index([], dtype="str"), n_events=pd.Series(dtype=np.int64)
)


class NextItemModel:
    """Scores the next item with SASRec, BERT4Rec or GRU4Rec; forecasts by summing over categories.

    q = (1 - share) * counting + share * sum_i p(next item is i) * category shares of i. The first
    two networks are cornac's; all are trained here by cross-entropy over the whole catalog, since
    after cornac's own loop, which draws negatives, a softmax of the scores is no probability.

    Parameters
    ----------
    model
        "SASRec" (Kang & McAuley 2018) and "GRU4Rec" (Hidasi et al. 2016) are trained to predict the
        item after every position of a sequence, "BERT4Rec" (Sun et al. 2019) to predict masked
        items: the newest, as when it scores, and a fifth of the others.
    prior
        The counting mixed in; fitted on the validation windows if it is not yet.
    steps
        Training steps of `BATCH_SIZE` sequences; None: as `DEFAULT_STEPS` says.
    rate
        Learning rate of the first step, > 0, falling to 0; None: as `DEFAULT_RATES` says.
    """

    def __init__(
        self,
        model: NextItemName,
        prior: GlobalDrift | None = None,
        *,
        steps: int | None = None,
        rate: float | None = None,
    ) -> None:
        if model not in get_args(NextItemName):
            known = ", ".join(get_args(NextItemName))
            raise DataError(f"no next-item model is called {model!r}: choose from {known}")
        self.model: NextItemName = model
        if rate is not None and not 0 < rate < np.inf:
            raise DataError(f"the rate must be finite and > 0, not {rate}")
        self.prior = prior or GlobalDrift()
        self.steps, self.rate = steps or DEFAULT_STEPS[model], rate or DEFAULT_RATES[model]
        self.name = f"what comes next ({model})"
        self.learned = EMPTY_SPAN
        self.share, self.seed, self.spread = 0.0, 0, DEFAULT_DISPERSION
        self.fitted: TrainingSpan | None = None
        self._net: Any = None
        self._popularity = torch.empty(0)

    def fit(
        self, training: Sequence[Window], validation: Sequence[Window], *, seed: int = 0
    ) -> NextItemModel:
        """Train on what lies before the validation targets; returns itself.

        The share and the spread are fitted on the validation windows, whose targets the network has
        not seen.

        Raises
        ------
        DataError
            If the windows are of several logs.
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        fitted, self.seed = TrainingSpan.of_windows(training, validation), seed
        self._net = self.fitted = None  # a failed fit must not forecast
        self.prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        catalog = validation[0].history.catalog
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = self.prior.category_weights(histories)
        self.learned = _training_span(training, validation)
        taken = _last_items_taken(self.learned, histories[0].log)
        rows = training_sequences(taken, catalog.n_items)
        if not len(rows):
            raise TrainingError(
                "nobody took two items before the validation targets: use more data"
            )
        counts = np.bincount(np.concatenate(taken), minlength=catalog.n_items) + 0.5
        self._popularity = torch.from_numpy(np.log(counts / counts.sum()))
        with torch.random.fork_rng(devices=[]):
            self._net = self._train(rows)
        self.fitted = fitted
        predicted = self._category_shares(histories)
        self.share, _ = fit_interpolation(counted, predicted, targets)
        weights = interpolate(counted, predicted, self.share)
        self.spread = fit_dispersion(histories, weights, targets)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item to be the next, in float64.

        A person without events gets the popularity in the training events.

        Raises
        ------
        TrainingError
            If not fitted.
        DataError
            If a history is of another catalog, or ends before the training events (`TrainingSpan`).
        """
        if self._net is not None:  # items may be in another order, see `_log_probabilities`
            replace(self.learned, item_ids=None).require_unseen(self.name, histories)
        return self._log_probabilities(histories)

    def _log_probabilities(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) the same of any history of the catalog, in whichever order it is."""
        if self._net is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it, or load a checkpoint")
        batches = [np.empty((0, len(self._item_ids)))]
        own = self._own_items(histories)
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            rows = last_items(
                [own[history.item_idx] for history in part], MAX_SEQUENCE, len(self._item_ids)
            )
            empty = torch.tensor([not history.n_events for history in part])[:, None]
            with torch.inference_mode():
                scores = torch.log_softmax(
                    next_item_logits(self._net, torch.from_numpy(rows)), dim=1
                )
            batches.append(torch.where(empty, self._popularity, scores).double().numpy()[:, own])
        return np.concatenate(batches)

    def _own_items(self, histories: Sequence[History]) -> IntArray:
        """(n_items,) what the network calls the items of the catalog; DataError if it has others.

        A catalog may have its items in another order than that of the fit.
        """
        own = np.arange(len(self._item_ids))
        for catalog in {id(history.catalog): history.catalog for history in histories}.values():
            ids = histories[0].catalog.item_ids
            own = self._item_ids.get_indexer(ids).astype(np.int64)
            if len(own) != len(self._item_ids) or own.min() < 0 or not ids.equals(catalog.item_ids):
                raise DataError(f"{self.model} was fitted on another catalog: fit it on this one")
        return own

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        predicted = self._category_shares(histories)
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source(self.model, "counting", seed=self.seed)
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    @property
    def _item_ids(self) -> pd.Index[str]:
        assert self.learned.item_ids is not None
        return self.learned.item_ids

    def save(self, folder: Path) -> None:
        """Write the parameters (safetensors) and all that is needed to forecast again (JSON)."""
        if self._net is None or self.fitted is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it before saving")
        values = {
            "model": self.model,
            "steps": self.steps,
            "rate": self.rate,
            "learned": self.learned.to_dict(),
            "share": self.share,
            "seed": self.seed,
            "spread": self.spread,
            "fitted": self.fitted.to_dict(),
            "prior": [self.prior.power, self.prior.trend, self.prior.spread],
            "counting": self.prior.prior.to_dict(),
        }
        state = {"popularity": self._popularity, **self._net.state_dict()}
        parameters = {name: value.contiguous() for name, value in state.items()}
        atomic_write_bytes(folder / PARAMETERS_FILE, save(parameters))
        atomic_write_text(folder / METADATA_FILE, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> NextItemModel:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If the folder is no such checkpoint, or a parameter is not finite.
        """
        try:
            values = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            power, trend, spread = values["prior"]
            counting = DecayedDirichlet(**values["counting"])
            prior = GlobalDrift(counting, power, trend, Dispersion(*spread))
            loaded = cls(values["model"], prior, steps=values["steps"], rate=values["rate"])
            loaded.learned = TrainingSpan.from_dict(values["learned"])
            loaded.share, loaded.seed = values["share"], values["seed"]
            loaded.spread = Dispersion(*values["spread"])
            loaded.fitted = TrainingSpan.from_dict(values["fitted"])
            state = load_file(folder / PARAMETERS_FILE)
            with torch.random.fork_rng(devices=[]):
                loaded._net = build_net(loaded.model, len(loaded._item_ids)).double().eval()
            if bad := [name for name, value in state.items() if not value.isfinite().all()]:
                raise ValueError(f"parameter {bad[0]!r} is not finite; train it again")
            loaded._popularity = state.pop("popularity")
            loaded._net.load_state_dict(state)
            if not 0 <= loaded.share <= 1 or not np.isfinite((*loaded.spread, *spread)).all():
                raise ValueError(f"share {loaded.share} or spread {loaded.spread} cannot be")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"{folder} is no next-item model: {error}") from error
        return loaded

    def _category_shares(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) probabilities of the next item's category; rows sum to 1."""
        batches = []
        # Not all items of all people at a time: that would take too much memory.
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            probabilities = np.exp(self._log_probabilities(part))
            batches.append(row_shares(probabilities @ part[0].catalog.category_shares))
        return np.concatenate(batches)

    def _train(self, rows: IntArray) -> Any:
        """Train a new network on (n, MAX_SEQUENCE + 1) rows, the learning rate falling to 0."""
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        net = build_net(self.model, len(self._item_ids)).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=self.rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        bar = tqdm(range(self.steps), desc=self.model, disable=not sys.stderr.isatty())
        for step in bar:
            chosen = rng.choice(len(rows), min(BATCH_SIZE, len(rows)), replace=False)
            optimizer.zero_grad()
            loss = next_item_loss(net, torch.from_numpy(rows[chosen]))
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"{self.model}: the loss of step {step} is {loss.item():g}, no finite number; "
                    "look for odd values in the windows, or try another seed"
                )
            loss.backward()
            optimizer.step()
            schedule.step()
        return net.double().eval()


def _training_span(training: Sequence[Window], validation: Sequence[Window]) -> TrainingSpan:
    """Give the events of each person to train on.

    They reach to where the person's validation history ends, else the newest training target.
    """
    log = validation[0].history.log
    logs = {id(window.history.log): window.history.log for window in (*training, *validation)}
    if any(other.fingerprint != log.fingerprint for other in logs.values()):
        raise DataError("the windows are of several logs: cut them all from one")
    stops = log.user_offsets[:-1].copy()
    users = [window.history.user_idx for window in training]
    np.maximum.at(stops, users, [window.target.stop for window in training])
    users = [window.history.user_idx for window in validation]
    stops[users] = len(log)
    np.minimum.at(stops, users, [window.history.event_ids.stop for window in validation])
    newest, until = stops[stops > log.user_offsets[:-1]] - 1, None
    if validation[0].history.period_length.unit != "events" and len(newest):
        until = log.timestamp[newest].max() + MILLISECOND
    n_events = pd.Series(stops - log.user_offsets[:-1], index=log.user_ids)
    return TrainingSpan(until, item_ids=validation[0].history.catalog.item_ids, n_events=n_events)


def _last_items_taken(span: TrainingSpan, log: Interactions) -> list[IntArray]:
    """Give the last items of each person who took any, oldest first, of the training events."""
    starts, n_events = log.user_offsets[:-1], span.n_events
    assert n_events is not None
    return [
        log.item_idx[max(start, start + n - SEQUENCES_PER_USER * MAX_SEQUENCE) : start + n]
        for start, n in zip(starts, n_events, strict=True)
        if n
    ]
