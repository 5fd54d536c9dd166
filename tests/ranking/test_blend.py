"""Blends: parts that sum, weights that make the targets most likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.errors import DataError
from llmrec.forecast import Forecast, ItemScorer, Source
from llmrec.ranking.blend import Blend, PrecomputedScorer, fit_blend, rankable_items
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import FloatArray
from tests.worlds import START, small_world


@dataclass
class Fixed:
    """Scores given by a table with one row a user of the log."""

    table: FloatArray
    name: str = "fixed"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return self.table[[history.user_idx for history in histories]]


@dataclass
class Broken:
    """Gives the scores of its field, whatever the histories."""

    answer: FloatArray
    name: str = field(default="broken", init=False)

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return self.answer


@dataclass
class Counting:
    """Passes on another scorer's scores, and counts how often it is asked."""

    scorer: ItemScorer
    name: str = "counted"
    n_calls: int = 0

    def scores(self, histories: Sequence[History]) -> FloatArray:
        self.n_calls += 1
        return self.scorer.scores(histories)


@dataclass
class Squares:
    """A second stage: minus the square of the sum of all scores."""

    name: str = "squares"
    n_calls: int = 0
    n_scorers: int | None = None  # of as many as there are

    def second_scores(self, first_scores: FloatArray, histories: Sequence[History]) -> FloatArray:
        self.n_calls += 1
        return -np.square(first_scores.sum(axis=0))


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return small_world(n_users=40)


def likelihood(blend: Blend, windows: Sequence[Window], repeat: str = "allow") -> float:
    """Mean over users of the mean log-likelihood of their targets, written out."""
    per_user = []
    for window in windows:
        possible = rankable_items(window.history, repeat)  # type: ignore[arg-type]
        scores = np.where(possible, blend.scores([window.history])[0], -np.inf)
        targets = window.target.item_idx[possible[window.target.item_idx]]
        if len(targets):
            per_user.append(log_softmax(scores)[targets].mean())
    return float(np.mean(per_user))


def random_scorers(windows: Sequence[Window], n: int, seed: int = 0) -> list[ItemScorer]:
    rng = np.random.default_rng(seed)
    shape = (windows[0].history.log.n_users, windows[0].history.catalog.n_items)
    return [Fixed(log_softmax(rng.normal(size=shape), axis=1), f"fixed {i}") for i in range(n)]


def test_scores_are_the_sum_of_the_weighted_parts(windows: list[Window]) -> None:
    histories = [window.history for window in windows]
    scorers = (RecentPopularity(), PersonalRepeat())
    blend = Blend(scorers, (0.5, 2.0))
    parts = blend.weighted_scores(histories)
    np.testing.assert_array_equal(parts[0], 0.5 * scorers[0].scores(histories))
    np.testing.assert_array_equal(parts[1], 2.0 * scorers[1].scores(histories))
    np.testing.assert_allclose(blend.scores(histories), parts.sum(axis=0))


@pytest.mark.parametrize("repeat", ["allow", "exclude"])
def test_fitted_weights_beat_every_neighbour(windows: list[Window], repeat: str) -> None:
    scorers = [RecentPopularity(), PersonalRepeat(), *random_scorers(windows, 1)]
    blend = fit_blend(scorers, windows, l2=0.0, repeat=repeat)  # type: ignore[arg-type]
    best = likelihood(blend, windows, repeat)
    for position in range(3):
        for step in (-0.05, 0.05):
            weights = np.array(blend.weights)
            weights[position] = max(0, weights[position] + step)
            assert likelihood(Blend(scorers, weights.tolist()), windows, repeat) <= best + 1e-7


