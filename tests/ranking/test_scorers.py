"""Each scorer against a case worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.ranking.factors import ImplicitALS
from llmrec.ranking.scorers import (
    PersonalRepeat,
    PopularityTrend,
    RecentPopularity,
    item_counts,
)
from tests.worlds import catalog, log

ITEMS = Catalog.from_frame(
    pd.DataFrame({"item_id": ["a", "b", "c"], "categories": [["X"], ["X"], ["Y"]]})
)


def histories(*events: tuple[str, str, str], cutoff: str = "2020-03-01") -> list[History]:
    frame = pd.DataFrame(events, columns=["user_id", "item_id", "timestamp"])
    return make_histories(Interactions.from_frame(frame), ITEMS, "7D", cutoff)


def test_popularity_counts_everybody_in_the_days_before_the_cutoff() -> None:
    past = histories(
        ("u", "a", "2020-02-23"),  # exactly 7 days before: counts
        ("v", "a", "2020-02-29"),
        ("v", "b", "2020-02-22"),  # too old
        ("v", "c", "2020-03-01"),  # at the cutoff
    )
    expected = np.log([[3 / 5, 1 / 5, 1 / 5]] * 2)
    np.testing.assert_allclose(RecentPopularity(days=7).scores(past), expected)


def test_popularity_of_a_quiet_time_is_equal_for_all_items() -> None:
    past = histories(("u", "a", "2019-01-01"))
    np.testing.assert_allclose(RecentPopularity().scores(past), np.log([[1 / 3] * 3]))


def test_a_trend_is_how_much_more_was_taken_lately_than_ever() -> None:
    past = histories(
        ("u", "a", "2020-02-29"),
        ("v", "b", "2020-02-29"),
        ("v", "b", "2020-01-01"),
        ("v", "b", "2020-01-02"),
    )
    share = np.array([2 / 7, 4 / 7, 1 / 7])  # of all, each once more
    ratio = (np.array([1, 1, 0]) + 3 * share) / share
    trend = PopularityTrend(days=7)
    np.testing.assert_allclose(trend.scores(past), np.log([ratio / ratio.sum()] * 2))
    parts = trend.contributions(past[0], np.array([0, 2]))
    assert not parts.parts.any()  # nothing in it is of the person


def test_where_nothing_was_taken_lately_no_item_has_a_trend() -> None:
    old = histories(("u", "a", "2019-01-01"), ("u", "a", "2019-01-02"), ("v", "b", "2019-01-02"))
    np.testing.assert_allclose(PopularityTrend().scores(old), np.log([[1 / 3] * 3] * 2))


def test_repeat_mixes_decayed_own_counts_with_popularity() -> None:
    past = histories(
        ("u", "a", "2020-02-29"),  # one day old: with a half-life of a day it counts 1/2
        ("u", "b", "2020-02-28"),  # two days old: 1/4
        ("v", "a", "2020-02-27"),
    )
    scorer = PersonalRepeat(half_life_days=1, strength=2, popularity=RecentPopularity(days=28))
    popular = np.array([3 / 6, 2 / 6, 1 / 6])
    expected = np.array([1 / 2, 1 / 4, 0]) + 2 * popular
    np.testing.assert_allclose(scorer.scores(past)[0], np.log(expected / expected.sum()))


def test_histories_of_different_logs_are_refused() -> None:
    items = catalog()
    first, second = (make_histories(log(n_users=2, seed=seed), items, "7D") for seed in (0, 1))
    with pytest.raises(ValueError, match="align the log once"):
        RecentPopularity().scores([*first, *second])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_scorers_refuse_parameters_out_of_bounds(value: float) -> None:
    for build in (
        lambda: RecentPopularity(days=value),
        lambda: RecentPopularity(pseudo_count=value),
        lambda: PersonalRepeat(half_life_days=value),
        lambda: PersonalRepeat(strength=value),
        lambda: ImplicitALS(temperature=value),
    ):
        with pytest.raises(ValueError, match="must be finite and > 0"):
            build()


def test_no_history_gives_no_scores() -> None:
    assert len(RecentPopularity().scores([])) == 0
    assert len(PersonalRepeat().scores([])) == 0


def test_what_is_taken_of_an_item_at_one_moment_counts_once() -> None:
    packs = histories(
        ("u", "a", "2020-02-28"),
        ("u", "a", "2020-02-28"),
        ("u", "b", "2020-02-28"),
        ("u", "a", "2020-02-29"),
        ("v", "a", "2020-02-28"),
    )
    single = histories(
        ("u", "a", "2020-02-28"),
        ("u", "b", "2020-02-28"),
        ("u", "a", "2020-02-29"),
        ("v", "a", "2020-02-28"),
    )
    for scorer in (RecentPopularity(), PersonalRepeat(strength=0.1)):
        np.testing.assert_array_equal(scorer.scores(packs), scorer.scores(single))
    np.testing.assert_array_equal(item_counts(packs).toarray(), [[2, 1, 0], [1, 0, 0]])
