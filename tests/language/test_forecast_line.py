from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.errors import ForecastParseError, LlmrecError
from llmrec.forecast import STATEMENT_KINDS, Forecast, Source
from llmrec.language.codec import Codec
from llmrec.language.forecast_line import MAX_LINE_LENGTH, make_labels
from llmrec.language.grammar import KIND_BY_PHRASE, PHRASES_BY_KIND
from tests.language.test_grammar import accepts
from tests.language.tiny_models import LABELS
from tests.worlds import small_world

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


def forecast(weights: np.ndarray, words: str = "Drama is rising.") -> Forecast:
    return Forecast(weights / weights.sum(), 50.0, words, (), SOURCE)


names = st.lists(st.text(min_size=1, max_size=50), min_size=1, max_size=30)
weights = st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda ws: sum(ws) > 1e-3)


@given(names)
def test_labels_are_a_bijection_even_if_case_is_ignored(categories: list[str]) -> None:
    labels = make_labels(categories)
    assert len({label.casefold() for label in labels}) == len(categories)
    assert "other" not in {label.casefold() for label in labels}


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
    codec = Codec([f"Genre {c}" for c in range(len(values))], top=top)
    line = codec.render(original)
    parsed = codec.parse(line)
    named = original.top(codec.top)
    assert np.abs(parsed.category_weights[named] - original.category_weights[named]).max() <= 0.0101
    assert parsed.description == original.description


@given(weights, st.text(max_size=80))
def test_rendering_again_what_was_parsed_changes_nothing(values: list[float], words: str) -> None:
    codec = Codec([f"Genre {c}" for c in range(len(values))])
    line = codec.render(forecast(np.array(values), words))
    parsed = codec.parse(line)
    assert codec.parse(codec.render(parsed)).description == parsed.description
    assert "\n" not in line
    assert not set("{}") & set(line)


@given(st.text(max_size=200))
def test_the_parser_survives_anything_and_gives_a_forecast_or_a_named_error(text: str) -> None:
    with contextlib.suppress(ForecastParseError):
        assert abs(Codec(GENRES).parse(text).category_weights.sum() - 1) < 1e-9


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
def test_a_broken_line_is_refused_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(ForecastParseError) as caught:
        Codec(GENRES).parse(line)
    assert caught.value.reason == reason
    assert isinstance(caught.value, LlmrecError)
    assert len(str(caught.value)) < MAX_LINE_LENGTH


def test_percents_are_scaled_and_a_category_named_twice_gets_the_sum() -> None:
    parsed = Codec(GENRES).parse("drama 20%, Drama 20%, Comedy 10%, other 0%: words")
    np.testing.assert_allclose(parsed.category_weights, [0, 0.2, 0.8, 0, 0])


def test_other_is_spread_over_the_unnamed_by_the_weights_given() -> None:
    rest = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    parsed = Codec(GENRES).parse("Drama 50%, other 50%", rest=rest)
    np.testing.assert_allclose(parsed.category_weights, [1 / 14, 2 / 14, 0.5, 3 / 14, 1 / 14])


def test_a_missing_other_is_the_remainder() -> None:
    parsed = Codec(GENRES).parse("Drama 60%.")
    np.testing.assert_allclose(parsed.category_weights, [0.1, 0.1, 0.6, 0.1, 0.1])


def test_a_label_that_ends_in_digits_is_not_mistaken_for_a_percent() -> None:
    codec = Codec(["Top 40", "Top 4"])
    np.testing.assert_allclose(codec.parse("Top 40 31%, Top 4 69%").category_weights, [0.31, 0.69])


@pytest.mark.parametrize("labels", [GENRES, LABELS, PUZZLING], ids=["plain", "tiny", "puzzling"])
def test_every_label_with_every_phrase_reads_back_as_its_kind(labels: tuple[str, ...]) -> None:
    codec = Codec(labels)
    for category, label in enumerate(codec.labels):
        for phrase, kind in KIND_BY_PHRASE.items():
            for text in (f"{label} {phrase}.", f" {label.upper()}  {phrase.title()} "):
                assert codec.claims(text) == ({(kind, category): phrase}, [])


