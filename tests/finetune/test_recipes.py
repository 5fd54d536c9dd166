"""The recipes are run whole, as a user would, on a log of sixty people and models of a few weights.

Every config is a dry run of lora.py with a model of its own family; errors name what is wrong; and
a run that was killed ends as one that was not.
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

from llmrec import DataError, Dataset, InterestEngine, load_dataset
from llmrec.data import options
from llmrec.data.files import file_hash, with_values_hash
from llmrec.engine_settings import EngineSettings
from llmrec.errors import LlmrecError, ModelLoadError, TrainingError
from llmrec.language.adapters import ADAPTER_FILE, SEEN_METRICS, AdapterMetadata
from llmrec.language.model import LanguageModel
from llmrec.ranking.registry import LM_SCORER
from llmrec.training.config import TrainingConfig, load_config
from llmrec.training.pretrain import NEW_MODELS
from llmrec.training.typed_config import ConfigError
from tests import worlds
from tests.language.tiny_models import byte_level_tokenizer, save_llama, save_t5
from tests.saved_settings import change_settings

ROOT = Path(__file__).parents[2]
FINETUNE, CONFIGS = ROOT / "finetune", ROOT / "finetune" / "configs"
TINY, AGAIN = CONFIGS / "tiny-cpu.yaml", Path("again")
# Of language models; that of `pretrain_forecaster.py` has a test of its own.
MODEL_CONFIGS = sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "pretrained-forecaster.yaml"})
# The configs of the other training recipe name no base model, but a new one.
LORA_CONFIGS = [path for path in MODEL_CONFIGS if load_config(path).model not in NEW_MODELS]
# The tiny model that stands for base models whose names start so.
FAMILIES = {"smollm2-135m": "llama", "Qwen/Qwen3-": "qwen3", "google/flan-t5-": "t5"}
FAMILIES |= {"runs/t5-mini": "t5", "runs/decoder-mini": "llama"}  # what pretrain.py writes


def run(recipe: str, *flags: object) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [recipe, *map(str, flags)])
        return runpy.run_path(str(FINETUNE / f"{recipe}.py"), run_name="__main__")


def write_log(folder: Path, *, categories: tuple[str, ...] = worlds.CATEGORIES) -> None:
    """Write a log in the format of RecBole; periods are ten events."""
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
        save_t5(folder / "t5", feed_forward_proj="gated-gelu")  # as the T5s of the configs
        for model in ("llama", "t5"):
            run("make_dataset", "--data", "tiny", "--model", model, "--out", f"examples/{model}")
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def lora(config: Path, out: str, *flags: object, model: str = "llama") -> dict[str, Any]:
    """Run lora.py; ``model`` is the tiny one to adapt."""
    examples = "examples/t5" if model == "t5" else "examples/llama"
    fixed = ("--data", "tiny", "--model", model, "--examples", examples, "--out", out)
    return run("lora", config, *fixed, *flags)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Run the config for any machine once, for the tests that only read what it wrote."""
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


def test_a_trained_engine_needs_nothing_but_its_folder(trained: Path) -> None:
    serving = InterestEngine.from_pretrained("runs/tiny")
    with pytest.raises(
        DataError, match="holds no log"
    ):  # it has no log, and people give their events
        serving.forecast("u001")
    engine = InterestEngine.from_pretrained("runs/tiny", data="tiny")
    assert engine.settings.template == "forecast-v3"
    assert Path(engine.forecaster.model.adapter) == Path("runs/tiny/adapter")
    assert engine.forecaster.calibration.model == engine.forecaster.model.fingerprint
    forecast = engine.forecast("u001")
    assert forecast.category_weights.sum() == pytest.approx(1)
    assert forecast.description
    assert [item.rank for item in engine.recommend("u001", k=3)] == [1, 2, 3]


def test_an_engine_is_fitted_again_around_its_adapter(trained: Path) -> None:
    before = contents(trained)
    run("calibrate_engine", "--adapter", trained / "adapter", "--windows", 50, "--out", "again")
    assert contents(trained) == before
    first, again = (EngineSettings.load(folder / "engine.json") for folder in (trained, AGAIN))
    assert again == first
    assert LM_SCORER in again.report["llm"]
    assert contents(AGAIN / "adapter") == contents(trained / "adapter")
    with pytest.raises(SystemExit):
        run("calibrate_engine", "--data", "tiny")


