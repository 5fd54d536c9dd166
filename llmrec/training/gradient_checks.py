"""Whether the gradient of one batch reaches all that is trained; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llmrec.errors import TrainingError
from llmrec.training.trainer import trainable_parameters

PROBE_SIZE = 0.02  # standard deviation of what stands for parameters that are 0 at first


def check_gradients(module: nn.Module, batch: Mapping[str, Any], *, zeros: bool = False) -> None:
    """Check that a batch's gradient is finite and reaches every trainable parameter.

    ``zeros``: gradients of 0 are possible, as of queries and keys where there is one position.

    Raises
    ------
    TrainingError
        Naming the parameters.
    """
    module.zero_grad(set_to_none=True)
    loss = module(**batch)["loss"]
    if not loss.requires_grad:
        raise TrainingError(
            "the loss is detached from all trainable parameters: nothing would learn"
        )
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"the loss is {float(loss)} before training: look at model and precision"
        )
    loss.backward()
    gradients = {name: one.grad for name, one in trainable_parameters(module).items()}
    module.zero_grad(set_to_none=True)
    reasons = {
        "get no gradient": [name for name, one in gradients.items() if one is None],
        "get a gradient that is not finite": [
            name
            for name, one in gradients.items()
            if one is not None and not bool(torch.isfinite(one).all())
        ],
        "get a gradient of 0": [
            name for name, one in gradients.items() if one is not None and not bool(one.any())
        ],
    }
    if zeros:
        del reasons["get a gradient of 0"]
    for reason, names in reasons.items():
        if names:
            raise TrainingError(
                f"{len(names)} trainable parameters {reason}, such as {min(names)}: a weight of "
                "the loss is 0, a part is detached or not used, or the precision is too low"
            )


def _gradients(module: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """Give the gradient of each trainable parameter, in training mode."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    was_training = module.training
    with torch.random.fork_rng(devices):
        loss = module.train()(**batch)["loss"]
        if not loss.requires_grad:
            raise TrainingError("the loss is detached from what is trained: nothing would learn")
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {float(loss)} before training: look at the model and its precision"
            )
        loss.backward()
    gradients = {name: one.grad for name, one in trainable_parameters(module).items()}
    module.zero_grad(set_to_none=True)
    module.train(was_training)
    return gradients


@contextmanager
def nonzero_parameters(module: nn.Module) -> Iterator[None]:
    """Give small random values to the trainable parameters that are 0, and take them back.

    A new head and the second half of new LoRA are 0, which hides what is in front of them.
    """
    generator = torch.Generator().manual_seed(0)
    empty = [one for one in trainable_parameters(module).values() if not bool(one.any())]
    try:
        for values in empty:
            noise = torch.randn(values.shape, generator=generator) * PROBE_SIZE
            values.data.copy_(noise.to(values))
        yield
    finally:
        for values in empty:
            values.data.zero_()
