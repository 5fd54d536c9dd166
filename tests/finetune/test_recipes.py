"""The recipes are run whole, as a user would, on a log of sixty people and models of a few weights.

Every config is a dry run of lora.py with a model of its own family; what is wrong is told by name;
and a run that was killed ends as one that was not.
"""

from __future__ import annotations

import errno
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from llmrec import DataError, InterestEngine, load_dataset
from llmrec.engine_config import EngineSettings
from llmrec.errors import LlmrecError, ModelLoadError, TrainingError
from llmrec.language.adapters import ADAPTER_FILE, SEEN_METRICS, AdapterMetadata
from llmrec.language.model import LanguageModel
from llmrec.ranking.registry import LM_SCORER
from llmrec.training.config import ConfigError, TrainingConfig, load_config
from llmrec.training.pretrain import NEW_MODELS
from tests import worlds
from tests.language.tiny_models import byte_level_tokenizer, save_llama, save_t5

ROOT = Path(__file__).parents[2]
FINETUNE, CONFIGS = ROOT / "finetune", ROOT / "finetune" / "configs"
TINY, AGAIN = CONFIGS / "tiny-cpu.yaml", Path("again")
# The configs of the other training recipe start with a model that is not there.
OF_LORA = sorted(
    path for path in CONFIGS.glob("*.yaml") if load_config(path).model not in NEW_MODELS
)
# Base models by how their names start, and the tiny one that stands for each.
FAMILIES = {"smollm2-135m": "llama", "Qwen/Qwen3-": "qwen3", "google/flan-t5-": "t5"}
FAMILIES |= {"runs/t5-mini": "t5", "runs/decoder-mini": "llama"}  # what pretrain_t5.py writes


def run(recipe: str, *flags: object) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [recipe, *map(str, flags)])
        return runpy.run_path(str(FINETUNE / f"{recipe}.py"), run_name="__main__")


def write_log(folder: Path, *, categories: tuple[str, ...] = worlds.CATEGORIES) -> None:
    """Write films and who took them as RecBole does; periods are ten events."""
    events = worlds.log(120, 6)
    seconds = events.timestamp.astype("datetime64[s]").astype("int64")
    folder.mkdir()
    pd.DataFrame(
        {
            "user_id:token": events.user_ids[events.user_idx],
            "item_id:token": events.item_ids[events.item_idx],
            "rating:float": 3,
            "timestamp:float": seconds,
        }
    ).to_csv(folder / "tiny.inter", sep="\t", index=False)
    items = range(25)
    pd.DataFrame(
        {
            "item_id:token": [f"i{item:03d}" for item in items],
            "movie_title:token_seq": [f"Title {item}" for item in items],
            "class:token_seq": [categories[item % 5] for item in items],
        }
    ).to_csv(folder / "tiny.item", sep="\t", index=False)


def save_qwen3(folder: Path) -> None:
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a log, a model of each family, and examples for their tokenizers."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_log(folder / "tiny")
        save_llama(folder / "llama", num_hidden_layers=7, max_position_embeddings=1024)
        save_qwen3(folder / "qwen3")
        save_t5(folder / "t5")
        for model in ("llama", "t5"):
            run("pairs", "--data", "tiny", "--model", model, "--out", f"pairs/{model}")
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def lora(config: Path, out: str, *flags: object, model: str = "llama") -> dict[str, Any]:
    """Run lora.py; ``model`` is the tiny one to adapt."""
    pairs = "pairs/t5" if model == "t5" else "pairs/llama"
    fixed = ("--data", "tiny", "--model", model, "--pairs", pairs, "--out", out)
    return run("lora", config, *fixed, *flags)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Run the config for any machine once, for the tests that only look at what it wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        history = lora(TINY, "runs/tiny", "--epochs", 1)["history"]
    assert history.steps > 1
    return place / "runs" / "tiny"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_engine_that_was_trained_needs_nothing_but_its_folder(trained: Path) -> None:
    engine = InterestEngine.from_pretrained("runs/tiny")
    assert engine.settings.template == "forecast-v3"
    assert Path(engine.forecaster.model.adapter) == Path("runs/tiny/adapter")
    assert engine.forecaster.calibration.model == engine.forecaster.model.fingerprint
    forecast = engine.forecast("u001")
    assert forecast.category_weights.sum() == pytest.approx(1)
    assert forecast.description
    assert [item.rank for item in engine.recommend("u001", k=3)] == [1, 2, 3]


