"""New items are ranked among themselves, in a log where titles tell what each person takes."""

from __future__ import annotations

from math import log2

import numpy as np
import pandas as pd
import pytest

from benchmarks.ranking import launches
from benchmarks.ranking.launches import (
    POPULAR,
    RANDOM,
    FittedScorer,
    MeasuredShelf,
    ShelfResult,
    ShelfScores,
    items_row,
    people_row,
    result_rows,
    standardised,
)
from benchmarks.ranking.shelves import ItemShelf, shelves_from
from benchmarks.ranking.tied_ndcg import TiedRanking
from llmrec.data.dataset import Dataset
from llmrec.data.readers import read_table
from llmrec.metrics import ndcg_at

THINGS = ("tea cup", "paper bag", "wooden clock")
COLOURS = ("red", "blue", "green", "white")
START = np.datetime64("2020-03-01")
KEYS = {"dataset": "online-retail", "split": "test / launch", "model": "a", "seeds": [0]}
GAINS = np.array([1.0, 1 / log2(3), 1 / 2])


def make_dataset() -> Dataset:
    """Of 30 people each takes three items of one thing, then its pink one within 28 days.

    Somebody without a past takes a pink cup, and a gold one is first taken after 28 days. Most
    often, but later, the pink one is called otherwise.
    """
    rows = []
    for user in range(30):
        thing = THINGS[user % 3]
        for place in range(3):
            colour = COLOURS[(user // 3 + place) % 4]
            rows.append((f"u{user:02}", f"{colour} {thing}", START - np.timedelta64(9 + place)))
        rows.append((f"u{user:02}", f"pink {thing}", START + np.timedelta64(user % 28)))
    rows.append(("new", "pink tea cup", START + np.timedelta64(1)))
    rows.append(("u00", "gold tea cup", START + np.timedelta64(28)))
    frame = pd.DataFrame(rows, columns=["user_id", "title", "timestamp"])
    frame["item_id"] = frame["title"]
    later = [("u01", "mug", START + np.timedelta64(30 + day), "pink tea cup") for day in range(20)]
    frame = pd.concat((frame, pd.DataFrame(later, columns=frame.columns)), ignore_index=True)
    return read_table(frame.assign(categories="all"))


@pytest.fixture(scope="module")
def shelf() -> ItemShelf:
    return shelves_from(make_dataset(), START)["launch"]


def fit(shelf: ItemShelf, name: str) -> FittedScorer:
    return FittedScorer.fit(shelf.known, shelf.start, launches.SCORERS[name])


def test_a_shelf_holds_what_was_first_sold_in_28_days_for_people_with_a_past(
    shelf: ItemShelf,
) -> None:
    titles = [shelf.known.catalog.titles[item] for item in shelf.items]
    assert titles == ["pink paper bag", "pink tea cup", "pink wooden clock"]
    assert shelf.user_ids == [f"u{user:02}" for user in range(30)]
    of_thing = [titles.index(f"pink {THINGS[user % 3]}") for user in range(30)]
    assert shelf.taken.sum() == 30
    assert shelf.taken[np.arange(30), of_thing].all()


def test_a_new_item_has_the_title_of_its_first_sale() -> None:
    dataset = make_dataset()
    place = dataset.catalog.item_ids.get_loc("pink tea cup")
    assert dataset.catalog.titles[place] == "mug"
    known = shelves_from(dataset, START)["launch"].known
    assert known.catalog.titles[known.catalog.item_ids.get_loc("pink tea cup")] == "pink tea cup"


def test_scorers_learn_from_what_precedes_a_shelf_alone(shelf: ItemShelf) -> None:
    assert (shelf.known.log.timestamp < START).all()
    assert all(history.log is shelf.known.log for history in shelf.histories)
    assert all(len(history.item_idx) == 3 for history in shelf.histories)


def test_new_items_titled_like_what_a_person_takes_come_first(shelf: ItemShelf) -> None:
    for name in ("TitleKernel", "TitleKernel without projection", "EaseByText"):
        scored = ShelfScores.of(shelf, fit(shelf, name))
        for scores in (scored.log_probabilities, scored.raw):
            assert TiedRanking.of(scores, shelf.taken).ndcg() == pytest.approx(np.ones(30))


def test_each_model_has_a_row_with_people_and_one_with_items(
    shelf: ItemShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "ITEM_DRAWS", 20)
    fitted = dict.fromkeys((POPULAR, *launches.SUMMED), fit(shelf, "TitleKernel"))
    engine = launches.engine_before(shelf.known, shelf.start)
    rows = list(result_rows(KEYS, [MeasuredShelf.of(shelf, fitted, engine, seed=0)] * 2))
    found = {(row["model"], row["metric"]): row for row in rows}
    assert found[RANDOM, "ndcg@10"]["value"] == pytest.approx(GAINS.mean())
    assert found["Sum of three", "ndcg@10"]["value"] == pytest.approx(1.0)
    assert found[launches.ENGINE, "ndcg@10"]["n"] == 60
    assert found["Sum of three", "ndcg@10"]["n"] == 60
    assert found["Sum of three", "ndcg@10 over items"]["n"] == 6
    assert found["TitleKernel", "ndcg@10 above TextPopularity"]["value"] == 0


def test_equal_scores_share_their_ranks() -> None:
    relevant = np.array([[False, True, True, False]])
    tied = TiedRanking.of(np.array([[2.0, 1.0, 1.0, -np.inf]]), relevant).ndcg()
    assert tied == pytest.approx([(GAINS[1] + GAINS[2]) / (GAINS[0] + GAINS[1])])
    half = TiedRanking.of(np.array([[1.0, 1.0, -np.inf, -np.inf]]), relevant).ndcg()
    last = (GAINS[2] + 1 / log2(5)) / 2
    assert half == pytest.approx([((GAINS[0] + GAINS[1]) / 2 + last) / (GAINS[0] + GAINS[1])])


def test_without_equal_scores_it_is_the_ndcg_of_the_list() -> None:
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(50, 30)), rng.random((50, 30)) < 0.1
    values = TiedRanking.of(scores, relevant).ndcg()
    lists = zip(np.argsort(-scores, axis=1), relevant, strict=True)
    expected = [ndcg_at(10, order, np.flatnonzero(row)) for order, row in lists]
    np.testing.assert_allclose(values, expected)


def test_an_item_that_is_drawn_twice_is_in_the_list_twice() -> None:
    ranking = TiedRanking.of(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, False]]))
    assert ranking.ndcg(np.array([1, 2, 0])) == pytest.approx(
        [(GAINS[1] + GAINS[2]) / (GAINS[0] + GAINS[1])]
    )
    assert ranking.ndcg(np.array([0, 1, 2])) == pytest.approx([1.0])
    assert np.isnan(ranking.ndcg(np.array([2, 0, 1]))).all()


