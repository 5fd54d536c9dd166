"""Scorers by title know items nobody has taken; what they say of others is worked by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.forecast import ItemScorer
from llmrec.forecasters.collaborative import solve_ease
from llmrec.ranking import text_scorers
from llmrec.ranking.factors import ImplicitALS
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.registry import load_scorer
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.text_ease import MAX_ITEMS, EaseByText, EaseWithText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_projection import sets_taken
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel, on_grid
from llmrec.ranking.text_vectors import title_vectors
from tests.ranking.fakes import LetterEncoder

COLOURS = ("red", "blue", "green", "white", "black", "pink")
THINGS = ("tea cup", "paper bag", "wooden clock")
# Six of each thing; the last three, one of each, are first taken after the cutoff. Then one
# without a word.
TITLES = (*(f"{colour} {thing}" for colour in COLOURS for thing in THINGS), "★")
NEW = np.array([15, 16, 17])
CUTOFF = np.datetime64("2020-03-01")


def make_world(titles: tuple[str, ...] = TITLES) -> tuple[Interactions, Catalog]:
    """Of 30 people each takes four old items of one thing, and after the cutoff the new one.

    One more takes two cups and two clocks in a day.
    """
    ids = [f"i{place:02}" for place in range(len(titles))]
    items = Catalog.from_frame(
        pd.DataFrame({"item_id": ids, "title": titles, "categories": [["all"]] * len(titles)})
    )
    rows = []
    for user in range(30):
        thing = user % 3
        for place in range(4):
            item = thing + 3 * ((user // 3 + place) % 5)
            day = CUTOFF - np.timedelta64(40 - 8 * place, "D")
            rows.append((f"u{user:02}", ids[item], day))
        rows.append((f"u{user:02}", ids[15 + thing], CUTOFF + np.timedelta64(3, "D")))
    rows += [("u30", ids[item], CUTOFF - np.timedelta64(9, "D")) for item in (0, 2, 6, 8)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(frame).align_to(items), items


EVENTS, ITEMS = make_world()
MAKERS: dict[str, Callable[[], Any]] = {
    "kernel": TitleKernel,
    "ease": lambda: ItemToItem(EaseByText(5.0), floor=0.01),
    "ease with text": lambda: ItemToItem(EaseWithText(5.0, 5.0), floor=0.01),
    "factors": lambda: FactorsFromText(ImplicitALS(3, 0.1)),
}
personal = pytest.mark.parametrize("name", MAKERS)
by_title = pytest.mark.parametrize("name", [*MAKERS, "popularity"])


def fitted(name: str, events: Interactions = EVENTS, items: Catalog = ITEMS) -> Any:
    if name == "factors":
        pytest.importorskip("implicit")
    return {**MAKERS, "popularity": TextPopularity}[name]().fit(events, items, CUTOFF)


def histories(*users: int, events: Interactions = EVENTS, items: Catalog = ITEMS) -> list[History]:
    return make_histories(events, items, "7D", CUTOFF, list(users))


def sets_before_cutoff() -> sparse.csr_array:
    return sets_taken(make_histories(EVENTS, ITEMS, "7D", CUTOFF))


@personal
def test_an_item_nobody_has_taken_is_scored_by_its_title(name: str) -> None:
    scores = fitted(name).scores(histories(0, 1, 2))[:, NEW]
    assert np.isfinite(scores).all()
    for user, row in enumerate(scores):
        others = np.delete(row, user)
        assert row[user] > others.max() + 0.1  # the new one of the thing that they take


def test_a_new_item_is_popular_where_items_of_close_titles_are() -> None:
    rows = [("u", f"i{item:02}", CUTOFF - np.timedelta64(1, "D")) for item in range(0, 12, 3)]
    rows += [("v", f"i{item:02}", CUTOFF - np.timedelta64(90, "D")) for item in range(15)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events = Interactions.from_frame(frame).align_to(ITEMS)
    scorer = TextPopularity(RecentPopularity(28.0)).fit(events, ITEMS, CUTOFF)
    (scores,) = scorer.scores(histories(0, events=events))
    assert scores[15] > scores[16:18].max() + 0.3
    assert scores[0] > scores[15]  # what was taken itself is more popular than the new one


@by_title
def test_nothing_at_or_after_the_cutoff_changes_a_score(name: str) -> None:
    before = EVENTS.drop_events({"later": EVENTS.timestamp >= CUTOFF})
    assert len(before) < len(EVENTS)
    expected = fitted(name, before).scores(histories(0, 5, events=before))
    found = fitted(name).scores(histories(0, 5))
    assert found.tobytes() == expected.tobytes()


@personal
def test_other_titles_of_items_nobody_has_taken_change_no_other_raw_score(name: str) -> None:
    changed = tuple("yellow lamp" if item == 16 else title for item, title in enumerate(TITLES))
    events, items = make_world(changed)
    past = histories(0, 1, events=events, items=items)
    found = fitted(name, events, items).raw_scores(past)
    expected = fitted(name).raw_scores(histories(0, 1))
    others = np.delete(np.arange(len(TITLES)), 16)
    np.testing.assert_allclose(found[:, others], expected[:, others], atol=1e-6)
    assert (np.abs(found - expected)[:, 16] > 0.01).all()


@personal
def test_the_largest_contributions_are_of_the_past_items_of_closest_titles(name: str) -> None:
    scorer, (history,) = fitted(name), histories(30)  # took cups and clocks
    found = scorer.contributions(history, NEW)
    raw = scorer.raw_scores([history])[0, NEW]
    np.testing.assert_allclose(found.raw_scores, raw, rtol=0, atol=1e-9)
    for parts, thing in ((found.parts[0], 0), (found.parts[2], 2)):
        close = found.past_items % 3 == thing
        assert close.sum() == 2
        assert parts[close].min() > parts[~close].max()


@by_title
def test_equal_titles_or_none_give_new_items_equal_scores(name: str) -> None:
    for title in ("tea cup", "★"):
        events, items = make_world((title,) * len(TITLES))
        scores = fitted(name, events, items).scores(histories(0, 1, events=events, items=items))
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(np.ptp(scores[:, NEW], axis=1), 0, atol=1e-12)


@by_title
def test_a_catalog_of_one_item_is_scored(name: str) -> None:
    items = Catalog.from_frame(
        pd.DataFrame({"item_id": ["a"], "title": ["tea cup"], "categories": [["all"]]})
    )
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": ["2020-01-01"]})
    events = Interactions.from_frame(frame).align_to(items)
    scores = fitted(name, events, items).scores(histories(0, events=events, items=items))
    np.testing.assert_allclose(scores, [[0.0]], atol=1e-12)


def test_the_kernel_is_the_sum_of_decayed_closeness_to_the_past_items() -> None:
    scorer, (history,) = TitleKernel(0.3, 10.0).fit(EVENTS, ITEMS, CUTOFF), histories(0)
    vectors = title_vectors(ITEMS, sets_before_cutoff(), projection="discriminant").astype(float)
    closeness = np.exp((vectors @ vectors[history.item_idx].T - 1) / 0.3)
    expected = closeness @ np.exp2(-history.days_ago / 10)
    np.testing.assert_allclose(scorer.raw_scores([history])[0], expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(scorer.scores([history])).sum(), 1)


def test_the_kernel_of_a_block_of_items_is_the_one_of_all_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    ids, words = [f"i{n:03d}" for n in range(700)], rng.integers(60, size=(700, 3))
    titles = [" ".join(f"w{word}" for word in row) for row in words]
    frame = pd.DataFrame({"item_id": ids, "title": titles, "categories": [["all"]] * 700})
    items = Catalog.from_frame(frame)
    days = pd.to_timedelta(rng.integers(0, 200, 400), "D")
    who = [f"u{n}" for n in rng.integers(12, size=400)]
    rows = {"user_id": who, "item_id": rng.choice(ids, 400)}
    taken = pd.DataFrame(rows | {"timestamp": pd.Timestamp("2020-01-01") + days})
    events = Interactions.from_frame(taken).align_to(items)
    scorer = TitleKernel().fit(events, items)
    past = make_histories(events, items, "7D")
    exact = on_grid(scorer.vectors).astype(np.float64)
    weights = sparse.csc_array(recency_weighted(past, scorer.half_life, "days"))
    expected = np.zeros(weights.shape)
    for start in range(0, 700, 256):
        kernel = np.exp((exact[start : start + 256] @ exact.T - 1.0) / scorer.temperature)
        expected += sparse.csr_array(weights[:, start : start + 256]) @ kernel
    for n_values in (1, 2_000_000):
        monkeypatch.setattr(text_scorers, "_VALUES_PER_BLOCK", n_values)
        assert scorer.raw_scores(past).tobytes() == expected.tobytes()
        alone = np.concatenate([scorer.raw_scores([one]) for one in past])
        assert alone.tobytes() == expected.tobytes()


def test_an_encoder_finds_the_vectors_and_is_stored_by_its_name() -> None:
    scorer = TitleKernel(encoder=LetterEncoder()).fit(EVENTS, ITEMS, CUTOFF)
    taken = sets_before_cutoff()
    expected = title_vectors(ITEMS, taken, encoder=LetterEncoder(), projection="discriminant")
    stored = scorer.stored()
    assert stored.values["encoder"] == "letters"
    np.testing.assert_array_equal(stored.arrays["vectors"], expected)
    assert TitleKernel.from_stored(stored, ITEMS).encoder == "letters"
    ease = ItemToItem(EaseByText(encoder=LetterEncoder())).fit(EVENTS, ITEMS, CUTOFF).stored()
    again = load_scorer(ease, ITEMS)
    assert isinstance(again, ItemToItem)
    assert again.similarity == EaseByText(encoder="letters")


def test_without_implicit_the_error_names_the_extra_and_stored_factors_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = fitted("factors")

    def absent(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[als\]'"):
        FactorsFromText().fit(EVENTS, ITEMS, CUTOFF)
    past = histories(0)
    again = load_scorer(scorer.stored(), ITEMS)
    assert again.scores(past).tobytes() == scorer.scores(past).tobytes()


def test_a_catalog_too_large_for_ease_is_refused_with_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.ranking.text_ease.MAX_ITEMS", 5)
    for similarity in (EaseByText(), EaseWithText()):
        with pytest.raises(ValueError, match="at most 5: use TitleKernel"):
            ItemToItem(similarity).fit(EVENTS, ITEMS, CUTOFF)
    assert MAX_ITEMS > 5


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_parameters_out_of_bounds_are_refused(value: float) -> None:
    wrong: dict[Any, tuple[str, ...]] = {
        TitleKernel: ("temperature", "half_life"),
        TextPopularity: ("strength", "temperature", "neighbours"),
        EaseByText: ("regularization", "half_life", "temperature", "neighbours", "keep"),
        EaseWithText: ("weight", "regularization", "half_life", "keep"),
        FactorsFromText: ("ridge",),
    }
    for make, names in wrong.items():
        for name in names:
            with pytest.raises(ValueError, match=f"{name} must"):
                make(**{name: value})
        with pytest.raises(ValueError, match=r"projection must be one of 'none', .*, not 'much'"):
            make(projection="much")
    with pytest.raises(ValueError, match=r"temperature must be >= 0.01"):
        TitleKernel(0.001)


@by_title
def test_a_scorer_is_not_stored_or_used_before_it_is_fitted(name: str) -> None:
    scorer: ItemScorer = {**MAKERS, "popularity": TextPopularity}[name]()
    with pytest.raises(ValueError, match="is not fitted"):
        scorer.stored()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="is not fitted"):
        scorer.scores(histories(0))


def test_stored_numbers_that_cannot_be_are_refused() -> None:
    popularity = TextPopularity(RecentPopularity(7.0)).fit(EVENTS, ITEMS, CUTOFF).stored()
    for trust in (np.zeros(len(TITLES)), np.full(len(TITLES), -1.0)):
        with pytest.raises(ModelLoadError, match="an item's trust is below 0"):
            load_scorer(replace(popularity, arrays={**popularity.arrays, "trust": trust}), ITEMS)
    factors = fitted("factors").stored()
    short = {"predicted": factors.arrays["predicted"][:, :2]}
    with pytest.raises(ModelLoadError, match=r"'predicted' has shape \(19, 2\)"):
        load_scorer(replace(factors, arrays=short), ITEMS)


def test_ease_with_text_is_ease_of_people_and_of_directions_of_titles() -> None:
    past = make_histories(EVENTS, ITEMS, "7D", CUTOFF)
    taken = recency_weighted(past, np.inf, "days", "binary").toarray()
    vectors = title_vectors(ITEMS, sets_before_cutoff()).astype(np.float64)
    known = np.flatnonzero(taken.any(axis=0))
    rows = np.concatenate([taken[:, known], np.sqrt(2.0) * vectors[known].T])
    found = EaseWithText(2.0, 7.0, np.inf).matrix(past)
    np.testing.assert_allclose(
        found[np.ix_(known, known)], solve_ease(rows.T @ rows, 7.0), atol=1e-6
    )
    inverse = np.linalg.inv(rows.T @ rows + 7.0 * np.eye(len(known)))
    of_new = inverse @ (2.0 * vectors[known] @ vectors[NEW].T)
    np.testing.assert_allclose(found[np.ix_(known, NEW)], of_new, atol=1e-6)
    assert not found[NEW].any()