def test_an_engine_is_fitted_again_around_its_adapter(trained: Path) -> None:
    before = contents(trained)
    run("calibrate", "--adapter", trained / "adapter", "--windows", 50, "--out", "again")
    assert contents(trained) == before
    first, again = (EngineSettings.load(folder / "engine.json") for folder in (trained, AGAIN))
    assert again == first
    assert LM_SCORER in again.blend
    assert contents(AGAIN / "adapter") == contents(trained / "adapter")
    with pytest.raises(SystemExit):
        run("calibrate", "--data", "tiny")


def test_the_adapter_says_all_that_it_is(trained: Path) -> None:
    about, dataset = AdapterMetadata.load(trained / "adapter"), load_dataset("tiny")
    base = LanguageModel.load("llama", adapter=trained / "adapter")
    assert (about.base_model, about.base_fingerprint) == ("llama", base.base_fingerprint)
    assert about.categories == dataset.catalog.categories
    assert (about.dataset, about.period) == ("tiny", "10 events")
    assert about.data_fingerprint == dataset.log.fingerprint
    assert (about.prompt, about.seed) == ("forecast-v3", 0)
    assert {"log_loss", "counting", "skill"} <= about.metrics.keys()
    assert {"torch", "transformers", "peft"} <= about.versions.keys()
    # What trains it again, but for where things lie.
    config = TrainingConfig.model_validate_json(json.dumps({**about.config, "out": "again"}))
    assert (config.learning_rate, config.depth, config.lora.rank) == (1e-3, 6, 4)
    last = str(dataset.log.timestamp.max())
    assert about.cutoff < last
    manifest = json.loads(Path("pairs/llama/manifest.json").read_text())
    assert about.cutoff == manifest["fitted"]["before"] >= manifest["cutoff"]


def test_the_card_tells_data_base_model_and_validation(trained: Path) -> None:
    card = (trained / "adapter" / "README.md").read_text()
    about = AdapterMetadata.load(trained / "adapter")
    for words in ("tiny", "llama", "forecast-v3", *about.labels, f"{about.metrics['skill']:.4f}"):
        assert words in card


def test_a_run_that_is_done_is_not_done_again(trained: Path) -> None:
    before = contents(trained)
    history = lora(TINY, "runs/tiny", "--epochs", 1)["history"]
    assert history.stopped
    assert contents(trained) == before


def test_a_merged_model_loads_without_its_adapter(trained: Path) -> None:
    flags = ("--adapter", trained / "adapter", "--data", "tiny", "--prompts", 10)
    found = run("merge", *flags, "--out", "merged")
    assert found["largest"] <= 1e-3
    merged = LanguageModel.load("merged")
    assert not merged.adapter
    assert merged.category_head is not None
    assert AdapterMetadata.load(Path("merged")).merged
    assert "tiny" in Path("merged/README.md").read_text()
    side_by_side = LanguageModel.load("llama", adapter=trained / "adapter")
    prompts = found["prompts"][:3]
    ours, theirs = (model.final_logits(prompts, [5, 6, 7]) for model in (merged, side_by_side))
    assert ours == pytest.approx(theirs, abs=1e-3)
    with pytest.raises(ValueError, match="merged is there already"):
        run("merge", *flags, "--out", "merged")


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid_and_says_how_it_is_run(config: Path) -> None:
    found, text = load_config(config), config.read_text()
    assert found.out == f"runs/{config.stem.removeprefix('smollm2-135m-').removesuffix('-cpu')}"
    if config in OF_LORA:
        (command,) = [line for line in text.splitlines() if "python finetune/pairs.py" in line]
        assert f"--data {found.data}" in command
        assert f"--out {found.examples}" in command


