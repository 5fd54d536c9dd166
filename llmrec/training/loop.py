"""Training with exact resume; what is checked, measured, saved and shown as its steps go by."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback

from llmrec.errors import TrainingError
from llmrec.training.checkpoints import (
    Checkpoint,
    checkpoint_at,
    latest_checkpoint,
    lock_run_folder,
    pack_optimizer,
    prune_checkpoints,
    save_checkpoint,
    unpack_optimizer,
)
from llmrec.training.config import TrainingConfig
from llmrec.training.trainer import (
    BatchStream,
    BatchTrainer,
    EpochBatches,
    RunState,
    check_device,
    trainable_parameters,
)

logger = logging.getLogger(__name__)


class TrainingCallback(TrainerCallback):
    """The Trainer calls these; they raise `TrainingError` with the cause."""

    def __init__(
        self,
        trainer: BatchTrainer,
        parameters: Mapping[str, nn.Parameter],
        validate: Callable[[], Mapping[str, float]],
        folder: Path,
        checkpoint: Checkpoint | None,
        bar: Any,
    ) -> None:
        self.trainer, self.run, self.config = trainer, trainer.run, trainer.config
        self.parameters, self.validate, self.folder = parameters, validate, folder
        self.checkpoint, self.bar = checkpoint, bar
        self.before: dict[str, Tensor] | None = None
        self.started, self.earlier, self.validating = time.monotonic(), self.run.seconds, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from the checkpoint, or measure what training starts from."""
        if self.checkpoint is None:
            self._evaluate()
            self._save()
            return
        values = self.checkpoint.values()
        unpack_optimizer(
            self.trainer.optimizer, self.checkpoint.tensors("optimizer"), values["optimizer"]
        )
        self.trainer.lr_scheduler.load_state_dict(values["scheduler"])
        if self.trainer.accelerator.scaler is not None:
            self.trainer.accelerator.scaler.load_state_dict(values["scaler"])
        state.global_step = self.run.step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the clock, the same one on every process."""
        self.trainer.batch_in_step = 0
        self.run.seconds = self._agreed(self.earlier + time.monotonic() - self.started)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse gradients that are not finite, and at the first step absent ones."""
        step, found = state.global_step + 1, self.parameters.items()
        if step == 1:
            if frozen := [name for name, values in found if values.grad is None]:
                raise TrainingError(_frozen(frozen, "get no gradient"))
            self.before = {name: values.detach().clone() for name, values in found}
        gradients = [values.grad for _, values in found if values.grad is not None]
        # In float16 the scaler looks for these itself, and skips the step.
        if self.trainer.accelerator.scaler is None and not torch.isfinite(
            torch.nn.utils.get_total_norm(gradients)
        ):
            raise TrainingError(f"a gradient is not finite at step {step}: lower the rate")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the first step, refuse parameters that had a gradient and stayed as they were."""
        before, self.before = self.before, None
        if before is None or self.trainer.accelerator.optimizer_step_was_skipped:
            return
        same = [
            name for name, values in self.parameters.items() if torch.equal(values, before[name])
        ]
        # An adapter's first half has a gradient of 0 as long as its second half is 0.
        pulled = [name for name in same if bool(self.parameters[name].grad.any())]
        if pulled or len(same) == len(before):
            raise TrainingError(_frozen(pulled or same, "do not move at the first step"))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate, save and stop where it is due."""
        run, config = self.run, self.config
        run.step = state.global_step
        state.epoch = config.epochs * run.step / args.max_steps
        if run.step >= args.max_steps:
            run.stopped = "all steps are done"
        elif config.max_minutes is not None and run.seconds >= 60 * config.max_minutes:
            run.stopped = f"{config.max_minutes:g} minutes are over"
        better = False
        if run.stopped or run.step % config.evaluate_every == 0:
            better = self._evaluate()
        if not run.stopped and self._without_better() >= config.patience:
            run.stopped = f"{config.patience} validations without a better log-loss"
        if run.stopped or better or run.step % config.save_every == 0:
            self._save()
        self._show()
        control.should_training_stop = control.should_training_stop or bool(run.stopped)

    def _evaluate(self) -> bool:
        """Validate; say whether it was the best so far."""
        run, start = self.run, time.monotonic()
        self.trainer.model.eval()
        with torch.no_grad():
            metrics = self._agreed(dict(self.validate()))
        if not math.isfinite(metrics["log_loss"]):
            raise TrainingError(f"validation log-loss is {metrics['log_loss']} at step {run.step}")
        lowest = min((found["log_loss"] for found in run.evaluations), default=math.inf)
        means, self.validating = run.means(), self.validating + time.monotonic() - start
        trained = {f"train_{name}": value for name, value in means.items()}
        run.evaluations.append({"step": run.step, "seconds": run.seconds, **trained, **metrics})
        if better := bool(metrics["log_loss"] < lowest or self.config.keep_checkpoint == "last"):
            run.best_step = run.step
        rate = self.trainer.lr_scheduler.get_last_lr()[0]
        judged = {f"eval_{name}": value for name, value in metrics.items()}
        self.trainer.log({**means, **judged, "learning_rate": rate})
        if self.bar.disable and self.trainer.is_world_process_zero():
            told = [f"{name} {value:.4f}" for name, value in {**trained, **metrics}.items()]
            logger.info("step %d: %s; %s", run.step, ", ".join(told), self._pace())
        return better

    def _without_better(self) -> int:
        return sum(found["step"] > self.run.best_step for found in self.run.evaluations)

    def _save(self) -> None:
        trainer, run = self.trainer, self.run
        if trainer.is_world_process_zero():
            tensors, values = pack_optimizer(trainer.optimizer)
            scaler, state = trainer.accelerator.scaler, trainer.lr_scheduler.state_dict()
            save_checkpoint(
                self.folder,
                run.step,
                {"parameters": self.parameters, "optimizer": tensors},
                {
                    "run": asdict(run),
                    "optimizer": values,
                    "scheduler": state,
                    "scaler": scaler and scaler.state_dict(),
                },
            )
            prune_checkpoints(self.folder, run.step, keep=self.config.keep, best=run.best_step)
        trainer.accelerator.wait_for_everyone()

    def _show(self) -> None:
        self.bar.set_postfix_str(
            f"{self._pace()}, skill {self.run.evaluations[-1]['skill']:+.4f}", refresh=False
        )
        self.bar.update(self.run.step - self.bar.n)

    def _pace(self) -> str:
        run, limit = self.run, 60 * (self.config.max_minutes or math.inf)
        if not run.step:
            return "before the first step"
        spent = time.monotonic() - self.started
        rate = self.trainer.positions / max(1e-9, spent - self.validating)
        share = max(run.step / self.trainer.args.max_steps, min(1.0, run.seconds / limit))
        left = (self.earlier + spent) * (1 - share) / share
        return f"{rate:.0f} tokens/s, {left / 60:.1f} min left"

    def _agreed(self, value: Any) -> Any:
        """Take the first process's word, so that all of them stop at the same step."""
        return broadcast_object_list([value])[0]


