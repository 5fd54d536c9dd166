"""SASRec, BERT4Rec, GRU4Rec: what a person takes next, item by item, and a forecast made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
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

SEQUENCES_PER_USER = 6  # sequences of a person to learn from, the newest
DEFAULT_STEPS = {
    "SASRec": 900,
    "BERT4Rec": 1600,
    "GRU4Rec": 1800,
}  # BERT4Rec guesses fewer items a step
DEFAULT_RATES = {"SASRec": 2e-3, "BERT4Rec": 2e-3, "GRU4Rec": 2e-2}
HISTORIES_PER_BATCH = 256  # histories scored at a time
EMPTY_SPAN = TrainingSpan(
    None, item_ids=pd.Index([], dtype="str"), n_events=pd.Series(dtype=np.int64)
)
PARAMETERS_FILE, METADATA_FILE = "sequential.safetensors", "forecaster.json"


class NextItemModel:
    """The next item by SASRec, BERT4Rec or GRU4Rec; as a forecast, summed over categories.

    q = (1 - share) * counting + share * sum_i p(next item is i) * category shares of i. The first
    two nets are cornac's; all learn here by cross-entropy over the whole catalog: cornac's own loop
    draws negatives by popularity, after which a softmax of the scores is no probability.

    Parameters
    ----------
    model
        "SASRec" (Kang & McAuley 2018) and "GRU4Rec" (Hidasi et al. 2016) learn at every place of a
        sequence, "BERT4Rec" (Sun et al. 2019) to guess masked items: the newest, as when it is
        asked, and a fifth of the others.
    prior
        The counting mixed in; fitted on the validation windows if it is not yet.
    steps
        Training steps of `BATCH_SIZE` sequences; None: as `DEFAULT_STEPS` says.
    rate
        What the learning rate falls from, > 0; None: as `RATES` says.
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
        """Train on what lies before the validation targets, and give itself back.

        The share and the spread are fitted on the validation windows, whose targets the net has not
        seen.

        Raises
        ------
        DataError
            If the windows are of several logs.
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        fitted, self.seed = TrainingSpan.of_windows(training, validation), seed
        self._net = self.fitted = None  # nobody may ask what failed to learn
        self.prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        catalog = validation[0].history.catalog
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = self.prior.category_weights(histories)
        self.learned = _learned(training, validation)
        taken = _newest_taken(self.learned, histories[0].log)
        rows = training_sequences(taken, catalog.n_items)
        if not len(rows):
            raise TrainingError(
                "nobody took two items before the validation targets: use more data"
            )
        counts = np.bincount(np.concatenate(taken), minlength=catalog.n_items) + 0.5
        self._popularity = torch.from_numpy(np.log(counts / counts.sum()))
        with torch.random.fork_rng(devices=[]):
            self._net = self._trained(rows)
        self.fitted = fitted
        learned = self._category_shares(histories)
        self.share, _ = fit_interpolation(counted, learned, targets)
        self.spread = fit_dispersion(histories, interpolate(counted, learned, self.share), targets)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item to be the next, in float64.

        A person without events gets what is popular in the events learned from.

        Raises
        ------
        TrainingError
            If not fitted.
        DataError
            If a history is of another catalog, or ends before what was learned, see `TrainingSpan`.
        """
        if self._net is not None:
            self.learned.require_unseen(self.name, histories)
        return self._next(histories)

    def _next(self, histories: Sequence[History]) -> FloatArray:
        """Give what `scores` gives, of any history of the catalog."""
        if self._net is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it, or load a checkpoint")
        if any(not history.catalog.item_ids.equals(self._item_ids) for history in histories):
            raise DataError(f"{self.model} was fitted on another catalog: fit it on this one")
        found = [np.empty((0, len(self._item_ids)))]
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            rows = last_items(
                [history.item_idx for history in part], MAX_SEQUENCE, len(self._item_ids)
            )
            empty = torch.tensor([not history.n_events for history in part])[:, None]
            with torch.inference_mode():
                scores = torch.log_softmax(
                    next_item_logits(self._net, torch.from_numpy(rows)), dim=1
                )
            found.append(torch.where(empty, self._popularity, scores).double().numpy())
        return np.concatenate(found)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        learned = self._category_shares(histories)
        return interpolate(self.prior.category_weights(histories), learned, self.share)

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
        about = {
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
        parameters = {name: value.contiguous() for name, value in self._parameters().items()}
        atomic_write_bytes(folder / PARAMETERS_FILE, save(parameters))
        atomic_write_text(folder / METADATA_FILE, json.dumps(about, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> NextItemModel:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If the folder is no such checkpoint, or a parameter is not finite.
        """
        try:
            about = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            power, trend, spread = about["prior"]
            counting = DecayedDirichlet(**about["counting"])
            prior = GlobalDrift(counting, power, trend, Dispersion(*spread))
            found = cls(about["model"], prior, steps=about["steps"], rate=about["rate"])
            found.learned = TrainingSpan.from_dict(about["learned"])
            found.share, found.seed = about["share"], about["seed"]
            found.spread = Dispersion(*about["spread"])
            found.fitted = TrainingSpan.from_dict(about["fitted"])
            state = load_file(folder / PARAMETERS_FILE)
            found._popularity = state.pop("popularity")
            with torch.random.fork_rng(devices=[]):
                found._net = build_net(found.model, len(found._item_ids)).double().eval()
            found._net.load_state_dict(state)
            if not 0 <= found.share <= 1 or not np.isfinite((*found.spread, *spread)).all():
                raise ValueError(f"share {found.share} or spread {found.spread} cannot be")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"{folder} is no next-item model: {error}") from error
        for name, value in found._parameters().items():
            if not bool(torch.isfinite(value).all()):
                raise ModelLoadError(f"{folder}: parameter {name!r} is not finite; train it again")
        return found

    def _category_shares(self, histories: Sequence[History]) -> FloatArray:
        """(n, n_categories) what the net alone says; rows sum to 1."""
        found = []
        for start in range(
            0, len(histories), HISTORIES_PER_BATCH
        ):  # not all items of all people at a time
            part = histories[start : start + HISTORIES_PER_BATCH]
            found.append(row_shares(np.exp(self._next(part)) @ part[0].catalog.category_shares))
        return np.concatenate(found)

    def _parameters(self) -> dict[str, Tensor]:
        return {"popularity": self._popularity, **self._net.state_dict()}

    def _trained(self, rows: IntArray) -> Any:
        """Train a new net on (n, LENGTH + 1) rows, the learning rate falling to 0."""
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


def _learned(training: Sequence[Window], validation: Sequence[Window]) -> TrainingSpan:
    """Say which events of each person may be learned from.

    They reach to where their validation history ends, else their newest training target.
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


def _newest_taken(learned: TrainingSpan, log: Interactions) -> list[IntArray]:
    """Items of each person who took any, oldest first, the newest of those learned from."""
    starts, n_events = log.user_offsets[:-1], learned.n_events
    assert n_events is not None
    return [
        log.item_idx[max(start, start + n - SEQUENCES_PER_USER * MAX_SEQUENCE) : start + n]
        for start, n in zip(starts, n_events, strict=True)
        if n
    ]
