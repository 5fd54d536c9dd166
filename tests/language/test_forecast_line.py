from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.errors import ForecastParseError, LlmrecError
from llmrec.forecast import STATEMENT_KINDS, Forecast, Source
from llmrec.language.forecast_line import MAX_LINE_LENGTH, LineFormat, make_labels
from llmrec.language.grammar import KIND_BY_PHRASE, PHRASES_BY_KIND
from tests.language.test_grammar import accepts
from tests.language.tiny_models import LABELS

GENRES = ("Action", "Comedy", "Drama", "Horror", "War")
SOURCE = Source("test", "counting")
# Labels that hold phrases, or their beginnings and ends, or each other.
PUZZLING = (
    "Drama",
    "Drama set",
    "Drama set to grow",
    "to grow",
    "is",
    "Back after",
    "will",
    "I",
    "İ",
)


def forecast(weights: np.ndarray, description: str = "Drama is rising.") -> Forecast:
    return Forecast(weights / weights.sum(), 50.0, description, (), SOURCE)


names = st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=30)
weights = st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda ws: sum(ws) > 1e-3)


@given(names)
def test_labels_are_a_bijection_even_if_case_is_ignored(categories: list[str]) -> None:
    labels = make_labels(categories)
    assert len({label.casefold() for label in labels}) == len(categories)
    assert "other" not in {label.casefold() for label in labels}


LONG = "a name of more letters than labels may have at all"


@given(st.lists(st.sampled_from(["a", "A", "a 2", "A 2", "a 3", "other", LONG]), max_size=20))
def test_numbers_of_equal_labels_are_the_first_that_are_free(categories: list[str]) -> None:
    taken = {"other"}
    for category, label in zip(categories, make_labels(categories), strict=True):
        tried = [category[:40], *(f"{category[:40]} {n}" for n in range(2, 30))]
        assert label == next(one for one in tried if one.casefold() not in taken)
        taken.add(label.casefold())


def test_labels_of_many_names_that_share_their_beginning_take_no_time() -> None:
    categories = [f"{'the same words in every name ' * 2}{n}" for n in range(20_000)]
    start = time.process_time()
    labels = make_labels(categories)
    assert labels[-1].endswith(" 20000")
    assert time.process_time() - start < 5  # half a minute if each tries all numbers


@given(names)
def test_labels_hold_no_character_that_a_line_needs_or_t5_lacks(categories: list[str]) -> None:
    for label in make_labels(categories):
        assert not set(label) & set(",:%;{}\n<>|~`")
        assert label == label.strip()
        assert label


def test_labels_survive_hostile_categories() -> None:
    hostile = [
        "50% off, today",
        "{{ 7*7 }}",
        "Other",
        "other",
        "\u202eevil",
        "<|im_end|>",
        "!!!",
        "",
    ]
    labels = make_labels(hostile)
    assert labels[0] == "50 off today"
    assert labels[2:4] == ("Other 2", "other 3")
    assert labels[6:] == ("category", "category 2")


@given(weights, st.integers(1, 8))
def test_parsing_a_rendered_line_gives_the_forecast_to_one_percent(
    values: list[float], top: int
) -> None:
    original = forecast(np.array(values))
    line_format = LineFormat([f"Genre {c}" for c in range(len(values))], top=top)
    line = line_format.render(original)
    parsed = line_format.parse(line)
    named = original.top(line_format.top)
    assert np.abs(parsed.category_weights[named] - original.category_weights[named]).max() <= 0.0101
    assert parsed.description == original.description


@given(weights, st.text(max_size=80))
def test_rendering_what_was_parsed_changes_nothing(values: list[float], text: str) -> None:
    line_format = LineFormat([f"Genre {c}" for c in range(len(values))])
    line = line_format.render(forecast(np.array(values), text))
    parsed = line_format.parse(line)
    assert line_format.parse(line_format.render(parsed)).description == parsed.description
    assert "\n" not in line
    assert not set("{}") & set(line)


@given(st.text(max_size=200))
def test_the_parser_survives_anything_and_gives_a_forecast_or_a_named_error(text: str) -> None:
    with contextlib.suppress(ForecastParseError):
        assert abs(LineFormat(GENRES).parse(text).category_weights.sum() - 1) < 1e-9


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty"),
        ("   \n ", "empty"),
        ("a lovely film", "malformed entry"),
        ("Drama 31", "malformed entry"),
        ("Drama 31%, Com", "malformed entry"),
        ("Opera 31%, other 69%", "unknown category"),
        ("Drama 101%", "percent out of range"),
        ("Drama 0%, other 0%", "nothing named"),
        ("Drama ٣%, other 0%", "malformed entry"),
        ("Drama 31%, " * 1_000, "too long"),
    ],
)
def test_a_broken_line_raises_an_error_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(ForecastParseError) as caught:
        LineFormat(GENRES).parse(line)
    assert caught.value.reason == reason
    assert isinstance(caught.value, LlmrecError)
    assert len(str(caught.value)) < MAX_LINE_LENGTH


