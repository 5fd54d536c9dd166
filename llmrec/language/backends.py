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
        If the model is an encoder-decoder or has no category head, or cannot be converted.
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
    if backend == "openvino":
        from llmrec.language.openvino_states import OpenVinoReader

        return OpenVinoReader(model, head.depth, numbers)
    from llmrec.language.vllm_states import VllmReader

    return VllmReader(model, tokenizer, head.depth, numbers, fingerprint)


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
