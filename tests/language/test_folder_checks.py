"""Model folders that would run code or fill the memory are refused by file and key, at once."""

from __future__ import annotations

import builtins
import json
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoConfig, GPTNeoConfig, GPTNeoForCausalLM, dynamic_module_utils

from llmrec.data.json_values import MAX_CONFIG_BYTES
from llmrec.errors import ModelLoadError
from llmrec.language import pretrained
from llmrec.language.encoder import TextEncoder
from llmrec.language.folder_checks import MAX_VOCABULARY_BYTES
from llmrec.language.model import LanguageModel
from tests.language.tiny_models import byte_level_tokenizer, save_bert

CODE = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Name the file that exists once code of a model has run."""
    return tmp_path / "code-ran"


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path, marker: Path) -> Path:
    """Give a whole model folder that holds code, which nothing in it names yet."""
    copy = shutil.copytree(llama_folder, tmp_path / "model")
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    code += "from transformers import LlamaConfig\nclass EvilConfig(LlamaConfig):\n    pass\n"
    for name in ("evil.py", "custom_generate/generate.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(code)
    return copy


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch, marker: Path) -> Iterator[None]:
    """Check after each test that no question was on the terminal and that no code has run."""
    questions: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda text="": questions.append(text) or "y")
    yield
    assert questions == []
    assert not marker.exists()


def change(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let allocations of more than half a gigabyte fail."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def refused(folder: Path | str, load: Any = LanguageModel.load) -> str:
    """Load what must be refused in less than two seconds and without memory; give the error."""
    start = time.perf_counter()
    with limited_memory(), pytest.raises(ModelLoadError) as caught:
        load(str(folder), device="cpu")
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_seeded_code_runs_where_somebody_trusts_it(
    folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    change(folder / "config.json", auto_map=CODE, model_type="evil")
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()
    marker.unlink()


def test_code_that_no_config_names_is_not_run(folder: Path) -> None:
    assert LanguageModel.load(str(folder), device="cpu").name == str(folder)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "auto_map", CODE),
        ("config.json", "auto_map", {"AutoModelForCausalLM": "somebody/evil--evil.EvilModel"}),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": [None, "evil.EvilTokenizer"]}),
        ("tokenizer_config.json", "auto_map", ["evil.EvilTokenizer", None]),
        ("generation_config.json", "custom_generate", "somebody/evil"),
        ("config.json", "custom_pipelines", {"evil": {"impl": "evil.EvilPipeline"}}),
        ("config.json", "configuration_files", ["config.4.0.0.json"]),
        ("config.json", "transformers_weights", "adapter_model.bin"),
        ("config.json", "attn_implementation", "somebody/evil-kernel"),
        ("config.json", "_attn_implementation", "somebody/evil-kernel:attention"),
        ("config.json", "experts_implementation", {"": "somebody/evil"}),
        ("config.json", "quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("tokenizer_config.json", "tokenizer_class", "AutoModelForCausalLM"),
        ("tokenizer_config.json", "tokenizer_class", "AutoTokenizer"),
        ("tokenizer_config.json", "tokenizer_class", "RagTokenizer"),
    ],
)
def test_a_key_that_names_code_is_refused_by_file_and_key(
    folder: Path, file: str, key: str, value: Any
) -> None:
    change(folder / file, **{key: value})
    (folder / "config.4.0.0.json").write_text(json.dumps({"auto_map": CODE}))
    error = refused(folder)
    assert f"{folder / file}: {key} is" in error
    assert "no code of a model is run" in error or "before they were quantized" in error


def test_a_key_that_names_code_is_found_at_any_level(folder: Path) -> None:
    change(folder / "config.json", text_config={"parts": [{"auto_map": CODE}]})
    assert f"{folder / 'config.json'}: text_config.parts.auto_map is" in refused(folder)


def test_an_error_shows_no_control_characters_of_a_key(folder: Path) -> None:
    change(folder / "config.json", **{"\x1b[2J\u202e\n": {"auto_map": CODE}})
    assert refused(folder).isprintable()


def test_a_key_is_found_behind_long_ones_at_once(folder: Path) -> None:
    inner = [{"k" * 100_000: {str(i): {"n": i} for i in range(1_000)}} for _ in range(10)]
    change(folder / "config.json", parts=[*inner, {"k" * 100_000: {"auto_map": CODE}}])
    assert "kkk.auto_map is" in refused(folder)


def test_a_config_of_very_many_entries_is_refused_at_once(folder: Path) -> None:
    change(folder / "config.json", parts=[{}] * 400_000)
    assert f"{folder / 'config.json'} cannot be loaded: it has more than" in refused(folder)


def test_skipped_modules_of_quantized_weights_are_plain_patterns(folder: Path) -> None:
    skipped = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["(a+)+$"]}
    change(folder / "config.json", quantization_config=skipped)
    assert "quantization_config.llm_int8_skip_modules is '(a+)+$'" in refused(folder)


def test_a_model_folder_that_sends_to_another_base_model_is_refused(folder: Path) -> None:
    change(folder / "adapter_config.json", base_model_name_or_path="somebody/evil", r=8)
    assert "adapter_config.json makes this an adapter's folder" in refused(folder)


def test_a_kind_that_opens_models_in_subfolders_is_refused(folder: Path) -> None:
    change(folder / "config.json", model_type="rag", question_encoder={}, generator={})
    assert "cannot be loaded" in refused(folder)


def test_an_encoder_that_names_code_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    assert TextEncoder.load(str(folder), device="cpu").embed(["Drama"]).shape == (1, 32)
    change(folder / "config.json", auto_map=CODE)
    assert f"{folder / 'config.json'}: auto_map is" in refused(folder, TextEncoder.load)


def cache_snapshot(cache: Path, folder: Path) -> None:
    """Lay a folder where the hub's library looks for the model somebody/model."""
    model, commit = cache / "models--somebody--model", "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(folder, model / "snapshots" / commit)