def test_weights_that_made_the_targets_are_found_again() -> None:
    windows = small_world(n_users=300, n_periods=3)
    scorers = random_scorers(windows, 2)
    truth = (1.5, 0.5)
    rng = np.random.default_rng(0)
    log_probability = log_softmax(
        Blend(scorers, truth).scores([window.history for window in windows]), axis=1
    )
    log = windows[0].history.log
    for window, row in zip(windows, log_probability, strict=True):
        drawn = rng.choice(len(row), size=window.target.n_events, p=np.exp(row))
        log.item_idx[window.target.start : window.target.stop] = drawn
    np.testing.assert_allclose(fit_blend(scorers, windows).weights, truth, atol=0.15)


def test_a_scorer_that_misleads_gets_no_weight(windows: list[Window]) -> None:
    good = PersonalRepeat()
    contrary = Fixed(-good.scores([window.history for window in windows]), "contrary")
    blend = fit_blend([good, contrary], windows, l2=0.0)
    assert blend.weights[0] > 0.1
    assert blend.weights[1] == 0


def test_scorers_that_agree_share_the_weight(windows: list[Window]) -> None:
    repeat = PersonalRepeat()
    twin = Fixed(repeat.scores([window.history for window in windows]), "twin")
    left, right = fit_blend([repeat, twin], windows).weights
    assert left == pytest.approx(right, rel=1e-3)


def test_weights_fitted_among_the_top_items_put_the_right_item_first_more_often() -> None:
    windows = small_world(n_users=200, n_periods=3)
    rng = np.random.default_rng(0)
    log, n_items = windows[0].history.log, windows[0].history.catalog.n_items
    taste, is_top = rng.normal(size=(200, n_items)), np.arange(n_items) < 3
    best = taste[:, :3].argmax(axis=1)
    for window in windows:
        target = slice(window.target.start, window.target.stop)
        elsewhere = rng.integers(3, n_items, window.target.n_events)
        often = rng.random(window.target.n_events) < 0.8
        log.item_idx[target] = np.where(often, best[window.history.user_idx], elsewhere)
    where = Fixed(np.where(is_top, 3 - 0.8 * taste, 0.0), "where it is, but not which")
    scorers: list[ItemScorer] = [Fixed(taste, "which"), where]

    def right(blend: Blend) -> float:
        first = blend.scores([window.history for window in windows]).argmax(axis=1)
        return float(np.mean(first == best))

    likeliest, among_top = (fit_blend(scorers, windows, top_n=n) for n in (0, 3))
    assert right(among_top) > right(likeliest) + 0.02


def test_with_all_items_in_the_top_an_item_taken_often_counts_once() -> None:
    windows = small_world(n_users=40)
    scorers: list[ItemScorer] = [PersonalRepeat(), *random_scorers(windows, 1)]
    n_items = windows[0].history.catalog.n_items
    found = fit_blend(scorers, windows, top_n=n_items)
    for window in windows:
        target = slice(window.target.start, window.target.stop)
        window.history.log.item_idx[target] = window.target.item_idx[0]
    once, often = (fit_blend(scorers, windows, top_n=n) for n in (n_items, 0))
    assert once.weights == pytest.approx(often.weights)
    assert once.weights != found.weights


def test_where_no_target_is_among_the_top_items_the_likeliest_weights_stay() -> None:
    windows = small_world(n_users=40)
    n_items = windows[0].history.catalog.n_items
    for window in windows:
        window.history.log.item_idx[window.target.start : window.target.stop] = n_items - 1
    early = Fixed(np.tile(-np.arange(float(n_items)), (40, 1)), "early")
    weights = [fit_blend([early], windows, top_n=n).weights for n in (0, 2)]
    assert weights == [(0.0,), (0.0,)]


@pytest.mark.parametrize("top_n", [-1, 1])
def test_a_top_of_one_item_is_refused(windows: list[Window], top_n: int) -> None:
    with pytest.raises(ValueError, match="top_n must be 0, or at least 2 items"):
        fit_blend([PersonalRepeat()], windows, top_n=top_n)


