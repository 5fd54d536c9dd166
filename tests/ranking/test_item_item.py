"""Item-to-item scorers: matrices worked by hand, recency weights, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.item_item import (
    Cosine,
    Ease,
    ItemSimilarity,
    ItemToItem,
    SequentialRules,
)
from tests.worlds import START, catalog, log

ITEMS = Catalog.from_frame(
    pd.DataFrame({"item_id": ["a", "b", "c"], "categories": [["X"], ["X"], ["Y"]]})
)


def people(**taken: str) -> list[History]:
    """Each takes a letter's item a day, in order."""
    rows = [
        (user, item, START + np.timedelta64(day, "D"))
        for user, items in taken.items()
        for day, item in enumerate(items)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events = Interactions.from_frame(frame).align_to(ITEMS)
    return make_histories(events, ITEMS, "7D", START + np.timedelta64(10, "D"))


def dense(similarity: ItemSimilarity, histories: list[History]) -> np.ndarray:
    found = similarity.matrix(histories)
    return found.toarray() if sparse.issparse(found) else found


def test_ease_solves_the_ridge_regression_of_each_item_on_the_others() -> None:
    histories = people(u="ab", v="abc", w="c", x="bbc")
    taken = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1]], dtype=float)
    found = dense(Ease(2.0), histories)
    for item in range(3):
        others = [other for other in range(3) if other != item]
        x, y = taken[:, others], taken[:, item]
        solved = np.linalg.solve(x.T @ x + 2.0 * np.eye(2), x.T @ y)
        np.testing.assert_allclose(found[others, item], solved, rtol=1e-5)
        assert found[item, item] == 0


def test_cosine_selects_the_items_most_like_the_one_scored() -> None:
    histories = people(u="ab", v="abc", w="c")
    found = dense(Cosine(1), histories)
    # a and b are taken by the same two people; c is as like a as b, and a has the smaller index.
    np.testing.assert_allclose(found, [[0, 1, 0.5], [1, 0, 0], [0, 0, 0]])


def test_cosine_is_the_same_whatever_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    histories = make_histories(log(), catalog(), "7D")
    whole = Cosine(4).matrix(histories)
    monkeypatch.setattr("llmrec.ranking.item_item._PAIRS_PER_BATCH", 1_000)
    parts = Cosine(4).matrix(histories)
    assert whole.nnz == 4 * 25
    for name in ("data", "indices", "indptr"):
        assert getattr(whole, name).tobytes() == getattr(parts, name).tobytes()


def test_sequential_rules_count_ordered_pairs_by_their_distance() -> None:
    histories = people(u="abc", v="ba")
    found = dense(SequentialRules(window=2, fade=0.5, power=1.0), histories)
    a, b, c = 1 / 3, 1 / 3, 1 / 2  # one over 1 + how often each was taken
    np.testing.assert_allclose(found, [[0, a, 0.5 * a], [b, 0, b], [0, 0, 0 * c]])


@pytest.mark.parametrize("keep", [1, 4, 24, 25, 99])
def test_few_weights_of_ease_are_the_largest_in_size_of_each_item_taken(keep: int) -> None:
    histories = make_histories(log(), catalog(), "7D")
    whole, few = dense(Ease(5.0), histories), dense(Ease(5.0, keep=keep), histories)
    assert few.dtype == np.float32
    for row, kept in zip(whole, few, strict=True):
        n = min(keep, np.count_nonzero(row))
        np.testing.assert_array_equal(kept[kept != 0], row[kept != 0])
        assert np.count_nonzero(kept) == n
        assert sorted(np.abs(kept))[-n:] == sorted(np.abs(row))[-n:]


@pytest.mark.parametrize("keep", [1, 4, 99])
def test_few_rules_are_the_strongest_of_each_item_taken(keep: int) -> None:
    histories = make_histories(log(), catalog(), "7D")
    whole = dense(SequentialRules(3), histories)
    few = dense(SequentialRules(3, keep=keep), histories)
    for row, kept in zip(whole, few, strict=True):
        assert sorted(kept)[-keep:] == sorted(row)[-keep:]
        np.testing.assert_array_equal(kept[kept > 0], row[kept > 0])


def test_weights_are_selected_alike_in_any_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = make_histories(log(), catalog(), "7D")
    whole = dense(Ease(5.0, keep=3), histories)
    monkeypatch.setattr("llmrec.ranking.largest._ROWS_PER_BATCH", 4)
    assert dense(Ease(5.0, keep=3), histories).tobytes() == whole.tobytes()


