"""Checks of learning rates, schedule and batches against the model that they train.

Adam moves each parameter by about the learning rate in a step, whatever the gradient. What that
does is known before training: LoRA's product is compared with the matrix it is added to, and a
head's change with the scores that it gives. n steps in random directions go as far as sqrt(n) in
one. A rate is too high if one step changes more than a training is to change, and too low if the
whole run changes less than matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from llmrec.errors import TrainingError
from llmrec.language.heads import CategoryHead, TitleEmbeddings
from llmrec.training.config import TrainingConfig
from llmrec.training.lora import LAYER_NUMBER
from llmrec.training.trainer import parameter_rates, schedule_factor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


DRY_RUN_STEPS = 50  # a shorter run tries out whether all works: it is judged as one of so many
LARGEST_BATCH = 4  # epochs in one batch
Change = tuple[str, str, float, float]  # kind (see `LIMITS`), field of the config, rate, change


@dataclass(frozen=True)
class _Limits:
    """The most that a step may change, and the least that a run has to, in ``unit``."""

    step: float
    run: float
    unit: str


LIMITS = {
    "lora": _Limits(0.05, 2e-4, "of the size of the adapted matrices"),
    "head": _Limits(0.25, 2e-3, "nats in a score"),
    "base": _Limits(1.0, 0.01, "of the size of the matrices"),
}


def check_rates(module: nn.Module, config: TrainingConfig, n_batches: int) -> None:
    """Check learning rates and warm-up of a run over ``n_batches``.

    Raises
    ------
    TrainingError
        Naming the rate, and what it would change.
    """
    n_steps = _count_steps(config, n_batches)
    if config.warmup_steps >= n_steps >= DRY_RUN_STEPS:
        raise TrainingError(
            f"warmup_steps is {config.warmup_steps}, and the run has {n_steps} steps: it would end "
            "before it has warmed up; choose fewer, such as a tenth of the steps"
        )
    _check_changes(step_changes(module, config), config.warmup_steps, n_steps)


def check_line_rate(model: PreTrainedModel, config: TrainingConfig, n_batches: int) -> None:
    """Check the rate of the run for lines that follows, before its LoRA is there.

    Raises
    ------
    TrainingError
        If it is too high or too low.
    """
    _check_changes(
        line_step_changes(model, config), config.warmup_steps, _count_steps(config, n_batches)
    )


def _count_steps(config: TrainingConfig, n_batches: int) -> int:
    return max(1, math.ceil(n_batches / config.gradient_accumulation))


def _check_changes(found: Iterable[Change], warmup: int, n_steps: int) -> None:
    """Raise TrainingError if the median change of a kind and field is beyond its limits."""
    factors = [schedule_factor(warmup, n_steps, step) for step in range(n_steps)]
    effective = max(sum(factors), DRY_RUN_STEPS / 2)
    changes: dict[tuple[str, str, float], list[float]] = {}
    for kind, name, rate, change in found:
        changes.setdefault((kind, name, rate), []).append(change)
    for (kind, name, rate), values in changes.items():
        step, limits = sorted(values)[len(values) // 2], LIMITS[kind]
        run = step * effective**0.5
        if step > limits.step:
            raise TrainingError(
                f"{name} {rate:g} is too high: one step changes {step:.3g} {limits.unit}, and "
                f"{limits.step:g} is the most; divide it by {_round_up(step / limits.step)}"
            )
        if run < limits.run:
            raise TrainingError(
                f"{name} {rate:g} is too low: {n_steps} steps change {run:.2g} {limits.unit}, and "
                f"{limits.run:g} is the least; multiply it by {_round_up(limits.run / run)}"
            )


def step_changes(module: nn.Module, config: TrainingConfig) -> Iterator[Change]:
    """Yield what one step changes in each trained part."""
    rates = parameter_rates(module, config)
    adapted = set()
    for name, part in module.named_modules():
        own = {f"{name}.{inner}" for inner, _ in part.named_parameters()} & rates.keys()
        if not own:
            continue
        rate = rates[min(own)]
        if isinstance(part, CategoryHead):
            yield "head", "head_learning_rate", rate, rate * _norm(part.down.weight)
        elif isinstance(part, TitleEmbeddings):
            yield "head", "titles.rate", rate, rate * _norm(part.query_projection.weight)
        elif hasattr(part, "lora_A") and hasattr(part, "base_layer"):
            adapted |= own
            weight = part.base_layer.weight
            if weight.is_floating_point():  # a quantized one has another size
                (scaling,) = part.scaling.values()
                (first,) = (half.weight for half in part.lora_A.values())
                change = scaling * rate * len(weight) ** 0.5 * _norm(first) / _norm(weight)
                yield "lora", "learning_rate", rate, change
    heads = (CategoryHead, TitleEmbeddings)
    known = {
        id(one) for part in module.modules() if isinstance(part, heads) for one in part.parameters()
    }
    for name, values in module.named_parameters():
        if name in rates and name not in adapted and id(values) not in known and values.ndim > 1:
            size = _norm(values) / values.numel() ** 0.5
            if size:
                yield "base", "learning_rate", rates[name], rates[name] / size


def line_step_changes(model: PreTrainedModel, config: TrainingConfig) -> Iterator[Change]:
    """Yield what one step of the run for lines will change in each matrix that it adapts.

    The first half of new LoRA has variance 1 / (3 n_inputs), and so the size sqrt(rank / 3).
    """
    lines, scaling = config.generation, config.lora.alpha / config.lora.rank
    layers = lines.layer_numbers(int(model.config.num_hidden_layers))
    for name, part in model.named_modules():
        layer = LAYER_NUMBER.search(f".{name}.")
        weight = getattr(part, "weight", None)
        if not layer or int(layer[1]) not in layers or weight is None:
            continue
        if name.rpartition(".")[2] in config.lora.targets and weight.is_floating_point():
            size = (len(weight) * lines.rank / 3) ** 0.5
            change = scaling * lines.rate * size / _norm(weight)
            yield "lora", "generation.rate", lines.rate, change


def check_batch_size(config: TrainingConfig, n_positions: int) -> None:
    """Refuse batches that hold an epoch of ``n_positions`` several times.

    Raises
    ------
    TrainingError
        With both sizes.
    """
    if config.batch_positions > max(LARGEST_BATCH * n_positions, 2**15):
        raise TrainingError(
            f"batch_positions is {config.batch_positions}, and all examples have {n_positions} "
            "positions: an epoch would be one step; choose a batch of a hundredth of them"
        )


def _norm(values: torch.Tensor) -> float:
    return float(values.detach().float().norm())


def _round_up(factor: float) -> str:
    return f"{10 ** math.ceil(math.log10(factor)):,}"