@pytest.mark.parametrize("config", [c for c in OF_LORA if c != TINY], ids=lambda path: path.stem)
def test_every_config_trains_a_model_of_its_family(config: Path, tmp_path: Path) -> None:
    name = load_config(config).model
    model = next(tiny for start, tiny in FAMILIES.items() if name.startswith(start))
    plain = ("--device", "cpu", "--dtype", "float32", "--quantize", "null", "--report_to", "[]")
    short = ("--batch_positions", 2400, "--epochs", 0.5, "--calibration_windows", 50)
    short += ("--budget", 130, "--template", "forecast-v3", "--lines.layers", "upper 1")
    history = lora(config, str(tmp_path / "out"), *plain, *short, model=model)["history"]
    assert 1 <= history.steps <= 5
    assert history.metrics["log_loss"] > 0
    engine = InterestEngine.from_pretrained(str(tmp_path / "out"), describe=False)
    assert engine.forecast("u001").category_weights.sum() == pytest.approx(1)


def refused(kind: type[LlmrecError], told: str, *flags: object, config: Path = TINY) -> None:
    """Expect lora.py to refuse before it has written an adapter."""
    with pytest.raises(kind, match=told):
        lora(config, "refused", *flags)
    assert not Path("refused/adapter").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--lora.rnk", 8), r"'--lora\.rnk' is unknown; is 'lora\.rank' meant"),
        (("--rate", "fast"), "rate is 'fast'"),
        (("--epochs", "[1]"), r"epochs is \[1\]"),
    ],
)
def test_a_field_that_is_unknown_or_of_a_wrong_type_is_named(flags: Any, told: str) -> None:
    refused(ConfigError, told, *flags)


def test_targets_that_match_nothing_are_named_with_what_there_is() -> None:
    refused(TrainingError, r"\['query'\].*match nothing.*'q_proj'", "--lora.targets", "[query]")


def test_layers_that_the_model_lacks_are_named() -> None:
    refused(ConfigError, "the model has 6 layers", "--lora.layers", "upper 7")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--template", "forecast-v1"), "forecast-v1"),
        (("--budget", 131), "131"),
    ],
)
def test_examples_that_were_written_otherwise_are_refused(flags: Any, told: str) -> None:
    refused(DataError, f"{told}.*run finetune/pairs.py again", *flags)


def test_what_was_learned_from_cannot_decide_when_to_stop_and_is_marked_as_such() -> None:
    run("pairs", "--data", "tiny", "--model", "llama", "--out", "pairs/validated", "--validated")
    seen = ("--pairs", "pairs/validated")
    refused(DataError, r"hold the validation windows.*select: last", *seen)
    history = lora(TINY, "runs/validated", *seen, "--select", "last")["history"]
    assert history.best_step == history.steps
    about = AdapterMetadata.load(Path("runs/validated/adapter"))
    assert list(about.metrics) == [SEEN_METRICS]
    assert about.cutoff <= json.loads(Path("pairs/validated/manifest.json").read_text())["cutoff"]


def test_examples_that_are_not_there_are_refused() -> None:
    refused(DataError, r"nowhere/manifest\.json is no manifest", "--pairs", "nowhere")


def test_a_log_that_changed_since_its_examples_were_made_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny", "pairs", "llama"):
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    events = Path("tiny/tiny.inter")
    events.write_text(events.read_text() + "u000\ti000\t3\t1609459200\n")
    refused(DataError, "the data changed")


def test_a_log_whose_categories_were_renamed_since_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "tiny", categories=("Action", "Comedy", "Drama", "Horror", "Peace"))
    for name in ("pairs", "llama"):
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    refused(DataError, "'Peace' is not in both")


def test_a_table_of_ones_own_is_trained_on(place: Path) -> None:
    events = worlds.log(120, 7)
    pd.DataFrame(
        {
            "user_id": events.user_ids[events.user_idx],
            "item_id": events.item_ids[events.item_idx],
            "timestamp": worlds.START + 4 * (events.timestamp - worlds.START),
            "categories": [worlds.CATEGORIES[item % 5] for item in events.item_idx],
        }
    ).to_csv("mine.csv", index=False)
    run("pairs", "--data", "mine.csv", "--model", "llama", "--out", "pairs/mine")
    lora(TINY, "runs/mine", "--data", "mine.csv", "--pairs", "pairs/mine", "--epochs", 0.5)
    engine = InterestEngine.from_pretrained("runs/mine", data="mine.csv")
    assert engine.forecast("u001").description


