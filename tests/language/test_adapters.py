"""Adapters describe themselves, are refused elsewhere, and merge without changing an answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from llmrec.errors import ModelLoadError
from llmrec.language.adapters import AdapterMetadata, adapter_hash
from llmrec.language.heads import CategoryHead
from llmrec.language.model import LanguageModel
from llmrec.training.merge import merge_adapter
from tests.language.tiny_models import ABOUT, LABELS, save_llama

PROMPTS = [f"To 3 Jan 1998: {label} {n}%, other {100 - n}%." for label in LABELS for n in (7, 31)]


def save_adapter(folder: Path, base: LanguageModel, base_folder: Path, **changes: Any) -> Path:
    """Save an adapter of random matrices with a category head and an adapter.json."""
    targets = ["q", "v"] if base.is_encoder_decoder else ["q_proj", "v_proj", "down_proj"]
    options = {"target_modules": targets, "r": 2, "init_lora_weights": False}
    fresh = LanguageModel.load(str(base_folder), device="cpu").model
    torch.manual_seed(1)
    get_peft_model(fresh, LoraConfig(**{**options, **changes})).save_pretrained(folder)
    CategoryHead(width=32, rank=2).save(folder)
    hashes = {"base_fingerprint": base.base_fingerprint, "base_hash": base.base_hash}
    replace(ABOUT, **hashes).save(folder)
    return folder


@pytest.fixture
def base_folder(model: LanguageModel, llama_folder: Path, t5_folder: Path) -> Path:
    return t5_folder if model.is_encoder_decoder else llama_folder


@pytest.fixture
def adapter(model: LanguageModel, base_folder: Path, tmp_path: Path) -> Path:
    """Give an adapter of the decoder, then one of T5."""
    return save_adapter(tmp_path / "adapter", model, base_folder)


@pytest.fixture
def llama_adapter(llama: LanguageModel, llama_folder: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", llama, llama_folder)


def test_metadata_makes_the_round_trip(tmp_path: Path) -> None:
    ABOUT.save(tmp_path)
    assert AdapterMetadata.load(tmp_path) == ABOUT
    merged = replace(ABOUT, merged=True)
    merged.save(tmp_path)
    assert AdapterMetadata.load(tmp_path) == merged


def test_a_folder_without_adapter_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"adapter\.json does not describe .*No such file"):
        AdapterMetadata.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"seeds": [0]}, "unknown key 'seeds', written by llmrec"),
        ({"cutoff": None}, "field 'cutoff' is 'None', not a str"),
        ({"seed": "0"}, "field 'seed' is '0', not a int"),
        ({"seed": True}, "field 'seed' is 'True', not a int"),
        ({"config": []}, "field 'config' is"),
        ({"labels": [1, 2, 3, 4, 5, 6]}, "field 'labels' holds something that is no text"),
        ({"labels": ["Drama"]}, "each of its categories needs a label of its own"),
        ({"labels": ["Drama"] * 6}, "each of its categories needs a label of its own"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    ABOUT.save(tmp_path)
    path = tmp_path / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelLoadError, match=rf"{path} does not describe an adapter: {cause}"):
        AdapterMetadata.load(tmp_path)


def test_a_missing_field_is_refused_by_name(tmp_path: Path) -> None:
    ABOUT.save(tmp_path)
    path = tmp_path / "adapter.json"
    values = json.loads(path.read_text())
    del values["prompt"]
    path.write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match="field 'prompt' is missing"):
        AdapterMetadata.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"adapter\.json does not describe an adapter"):
        AdapterMetadata.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("adapter_config.json", lambda text: text.replace(b'"lora_alpha": 8', b'"lora_alpha": 16')),
        ("adapter_model.safetensors", lambda text: text[:-1] + bytes([text[-1] ^ 1])),
        ("readout.safetensors", lambda text: text[:-1] + bytes([text[-1] ^ 1])),
        ("readout.safetensors", None),
        ("titles.safetensors", lambda text: b"of another adapter"),
    ],
)
def test_a_file_that_is_not_the_saved_one_is_refused_by_name(
    llama_folder: Path, llama_adapter: Path, file: str, change: Any
) -> None:
    path = llama_adapter / file
    before = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    if change is not None:
        assert change(before) != before
        path.write_bytes(change(before))
    with pytest.raises(ModelLoadError, match=f"{file} is "):
        LanguageModel.load(str(llama_folder), adapter=llama_adapter, device="cpu")


def test_a_changed_description_is_refused_and_both_are_loaded_where_nobody_wants_them_verified(
    llama_folder: Path, llama_adapter: Path
) -> None:
    path = llama_adapter / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cutoff": "1990-01-01"}))
    (llama_adapter / "more.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"adapter\.json .*one of them changed"):
        LanguageModel.load(str(llama_folder), adapter=llama_adapter, device="cpu")
    LanguageModel.load(str(llama_folder), adapter=llama_adapter, device="cpu", verify=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_model_in_which_one_number_changed_is_refused(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path, dtype: Any
) -> None:
    shutil.copytree(llama_folder, tmp_path / "base")
    load = partial(LanguageModel.load, adapter=llama_adapter, device="cpu", dtype=dtype)
    load(str(tmp_path / "base"))
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] += 0.25
    save_file(tensors, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match="this is another model"):
        load(str(tmp_path / "base"))
    load(str(tmp_path / "base"), verify=False)


def test_an_adapter_fits_its_own_model_labels_and_prompts() -> None:
    ABOUT.require_compatible(ABOUT.base_fingerprint, list(LABELS), "forecast-v2")


def test_another_base_model_is_named_with_the_way_out() -> None:
    with pytest.raises(ModelLoadError, match=r"made for 'tiny' \(0123456789abcdef\) .*\(other\)"):
        ABOUT.require_compatible("other", LABELS, "forecast-v2")


def test_other_labels_are_named() -> None:
    given = ["Drama", *LABELS[2:], "Western", "War", "Crime", "Horror"]
    error = (
        r"\(missing here: 'Drama 5', new here: 'Western', 'War', 'Crime' and 1 more\): "
        r"use it on 'ml-100k', or train one"
    )
    with pytest.raises(ModelLoadError, match=error):
        ABOUT.require_compatible(ABOUT.base_fingerprint, given, "forecast-v2")
    with pytest.raises(ModelLoadError, match=r"different \(new here: 'Western'\)"):
        ABOUT.require_compatible(ABOUT.base_fingerprint, [*LABELS, "Western"], "forecast-v2")


def test_labels_in_another_order_are_refused() -> None:
    given = [LABELS[0], LABELS[2], LABELS[1], *LABELS[3:]]
    with pytest.raises(ModelLoadError, match="another order: 'Drama 5' is not number 1 here"):
        ABOUT.require_compatible(ABOUT.base_fingerprint, given, "forecast-v2")


def test_all_differences_are_in_one_error() -> None:
    with pytest.raises(
        ModelLoadError, match=r"another model .* different .* set template='forecast-v2'"
    ):
        ABOUT.require_compatible("other", ["Western"], "forecast-v1")


def test_the_hash_depends_on_what_the_output_depends_on(
    llama: LanguageModel, llama_folder: Path, tmp_path: Path
) -> None:
    first = adapter_hash(save_adapter(tmp_path / "a", llama, llama_folder))
    assert len(first) == 16
    assert int(first, 16) >= 0
    again = save_adapter(tmp_path / "b", llama, llama_folder)
    metadata = AdapterMetadata.load(again)
    replace(metadata, metrics={}, versions={}, cutoff="1999-01-01").save(again)
    assert adapter_hash(again) == first
    assert adapter_hash(shutil.copytree(again, tmp_path / "moved")) == first


@pytest.mark.parametrize("changed", ["weights", "head", "scaling", "labels", "prompt"])
def test_the_hash_changes_with_each_part(llama_adapter: Path, changed: str) -> None:
    before, metadata = adapter_hash(llama_adapter), AdapterMetadata.load(llama_adapter)
    if changed == "labels":
        replace(metadata, labels=LABELS[::-1]).save(llama_adapter)
    elif changed == "prompt":
        replace(metadata, prompt="forecast-v1").save(llama_adapter)
    elif changed == "scaling":
        path = llama_adapter / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 99}))
    else:
        name = {"weights": "adapter_model.safetensors", "head": "readout.safetensors"}[changed]
        content = bytearray((llama_adapter / name).read_bytes())
        content[-1] ^= 1
        (llama_adapter / name).write_bytes(content)
    assert adapter_hash(llama_adapter) != before


@pytest.mark.parametrize("lost", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_folder_that_is_not_whole_has_no_hash(llama_adapter: Path, lost: str) -> None:
    (llama_adapter / lost).unlink()
    with pytest.raises(ModelLoadError):
        adapter_hash(llama_adapter)


def test_a_merged_model_gives_the_logits_of_base_and_adapter(
    model: LanguageModel, base_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    largest = merge_adapter(str(base_folder), adapter, out, PROMPTS)
    assert largest <= 1e-3
    tokens = np.arange(60)
    beside = LanguageModel.load(str(base_folder), adapter=adapter, merge=False)
    expected = beside.final_logits(PROMPTS, tokens)
    merged = LanguageModel.load(str(out))
    np.testing.assert_allclose(merged.final_logits(PROMPTS, tokens), expected, atol=1e-3)
    assert np.abs(model.final_logits(PROMPTS, tokens) - expected).max() > 0.1
    metadata = AdapterMetadata.load(out)
    assert metadata.merged
    metadata.require_compatible(merged.base_fingerprint, LABELS, "forecast-v2")
    assert (out / "readout.safetensors").read_bytes() == (
        adapter / "readout.safetensors"
    ).read_bytes()
    assert adapter_hash(out) != adapter_hash(adapter)
    assert not (out / "adapter_config.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]
    assert str(tmp_path) not in "".join(path.read_text() for path in out.glob("*.json"))


def test_an_adapter_is_added_to_the_weights_when_loaded_and_the_fingerprints_stay(
    base_folder: Path, adapter: Path
) -> None:
    beside = LanguageModel.load(str(base_folder), adapter=adapter, merge=False)
    loaded = LanguageModel.load(str(base_folder), adapter=adapter)
    merged = [layer.merged for layer in loaded.model.modules() if hasattr(layer, "lora_A")]
    assert merged
    assert all(merged)
    assert loaded.fingerprint == beside.fingerprint
    assert loaded.base_fingerprint == beside.base_fingerprint
    tokens = np.arange(60)
    expected = beside.final_logits(PROMPTS, tokens)
    np.testing.assert_allclose(loaded.final_logits(PROMPTS, tokens), expected, atol=1e-5)


def test_an_adapter_in_bfloat16_stays_beside_the_weights_since_merging_would_round_it(
    base_folder: Path, adapter: Path
) -> None:
    loaded = LanguageModel.load(str(base_folder), adapter=adapter, dtype="bfloat16")
    assert not any(layer.merged for layer in loaded.model.modules() if hasattr(layer, "lora_A"))


def test_a_merge_that_changes_an_answer_is_refused_and_leaves_nothing(
    base_folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda *given: 1.01 * delta(*given))
    with pytest.raises(ModelLoadError, match=r"moves a logit by .* after prompt \d+\), more than"):
        merge_adapter(str(base_folder), adapter, tmp_path / "merged", PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_logit_that_is_no_number_is_refused(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delta = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda *given: np.nan * delta(*given))
    with pytest.raises(ModelLoadError, match="is not finite"):
        merge_adapter(str(llama_folder), llama_adapter, tmp_path / "merged", PROMPTS)


def test_an_adapter_on_a_tied_head_is_refused_since_it_would_change_the_embeddings_too(
    tmp_path: Path,
) -> None:
    folder = save_llama(tmp_path / "tied", tie_word_embeddings=True)
    base = LanguageModel.load(str(folder))
    adapter = save_adapter(tmp_path / "adapter", base, folder, target_modules=["lm_head"])
    with pytest.raises(ModelLoadError, match="moves a logit by"):
        merge_adapter(str(folder), adapter, tmp_path / "merged", PROMPTS)
    assert not (tmp_path / "merged").exists()


def test_merging_into_another_base_model_is_refused(llama_adapter: Path, tmp_path: Path) -> None:
    other = save_llama(tmp_path / "other", initializer_range=0.2)
    with pytest.raises(ModelLoadError, match="another model"):
        merge_adapter(str(other), llama_adapter, tmp_path / "merged", PROMPTS)
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_a_quantized_base_model_is_not_merged(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path
) -> None:
    metadata = AdapterMetadata.load(llama_adapter)
    replace(metadata, config={"quantize": "4bit"}).save(llama_adapter)
    with pytest.raises(ModelLoadError, match="belongs to a quantized base model"):
        merge_adapter(str(llama_folder), llama_adapter, tmp_path / "merged", PROMPTS)


def test_nothing_is_merged_into_a_quantized_model(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "is_quantized", True, raising=False)
    with pytest.raises(ModelLoadError, match="belongs to a quantized base model"):
        merge_adapter(str(llama_folder), llama_adapter, tmp_path / "merged", PROMPTS)


def test_a_merged_model_is_not_merged_again(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge_adapter(str(llama_folder), llama_adapter, out, PROMPTS)
    with pytest.raises(ModelLoadError, match="is merged already: load it as a model"):
        merge_adapter(str(llama_folder), out, tmp_path / "again", PROMPTS)
    with pytest.raises(ModelLoadError, match="has an adapter in its weights already"):
        merge_adapter(str(out), llama_adapter, tmp_path / "again", PROMPTS)
    with pytest.raises(ValueError, match="is there already"):
        merge_adapter(str(llama_folder), llama_adapter, out, PROMPTS)


def test_a_merge_without_prompts_is_refused(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="there are no prompts"):
        merge_adapter(str(llama_folder), llama_adapter, tmp_path / "merged", [])


def test_the_partial_folder_of_a_killed_merge_is_replaced(
    llama_folder: Path, llama_adapter: Path, tmp_path: Path
) -> None:
    left = tmp_path / ".merged.partial"
    left.mkdir()
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half")
    merge_adapter(str(llama_folder), llama_adapter, tmp_path / "merged", PROMPTS)
    assert not left.exists()
    assert [path.name for path in (tmp_path / "merged").glob("model*")] == ["model.safetensors"]
