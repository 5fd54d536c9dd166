from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.forecasters.calibration import center_rows
from llmrec.language.heads import Verbalizer


def encode_letters(texts: Sequence[str]) -> list[list[int]]:
    """Encode each character that is no space as a token."""
    return [[ord(letter) for letter in text if letter != " "] for text in texts]


def test_a_category_scores_the_mean_logit_of_its_labels_tokens() -> None:
    verbalizer = Verbalizer(["ab", "bbc"], encode_letters)
    assert verbalizer.token_ids.tolist() == [ord("a"), ord("b"), ord("c")]
    scores = verbalizer.scores(np.array([[1.0, 2.0, 6.0], [0.0, 3.0, 0.0]]))
    np.testing.assert_allclose(scores, [[1.5, (2 + 2 + 6) / 3], [1.5, 2.0]])


def test_labels_are_encoded_as_they_stand_in_the_middle_of_a_sentence() -> None:
    seen: list[str] = []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        seen.extend(texts)
        return encode_letters(texts)

    Verbalizer(["Drama", "Sci-Fi"], encode)
    assert seen == [" Drama", " Sci-Fi"]


def test_a_label_without_tokens_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"label 1 \('  '\) has no tokens"):
        Verbalizer(["Drama", "  "], encode_letters)


def test_a_verbalizer_without_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one label"):
        Verbalizer([], encode_letters)


def test_5000_labels_are_built_and_scored_fast() -> None:
    start = time.perf_counter()
    verbalizer = Verbalizer([f"category number {i} of many" for i in range(5_000)], encode_letters)
    scores = verbalizer.scores(np.ones((32, len(verbalizer.token_ids))))
    assert time.perf_counter() - start < 1
    np.testing.assert_allclose(scores, np.ones((32, 5_000)))


@given(
    labels=st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_are_linear_and_each_row_is_scored_alone(labels: list[str], seed: int) -> None:
    verbalizer = Verbalizer(labels, encode_letters)
    logits = np.random.default_rng(seed).normal(size=(3, len(verbalizer.token_ids)))
    scores = verbalizer.scores(logits)
    assert scores.shape == (3, len(labels))
    np.testing.assert_allclose(verbalizer.scores(2 * logits + 1), 2 * scores + 1, atol=1e-12)
    np.testing.assert_allclose(verbalizer.scores(logits[1:2]), scores[1:2], atol=1e-12)


def test_centered_scores_have_mean_zero_in_each_row_and_the_same_differences() -> None:
    scores = np.array([[1.0, 2.0, 6.0], [-4.0, 0.0, 1.0]])
    result = center_rows(scores)
    np.testing.assert_allclose(result.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(result), np.diff(scores))
