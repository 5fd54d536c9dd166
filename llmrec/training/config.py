"""The settings of a training run: typed, read from YAML, with a flag for every field."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from llmrec.errors import MissingExtraError

try:
    import yaml
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        PlainSerializer,
        PlainValidator,
        ValidationError,
    )
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.errors import DataError
from llmrec.versions import CONFIG_KEYS, renamed_keys

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(DataError):
    """A config that cannot be used; the message names file, field, value and what is allowed."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, in which 1e-3 would be a text, with the numbers of YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def argument_parser(model: type[BaseModel]) -> argparse.ArgumentParser:
    """Make a parser that knows ``--FIELD VALUE`` for every field; values are written as in YAML."""
    parser = argparse.ArgumentParser(allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, default in _fields(model):
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"default: {default}")
    return parser


def load_typed(model: type[Model], path: Path, overrides: Sequence[str]) -> Model:
    """Read a YAML file as a model, and flags over it; ConfigError tells every mistake."""
    values, flags = _read(path), _flags(model, overrides)
    for old, new in CONFIG_KEYS.items():
        if old in values and new in values:
            raise ConfigError(f"{path}: {old} is the name that {new} had in 0.1: give one of them")
    values = renamed_keys(values, CONFIG_KEYS)
    for name, value in flags.items():
        *group, field = name.split(".")
        inner = values
        for key in group:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {key} is {inner!r}; it should hold fields of its own")
        inner[field] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        told = [_told(model, fault, str(path), flags) for fault in error.errors()]
        raise ConfigError("\n".join(told)) from error


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List dotted names and defaults of the fields, those of groups included."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _fields(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "none" if field.is_required() else field.default


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is no YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} should hold `field: value` lines, not {values!r}")
    return values


def _flags(model: type[BaseModel], overrides: Sequence[str]) -> dict[str, Any]:
    parser = argument_parser(model)
    parser.exit_on_error = False
    try:
        found, strange = parser.parse_known_args([_renamed_flag(text) for text in overrides])
    except argparse.ArgumentError as error:
        raise ConfigError(f"flag {error.argument_name}: {error.message}") from error
    if strange:
        name = strange[0].removeprefix("--").partition("=")[0]
        raise ConfigError(f"flag {strange[0]!r} is unknown{_near(model, name)}")
    return {name: _value(model, name, text) for name, text in vars(found).items()}


def _renamed_flag(text: str) -> str:
    """Give a flag of version 0.1 its name of today: --lines.epochs is --generation.epochs."""
    return re.sub(r"^--([a-z_]+)", lambda name: f"--{CONFIG_KEYS.get(name[1], name[1])}", text)


def _value(model: type[BaseModel], name: str, text: str) -> Any:
    if "." not in name and model.model_fields[name].annotation is str:
        return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"flag --{name} is {text!r}, which is no YAML value") from error