def test_a_hub_id_loads_and_is_refused_as_its_folder_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_snapshot(tmp_path / "good", folder)
    change(folder / "config.json", auto_map=CODE)
    cache_snapshot(tmp_path / "evil", folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "good"))
    loaded = LanguageModel.load("somebody/model", device="cpu")
    assert np.isfinite(loaded.final_logits(["Drama"], np.arange(20))).all()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "evil"))
    assert "config.json: auto_map is" in refused("somebody/model")


def test_of_a_hub_id_the_snapshot_that_was_checked_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        fetched.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(pretrained, "snapshot_download", fetch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    loaded = LanguageModel.load("somebody/model", device="cpu")
    assert loaded.fingerprint == LanguageModel.load(str(folder), device="cpu").fingerprint
    ((name, patterns),) = fetched
    assert name == "somebody/model"
    files = [path.name for path in folder.glob("*.[!p]*")]
    assert all(any(fnmatch(file, pattern) for pattern in patterns) for file in files)
    assert not any(fnmatch(file, pattern) for pattern in patterns for file in ("m.py", "m.bin"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 1_000_000),
        ("num_hidden_layers", 10**30),
        ("num_hidden_layers", 300),  # more than the weights have tensors
        ("num_hidden_layers", -1),
        ("num_hidden_layers", "two"),
        ("num_hidden_layers", True),
        ("num_hidden_layers", 2.5),
        ("hidden_size", 2**40),
        ("hidden_size", [32, 2**40]),
        ("intermediate_size", 1e12),
        ("vocab_size", 10**12),
        ("num_attention_heads", 10**9),
        ("num_key_value_heads", {"a": 1}),
        ("head_dim", -8),
        ("max_position_embeddings", 10**12),
        ("num_labels", 10**9),
        ("num_local_experts", 10**9),
        ("of_a_name_unknown_here", 10**12),
    ],
)
def test_a_size_that_cannot_be_is_refused_by_file_and_key(
    folder: Path, key: str, value: Any
) -> None:
    change(folder / "config.json", **{key: value})
    shown = value[-1] if isinstance(value, list) else value
    assert f"{folder / 'config.json'}: {key} is {shown!r}" in refused(folder)


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "vocab_size"])
def test_a_size_that_the_weights_do_not_have_is_refused_before_it_takes_memory(
    folder: Path, key: str
) -> None:
    change(folder / "config.json", **{key: 2**22})
    error = refused(folder)
    assert f"{folder / 'config.json'} describes a model of" in error
    assert f"(its largest size is {key} {2**22}), and the weights hold" in error


PLACES = ("../", "/", "a/", "..\\")


def split_weights(folder: Path, name: str = "w.safetensors") -> Path:
    """Give the weights another name, and an index that says so."""
    weights = folder / "model.safetensors"
    tensors = dict.fromkeys(load_file(weights), name)
    weights.rename(folder / "w.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": tensors}))
    return index