def test_a_config_for_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(
        TrainingError, "device is 'cuda', which needs a GPU", config=CONFIGS / "qwen3-0.6b.yaml"
    )


def test_a_t5_in_float16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelLoadError, match="T5 overflows in float16"):
        LanguageModel.load("t5", device="cpu", dtype="float16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ModelLoadError, match="T5 overflows in float16"):
        lora(CONFIGS / "flan-t5-base.yaml", "refused", "--dtype", "float16", model="t5")


def test_an_adapter_is_refused_by_a_model_of_other_layers(trained: Path) -> None:
    save_llama(Path("narrow"), hidden_size=16, num_hidden_layers=7)
    with pytest.raises(ModelLoadError, match=r"adapter .*runs/tiny/adapter.* made for this base"):
        LanguageModel.load("narrow", adapter=trained / "adapter")


def test_an_adapter_is_refused_by_an_engine_of_another_model(trained: Path) -> None:
    save_llama(
        Path("other"), initializer_range=0.2, num_hidden_layers=7, max_position_embeddings=1024
    )
    with pytest.raises(ModelLoadError, match="it was made for 'llama'"):
        LanguageModel.load("other", adapter=trained / "adapter")
    with pytest.raises(ModelLoadError, match="it was made for 'llama'"):
        InterestEngine.from_pretrained("other", data="tiny", adapter=trained / "adapter")
    with pytest.raises(ModelLoadError, match="it was made for 'llama'"):
        run("merge", "--adapter", trained / "adapter", "--model", "other", "--data", "tiny",
            "--out", "never")  # fmt: skip
    assert not Path("never").exists()


def test_an_adapter_is_refused_by_an_engine_of_other_labels(trained: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "tiny", categories=("Action", "Comedy", "Drama", "Horror", "Peace"))
    with pytest.raises(ModelLoadError, match=r"missing here: 'War', new here: 'Peace'"):
        InterestEngine.from_pretrained("runs/tiny", data=str(tmp_path / "tiny"))


def test_an_adapter_is_refused_by_an_engine_of_another_prompt_version(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "engine")
    about = tmp_path / "engine" / "adapter" / ADAPTER_FILE
    about.write_text(about.read_text().replace("forecast-v3", "forecast-v2"))
    with pytest.raises(ModelLoadError, match="version 'forecast-v2', not 'forecast-v3'"):
        InterestEngine.from_pretrained(str(tmp_path / "engine"))


@pytest.mark.parametrize("full_at", [ADAPTER_FILE, "readout.safetensors", "engine.json"])
def test_a_full_disk_is_told_and_a_second_start_finishes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    out, replace = tmp_path / "out", os.replace
    for name in ("run", "lines"):
        shutil.copytree(trained / name, out / name)

    def full(source: Any, target: Any) -> None:
        if Path(target).name == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises((OSError, LlmrecError), match=rf"No space left on device.*{full_at}"):
            lora(TINY, str(out), "--epochs", 1)
    assert not list(out.rglob(f"*{full_at}*"))
    lora(TINY, str(out), "--epochs", 1)
    ours, theirs = contents(out), contents(trained)
    assert {name for name in theirs if ours[name] != theirs[name]} <= {
        "run/config.json",
        "lines/config.json",
    }


@pytest.fixture
def killed() -> Path:
    """Start lora.py in a process of its own, and kill it once it has saved a checkpoint."""
    out, flags = Path("runs/killed"), ("--epochs", "3", "--save_every", "2")
    command = [sys.executable, str(FINETUNE / "lora.py"), str(TINY), "--data", "tiny"]
    command += ["--model", "llama", "--pairs", "pairs/llama", "--out", str(out), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            while len(list(out.glob("run/step-*/complete.json"))) < 2:
                assert process.poll() is None, "it ended before it was to be killed"
                time.sleep(0.02)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    return out


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(killed: Path) -> None:
    assert not (killed / "adapter").exists()
    flags = ("--epochs", 3, "--save_every", 2)
    steps = lora(TINY, str(killed), *flags)["history"].steps
    straight = lora(TINY, "runs/straight", *flags)["history"]
    assert steps == straight.steps
    assert contents(killed / "adapter") == contents(Path("runs/straight/adapter"))
