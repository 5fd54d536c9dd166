"""Texts to vectors: mean-pooled hidden states of an encoder such as all-MiniLM-L6-v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from llmrec.language.pretrained import DEFAULT_ENCODER, load_encoder
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


TOKENS_PER_BATCH = 2048


class TextEncoder:
    """An encoder of texts as unit vectors: the product of two is their cosine.

    Parameters
    ----------
    name
        What it is called in reports.
    model, tokenizer
        From transformers, in evaluation mode; see `load`.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer

    @classmethod
    def load(cls, name: str = DEFAULT_ENCODER, *, device: str = "auto") -> TextEncoder:
        """Load by name: ``all-minilm-l6-v2`` (embedded), a local folder, or a hub id.

        Raises
        ------
        ModelLoadError, MissingExtraError
            See `load_encoder`.
        """
        return cls(name, *load_encoder(name, device=device))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(n_texts, d) unit vectors: means of the last hidden states over a text's tokens.

        Reimers and Gurevych 2019, arXiv 1908.10084. Texts of one length go together: without
        padding a text's vector does not depend on the others.
        """
        rows = [self.tokenizer(text, truncation=True)["input_ids"] for text in texts]
        lengths = np.array([len(row) for row in rows])
        found = np.empty((len(rows), self.model.config.hidden_size))
        bar = tqdm(total=len(rows), desc="embedding texts", delay=2, leave=False, disable=None)
        for length in np.unique(lengths):
            (equal,) = np.nonzero(lengths == length)
            size = max(1, TOKENS_PER_BATCH // max(1, int(length)))
            for start in range(0, len(equal), size):
                batch = equal[start : start + size]
                ids = torch.tensor([rows[i] for i in batch], device=self.model.device)
                with torch.inference_mode():
                    states = self.model(input_ids=ids).last_hidden_state.mean(dim=1)
                found[batch] = states.float().cpu().numpy()
                bar.update(len(batch))
        bar.close()
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(norms, 1e-12))
