"""Texts to vectors: means of hidden states, the same in any batch; invalid models are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llmrec.errors import ModelLoadError
from llmrec.language.encoder import TextEncoder
from tests.language.tiny_models import save_bert, save_t5
from tests.real_parts import needs_real_parts


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return TextEncoder.load(str(save_bert(tmp_path_factory.mktemp("bert"))), device="cpu")


def test_a_vector_is_the_mean_state_of_a_texts_tokens(encoder: TextEncoder) -> None:
    ids = encoder.tokenizer("Drama 31%", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        mean = encoder.model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy()
    (vector,) = encoder.embed(["Drama 31%"])
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_text_gets_the_same_vector_alone_and_among_others(encoder: TextEncoder) -> None:
    texts = ["Drama", "Comedy is rising", "Drama 31%", "Sci-Fi & Fantasy", "Drama"]
    found = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)


def test_no_text_gives_no_vector(encoder: TextEncoder) -> None:
    assert encoder.embed([]).shape == (0, 32)


def test_an_encoder_decoder_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no encoder"):
        TextEncoder.load(str(save_t5(tmp_path / "t5")), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match="all-minilm-l6-v2"):
        TextEncoder.load(str(tmp_path / "empty"), device="cpu")


@needs_real_parts
def test_the_embedded_encoder_knows_what_words_mean() -> None:
    texts = ["a film about the sea", "an ocean movie", "taxes"]
    found = TextEncoder.load(device="cpu").embed(texts)
    similarity = found @ found.T
    assert similarity[0, 1] > 0.7
    assert similarity[0, 2] < 0.3
