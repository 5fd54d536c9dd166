"""An encoder and a language model without weights, for scorers that need them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from llmrec.language.codec import Codec
from llmrec.types import FloatArray, IntArray
from tests.worlds import CATEGORIES, catalog


class LetterEncoder:
    """A text's vector counts its letters."""

    name = "letters"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        found = np.array([[text.count(chr(97 + i)) + 0.1 for i in range(26)] for text in texts])
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


class FakeTitleModel:
    """Has embeddings of some titles, and probabilities of them by the prompt's hash."""

    name = "fake"
    is_encoder_decoder = False

    def __init__(self, titles: Sequence[str]) -> None:
        known = {tuple(self.encode([f" {title}"])[0]): row for row, title in enumerate(titles)}
        self.title_embeddings: Any = SimpleNamespace(
            keys=np.arange(len(titles)), row_of=lambda part: known.get(part, -1)
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(char) for char in text] for text in texts]

    def title_rows(self, titles: Sequence[str]) -> IntArray:
        parts = self.encode([f" {title}" for title in titles])
        return np.array([self.title_embeddings.row_of(tuple(part)) for part in parts])

    def title_probabilities(self, prompts: Sequence[str]) -> FloatArray:
        rows = [
            np.frombuffer(
                hashlib.shake_128(prompt.encode()).digest(len(self.title_embeddings.keys)), "u1"
            )
            for prompt in prompts
        ]
        weights = np.stack(rows) + 1.0
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def make_title_model(n_titles: int = 8) -> tuple[Any, Codec]:
    """A model that knows the first titles of the catalog, and a codec for its prompts."""
    titles = dict.fromkeys(catalog().titles)
    return FakeTitleModel(list(titles)[:n_titles]), Codec(CATEGORIES, template="forecast-v3")