def test_excluding_repeats_ignores_users_who_only_repeat(windows: list[Window]) -> None:
    only_repeats = [
        window
        for window in windows
        if np.isin(window.target.item_idx, window.history.item_idx).all()
    ]
    others = [window for window in windows if window not in only_repeats]
    assert only_repeats
    assert others
    scorers = [RecentPopularity(), PersonalRepeat()]
    everybody = fit_blend(scorers, windows, repeat="exclude").weights
    np.testing.assert_allclose(everybody, fit_blend(scorers, others, repeat="exclude").weights)
    with pytest.raises(ValueError, match="has a target event to learn from"):
        fit_blend(scorers, only_repeats, repeat="exclude")


def test_a_broken_scorer_is_named(windows: list[Window]) -> None:
    histories = [window.history for window in windows]
    right = PersonalRepeat().scores(histories)
    nan = right.copy()
    nan[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"'broken' gave nan to item 'i004' of user 'u003'"):
        Blend([Broken(nan)], [1.0]).weighted_scores(histories)
    with pytest.raises(ValueError, match=r"'broken' gave scores of shape \(40, 24\), not"):
        Blend([RecentPopularity(), Broken(right[:, 1:])], [1.0, 1.0]).weighted_scores(histories)
    with pytest.raises(ValueError, match=r"'broken' gave scores of shape \(39, 24\), not \(40, "):
        PrecomputedScorer.of(Broken(right[1:, 1:]), histories)
    with pytest.raises(ValueError, match=r"'broken' gave nan to item 'i004' of user 'u003'"):
        PrecomputedScorer.of(Broken(nan), histories)


def test_a_precomputed_blend_gives_the_same_bytes_without_its_scorers(
    windows: list[Window],
) -> None:
    histories = [window.history for window in windows]
    blend = Blend((RecentPopularity(), PersonalRepeat()), (0.5, 2.0))
    asked = blend.precompute(histories[:9])
    assert (
        asked.weighted_scores(histories[:9]).tobytes()
        == blend.weighted_scores(histories[:9]).tobytes()
    )
    with pytest.raises(DataError, match="no scores of"):
        asked.weighted_scores(histories[9:])


def test_trees_are_one_more_part_by_the_scores_of_all_scorers_scored_once(
    windows: list[Window],
) -> None:
    histories = [window.history for window in windows]
    scorers = [Counting(RecentPopularity(), "first"), Counting(PersonalRepeat(), "second")]
    trees = Squares()
    blend = Blend(scorers, (0.0, 2.0), trees, 0.5)
    parts = blend.weighted_scores(histories)
    assert [scorer.n_calls for scorer in scorers] == [1, 1]
    assert blend.names == ("second", "squares")
    popular, taken = (scorer.scorer.scores(histories) for scorer in scorers)
    np.testing.assert_array_equal(parts[0], 2.0 * taken)
    np.testing.assert_allclose(parts[1], -0.5 * (popular + taken) ** 2)
    np.testing.assert_allclose(blend.scores(histories), parts.sum(axis=0), atol=1e-9)


def test_trees_without_a_weight_are_not_run_and_no_scorer_for_them(windows: list[Window]) -> None:
    histories = [window.history for window in windows]
    unused, trees = Counting(RecentPopularity(), "unused"), Squares()
    blend = Blend((PersonalRepeat(), unused), (1.0, 0.0), trees)
    assert blend.weighted_scores(histories).shape[0] == 1
    assert (blend.names, unused.n_calls, trees.n_calls) == (("taken before or popular",), 0, 0)


