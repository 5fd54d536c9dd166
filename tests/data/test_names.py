from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.ids import MISSING_WORDS
from llmrec.data.names import MAX_CATEGORY_LENGTH, clean_text, clean_title, shorten_names
from llmrec.data.names import split_names as split

NAMES = st.lists(
    st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="&"), min_size=1)
    .map(clean_text)
    .filter(lambda name: name and name not in MISSING_WORDS),
    min_size=1,
    max_size=5,
    unique=True,
)


@settings(max_examples=100)
@given(NAMES)
def test_lists_and_lists_written_as_text_hold_the_same_names(names: list[str]) -> None:
    ways = [names, tuple(names), np.array(names, dtype=object), [names], str(names), str([names])]
    ways += [json.dumps(names), json.dumps(names, ensure_ascii=False), str(tuple(names))]
    things = [{"id": 1, "name": name} for name in names]
    ways += [things, str(things), json.dumps(things)]
    for way in ways:
        assert split(way) == tuple(names)


@given(NAMES, st.sampled_from([",", ";", "/", "|", " > ", "::", "\t"]))
def test_a_separator_cuts_a_text(names: list[str], separator: str) -> None:
    sign = separator.strip() or separator
    names = [name for name in names if not {*sign} & {*name} and name[0] not in "[({"]
    assert split(separator.join(names), separator) == tuple(names)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("A|B", ("A", "B")),
        ("A, B", ("A, B",)),
        ("A||B| ", ("A", "B")),
        ("['A' 'B']", ("A", "B")),  # of numpy
        ("['A'\n \"Women's\"]", ("A", "Women's")),
        ('{A,"B, c"}', ("A", "B, c")),  # of PostgreSQL
        ("[A, B]", ("A", "B")),
        ("[01, 1]", ("01", "1")),
        ("[1, 2.0]", ("1", "2")),
        ("{'B', 'A'}", ("A", "B")),
        ("['B', '']", ("B",)),
        ("[nan, 'A', None, 'nan b']", ("A", "nan b")),
        ("['A|B', \"C, D\"]", ("A|B", "C, D")),
        ("[['Home', 'Kitchen'], ['Home']]", ("Home", "Kitchen")),
        ('[{"id": 1, "name": "A"}, {"genre": "B", "weight": 2}]', ("A", "B")),
        ("{'A': 3, 'B': 0}", ("A",)),
        ({"A": 1.0, "B": 0.0, "C": True}, ("A", "C")),
        ("[Sci-Fi]", ("Sci-Fi",)),
        ("[Sci-Fi|Drama]", ("Sci-Fi", "Drama")),
        ("[Women's, Men's]", ("Women's", "Men's")),
        ("[Sale] Drama", ("[Sale] Drama",)),
        ("[Sale] [Drama]", ("[Sale] [Drama]",)),
        ("(none)", ("(none)",)),
        ("rock 'n' roll", ("rock 'n' roll",)),
        ("01", ("01",)),
        (b"A|B", ("A", "B")),
        (7.0, ("7",)),
        ({"name": None, "title": "T"}, ("T",)),
    ],
)
def test_names_in_every_form(value: object, names: tuple[str, ...]) -> None:
    assert split(value) == names


@pytest.mark.parametrize(
    "value",
    [
        *(None, np.nan, pd.NA, "", " ", "|", "nan", "NULL", "None", r"\N", "&nbsp;"),
        *([], [None], [np.nan], ["", "nan"]),
        *("[]", "{}", "()", "['']", "[nan]", "[None]", "[<NA>]", "[[], [[]]]"),
    ],
)
def test_nothing_is_no_name(value: object) -> None:
    assert split(value) == ()


def test_entities_are_undone_once() -> None:
    assert split("Home &amp; Kitchen|&amp;lt;|AT&T|R&B") == (
        "Home & Kitchen",
        "&lt;",
        "AT&T",
        "R&B",
    )
    assert clean_title("Fish &amp; Chips &#39;n&#39; &amp;amp;") == "Fish & Chips 'n' &amp;"
    assert clean_title("&#x202e;&#xD800;&#0;a &copy b") == "\ufffd\ufffda &copy b"


