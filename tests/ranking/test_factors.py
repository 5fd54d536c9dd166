"""Scorers by factors: cases worked by hand, and the factors of people as implicit solves them."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.errors import MissingExtraError
from llmrec.ranking.factors import ImplicitALS, PureSVD, _damp_counts
from llmrec.ranking.registry import load_scorer
from llmrec.ranking.scorers import item_counts
from tests.worlds import START, catalog, log

CUTOFF = START + np.timedelta64(28, "D")
ITEMS, EVENTS = catalog(), log(n_users=12)


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


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.integers(0, 99),
)
def test_people_have_the_factors_that_implicit_gives_them(
    factors: int, regularization: float, alpha: float, seed: int
) -> None:
    als = pytest.importorskip("implicit.cpu.als")
    scorer = ImplicitALS(factors, regularization, alpha, iterations=2, seed=seed)
    scorer.fit(EVENTS, ITEMS, CUTOFF)
    counts = _damp_counts(item_counts(make_histories(EVENTS, ITEMS, "7D", CUTOFF)))
    assert scorer._item_factors is not None
    model = als.AlternatingLeastSquares(
        factors=factors, regularization=regularization, alpha=alpha, num_threads=1
    )
    model.item_factors = scorer._item_factors.astype(np.float32)
    expected = model.recalculate_user(np.arange(counts.shape[0]), counts)
    found = scorer._user_factors(counts)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_stored_factors_are_scored_without_implicit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("implicit")
    scorer = ImplicitALS(factors=4).fit(EVENTS, ITEMS, CUTOFF)
    histories = make_histories(EVENTS, ITEMS, "7D", CUTOFF)

    def absent(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    again = load_scorer(scorer.stored(), ITEMS)
    assert again.scores(histories).tobytes() == scorer.scores(histories).tobytes()


def svd_by_hand(histories: list[History], factors: int) -> np.ndarray:
    """The popularity of items, and shares of what the first singular vectors give to each."""
    taken = (item_counts(histories).toarray() > 0).astype(float)
    vectors = np.linalg.svd(taken, full_matrices=False)[2][:factors]
    found = np.maximum(taken @ vectors.T @ vectors, 0)
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("factors", [1, 5, 11, 12, 40])
def test_svd_gives_shares_of_the_projected_history_and_a_floor_of_popularity(factors: int) -> None:
    histories = make_histories(EVENTS, ITEMS, "7D", CUTOFF)
    popular = 1 + item_counts(histories).sum(axis=0).A1
    expected = 0.9 * svd_by_hand(histories, factors) + 0.1 * popular / popular.sum()
    scorer = PureSVD(factors, floor=0.1).fit(EVENTS, ITEMS, CUTOFF)
    np.testing.assert_allclose(np.exp(scorer.scores(histories)), expected, atol=1e-6)


def test_svd_of_one_person_or_one_item_gives_scores() -> None:
    for n_users, n_items in ((1, 25), (3, 5)):
        events, items = log(n_users=n_users, n_items=n_items), catalog(n_items)
        scorer = PureSVD(3).fit(events, items, CUTOFF)
        assert np.isfinite(scorer.scores(make_histories(events, items, "7D", CUTOFF))).all()


def test_with_a_half_life_the_newer_items_count_more() -> None:
    rows = [(f"u{user}", f"i{user % 2:03d}", START) for user in range(6)]
    rows += [("new", "i000", START), ("new", "i001", START + np.timedelta64(20, "D"))]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    events = Interactions.from_frame(frame)
    scorer = PureSVD(2, "log", half_life=5.0).fit(events, catalog(2))
    histories = make_histories(events, catalog(2), "7D")
    (scores,) = scorer.scores([one for one in histories if one.user_id == "new"])
    assert scores[1] > scores[0] + 1


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_parameters_of_svd_out_of_bounds_are_refused(value: float) -> None:
    for options in ({"factors": value}, {"half_life": value}, {"floor": value}, {"floor": 1.0}):
        with pytest.raises(ValueError, match="must"):
            PureSVD(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="counts must be 'binary' or 'log', not 'count'"):
        PureSVD(counts="count")  # type: ignore[arg-type]


@pytest.mark.parametrize("scorer", [ImplicitALS(factors=2), PureSVD(2)])
def test_a_scorer_without_a_fit_is_not_stored_and_one_of_a_whole_log_is(
    scorer: ImplicitALS | PureSVD,
) -> None:
    pytest.importorskip("implicit")
    with pytest.raises(ValueError, match="is not fitted"):
        scorer.stored()
    assert scorer.fit(EVENTS, ITEMS).stored().values["before"] is None
