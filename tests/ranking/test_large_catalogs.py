"""Large catalogs: few people are scored at a time, and lists, weights and scores are the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window
from llmrec.data.splits import past_windows
from llmrec.data.windows import last_period_windows
from llmrec.forecast import ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking import best_items, blocks, folds, gbdt
from llmrec.ranking.best_items import BestItems
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import STRENGTHS, fit_strength, inverse_spreads, ndcg_by_strength
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.history_matrix import log_shares
from llmrec.ranking.item_item import Cosine, ItemToItem, SequentialRules
from llmrec.ranking.largest import largest_of_rows, places_of_largest, sparse_rows
from llmrec.ranking.ranking import rank, rank_by_strength
from llmrec.ranking.registry import build_scorer
from llmrec.ranking.scorers import PersonalRepeat, PopularityTrend, RecentPopularity
from llmrec.ranking.selection import TREES, ListSelection, select_list
from tests.ranking.test_blend import Fixed
from tests.worlds import catalog, log, small_world

NAMES = ("RecentPopularity", "PersonalRepeat", "Cosine")
WINDOWS = small_world(n_users=40)
HISTORIES = [window.history for window in WINDOWS]
POPULARITIES = (RecentPopularity(7.0), PopularityTrend(7.0))


def world(n_items: int, n_users: int) -> tuple[Interactions, Catalog, list[Window]]:
    """Events of 25 of the items, and the windows of their last period."""
    items = catalog(n_items)
    events = log(n_users).align_to(items)
    return events, items, last_period_windows(events, items, "7D")


def past_of(n_items: int, n_users: int) -> tuple[Interactions, Catalog, list[list[Window]]]:
    """The same events, and the windows of each of their periods, newest first."""
    events, items, _ = world(n_items, n_users)
    return (
        events,
        items,
        past_windows(Dataset("made up", events, items, "7D", "items", "person", "allow")),
    )


def tree_folds(n_items: int, n_users: int) -> list[RankingFold]:
    """Three of the periods for trees, oldest first."""
    _, _, past = past_of(n_items, n_users)
    return [RankingFold([RecentPopularity(), PersonalRepeat()], one) for one in past[2::-1]]


def select(
    events: Interactions,
    items: Catalog,
    past: Sequence[Sequence[Window]],
    without: Sequence[str] = (TREES,),
) -> ListSelection:
    end = events.timestamp.max() + MILLISECOND
    return select_list(
        *(events, items, past, NAMES),
        lambda name, known, cutoff: build_scorer(name, known, items, cutoff),
        cutoff=end,
        repeat="allow",
        without=without,
    )


@pytest.fixture
def as_large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Turn every catalog into a large one, of which three people or so are scored at a time."""

    def turn() -> None:
        for module in (best_items, blocks, folds, gbdt):
            monkeypatch.setattr(module, "MAX_SMALL_CATALOG", 0)
        monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 250)

    return turn


@given(seed=st.integers(0, 2**16), n_values=st.integers(1, 2_000), n=st.integers(1, 50))
def test_the_largest_values_are_found_exactly_whatever_their_ties(
    seed: int, n_values: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, rng.integers(1, 500) + 1, n_values).astype(np.float64)
    values[rng.random(n_values) < 0.1] = -np.inf
    smallest = np.sort(values)[::-1][: min(n, n_values)][-1]
    found = places_of_largest(values, n)
    assert found.tolist() == np.flatnonzero(values >= smallest).tolist()


@given(seed=st.integers(0, 2**16), n_columns=st.integers(1, 700), n=st.integers(1, 12))
def test_the_largest_of_rows_are_those_that_sorting_whole_rows_takes(
    seed: int, n_columns: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(30, n_columns)).astype(np.float32)
    dense[::3] = np.round(dense[::3], rng.integers(0, 3))  # ties
    dense[::5] *= rng.random(n_columns) < 0.02
    columns = np.argpartition(-np.abs(dense), min(n, n_columns) - 1, axis=1)[:, :n]
    expected = np.zeros_like(dense)
    np.put_along_axis(expected, columns, np.take_along_axis(dense, columns, axis=1), axis=1)
    found = largest_of_rows(dense, n)
    assert found.has_sorted_indices
    np.testing.assert_array_equal(found.toarray(), expected)


