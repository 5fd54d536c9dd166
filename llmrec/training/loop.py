"""Training that resumes exactly: its checks, validations, checkpoints and progress bar."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback

from llmrec.errors import TrainingError
from llmrec.training.checkpoints import (
    Checkpoint,
    check_inputs,
    checkpoint_at,
    hash_frozen_parameters,
    latest_checkpoint,
    lock_run_folder,
    only_training_in,
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
    """Checks, validation, checkpoints and progress; a `TrainingError` names what went wrong."""

    def __init__(
        self,
        trainer: BatchTrainer,
        parameters: Mapping[str, nn.Parameter],
        validate: Callable[[], Mapping[str, float]],
        folder: Path,
        checkpoint: Checkpoint | None,
        inputs: Mapping[str, str],
        bar: Any,
    ) -> None:
        self.trainer, self.run, self.config = trainer, trainer.run, trainer.config
        self.parameters, self.validate, self.folder = parameters, validate, folder
        self.checkpoint, self.inputs, self.bar = checkpoint, inputs, bar
        self.initial_values: dict[str, Tensor] | None = None
        # Seconds of earlier starts of this run, and seconds of validation in this one.
        self.start_time, self.previous_seconds, self.validation_seconds = (
            time.monotonic(),
            self.run.seconds,
            0.0,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Load the checkpoint, or validate what training starts from."""
        if self.checkpoint is None:
            self._evaluate()
            self._save()
            return
        values = self.checkpoint.load_values()
        unpack_optimizer(
            self.trainer.optimizer, self.checkpoint.load_tensors("optimizer"), values["optimizer"]
        )
        self.trainer.lr_scheduler.load_state_dict(values["scheduler"])
        if self.trainer.accelerator.scaler is not None:
            self.trainer.accelerator.scaler.load_state_dict(values["scaler"])
        state.global_step = self.run.step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the time, the same on every process."""
        self.trainer.batch_in_step = 0
        self.run.seconds = self._broadcast(
            self.previous_seconds + time.monotonic() - self.start_time
        )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse gradients that are not finite, and at the first step missing ones."""
        step, parameters = state.global_step + 1, self.parameters.items()
        if step == 1:
            if frozen := [name for name, values in parameters if values.grad is None]:
                raise TrainingError(_frozen_message(frozen, "get no gradient"))
            self.initial_values = {name: values.detach().clone() for name, values in parameters}
        gradients = [values.grad for _, values in parameters if values.grad is not None]
        # In float16 the scaler looks for these itself, and skips the step.
        if self.trainer.accelerator.scaler is None and not torch.isfinite(
            torch.nn.utils.get_total_norm(gradients)
        ):
            raise TrainingError(f"a gradient is not finite at step {step}: lower the learning rate")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the first step, refuse parameters that had a gradient and did not change."""
        before, self.initial_values = self.initial_values, None
        if before is None or self.trainer.accelerator.optimizer_step_was_skipped:
            return
        same = [
            name for name, values in self.parameters.items() if torch.equal(values, before[name])
        ]
        # An adapter's first half has a gradient of 0 as long as its second half is 0.
        stuck = [name for name in same if bool(self.parameters[name].grad.any())]
        if stuck or len(same) == len(before):
            raise TrainingError(_frozen_message(stuck or same, "do not change at the first step"))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Validate, save and stop when it is time to."""
        run, config = self.run, self.config
        run.step = state.global_step
        state.epoch = config.epochs * run.step / args.max_steps
        if run.step >= args.max_steps:
            run.stopped = "all steps are done"
        elif config.max_minutes is not None and run.seconds >= 60 * config.max_minutes:
            run.stopped = f"{config.max_minutes:g} minutes are over"
        is_best = False
        if run.stopped or run.step % config.evaluate_every == 0:
            is_best = self._evaluate()
        if not run.stopped and self._count_since_best() >= config.patience:
            run.stopped = f"{config.patience} validations without a better log-loss"
        if run.stopped or is_best or run.step % config.save_every == 0:
            self._save()
        self._update_bar()
        control.should_training_stop = control.should_training_stop or bool(run.stopped)

    def _evaluate(self) -> bool:
        """Validate; True if the parameters are now the ones to keep."""
        run, start = self.run, time.monotonic()
        self.trainer.model.eval()
        with torch.no_grad():
            metrics = self._broadcast(dict(self.validate()))
        if not math.isfinite(metrics["log_loss"]):
            raise TrainingError(f"validation log-loss is {metrics['log_loss']} at step {run.step}")
        lowest = min((earlier["log_loss"] for earlier in run.evaluations), default=math.inf)
        means, self.validation_seconds = (
            run.pop_means(),
            self.validation_seconds + time.monotonic() - start,
        )
        training = {f"train_{name}": value for name, value in means.items()}
        run.evaluations.append({"step": run.step, "seconds": run.seconds, **training, **metrics})
        if is_best := bool(metrics["log_loss"] < lowest or self.config.keep_checkpoint == "last"):
            run.best_step = run.step
        rate = self.trainer.lr_scheduler.get_last_lr()[0]
        evaluation = {f"eval_{name}": value for name, value in metrics.items()}
        self.trainer.log({**means, **evaluation, "learning_rate": rate})
        if self.bar.disable and self.trainer.is_world_process_zero():
            shown = [f"{name} {value:.4f}" for name, value in {**training, **metrics}.items()]
            logger.info("step %d: %s; %s", run.step, ", ".join(shown), self._describe_pace())
        return is_best

    def _count_since_best(self) -> int:
        return sum(one["step"] > self.run.best_step for one in self.run.evaluations)

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
                    "inputs": dict(self.inputs),
                    "optimizer": values,
                    "scheduler": state,
                    "scaler": scaler and scaler.state_dict(),
                },
            )
            prune_checkpoints(self.folder, run.step, keep=self.config.keep, best=run.best_step)
        trainer.accelerator.wait_for_everyone()

    def _update_bar(self) -> None:
        skill = self.run.evaluations[-1]["skill"]
        self.bar.set_postfix_str(f"{self._describe_pace()}, skill {skill:+.4f}", refresh=False)
        self.bar.update(self.run.step - self.bar.n)

    def _describe_pace(self) -> str:
        run, limit = self.run, 60 * (self.config.max_minutes or math.inf)
        if not run.step:
            return "before the first step"
        elapsed = time.monotonic() - self.start_time
        speed = self.trainer.n_positions_seen / max(1e-9, elapsed - self.validation_seconds)
        done = max(run.step / self.trainer.args.max_steps, min(1.0, run.seconds / limit))
        left = (self.previous_seconds + elapsed) * (1 - done) / done
        return f"{speed:.0f} tokens/s, {left / 60:.1f} min left"

    def _broadcast(self, value: Any) -> Any:
        """Give the value of the first process, so that all of them stop at the same step."""
        return broadcast_object_list([value])[0]


