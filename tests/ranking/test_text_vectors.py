"""Title vectors: words in any script, fitted on known items alone, and titles that say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import make_histories
from llmrec.ranking.text_projection import Projection, sets_taken
from llmrec.ranking.text_vectors import (
    averages_by_title,
    nearest_titles,
    tfidf_vectors,
    title_vectors,
    trust_of,
    words_of,
)
from llmrec.types import BoolArray, FloatArray
from tests.ranking.fakes import LetterEncoder
from tests.worlds import START, catalog


def make_catalog(titles: Sequence[str]) -> Catalog:
    ids = [str(place) for place in range(len(titles))]
    frame = pd.DataFrame({"item_id": ids, "title": titles, "categories": [["all"]] * len(titles)})
    return Catalog.from_frame(frame)


PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
TITLES = (
    "red tea cup",
    "blue tea cup",
    "green tea cup",
    "red paper bag",
    "blue paper bag",
    "green paper bag",
)


def vectors_of(
    titles: Sequence[str],
    known: Sequence[bool] | None = None,
    projection: Projection = "none",
    sets: Sequence[Sequence[int]] = (),
) -> FloatArray:
    flags = np.ones(len(titles), dtype=bool) if known is None else np.array(known)
    taken = each_alone(flags, sets)
    return title_vectors(make_catalog(titles), taken, projection=projection).astype(np.float64)


def each_alone(known: BoolArray, sets: Sequence[Sequence[int]] = ()) -> sparse.csr_array:
    """(n_sets, n_items) each known item taken by itself, and some sets of items."""
    groups = [[item] for item in np.flatnonzero(known)] + [list(items) for items in sets]
    rows = np.repeat(np.arange(len(groups)), [len(items) for items in groups])
    entries = (np.ones(len(rows)), (rows, np.concatenate(groups)))
    return sparse.csr_array(entries, shape=(len(groups), len(known)))


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Red TEA-cup, 2 for 1!", ["red", "tea", "cup", "2", "for", "1"]),
        ("ＦＵＬＬ width", ["full", "width"]),  # noqa: RUF001
        ("Straße ÉTÉ", ["strasse", "été"]),
        ("Чайная чашка", ["чайная", "чашка"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("كتاب أحمر", ["كتاب", "أحمر"]),
        ("紅茶杯", ["紅茶", "茶杯"]),
        ("茶", ["茶"]),
        ("", []),
        ("?! --- ★", []),
    ],
)
def test_words_are_runs_of_letters_marks_and_digits_in_any_script(
    title: str, words: list[str]
) -> None:
    assert words_of(title) == words


def test_close_titles_have_a_high_cosine_and_rows_have_length_one() -> None:
    vectors = vectors_of(TITLES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = vectors @ vectors.T
    assert cosines[0, 1:3].min() > cosines[0, 4:].max() + 0.3


def test_tfidf_keeps_the_cosines_of_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"
    )
    titles = [*TITLES, "tea tea tea", "a cup for tea in a bag"]
    expected = vectorizer.fit_transform(titles).toarray()
    found = tfidf_vectors(titles, np.ones(len(titles), dtype=bool))
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-9)


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_a_title_in_ascii_are_those_of_any_other(title: str) -> None:
    assert words_of(title) == words_of(f"{title} ★")


def test_a_title_first_seen_after_the_cutoff_has_a_vector_and_changes_no_other() -> None:
    known = [True] * len(TITLES)
    before = vectors_of(TITLES, known)
    for later in ("yellow tea cup", "tea cup tea cup tea cup", "something else"):
        after = vectors_of([*TITLES, later], [*known, False])
        np.testing.assert_array_equal(after[:-1], before)
    cosines = vectors_of([*TITLES, "yellow tea cup"], [*known, False])
    cosines = cosines[-1] @ cosines[:-1].T
    assert cosines[:3].min() > cosines[3:].max() + 0.3


def test_titles_without_a_known_word_have_vectors_of_zeros() -> None:
    titles = [*TITLES, "★", "xylophone"]
    for projection in PROJECTIONS:
        vectors = vectors_of(titles, [True] * 7 + [False], projection)
        assert not vectors[6:].any()
        assert vectors[:6].any(axis=1).all()


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("titles", [["tea cup"], ["tea cup"] * 40, ["★"] * 40, ["★"]])
def test_where_no_title_differs_from_another_all_vectors_are_zeros(
    titles: list[str], projection: Projection
) -> None:
    sets = [range(len(titles))]
    assert not vectors_of(titles, projection=projection, sets=sets).any()


def test_whitening_keeps_so_few_directions_that_titles_still_differ_in_distance() -> None:
    titles = [f"{colour} {thing}" for colour in "abcdefgh" for thing in ("cup", "bag")]
    vectors = vectors_of(titles, projection="whitened")
    assert vectors.shape == (16, 2)
    few = vectors_of(TITLES, projection="whitened")
    np.testing.assert_array_equal(few, vectors_of(TITLES))


def test_discriminants_draw_together_what_the_same_people_take() -> None:
    by_colour = [(0, 3), (1, 4), (2, 5)] * 300
    plain, drawn = vectors_of(TITLES), vectors_of(TITLES, None, "discriminant", by_colour)
    assert (plain @ plain.T)[0, 3] < (plain @ plain.T)[0, 1]
    assert (drawn @ drawn.T)[0, 3] > (drawn @ drawn.T)[0, 1] + 0.5
    few = vectors_of(TITLES, None, "discriminant", by_colour[:3])
    np.testing.assert_allclose(few @ few.T, plain @ plain.T, atol=0.1)


def test_sets_are_what_a_person_takes_in_28_days_before_the_cutoff() -> None:
    days = {"a": [27, 29, 1], "b": [1, 28]}
    rows = [
        (user, f"i{item:03d}", START - np.timedelta64(day, "D"))
        for user, found in days.items()
        for item, day in enumerate(found)
    ]
    events = Interactions.from_frame(
        pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    )
    found = sets_taken(make_histories(events, catalog(3), "7D", START)).toarray()
    np.testing.assert_array_equal(found, [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 0]])


def test_texts_are_encoded_once_for_all_cutoffs_and_words_counted_for_each() -> None:
    class CountingEncoder(LetterEncoder):
        n_calls = 0

        def embed(self, texts: Sequence[str]) -> FloatArray:
            self.n_calls += 1
            return super().embed(texts)

    items, encoder = make_catalog(TITLES), CountingEncoder()
    all_known, fewer = each_alone(np.ones(6, dtype=bool)), each_alone(np.arange(6) > 0)
    for taken in (all_known, fewer):
        title_vectors(items, taken, encoder=encoder)
    assert encoder.n_calls == 1
    first = title_vectors(items, all_known)
    assert not np.array_equal(title_vectors(items, fewer), first)
    np.testing.assert_array_equal(title_vectors(items, all_known), first)


def test_an_encoder_takes_the_place_of_words() -> None:
    titles = [*TITLES, "★"]
    taken = each_alone(np.ones(7, dtype=bool))
    found = title_vectors(make_catalog(titles), taken, encoder=LetterEncoder())
    expected = LetterEncoder().embed(TITLES)
    expected = expected - expected.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:6], expected, atol=1e-6)
    assert not found[6].any()  # a title without a word


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=30), st.integers(0, 2**30 - 1))
def test_titles_of_any_text_have_finite_vectors_and_the_same_ones_again(
    titles: list[str], bits: int
) -> None:
    known = np.array([place == 0 or bool(bits >> place & 1) for place in range(len(titles))])
    taken = each_alone(known, [np.flatnonzero(known).tolist()])
    for projection in PROJECTIONS:
        first = title_vectors(make_catalog(titles), taken, projection=projection)
        again = title_vectors(make_catalog(titles), taken, projection=projection)
        assert first.tobytes() == again.tobytes()
        lengths = np.linalg.norm(first, axis=1)
        assert np.isclose(lengths, 0).sum() + np.isclose(lengths, 1, atol=1e-5).sum() == len(titles)


def test_averages_are_of_the_nearest_titles_and_of_all_where_there_are_none() -> None:
    vectors = vectors_of([*TITLES, "★"]).astype(np.float32)
    trust = trust_of(np.array([20.0, 0.0, 20.0, 20.0, 20.0, 0.0, 20.0]))
    nearest = nearest_titles(vectors, trust, 0.1, neighbours=2)
    dense = nearest.toarray()
    assert not dense.diagonal().any()
    assert not dense[:, [1, 5, 6]].any()  # not trusted, or without a vector
    assert (dense.sum(axis=1) < 1 + 1e-6).all()
    values = np.array([10.0, 99.0, 12.0, 0.0, 2.0, 99.0, 6.0])
    found = averages_by_title(nearest, trust, values)
    assert found[1] > 8 > 3 > found[5]
    assert found[6] == pytest.approx(values[[0, 2, 3, 4, 6]].mean())


def test_with_all_neighbours_averages_are_exact() -> None:
    vectors = vectors_of(TITLES).astype(np.float32)
    trust = np.arange(6.0)
    cosines = vectors.astype(np.float64) @ vectors.T
    weights = np.exp((cosines - 1) / 0.2) * trust
    np.fill_diagonal(weights, 0)
    values = np.arange(12.0).reshape(6, 2) ** 2
    expected = weights / weights.sum(axis=1, keepdims=True) @ values
    found = averages_by_title(nearest_titles(vectors, trust, 0.2, 6), trust, values)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_of_a_large_catalog_the_most_trusted_items_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = vectors_of(TITLES).astype(np.float32)
    trust = trust_of(np.array([20.0, 3.0, 9.0, 0.0, 30.0, 8.0]))
    whole = nearest_titles(vectors, trust, 0.2, 6).toarray()
    monkeypatch.setattr("llmrec.ranking.text_vectors.MAX_TELLING", 3)
    found = nearest_titles(vectors, trust, 0.2, 6).toarray()
    assert sorted(np.flatnonzero(found.any(axis=0))) == [0, 2, 4]
    expected = whole[:, [0, 2, 4]] / whole[:, [0, 2, 4]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, [0, 2, 4]], expected, rtol=1e-5)
