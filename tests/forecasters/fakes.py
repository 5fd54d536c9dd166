"""A language model without weights: deterministic functions of the prompt text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmrec.language.generation import Generation
from llmrec.language.heads import Verbalizer
from llmrec.types import FloatArray, IntArray


class FakeModel:
    """Reads hashes of the prompt; writes lines about Drama, or claims that it is rising."""

    name = "fake"
    fingerprint = "fake-1"
    precision = "float32"
    adapter = ""
    title_embeddings: Any = None
    prefixes: Any = None
    is_encoder_decoder = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(char) % 101 for char in text] for text in texts]

    def count_tokens(self, text: str) -> int:
        return len(text)

    def score_categories(self, prompts: Sequence[str], readout: Verbalizer) -> FloatArray:
        logits = [
            np.frombuffer(
                hashlib.shake_128(prompt.encode()).digest(4 * len(readout.token_ids)), "u4"
            )
            for prompt in prompts
        ]
        return readout.scores(np.stack(logits) / 2**32)

    def title_rows(self, titles: Sequence[str]) -> IntArray:
        parts = self.encode([f" {title}" for title in titles])
        return np.array([self.title_embeddings.row_of(tuple(part)) for part in parts])

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> FloatArray:
        digests = [hashlib.sha256(f"{prompt}{text}".encode()).digest() for text in continuations]
        return np.array([-5 - digest[0] / 256 for digest in digests])

    def generate(
        self,
        prompts: Sequence[str],
        *,
        constrain: str | Sequence[str] | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generation]:
        del constrain, max_new_tokens, temperature
        result = []
        for prompt in prompts:
            if prompt.endswith("%:"):  # the numbers are there: only the words are asked for
                result.append(Generation("Drama is rising.", 5, 1, True))
                continue
            percent = 20 + (len(prompt) + seed) % 50
            line = f"Drama {percent}%, Comedy 10%, other {90 - percent}%: Drama is rising."
            result.append(Generation(line, 12, 3, True))
        return result