def _frozen_message(names: Sequence[str], what: str) -> str:
    examples = ", ".join(sorted(names)[:3])
    return f"{len(names)} trainable parameters are frozen: {examples} {what}"


@dataclass(frozen=True)
class TrainingHistory:
    """The validations of a run, and its end.

    Attributes
    ----------
    evaluations
        One dictionary a validation, the first before any step: ``step``, ``seconds``, what
        ``validate`` gave, and as ``train_...`` the means of the module's outputs since the one
        before.
    best_step
        Step of the parameters that the module has now: that of the lowest validation log-loss, or
        the last one with ``keep_checkpoint: last``.
    steps, stopped
        Number of steps, and the reason why the run ended.
    """

    evaluations: tuple[dict[str, float], ...]
    best_step: int
    steps: int
    stopped: str

    @property
    def metrics(self) -> dict[str, float]:
        """What ``validate`` gave for the best parameters, and their step."""
        best = next(one for one in self.evaluations if one["step"] == self.best_step)
        metrics = {name: value for name, value in best.items() if not name.startswith("train_")}
        del metrics["seconds"]
        return metrics


def train(
    module: nn.Module,
    batches: EpochBatches,
    validate: Callable[[], Mapping[str, float]],
    config: TrainingConfig,
    folder: Path | str,
    inputs: Mapping[str, str] | None = None,
) -> TrainingHistory:
    """Train what requires a gradient, and leave the module with its best parameters.

    AdamW with a linear warm-up and a cosine towards 0 at the last step; heads have rates of their
    own (`parameter_rates`). Everything random is drawn from (seed, step), so on a CPU an
    interrupted run that is started again ends with the same bytes as one that was not. With
    ``config.max_minutes`` the rate depends on the time as well, and this no longer holds.

    Parameters
    ----------
    module
        ``module(**batch)`` gives ``{"loss": scalar, ...}`` and other scalars to follow.
    batches
        A batch's values with a ``to`` method are moved to the device. ``n_positions``, if there
        is one, is counted and not passed to the module.
    validate
        Gives at least ``log_loss`` (lower is better) and ``skill`` (against a baseline). It is
        called in evaluation mode, without gradients.
    folder
        Of ``config.json`` and the checkpoints; the run continues from the newest complete one.
    inputs
        Names and hashes of what the run depends on, such as the examples; a run that continues
        needs the same ones. The parameters that are not trained are hashed here.

    Raises
    ------
    TrainingError
        With the cause: no GPU, nothing to train or to train on, a loss or gradient that is not
        finite, a loss of 0, parameters that do not change, another run's folder, one that another
        training writes to, other inputs, a full disk.
    """
    check_device(config)
    inputs = dict(inputs or {}) | {"base model": hash_frozen_parameters(module)}
    if not PartialState().is_main_process:  # of several GPUs' processes one holds the lock
        return _train(module, batches, validate, config, Path(folder), inputs)
    with only_training_in(Path(folder)):
        return _train(module, batches, validate, config, Path(folder), inputs)


