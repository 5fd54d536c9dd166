"""Small neural networks as forecasters: their inputs, their training and their files."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save
    from torch import Tensor, nn
    from tqdm import tqdm
except ImportError as error:
    raise MissingExtraError("neural forecasters need torch: pip install 'llmrec[llm]'") from error

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import make_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion, read_spread
from llmrec.forecasters.network_inputs import (
    HISTORIES_PER_BATCH,
    MAX_TRAINING_CELLS,
    MAX_VALIDATION_CELLS,
    TRAINING_CELLS_PER_BATCH,
    PeriodArrays,
    PeriodInputs,
    TrainingPlan,
    cross_entropy,
    newest_rows,
    rows_per_batch,
)
from llmrec.forecasters.neural import NETWORKS
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.types import FloatArray, IntArray

PARAMETERS_FILE, METADATA_FILE = "network.safetensors", "forecaster.json"
MAX_PERIODS = 1_000


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
        self.spread: Spread = DEFAULT_DISPERSION
        self.seed, self.n_left_out = 0, 0
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
        all windows for as many epochs: the newest period is worth most. Beyond `MAX_TRAINING_CELLS`
        it is trained on the newest windows; ``n_left_out`` says how many training windows were not
        used.

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
        newest = newest_rows(training, MAX_TRAINING_CELLS, seed)
        self.seed, self.n_left_out = seed, len(training) - len(newest)
        training = [training[row] for row in newest]
        self.fitted = TrainingSpan.of_windows(training, validation).union(self.prior.fitted)
        self.categories = training[0].history.catalog.categories
        windows = [*training, *validation]
        histories = [window.history for window in windows]
        arrays = PeriodArrays.of(histories, self.prior, self.n_periods, np.float32)
        shares = torch.from_numpy(row_shares(target_counts(windows)).astype(np.float32))
        rows, plan = np.arange(len(training)), self.training_plan
        epochs = min(plan.epochs, plan.epochs_if_cut) if self.n_left_out else plan.epochs
        held_out = len(training) + newest_rows(validation, MAX_VALIDATION_CELLS, seed)
        with torch.random.fork_rng(devices=[]):
            epochs = self._train(arrays, shares, rows, held_out, epochs)
            weights = self.category_weights(histories[len(training) :])
            self.held_out = HeldOutPredictions.of(validation, weights)
            self.spread = fit_dispersion(validation, weights)
            if refit:
                rows = newest_rows(windows, MAX_TRAINING_CELLS, seed)
                self._train(arrays, shares, rows, held_out[:0], epochs)
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
        n = rows_per_batch(HISTORIES_PER_BATCH, len(self.categories))
        for start in range(0, len(histories), n):
            part = histories[start : start + n]
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

    def stored(self) -> Stored:
        """Give the parameters, and all that is needed to forecast again."""
        if self._net is None or self.fitted is None:
            raise TrainingError(f"{self.name} has no parameters yet: fit it before saving")
        values = {
            "network": self.name,
            "n_periods": self.n_periods,
            "prior": self.prior.to_dict(),
            "categories": list(self.categories),
            "spread": list(self.spread),
            "seed": self.seed,
            "fitted": self.fitted.time_only().to_dict(),
            "curve": self.validation_losses,
        }
        # Trained in single precision, which holds them as they are.
        arrays = {name: value.float().numpy() for name, value in self._net.state_dict().items()}
        return Stored(type(self).__name__, values, arrays)

    @classmethod
    def from_stored(cls, stored: Stored) -> NetworkForecaster:
        """Make the forecaster of `stored` again.

        Raises
        ------
        ModelLoadError
            If it is of something else, or a parameter is not finite or of another shape.
        """
        if stored.kind != cls.__name__:
            raise ModelLoadError(f"a stored {stored.kind} is no {cls.__name__}")
        name = stored.values.get("network")
        if name not in NETWORKS:
            raise ModelLoadError(
                f"no network is called {name!r}; choose from {', '.join(NETWORKS)}"
            )
        try:
            return cls._restore(stored.values, stored.arrays, NETWORKS[name])
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ModelLoadError(f"a stored {name} cannot be read: {error}") from error

    def save(self, folder: Path) -> None:
        """Write what `stored` gives, and whose events were seen: safetensors and JSON."""
        stored = self.stored()
        assert self.fitted is not None
        atomic_write_bytes(folder / PARAMETERS_FILE, save(dict(stored.arrays)))
        values = {**stored.values, "fitted": self.fitted.to_dict()}
        about = json.dumps(values, indent=1, ensure_ascii=False)
        atomic_write_text(folder / METADATA_FILE, about)

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
            return cls._restore(values, load_file(folder / PARAMETERS_FILE), network)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"{folder} is no {network.__name__}: {error}") from error

    @classmethod
    def _restore(
        cls, values: Mapping[str, Any], arrays: Mapping[str, Any], network: type[Any]
    ) -> NetworkForecaster:
        """Make a fitted forecaster of what `stored` gave; ValueError or so if that cannot be."""
        if values["network"] != network.__name__:
            raise ValueError(f"it is a {values['network']}, not a {network.__name__}")
        found = cls(network, DecayedDirichlet(**values["prior"]), n_periods=values["n_periods"])
        found.categories, found.seed = tuple(values["categories"]), values["seed"]
        found.spread, found.validation_losses = read_spread(values["spread"]), values["curve"]
        found.fitted = TrainingSpan.from_dict(values["fitted"])
        if not np.isfinite(found.spread).all():
            raise ValueError(f"spread {list(found.spread)} is not finite")
        if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ValueError(f"parameter {bad[0]!r} is not finite; train it again")
        with torch.device("meta"):  # no memory for sizes that the parameters may not have
            found._net = network(len(found.categories), found.n_periods)
        parameters = {name: torch.tensor(array).double() for name, array in arrays.items()}
        found._net.load_state_dict(parameters, assign=True)
        found._net.double().eval()
        return found

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
        batch_size = rows_per_batch(
            self.training_plan.batch_size, len(self.categories), TRAINING_CELLS_PER_BATCH
        )
        steps = epochs * -(-len(rows) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        best, state, curve = epochs, {}, []
        bar = tqdm(range(1, epochs + 1), desc=self.name, disable=not sys.stderr.isatty())
        for epoch in bar:
            self._net.train()
            for batch in _batches(rng.permutation(rows), batch_size):
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
            for batch in _batches(rows, rows_per_batch(HISTORIES_PER_BATCH, shares.shape[1])):
                log_weights = self._net(arrays.inputs(batch))
                total += len(batch) * float(cross_entropy(log_weights, shares[batch]))
        return total / len(rows)


def _batches(rows: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
