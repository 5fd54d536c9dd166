"""Configs of training runs: what is read, what flags change, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmrec.errors import TrainingError
from llmrec.training.config import (
    ConfigError,
    LinesConfig,
    LoraConfig,
    TitlesConfig,
    TrainingConfig,
    argument_parser,
    load_config,
)
from llmrec.training.trainer import check_device


def written(folder: Path, text: str = "out: here\n") -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_changes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    text = "out: here\nrate: 1e-3\nepochs: 2\nlora:\n  rank: 8\n  layers: upper 4\n"
    config = load_config(written(tmp_path, text))
    assert (config.out, config.learning_rate, config.epochs) == ("here", 0.001, 2.0)
    assert config.lora == LoraConfig(rank=8, layers="upper 4")
    assert config.budget == TrainingConfig(out="here").budget == 130


def test_a_flag_wins_over_the_file_and_the_later_flag_over_the_earlier(tmp_path: Path) -> None:
    path = written(tmp_path, "out: here\nrate: 0.5\nlora: {rank: 2, alpha: 4}\n")
    flags = ["--rate", "2e-4", "--lora.rank=8", "--rate", "3e-4", "--model", "123", "--out", "1e3"]
    config = load_config(path, [*flags, "--lora.layers", "[3, 1]", "--minutes", "null"])
    assert (config.learning_rate, config.model, config.out) == (3e-4, "123", "1e3")
    assert config.lora == LoraConfig(rank=8, alpha=4, layers=(1, 3))


def test_every_field_is_a_flag() -> None:
    flags = {action.dest for action in argument_parser(TrainingConfig)._actions} - {"help"}
    parts = {"lora": LoraConfig, "titles": TitlesConfig, "lines": LinesConfig}
    groups = {f"{part}.{name}" for part, config in parts.items() for name in config.model_fields}
    assert flags == set(TrainingConfig.model_fields) - parts.keys() | groups


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rank: 8", ["'rank'", "'lora.rank' meant"]),
        ("evalute_every: 8", ["'evalute_every'", "'evaluate_every' meant"]),
        ("lora: {layer: all}", ["'lora.layer'", "'lora.layers' meant"]),
        ("rate: fast", ["rate is 'fast'", "number"]),
        ("rate: .nan", ["rate is nan", "finite"]),
        ("epochs: 0", ["epochs is 0", "greater than 0"]),
        ("seed: 1.0", ["seed is 1.0", "integer"]),
        ("seed: yes", ["seed is True", "integer"]),
        ("dtype: half", ["dtype is 'half'", "'bfloat16'"]),
        ("lora: {targets: q_proj}", ["lora.targets is 'q_proj'", "tuple"]),
        ("lora: {layers: top 4}", ["lora.layers is 'top 4'", "upper N"]),
        ("lora: 8", ["lora is 8"]),
        ("report_to: [1]", ["report_to.0 is 1", "string"]),
        ("- 1", ["field: value"]),
        ("rate: [1", ["no YAML"]),
    ],
)
def test_a_mistake_is_told_with_file_field_value_and_what_is_allowed(
    tmp_path: Path, text: str, told: list[str]
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["--out", "here"])
    assert all(words in str(caught.value) for words in [str(path), *told]), str(caught.value)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rte", "1"], "'--rte' is unknown; is 'rate' meant?"),
        (["--rate", "fast"], "flag --rate: rate is 'fast'"),
        (["--rate"], "expected one argument"),
        (["--lora.layers", "[1"], "no YAML value"),
        (["fast"], "'fast' is unknown"),
        (["--lora.rank", "0"], "flag --lora.rank: lora.rank is 0"),
    ],
)
def test_a_wrong_flag_is_told(tmp_path: Path, flags: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=r"flag") as caught:
        load_config(written(tmp_path), flags)
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, "rate: x\nkeep: 0\n"))
    assert [line.split(": ")[1].split()[0] for line in str(caught.value).splitlines()] == [
        "out",
        "rate",
        "keep",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_group_given_as_a_value_cannot_take_a_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora is 8"):
        load_config(written(tmp_path, "out: here\nlora: 8\n"), ["--lora.rank", "8"])


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainingConfig(out="here").learning_rate = 1.0  # type: ignore[misc]


@pytest.mark.filterwarnings("error")
def test_a_config_survives_json() -> None:
    config = TrainingConfig(out="here", lora=LoraConfig(layers=(1, 2)), report_to=("tensorboard",))
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_layers_are_counted_from_the_output() -> None:
    assert LoraConfig().chosen_layers(3) == [0, 1, 2]
    assert LoraConfig(layers="upper 2").chosen_layers(5) == [3, 4]
    assert LoraConfig(layers=[4, 0]).chosen_layers(5) == [0, 4]
    for layers in ("upper 6", [5]):
        with pytest.raises(ConfigError, match="has 5 layers"):
            LoraConfig(layers=layers).chosen_layers(5)


@pytest.mark.parametrize(
    "asked",
    [{"device": "cuda"}, {"quantize": "4bit"}, {"dtype": "bfloat16"}, {"dtype": "float16"}],
)
def test_a_gpu_that_is_asked_for_and_absent_is_told(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = TrainingConfig(out="here", **asked)
    with pytest.raises(TrainingError, match=f"{next(iter(asked))} is .* needs a GPU"):
        check_device(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device(config)


def test_a_run_on_the_processor_cannot_be_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(TrainingError, match="device is 'cpu'"):
        check_device(TrainingConfig(out="here", device="cpu", quantize="8bit"))
    check_device(TrainingConfig(out="here", device="cpu"))
