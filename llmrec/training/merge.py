"""An adapter merged into its base model, written only if its logits stay the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.data.files import atomic_folder
from llmrec.errors import ModelLoadError
from llmrec.language.adapters import (
    CATEGORY_HEAD_FILE,
    TITLE_EMBEDDINGS_FILE,
    AdapterMetadata,
)
from llmrec.language.model import LanguageModel
from llmrec.types import FloatArray


def merge_adapter(
    model: str,
    adapter: Path,
    out: Path,
    prompts: Sequence[str],
    *,
    tolerance: float = 1e-3,
) -> float:
    """Write the base model with a LoRA adapter in its weights, if its logits stay the same.

    The written folder itself is loaded and compared, before it gets its name. It loads like any
    model, in float32, and has the adapter's category head and title embeddings, and an adapter.json
    of its own.

    Parameters
    ----------
    model
        The base model: what `LanguageModel.load` takes.
    adapter, out
        Folder to read, and folder to write, which must not be there yet.
    prompts
        Texts to compare the logits at.
    tolerance
        Largest difference of a logit that is accepted, of any token after any prompt.

    Returns
    -------
    float
        The largest difference.

    Raises
    ------
    ModelLoadError
        If the adapter does not fit, the base model is quantized, or a logit or tensor of what was
        written differs; nothing is left then.
    ValueError
        If ``out`` exists or there are no prompts.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: give a folder that is not")
    if not prompts:
        raise ValueError("there are no prompts to compare the merged model at: give some")
    about = AdapterMetadata.load(adapter)
    adapted = _load_adapted(about, model, adapter)
    token_ids = np.arange(adapted.model.get_output_embeddings().out_features)
    before = adapted.final_logits(prompts, token_ids)
    _merge_layers(adapted.model)
    with atomic_folder(out) as folder:
        adapted.model.save_pretrained(folder)
        adapted.tokenizer.save_pretrained(folder)
        for file in (CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE):
            if (adapter / file).is_file():
                shutil.copyfile(adapter / file, folder / file)
        merged = LanguageModel.load(str(folder), dtype="float32")
        _check_written(adapted.model, merged.model)
        changes = np.abs(merged.final_logits(prompts, token_ids) - before)
        _check_changes(changes, tolerance, merged)
        print_of = merged.base_fingerprint
        replace(about, base_fingerprint=print_of, base_hash="", merged=True).save(folder)
    return float(changes.max())


def _load_adapted(about: AdapterMetadata, model: str, adapter: Path) -> LanguageModel:
    """Load the base model with its adapter; ModelLoadError if the two cannot be merged."""
    if about.merged:
        raise ModelLoadError(f"{adapter} is merged already: load it as a model")
    if AdapterMetadata.load_if_present(Path(model).expanduser()):
        raise ModelLoadError(f"{model} has an adapter in its weights already: give the base model")
    adapted = LanguageModel.load(model, adapter=adapter, dtype="float32", merge=False)
    if about.config.get("quantize") or getattr(adapted.model, "is_quantized", False):
        raise ModelLoadError(
            f"{adapter} belongs to a quantized base model, and rounding the merged weights to its "
            "few bits would lose much of the adapter: load the two side by side instead"
        )
    about.require_compatible(adapted.base_fingerprint, about.labels, about.prompt)
    return adapted


def _merge_layers(model: Any) -> None:
    """Add each LoRA layer's product to the layer that it wraps, which then replaces it."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "base_layer"):
            layer.merge()
            model.set_submodule(name, layer.base_layer)
    del model.peft_config


def _check_written(model: Any, read: Any) -> None:
    """Raise ModelLoadError unless a model that was read has the very tensors of the written one."""
    tensors = read.state_dict()
    for name, values in model.state_dict().items():
        if name not in tensors or not torch.equal(values.cpu(), tensors[name].cpu()):
            raise ModelLoadError(
                f"the merged model was written with another {name}; the folder was taken away: "
                "merge again, on a disk that works"
            )


def _check_changes(changes: FloatArray, tolerance: float, model: LanguageModel) -> None:
    """Raise ModelLoadError unless all of the (n_prompts, n_tokens) changes are small."""
    prompt, token = np.unravel_index(np.argmax(changes), changes.shape)
    if not changes[prompt, token] <= tolerance:
        raise ModelLoadError(
            f"merging moves a logit by {changes[prompt, token]:.3g} (token "
            f"{model.tokenizer.decode([int(token)])!r} after prompt {prompt}), more than "
            f"{tolerance:g}; nothing was written: use base model and adapter side by side"
        )