def _frozen(names: Sequence[str], what: str) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{len(names)} trainable parameters are frozen: {shown} {what}"


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
    batches: EpochBatches,
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
    parameters = trainable_parameters(module)
    stream = BatchStream(batches, config.epochs)
    lock_run_folder(folder, config.model_dump(mode="json"))
    run, checkpoint = RunState(len(stream)), latest_checkpoint(folder)
    if checkpoint is not None:
        run = _continued(checkpoint, parameters, len(stream))
    if not run.stopped:
        trainer = BatchTrainer(module, stream, run, config, folder)
        total, quiet = trainer.args.max_steps, None if trainer.is_world_process_zero() else True
        with tqdm(total=total, initial=run.step, unit="step", disable=quiet) as bar:
            trainer.add_callback(
                TrainingCallback(trainer, parameters, validate, folder, checkpoint, bar)
            )
            trainer.train()
        # In mixed precision the module's forward was replaced.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    _restore(parameters, checkpoint_at(folder, run.best_step))
    module.eval()
    return TrainingHistory(tuple(run.evaluations), run.best_step, run.step, run.stopped)


def _continued(
    checkpoint: Checkpoint, parameters: Mapping[str, nn.Parameter], n_batches: int
) -> RunState:
    run = RunState(**checkpoint.values()["run"])
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
