"""Scorers by features: a block that says what people take ranks it; a random one adds nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.ranking.blend import Blend
from llmrec.ranking.feature_scorers import feature_scorers
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.registry import load_blend, load_scorer, stored_blend
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.text_ease import EaseByText, EaseWithText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.ranking.weights import BestItems, choose_added_weight, choose_weights
from tests.ranking.fakes import LetterEncoder

STYLES, PER_WEEK, PEOPLE = 4, 3, 400
N_ITEMS = 160
START = np.datetime64("2020-01-06")
CUTOFF, NEXT = (START + np.timedelta64(7 * week, "D") for week in (5, 6))
STYLE = np.arange(N_ITEMS) % STYLES  # of each item, in the image alone
NEW = np.arange(N_ITEMS - 2 * STYLES, N_ITEMS)  # two of each style: not sold before the cutoff
KINDS = ("TitleKernel", "EaseByText", "EaseWithText", "FactorsFromText", "TextPopularity")
personal = pytest.mark.parametrize("kind", KINDS[:4])
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def make_world() -> tuple[Interactions, Catalog]:
    """Each week each person takes three items of one style that they have not taken, any of them.

    Items have a block that says the style, one of random numbers, and titles that say nothing.
    """
    rng = np.random.default_rng(0)
    ids = [f"i{item:03}" for item in range(N_ITEMS)]
    rows = []
    for user in range(PEOPLE):
        own = np.flatnonzero(user % STYLES == STYLE)
        early = rng.permutation(np.setdiff1d(own, NEW))[: 5 * PER_WEEK]
        late = rng.permutation(np.setdiff1d(own, early))[: 2 * PER_WEEK]
        for place, item in enumerate([*early, *late]):
            hours = 7 * 24 * (place // PER_WEEK) + int(rng.integers(1, 160))
            rows.append((f"u{user:03}", ids[item], START + np.timedelta64(hours, "h")))
    frame = pd.DataFrame({"item_id": ids, "categories": [["all"]] * N_ITEMS})
    image = np.eye(STYLES)[STYLE] + 0.1 * rng.normal(size=(N_ITEMS, STYLES))
    items = (
        Catalog.from_frame(frame)
        .with_features("image", image)
        .with_features("noise", rng.normal(size=(N_ITEMS, 4)))
    )
    events = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(events).align_to(items), items


def plain_catalog() -> Catalog:
    ids = make_world()[1].item_ids
    return Catalog.from_frame(pd.DataFrame({"item_id": ids, "categories": [["all"]] * N_ITEMS}))


def without_images(*items_without: int) -> Catalog:
    """The world's catalog with images alone, and none of some items."""
    matrix = np.array(make_world()[1].features["image"])
    matrix[list(items_without)] = np.nan
    return plain_catalog().with_features("image", matrix)


def fitted_on(catalog: Catalog, kind: str, block: str = "image") -> Any:
    if kind == "FactorsFromText":
        pytest.importorskip("implicit")
    scorer: Any = feature_scorers(catalog)[f"{kind}@{block}"]()
    return scorer.fit(make_world()[0], catalog, CUTOFF)


@cache
def fitted(kind: str, block: str = "image") -> Any:
    return fitted_on(make_world()[1], kind, block)


@cache
def windows() -> list[Window]:
    return make_windows(*make_world(), "7D", CUTOFF)


def histories() -> list[History]:
    return [window.history for window in windows()]


@personal
def test_of_items_that_nobody_has_taken_those_of_a_persons_style_are_first(kind: str) -> None:
    scores = fitted(kind).scores(histories())[:, NEW]
    for history, row in zip(histories(), scores, strict=True):
        own = int(history.user_id[1:]) % STYLES == STYLE[NEW]
        assert row[own].min() > row[~own].max()


@pytest.mark.parametrize("kind", [*KINDS[:2], KINDS[3]])  # EaseWithText knows people, too
def test_validation_gives_the_weight_to_the_block_that_tells(kind: str) -> None:
    scorers = [RecentPopularity(), fitted(kind), fitted(kind, "noise")]
    weights = np.array(choose_weights(scorers, windows(), repeat="exclude"))
    assert weights[1] > 0.9 * weights.sum()
    later = BestItems.of(scorers, make_windows(*make_world(), "7D", NEXT), "exclude", 10)
    alone = [later.ndcg(weights * chosen) for chosen in ([1, 1, 0], [1, 0, 0], [0, 0, 1])]
    assert alone[0] > 2 * max(later.ndcg(np.eye(3)[0]), later.ndcg(np.eye(3)[2]))
    assert later.ndcg(weights) < alone[0] + 0.02  # what the random block adds in the next week


@personal
def test_a_random_block_beside_one_that_tells_gets_no_weight(kind: str) -> None:
    blend = Blend([RecentPopularity(), fitted(kind)], [0.1, 1.0])
    random, telling = fitted(kind, "noise"), Blend([RecentPopularity()], [1.0])
    assert choose_added_weight(blend, random, windows(), repeat="exclude") == 0
    assert choose_added_weight(telling, fitted(kind), windows(), repeat="exclude") > 0


