"""Models and adapters that load, and errors that name what is wrong with others."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, PreTrainedConfig

from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.language import pretrained
from llmrec.language.backends import torch_dtype
from llmrec.language.model import LanguageModel
from tests.language.tiny_models import save_llama, save_t5

SOME = np.arange(20)


def load(folder: Path | str, **options: Any) -> LanguageModel:
    return LanguageModel.load(str(folder), device="cpu", **options)


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    """Give a whole model folder that the test may damage."""
    return shutil.copytree(llama_folder, tmp_path / "model")


def save_adapter(base: Path, folder: Path, **changes: Any) -> Path:
    """Save a LoRA adapter that changes its base model's logits."""
    targets = {"target_modules": ["q_proj", "v_proj"], "r": 2, "init_lora_weights": False}
    torch.manual_seed(1)
    adapted = get_peft_model(load(base).model, LoraConfig(**{**targets, **changes}))
    adapted.save_pretrained(folder)
    return folder


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"{tmp_path}.*cannot be loaded.*smollm2-135m"):
        load(tmp_path)


def test_a_truncated_weight_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: .*header"):
        load(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"no file named model\.safetensors"):
        load(folder)


def test_a_missing_weight_is_refused_rather_than_initialized(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 weights are not in the file.*'model.norm.weight'"):
        load(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load(folder)


def test_a_config_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load(folder)


def test_an_encoder_alone_is_refused(folder: Path) -> None:
    config = BertConfig(vocab_size=360, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    BertModel(config).save_pretrained(folder)
    with pytest.raises(ModelLoadError, match="its architecture is 'BertModel'"):
        load(folder)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="its architecture is 'none'"):
        pretrained._choose_loader(PreTrainedConfig())


@pytest.mark.parametrize("save", [save_llama, save_t5], ids=["llama", "t5"])
def test_a_folder_without_a_tokenizer_is_refused(save: Any, tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match="there is no tokenizer in it"):
        load(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    save_llama(tmp_path, vocab_size=100)
    with pytest.raises(ModelLoadError, match="tokens, more than it has embeddings"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "/no/such/folder", "no-such-model"])
def test_a_name_that_cannot_be_found_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"model '{name}' cannot be loaded.*hub id"):
        load(name)


def test_t5_is_refused_in_float16_and_loads_in_bfloat16(t5_folder: Path) -> None:
    with pytest.raises(ModelLoadError, match="T5 overflows in float16: use dtype='bfloat16'"):
        load(t5_folder, dtype="float16")
    assert load(t5_folder, dtype="bfloat16").model.dtype == torch.bfloat16


def test_the_dtype_is_float32_on_a_cpu_and_bfloat16_on_a_gpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert torch_dtype("auto", "cpu", "llama") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert torch_dtype("auto", "cuda:0", "llama") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert torch_dtype("auto", "cuda:0", "llama") == torch.float32


def test_an_adapter_makes_the_round_trip(llama_folder: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama_folder, tmp_path / "adapter")
    base, adapted = load(llama_folder), load(llama_folder, adapter=adapter)
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    trained = get_peft_model(load(llama_folder).model, config).eval()
    with torch.inference_mode():
        expected = trained(torch.tensor(base.encode(["Drama"]))).logits[0, -1, :20].numpy()
    np.testing.assert_allclose(adapted.final_logits(["Drama"], SOME)[0], expected, atol=1e-5)
    assert np.abs(base.final_logits(["Drama"], SOME) - expected).max() > 1e-3
    assert adapted.fingerprint != base.fingerprint


def test_an_adapter_on_the_head_is_used_too(llama_folder: Path, tmp_path: Path) -> None:
    adapter = save_adapter(llama_folder, tmp_path, target_modules=["lm_head"])
    adapted = load(llama_folder, adapter=adapter)
    with torch.inference_mode():
        expected = adapted.model(torch.tensor(adapted.encode(["Drama"]))).logits[0, -1, :20]
    np.testing.assert_allclose(adapted.final_logits(["Drama"], SOME)[0], expected, atol=1e-5)
    (line,) = adapted.generate(["Drama"], constrain='start: " a" | " b"')
    assert line.text in ("a", "b")


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 1}, {"num_hidden_layers": 4}, {"hidden_size": 16}]
)
def test_an_adapter_of_another_base_model_is_refused(
    llama_folder: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    other = save_llama(tmp_path / "other", **changes)
    adapter = save_adapter(other, tmp_path / "adapter")
    with pytest.raises(ModelLoadError, match=r"adapter .* cannot be loaded.*made for this base"):
        load(llama_folder, adapter=adapter)


def test_an_adapter_of_a_decoder_is_refused_by_t5(
    llama_folder: Path, t5_folder: Path, tmp_path: Path
) -> None:
    adapter = save_adapter(llama_folder, tmp_path)
    with pytest.raises(ModelLoadError, match=r"adapter .* cannot be loaded"):
        load(t5_folder, adapter=adapter)


def test_a_folder_that_holds_no_adapter_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"there is no adapter_model\.safetensors in it"):
        load(llama_folder, adapter=tmp_path)


def test_a_truncated_adapter_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    weights = save_adapter(llama_folder, tmp_path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match=r"adapter .* cannot be loaded"):
        load(llama_folder, adapter=tmp_path)


def test_a_soft_prompt_is_refused_rather_than_ignored(llama_folder: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(load(llama_folder).model, config).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="it is a soft prompt"):
        load(llama_folder, adapter=tmp_path)


def test_quantization_is_configured_in_4_or_8_bits() -> None:
    if find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    four = pretrained._make_quantization("4bit", torch.bfloat16)
    assert four is not None
    assert (four.load_in_4bit, four.bnb_4bit_quant_type) == (True, "nf4")
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    eight = pretrained._make_quantization("8bit", torch.float32)
    assert eight is not None
    assert (eight.load_in_4bit, eight.load_in_8bit) == (False, True)
    assert eight.llm_int8_threshold == 0  # or answers would depend on the batch
    assert pretrained._make_quantization(None, torch.float32) is None


def test_quantization_without_bitsandbytes_names_the_pip_command(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[quantized\]'"):
        load(llama_folder, quantize="4bit")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_a_quantized_model_gives_the_same_logits_alone_and_in_a_batch(
    tmp_path: Path, quantize: Literal["4bit", "8bit"]
) -> None:
    # Blocks of 4 bits are 64 wide, and on some processors a matrix may not be less.
    llama = save_llama(tmp_path / "llama", hidden_size=64, intermediate_size=128)
    t5 = save_t5(tmp_path / "t5", d_model=64, d_kv=16, d_ff=128)
    prompts = ["Drama", "Comedy 22%, other 47%: Drama is rising."]
    for base in (llama, t5):
        model = load(base, quantize=quantize)
        alone = np.vstack([model.final_logits([prompt], SOME) for prompt in prompts])
        np.testing.assert_allclose(model.final_logits(prompts, SOME), alone, atol=1e-4)
        assert np.abs(load(base).final_logits(prompts, SOME) - alone).max() > 1e-4
        assert model.generate(["Drama"], constrain='start: " Drama."')[0].text == "Drama."
