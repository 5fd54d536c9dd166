"""Small neural networks as forecasters: their inputs, their training and their files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save
    from torch import Tensor, nn
    from tqdm import tqdm
except ImportError as error:
    raise MissingExtraError("neural forecasters need torch: pip install 'llmrec[llm]'") from error

from llmrec.data.counts import (
    normalize_rows,
    period_counts,
    population_counts,
    row_shares,
    target_counts,
)
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import (
    DEFAULT_DISPERSION,
    Dispersion,
    fit_dispersion,
    make_forecasts,
)
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.types import FloatArray, IntArray

PARAMETERS_FILE, METADATA_FILE = "network.safetensors", "forecaster.json"
HISTORIES_PER_BATCH = 512  # histories counted at a time
MAX_PERIODS = 1_000


class PeriodInputs(NamedTuple):
    """What a network gets of n histories.

    ``counts`` (n, n_periods, n_categories) are the person's events by period, newest last, zeros
    before their first; ``population`` of the same shape are the shares of all users in the same
    periods; ``prior`` (n, n_categories) are the log weights of counting.
    """

    counts: Tensor
    population: Tensor
    prior: Tensor


@dataclass(frozen=True, eq=False)
class PeriodArrays:
    """Inputs of many histories as arrays; `inputs` gives rows of them as tensors."""

    counts: Any  # (n, n_periods, n_categories)
    span_shares: Any  # (n_spans, n_categories) shares of all users in a span of time
    span_of_period: IntArray  # (n, n_periods) row of ``span_shares``
    prior: Any  # (n, n_categories) log weights

    @classmethod
    def of(
        cls, histories: Sequence[History], prior: DecayedDirichlet, n_periods: int, dtype: Any
    ) -> PeriodArrays:
        """Count the last periods of histories and of everybody, in the precision ``dtype``."""
        n_categories = histories[0].catalog.n_categories
        counts = np.empty((len(histories), n_periods, n_categories), dtype=dtype)
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            counts[start : start + HISTORIES_PER_BATCH] = period_counts(part, n_periods)
        spans, span_of_period = population_counts(histories, n_periods)
        span_shares = normalize_rows(spans + 0.5).astype(dtype)
        weights = np.log(prior.category_weights(histories)).astype(dtype)
        return cls(counts, span_shares, span_of_period, weights)

    def inputs(self, rows: IntArray | slice = slice(None)) -> PeriodInputs:
        """Give the inputs of some rows."""
        return PeriodInputs(
            torch.from_numpy(self.counts[rows]),
            torch.from_numpy(self.span_shares[self.span_of_period[rows]]),
            torch.from_numpy(self.prior[rows]),
        )


def cross_entropy(log_weights: Tensor, shares: Tensor) -> Tensor:
    """Mean nats per event: -sum_c share_c log q_c."""
    return -(shares * log_weights).sum(dim=1).mean()


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast a network is trained; the epoch of least validation loss counts."""

    epochs: int = 30
    patience: int = 4
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3


class Network(Protocol):
    """A torch module built as ``Network(n_categories, n_periods)``.

    Called in evaluation mode it is deterministic. ``loss`` is what training lowers; it may draw
    random numbers and add terms of its own. ``training_plan`` is how this class is trained best.
    """

    training_plan: ClassVar[TrainingPlan]

    def __call__(self, inputs: PeriodInputs) -> Tensor:
        """(n, n_categories) log weights; the exponentials of a row sum to 1."""
        ...

    def loss(self, inputs: PeriodInputs, shares: Tensor) -> Tensor:
        """Scalar to minimise, given the target's (n, n_categories) shares."""
        ...