@given(names, st.data())
def test_claims_written_in_words_read_back_whatever_the_categories(
    categories: list[str], data: st.DataObject
) -> None:
    codec = Codec(categories)
    pairs = st.tuples(st.sampled_from(STATEMENT_KINDS), st.integers(0, len(categories) - 1))
    claims = data.draw(st.lists(pairs, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    found, unread = codec.claims(codec.words(claims, rng))
    assert list(found) == claims
    assert not unread
    assert all(KIND_BY_PHRASE[phrase] == kind for (kind, _), phrase in found.items())


def test_no_phrase_is_the_end_of_another_so_a_claim_divides_in_one_way() -> None:
    assert not [(a, b) for a in KIND_BY_PHRASE for b in KIND_BY_PHRASE if a != b and b.endswith(a)]


def test_every_kind_has_five_phrases_or_more_and_no_two_kinds_share_one() -> None:
    assert set(PHRASES_BY_KIND) == set(STATEMENT_KINDS)
    assert all(len(phrases) >= 5 for phrases in PHRASES_BY_KIND.values())
    assert len(KIND_BY_PHRASE) == sum(map(len, PHRASES_BY_KIND.values()))


def test_a_line_says_no_phrase_twice_while_there_are_others() -> None:
    codec = Codec(GENRES)
    for seed in range(20):
        found, _ = codec.claims(
            codec.words([("fading", c) for c in range(5)], np.random.default_rng(seed))
        )
        assert len(set(found.values())) == 5


def test_words_are_in_the_grammar_that_constrains_them() -> None:
    codec, rng = Codec(LABELS), np.random.default_rng(0)
    for kind in STATEMENT_KINDS:
        words = codec.words([(kind, c) for c in range(4)], rng)
        assert accepts(codec.words_grammar(), f" {words}")


def test_words_that_claim_nothing_checkable_or_nothing_more_are_handed_back() -> None:
    said = "Drama is rising, you will love it, Opera is rising, drama is rising, Drama is fading."
    found, unread = Codec(GENRES).claims(said)
    assert found == {("rising", 2): "is rising", ("fading", 2): "is fading"}
    assert unread == ["you will love it", "Opera is rising", "drama is rising"]


@given(st.text(max_size=100), st.sampled_from(sorted(KIND_BY_PHRASE)))
def test_reading_claims_survives_anything(text: str, phrase: str) -> None:
    codec = Codec(GENRES)
    for words in (text, f"Drama {phrase}{text}", f"{text} {phrase}", "Drama i\u017f rising"):
        found, unread = codec.claims(words)
        assert all(0 <= category < 5 for _, category in found)
        assert len(found) + len(unread) <= words.count(",") + 1


def test_a_prompt_ends_where_the_model_is_read_and_stays_in_budget() -> None:
    windows = small_world(n_users=3, n_periods=9)
    codec = Codec(windows[0].history.catalog.categories, budget=150)
    for window in windows:
        prompt = codec.prompt(window.history)
        assert prompt.endswith(":")
        assert -(-len(prompt) // 3) <= 150


def test_a_tighter_budget_merges_the_oldest_periods_and_keeps_the_newest() -> None:
    history = small_world(n_users=1, n_periods=9)[0].history
    wide = Codec(history.catalog.categories, budget=10_000).prompt(history).splitlines()
    tight = Codec(history.catalog.categories, budget=150).prompt(history).splitlines()
    assert 3 <= len(tight) < len(wide)
    assert tight[-2] == wide[-2]
    assert tight[1].split(" to ")[0] == wide[1].split(" to ")[0]


def test_a_prompt_never_executes_template_code_from_a_title() -> None:
    history = small_world(n_users=1, titles="{{ 7 * 7 }}{% raw %}")[0].history
    prompt = Codec(history.catalog.categories, budget=10_000).prompt(history)
    assert "{{ 7 * 7 }}" in prompt
    assert "49" not in prompt


def test_a_history_without_events_still_has_a_prompt() -> None:
    history = small_world(n_users=1, empty=True)[0].history
    prompt = Codec(history.catalog.categories).prompt(history)
    assert "nothing" in prompt


def test_five_thousand_categories_and_a_single_one_both_work() -> None:
    for n in (1, 5_000):
        codec = Codec([f"Category number {c}" for c in range(n)])
        parsed = codec.parse(codec.render(forecast(np.ones(n))))
        np.testing.assert_allclose(parsed.category_weights, 1 / n, atol=1e-9)
