"""What is checked, measured, saved and shown as the steps of a training run go by."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from transformers import TrainerCallback

from llmrec.errors import TrainingError
from llmrec.training.checkpoints import Checkpoint, packed, prune, save_checkpoint, unpack
from llmrec.training.trainer import BatchTrainer

logger = logging.getLogger(__name__)


class Steps(TrainerCallback):
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
        unpack(self.trainer.optimizer, self.checkpoint.tensors("optimizer"), values["optimizer"])
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
        elif config.minutes is not None and run.seconds >= 60 * config.minutes:
            run.stopped = f"{config.minutes:g} minutes are over"
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
        if better := bool(metrics["log_loss"] < lowest or self.config.select == "last"):
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
            tensors, values = packed(trainer.optimizer)
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
            prune(self.folder, run.step, keep=self.config.keep, best=run.best_step)
        trainer.accelerator.wait_for_everyone()

    def _show(self) -> None:
        self.bar.set_postfix_str(
            f"{self._pace()}, skill {self.run.evaluations[-1]['skill']:+.4f}", refresh=False
        )
        self.bar.update(self.run.step - self.bar.n)

    def _pace(self) -> str:
        run, limit = self.run, 60 * (self.config.minutes or math.inf)
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