@every_kind
def test_a_blend_by_blocks_is_stored_and_scores_the_same_to_the_bit(kind: str) -> None:
    blend = Blend([fitted(kind), fitted(kind, "noise")], [1.0, 0.2])
    assert all("image" in name or "noise" in name for name in blend.names)
    expected = blend.weighted_scores(histories())
    again = load_blend(stored_blend(blend), make_world()[1])
    assert again.names == blend.names
    assert again.weighted_scores(histories()).tobytes() == expected.tobytes()


@every_kind
def test_a_stored_scorer_needs_no_features_of_the_catalog(kind: str) -> None:
    scorer = fitted(kind)
    plain = plain_catalog()
    again: Any = load_scorer(scorer.stored(), plain)
    assert again.scores(histories()).tobytes() == scorer.scores(histories()).tobytes()
    with pytest.raises(DataError, match=r"no features 'image' \(it has none\)"):
        again.fit(make_world()[0], plain, CUTOFF)


@every_kind
def test_a_block_is_scored_as_titles_of_the_same_vectors_are(kind: str) -> None:
    events, items = make_world()
    letters = LetterEncoder().embed(items.titles)
    featured = items.with_features("letters", letters)
    makers: dict[str, Any] = {
        "TitleKernel": TitleKernel,
        "TextPopularity": TextPopularity,
        "EaseByText": lambda **options: ItemToItem(EaseByText(**options)),
        "EaseWithText": lambda **options: ItemToItem(EaseWithText(**options)),
        "FactorsFromText": FactorsFromText,
    }
    if kind == "FactorsFromText":
        pytest.importorskip("implicit")
    of_titles = makers[kind](encoder=LetterEncoder()).fit(events, items, CUTOFF)
    of_block = makers[kind](features="letters").fit(events, featured, CUTOFF)
    expected = of_titles.scores(histories())
    np.testing.assert_allclose(of_block.scores(histories()), expected, atol=1e-4)
    assert "titled like" in of_titles.name.replace(",", "")
    assert of_block.name == of_titles.name.replace("titled", "letters")


@every_kind
def test_the_unit_of_a_block_does_not_matter(kind: str) -> None:
    matrix = make_world()[1].features["image"].astype(np.float64)
    expected = fitted(kind).scores(histories())
    for unit in (1e-9, 1e9):
        scaled = plain_catalog().with_features("image", matrix * unit)
        found = fitted_on(scaled, kind).scores(histories())
        np.testing.assert_allclose(found, expected, atol=1e-3)


@every_kind
def test_items_without_features_are_neutral(kind: str) -> None:
    without, others = NEW[:STYLES], NEW[STYLES:]
    scores = fitted_on(without_images(*without), kind).scores(histories())
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.ptp(scores[:, without], axis=1), 0, atol=1e-9)
    if kind == "TextPopularity":
        return
    for history, row in zip(histories(), scores, strict=True):
        own = int(history.user_id[1:]) % STYLES == STYLE[others]
        neutral, lowest = row[without[0]], row[others][~own].min()
        assert row[others][own].min() > neutral >= lowest
        assert neutral > lowest or kind == "EaseWithText"  # what is below 0 counts as 0


@every_kind
def test_the_numbers_of_items_nobody_has_taken_change_no_other_raw_score(kind: str) -> None:
    scorer = fitted_on(without_images(NEW[0]), kind)
    found, expected = (one.raw_scores(histories()) for one in (scorer, fitted(kind)))
    others = np.delete(np.arange(N_ITEMS), NEW[0])
    if kind == "TextPopularity":  # shares of a sum over all items
        found, expected = (one / one[:, [0]] for one in (found, expected))
    np.testing.assert_allclose(found[:, others], expected[:, others], rtol=1e-4, atol=1e-6)


def test_there_are_scorers_for_each_block_and_none_without() -> None:
    _, items = make_world()
    names = set(feature_scorers(items))
    assert {f"TitleKernel@{block}" for block in ("image", "noise")} <= names
    assert {name.partition("@")[2] for name in names} == {"image", "noise"}
    plain = Catalog.from_frame(pd.DataFrame({"item_id": ["a"], "categories": ["A"]}))
    assert not feature_scorers(plain)


def test_ease_is_left_out_where_a_catalog_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.ranking.feature_scorers.MAX_EASE_ITEMS", N_ITEMS - 1)
    names = feature_scorers(make_world()[1])
    assert "TitleKernel@image" in names
    assert "EaseByText@image" not in names


def test_the_sources_of_vectors_are_titles_or_features_and_not_both() -> None:
    for make in (TitleKernel, TextPopularity, EaseByText, EaseWithText, FactorsFromText):
        with pytest.raises(ValueError, match="leave it out, or features='image'"):
            make(encoder="all-minilm-l6-v2", features="image")
    events, items = make_world()
    with pytest.raises(DataError, match=r"no features 'sound' \(it has 'image', 'noise'\)"):
        TitleKernel(features="sound").fit(events, items, CUTOFF)


@personal
def test_contributions_are_of_the_past_items_of_the_same_style(kind: str) -> None:
    (history,) = make_histories(*make_world(), "7D", CUTOFF, [5])
    scorer = fitted(kind)
    found = scorer.contributions(history, NEW)
    np.testing.assert_allclose(found.raw_scores, scorer.raw_scores([history])[0, NEW], atol=1e-9)
    own = STYLE[NEW] == 5 % STYLES
    assert found.raw_scores[own].min() > found.raw_scores[~own].max()
