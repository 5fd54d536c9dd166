"""An adapter merged into its base model, written only if the merged model says the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.files import atomic_folder
from llmrec.errors import ModelLoadError
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.heads import CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE
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
    """Write the base model with a LoRA adapter in its weights, if it says the same.

    What is compared is what was written: the folder is loaded again before it gets its name. It
    loads like any model, has the adapter's readout and memory of titles, and an adapter.json of its
    own, and is in float32.

    Parameters
    ----------
    model
        The base model: what `LanguageModel.load` takes.
    adapter, out
        Folder to read, and folder to write, which must not be there yet.
    prompts
        Texts to compare at.
    tolerance
        Largest difference of a logit, of any token after any prompt, that is let pass.

    Returns
    -------
    float
        The largest difference found.

    Raises
    ------
    ModelLoadError
        If the adapter does not fit, the base model is quantized, or a logit differs by more;
        nothing is written then.
    ValueError
        If ``out`` is there already or there are no prompts.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: give a folder that is not")
    if not prompts:
        raise ValueError("there are no prompts to compare the merged model at: give some")
    about = AdapterMetadata.load(adapter)
    adapted = _loaded(about, model, adapter)
    token_ids = np.arange(adapted.model.get_output_embeddings().out_features)
    before = adapted.final_logits(prompts, token_ids)
    _merge_layers(adapted.model)
    with atomic_folder(out) as folder:
        adapted.model.save_pretrained(folder)
        adapted.tokenizer.save_pretrained(folder)
        for own in (CATEGORY_HEAD_FILE, TITLE_EMBEDDINGS_FILE):
            if (adapter / own).is_file():
                shutil.copyfile(adapter / own, folder / own)
        merged = LanguageModel.load(str(folder), dtype="float32")
        change = np.abs(merged.final_logits(prompts, token_ids) - before)
        _check_same(change, tolerance, merged)
        replace(about, base_fingerprint=merged.base_fingerprint, merged=True).save(folder)
    return float(change.max())


def _loaded(about: AdapterMetadata, model: str, adapter: Path) -> LanguageModel:
    """Load the base model with its adapter, if the two can be merged at all."""
    if about.merged:
        raise ModelLoadError(f"{adapter} is merged already: load it as a model")
    if AdapterMetadata.load_if_present(Path(model).expanduser()):
        raise ModelLoadError(f"{model} has an adapter in its weights already: give the base model")
    adapted = LanguageModel.load(model, adapter=adapter, dtype="float32")
    if about.config.get("quantize") or getattr(adapted.model, "is_quantized", False):
        raise ModelLoadError(
            f"{adapter} belongs to a quantized base model, and rounding the merged weights to its "
            "few bits would lose much of the adapter: load the two side by side instead"
        )
    about.require_compatible(adapted.base_fingerprint, about.labels, about.prompt)
    return adapted


def _merge_layers(model: Any) -> None:
    """Add each LoRA layer's product to the layer it wraps, and put that back in its place."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "base_layer"):
            layer.merge()
            model.set_submodule(name, layer.base_layer)
    del model.peft_config


def _check_same(change: FloatArray, tolerance: float, model: LanguageModel) -> None:
    """Raise ModelLoadError unless all of the (n_prompts, n_tokens) changes are small."""
    prompt, token = np.unravel_index(np.argmax(change), change.shape)
    if not change[prompt, token] <= tolerance:
        raise ModelLoadError(
            f"merging moves a logit by {change[prompt, token]:.3g} (token "
            f"{model.tokenizer.decode([int(token)])!r} after prompt {prompt}), more than "
            f"{tolerance:g}; nothing was written: use base model and adapter side by side"
        )