def test_adapter_json_describes_the_adapter(trained: Path) -> None:
    about, dataset = AdapterMetadata.load(trained / "adapter"), load_dataset("tiny")
    base = LanguageModel.load("llama", adapter=trained / "adapter")
    assert (about.base_model, about.base_fingerprint) == ("llama", base.base_fingerprint)
    assert about.categories == dataset.catalog.categories
    assert (about.dataset, about.period) == ("tiny", "10 events")
    assert about.data_fingerprint == dataset.log.fingerprint
    assert (about.prompt, about.seed) == ("forecast-v3", 0)
    assert {"log_loss", "counting", "skill"} <= about.metrics.keys()
    assert {"torch", "transformers", "peft"} <= about.versions.keys()
    # This config trains it again, but for the paths.
    config = TrainingConfig.model_validate_json(json.dumps({**about.config, "out": "again"}))
    assert (config.learning_rate, config.depth, config.lora.rank) == (1e-3, 6, 4)
    last = str(dataset.log.timestamp.max())
    assert about.cutoff < last
    manifest = json.loads(Path("examples/llama/manifest.json").read_text())
    assert about.cutoff == manifest["fitted"]["before"] >= manifest["cutoff"]


def test_the_card_shows_data_base_model_and_validation(trained: Path) -> None:
    card = (trained / "adapter" / "README.md").read_text()
    about = AdapterMetadata.load(trained / "adapter")
    for words in ("tiny", "llama", "forecast-v3", *about.labels, f"{about.metrics['skill']:.4f}"):
        assert words in card


def test_a_finished_run_is_not_repeated(trained: Path) -> None:
    before = contents(trained)
    history = lora(TINY, "runs/tiny", "--epochs", 1)["history"]
    assert history.stopped
    assert contents(trained) == before


def test_a_merged_model_loads_without_its_adapter(trained: Path) -> None:
    flags = ("--adapter", trained / "adapter", "--data", "tiny", "--prompts", 10)
    variables = run("merge_adapter", *flags, "--out", "merged")
    assert variables["largest"] <= 1e-3
    merged = LanguageModel.load("merged")
    assert not merged.adapter
    assert merged.category_head is not None
    assert AdapterMetadata.load(Path("merged")).merged
    assert "tiny" in Path("merged/README.md").read_text()
    side_by_side = LanguageModel.load("llama", adapter=trained / "adapter")
    prompts = variables["prompts"][:3]
    ours, theirs = (model.final_logits(prompts, [5, 6, 7]) for model in (merged, side_by_side))
    assert ours == pytest.approx(theirs, abs=1e-3)
    with pytest.raises(ValueError, match="merged is there already"):
        run("merge_adapter", *flags, "--out", "merged")


@pytest.mark.parametrize("config", MODEL_CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_valid_and_has_the_command_that_makes_its_examples(config: Path) -> None:
    values, text = load_config(config), config.read_text()
    assert values.out == f"runs/{config.stem.removeprefix('smollm2-135m-').removesuffix('-cpu')}"
    if config in LORA_CONFIGS:
        (command,) = [
            line for line in text.splitlines() if "python finetune/make_dataset.py" in line
        ]
        assert f"--data {values.data}" in command
        assert f"--out {values.examples}" in command


@pytest.mark.parametrize(
    "config", [c for c in LORA_CONFIGS if c != TINY], ids=lambda path: path.stem
)
def test_every_config_trains_a_model_of_its_family(config: Path, tmp_path: Path) -> None:
    name = load_config(config).model
    model = next(tiny for start, tiny in FAMILIES.items() if name.startswith(start))
    plain = ("--device", "cpu", "--dtype", "float32", "--quantize", "null", "--report_to", "[]")
    short = ("--batch_positions", 2400, "--epochs", 0.5, "--calibration_windows", 50)
    short += ("--budget", 130, "--template", "forecast-v3", "--generation.layers", "upper 1")
    history = lora(config, str(tmp_path / "out"), *plain, *short, model=model)["history"]
    assert 1 <= history.steps <= 5
    assert history.metrics["log_loss"] > 0
    engine = InterestEngine.from_pretrained(str(tmp_path / "out"), data="tiny")
    assert engine.forecast("u001").category_weights.sum() == pytest.approx(1)


def check_refused(
    error: type[LlmrecError], message: str, *flags: object, config: Path = TINY
) -> None:
    """Check that lora.py raises an error before it has written an adapter."""
    with pytest.raises(error, match=message):
        lora(config, "refused", *flags)
    assert not Path("refused/adapter").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lora.rnk", 8), r"'--lora\.rnk' is unknown; is 'lora\.rank' meant"),
        (("--learning_rate", "fast"), "learning_rate is 'fast'"),
        (("--epochs", "[1]"), r"epochs is \[1\]"),
    ],
)
def test_a_field_that_is_unknown_or_of_a_wrong_type_is_named(flags: Any, message: str) -> None:
    check_refused(ConfigError, message, *flags)