def _train(
    module: nn.Module,
    batches: EpochBatches,
    validate: Callable[[], Mapping[str, float]],
    config: TrainingConfig,
    folder: Path,
    inputs: Mapping[str, str],
) -> TrainingHistory:
    parameters = trainable_parameters(module)
    stream = BatchStream(batches, config.epochs)
    lock_run_folder(folder, config.model_dump(mode="json"))
    run, checkpoint = RunState(len(stream)), latest_checkpoint(folder)
    if checkpoint is not None:
        run = _load_run(checkpoint, parameters, len(stream))
        check_inputs(folder, checkpoint.load_values().get("inputs", {}), inputs)
    if not run.stopped:
        trainer = BatchTrainer(module, stream, run, config, folder)
        total, hidden = trainer.args.max_steps, None if trainer.is_world_process_zero() else True
        with tqdm(total=total, initial=run.step, unit="step", disable=hidden) as bar:
            trainer.add_callback(
                TrainingCallback(trainer, parameters, validate, folder, checkpoint, inputs, bar)
            )
            trainer.train()
        # In mixed precision the module's forward was replaced.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    _load_parameters(parameters, checkpoint_at(folder, run.best_step))
    module.eval()
    return TrainingHistory(tuple(run.evaluations), run.best_step, run.step, run.stopped)


def _load_run(
    checkpoint: Checkpoint, parameters: Mapping[str, nn.Parameter], n_batches: int
) -> RunState:
    run = RunState(**checkpoint.load_values()["run"])
    if run.n_batches != n_batches:
        raise TrainingError(
            f"the run in {checkpoint.path.parent} has {run.n_batches} batches, now there are "
            f"{n_batches}: the data changed since; choose another folder"
        )
    _load_parameters(parameters, checkpoint)
    return run


def _load_parameters(parameters: Mapping[str, nn.Parameter], checkpoint: Checkpoint) -> None:
    tensors = checkpoint.load_tensors("parameters")
    shapes = {name: (values.shape, values.dtype) for name, values in parameters.items()}
    stored = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if others := [name for name in shapes | stored if shapes.get(name) != stored.get(name)]:
        raise TrainingError(f"{checkpoint.path} holds other parameters, such as {min(others)!r}")
    with torch.no_grad():
        for name, values in parameters.items():
            values.copy_(tensors[name])