def test_events_of_different_people_are_no_pair() -> None:
    one, two = (dense(SequentialRules(), people(u="ab", **more)) for more in ({}, {"v": "c"}))
    np.testing.assert_allclose(one[:2, :2] > 0, two[:2, :2] > 0)
    assert not two[2].any()
    assert not two[:, 2].any()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("count", [0.25 + 0.5, 0.125 + 1, 0]),
        ("binary", [0.5, 1, 0]),
        ("log", np.log1p([0.75, 1.125, 0])),
    ],
)
def test_recency_weights_by_events(counts: str, expected: list[float]) -> None:
    (history,) = people(u="baab")
    row = recency_weighted([history], 1.0, "events", counts).toarray()[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(row, expected)


def test_recency_weights_by_days_before_the_cutoff() -> None:
    (history,) = people(u="ab")  # ten and nine days before
    row = recency_weighted([history], 5.0, "days").toarray()[0]
    np.testing.assert_allclose(row, [0.25, 2 ** (-9 / 5), 0])


def test_scores_are_the_weighted_history_times_the_matrix_plus_a_floor_of_popularity() -> None:
    histories = people(u="abc", v="ba", w="cc")
    log_ = histories[0].log
    scorer = ItemToItem(SequentialRules(1, 1.0, 0.0), half_life=1.0, counts="count", floor=0.1)
    found = np.exp(scorer.fit(log_, ITEMS).scores(histories)[1])  # v: b a half, a whole
    similar = np.array([0.5, 1.0, 0.5])  # a to b once, b to a and to c once each
    popular = np.array([3, 3, 4]) / 10
    np.testing.assert_allclose(found, 0.9 * similar / 2 + 0.1 * popular)


def test_somebody_without_events_gets_what_is_popular() -> None:
    items, events = catalog(), log(n_users=6)
    cutoff = START + np.timedelta64(7, "D")
    scorer = ItemToItem(Ease(5.0)).fit(events, items, cutoff)
    (past,) = make_histories(events, items, "7D", cutoff, [0])
    nothing = np.array([past.offsets[0]] * 2)
    empty = History(past.log, items, 0, nothing, past.bounds[-2:], past.cutoff, past.period_length)
    known = truncate_log(events, cutoff).align_to(items)
    counts = 1 + np.bincount(known.item_idx, minlength=items.n_items)
    np.testing.assert_allclose(scorer.scores([empty])[0], np.log(counts / counts.sum()))


def test_a_fit_on_more_events_of_a_person_than_their_history_has_is_refused() -> None:
    items, events = catalog(), log(n_users=6)
    scorer = ItemToItem(Cosine()).fit(events, items)
    scorer.scores(make_histories(events, items, "7D"))
    early = make_histories(events, items, "7D", START + np.timedelta64(21, "D"))
    with pytest.raises(ValueError, match=r"saw \d+ events of user .* whose history holds"):
        scorer.scores(early)


def test_a_scorer_not_fitted_or_of_another_catalog_is_refused() -> None:
    scorer = ItemToItem(Cosine())
    past = make_histories(log(n_users=6), catalog(), "7D")
    with pytest.raises(ValueError, match="is not fitted"):
        scorer.scores(past)
    with pytest.raises(ValueError, match="another catalog"):
        scorer.fit(log(n_users=6), catalog(30)).scores(past)


def test_the_error_of_ease_for_a_large_catalog_says_what_to_use_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.ranking.item_item.MAX_DENSE_ITEMS", 10)
    with pytest.raises(ValueError, match="use Cosine or SequentialRules"):
        ItemToItem(Ease()).fit(log(n_users=6), catalog(11))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_parameters_out_of_bounds_are_refused(value: float) -> None:
    for build in (
        lambda: Ease(value),
        lambda: Cosine(value),  # type: ignore[arg-type]
        lambda: SequentialRules(fade=value),
        lambda: SequentialRules(power=-1.0),
        lambda: Ease(keep=value),  # type: ignore[arg-type]
        lambda: SequentialRules(keep=value),  # type: ignore[arg-type]
        lambda: Ease(counts="count"),  # type: ignore[arg-type]
        lambda: Cosine(counts="count"),  # type: ignore[arg-type]
        lambda: ItemToItem(counts="often"),  # type: ignore[arg-type]
        lambda: SequentialRules(fade=1.5),
        lambda: ItemToItem(half_life=value),
        lambda: ItemToItem(floor=value),
        lambda: ItemToItem(floor=1.0),
    ):
        with pytest.raises(ValueError, match="must"):
            build()


def test_a_similarity_of_somebody_else_is_not_stored() -> None:
    class Own(Cosine):
        pass

    cutoff = START + np.timedelta64(28, "D")
    scorer = ItemToItem(Own()).fit(log(n_users=6), catalog(), cutoff)
    with pytest.raises(ValueError, match="a similarity Own cannot be stored: Ease, Cosine, Seq"):
        scorer.stored()
    scorer = ItemToItem(Cosine()).fit(log(n_users=6), catalog())
    assert scorer.stored().values["before"] is None