def test_the_sign_that_ends_an_entity_may_cut_names() -> None:
    cell = "Rock &amp; Roll;R&B;&amp;lt;"
    assert split(cell, ";") == ("Rock & Roll", "R&B", "&lt")
    assert split("['Rock &amp; Roll', '&amp;lt;']", ";") == ("Rock & Roll", "&lt;")
    assert split([{"name": "&amp;lt;"}], ";") == split({"&amp;lt;": 1}, ";") == ("&lt;",)


def test_titles_are_kept_as_they_are_written() -> None:
    assert clean_title("[REC]") == "[REC]"
    assert [clean_title(title) for title in ("007", "0300", 24, 24.0, "NA", b"tea")] == [
        *("007", "0300", "24", "24", "NA", "tea")
    ]
    assert {clean_title(title) for title in (None, np.nan, "nan", "None", r"\N", " ")} == {""}


HOSTILE = {  # the longest that are read whole have 100,000 characters
    "open brackets": "[" * 100_000,
    "brackets in brackets": "[" * 50_000 + "]" * 50_000,
    "brackets with something deep inside": "[" * 90 + "'a'" + "]" * 90,
    "quotes": "['" * 49_000 + "]",
    "escaped quotes without an end": "['" + "\\'" * 49_000 + "]",
    "escaped line breaks": "['" + "\\\n'" * 30_000 + "]",
    "backslashes": "['" + "\\" * 99_000 + "']",
    "double quotes of no list": '["' + 'a" "' * 20_000 + '"]',
    "commas": "[" + "," * 99_000 + "]",
    "signs": "[" + "-" * 99_000 + "1]",
    "nots": "[" + "not " * 20_000 + "1]",
    "sums": "[" + "+".join(["1"] * 20_000) + "]",
    "a power": "[9**9**9]",
    "a long product": "['a' * 10**9]",
    "a call": "[__import__('os').getcwd()]",
    "digits": "[" + "9" * 99_000 + "]",
    "entities": "&amp;" * 20_000,
    "broken entities": "&#" * 50_000,
    "10 MB of brackets": "[" * 10_000_000,
    "10 MB of bars": "a|" * 5_000_000,
    "10 MB of one name": "é\u202e" * 5_000_000,
    "braces": "{" * 99_000 + "}",
    "an array of many": "{" + '"a",' * 24_000 + "}",
}


@pytest.mark.parametrize("cell", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_cell_costs_less_than_a_second(cell: str) -> None:
    start = time.thread_time()
    names = split(cell)
    assert time.thread_time() - start < 1
    assert all(len(name) <= 1_000 and name.isprintable() for name in names)


def test_nothing_in_a_cell_is_run() -> None:
    assert split("[__import__('os').getcwd()]") == ("__import__('os').getcwd()",)


def test_lists_within_lists_are_read_to_some_depth_only() -> None:
    deep: Any = "bottom"
    for level in range(2_000):
        deep = [f"level {level}", deep]
    assert 1 <= len(split(deep)) < 20


@given(st.text(), st.integers(2, 60))
def test_clean_text_is_one_short_printable_line_and_stays_as_it_is(text: str, limit: int) -> None:
    clean = clean_text(text, limit)
    assert clean.isprintable()
    assert len(clean) <= limit
    assert clean == clean.strip() == clean_text(clean, limit)


@given(st.lists(st.text(min_size=1, max_size=3).map(lambda end: "c" * 70 + end), max_size=12))
def test_long_names_stay_different_when_they_are_cut(names: list[str]) -> None:
    short = shorten_names(names)
    assert len(set(short)) == len(names)
    assert all(len(name) <= MAX_CATEGORY_LENGTH for name in short)


def test_many_names_that_share_their_beginning_are_shortened_in_no_time() -> None:
    names = [f"{'c' * 70}{n}" for n in range(10_000)]
    start = time.process_time()
    short = shorten_names(names)
    assert (len(set(short)), short[-1][-6:]) == (10_000, " 10000")
    assert time.process_time() - start < 5  # a minute if each tries all numbers