def test_targets_that_match_nothing_are_named_with_those_that_would() -> None:
    check_refused(
        TrainingError, r"\['query'\].*match nothing.*'q_proj'", "--lora.targets", "[query]"
    )


def test_layers_that_the_model_lacks_are_named() -> None:
    check_refused(ConfigError, "the model has 6 layers", "--lora.layers", "upper 7")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--template", "forecast-v1"), "forecast-v1"),
        (("--budget", 131), "131"),
    ],
)
def test_examples_with_other_prompts_are_refused(flags: Any, message: str) -> None:
    check_refused(DataError, f"{message}.*run finetune/make_dataset.py again", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--noun", "books"),
            r"made with noun None, and the config asks for 'books': leave it out",
        ),
        (("--keep-bots",), "made with keep_bots False, and the config asks for True"),
    ],
)
def test_a_config_that_reads_the_log_in_another_way_than_its_examples_is_refused(
    flags: Any, message: str
) -> None:
    check_refused(DataError, message, *flags)


def test_windows_that_were_trained_on_cannot_choose_when_to_stop_and_metrics_say_so() -> None:
    folder = "examples/with-validation"
    flags = ("--data", "tiny", "--model", "llama", "--out", folder)
    run("make_dataset", *flags, "--include-validation")
    seen = ("--examples", folder)
    check_refused(DataError, r"hold the validation windows.*keep_checkpoint: last", *seen)
    history = lora(TINY, "runs/with-validation", *seen, "--keep_checkpoint", "last")["history"]
    assert history.best_step == history.steps
    about = AdapterMetadata.load(Path("runs/with-validation/adapter"))
    assert list(about.metrics) == [SEEN_METRICS]
    assert about.cutoff <= json.loads(Path(f"{folder}/manifest.json").read_text())["cutoff"]


def test_make_dataset_and_lora_take_the_flags_of_0_1() -> None:
    manifests = []
    for flags in (
        ("--without", "War|Drama", "--validated"),
        ("--exclude-categories", "War|Drama", "--include-validation"),
    ):
        path = Path("examples/flags")
        run("make_dataset", "--data", "tiny", "--model", "llama", "--out", path, *flags)
        manifests.append(json.loads((path / "manifest.json").read_text()))
    assert manifests[0] == manifests[1]
    assert (manifests[0]["without"], manifests[0]["validated"]) == (["War", "Drama"], True)
    assert "War" not in manifests[0]["categories"]
    flags = ("--pairs", "nowhere", "--rate", "1e-3", "--lines.epochs", 0, "--select", "last")
    check_refused(DataError, r"nowhere/manifest\.json is no manifest", *flags)


def test_the_help_of_make_dataset_shows_the_flags_of_today_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run("make_dataset", "--help")
    shown = capsys.readouterr().out
    assert "--exclude-categories" in shown
    assert "--include-validation" in shown
    assert "--without" not in shown
    assert "--validated" not in shown


def test_missing_examples_are_refused() -> None:
    check_refused(DataError, r"nowhere/manifest\.json is no manifest", "--examples", "nowhere")


