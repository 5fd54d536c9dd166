"""transformers' Trainer over our own batches, with a learning rate for each kind of head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from llmrec.errors import TrainingError
from llmrec.language.heads import CategoryHead, TitleEmbeddings
from llmrec.training.config import TrainingConfig


def check_device(config: TrainingConfig) -> None:
    """Refuse, before anything is loaded, a config that needs a GPU where there is none.

    Raises
    ------
    TrainingError
        Naming the field, and what to write instead.
    """
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    requirements = {
        "device": (config.device == "cuda", "auto"),
        "quantize": (config.quantize is not None, "null"),
        "dtype": (config.dtype in ("bfloat16", "float16"), "auto"),
    }
    for name, (needs_gpu, instead) in requirements.items():
        if needs_gpu and not on_gpu:
            reason = "device is 'cpu'" if config.device == "cpu" else "torch finds none"
            raise TrainingError(
                f"{name} is {getattr(config, name)!r}, which needs a GPU, and {reason}: write "
                f"{name}: {instead}, or train where there is one"
            )


Batch = Mapping[str, Any]


class EpochBatches(Protocol):
    """Training data as batches, in the order of an epoch."""

    def epoch(self, n: int) -> Sequence[Batch | Callable[[], Batch]]:
        """Give the batches of epoch n, the same at every call; a callable makes its batch."""
        ...


@dataclass
class RunState:
    """The progress of a run; it is saved in every checkpoint."""

    n_batches: int
    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    stopped: str = ""
    evaluations: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add_outputs(self, outputs: Mapping[str, Any]) -> None:
        """Add a batch's scalars to the sums since the last validation."""
        for name, value in outputs.items():
            number = value.detach() if isinstance(value, Tensor) else value
            if isinstance(number, float | int) or (isinstance(number, Tensor) and not number.ndim):
                self.sums[name] = self.sums.get(name, 0.0) + float(number)
                self.counts[name] = self.counts.get(name, 0) + 1

    def pop_means(self) -> dict[str, float]:
        """Give the means since the last validation, and set the sums to zero."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class BatchStream(Dataset[Batch]):
    """The batches of all epochs in a row; of an incomplete last epoch, the first ones."""

    def __init__(self, batches: EpochBatches, epochs: float) -> None:
        self.batches, self.cached_epoch = batches, (0, batches.epoch(0))
        sizes = [len(batches.epoch(n)) for n in range(math.ceil(epochs))]
        part = epochs - math.floor(epochs)
        if part:
            sizes[-1] = math.ceil(sizes[-1] * part)
        self.starts = np.cumsum([0, *sizes])
        if not len(self):
            raise TrainingError("there are no batches to train on")

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch = int(np.searchsorted(self.starts, index, side="right")) - 1
        if self.cached_epoch[0] != epoch:
            self.cached_epoch = (epoch, self.batches.epoch(epoch))
        batch = self.cached_epoch[1][index - int(self.starts[epoch])]
        return dict(batch() if callable(batch) else batch)


class BatchTrainer(Trainer):
    """transformers' Trainer with our batches, rates, schedule, and random numbers of each step.

    Each process takes every n-th batch; if there are too few at the end, the first ones follow.
    """

    def __init__(
        self,
        module: nn.Module,
        stream: BatchStream,
        run: RunState,
        config: TrainingConfig,
        folder: Path,
    ) -> None:
        self.stream, self.run, self.config = stream, run, config
        self.batch_in_step, self.n_positions_seen = 0, 0
        args = _training_arguments(config, folder)
        self.n_batches = math.ceil(len(stream) / args.world_size)  # of this process
        args.max_steps = math.ceil(self.n_batches / config.gradient_accumulation)
        try:
            super().__init__(model=module, args=args)
        except (RuntimeError, ValueError) as error:
            if not config.report_to:
                raise
            raise TrainingError(f"report_to is {list(config.report_to)}: {error}") from error
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise TrainingError(
                "checkpoints hold whole parameters, and FSDP and DeepSpeed split them: "
                "start with plain `accelerate launch --multi_gpu` or torchrun"
            )
        # The loss is a batch's mean, whatever keywords the module's forward takes.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Give the batches that this process has not seen yet."""
        first = self.run.step * self.config.gradient_accumulation
        n, rank = self.args.world_size, self.args.process_index
        rows = [(i * n + rank) % len(self.stream) for i in range(first, self.n_batches)]
        return DataLoader(
            self.stream, batch_size=None, sampler=rows, collate_fn=lambda batch: batch
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """Make AdamW with one group of parameters for each rate, see `parameter_rates`."""
        rates, config = parameter_rates(self.model, self.config), self.config
        by_rate: dict[float, list[tuple[str, nn.Parameter]]] = {}
        for name, values in trainable_parameters(self.model).items():
            by_rate.setdefault(rates[name], []).append((name, values))
        groups = [
            {"params": parameters, "lr": rate, "weight_decay": config.weight_decay}
            for rate, parameters in by_rate.items()
        ]
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make a schedule: a linear warm-up, and a cosine over the steps or the time limit."""
        warmup, run = self.config.warmup_steps, self.run
        seconds = 60 * (self.config.max_minutes or math.inf)

        def factor(step: int) -> float:
            return schedule_factor(warmup, num_training_steps, step, run.seconds / seconds)

        self.lr_scheduler = LambdaLR(self.optimizer, factor)
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """Take a step whose random numbers come from (seed, step, batch in the step, process)."""
        batch = (self.config.seed, self.state.global_step, self.batch_in_step)
        entropy = np.random.SeedSequence((*batch, self.args.process_index))
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        self.batch_in_step += 1
        self.n_positions_seen += int(inputs.pop("n_positions", 0))
        loss: Tensor = super().training_step(model, inputs)
        return loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        # The Trainer's own would walk through every list of tokens.
        device = self.args.device
        return {
            name: value.to(device) if hasattr(value, "to") else value
            for name, value in inputs.items()
        }

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute the loss; TrainingError if it is not finite or exactly 0."""
        outputs = model(**inputs)
        loss, step = float(outputs["loss"].detach()), self.state.global_step + 1
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {step}: lower the learning rate, or look at the data"
            )
        if loss == 0:
            raise TrainingError(
                f"the loss is exactly 0 at step {step}: there is nothing to learn from it"
            )
        _check_divergence(outputs, step)
        self.run.add_outputs(outputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log all but the Trainer's closing summary."""
        # It counts the steps before a resume as steps of this start.
        if "train_runtime" not in logs:
            super().log(logs, start_time)


def _check_divergence(outputs: Mapping[str, Any], step: int) -> None:
    """Refuse category scores that are far worse than none, on the same batch."""
    if "counting_loss" not in outputs:
        return
    loss, counting = float(outputs["read_loss"]), float(outputs["counting_loss"])
    if loss > 2 * counting + 1:
        raise TrainingError(
            f"the loss is {loss:.2f} at step {step}, and {counting:.2f} without any scores: "
            "training diverges; lower learning_rate and head_learning_rate"
        )


def _training_arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    fast = config.dtype == "auto" and on_gpu and torch.cuda.is_bf16_supported()
    arguments = TrainingArguments(
        output_dir=str(folder),
        seed=config.seed,
        use_cpu=not on_gpu,
        bf16=config.dtype == "bfloat16" or fast,
        fp16=config.dtype == "float16",
        gradient_accumulation_steps=config.gradient_accumulation,
        max_grad_norm=config.max_grad_norm,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        eval_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
    )
    # Each GPU has its own process: otherwise a batch would be split among them.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def schedule_factor(warmup: int, n_steps: int, step: int, time_used: float = 0.0) -> float:
    """Give the part of the peak rate that a step has, see `BatchTrainer.create_scheduler`.

    ``time_used`` is the part of the time limit that is over.
    """
    done = max((step - warmup) / max(1, n_steps - warmup), time_used)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
    return min(1.0, (step + 1) / (warmup + 1)) * cosine


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """List by name the parameters that require a gradient; TrainingError if none does."""
    parameters = {name: one for name, one in module.named_parameters() if one.requires_grad}
    if not parameters:
        raise TrainingError("no parameter is trainable: the adapter's targets matched nothing")
    return parameters


def head_rates(config: TrainingConfig) -> dict[type[nn.Module], float]:
    """Give the peak learning rate of each class of heads."""
    return {CategoryHead: config.head_learning_rate, TitleEmbeddings: config.titles.rate}


def parameter_rates(module: nn.Module, config: TrainingConfig) -> dict[str, float]:
    """Give the peak learning rate of each trainable parameter, by its name.

    A head is known by its class, so that no name or place in the module can put it among the
    parameters of ``config.learning_rate``.
    """
    own_rates = {
        id(parameter): rate
        for head, rate in head_rates(config).items()
        for part in module.modules()
        if isinstance(part, head)
        for parameter in part.parameters()
    }
    return {
        name: own_rates.get(id(parameter), config.learning_rate)
        for name, parameter in trainable_parameters(module).items()
    }
