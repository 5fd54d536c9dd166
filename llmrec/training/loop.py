"""Training that survives: exact resume, checkpoints that are whole, and failures with a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from llmrec.errors import TrainingError
from llmrec.training.checkpoints import Checkpoint, checkpoint_of, claim, newest_checkpoint
from llmrec.training.config import TrainingConfig, check_device
from llmrec.training.steps import Steps
from llmrec.training.trainer import Batches, BatchTrainer, Run, Stream, trainable


@dataclass(frozen=True)
class TrainingHistory:
    """How a run went.

    Attributes
    ----------
    evaluations
        One table a validation, the first before any step: ``step``, ``seconds``, what ``validate``
        gave, and as ``train_...`` the means of what the module gave since the one before.
    best_step
        Steps after which validation log-loss was lowest: what the module holds now.
    steps, stopped
        Steps done, and why no more.
    """

    evaluations: tuple[dict[str, float], ...]
    best_step: int
    steps: int
    stopped: str

    @property
    def metrics(self) -> dict[str, float]:
        """What ``validate`` gave for the best parameters, and their step."""
        best = next(found for found in self.evaluations if found["step"] == self.best_step)
        told = {name: value for name, value in best.items() if not name.startswith("train_")}
        del told["seconds"]
        return told


def train(
    module: nn.Module,
    batches: Batches,
    validate: Callable[[], Mapping[str, float]],
    config: TrainingConfig,
    folder: Path | str,
) -> TrainingHistory:
    """Train what requires a gradient, and leave the module with its best parameters.

    AdamW with a linear warm-up and a cosine towards 0 at the last step; parameters whose names
    start with ``readout.`` have a rate of their own. Everything random is drawn from (seed, step),
    so on a CPU an interrupted run that is started again ends with the same bytes as one that was
    not. With ``config.minutes`` the clock has a say in the rate, and this no longer holds.

    Parameters
    ----------
    module
        ``module(**batch)`` gives ``{"loss": scalar, ...}`` and other scalars worth following.
    batches
        A batch's values with a ``to`` method are moved to the device. ``n_positions``, if there
        is one, is counted and not given to the module.
    validate
        Gives at least ``log_loss`` (lower is better) and ``skill`` (against counting). It is
        called in evaluation mode, without gradients.
    folder
        Holds ``config.json`` and the checkpoints; the newest whole one is gone on from.

    Raises
    ------
    TrainingError
        With the cause: no GPU, nothing to train or to learn from, a loss or gradient that is not
        finite, a loss of 0, parameters that stay as they are, another run's folder, a full disk.
    """
    check_device(config)
    folder = Path(folder)
    parameters = trainable(module)
    stream = Stream(batches, config.epochs)
    claim(folder, config.model_dump(mode="json"))
    run, checkpoint = Run(len(stream)), newest_checkpoint(folder)
    if checkpoint is not None:
        run = _continued(checkpoint, parameters, len(stream))
    if not run.stopped:
        trainer = BatchTrainer(module, stream, run, config, folder)
        total, quiet = trainer.args.max_steps, None if trainer.is_world_process_zero() else True
        with tqdm(total=total, initial=run.step, unit="step", disable=quiet) as bar:
            trainer.add_callback(Steps(trainer, parameters, validate, folder, checkpoint, bar))
            trainer.train()
        # In mixed precision the module's forward was replaced.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    _restore(parameters, checkpoint_of(folder, run.best_step))
    module.eval()
    return TrainingHistory(tuple(run.evaluations), run.best_step, run.step, run.stopped)


def _continued(
    checkpoint: Checkpoint, parameters: Mapping[str, nn.Parameter], n_batches: int
) -> Run:
    run = Run(**checkpoint.values()["run"])
    if run.n_batches != n_batches:
        raise TrainingError(
            f"the run in {checkpoint.path.parent} has {run.n_batches} batches, now there are "
            f"{n_batches}: the data changed since; choose another folder"
        )
    _restore(parameters, checkpoint)
    return run


def _restore(parameters: Mapping[str, nn.Parameter], checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors("parameters")
    shapes = {name: (values.shape, values.dtype) for name, values in parameters.items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if strange := [name for name in shapes | found if shapes.get(name) != found.get(name)]:
        raise TrainingError(f"{checkpoint.path} holds other parameters, such as {min(strange)!r}")
    with torch.no_grad():
        for name, values in parameters.items():
            values.copy_(tensors[name])
