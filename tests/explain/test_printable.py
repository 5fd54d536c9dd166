from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.explain.printable import printable, to_json

any_text = st.text(st.characters(exclude_categories=()))  # half characters, too


def prints(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@given(st.dictionaries(any_text, st.lists(any_text), max_size=3))
def test_json_prints_in_every_terminal_and_parses_back_to_the_same(value: object) -> None:
    written = to_json(value)
    assert prints(written)
    assert json.loads(written) == value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("ana\u202e", '"ana\\u202e"'),
        ("\x9b2J\x7f", '"\\u009b2J\\u007f"'),
        ("\ud83c", '"\\ud83c"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\U000e0041", '"\\udb40\\udc41"'),
        ("משקאות 新鮮 🍞", '"משקאות 新鮮 🍞"'),
    ],
)
def test_json_escapes_what_does_not_print_and_nothing_else(text: str, written: str) -> None:
    assert to_json(text) == written


@given(any_text)
def test_a_printable_text_is_as_long_as_it_was_and_keeps_its_lines(text: str) -> None:
    shown = printable(text)
    assert prints(shown)
    assert len(shown) == len(text)
    assert shown.count("\n") == text.count("\n")


def test_what_does_not_print_is_replaced_by_a_sign() -> None:
    assert printable("ana\u202e\x1b[2J\u00a0b") == "ana��[2J b"
    assert printable("שלום\n🍞") == "שלום\n🍞"