@given(seed=st.integers(0, 2**16))
def test_rows_of_a_sparse_matrix_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array((20, 7), density=0.2, rng=rng, format="csr")
    rows = rng.integers(20, size=int(rng.integers(0, 6)))
    found = sparse_rows(matrix, rows)
    assert found.shape == (len(rows), 7)
    np.testing.assert_array_equal(found.toarray(), matrix.toarray()[rows])


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_best_items_of_blocks_are_those_of_all_windows_together(seed: int) -> None:
    _, items, windows = world(400, 20)
    rng = np.random.default_rng(seed)
    scorers = [Fixed(rng.normal(size=(20, items.n_items)), f"noise {n}") for n in range(3)]
    groups = [[0, 1], [0, 2], [0, 1, 2]]
    whole = [BestItems.of([scorers[n] for n in group], windows, "allow", 10) for group in groups]
    with pytest.MonkeyPatch.context() as patch:
        for module in (best_items, blocks):
            patch.setattr(module, "MAX_SMALL_CATALOG", 0)
        patch.setattr(blocks, "SCORES_PER_BLOCK", 3 * 3 * items.n_items)
        found = BestItems.of_groups(scorers, groups, windows, "allow", 10)
    for one, expected in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one.possible, expected.possible)
        np.testing.assert_array_equal(one.shares, expected.shares)
        here = one.possible
        np.testing.assert_array_equal(one.scores[:, here], expected.scores[:, here])
        assert one.ndcg(np.ones(len(one.scores))) == expected.ndcg(np.ones(len(one.scores)))


def test_blocks_choose_about_the_same_weights_and_strength(as_large: Callable[[], None]) -> None:
    data = world(60, 60)
    made = {}
    for kind in ("small", "large"):
        if kind == "large":
            as_large()
        lists = select(*data[:2], [data[2]])
        blend, windows = lists.validation_blend, lists.windows
        losses = ndcg_by_strength(DecayedDirichlet(), blend, windows)
        made[kind] = lists, losses, fit_strength(DecayedDirichlet(), blend, windows)
    (small, values, strength), (large, others, found) = made["small"], made["large"]
    assert large.ndcg == pytest.approx(small.ndcg, abs=1e-4)
    assert large.blend.names == small.blend.names
    np.testing.assert_allclose(large.blend.weights, small.blend.weights, atol=1e-3)
    np.testing.assert_allclose(others, values, atol=1e-4)
    assert found == strength
    assert [one.kept for one in large.members] == [one.kept for one in small.members]


