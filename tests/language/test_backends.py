"""Other backends give the states that torch gives, and say so where they do not."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.backends import choose_precision, saved_options, warn_of_emulation
from llmrec.language.heads import CategoryHead, TitleEmbeddings, Verbalizer, title_hashes
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from tests.language.test_adapters import save_adapter
from tests.language.tiny_models import LABELS

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed: pip install 'llmrec[openvino]'",
)
# Lengths from 1 to about 100 tokens, so that batches are padded, with titles that are one position.
PROMPTS = (
    "Drama",
    f"To 3 Jan 1998: {pooled_position(['Mr. Bean (1990)'])} 31%, Comedy 22%. Forecast:",
    "Sci-Fi & Fantasy 31%, " * 6 + "Forecast:",
    f"{pooled_position(['Mr. Bean (1990)', 'Drama 5'])} is new.",
)
DEPTH = 1


@pytest.fixture(scope="module")
def adapter(
    llama: LanguageModel, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a LoRA adapter whose heads read the first of two layers, with title embeddings."""
    folder = save_adapter(tmp_path_factory.mktemp("adapter"), llama, llama_folder)
    torch.manual_seed(2)
    head = CategoryHead(width=32, rank=4, depth=DEPTH)
    titles = TitleEmbeddings(title_hashes(llama.encode([" Mr. Bean (1990)", " Drama 5"])), 32, 4)
    for values in (head.up.weight, titles.input_projection.weight):
        torch.nn.init.normal_(values)
    head.save(folder)
    titles.save(folder)
    AdapterMetadata.load(folder).save(folder)  # with the hashes of these heads
    return folder


def load(folder: Path, adapter: Path, **options: Any) -> LanguageModel:
    return LanguageModel.load(str(folder), adapter=adapter, device="cpu", **options)


@pytest.fixture(scope="module")
def plain(llama_folder: Path, adapter: Path) -> LanguageModel:
    return load(llama_folder, adapter)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_openvino
def test_openvino_in_float32_is_torch_in_other_hands(
    plain: LanguageModel, llama_folder: Path, adapter: Path
) -> None:
    other = load(llama_folder, adapter, backend="openvino")
    expected = plain.final_states(PROMPTS, DEPTH)
    torch.testing.assert_close(other.final_states(PROMPTS, DEPTH), expected, atol=1e-4, rtol=1e-4)
    assert np.ptp(expected.numpy(), axis=0).min() > 1e-3, "prompts must differ to mean anything"
    verbalizer = Verbalizer(LABELS, plain.encode)
    for one, two in (
        (plain.score_categories(PROMPTS, verbalizer), other.score_categories(PROMPTS, verbalizer)),
        (plain.title_probabilities(PROMPTS), other.title_probabilities(PROMPTS)),
    ):
        np.testing.assert_allclose(one, two, atol=1e-4)
    assert (other.fingerprint, other.precision) == (plain.fingerprint, "float32")
    assert other.generate(PROMPTS, max_new_tokens=5) == plain.generate(PROMPTS, max_new_tokens=5)
    # Other layers than those that were converted are still torch's.
    torch.testing.assert_close(other.final_states(PROMPTS, 2), plain.final_states(PROMPTS, 2))


@needs_openvino
def test_openvino_in_8_bits_is_near_and_has_a_fingerprint_of_its_own(
    plain: LanguageModel, llama_folder: Path, adapter: Path
) -> None:
    other = load(llama_folder, adapter, backend="openvino", quantize="8bit")
    expected = plain.final_states(PROMPTS, DEPTH)
    assert 1e-4 < distance(other.final_states(PROMPTS, DEPTH), expected) < 0.03
    assert other.fingerprint == f"{plain.fingerprint} openvino 8bit"
    assert other.precision == "openvino 8bit"


