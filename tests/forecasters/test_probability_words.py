from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.forecasters.probability_words import describe_probability, format_probability


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_no_probability_is_written_as_certain_or_impossible(probability: float) -> None:
    written = format_probability(probability)
    assert written not in ("0%", "100%")
    assert describe_probability(probability, 0.5)


@pytest.mark.parametrize(
    ("probability", "usual", "words"),
    [
        (0.9999, 0.2, "almost surely (above 99%)"),
        (0.9, 0.2, "almost surely (90%)"),
        (0.81, 0.2, "likely (81%)"),
        (0.6, 0.2, "more likely than not (60%)"),
        (0.44, 0.21, "more likely than usual (44%, usually 21%)"),
        (0.25, 0.21, "as likely as usual (25%, usually 21%)"),
        (0.004, 0.21, "less likely than usual (under 1%, usually 21%)"),
    ],
)
def test_a_probability_has_its_word(probability: float, usual: float, words: str) -> None:
    assert describe_probability(probability, usual) == words
