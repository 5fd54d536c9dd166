"""Each scorer against a case worked by hand."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.errors import MissingExtraError
from llmrec.ranking.scorers import (
    ImplicitALS,
    PersonalRepeat,
    RecentPopularity,
    dedupe_moments,
    first_interactions,
    item_counts,
)
from tests.worlds import START, catalog, log

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


def test_als_prefers_what_people_of_the_same_taste_take() -> None:
    pytest.importorskip("implicit")
    # Two camps, as many factors; u0 has taken all of the first camp's items but one.
    items = catalog(20)
    rows = [
        (f"u{user}", f"i{item:03d}", START + np.timedelta64(item, "h"))
        for user in range(12)
        for item in range(20)
        if item % 2 == user % 2 and (user, item) != (0, 4)
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events = Interactions.from_frame(frame)
    scorer = ImplicitALS(factors=2, regularization=0.1).fit(events, items)
    (history,) = make_histories(events, items, "7D", users=[0])
    (scores,) = scorer.scores([history])
    assert scores[4] > scores[1::2].max() + 1


def test_als_gives_somebody_without_an_event_equal_scores() -> None:
    pytest.importorskip("implicit")
    items, events = catalog(), log(n_users=6)
    cutoff = START + np.timedelta64(7, "D")
    scorer = ImplicitALS(factors=4).fit(events, items, cutoff)
    (past,) = make_histories(events, items, "7D", cutoff, [0])
    nothing = np.array([past.offsets[0]] * 2)
    empty = History(past.log, items, 0, nothing, past.bounds[-2:], past.cutoff, past.period_length)
    np.testing.assert_allclose(scorer.scores([empty]), np.log(1 / items.n_items))


def test_als_refuses_a_history_whose_future_it_has_seen() -> None:
    pytest.importorskip("implicit")
    items, events = catalog(), log(n_users=6)
    scorer = ImplicitALS(factors=4).fit(events, items, START + np.timedelta64(28, "D"))
    early = make_histories(events, items, "7D", START + np.timedelta64(21, "D"))
    with pytest.raises(ValueError, match=r"saw events up to .* fit it with an earlier cutoff"):
        scorer.scores(early)


def test_als_refuses_another_catalog_and_to_score_before_it_is_fitted() -> None:
    pytest.importorskip("implicit")
    scorer = ImplicitALS(factors=4)
    past = make_histories(log(n_users=6), catalog(), "7D")
    with pytest.raises(ValueError, match="is not fitted"):
        scorer.scores(past)
    scorer.fit(log(n_users=6), catalog(30))
    with pytest.raises(ValueError, match="another catalog"):
        scorer.scores(past)


def test_als_needs_an_event_before_the_cutoff() -> None:
    pytest.importorskip("implicit")
    with pytest.raises(ValueError, match="no event lies before the cutoff 1999"):
        ImplicitALS().fit(log(n_users=6), catalog(), "1999-01-01")


def test_without_implicit_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[als\]'"):
        ImplicitALS().fit(log(n_users=6), catalog())


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


DAYS = ("2020-02-26", "2020-02-27", "2020-02-28")


@pytest.mark.parametrize(
    ("shorter", "taken", "left"),
    [
        (dedupe_moments, [("a", 0), ("b", 1), ("a", 2)], "aba"),
        (dedupe_moments, [("a", 0), ("a", 0), ("b", 1)], "ab"),
        (first_interactions, [("a", 0), ("b", 1), ("c", 2)], "abc"),
        (first_interactions, [("a", 0), ("b", 1), ("a", 2)], "ab"),
    ],
)
def test_a_shorter_log_is_made_once_and_keeps_no_log_alive(
    shorter: Callable[[Interactions], Interactions], taken: list[tuple[str, int]], left: str
) -> None:
    events = histories(*(("u", item, DAYS[day]) for item, day in taken))[0].log
    found = shorter(events)
    assert "".join(found.item_ids[found.item_idx]) == left
    assert shorter(events) is found
    known = weakref.ref(events), weakref.ref(found)
    del events, found
    gc.collect()
    assert [log() for log in known] == [None, None]
