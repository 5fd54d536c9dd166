"""Backends that read prompts to hidden states in place of torch, and the options that choose them.

torch embeds positions, and applies the heads to the states; a backend runs the layers in between.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from llmrec.errors import ModelLoadError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrec.language.forward import StateReader
    from llmrec.language.heads import CategoryHead

Backend = Literal["torch", "openvino", "vllm"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["4bit", "8bit"]
# Most that a state may differ from torch's, of its own size. Measured with the shipped engines:
# .000002 in float32, .01 in bfloat16, .04 in 8 bits.
_MAX_DISTANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1, "8bit": 0.1}
_PROBE_LENGTHS = (3, 16, 64)  # tokens of the prompts that it is compared by
_READ_IN = {  # kinds of numbers that a backend reads in; the first is the default
    "openvino": ("float32", "bfloat16", "8bit"),
    "vllm": ("bfloat16", "float16", "float32"),
}


def choose_precision(backend: Backend, dtype: str, quantize: str | None) -> str:
    """Choose what a backend beside torch reads in: "openvino 8bit"; "" for torch.

    Raises
    ------
    ModelLoadError
        If there is no such backend, or it does not read in these numbers.
    """
    if backend not in get_args(Backend):
        known = ", ".join(map(repr, get_args(Backend)))
        raise ModelLoadError(f"backend is {backend!r}; it should be one of {known}")
    if backend == "torch":
        return ""
    kinds = _READ_IN[backend]
    chosen = quantize or (kinds[0] if dtype == "auto" else dtype)
    if chosen not in kinds:
        known = " or ".join(map(_option, kinds))
        raise ModelLoadError(f"backend {backend!r} does not read in {chosen}: give {known}")
    return f"{backend} {chosen}"


def load_reader(
    precision: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    head: CategoryHead | None,
    fingerprint: str,
) -> StateReader:
    """Hand a model's layers, up to the one that its category head reads, to a backend.

    Parameters
    ----------
    precision
        See `choose_precision`.
    model
        Of float32 weights, LoRA merged into them.
    fingerprint
        Of the model, see `LanguageModel.fingerprint`.

    Raises
    ------
    ModelLoadError
        If the model is an encoder-decoder or has no category head, cannot be converted, or is read
        otherwise than torch reads it.
    MissingExtraError
        If the backend's package is not installed.
    """
    backend, _, numbers = precision.partition(" ")
    if model.config.is_encoder_decoder or head is None:
        what = "an encoder-decoder" if model.config.is_encoder_decoder else "without category head"
        raise ModelLoadError(
            f"the model is {what}, and backend {backend!r} computes the states that the category "
            "head of a decoder's adapter reads: give the adapter, or backend='torch'"
        )
    reader: StateReader
    if backend == "openvino":
        from llmrec.language.openvino_states import OpenVinoReader

        reader = OpenVinoReader(model, head.depth, numbers)
    else:
        from llmrec.language.vllm_states import VllmReader

        reader = VllmReader(model, tokenizer, head.depth, numbers, fingerprint)
    _require_near_states(reader, model, backend, numbers)
    return reader


def _require_near_states(
    reader: StateReader, model: PreTrainedModel, backend: str, numbers: str
) -> None:
    """Raise a ModelLoadError if a backend's states are further from torch's than its numbers say.

    The prompts are tokens from all over the vocabulary.
    """
    import torch

    from llmrec.language.forward import truncated_decoder

    table, limit = model.get_input_embeddings().weight, _MAX_DISTANCE[numbers]
    with torch.inference_mode():
        decoder = truncated_decoder(model, reader.depth)
        for length in _PROBE_LENGTHS:
            prompt = table[torch.arange(length, device=table.device) * len(table) // length]
            states = decoder(inputs_embeds=prompt[None], use_cache=False).last_hidden_state
            expected = states[0, -1].float().cpu()
            distance = float((reader([prompt])[0] - expected).norm() / expected.norm())
            if not distance <= limit:
                raise ModelLoadError(
                    f"backend {backend!r} in {numbers} reads a state that is {distance:.2g} of its "
                    f"size away from torch's, more than {limit:g}: load it with backend='torch'"
                )


def saved_options(precision: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options of `LanguageModel.load` for a `LanguageModel.precision` that was saved.

    Those that are ``given`` are not contradicted: another backend, or a dtype beside 8 bits.
    """
    backend, _, numbers = precision.rpartition(" ")
    if backend and given.get("backend", backend) != backend:
        return {}
    found = {"backend": backend} if backend else {}
    if numbers != "8bit":
        return found | {"dtype": numbers}
    return found if "dtype" in given else found | {"quantize": numbers}


def describe_options(options: Mapping[str, Any]) -> str:
    """Write options as they are given in a call: "backend='openvino', quantize='8bit'"."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def torch_dtype(dtype: Precision, device: str, model_type: str) -> torch.dtype:
    """Choose what torch holds weights in; ValueError if the model overflows in it."""
    import torch

    if dtype == "float16" and model_type in ("t5", "mt5", "umt5", "longt5"):
        raise ValueError("T5 overflows in float16: use dtype='bfloat16' or 'float32'")
    if dtype == "auto":
        on_gpu = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    if dtype == "bfloat16" and device == "cpu":
        warn_of_emulation()
    found: torch.dtype = getattr(torch, dtype)
    return found


def warn_of_emulation() -> None:
    """Warn where the processor has no instructions for bfloat16: torch emulates them, slowly."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        has_any = any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)
    else:  # an older torch
        has_any = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not has_any:
        warnings.warn(
            "this processor has no instructions for bfloat16, and emulating them is slower than "
            "float32: load the model with dtype='float32'",
            stacklevel=2,
        )


def _option(numbers: str) -> str:
    name = "quantize" if numbers.endswith("bit") else "dtype"
    return f"{name}={numbers!r}"
