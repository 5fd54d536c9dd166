"""A training with a fault is stopped by an error that names it, before it has spent three steps.

Each case has one fault of `training_faults` in an otherwise good run of finetune/lora.py. The same
checks must be silent about what is good: every config that is shipped, and a run that was killed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmrec.errors import LlmrecError
from llmrec.language import codec as codecs
from llmrec.training import loop, trainer
from llmrec.training.config import load_config
from llmrec.training.pretrain import NEW_MODELS
from tests.finetune import test_recipes as recipes
from tests.finetune.test_pretrain import write_log as write_plain_log
from tests.hostile.conftest import Count
from tests.hostile.training_faults import FAULTS, Bench, Fault, Flags, hold_folder
from tests.language.tiny_models import save_llama, save_t5

STEPS = 3  # that a fault may cost
SOME = 6  # every so many-th fault is in the fast suite
REAL_CONFIGS = ("tiny-cpu", "small", "smollm2-135m-ml-100k", "smollm2-135m-completejourney")
FAULT_CASES = [
    pytest.param(*fault, id=fault[0], marks=[] if number % SOME == 0 else [pytest.mark.hostile])
    for number, fault in enumerate(FAULTS)
]
CONFIG_CASES = [
    pytest.param(path, id=path.stem, marks=[] if number % 4 == 0 else [pytest.mark.hostile])
    for number, path in enumerate(recipes.MODEL_CONFIGS)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a log, tiny models and examples."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        recipes.write_log(folder / "tiny")
        save_llama(folder / "llama", num_hidden_layers=7, max_position_embeddings=1024)
        flags = ("--data", "tiny", "--model", "llama", "--out", "examples")
        recipes.run("make_dataset", *flags)
    return folder


@pytest.fixture
def bench(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Copy the good folder, and go there."""
    folder = shutil.copytree(place, tmp_path / "place")
    monkeypatch.chdir(folder)
    made = Bench(folder, monkeypatch, start)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    monkeypatch.undo()
    codecs.load_template.cache_clear()


def start(recipe: str, *flags: object) -> dict[str, Any]:
    """Run a recipe, lora.py on the good examples."""
    if recipe != "lora":
        return recipes.run(recipe, *flags)
    fixed = ("--data", "tiny", "--model", "llama", "--examples", "examples", "--out", "out")
    short = ("--epochs", 1, "--evaluate_every", 1000, "--save_every", 1000)
    return recipes.run("lora", recipes.TINY, *fixed, *short, *flags)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the steps of trainings."""
    found: list[int] = []
    step = trainer.BatchTrainer.training_step

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        found.append(self.state.global_step)
        return step(self, *arguments, **options)

    monkeypatch.setattr(trainer.BatchTrainer, "training_step", counted)
    return found


@pytest.mark.parametrize(("name", "message", "fault"), FAULT_CASES)
def test_a_fault_is_stopped_by_name_before_three_steps(
    bench: Bench, steps: list[int], count: Count, name: str, message: str, fault: Fault
) -> None:
    stopped: LlmrecError | None = None
    try:
        flags: Flags = fault(bench) or ()
        bench.start("lora", *flags)
    except LlmrecError as error:
        stopped = error
    is_named = stopped is not None and re.search(message, " ".join(str(stopped).split()))
    is_early = len(steps) <= STEPS and not (bench.folder / "out" / "adapter").exists()
    count("training faults stopped by name", 1, int(not (is_named and is_early)))
    assert stopped is not None, f"{name}: the training ended as if all were well"
    assert is_named, str(stopped)
    assert len(steps) <= STEPS
    assert is_early


class Started(Exception):
    """Every check has been passed."""


def stop_at_training(monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> list[Any]:
    """Raise `Started` instead of training, or after it; give a list that its history is put in."""
    histories, train = [], loop.train

    def stop(*arguments: Any) -> None:
        if after:
            histories.append(train(*arguments))
        raise Started

    monkeypatch.setattr(loop, "train", stop)
    return histories


@pytest.mark.parametrize("config", CONFIG_CASES)
def test_no_shipped_config_raises_an_alarm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, count: Count, config: Path
) -> None:
    values = load_config(config)
    flags: list[object] = ["--out", "other", "--device", "cpu", "--dtype", "float32"]
    flags += ["--quantize", "null", "--report_to", "[]", "--epochs", max(9.0, values.epochs)]
    if values.model in NEW_MODELS:
        write_plain_log(bench.folder / "log.csv", 0, "Old")
        recipe, data = "pretrain", ["--data", "log.csv", "--examples", "pretraining"]
    else:
        recipe, data = "lora", ["--data", "tiny", "--examples", "made"]
        tiny = next(
            name for start, name in recipes.FAMILIES.items() if values.model.startswith(start)
        )
        if tiny == "t5":
            save_t5(bench.folder / "t5", feed_forward_proj="gated-gelu")
        elif tiny == "qwen3":
            recipes.save_qwen3(bench.folder / "qwen3")
        data += ["--model", tiny, "--generation.layers", "upper 1"]
        size = ["--budget", values.budget, "--template", values.template]
        recipes.run("make_dataset", "--data", "tiny", "--model", tiny, "--out", "made", *size)
    stop_at_training(monkeypatch)
    alarm: LlmrecError | None = None
    try:
        recipes.run(recipe, config, *data, *flags)
    except Started:
        pass
    except LlmrecError as error:
        alarm = error
    count("false alarms on shipped configs", 1, int(alarm is not None))
    assert alarm is None, str(alarm)


@pytest.fixture(scope="module")
def real_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make examples of fifty people of each embedded log."""
    folder = tmp_path_factory.mktemp("real")
    for data in ("ml-100k", "completejourney"):
        flags = ("--data", data, "--people", 50, "--out", folder / data)
        recipes.run("make_dataset", *flags)
    return folder


@pytest.mark.hostile
@pytest.mark.parametrize("name", REAL_CONFIGS)
def test_no_shipped_config_raises_an_alarm_with_its_real_model_and_log(
    tmp_path: Path,
    real_examples: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: Count,
    name: str,
) -> None:
    config = recipes.CONFIGS / f"{name}.yaml"
    stop_at_training(monkeypatch)
    alarm: LlmrecError | None = None
    try:
        examples = real_examples / load_config(config).data
        recipes.run("lora", config, "--examples", examples, "--out", tmp_path)
    except Started:
        pass
    except LlmrecError as error:
        alarm = error
    count("false alarms on shipped configs", 1, int(alarm is not None))
    assert alarm is None, str(alarm)


def test_a_good_training_passes_every_check_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, steps: list[int], count: Count
) -> None:
    (history,) = train_whole(bench, monkeypatch, "--line_share", 0.5)
    count("false alarms on a good training", 1)
    assert history.steps == len(steps) > STEPS


def test_the_lock_of_a_killed_training_blocks_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    process = hold_folder(bench.folder / "out" / "run")
    process.kill()
    process.wait()
    (history,) = train_whole(bench, monkeypatch)
    count("false alarms of the lock after a kill", 1)
    assert history.stopped == "all steps are done"


def train_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch, *flags: object) -> list[Any]:
    histories = stop_at_training(monkeypatch, after=True)
    with pytest.raises(Started):
        bench.start("lora", *flags)
    return histories
