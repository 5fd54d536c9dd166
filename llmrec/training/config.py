"""The settings of a training run."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from llmrec.errors import MissingExtraError

try:
    from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.language.adapter_checks import MAX_ALPHA, MAX_RANK
from llmrec.language.folder_checks import MAX_INTEGER, MAX_LAYERS
from llmrec.training.reading_config import ReadingConfig
from llmrec.training.typed_config import ConfigError, argument_parser, load_typed

_STRICT_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
LayerSpec = str | tuple[int, ...]


def _parse_layers(value: Any) -> LayerSpec:
    if isinstance(value, str) and re.fullmatch(r"all|upper [1-9]\d{0,2}", value):
        return value
    numbers = value if isinstance(value, list | tuple) else []
    if numbers and all(type(number) is int and 0 <= number < MAX_LAYERS for number in numbers):
        return tuple(sorted(set(numbers)))
    raise ValueError(
        f"should be all, upper N, or a list of layer numbers from 0 to {MAX_LAYERS - 1}"
    )


LayerField = Annotated[
    LayerSpec, PlainValidator(_parse_layers), PlainSerializer(lambda layers: layers)
]


def _layer_numbers(layers: LayerSpec, depth: int, field: str) -> list[int]:
    if layers == "all":
        return list(range(depth))
    if isinstance(layers, str):
        numbers = list(range(depth - int(layers.removeprefix("upper ")), depth))
    else:
        numbers = list(layers)
    if numbers[0] < 0 or numbers[-1] >= depth:
        raise ConfigError(f"{field} is {layers!r}; the model has {depth} layers")
    return numbers


class LoraConfig(BaseModel):
    """The low-rank adapter inside the base model (Hu et al. 2022, arXiv 2106.09685).

    Attributes
    ----------
    rank, alpha, dropout
        Of every adapted matrix; its update is scaled by alpha / rank.
    targets
        Names of the matrices that are adapted.
    layers
        ``"all"``, ``"upper N"`` (the N nearest to the output), or their numbers from 0.
    """

    model_config = _STRICT_CONFIG

    rank: int = Field(default=16, ge=1, le=MAX_RANK)
    alpha: float = Field(default=32.0, gt=0, le=MAX_ALPHA)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=100)] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    layers: LayerField = "all"

    def layer_numbers(self, depth: int) -> list[int]:
        """List the adapted layers of a model that has ``depth``; ConfigError if it lacks one."""
        return _layer_numbers(self.layers, depth, "lora.layers")


class TitlesConfig(BaseModel):
    """The embeddings of titles, see `TitleEmbeddings`.

    Attributes
    ----------
    rank, dropout
        Size of a title's vector (0: titles have none), and share of the titles whose vector is left
        out in training, so that the model sees their words alone.
    rate, weight
        Peak learning rate, and weight of the loss of the next titles.
    """

    model_config = _STRICT_CONFIG

    rank: int = Field(default=0, ge=0, le=MAX_RANK)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    rate: float = Field(default=3e-3, gt=0)
    weight: float = Field(default=0.3, ge=0)


class LineTrainingConfig(BaseModel):
    """A second run that trains lines alone, by LoRA in layers above those that score categories.

    Attributes
    ----------
    epochs, rate
        Length (0: there is no such run) and peak learning rate.
    rank, layers
        Of its LoRA, as in `LoraConfig`, which also says which matrices.
    """

    model_config = _STRICT_CONFIG

    epochs: float = Field(default=0.0, ge=0)
    rate: float = Field(default=5e-4, gt=0)
    rank: int = Field(default=4, ge=1, le=MAX_RANK)
    layers: LayerField = "upper 18"

    def layer_numbers(self, depth: int) -> list[int]:
        """List the adapted layers of a model that has ``depth``; ConfigError if it lacks one."""
        return _layer_numbers(self.layers, depth, "generation.layers")


class TrainingConfig(ReadingConfig):
    """One training run.

    Attributes
    ----------
    data, examples, model, out
        The log (what `load_dataset` takes), the folder of its examples (what
        finetune/make_dataset.py wrote), the base model, and the folder to write.
    period, repeat, columns, separator, dates, noun, person, verb, keep_bots, keep_outliers,
    clusters
        How the log is read, see `ReadingOptions`; default: as the examples were made.
    seed
        Of everything drawn at random.
    template, budget
        Prompt version, and positions that a prompt may have.
    epochs, max_minutes
        Length of the run; with ``max_minutes`` it ends by then, and so does its schedule. A second
        run for lines has as many minutes again.
    batch_positions, gradient_accumulation
        Positions in a batch, padding included, and batches in an optimizer step.
    learning_rate, head_learning_rate, warmup_steps, weight_decay, max_grad_norm
        Of AdamW: peak learning rates of the adapter and of the category head, steps of their linear
        rise, decay, and the norm that gradients are clipped to (0: not at all).
    depth
        Layers of a decoder that score categories, and that LoRA adapts; None: all of them.
    lora, head_rank, titles
        Sizes of what is trained.
    line_weight, line_share, generation
        Weight of the line's loss, share of the sequences that carry a line, and the second run that
        trains lines alone.
    label_renaming
        Share of the sequences in which categories have random names, see `TimelineBatches`.
    validation_windows
        Windows of each validation; drawn once, if there are more.
    keep_checkpoint
        Whether the parameters of "best" validation are kept, or the "last" ones: windows that the
        model was trained on cannot choose.
    evaluate_every, save_every, keep, patience
        Optimizer steps between validations and between checkpoints, number of checkpoints beside
        the best, and of validations without a better log-loss that end the run.
    calibration_windows
        Windows that the calibration is fitted on.
    device, dtype, quantize, gradient_checkpointing
        Where and in which precision. "auto" takes a GPU, and bfloat16 on it, where there is one.
    report_to
        Services that follow the run, such as ``[tensorboard]``.
    """

    model_config = _STRICT_CONFIG

    data: str = "ml-100k"
    examples: str = "examples/ml-100k"
    model: str = "smollm2-135m"
    out: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    template: str = "forecast-v3"
    budget: int = Field(default=130, ge=1, le=MAX_INTEGER)
    epochs: float = Field(default=3.0, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    batch_positions: int = Field(default=1024, ge=1, le=MAX_INTEGER)
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=30, ge=0)
    # AdamW holds every parameter below 1 / weight_decay.
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, ge=0)
    lora: LoraConfig = LoraConfig()
    depth: int | None = Field(default=None, ge=1)
    head_rank: int = Field(default=64, ge=1, le=MAX_RANK)
    titles: TitlesConfig = TitlesConfig()
    line_weight: float = Field(default=0.1, ge=0)
    line_share: float = Field(default=0.25, ge=0, le=1)
    generation: LineTrainingConfig = LineTrainingConfig()
    label_renaming: float = Field(default=0.0, ge=0, le=1)
    validation_windows: int = Field(default=600, ge=1)
    keep_checkpoint: Literal["best", "last"] = "best"
    evaluate_every: int = Field(default=100, ge=1)
    save_every: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1)
    patience: int = Field(default=5, ge=1)
    calibration_windows: int = Field(default=500, ge=50)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantize: Literal["4bit", "8bit"] | None = None
    gradient_checkpointing: bool = False
    report_to: Annotated[tuple[str, ...], Field(strict=False)] = ()


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a YAML file, and flags over it.

    Parameters
    ----------
    path
        The file.
    overrides
        Flags such as ``["--learning_rate", "2e-4", "--lora.rank", "8"]``; the later of two wins.

    Raises
    ------
    ConfigError
        If the file or a flag cannot be read, or a field is unknown or of a wrong type or range.
    """
    return load_typed(TrainingConfig, Path(path), overrides)


def load_command_config(description: str | None) -> TrainingConfig:
    """Read the config that a script was called with: a YAML file, and flags over it.

    With --help, or without a file, it prints the description and all flags, and exits.
    """
    arguments = sys.argv[1:]
    if arguments and not {"-h", "--help"} & set(arguments):
        return load_config(arguments[0], arguments[1:])
    print(f"{description}\n{argument_parser(TrainingConfig).format_help()}")
    sys.exit(0 if arguments else 2)


def scoring_config(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that trains scores, which does not depend on the run for lines."""
    return config.model_copy(update={"generation": LineTrainingConfig()})


def generation_config(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that trains lines."""
    return config.model_copy(
        update={"epochs": config.generation.epochs, "learning_rate": config.generation.rate}
    )
