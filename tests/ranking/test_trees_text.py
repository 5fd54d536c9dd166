"""Trees as text: exact, whole or refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import ModelLoadError
from llmrec.ranking.trees_text import read_trees, text_digest

lightgbm = pytest.importorskip("lightgbm")
N_FEATURES = 4
OPTIONS = {"num_leaves": 5, "min_data_in_leaf": 3, "num_threads": 1, "verbose": -1}


def train(seed: int, scale: float = 1.0, n_trees: int = 6) -> Any:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(80, N_FEATURES)) * scale).astype(np.float32)
    target = rows @ rng.normal(size=N_FEATURES) + rng.normal(size=80)
    return lightgbm.train(OPTIONS, lightgbm.Dataset(rows, target), n_trees)


def thresholds(text: str) -> list[float]:
    lines = re.findall(r"^threshold=(.+)$", text, re.MULTILINE)
    return [float(number) for line in lines for number in line.split()]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]))
def test_trees_read_from_their_text_predict_the_same_to_the_bit(seed: int, scale: float) -> None:
    booster = train(seed, scale)
    text = booster.model_to_string()
    again = read_trees(text, text_digest(text), N_FEATURES)
    rows = np.random.default_rng(seed).normal(size=(200, N_FEATURES)) * scale
    limits = np.array([*thresholds(text), 0.0])
    beside = np.concatenate((limits, np.nextafter(limits, np.inf), np.nextafter(limits, -np.inf)))
    rows = np.concatenate((rows, np.repeat(beside[:, None], N_FEATURES, axis=1)))
    assert again.predict(rows).tobytes() == booster.predict(rows).tobytes()
    assert again.model_to_string() == text


TEXT = train(0).model_to_string()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.characters())
def test_a_text_cut_off_or_changed_anywhere_is_refused(place: int, letter: str) -> None:
    changed = TEXT[:place] + letter + TEXT[place + 1 :]
    for text in (TEXT[:place], *([changed] if changed != TEXT else [])):
        with pytest.raises(ModelLoadError, match="cut off, changed or of another fit"):
            read_trees(text, text_digest(TEXT), N_FEATURES)


def test_trees_of_another_number_of_features_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="expect 4 features, not 5"):
        read_trees(TEXT, text_digest(TEXT), 5)


@pytest.mark.parametrize("text", ["", "no trees", "tree\n"])
def test_a_text_that_is_none_of_lightgbm_is_refused(text: str) -> None:
    with pytest.raises(ModelLoadError, match="no text of LightGBM"):
        read_trees(text, text_digest(text), N_FEATURES)
