"""Teaching an adapter to write lines above the layers that are read: no reading changes by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from llmrec.language.checkpoint import add_lora_above
from llmrec.language.plaintext import Position
from llmrec.training.batches import Examples
from llmrec.training.config import LinesConfig, TrainingConfig
from llmrec.training.reader import Reader
from llmrec.training.typed import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

VALIDATED = 60  # held-out lines that decide which parameters stay


class Writer(nn.Module):
    """A `Reader` of which the lines alone are learned, by layers that it does not read."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(
        self, requests: Sequence[list[Position]], lines: Sequence[list[int]], n_positions: int = 0
    ) -> dict[str, Tensor]:
        """Give the mean loss of the lines' tokens and ends, nats."""
        return {"loss": self.reader.line_loss(requests, lines)}


class Lines:
    """The lines of all examples in batches of similar length, see `Batches`."""

    def __init__(self, examples: Examples, most: int | None = None) -> None:
        self.requests, self.lines = examples.requests[:most], examples.lines[:most]
        self.batch_positions, self.seed = examples.batch_positions, examples.seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        rng = np.random.default_rng((self.seed, n))
        jitter = rng.random(len(self.lines))  # lines of one length meet others each time
        order = sorted(range(len(self.lines)), key=lambda row: (self._length(row), jitter[row]))
        batches = list(self._batched(order))
        return [partial(self._batch, batches[at]) for at in rng.permutation(len(batches))]

    def _length(self, row: int) -> int:
        return len(self.requests[row]) + len(self.lines[row])

    def _batched(self, order: list[int]) -> Iterator[list[int]]:
        while order:
            n = max(1, self.batch_positions // self._length(order[-1]))
            yield order[-n:]
            del order[-n:]

    def _batch(self, rows: Sequence[int]) -> dict[str, Any]:
        return {
            "requests": [self.requests[row] for row in rows],
            "lines": [self.lines[row] for row in rows],
            "n_positions": sum(map(self._length, rows)),
        }


def check_layers(config: TrainingConfig, model: PreTrainedModel) -> None:
    """Refuse a depth that a model has not, and layers to learn lines in that are read through.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    if model.config.is_encoder_decoder:
        if config.depth is not None or config.lines.epochs:
            raise ConfigError(
                "depth and lines.epochs are for decoders: an encoder-decoder is read where its "
                "decoder starts, and learns lines while it learns to read (line_share)"
            )
        return
    n_layers = int(model.config.num_hidden_layers)
    if config.depth is not None and config.depth > n_layers:
        raise ConfigError(f"depth is {config.depth}; the model has {n_layers} layers")
    if not config.lines.epochs:
        return
    first = config.lines.chosen_layers(n_layers)[0]
    if config.depth is None or first < config.depth:
        raise ConfigError(
            f"lines.layers begin with layer {first}, and depth is {config.depth}: lines are "
            "learned above the layers that are read, or with them (line_share)"
        )


def new_writer(config: TrainingConfig, adapted: PeftModel, reader: Reader) -> Writer:
    """Put LoRA into the layers of ``config.lines``, see `check_layers`, and freeze all else."""
    layers = config.lines.chosen_layers(int(reader.model.config.num_hidden_layers))
    learned = dict(reader.named_parameters())
    add_lora_above(adapted, layers, rank=config.lines.rank, seed=config.seed)
    for values in learned.values():  # peft has let those of its adapter be trained again
        values.requires_grad_(False)
    return Writer(reader)


def keep_in_half(writer: Writer) -> None:
    """Round what learned lines to float16: half of the bytes on disk, read as float32 again."""
    for values in writer.parameters():
        if values.requires_grad:
            values.data = values.data.half()


def reading(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that teaches reading, which does not hang on the later one's."""
    return config.model_copy(update={"lines": LinesConfig()})


def writing(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that teaches lines."""
    return config.model_copy(update={"epochs": config.lines.epochs, "rate": config.lines.rate})


def lines_validation(writer: Writer, held_out: Lines) -> Callable[[], dict[str, float]]:
    """Give a function that judges held-out lines: log_loss a token, and skill.

    Skill is against ``untrained``: the writer must be a new one when this is called.
    """
    batches = [batch() for batch in held_out.epoch(0)]
    sizes = [sum(len(line) + 1 for line in batch["lines"]) for batch in batches]

    def judged() -> float:
        losses = [float(writer(**batch)["loss"]) for batch in batches]
        return float(np.average(losses, weights=sizes))

    writer.eval()
    with torch.no_grad():
        untrained = judged()

    def validate() -> dict[str, float]:
        loss = judged()
        return {"log_loss": loss, "untrained": untrained, "skill": 1 - loss / untrained}

    return validate
