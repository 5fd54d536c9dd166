"""Parsers of text that anybody may write: no error but the documented ones, and no long search."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from llmrec.errors import EditError, ForecastParseError
from llmrec.language.forecast_line import MAX_LINE_LENGTH, LineFormat
from llmrec.ranking.edit_parser import MAX_TEXT_LENGTH, parse_description_edits, parse_edits
from tests.hostile.conftest import Count
from tests.worlds import CATEGORIES, catalog

MAX_SECONDS = 1.0  # of processor time for a text of any length; most take 1/10,000 of it
BLOCK = 1_000  # texts that share a seed
LABELS = (
    "Drama",
    "Sci-Fi & Fantasy",
    "Mr. Bean (1990)",
    "Children's/Café",
    "No. 5",
    "\u017ftraße",
    "5",
)
LINES = (
    "Drama 31%, Sci-Fi & Fantasy 22%, other 47%: Drama is rising, No. 5 is fading.",
    "No. 5 5%, 5 100%, other 0%: 5 is new.",
    "Mr. Bean (1990) 0%, other 100%: Mr. Bean (1990) is rising.",
    "Children's/Café 7 %, Straße 3%",
)
WISHES = (
    "more drama, no horror, only comedies until March 2027",
    "drama a bit less; exactly twice as much war for six weeks",
    '30% more "Action", 2.5 times as much comedy until 29 February, keep drama as it is',
    "nothing but comedy then for 3 months no war and less action",
)
REASONS = {
    "empty",
    "too long",
    "malformed entry",
    "unknown category",
    "percent out of range",
    "nothing named",
}
# Signs that programs of text trip over: digits of other scripts, letters whose case is another
# letter or several, halves of characters, marks that turn text round, and what separates.
SIGNS = (
    *"0123456789%,:;.!? \t\n\r\x00\x0b\x1c\x85\xa0\u2028\u3000\"'\\/()[]{}<>|&+-_e*^$#",
    *"٣\uff13߉፩²½Ⅷ㈤\u017fK\u0130\u0131ßΣŉ\ufb03éﬀ\u0301\u200b\u200d\u202e\u2066\ufeff\ufffe\U0001f600\U000e0041",
    *("\ud800", "\udfff", "\ud83d\udca9"),
    *("NaN", "nan%", "inf", "-inf%", "1e999", "0x10", "1_000", "99999999999999999999999%", "-5%"),
    *(" is rising", " other ", "other 100%", "Drama", " 31%", "100%", "101%", "%%", "::", ", ,"),
    *(" until ", " for ", " six ", " weeks", " exactly ", " times as much ", "% more ", " only "),
    *("00000-00-00", "9999-12-31", "0001-01-01T99:99", "31 April", "999 years", " but ", " more "),
)


# Letters that match others where case does not count.
TWINS = str.maketrans(
    {"s": "\u017f", "k": "\u212a", "i": "\u0131", "S": "\u017f", "K": "\u212a", "I": "\u0130"}
)


def mutate(rng: random.Random, text: str) -> str:
    """Change a text in one of eleven ways."""
    at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    way = rng.randrange(11)
    if way < 3:
        return text[:at] + rng.choice(SIGNS) + text[at:]
    if way == 3:
        return text[:at] + rng.choice(SIGNS) + text[at + 1 :]
    if way == 4:
        return text[:at] + text[at + 1 :]
    if way == 5:
        return text[:at] + text[end:]
    if way == 6:
        return text[:end] + text[at:end] * rng.randrange(4) + text[end:]
    if way == 7:
        return text[:at] + text[at:end][::-1] + text[end:]
    if way == 8:
        return text[:at] + text[at:end].swapcase() + text[end:]
    if way == 9:
        return text[:at] + text[at:end].translate(TWINS) + text[end:]
    return text[end:] + text[at:end] + text[:at]


def long_text(rng: random.Random, text: str) -> str:
    """Repeat a piece of a text up to a limit of the parsers, a little under or far over it."""
    at = rng.randrange(len(text))
    piece = rng.choice((text[at : at + rng.randrange(1, 20)], rng.choice(SIGNS), text))
    length = rng.choice((MAX_LINE_LENGTH - 1, MAX_TEXT_LENGTH, MAX_TEXT_LENGTH + 1, 100_000))
    return (piece * (length // len(piece) + 1))[:length]


def texts(seeds: tuple[str, ...], n: int, first_block: int = 0) -> Iterator[tuple[str, str]]:
    """Give n texts, each with the number of its block and its place there: always the same."""
    for block in range(first_block, first_block + -(-n // BLOCK)):
        rng = random.Random(block)
        for place in range(min(BLOCK, n - (block - first_block) * BLOCK)):
            kind = rng.randrange(1_000)
            if kind == 0:
                text = long_text(rng, rng.choice(seeds))
            elif kind < 50:  # any characters at all, halves of surrogate pairs among them
                size = rng.randrange(60)
                text = "".join(chr(rng.randrange(0x110000)) for _ in range(size))
            elif kind < 100:
                text = "".join(rng.choices(SIGNS, k=rng.randrange(30)))
            else:
                text = rng.choice(seeds)
                for _ in range(rng.choice((1, 1, 2, 3, 6))):
                    text = mutate(rng, text)
            yield f"{block}.{place}", text


def broken(cases: Iterator[tuple[str, str]], check: Callable[[str], None]) -> list[str]:
    """Give the cases in which something else than a documented error is raised, or which last."""
    found = []
    for name, text in cases:
        start = time.process_time()
        try:
            check(text)
        except Exception as error:  # any that is not documented
            found.append(f"{name}: {type(error).__name__}: {error}: {text[:200]!r}")
        if (seconds := time.process_time() - start) > MAX_SECONDS:
            found.append(f"{name}: {seconds:.1f} s: {text[:200]!r}")
    return found


def amount(some: int, all_of_them: int) -> pytest.MarkDecorator:
    cases = [
        pytest.param(some, id="some"),
        pytest.param(all_of_them, id="all", marks=pytest.mark.hostile),
    ]
    return pytest.mark.parametrize("n", cases)


@amount(20_000, 1_000_000)
def test_any_text_is_a_forecast_or_an_error_with_a_documented_reason(n: int, count: Count) -> None:
    line = LineFormat(LABELS)

    def check(text: str) -> None:
        try:
            forecast = line.parse(text)
        except ForecastParseError as error:
            if error.reason not in REASONS:
                raise AssertionError(error.reason) from error
            return
        weights = forecast.category_weights
        assert abs(weights.sum() - 1) < 1e-9
        assert weights.min() >= 0
        line.parse_claims(forecast.description)

    found = broken(texts(LINES, n), check)
    count("parser of forecast lines", n, len(found))
    assert not found


@amount(3_000, 200_000)
def test_any_text_is_edits_and_issues_or_an_edit_error(n: int, count: Count) -> None:
    items, at = catalog(), np.datetime64("2026-11-30", "ms")

    def check(text: str) -> None:
        try:
            found = parse_edits(text, items, at)
        except EditError:
            return
        assert {edit.category for edit in found.edits} <= set(CATEGORIES)
        assert all(issue.text for issue in found.issues)

    found = broken(texts(WISHES, n), check)
    count("parser of edits", n, len(found))
    assert not found


@amount(1_000, 50_000)
def test_any_edited_description_is_edits_and_issues_or_an_edit_error(n: int, count: Count) -> None:
    items, at = catalog(), np.datetime64("2026-11-30", "ms")
    before = "Comedy is rising. Drama should pick up. War is off the list for the first time."

    def check(text: str) -> None:
        try:
            found = parse_description_edits(before, text, items, at)
        except EditError:
            return
        assert {edit.category for edit in found.edits} <= set(CATEGORIES)

    seeds = tuple(f"{before} {wish}" for wish in WISHES)
    found = broken(texts(seeds, n), check)
    count("parser of edited descriptions", n, len(found))
    assert not found
