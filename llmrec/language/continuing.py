"""Live use of a language model: prompts read on from what was read of a person before."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llmrec.language.model import LanguageModel
from llmrec.language.prefixes import DEFAULT_BYTES, FOLDER_BYTES, CachePrecision, PrefixCache


def continue_prompts(
    model: LanguageModel,
    *,
    max_bytes: int = DEFAULT_BYTES,
    precision: CachePrecision = "float16",
    folder: Path | None = None,
    max_folder_bytes: int = FOLDER_BYTES,
) -> PrefixCache:
    """Let a model read on, from now on, from what it read of a person's last prompt.

    Its scores then differ from those of whole prompts by rounding. T5, whose encoder sees all of a
    prompt at once, and backends beside torch go on reading whole prompts. See `PrefixCache` for the
    parameters; it is the model's ``prefixes``, and None there ends it.
    """
    whole = "an encoder reads whole prompts" if model.is_encoder_decoder else ""
    whole = "the backend keeps nothing of a prompt" if model.reader is not None else whole
    model.prefixes = PrefixCache(
        _fingerprint(model),
        max_bytes,
        precision=precision,
        folder=folder,
        max_folder_bytes=max_folder_bytes,
        whole=whole,
    )
    return model.prefixes


def forget_prompts(model: LanguageModel, person: str) -> None:
    """Drop all that a model keeps of a person's prompts."""
    model.prompt_cache.clear()  # which does not know whose its prompts are
    if model.prefixes is not None:
        model.prefixes.forget(person)


def _fingerprint(model: LanguageModel) -> str:
    """Hash what keys and values depend on: weights, the layers used, the vectors of titles."""
    depth = model.category_head and model.category_head.depth
    digest = hashlib.sha256(f"{model.fingerprint} {depth}".encode())
    titles = model.title_embeddings
    for name, value in sorted((titles.state_dict() if titles is not None else {}).items()):
        digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