class NetworkForecaster:
    """Forecasts with a small neural network.

    Parameters
    ----------
    network
        Class of the network: `CellMLP`, `GRU`, `Transformer`, `VAE` or `RRN`.
    prior
        The counting among its inputs; fitted on the validation windows if it is not yet.
    n_periods
        How many periods of a history are inputs, the newest.
    plan
        How it is trained; None: by the ``training_plan`` of its class.
    """

    def __init__(
        self,
        network: type[Any],
        prior: DecayedDirichlet | None = None,
        *,
        n_periods: int = 12,
        training_plan: TrainingPlan | None = None,
    ) -> None:
        if type(n_periods) is not int or not 1 <= n_periods <= MAX_PERIODS:
            raise ValueError(f"n_periods is {n_periods!r}; it should be from 1 to {MAX_PERIODS}")
        self.network, self.n_periods = network, n_periods
        self.name: str = network.__name__  # what tables call it
        self.prior = prior or DecayedDirichlet()
        self.training_plan: TrainingPlan = training_plan or network.training_plan
        self.categories: tuple[str, ...] = ()
        self.spread, self.seed = DEFAULT_DISPERSION, 0
        self.fitted: TrainingSpan | None = None
        self.validation_losses: list[float] = []
        self.held_out: HeldOutPredictions | None = None
        self._net: Any = None

    def fit(
        self,
        training: Sequence[Window],
        validation: Sequence[Window],
        *,
        seed: int = 0,
        refit: bool = True,
    ) -> NetworkForecaster:
        """Train the network; returns itself.

        The number of epochs is that of least loss on the validation windows; ``validation_losses``
        holds this loss after each, ``held_out`` the weights then predicted for the validation
        windows, to which the spread is fitted. With ``refit`` the network is then trained anew on
        all windows for as many epochs: the newest period is worth most.

        Raises
        ------
        DataError
            If there are no windows to train or to validate on.
        TrainingError
            If a loss is not finite.
        """
        if not training or not validation:
            found = f"{len(training)} for training, {len(validation)} for validation"
            raise DataError(f"no window to fit on: {found}; both are needed")
        if self.prior.fitted is None:
            self.prior = self.prior.fit(validation)
        self.fitted = TrainingSpan.of_windows(training, validation).union(self.prior.fitted)
        self.seed = seed
        self.categories = training[0].history.catalog.categories
        windows = [*training, *validation]
        histories = [window.history for window in windows]
        arrays = PeriodArrays.of(histories, self.prior, self.n_periods, np.float32)
        shares = torch.from_numpy(row_shares(target_counts(windows)).astype(np.float32))
        rows, held_out = np.split(np.arange(len(windows)), [len(training)])
        with torch.random.fork_rng(devices=[]):
            epochs = self._train(arrays, shares, rows, held_out, self.training_plan.epochs)
            targets = target_counts(validation)
            weights = self.category_weights(histories[len(training) :])
            self.held_out = HeldOutPredictions.of(validation, weights)
            self.spread = fit_dispersion(histories[len(training) :], weights, targets)
            if refit:
                self._train(arrays, shares, np.arange(len(windows)), held_out[:0], epochs)
        return self

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0.

        Computed in float64, so that the other rows of a batch change nothing that can be seen.
        """
        if self._net is None:
            raise TrainingError(f"{self.name} has no parameters yet: fit it, or load a checkpoint")
        if histories and histories[0].catalog.categories != self.categories:
            raise DataError(
                f"{self.name} was fitted on other categories, or another order of them, than the "
                f"{histories[0].catalog.n_categories} of this catalog: fit it on this log"
            )
        weights = []
        for start in range(0, len(histories), HISTORIES_PER_BATCH):
            part = histories[start : start + HISTORIES_PER_BATCH]
            arrays = PeriodArrays.of(part, self.prior, self.n_periods, np.float64)
            with torch.inference_mode():
                weights.append(torch.softmax(self._net(arrays.inputs()), dim=1).numpy())
        return np.concatenate(weights)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source(self.name, "counting", seed=self.seed)
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def save(self, folder: Path) -> None:
        """Write the parameters (safetensors) and all that is needed to forecast again (JSON)."""
        if self._net is None or self.fitted is None:
            raise TrainingError(f"{self.name} has no parameters yet: fit it before saving")
        atomic_write_bytes(folder / PARAMETERS_FILE, save(self._net.state_dict()))
        values = {
            "network": self.name,
            "n_periods": self.n_periods,
            "prior": self.prior.to_dict(),
            "categories": self.categories,
            "spread": self.spread,
            "seed": self.seed,
            "fitted": self.fitted.to_dict(),
            "curve": self.validation_losses,
        }
        atomic_write_text(folder / METADATA_FILE, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path, network: type[Any]) -> NetworkForecaster:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If the folder is no such checkpoint, of another network, or a parameter is not finite.
        """
        try:
            values = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            if values["network"] != network.__name__:
                raise ValueError(f"it is a {values['network']}, not a {network.__name__}")
            prior = DecayedDirichlet(**values["prior"])
            loaded = cls(network, prior, n_periods=values["n_periods"])
            loaded.categories, loaded.seed = tuple(values["categories"]), values["seed"]
            loaded.spread, loaded.validation_losses = Dispersion(*values["spread"]), values["curve"]
            loaded.fitted = TrainingSpan.from_dict(values["fitted"])
            with torch.device("meta"):  # no memory for sizes that the parameters may not have
                loaded._net = network(len(loaded.categories), loaded.n_periods)
            parameters = load_file(folder / PARAMETERS_FILE)
            if bad := [name for name, value in parameters.items() if not value.isfinite().all()]:
                raise ValueError(f"parameter {bad[0]!r} is not finite; train it again")
            loaded._net.load_state_dict(parameters, assign=True)
            loaded._net.double().eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"{folder} is no {network.__name__}: {error}") from error
        return loaded

    def _train(
        self, arrays: PeriodArrays, shares: Tensor, rows: IntArray, held_out: IntArray, epochs: int
    ) -> int:
        """Train a new network on rows; returns the epoch of least loss on the held-out ones."""
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        self._net = self.network(len(self.categories), self.n_periods)
        optimizer = torch.optim.AdamW(
            self._net.parameters(),
            lr=self.training_plan.learning_rate,
            weight_decay=self.training_plan.weight_decay,
        )
        steps = epochs * -(-len(rows) // self.training_plan.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, state, curve = epochs, {}, []
        bar = tqdm(range(1, epochs + 1), desc=self.name, disable=not sys.stderr.isatty())
        for epoch in bar:
            self._net.train()
            for batch in _batches(rng.permutation(rows), self.training_plan.batch_size):
                optimizer.zero_grad()
                loss = self._net.loss(arrays.inputs(batch), shares[batch])
                loss.backward()
                norm = nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
                self._check(loss.item(), float(norm), epoch)
                optimizer.step()
                schedule.step()
            if not len(held_out):
                continue
            curve.append(self._loss_on(arrays, shares, held_out))
            self._check(curve[-1], 0.0, epoch)
            bar.set_postfix(validation=f"{curve[-1]:.4f}")
            if curve[-1] == min(curve):
                best = epoch
                state = {key: value.clone() for key, value in self._net.state_dict().items()}
            if epoch - best >= self.training_plan.patience:
                break
        if state:
            self._net.load_state_dict(state)
            self.validation_losses = curve
        self._net.double().eval()
        return best

    def _check(self, loss: float, gradient: float, epoch: int) -> None:
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            self._net = None  # a failed fit must not forecast
            raise TrainingError(
                f"{self.name}: loss {loss:g} and gradient {gradient:g} in epoch {epoch}; "
                f"lower the learning rate ({self.training_plan.learning_rate:g}) or look for odd "
                "values in the windows"
            )

    def _loss_on(self, arrays: PeriodArrays, shares: Tensor, rows: IntArray) -> float:
        self._net.eval()
        total = 0.0
        with torch.inference_mode():
            for batch in _batches(rows, HISTORIES_PER_BATCH):
                log_weights = self._net(arrays.inputs(batch))
                total += len(batch) * float(cross_entropy(log_weights, shares[batch]))
        return total / len(rows)


def _batches(rows: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