def test_scores_are_standardised_a_person_and_the_impossible_is_the_least() -> None:
    found = standardised(np.array([[-np.inf, 1.0, 3.0], [-np.inf] * 3]))
    np.testing.assert_allclose(found[0], np.array([-2.0, -2.0, 4.0]) / 8**0.5)
    assert (found[1] == 0).all()


def test_all_lists_of_a_person_are_drawn_together() -> None:
    values = np.array([0.0, 1.0] * 50)
    alone = people_row(KEYS, "ndcg@10", values, [f"u{place}" for place in range(100)])
    pairs = people_row(KEYS, "ndcg@10", values, [f"u{place // 2}" for place in range(100)])
    assert alone["low"] < 0.5 < alone["high"]
    assert pairs["low"] == pairs["value"] == pairs["high"] == 0.5
    assert pairs["n"] == 100


def test_the_interval_over_items_lies_about_the_value() -> None:
    result = ShelfResult(np.array([0.2, 0.4]), np.array([[1.0, 1.0]] * 8 + [[0.0, 0.0]]))
    shelf_of_two = MeasuredShelf(7, ["a", "b"], {"a": result})
    row = items_row(KEYS, [shelf_of_two, shelf_of_two], "a")
    assert [row[key] for key in ("value", "low", "high")] == pytest.approx([0.3] * 3)
    assert row["n"] == 14
