"""Configs of training runs: YAML, flags, names of version 0.1, and the errors of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llmrec.data.options import READING_FIELDS, ReadingOptions
from llmrec.data.versions import CONFIG_KEYS
from llmrec.errors import TrainingError
from llmrec.training.config import (
    LineTrainingConfig,
    LoraConfig,
    TitlesConfig,
    TrainingConfig,
    load_config,
)
from llmrec.training.reading_config import ReadingConfig
from llmrec.training.trainer import check_device
from llmrec.training.typed_config import ConfigError, argument_parser


def write_config(folder: Path, text: str = "out: here\n") -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_changes_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    text = "out: here\nlearning_rate: 1e-3\nepochs: 2\nlora:\n  rank: 8\n  layers: upper 4\n"
    config = load_config(write_config(tmp_path, text))
    assert (config.out, config.learning_rate, config.epochs) == ("here", 0.001, 2.0)
    assert config.lora == LoraConfig(rank=8, layers="upper 4")
    assert config.budget == TrainingConfig(out="here").budget == 130


def test_a_flag_wins_over_the_file_and_the_later_flag_over_the_earlier(tmp_path: Path) -> None:
    path = write_config(tmp_path, "out: here\nlearning_rate: 0.5\nlora: {rank: 2, alpha: 4}\n")
    flags = ["--learning_rate", "2e-4", "--lora.rank=8", "--learning_rate", "3e-4"]
    flags += ["--model", "123", "--out", "1e3", "--lora.layers", "[3, 1]", "--max_minutes", "null"]
    config = load_config(path, flags)
    assert (config.learning_rate, config.model, config.out) == (3e-4, "123", "1e3")
    assert config.lora == LoraConfig(rank=8, alpha=4, layers=(1, 3))


def test_every_field_is_a_flag() -> None:
    flags = {action.dest for action in argument_parser(TrainingConfig)._actions} - {"help"}
    parts = {"lora": LoraConfig, "titles": TitlesConfig, "generation": LineTrainingConfig}
    groups = {f"{part}.{name}" for part, config in parts.items() for name in config.model_fields}
    assert flags == set(TrainingConfig.model_fields) - parts.keys() | groups


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rank: 8", ["'rank'", "'lora.rank' meant"]),
        ("evalute_every: 8", ["'evalute_every'", "'evaluate_every' meant"]),
        ("lora: {layer: all}", ["'lora.layer'", "'lora.layers' meant"]),
        ("learning_rate: fast", ["learning_rate is 'fast'", "number"]),
        ("learning_rate: .nan", ["learning_rate is nan", "finite"]),
        ("epochs: 0", ["epochs is 0", "greater than 0"]),
        ("seed: 1.0", ["seed is 1.0", "integer"]),
        ("seed: yes", ["seed is True", "integer"]),
        ("dtype: half", ["dtype is 'half'", "'bfloat16'"]),
        ("lora: {targets: q_proj}", ["lora.targets is 'q_proj'", "tuple"]),
        ("lora: {layers: top 4}", ["lora.layers is 'top 4'", "upper N"]),
        ("lora: {layers: upper 1000000000}", ["lora.layers is 'upper 1000000000'", "upper N"]),
        ("lora: {layers: [512]}", ["lora.layers is [512]", "0 to 511"]),
        ("lora: {rank: 1000000000}", ["lora.rank is 1000000000", "1024"]),
        ("lora: {alpha: 1e9}", ["lora.alpha is 1000000000.0", "1000000"]),
        ("head_rank: 1000000000", ["head_rank is 1000000000", "1024"]),
        ("titles: {rank: 1000000000}", ["titles.rank is 1000000000", "1024"]),
        ("generation: {rank: 1000000000}", ["generation.rank is 1000000000", "1024"]),
        ("batch_positions: 1000000000000", ["batch_positions is 1000000000000", "16777216"]),
        ("lora: 8", ["lora is 8"]),
        ("report_to: [1]", ["report_to.0 is 1", "string"]),
        ("- 1", ["field: value"]),
        ("learning_rate: [1", ["no YAML"]),
    ],
)
def test_the_error_of_a_mistake_has_file_field_value_and_what_is_allowed(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    path = write_config(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["--out", "here"])
    assert all(words in str(caught.value) for words in [str(path), *expected]), str(caught.value)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--learning_rte", "1"], "'--learning_rte' is unknown; is 'learning_rate' meant?"),
        (["--learning_rate", "fast"], "flag --learning_rate: learning_rate is 'fast'"),
        (["--learning_rate"], "expected one argument"),
        (["--lora.layers", "[1"], "no YAML value"),
        (["fast"], "'fast' is unknown"),
        (["--lora.rank", "0"], "flag --lora.rank: lora.rank is 0"),
    ],
)
def test_the_error_of_a_wrong_flag_names_it(
    tmp_path: Path, flags: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=r"flag") as caught:
        load_config(write_config(tmp_path), flags)
    assert expected in str(caught.value)


def test_one_error_lists_all_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, "learning_rate: x\nkeep: 0\n"))
    assert [line.split(": ")[1].split()[0] for line in str(caught.value).splitlines()] == [
        "out",
        "learning_rate",
        "keep",
    ]


OLD_VALUES = {
    "pairs": "pairs/mine",
    "rate": 0.5,
    "readout_rate": 0.25,
    "readout_rank": 3,
    "renamed": 0.75,
    "lines": {"epochs": 2.0, "rank": 5},
    "select": "last",
    "minutes": 7.0,
}


def test_a_file_with_the_keys_of_0_1_gives_the_same_config_as_one_with_todays(
    tmp_path: Path,
) -> None:
    assert OLD_VALUES.keys() == CONFIG_KEYS.keys()
    new_values = {CONFIG_KEYS[old]: value for old, value in OLD_VALUES.items()}
    configs = []
    for values in (OLD_VALUES, new_values):
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
        configs.append(load_config(write_config(tmp_path, f"out: here\n{text}")))
    assert configs[0] == configs[1]
    fields = {field for field in CONFIG_KEYS.values() if field != "generation"}
    assert {field: getattr(configs[0], field) for field in fields} == {
        field: new_values[field] for field in fields
    }
    assert configs[0].generation == LineTrainingConfig(epochs=2.0, rank=5)


@pytest.mark.parametrize("old", CONFIG_KEYS)
def test_a_key_of_0_1_beside_the_one_of_today_is_an_error(tmp_path: Path, old: str) -> None:
    new, value = CONFIG_KEYS[old], json.dumps(OLD_VALUES[old])
    path = write_config(tmp_path, f"out: here\n{old}: {value}\n{new}: {value}\n")
    with pytest.raises(ConfigError, match=rf"run\.yaml: {old} is the name that {new} had in 0\.1"):
        load_config(path)


def test_a_flag_of_0_1_is_the_one_of_today_and_wins_over_the_file_by_either_name(
    tmp_path: Path,
) -> None:
    flags = ["--pairs", "pairs/mine", "--rate=0.5", "--lines.epochs", "2", "--lines.layers=all"]
    today = ["--examples", "pairs/mine", "--learning_rate=0.5", "--generation.epochs", "2"]
    today += ["--generation.layers=all"]
    for text in ("out: here\n", "out: here\nrate: 3\n", "out: here\nlearning_rate: 3\n"):
        path = write_config(tmp_path, text)
        assert load_config(path, flags) == load_config(path, today)
        assert load_config(path, flags).learning_rate == 0.5
    assert load_config(path, ["--rate", "1", "--learning_rate", "2"]).learning_rate == 2
    assert load_config(path, flags).examples == "pairs/mine"
    with pytest.raises(ConfigError, match=r"flag --learning_rate: learning_rate is 'fast'"):
        load_config(path, ["--rate", "fast"])


def test_a_key_of_0_1_is_no_field_inside_a_group(tmp_path: Path) -> None:
    path = write_config(tmp_path, "out: here\nlora: {minutes: 3}\n")
    with pytest.raises(ConfigError, match=r"no field is called 'lora\.minutes'"):
        load_config(path)


def test_how_the_log_is_read_is_said_in_the_file_or_by_flags_as_on_the_command_line(
    tmp_path: Path,
) -> None:
    path = write_config(tmp_path, "out: x\nperiod: 7D\ncolumns: {user: who}\nkeep_bots: true\n")
    expected = ReadingOptions(period="7D", columns={"user_id": "who"}, keep_bots=True)
    assert load_config(path).reading == expected
    flags = ["--columns", '"user=the, one"', "--separator", ",", "--keep-outliers"]
    flags += ["--dates", "%d.%m.%Y", "--keep_bots", "false"]
    assert load_config(path, flags).reading == ReadingOptions(
        period="7D",
        columns={"user_id": "the, one"},
        separator=",",
        dates="%d.%m.%Y",
        keep_outliers=True,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--period", "0D"], "flag --period: period '0D' is not understood; write '28D'"),
        (["--columns", "usr=a"], "flag --columns: 'usr' is none of our columns"),
        (["--keep-bots", "maybe"], "flag --keep_bots: 'maybe' is neither true nor false"),
    ],
)
def test_a_wrong_way_to_read_a_log_is_refused_as_on_the_command_line(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path), flags)
    assert str(caught.value).startswith(message)
    name, value = flags[0].removeprefix("--").replace("-", "_"), flags[1]
    path = write_config(tmp_path, f"out: here\n{name}: {value}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(message.replace(f"flag --{name}", f"{path}: {name}"))


def test_the_fields_of_reading_are_those_of_the_command_line() -> None:
    assert list(ReadingConfig.model_fields) == list(READING_FIELDS)
    defaults = {name: field.default for name, field in ReadingConfig.model_fields.items()}
    assert defaults == {name: option.default for name, option in READING_FIELDS.items()}


def test_a_config_that_does_not_say_how_to_read_is_stored_as_by_earlier_versions() -> None:
    config = TrainingConfig(out="here", noun="books", columns={"user": "who"})
    stored = config.model_dump(mode="json", exclude={"seed"})
    assert stored.keys() & READING_FIELDS.keys() == {"noun", "columns"}
    assert "seed" not in stored
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_a_hyphen_will_do_for_an_underscore_in_a_flag(tmp_path: Path) -> None:
    flags = ["--learning-rate", "0.5", "--gradient-checkpointing", "--lora.rank", "3"]
    config = load_config(write_config(tmp_path), flags)
    assert (config.learning_rate, config.gradient_checkpointing) == (0.5, True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_a_group_given_as_a_value_cannot_take_a_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora is 8"):
        load_config(write_config(tmp_path, "out: here\nlora: 8\n"), ["--lora.rank", "8"])


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainingConfig(out="here").learning_rate = 1.0  # type: ignore[misc]


@pytest.mark.filterwarnings("error")
def test_a_config_survives_json() -> None:
    config = TrainingConfig(out="here", lora=LoraConfig(layers=(1, 2)), report_to=("tensorboard",))
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


def test_layers_are_counted_from_the_output() -> None:
    assert LoraConfig().layer_numbers(3) == [0, 1, 2]
    assert LoraConfig(layers="upper 2").layer_numbers(5) == [3, 4]
    assert LoraConfig(layers=[4, 0]).layer_numbers(5) == [0, 4]
    for layers in ("upper 6", [5]):
        with pytest.raises(ConfigError, match="has 5 layers"):
            LoraConfig(layers=layers).layer_numbers(5)


@pytest.mark.parametrize(
    "values",
    [{"device": "cuda"}, {"quantize": "4bit"}, {"dtype": "bfloat16"}, {"dtype": "float16"}],
)
def test_a_config_that_needs_a_gpu_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = TrainingConfig(out="here", **values)
    with pytest.raises(TrainingError, match=f"{next(iter(values))} is .* needs a GPU"):
        check_device(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device(config)


def test_a_run_on_the_processor_cannot_be_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(TrainingError, match="device is 'cpu'"):
        check_device(TrainingConfig(out="here", device="cpu", quantize="8bit"))
    check_device(TrainingConfig(out="here", device="cpu"))