def test_a_log_that_changed_since_its_examples_were_made_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tiny", "examples", "llama"):
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    events = Path("tiny/tiny.inter")
    events.write_text(events.read_text() + "u000\ti000\t3\t1590969600\n")
    check_refused(DataError, "the data changed")


def test_a_log_whose_categories_were_renamed_since_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "tiny", categories=("Action", "Comedy", "Drama", "Horror", "Peace"))
    for name in ("examples", "llama"):
        shutil.copytree(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    check_refused(DataError, "'Peace' is not in both")


def test_a_table_of_ones_own_is_trained_on_and_read_alike_by_every_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nouns = []

    def load(name: str, **reading: Any) -> Dataset:
        nouns.append(reading["noun"])
        return load_dataset(name, **reading)

    monkeypatch.setattr(options, "load_dataset", load)
    events = worlds.log(120, 7)
    pd.DataFrame(
        {
            "user_id": events.user_ids[events.user_idx],
            "item_id": events.item_ids[events.item_idx],
            "timestamp": worlds.START + 4 * (events.timestamp - worlds.START),
            "categories": [worlds.CATEGORIES[item % 5] for item in events.item_idx],
        }
    ).to_csv("mine.csv", index=False)
    examples = ("--model", "llama", "--out", "examples/mine", "--noun", "groceries")
    run("make_dataset", "--data", "mine.csv", *examples)
    flags = ("--data", "mine.csv", "--examples", "examples/mine", "--epochs", 0.5)
    lora(TINY, "runs/mine", *flags)
    adapter = ("--adapter", "runs/mine/adapter", "--windows", 50)
    run("calibrate_engine", *adapter, "--data", "mine.csv", "--out", "again-mine")
    run("merge_adapter", *adapter[:2], "--data", "mine.csv", "--prompts", 2, "--out", "merged-mine")
    assert nouns == ["groceries"] * 4
    engine = InterestEngine.from_pretrained("runs/mine", data="mine.csv")
    assert engine.forecast("u001").description


def test_a_config_for_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_refused(
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
        run("merge_adapter", "--adapter", trained / "adapter", "--model", "other", "--data", "tiny",
            "--out", "never")  # fmt: skip
    assert not Path("never").exists()


def test_an_adapter_of_other_labels_is_refused_and_an_engine_leaves_its_own_out(
    trained: Path, tmp_path: Path
) -> None:
    write_log(tmp_path / "tiny", categories=("Action", "Comedy", "Drama", "Horror", "Peace"))
    data = str(tmp_path / "tiny")
    with pytest.raises(ModelLoadError, match=r"missing here: 'War', new here: 'Peace'"):
        InterestEngine.from_pretrained("llama", data=data, adapter=trained / "adapter")
    with pytest.warns(UserWarning, match="fitted on 'tiny' with other items, .*adapt"):
        engine = InterestEngine.from_pretrained("runs/tiny", data=data)
    assert not engine.forecaster.model.adapter


def test_an_adapter_is_refused_by_an_engine_of_another_prompt_version(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "engine")
    about = tmp_path / "engine" / "adapter" / ADAPTER_FILE
    about.write_text(about.read_text().replace("forecast-v3", "forecast-v2"))
    with pytest.raises(DataError, match="is not the file that was saved with this engine"):
        InterestEngine.from_pretrained(str(tmp_path / "engine"))
    about.write_text(json.dumps(with_values_hash(json.loads(about.read_text()))))
    new = {f"adapter/{ADAPTER_FILE}": file_hash(about)}  # as if it had been saved so
    path = tmp_path / "engine" / "engine.json"
    change_settings(path, lambda values: values["parts"].update(new))
    with pytest.raises(ModelLoadError, match="version 'forecast-v2', not 'forecast-v3'"):
        InterestEngine.from_pretrained(str(tmp_path / "engine"))


@pytest.mark.parametrize("full_at", [ADAPTER_FILE, "readout.safetensors", "engine.json"])
def test_a_full_disk_is_an_error_and_a_second_start_finishes(
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
    command += ["--model", "llama", "--examples", "examples/llama", "--out", str(out), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            while len(list(out.glob("run/step-*/complete.json"))) < 2:
                assert process.poll() is None, "it ended before it could be killed"
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
