"""Training of the nets of `llmrec.forecasters.cell_nets`: over many logs, or a little on one."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from llmrec.errors import MissingExtraError, TrainingError

try:
    import torch
    from safetensors.numpy import save
    from safetensors.torch import load_file
    from torch import Tensor, nn
    from tqdm import tqdm
except ImportError as error:
    raise MissingExtraError("training nets needs torch: pip install 'llmrec[llm]'") from error

from llmrec.data.files import atomic_write_bytes
from llmrec.forecasters.cell_features import N_FEATURES, N_LOG, CellFeatures
from llmrec.forecasters.cell_nets import LIMIT, CellNets
from llmrec.types import FloatArray, IntArray


class CellPanel(Protocol):
    """People at one time: what is known of their cells, and what they took next."""

    @property
    def features(self) -> CellFeatures:
        """The features of n people."""
        ...

    @property
    def shares(self) -> FloatArray:
        """(n, n_categories) what they took next, as shares."""
        ...


class PanelInMemory(NamedTuple):
    """A panel that is not on disk."""

    features: CellFeatures
    shares: FloatArray


Sources = Mapping[str, Sequence[Sequence[CellPanel]]]  # panels of each log of each family
MIN_SCALE = 0.05  # added to standard deviations: a feature that hardly varies stays small
SCALE_BATCHES = 12  # of each family, that features are standardised by
ROWS_PER_BATCH = (12, 128)  # fewest and most people in a batch


@dataclass(frozen=True)
class CellTrainingPlan:
    """How nets are trained.

    Attributes
    ----------
    n_nets, width, depth
        Nets that are averaged, and hidden units and layers of each.
    steps, cells, learning_rate, weight_decay
        Steps of AdamW, cells in each, peak rate and decay.
    dropout, log_dropout
        Share of the features that are left out in a step, and of those of the log.
    save_every
        Steps between checkpoints.
    seed
        Of everything drawn.
    """

    n_nets: int = 3
    width: int = 48
    depth: int = 2
    steps: int = 4_000
    cells: int = 6_000
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.0
    log_dropout: float = 0.0
    save_every: int = 500
    seed: int = 0


def train_cell_nets(
    sources: Sources, plan: CellTrainingPlan, checkpoint: Path, left_out: str
) -> CellNets:
    """Train nets by cross-entropy; families are drawn equally, so are the logs of each.

    An interrupted run goes on from the checkpoint, and ends with the same bytes.

    Raises
    ------
    TrainingError
        If there are no panels, or a loss is not finite.
    """
    if not sources or not all(sources.values()):
        raise TrainingError(f"no panels to train on without {left_out}: give logs with more people")
    mean, scale = _standardise(sources, plan)
    state = _TrainingState(plan, mean, scale)
    first = state.load(checkpoint) if checkpoint.exists() else 0
    bar = tqdm(range(first, plan.steps), f"without {left_out}", disable=not sys.stderr.isatty())
    for step in bar:
        loss = state.step(sources, step)
        if (step + 1) % plan.save_every == 0:
            state.save(checkpoint, step + 1)
            bar.set_postfix(loss=f"{loss:.4f}")
    return state.averaged(left_out)


def tune_cell_nets(nets: CellNets, panel: CellPanel, plan: CellTrainingPlan) -> CellNets:
    """Train nets a little further, on people of one log.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    """
    n_nets, _, width = nets.weights[0].shape
    plan = replace(plan, n_nets=n_nets, width=width, depth=len(nets.weights) - 1)
    with torch.random.fork_rng(devices=[]):
        state = _TrainingState(plan, nets.mean.astype(np.float32), nets.scale.astype(np.float32))
        state.start_from(nets)
        for step in range(plan.steps):
            state.step({"": [[panel]]}, step)
    return state.averaged(nets.left_out)


class _TrainingState:
    """Parameters of all nets together, their running averages, and the optimizer."""

    def __init__(self, plan: CellTrainingPlan, mean: Any, scale: Any) -> None:
        self.mean, self.scale = torch.from_numpy(mean), torch.from_numpy(scale)
        self.plan, generator = plan, torch.Generator().manual_seed(plan.seed)
        widths = [N_FEATURES, *[plan.width] * plan.depth, 1]
        self.parameters: list[Tensor] = []  # weight, bias, weight, bias, ...
        for inputs, outputs in pairwise(widths):
            bound = 0.0 if outputs == 1 else 1 / math.sqrt(inputs)  # the last layer starts at 0
            for shape in ((plan.n_nets, inputs, outputs), (plan.n_nets, 1, outputs)):
                value = (2 * torch.rand(shape, generator=generator) - 1) * bound
                self.parameters.append(value.requires_grad_())
        self.average = [value.detach().clone() for value in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay
        )

    def correct(self, x: Tensor) -> Tensor:
        """(n_nets, n, n_categories) corrections, of features of (n_nets or 1, n * n_categories)."""
        for position in range(0, len(self.parameters), 2):
            x = x @ self.parameters[position] + self.parameters[position + 1]
            if position < len(self.parameters) - 2:
                x = torch.relu(x)
        return x.squeeze(-1)

    def start_from(self, nets: CellNets) -> None:
        """Take the parameters of nets."""
        arrays = [a for pair in zip(nets.weights, nets.biases, strict=True) for a in pair]
        with torch.no_grad():
            for value, average, array in zip(self.parameters, self.average, arrays, strict=True):
                value.copy_(torch.from_numpy(array).reshape(value.shape))
                average.copy_(value)

    def step(self, sources: Sources, step: int) -> float:
        """Take one step; returns the mean loss of the nets, and raises TrainingError if it is none.

        What is drawn depends on the seed and the number of the step alone.
        """
        plan, rng = self.plan, np.random.default_rng((self.plan.seed, step))
        features, prior, shares = map(torch.from_numpy, _draw_batch(sources, plan.cells, rng))
        x = ((features - self.mean) / self.scale).clamp(-LIMIT, LIMIT)
        flat = x.reshape(1, -1, N_FEATURES) * torch.from_numpy(_keep_features(plan, rng))
        correction = self.correct(flat).reshape(plan.n_nets, *prior.shape)
        log_weights = torch.log_softmax(prior + correction, dim=2)
        loss = -(shares * log_weights).sum(dim=2).mean(dim=1).sum()
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(f"the loss of step {step} is not finite: lower the learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule((step + 1) / plan.steps)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, math.sqrt(plan.n_nets))
        self.optimizer.step()
        decay = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for average, value in zip(self.average, self.parameters, strict=True):
                average.mul_(decay).add_(value, alpha=1 - decay)
        return float(loss.detach()) / plan.n_nets

    def averaged(self, left_out: str) -> CellNets:
        """Give the nets, parameters averaged over the last steps."""
        values = [value.double().numpy() for value in self.average]
        mean, scale = self.mean.double().numpy(), self.scale.double().numpy()
        biases = tuple(bias[:, 0] for bias in values[1::2])
        return CellNets(mean, scale, tuple(values[::2]), biases, left_out)

    def save(self, path: Path, step: int) -> None:
        """Write everything that the next steps depend on."""
        arrays: dict[str, Any] = {"step": np.array([step])}
        for number, value in enumerate(self.parameters):
            moments = self.optimizer.state[value]
            arrays |= {
                f"{number}.value": value.detach().numpy(),
                f"{number}.average": self.average[number].numpy(),
                f"{number}.exp_avg": moments["exp_avg"].numpy(),
                f"{number}.exp_avg_sq": moments["exp_avg_sq"].numpy(),
            }
        about = {"plan": json.dumps(asdict(self.plan))}
        atomic_write_bytes(path, save(arrays, about))

    def load(self, path: Path) -> int:
        """Read what `save` wrote; returns the number of steps taken."""
        arrays = load_file(path)
        step = int(arrays["step"][0])
        for number, value in enumerate(self.parameters):
            with torch.no_grad():
                value.copy_(arrays[f"{number}.value"])
            self.average[number].copy_(arrays[f"{number}.average"])
            self.optimizer.state[value] = {
                "step": torch.tensor(float(step)),
                "exp_avg": arrays[f"{number}.exp_avg"],
                "exp_avg_sq": arrays[f"{number}.exp_avg_sq"],
            }
        return step


def _schedule(done: float) -> float:
    """Share of the peak rate: a rise over the first tenth, then a cosine down to 0."""
    return done / 0.1 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))


def _keep_features(plan: CellTrainingPlan, rng: np.random.Generator) -> Any:
    """(n_nets, 1, N_FEATURES) 0 where a feature is left out of a step, otherwise 1."""
    rates = np.full(N_FEATURES, plan.dropout)
    rates[-N_LOG:] = plan.log_dropout
    return (rng.random((plan.n_nets, 1, N_FEATURES)) >= rates).astype(np.float32)


def _draw_batch(sources: Sources, cells: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Draw features, log prior and shares of people of one panel, all of single precision."""
    families = sorted(sources)
    logs = sources[families[int(rng.integers(len(families)))]]
    panels = logs[int(rng.integers(len(logs)))]
    panel = panels[int(rng.integers(len(panels)))]
    n, n_categories = panel.shares.shape
    size = int(np.clip(cells // n_categories, *ROWS_PER_BATCH))
    rows: IntArray = np.sort(rng.permutation(n)[:size])
    found = (panel.features.rows(rows), panel.features.prior[rows], panel.shares[rows])
    features, prior, shares = (np.asarray(array, dtype=np.float32) for array in found)
    return features, prior, shares


def _standardise(sources: Sources, plan: CellTrainingPlan) -> tuple[Any, Any]:
    """(N_FEATURES,) means and standard deviations of the features, families counting equally."""
    rng, samples = np.random.default_rng(plan.seed), []
    for _, family in sorted(sources.items()):
        for _ in range(SCALE_BATCHES):
            features, _, _ = _draw_batch({"": family}, plan.cells // 2, rng)
            flat = features.reshape(-1, N_FEATURES)
            samples.append(flat[rng.integers(0, len(flat), 1_500)])
    together = np.concatenate(samples)
    mean, scale = together.mean(axis=0), together.std(axis=0) + MIN_SCALE
    return mean.astype(np.float32), scale.astype(np.float32)
