"""Nets that score the next item: trained on a log, asked for items or for their categories."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from llmrec.errors import DataError, MissingExtraError, ModelLoadError, TrainingError

try:
    import torch
    from tqdm import tqdm
except ImportError as error:
    raise MissingExtraError("next-item nets need torch: pip install 'llmrec[llm]'") from error

from llmrec.data.calendar import to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.counts import row_shares
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.data.stored import Stored
from llmrec.forecasters.sequential_nets import (
    BATCH_SIZE,
    MAX_SEQUENCE,
    NextItemName,
    build_net,
    gap_buckets,
    last_items,
    next_item_logits,
    next_item_loss,
    optimizer_and_schedule,
    training_sequences,
)
from llmrec.types import FloatArray, IntArray, RepeatPolicy, TimeArray

SEQUENCES_PER_USER = 6  # training sequences of a person, the newest
# BERT4Rec predicts fewer items a step than the others.
DEFAULT_STEPS = {"SASRec": 900, "BERT4Rec": 1600, "GRU4Rec": 1800, "eSASRec": 800}
DEFAULT_RATES = {"SASRec": 2e-3, "BERT4Rec": 2e-3, "GRU4Rec": 2e-2, "eSASRec": 2e-2}
HISTORIES_PER_BATCH = 256  # histories scored at a time
TAKEN_PROBABILITY = 1e-12  # of an item that will not be taken again
POPULARITY = "popularity"  # among the arrays of a net


class NextItemScorer:
    """Scores items by how probable they are as a person's next one, with a net.

    Parameters
    ----------
    model
        "SASRec" (Kang & McAuley 2018), "GRU4Rec" (Hidasi et al. 2016) and "eSASRec" (Tikhonovich et
        al. 2025) are trained to predict the item after every position of a sequence, "BERT4Rec"
        (Sun et al. 2019) to predict masked items: the newest, as when it scores, and a fifth of the
        others. SASRec and BERT4Rec are cornac's networks.
    steps
        Training steps of `BATCH_SIZE` sequences; None: as `DEFAULT_STEPS` says.
    rate
        Largest learning rate, > 0; None: as `DEFAULT_RATES` says.
    repeat
        "exclude": an item is predicted among those that the person has not taken, and a taken one
        gets the probability `TAKEN_PROBABILITY`. For logs in which nobody takes an item again that
        makes better lists than learning it from the events.

    Attributes
    ----------
    fitted
        The events it was trained on; None before a fit.
    seed
        Seed of the last fit.

    Raises
    ------
    DataError
        If no net is called so, or the rate or ``repeat`` is none.
    """

    def __init__(
        self,
        model: NextItemName,
        *,
        steps: int | None = None,
        rate: float | None = None,
        repeat: RepeatPolicy = "allow",
    ) -> None:
        if model not in get_args(NextItemName):
            known = ", ".join(get_args(NextItemName))
            raise DataError(f"no next-item model is called {model!r}: choose from {known}")
        if rate is not None and not 0 < rate < np.inf:
            raise DataError(f"the rate must be finite and > 0, not {rate}")
        if repeat not in get_args(RepeatPolicy):
            raise DataError(f"repeat must be 'allow' or 'exclude', not {repeat!r}")
        self.model: NextItemName = model
        self.repeat: RepeatPolicy = repeat
        self.steps, self.rate = steps or DEFAULT_STEPS[model], rate or DEFAULT_RATES[model]
        self.name = f"what comes next ({model})"
        self.fitted: TrainingSpan | None = None
        self.seed = 0
        self._net: Any = None
        self._popularity = torch.empty(0)

    def fit(
        self,
        log: Interactions,
        catalog: Catalog,
        cutoff: np.datetime64 | str | None = None,
        *,
        seed: int = 0,
    ) -> NextItemScorer:
        """Train on everybody's events before the cutoff (default: all); returns itself.

        Raises
        ------
        ValueError
            If no event lies before the cutoff.
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        span, histories = TrainingSpan.of_log(log, catalog, cutoff)
        events = [history.event_ids for history in histories]
        return self.fit_events(histories[0].log, events, span, seed=seed)

    def fit_events(
        self, log: Interactions, events: Sequence[range], span: TrainingSpan, *, seed: int = 0
    ) -> NextItemScorer:
        """Train on each person's events, given as log positions, of the catalog of a span.

        Raises
        ------
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        self._net = self.fitted = None  # after a failed fit there is nothing to ask
        self.seed = seed
        assert span.item_ids is not None
        n_items = len(span.item_ids)
        newest = [places[-SEQUENCES_PER_USER * MAX_SEQUENCE :] for places in events if places]
        taken = [log.item_idx[places.start : places.stop] for places in newest]
        rows = training_sequences(taken, n_items)
        gaps = [gap_buckets(log.timestamp[places.start : places.stop]) for places in newest]
        if not len(rows):
            raise TrainingError(
                f"nobody took two items before {span.before or 'the end of the events'}: "
                "use more data"
            )
        counts = np.bincount(np.concatenate(taken), minlength=n_items) + 0.5
        self._popularity = torch.from_numpy(np.log(counts / counts.sum()))
        with torch.random.fork_rng(devices=[]):
            self._net = self._train(rows, training_sequences(gaps, 0), n_items)
        self.fitted = span
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item to be the next, in float64.

        A person without events gets the popularity in the training events. The catalog may have its
        items in another order than that of the fit.

        Raises
        ------
        ValueError
            If not fitted.
        DataError
            If a history is of another catalog, or ends before the training events (`TrainingSpan`).
        """
        span = self.fitted and replace(self.fitted, item_ids=None)  # see `_own_items`
        require_fitted(span, self.name, histories)
        return self._log_probabilities(histories)

    def category_shares(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_categories) probabilities of the next item's category; rows sum to 1.

        Unlike `scores` it is answered for earlier histories, too: what forecasts with it says
        itself which events it has seen.

        Raises
        ------
        TrainingError
            If not fitted.
        DataError
            If a history is of another catalog.
        """
        batches = []
        # Not all items of all people at a time: that would take too much memory.
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            probabilities = np.exp(self._log_probabilities(part))
            batches.append(row_shares(probabilities @ part[0].catalog.category_shares))
        return np.concatenate(batches)

    def parameters(self) -> dict[str, torch.Tensor]:
        """Give the parameters by name, and the log of the popularity; TrainingError if not fitted.

        They are float64, of values that float32 can hold: a net is trained in float32.
        """
        if self._net is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it before saving")
        state = {POPULARITY: self._popularity, **self._net.state_dict()}
        return {name: value.contiguous() for name, value in state.items()}

    def load_parameters(self, state: Mapping[str, torch.Tensor], span: TrainingSpan) -> None:
        """Take over what `parameters` gave, of a fit on a span.

        Raises
        ------
        ValueError
            If a parameter is not finite, or the popularity is not of that many items.
        RuntimeError
            If parameters are missing, unknown or of another shape.
        """
        assert span.item_ids is not None
        if bad := [name for name, value in state.items() if not value.isfinite().all()]:
            raise ValueError(f"parameter {bad[0]!r} is not finite; train it again")
        popularity, n_items = state[POPULARITY], len(span.item_ids)
        if popularity.shape != (n_items,):
            raise ValueError(f"it has {len(popularity)} items, the catalog {n_items}")
        with torch.random.fork_rng(devices=[]):
            net = build_net(self.model, n_items).double().eval()
        net.load_state_dict({name: value for name, value in state.items() if name != POPULARITY})
        self._net, self._popularity, self.fitted = net, popularity.double(), span

    def stored(self) -> Stored:
        """Give what it is made again from; TrainingError if not fitted."""
        state = self.parameters()
        assert self.fitted is not None
        before = self.fitted.before
        values = {
            "model": self.model,
            "steps": self.steps,
            "rate": self.rate,
            "repeat": self.repeat,
            "seed": self.seed,
            "before": None if before is None else str(before),
        }
        arrays = {
            name: (value.float() if value.is_floating_point() else value).numpy()
            for name, value in state.items()
        }
        arrays[POPULARITY] = self._popularity.numpy()
        return Stored(type(self).__name__, values, arrays)

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> NextItemScorer:
        """Make it from what `stored` gave; ``catalog`` is that of the fit.

        Raises
        ------
        ModelLoadError
            If a value cannot be, or a parameter is missing, not finite or of another shape.
        """
        try:
            if stored.kind != cls.__name__:
                raise ValueError(f"it is a {stored.kind!r}")
            values = stored.values
            options = {name: values[name] for name in ("steps", "rate", "repeat")}
            loaded = cls(values["model"], **options)
            loaded.seed, before = values["seed"], values["before"]
            cutoff = None if before is None else to_datetime64(before)
            state = {name: torch.from_numpy(array) for name, array in stored.arrays.items()}
            loaded.load_parameters(state, TrainingSpan(cutoff, item_ids=catalog.item_ids))
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelLoadError(f"what is stored is no next-item net: {error}") from error
        return loaded

    def _log_probabilities(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) as `scores`, of any history of the catalog."""
        if self._net is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it, or load a checkpoint")
        own = self._own_items(histories)
        batches = [np.empty((0, len(own)))]
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            taken = [own[history.item_idx] for history in part]
            rows = torch.from_numpy(last_items(taken, MAX_SEQUENCE, len(own)))
            times = [gap_buckets(_times(history)) for history in part]
            gaps = torch.from_numpy(last_items(times, MAX_SEQUENCE, 0))
            empty = torch.tensor([not history.n_events for history in part])[:, None]
            with torch.inference_mode():
                logits = next_item_logits(self._net, rows, gaps)
            if self.repeat == "exclude":
                seen = _is_taken(taken, len(own))
                scores = torch.log_softmax(logits.masked_fill(seen, -torch.inf), dim=1)
                scores = scores.masked_fill(seen, np.log(TAKEN_PROBABILITY))
            else:
                scores = torch.log_softmax(logits, dim=1)
            batches.append(torch.where(empty, self._popularity, scores).double().numpy()[:, own])
        return np.concatenate(batches)

    def _own_items(self, histories: Sequence[History]) -> IntArray:
        """(n_items,) what the network calls the items of the catalog; DataError if it has others.

        A catalog may have its items in another order than that of the fit.
        """
        assert self.fitted is not None
        assert self.fitted.item_ids is not None
        item_ids = self.fitted.item_ids
        own = np.arange(len(item_ids))
        for catalog in {id(history.catalog): history.catalog for history in histories}.values():
            ids = histories[0].catalog.item_ids
            own = item_ids.get_indexer(ids).astype(np.int64)
            if len(own) != len(item_ids) or own.min() < 0 or not ids.equals(catalog.item_ids):
                raise DataError(f"{self.model} was fitted on another catalog: fit it on this one")
        return own

    def _train(self, rows: IntArray, gaps: IntArray, n_items: int) -> Any:
        """Train a new network on (n, MAX_SEQUENCE + 1) rows and their gaps."""
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        net = build_net(self.model, n_items).train()
        optimizer, schedule = optimizer_and_schedule(net, self.rate, self.steps)
        bar = tqdm(range(self.steps), desc=self.model, disable=not sys.stderr.isatty())
        for step in bar:
            chosen = rng.choice(len(rows), min(BATCH_SIZE, len(rows)), replace=False)
            optimizer.zero_grad()
            inputs = torch.from_numpy(rows[chosen]), torch.from_numpy(gaps[chosen])
            loss = next_item_loss(net, *inputs, self.repeat)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"{self.model}: the loss of step {step} is {loss.item():g}, no finite number; "
                    "look for odd values in the windows, or try another seed"
                )
            loss.backward()
            optimizer.step()
            schedule.step()
        if not all(bool(value.isfinite().all()) for value in net.parameters()):
            raise TrainingError(
                f"{self.model}: a parameter is no finite number after {self.steps} steps; lower "
                f"the rate ({self.rate:g}), or try another seed"
            )
        return net.double().eval()


def _is_taken(taken: Sequence[IntArray], n_items: int) -> torch.Tensor:
    """(n, n_items) whether each person took each item."""
    found = np.zeros((len(taken), n_items), dtype=np.bool_)
    for row, items in zip(found, taken, strict=True):
        row[items] = True
    return torch.from_numpy(found)


def _times(history: History) -> TimeArray:
    """(n_events,) times of the newest events, `MAX_SEQUENCE` and one before them, oldest first."""
    events = history.event_ids[-MAX_SEQUENCE - 1 :]
    return history.log.timestamp[events.start : events.stop]