@needs_openvino
@pytest.mark.parametrize("options", [{}, {"quantize": "8bit"}], ids=["float32", "8bit"])
def test_openvino_reads_a_batch_as_single_prompts_in_any_order(
    llama_folder: Path, adapter: Path, options: dict[str, Any]
) -> None:
    model = load(llama_folder, adapter, backend="openvino", **options)
    together = model.final_states(PROMPTS, DEPTH)
    alone = torch.cat([model.final_states([prompt], DEPTH) for prompt in PROMPTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    backwards = model.final_states(PROMPTS[::-1], DEPTH).flip(0)
    torch.testing.assert_close(backwards, alone, atol=1e-4, rtol=1e-4)


@needs_openvino
def test_openvino_in_bfloat16_is_near_or_refused_by_the_processor(
    plain: LanguageModel, llama_folder: Path, adapter: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    options: dict[str, Any] = {"backend": "openvino", "dtype": "bfloat16"}
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ModelLoadError, match="no instructions for bfloat16"):
            load(llama_folder, adapter, **options)
        return
    other = load(llama_folder, adapter, **options)
    states = other.final_states(PROMPTS, DEPTH)
    assert 1e-4 < distance(states, plain.final_states(PROMPTS, DEPTH)) < 0.03
    assert other.precision == "openvino bfloat16"


@needs_openvino
def test_converting_a_model_reports_to_nobody(
    llama_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = pytest.importorskip("openvino_telemetry")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was about to be reported over the network")

    monkeypatch.setattr(telemetry.Telemetry, "init", refuse)
    load(llama_folder, adapter, backend="openvino")


@pytest.mark.parametrize("backend", ["openvino", "vllm"])
def test_a_model_whose_states_no_head_reads_is_refused(
    backend: Any, llama_folder: Path, t5_folder: Path
) -> None:
    for folder, what in ((llama_folder, "without category head"), (t5_folder, "encoder-decoder")):
        with pytest.raises(ModelLoadError, match=rf"{what}, .*backend '{backend}'"):
            LanguageModel.load(str(folder), device="cpu", backend=backend)


@pytest.mark.parametrize("backend", ["openvino", "vllm"])
def test_a_backend_that_is_not_installed_is_named_with_its_command(
    backend: Any, llama_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    monkeypatch.delitem(sys.modules, "llmrec.language.openvino_states", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install ('llmrec\[openvino\]'|vllm)"):
        load(llama_folder, adapter, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("onnx", "auto", None), "'onnx'; it should be one of 'torch', 'openvino', 'vllm'"),
        (("openvino", "float16", None), "does not read in float16: give dtype='float32' or"),
        (("openvino", "auto", "4bit"), "does not read in 4bit: .* or quantize='8bit'"),
        (("vllm", "auto", "8bit"), "does not read in 8bit: give dtype='bfloat16' or"),
    ],
)
def test_a_backend_or_numbers_that_do_not_exist_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        choose_precision(*options)


@pytest.mark.parametrize(
    ("precision", "given", "found"),
    [
        ("float32", {}, {"dtype": "float32"}),
        ("float32", {"backend": "openvino"}, {"dtype": "float32"}),
        ("openvino 8bit", {}, {"backend": "openvino", "quantize": "8bit"}),
        ("openvino 8bit", {"dtype": "float32"}, {"backend": "openvino"}),
        ("openvino 8bit", {"backend": "torch"}, {}),
        ("vllm bfloat16", {}, {"backend": "vllm", "dtype": "bfloat16"}),
    ],
)
def test_a_model_is_loaded_again_as_it_was_unless_told_otherwise(
    precision: str, given: Mapping[str, str], found: Mapping[str, str]
) -> None:
    assert saved_options(precision, given) == found


@pytest.mark.parametrize("has", [True, False])
def test_emulated_bfloat16_is_warned_of(
    has: bool, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    found = {"avx2": True, "avx512_bf16": has}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    warn_of_emulation()
    messages = [str(one.message) for one in recwarn]
    assert [message for message in messages if "dtype='float32'" in message] == messages
    assert len(messages) == (not has)


class FakeVllm:
    """The part of vLLM 0.33 that is used: a checkpoint's raw last states of embedded prompts."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.calls.append(options)
        self.model = LanguageModel.load(options["model"], device="cpu").model

    def encode(
        self,
        prompts: Sequence[Mapping[str, Any]],
        params: Any,
        *,
        pooling_task: str,
        use_tqdm: bool,
    ) -> list[Any]:
        assert (params.use_activation, pooling_task, use_tqdm) == (False, "embed", False)
        found = []
        for prompt in prompts:
            (embedded,) = prompt.values()
            assert [*prompt] == ["prompt_embeds"]
            assert embedded.dtype == getattr(torch, self.options["dtype"])
            states = self.model.get_decoder()(inputs_embeds=embedded.float()[None])
            found.append(SimpleNamespace(outputs=SimpleNamespace(data=states[0][0, -1])))
        return found


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeVllm]:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(FakeVllm, "calls", [])
    module, config = ModuleType("vllm"), ModuleType("vllm.config")
    vars(module).update(LLM=FakeVllm, PoolingParams=SimpleNamespace)
    vars(config).update(PoolerConfig=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.config", config)
    return FakeVllm


def test_vllm_gets_the_first_layers_with_lora_merged_and_embedded_prompts(
    plain: LanguageModel, llama_folder: Path, adapter: Path, vllm: type[FakeVllm]
) -> None:
    other = load(llama_folder, adapter, backend="vllm", dtype="float32")
    expected = plain.final_states(PROMPTS, DEPTH)
    torch.testing.assert_close(other.final_states(PROMPTS, DEPTH), expected, atol=1e-4, rtol=1e-4)
    (options,) = vllm.calls
    assert (options["runner"], options["convert"], options["dtype"]) == (
        *("pooling", "embed", "float32"),
    )
    assert options["enable_prompt_embeds"]
    assert vars(options["pooler_config"]) == {"seq_pooling_type": "LAST", "use_activation": False}
    # It has not been measured to be torch's, so a calibration by torch is not its own.
    assert other.fingerprint == f"{plain.fingerprint} vllm float32"


def test_vllm_reads_in_bfloat16_by_default(
    plain: LanguageModel, llama_folder: Path, adapter: Path, vllm: type[FakeVllm]
) -> None:
    other = load(llama_folder, adapter, backend="vllm")
    assert other.precision == "vllm bfloat16"
    states = other.final_states(PROMPTS, DEPTH)
    assert distance(states, plain.final_states(PROMPTS, DEPTH)) < 0.03
