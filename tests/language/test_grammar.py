from __future__ import annotations

import re
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from llmrec.language.grammar import (
    claims_grammar,
    description_grammar,
    line_grammar,
    sentences_grammar,
    to_gbnf,
)
from tests.language.tiny_models import LABELS, PHRASES, byte_level_tokenizer

TOKENIZER = LLTokenizer(byte_level_tokenizer().backend_tokenizer.to_str(), eos_token=2)
# What make_labels leaves: letters of any script, digits, spaces between them, & ' / ( ) - + .
label = st.from_regex(r"[\w&'/()\-+.]+( [\w&'/()\-+.]+){0,2}", fullmatch=True).filter(
    lambda text: len(text) < 30 and "_" not in text
)
awkward = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(TOKENIZER, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens = TOKENIZER.tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def walk(grammar: str, seed: int) -> str:
    """Generate a text by drawing any allowed token at each step."""
    generator = np.random.default_rng(seed)
    matcher = LLMatcher(TOKENIZER, grammar)
    assert not matcher.is_error(), matcher.get_error()
    tokens: list[int] = []
    while not matcher.is_stopped():
        mask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        tokens.append(int(generator.choice(np.flatnonzero(np.unpackbits(mask, bitorder="little")))))
        assert matcher.consume_token(tokens[-1])
    assert matcher.is_accepting()
    return TOKENIZER.decode_str(tokens)


def line_pattern(labels: Sequence[str], max_entries: int, max_claims: int) -> re.Pattern[str]:
    """Give the pattern of a line, independently of the grammar."""
    name, phrase = ("|".join(map(re.escape, texts)) for texts in (labels, PHRASES))
    mix = rf"(({name}) ([1-9][0-9]?|100)%, ){{1,{max_entries}}}other ([1-9]?[0-9]|100)%"
    claims = rf"({name}) ({phrase})(, ({name}) ({phrase})){{0,{max_claims - 1}}}\."
    return re.compile(rf" ({mix}|({name}) 0%, other 100%): {claims}")


@pytest.mark.parametrize(
    "line",
    [
        " Drama 31%, Comedy 22%, other 47%: Drama is rising, Comedy is fading.",
        " Drama 5 5%, Drama 5%, other 90%: Drama 5 is new.",
        " Mr. Bean (1990) 100%, other 0%: Mr. Bean (1990) is rising.",
        " Drama 0%, other 100%: Drama is new.",
    ],
)
def test_a_forecast_line_is_in_the_grammar(line: str) -> None:
    assert accepts(line_grammar(LABELS, PHRASES), line)


@pytest.mark.parametrize(
    "line",
    [
        "Drama 31%, other 69%: Drama is rising.",
        " Drama 31%: Drama is rising.",
        " other 100%: Drama is rising.",
        " Drama 101%, other 0%: Drama is rising.",
        " Drama 05%, other 0%: Drama is rising.",
        " Drama 0%, other 0%: Drama is rising.",
        " Western 31%, other 69%: Western is rising.",
        " Drama 31%, other 69%: Drama is rising",
        " Drama 31%, other 69%: Drama explodes.",
        " Drama 1%, Drama 1%, Drama 1%, other 97%: Drama is rising.",
        " Drama 31%, other 69%: Drama is new, Drama is new, Drama is new.",
    ],
)
def test_any_other_line_is_not_in_the_grammar(line: str) -> None:
    assert not accepts(line_grammar(LABELS, PHRASES, max_entries=2, max_claims=2), line)


@settings(max_examples=50)
@given(
    labels=st.lists(label, min_size=1, max_size=6, unique=True),
    seed=st.integers(0, 2**32 - 1),
    max_entries=st.integers(1, 4),
    max_claims=st.integers(1, 3),
)
def test_whatever_the_grammar_generates_is_a_line_and_comes_to_its_end(
    labels: list[str], seed: int, max_entries: int, max_claims: int
) -> None:
    grammar = line_grammar(labels, PHRASES, max_entries=max_entries, max_claims=max_claims)
    assert line_pattern(labels, max_entries, max_claims).fullmatch(walk(grammar, seed))


@settings(max_examples=50)
@given(
    labels=st.lists(label, min_size=1, max_size=6, unique=True),
    percents=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    data=st.data(),
)
def test_every_line_is_in_the_grammar_however_the_labels_overlap(
    labels: list[str], percents: list[int], data: st.DataObject
) -> None:
    names = st.sampled_from(labels)
    entries = "".join(f"{data.draw(names)} {percent}%, " for percent in percents)
    line = f" {entries}other 7%: {data.draw(names)} is new, {data.draw(names)} is fading."
    assert accepts(line_grammar(labels, PHRASES), line)


@settings(max_examples=50)
@given(labels=st.lists(awkward, min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_quotes_backslashes_and_operators_in_labels_mean_themselves(
    labels: list[str], seed: int
) -> None:
    text = walk(description_grammar(labels, ["is new"], max_claims=1), seed)
    assert text in {f" {name} is new." for name in labels}


def test_a_description_is_the_end_of_a_line() -> None:
    grammar = description_grammar(LABELS, PHRASES, max_claims=2)
    assert accepts(grammar, " Drama is rising, Comedy is fading.")
    assert not accepts(grammar, " Drama is rising, Comedy is fading, Drama is new.")


@settings(max_examples=50)
@given(
    variants=st.lists(st.lists(label, min_size=1, max_size=3), min_size=1, max_size=5),
    max_claims=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_claims_are_made_in_their_order_each_once_and_no_other(
    variants: list[list[str]], max_claims: int, seed: int, data: st.DataObject
) -> None:
    numbered = [[f"{i} {text}" for text in texts] for i, texts in enumerate(variants)]
    grammar = claims_grammar(numbered, max_claims=max_claims)
    made = [int(claim.split()[0]) for claim in walk(grammar, seed).split(", ")]
    assert made == sorted(set(made))
    assert 1 <= len(made) <= max_claims
    numbers = st.sampled_from(range(len(numbered)))
    some = data.draw(st.sets(numbers, min_size=1, max_size=min(max_claims, len(numbered))))
    claims = [data.draw(st.sampled_from(numbered[i])) for i in sorted(some)]
    assert accepts(grammar, f" {', '.join(claims)}.")
    assert not accepts(grammar, f" {', '.join([*claims, claims[-1]])}.")
    assert not accepts(grammar, " .")


@pytest.mark.parametrize(("variants", "error"), [([], "no claims"), ([[]], "variants of a claim")])
def test_a_grammar_of_no_claims_is_an_error(variants: list[list[str]], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        claims_grammar(variants)


@pytest.mark.parametrize(
    ("labels", "phrases", "max_entries", "error"),
    [
        ([], PHRASES, 1, "labels must hold at least one text"),
        (["Drama", ""], PHRASES, 1, "no empty one"),
        (LABELS, [], 1, "phrases must hold at least one text"),
        (LABELS, PHRASES, 0, "max_entries must be at least 1, not 0"),
    ],
)
def test_a_grammar_of_nothing_is_an_error(
    labels: list[str], phrases: list[str], max_entries: int, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        line_grammar(labels, phrases, max_entries=max_entries)


def test_5000_labels_make_a_grammar_that_is_walked_fast() -> None:
    labels = [f"{kind} goods {i}" for i in range(500) for kind in "abcdefghij"]
    start = time.perf_counter()
    text = walk(line_grammar(labels, PHRASES), seed=0)
    assert time.perf_counter() - start < 2
    assert text.endswith(".")


def test_llama_cpp_gets_the_same_rules_in_its_own_dialect() -> None:
    claims = claims_grammar([['Sci_fi: "A" | B is rising'], ["War is fading"]], max_claims=2)
    assert to_gbnf(claims).splitlines() == [
        "root ::= WORDS",
        'WORDS ::= " " FROM-0-2 "."',
        r'CLAIM-0 ::= "Sci_fi: \"A\" | B is rising"',
        "FROM-0-1 ::= CLAIM-0 | FROM-1-1",
        'FROM-0-2 ::= CLAIM-0 (", " FROM-1-1)? | FROM-1-2',
        'CLAIM-1 ::= "War is fading"',
        "FROM-1-1 ::= CLAIM-1",
        "FROM-1-2 ::= CLAIM-1",
    ]
    assert (
        to_gbnf(sentences_grammar([["It rises."]])) == 'root ::= WORDS\nWORDS ::= " " ("It rises.")'
    )