def test_a_precomputed_blend_ranks_again_under_edits_without_its_trees(
    windows: list[Window],
) -> None:
    histories = [window.history for window in windows[:5]]
    scorer, trees = Counting(PersonalRepeat()), Squares()
    blend = Blend((RecentPopularity(), scorer), (0.0, 1.0), trees, 0.3)
    asked = blend.precompute(histories)
    n_calls = scorer.n_calls, trees.n_calls
    expected = blend.weighted_scores(histories)
    assert asked.weighted_scores(histories).tobytes() == expected.tobytes()
    assert asked.names == blend.names
    catalog = histories[0].catalog
    for history in histories:
        weights = np.full(catalog.n_categories, 1 / catalog.n_categories)
        forecast = Forecast(weights, 10.0, "", (), Source("even", "counting"))
        edits = [Edit(catalog.categories[0], factor=3.0)]
        one, other = (
            rank([forecast], [history], each, k=9, edits=edits)[0] for each in (blend, asked)
        )
        assert one.item_idx.tolist() == other.item_idx.tolist()
        total = one.scorer_parts.sum(axis=1) + one.category_parts.sum(axis=1)
        np.testing.assert_allclose(total, one.scores, rtol=0, atol=1e-9)
        assert one.scorer_names == ("counted", "squares")
    assert (n_calls, scorer.n_calls, trees.n_calls) == ((1, 1), 7, 7)


def test_a_blend_without_any_weight_ranks_by_what_is_popular(windows: list[Window]) -> None:
    histories = [window.history for window in windows[:2]]
    blend = Blend((PersonalRepeat(),), (0.0,)).precompute(histories)
    assert blend.names == ()
    assert not blend.scores(histories).any()


@pytest.mark.parametrize(
    ("trees", "weight", "message"),
    [
        (None, 1.0, "no trees for the weight 1.0"),
        (Squares(), -1.0, "'squares' must be finite and >= 0"),
        (Squares("popular in the last 28 days"), 1.0, "could not be distinguished"),
    ],
)
def test_impossible_trees_are_refused(trees: Squares | None, weight: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Blend((RecentPopularity(),), (1.0,), trees, weight)


def test_trees_that_give_no_finite_numbers_are_named(windows: list[Window]) -> None:
    class Broken(Squares):
        def second_scores(
            self, first_scores: FloatArray, histories: Sequence[History]
        ) -> FloatArray:
            return first_scores[0] * np.nan

    blend = Blend((RecentPopularity(),), (1.0,), Broken(), 1.0)
    with pytest.raises(ValueError, match=r"'squares' gave nan to item 'i000'"):
        blend.scores([window.history for window in windows])


@pytest.mark.parametrize(
    ("scorers", "weights", "message"),
    [
        ([], [], "at least one scorer"),
        ([RecentPopularity()], [1.0, 2.0], "one weight a scorer"),
        ([RecentPopularity()], [-1.0], "popular in the last 28 days' must be finite and >= 0"),
        ([RecentPopularity()], [float("nan")], "must be finite"),
        ([RecentPopularity(), RecentPopularity()], [1.0, 1.0], "could not be distinguished"),
    ],
)
def test_an_impossible_blend_is_refused(
    scorers: list[ItemScorer], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Blend(scorers, weights)


def test_an_unknown_repeat_rule_is_refused(windows: list[Window]) -> None:
    with pytest.raises(ValueError, match="'allow' or 'exclude', not 'never'"):
        fit_blend([RecentPopularity()], windows, repeat="never")  # type: ignore[arg-type]


def test_an_item_without_a_category_that_was_taken_may_not_be_listed_as_unseen() -> None:
    rows = [("i1", "One", ["A"]), ("i2", "Two", ["A"]), ("bare", "Bare", [])]
    items = Catalog.from_frame(pd.DataFrame(rows, columns=["item_id", "title", "categories"]))
    times = START + np.arange(3) * np.timedelta64(1, "h")
    taken = pd.DataFrame({"user_id": "ann", "item_id": ["i1", "bare", "bare"], "timestamp": times})
    events = Interactions.from_frame(taken).align_to(items)
    (history,) = make_histories(events, items, "7D")
    assert items.item_ids[rankable_items(history, "exclude")].tolist() == ["i2"]
    assert rankable_items(history, "allow").all()