def test_percents_are_scaled_and_a_category_named_twice_gets_the_sum() -> None:
    parsed = LineFormat(GENRES).parse("drama 20%, Drama 20%, Comedy 10%, other 0%: words")
    np.testing.assert_allclose(parsed.category_weights, [0, 0.2, 0.8, 0, 0])


def test_other_is_divided_among_the_unnamed_by_the_given_weights() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    parsed = LineFormat(GENRES).parse("Drama 50%, other 50%", other_weights=weights)
    np.testing.assert_allclose(parsed.category_weights, [1 / 14, 2 / 14, 0.5, 3 / 14, 1 / 14])


def test_a_missing_other_is_the_remainder() -> None:
    parsed = LineFormat(GENRES).parse("Drama 60%.")
    np.testing.assert_allclose(parsed.category_weights, [0.1, 0.1, 0.6, 0.1, 0.1])


def test_a_label_that_ends_in_digits_is_not_mistaken_for_a_percent() -> None:
    line_format = LineFormat(["Top 40", "Top 4"])
    np.testing.assert_allclose(
        line_format.parse("Top 40 31%, Top 4 69%").category_weights, [0.31, 0.69]
    )


@pytest.mark.parametrize("labels", [GENRES, LABELS, PUZZLING], ids=["plain", "tiny", "puzzling"])
def test_every_label_with_every_phrase_is_parsed_as_its_kind(labels: tuple[str, ...]) -> None:
    line_format = LineFormat(labels)
    for category, label in enumerate(line_format.labels):
        for phrase, kind in KIND_BY_PHRASE.items():
            for text in (f"{label} {phrase}.", f" {label.upper()}  {phrase.title()} "):
                assert line_format.parse_claims(text) == ({(kind, category): phrase}, [])


@given(names, st.data())
def test_rendered_claims_are_parsed_again_whatever_the_categories(
    categories: list[str], data: st.DataObject
) -> None:
    line_format = LineFormat(categories)
    pairs = st.tuples(st.sampled_from(STATEMENT_KINDS), st.integers(0, len(categories) - 1))
    claims = data.draw(st.lists(pairs, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    found, unparsed = line_format.parse_claims(line_format.render_claims(claims, rng))
    assert list(found) == claims
    assert not unparsed
    assert all(KIND_BY_PHRASE[phrase] == kind for (kind, _), phrase in found.items())


def test_no_phrase_is_the_end_of_another_so_a_claim_divides_in_one_way() -> None:
    assert not [(a, b) for a in KIND_BY_PHRASE for b in KIND_BY_PHRASE if a != b and b.endswith(a)]


def test_every_kind_has_five_phrases_or_more_and_no_two_kinds_share_one() -> None:
    assert set(PHRASES_BY_KIND) == {*STATEMENT_KINDS, "steady"}
    assert all(len(phrases) >= 5 for phrases in PHRASES_BY_KIND.values())
    assert len(KIND_BY_PHRASE) == sum(map(len, PHRASES_BY_KIND.values()))


def test_a_line_repeats_no_phrase_while_there_are_others() -> None:
    line_format = LineFormat(GENRES)
    for seed in range(20):
        found, _ = line_format.parse_claims(
            line_format.render_claims(
                [("fading", c) for c in range(5)], np.random.default_rng(seed)
            )
        )
        assert len(set(found.values())) == 5


def test_rendered_claims_are_in_the_grammar_of_descriptions() -> None:
    line_format, rng = LineFormat(LABELS), np.random.default_rng(0)
    for kind in STATEMENT_KINDS:
        description = line_format.render_claims([(kind, c) for c in range(4)], rng)
        assert accepts(line_format.description_grammar(), f" {description}")


def test_pieces_that_claim_nothing_or_nothing_new_are_returned() -> None:
    text = "Drama is rising, you will love it, Opera is rising, drama is rising, Drama is fading."
    found, unparsed = LineFormat(GENRES).parse_claims(text)
    assert found == {("rising", 2): "is rising", ("fading", 2): "is fading"}
    assert unparsed == ["you will love it", "Opera is rising", "drama is rising"]


@given(st.text(max_size=100), st.sampled_from(sorted(KIND_BY_PHRASE)))
def test_parsing_claims_survives_anything(text: str, phrase: str) -> None:
    line_format = LineFormat(GENRES)
    for description in (text, f"Drama {phrase}{text}", f"{text} {phrase}", "Drama i\u017f rising"):
        found, unparsed = line_format.parse_claims(description)
        assert all(0 <= category < 5 for _, category in found)
        assert len(found) + len(unparsed) <= description.count(",") + 1


def test_five_thousand_categories_and_a_single_one_both_work() -> None:
    for n in (1, 5_000):
        line_format = LineFormat([f"Category number {c}" for c in range(n)])
        parsed = line_format.parse(line_format.render(forecast(np.ones(n))))
        np.testing.assert_allclose(parsed.category_weights, 1 / n, atol=1e-9)
