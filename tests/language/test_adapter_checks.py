"""Adapters that would run code, match patterns for hours or fill the memory are refused at once."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from llmrec.data.json_values import MAX_CONFIG_BYTES
from llmrec.errors import ModelLoadError
from llmrec.language.adapter_checks import check_adapter_folder
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.folder_checks import check_patterns
from llmrec.language.heads import CategoryHead, TitleEmbeddings
from llmrec.language.model import LanguageModel
from tests.language.tiny_models import ABOUT

OUR_OWN = f"layers\\.({'|'.join(map(str, range(512)))})\\..*"
SLOW = ["(a+)+$", "(.*a)*b", "(?:\\w+\\.)+x", "a{1,99}{1,99}", ".*.*.*x", "(a|aa)+$", "(?=a)"]


@pytest.fixture(scope="module")
def saved_adapter(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an adapter of rank 2 in two layers of the tiny decoder."""
    model = LanguageModel.load(str(llama_folder), device="cpu").model
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    folder = tmp_path_factory.mktemp("adapter")
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(saved_adapter: Path, tmp_path: Path) -> Path:
    """Give an adapter that the test may damage."""
    return shutil.copytree(saved_adapter, tmp_path / "adapter")


def change(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder: Path, base: Path) -> str:
    start = time.perf_counter()
    with pytest.raises(ModelLoadError) as caught:
        LanguageModel.load(str(base), adapter=folder, device="cpu")
    assert time.perf_counter() - start < 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("megatron_config", {"megatron_config": {"a": 1}, "megatron_core": "megatron.core"}),
        ("megatron_core", {"megatron_core": "evil"}),
        ("auto_mapping", {"auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}}),
        ("auto_map", {"auto_map": {"AutoModel": "evil.Evil"}}),
        ("megatron_c", {"megatron_config": {"a": 1}, "megatron_core": "evil"}),
    ],
)
def test_a_key_that_names_code_is_refused_and_nothing_imported(
    adapter: Path,
    llama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    changes: dict[str, Any],
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'code-ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change(adapter, **changes)
    assert f"{adapter / 'adapter_config.json'}: {key}" in refused(adapter, llama_folder)
    assert not (tmp_path / "code-ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 10**9),
        ("r", 1_000),  # the matrices have rank 2
        ("r", 0),
        ("r", -2),
        ("r", "2"),
        ("r", True),
        ("r", None),
        ("lora_alpha", 1e30),
        ("lora_alpha", -1),
        ("lora_alpha", float("nan")),
        ("lora_dropout", 2),
        ("rank_pattern", {"q_proj": 10**6}),
        ("rank_pattern", {"q_proj": 900}),
        ("rank_pattern", {f"layers.{i}.q_proj": 2 for i in range(300)}),
        ("rank_pattern", [1, 2]),
        ("alpha_pattern", {"q_proj": "much"}),
        ("alpha_pattern", {"q_proj": 1e12}),
        ("target_modules", ["q_proj"] * 1_000),
        ("target_modules", ["q" * 100_000]),
        ("target_modules", {"q_proj": 1}),
        ("layers_to_transform", list(range(100_000))),
        ("layers_to_transform", [-1]),
        ("layers_to_transform", [0, "1"]),
        ("modules_to_save", ["model"]),
        ("modules_to_save", "lm_head"),
        ("layer_replication", [[0, 1_000_000]]),
        ("trainable_token_indices", list(range(1_000))),
        ("target_parameters", ["weight"]),
        ("init_lora_weights", "pissa_niter_1000000"),
        ("init_lora_weights", "corda"),
        ("corda_config", {"cache_file": "evil.bin"}),
        ("loftq_config", {"loftq_bits": 4}),
        ("peft_type", "IA3"),
        ("peft_type", ["LORA"]),
        ("of_a_later_version", 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_field_that_plain_lora_does_not_have_is_refused_by_file_and_key(
    adapter: Path, llama_folder: Path, key: str, value: Any
) -> None:
    change(adapter, **{key: value})
    error = refused(adapter, llama_folder)
    assert re.match(rf"{re.escape(str(adapter / 'adapter_config.json'))}: {key}\b", error)


@pytest.mark.parametrize("pattern", SLOW)
@pytest.mark.parametrize(
    "key", ["rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_pattern"]
)
def test_a_pattern_that_could_take_long_is_refused(
    adapter: Path, llama_folder: Path, key: str, pattern: str
) -> None:
    change(adapter, **{key: {pattern: 2} if key.endswith("k_pattern") else pattern})
    if key == "alpha_pattern":
        change(adapter, alpha_pattern={pattern: 2.0})
    error = refused(adapter, llama_folder)
    assert f"{key} is {pattern!r}: a pattern holds names, dots" in error


@pytest.mark.parametrize(
    "pattern",
    [OUR_OWN, "q_proj", "model.layers.0.mlp", ".*\\.(q_proj|v_proj)", "^model\\.layers\\.1\\..*$"],
    ids=lambda pattern: pattern[:20],
)
def test_plain_patterns_are_accepted(pattern: str) -> None:
    check_patterns(Path("adapter_config.json"), "rank_pattern", [pattern])


@given(st.text(r"a.\|()*+?^$[]{}1", max_size=30))
def test_whatever_pattern_is_accepted_is_matched_at_once(pattern: str) -> None:
    try:
        check_patterns(Path("adapter_config.json"), "rank_pattern", [pattern])
    except ModelLoadError:
        return
    name, start = "a." * 60 + "!", time.perf_counter()
    re.match(rf"(.*\.)?({pattern})$", name)
    re.fullmatch(pattern, name)
    assert time.perf_counter() - start < 0.5


def test_an_adapter_with_ranks_and_alphas_of_its_layers_loads(
    adapter: Path, llama_folder: Path
) -> None:
    change(
        adapter,
        rank_pattern={"layers\\.(1)\\..*": 2},
        alpha_pattern={"layers\\.(1)\\..*": 4.0},
        layers_to_transform=[0, 1],
        use_rslora=True,
        modules_to_save=[],
    )
    LanguageModel.load(str(llama_folder), adapter=adapter, device="cpu")


def test_a_shipped_adapter_is_accepted() -> None:
    engines = Path(__file__).parents[2] / "llmrec" / "engines"
    folders = sorted(path.parent for path in engines.glob("*/adapter/adapter_config.json"))
    assert len(folders) == 2
    for folder in folders:
        check_adapter_folder(folder)


def test_an_adapter_without_its_config_is_refused_and_not_looked_for_on_a_hub(
    adapter: Path, llama_folder: Path
) -> None:
    (adapter / "adapter_config.json").unlink()
    assert "there is no adapter_config.json in it" in refused(adapter, llama_folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":' * 100_000, "nested more than 16 deep"),
        ("[]", "holds a list"),
        (" " * (MAX_CONFIG_BYTES + 1), "are the most"),
    ],
    ids=["deep", "list", "huge"],
)
@pytest.mark.parametrize("file", ["adapter_config.json", "adapter.json"])
def test_json_that_is_no_config_is_refused(
    adapter: Path, llama_folder: Path, file: str, text: str, reason: str
) -> None:
    (adapter / file).write_text(text)
    error = refused(adapter, llama_folder)
    assert str(adapter / file) in error
    assert reason in error


@pytest.mark.parametrize("budget", [10**12, 0, "many", True])
def test_a_budget_that_cannot_be_is_refused(tmp_path: Path, budget: Any) -> None:
    ABOUT.save(tmp_path)
    values = json.loads((tmp_path / "adapter.json").read_text())
    values["config"]["budget"] = budget
    (tmp_path / "adapter.json").write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match=f"config.budget is '{budget}'"):
        AdapterMetadata.load(tmp_path)


def test_a_category_head_of_a_size_that_its_file_does_not_hold_is_refused(tmp_path: Path) -> None:
    tensors = {"down": torch.zeros(10**10, 0), "up": torch.zeros(0, 10**10)}
    save_file(tensors, tmp_path / "readout.safetensors")
    with pytest.raises(ModelLoadError, match=r"readout.safetensors .* the shape of 'down' is"):
        CategoryHead.load(tmp_path, 32)
    head = {"down": torch.zeros(2, 32), "up": torch.zeros(32, 2)}
    save_file(head, tmp_path / "readout.safetensors", {"depth": "1000000"})
    with pytest.raises(ModelLoadError, match="its depth is 1000000"):
        CategoryHead.load(tmp_path, 32)


def test_title_embeddings_of_a_size_that_their_file_does_not_hold_are_refused(
    tmp_path: Path,
) -> None:
    tensors = {
        "keys": torch.zeros(0, dtype=torch.int64),
        "common": torch.zeros(0),
        "vectors.weight": torch.zeros(0, 10**10),
        "into.weight": torch.zeros(0, 10**10),
        "asked.weight": torch.zeros(10**10, 0),
    }
    save_file(tensors, tmp_path / "titles.safetensors")
    with pytest.raises(ModelLoadError, match=r"titles.safetensors .* the shape of 'input_proj"):
        TitleEmbeddings.load(tmp_path, 32)