def test_memory_does_not_grow_with_windows_times_items(monkeypatch: pytest.MonkeyPatch) -> None:
    events, items, windows = world(20_000, 150)
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", 300_000)
    monkeypatch.setattr("llmrec.ranking.ranking._SCORES_PER_BATCH", 100_000)
    tracemalloc.start()
    lists = select(events, items, [windows])
    fit_strength(DecayedDirichlet(), lists.validation_blend, lists.windows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(lists.windows) == len(windows) > 100
    dense = 4 * len(NAMES) * len(windows) * items.n_items  # bytes in single precision
    assert peak < dense / 4
    print(peak / dense, peak / 1e6)


def test_trees_are_fitted_on_blocks_as_on_all_windows_together() -> None:
    pytest.importorskip("lightgbm")
    past = tree_folds(60, 60)
    whole = GBDTReranker(candidates=20, max_trees=5).fit(past)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_SMALL_CATALOG", 0)
        patch.setattr(blocks, "SCORES_PER_BLOCK", 2 * 60 * 7)
        parts = GBDTReranker(candidates=20, max_trees=5).fit(past)
    assert whole.n_leaves > whole.n_trees
    assert parts.stored().texts == whole.stored().texts


def test_trees_of_a_large_catalog_order_lists_about_as_well(as_large: Callable[[], None]) -> None:
    pytest.importorskip("lightgbm")
    past = tree_folds(300, 100)
    coming, training = past[-1], past[:-1]
    found = []
    for turn in (lambda: None, as_large):
        turn()
        trees = GBDTReranker(candidates=20, max_trees=5).fit(training, coming.scorers)
        found.append(BestItems.of([trees], coming.windows, "allow", 10).ndcg(np.ones(1)))
    assert found[1] == pytest.approx(found[0], abs=0.01)


def test_a_list_with_trees_takes_all_windows_and_few_people_at_a_time(
    as_large: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightgbm")
    events, items, past = past_of(60, 60)
    sizes: list[int] = []
    original = RecentPopularity.scores

    def counted(scorer: RecentPopularity, histories: Sequence[History]) -> Any:
        sizes.append(len(histories))
        return original(scorer, histories)

    monkeypatch.setattr(RecentPopularity, "scores", counted)
    as_large()
    lists = select(events, items, past[:3], without=())
    judged = next(member for member in lists.members if member.name == TREES)
    assert judged.ndcg is not None
    assert len(lists.windows) == len(past[0]) > 50
    assert max(sizes) <= 250 // 60
    assert sum(sizes) > 3 * len(past[0])


@pytest.mark.parametrize("scorer", POPULARITIES, ids=lambda scorer: scorer.name)
def test_popularity_is_the_same_to_the_bit_whoever_else_is_scored(scorer: ItemScorer) -> None:
    older = [replace(one, cutoff=one.cutoff - np.timedelta64(3, "D")) for one in HISTORIES[:5]]
    mixed = [one for pair in zip(HISTORIES, older, strict=False) for one in pair]
    found = scorer.scores(mixed)
    assert len(np.unique(found, axis=0)) == 2
    for row, history in zip(found, mixed, strict=True):
        np.testing.assert_array_equal(row, scorer.scores([history])[0])


def test_what_is_taken_again_has_the_scores_of_its_formula_to_the_bit() -> None:
    scorer = PersonalRepeat(strength=3.0)
    raw = scorer.raw_scores(HISTORIES)
    expected = np.log(raw / raw.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(scorer.scores(HISTORIES), expected)


def test_sparse_scores_have_the_log_shares_of_dense_ones_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, 300)) * (rng.random((6, 300)) < 0.1)
    dense[2] = -np.abs(dense[2])  # nothing above 0
    dense[4] = 0.0
    popularity = rng.dirichlet(np.ones(300))
    found = log_shares(sparse.csr_array(dense), 0.01, popularity)
    np.testing.assert_array_equal(found, log_shares(dense.copy(), 0.01, popularity))


def test_sparse_scores_that_are_no_numbers_are_not_hidden() -> None:
    scores = sparse.csr_array(np.array([[0.0, np.nan, 1.0], [0.0, 2.0, 1.0]]))
    found = log_shares(scores, 0.01, np.ones(3) / 3)
    assert np.isnan(found[0]).any()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("kind", [Cosine(), SequentialRules()], ids=lambda kind: kind.name)
def test_item_similarities_score_as_their_raw_scores_say(kind: Cosine | SequentialRules) -> None:
    events, items, windows = world(60, 30)
    scorer = ItemToItem(kind, floor=0.01).fit(events, items, windows[0].history.cutoff)
    histories: list[History] = [window.history for window in windows]
    popularity = scorer._popularity
    assert popularity is not None
    expected = log_shares(scorer.raw_scores(histories), 0.01, popularity)
    np.testing.assert_array_equal(scorer.scores(histories), expected)


@pytest.mark.parametrize("repeat", ["allow", "exclude"])
def test_rankings_of_several_strengths_are_those_of_each(repeat: str) -> None:
    blend = Blend((RecentPopularity(), PersonalRepeat()), (0.5, 1.0))
    forecasts = DecayedDirichlet().forecast(HISTORIES)
    options = {"k": 7, "repeat": repeat}
    each = [rank(forecasts, HISTORIES, blend, strength=one, **options) for one in STRENGTHS]  # type: ignore[arg-type]
    found = list(rank_by_strength(forecasts, HISTORIES, blend, STRENGTHS, **options))  # type: ignore[arg-type]
    assert len(found) == len(HISTORIES)
    for place, rankings in enumerate(found):
        for ranking, expected in zip(rankings, (one[place] for one in each), strict=True):
            np.testing.assert_array_equal(ranking.item_idx, expected.item_idx)
            np.testing.assert_array_equal(ranking.scores, expected.scores)


def test_spreads_do_not_depend_on_blocks(as_large: Callable[[], None]) -> None:
    scorers = (RecentPopularity(), PersonalRepeat())
    expected = inverse_spreads(scorers, HISTORIES)
    as_large()
    assert inverse_spreads(scorers, HISTORIES) == expected