def _told(
    model: type[BaseModel], fault: Mapping[str, Any], path: str, flags: Mapping[str, Any]
) -> str:
    """Say one fault that pydantic found as: where, field, value, what is allowed."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    flag = next((flag for flag in flags if name == flag or name.startswith(f"{flag}.")), None)
    where = f"flag --{flag}" if flag else path
    if fault["type"] == "extra_forbidden":
        return f"{where}: no field is called {name!r}{_near(model, name)}"
    if fault["type"] == "missing":
        return f"{where}: {name} is not given; write it, or --{name} VALUE"
    allowed = fault["msg"].replace("Input should", "it should").replace("Value error,", "it")
    return f"{where}: {name} is {fault['input']!r}; {allowed}"


def _near(model: type[BaseModel], name: str) -> str:
    names = [known for known, _ in _fields(model)]
    last = {known.rpartition(".")[2]: known for known in names}
    close = difflib.get_close_matches(name, names, 1) or [
        last[match] for match in difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    ]
    return f"; is {close[0]!r} meant?" if close else f"; there is {', '.join(names)}"


_FROZEN = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
LayerSpec = str | tuple[int, ...]


def _layers(value: Any) -> LayerSpec:
    if isinstance(value, str) and re.fullmatch(r"all|upper [1-9]\d*", value):
        return value
    numbers = value if isinstance(value, list | tuple) else []
    if numbers and all(type(number) is int and number >= 0 for number in numbers):
        return tuple(sorted(set(numbers)))
    raise ValueError("should be all, upper N, or a list of layer numbers from 0")


def _as_is(value: Any) -> Any:
    return value


LayerField = Annotated[LayerSpec, PlainValidator(_layers), PlainSerializer(_as_is)]


def _chosen(layers: LayerSpec, depth: int, field: str) -> list[int]:
    if layers == "all":
        return list(range(depth))
    if isinstance(layers, str):
        chosen = list(range(depth - int(layers.removeprefix("upper ")), depth))
    else:
        chosen = list(layers)
    if chosen[0] < 0 or chosen[-1] >= depth:
        raise ConfigError(f"{field} is {layers!r}; the model has {depth} layers")
    return chosen


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

    model_config = _FROZEN

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    layers: LayerField = "all"

    def chosen_layers(self, depth: int) -> list[int]:
        """List the adapted layers of a model that has ``depth``; ConfigError if it lacks one."""
        return _chosen(self.layers, depth, "lora.layers")


class TitlesConfig(BaseModel):
    """What is learned of titles beyond their words, see `TitleEmbeddings`.

    Attributes
    ----------
    rank, dropout
        Size of a title's vector (0: there are none), and share of the titles that are read by their
        words alone.
    rate, weight
        Peak learning rate, and weight of the loss of the titles that are taken next.
    """

    model_config = _FROZEN

    rank: int = Field(default=0, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    rate: float = Field(default=3e-3, gt=0)
    weight: float = Field(default=0.3, ge=0)


class LinesConfig(BaseModel):
    """How lines are learned once reading is: by LoRA in layers that are not read through.

    Attributes
    ----------
    epochs, rate
        Length (0: not at all) and peak learning rate of this second run.
    rank, layers
        Of its LoRA, as in `LoraConfig`, which also says which matrices.
    """

    model_config = _FROZEN

    epochs: float = Field(default=0.0, ge=0)
    rate: float = Field(default=5e-4, gt=0)
    rank: int = Field(default=4, ge=1)
    layers: LayerField = "upper 18"

    def chosen_layers(self, depth: int) -> list[int]:
        """List the adapted layers of a model that has ``depth``; ConfigError if it lacks one."""
        return _chosen(self.layers, depth, "lines.layers")


class TrainingConfig(BaseModel):
    """One training run.

    Attributes
    ----------
    data, examples, model, out
        The log (what `load_dataset` takes), its examples (what finetune/pairs.py wrote), the base
        model, and the folder to write.
    seed
        Of everything drawn at random.
    template, budget
        Prompt version, and positions that a prompt may have.
    epochs, max_minutes
        Length of the run; with ``minutes`` it ends, schedule and all, by then. Lines, if they are
        learned afterwards, have as many minutes again.
    batch_positions, gradient_accumulation
        Positions in a batch, padding included, and batches in an optimizer step.
    learning_rate, head_learning_rate, warmup_steps, weight_decay, max_grad_norm
        Of AdamW: peak learning rates of the adapter and of the readout, their linear rise, decay,
        and the norm that gradients are cut to (0: not at all).
    depth
        Layers of a decoder after which it is read, and below which LoRA lies; None: all of them.
    lora, head_rank, titles
        Sizes of what is trained.
    line_weight, line_share, generation
        Weight of the written line's loss, and share of the sequences that carry a line; and how
        lines are learned afterwards.
    label_renaming
        Share of the sequences in which categories have made-up names, see `TimelineBatches`.
    validation_windows
        Windows that are read at each validation; drawn once, if there are more.
    keep_checkpoint
        Whether the parameters of "best" validation are kept, or the "last" ones: what was learned
        from cannot decide.
    evaluate_every, save_every, keep, patience
        Optimizer steps between validations and between checkpoints, how many checkpoints stay
        beside the best, and the validations without a better log-loss that end the run.
    calibration_windows
        Windows that the calibration is fitted on.
    device, dtype, quantize, gradient_checkpointing
        Where and in which precision. "auto" takes a GPU, and bfloat16 on it, where there is one.
    report_to
        What else follows the run, such as ``[tensorboard]``.
    """

    model_config = _FROZEN

    data: str = "ml-100k"
    examples: str = "pairs/ml-100k"
    model: str = "smollm2-135m"
    out: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    template: str = "forecast-v3"
    budget: int = Field(default=130, ge=1)
    epochs: float = Field(default=3.0, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    batch_positions: int = Field(default=1024, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=30, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    lora: LoraConfig = LoraConfig()
    depth: int | None = Field(default=None, ge=1)
    head_rank: int = Field(default=64, ge=1)
    titles: TitlesConfig = TitlesConfig()
    line_weight: float = Field(default=0.1, ge=0)
    line_share: float = Field(default=0.25, ge=0, le=1)
    generation: LinesConfig = LinesConfig()
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
        Flags such as ``["--rate", "2e-4", "--lora.rank", "8"]``; of two the later wins.

    Raises
    ------
    ConfigError
        If the file or a flag cannot be read, or a field is unknown or of a wrong type or range.
    """
    return load_typed(TrainingConfig, Path(path), overrides)


def scoring_config(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that teaches reading, which does not hang on the later one's."""
    return config.model_copy(update={"generation": LinesConfig()})


def generation_config(config: TrainingConfig) -> TrainingConfig:
    """Give the config of the run that teaches lines."""
    return config.model_copy(
        update={"epochs": config.generation.epochs, "learning_rate": config.generation.rate}
    )