def test_weights_that_an_index_names_are_loaded_and_counted(folder: Path) -> None:
    split_weights(folder)
    LanguageModel.load(str(folder), device="cpu")
    change(folder / "config.json", vocab_size=2**22)
    assert f"{folder / 'config.json'} describes a model of" in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["../w.safetensors", "/w.safetensors", "a/w.safetensors", "..\\w.safetensors", "w.bin", 5],
)
def test_an_index_that_leaves_the_folder_or_names_no_safetensors_is_refused(
    folder: Path, name: Any
) -> None:
    index = split_weights(folder, name)
    error = refused(folder)
    assert f"{index}: weight_map." in error
    assert f"is {name!r}: it should be a safetensors file beside this one" in error


@pytest.mark.parametrize("named", [{}, [], "w.safetensors", None])
def test_an_index_that_names_nothing_is_refused(folder: Path, named: Any) -> None:
    change(split_weights(folder), weight_map=named)
    assert "weight_map is" in refused(folder)


def test_a_config_is_not_believed_where_there_are_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    change(folder / "config.json", vocab_size=2**22)
    assert "holds no weights: no file named model.safetensors or" in refused(folder)


def test_tables_that_are_no_weights_count_as_well(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
    config = GPTNeoConfig(
        vocab_size=len(tokenizer), attention_types=[[["global"], 2]], **sizes, intermediate_size=64
    )
    GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    LanguageModel.load(str(tmp_path), device="cpu")
    change(tmp_path / "config.json", max_position_embeddings=100_000)
    assert "(its largest size is max_position_embeddings 100000)" in refused(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 16 deep"),
        ('{"a":' * 20 + "1" + "}" * 20, "nested more than 16 deep"),
        ('{"a": ' + "[" * 100_000, "nested more than 16 deep"),
        ('{"a": ' + "9" * 5_000 + "}", "Exceeds the limit"),
        ("[]", "holds a list, not an object"),
        ('{"model_type": ', "Expecting value"),
        (" " * (MAX_CONFIG_BYTES + 1), f"{MAX_CONFIG_BYTES:,} are the most"),
    ],
    ids=["very deep", "deep", "open", "long number", "list", "broken", "huge"],
)
def test_json_that_is_no_config_is_refused(folder: Path, file: str, text: str, reason: str) -> None:
    (folder / file).write_text(text)
    error = refused(folder)
    assert f"{folder / file} cannot be loaded" in error
    assert reason in error


def test_a_huge_vocabulary_is_refused_unread(folder: Path) -> None:
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(MAX_VOCABULARY_BYTES + 1)
    assert f"{folder / 'tokenizer.json'} has {MAX_VOCABULARY_BYTES + 1:,} bytes" in refused(folder)


@pytest.mark.parametrize("value", [10**9, -1, "many"])
def test_a_number_of_made_up_tokens_that_cannot_be_is_refused(
    t5_folder: Path, tmp_path: Path, value: Any
) -> None:
    folder = shutil.copytree(t5_folder, tmp_path / "t5")
    change(folder / "tokenizer_config.json", extra_ids=value)
    assert f"{folder / 'tokenizer_config.json'}: extra_ids is {value!r}" in refused(folder)


@pytest.mark.parametrize("value", ["many", -1, None, [1]])
def test_a_longest_text_that_cannot_be_is_refused(folder: Path, value: Any) -> None:
    change(folder / "tokenizer_config.json", model_max_length=value)
    assert "tokenizer_config.json: model_max_length is" in refused(folder)


@pytest.mark.parametrize("value", ["</s>", {"a": 1}, [[2]], 2**60])
def test_an_end_token_that_is_no_token_is_refused(folder: Path, value: Any) -> None:
    change(folder / "generation_config.json", eos_token_id=value)
    assert f"{folder / 'generation_config.json'}: eos_token_id is" in refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 10**10, "pad_token_id": 2, "bos_token_id": 1},
        {"max_position_embeddings": 10_485_760},
        {"model_max_length": 10**30, "layer_types": ["full_attention", "full_attention"]},
        {"id2label": {"0": "a", "1": "b"}, "auto_map": {}, "attn_implementation": "sdpa"},
    ],
    ids=str,
)
def test_what_honest_configs_hold_is_accepted(folder: Path, changes: dict[str, Any]) -> None:
    change(folder / "config.json", **changes)
    assert LanguageModel.load(str(folder), device="cpu").model.dtype == torch.float32
