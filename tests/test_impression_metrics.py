from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.impression_metrics import IMPRESSION_METRICS, impression_metrics
from llmrec.types import BoolArray, FloatArray


def of_one(scores: FloatArray, is_clicked: BoolArray) -> dict[str, float]:
    """Give the metrics of one list."""
    found = impression_metrics(scores, is_clicked, np.array([0, len(scores)]))
    return {name: float(values[0]) for name, values in found.items()}


def as_mind(scores: FloatArray, is_clicked: BoolArray) -> dict[str, float]:
    """Give what MIND's script gives: its functions, for scores without ties."""

    def dcg_score(y_true: FloatArray, y_score: FloatArray, k: int) -> float:
        order = np.argsort(y_score)[::-1]
        y_true = np.take(y_true, order[:k])
        gains = 2**y_true - 1
        discounts = np.log2(np.arange(len(y_true)) + 2)
        return float(np.sum(gains / discounts))

    def ndcg_score(y_true: FloatArray, y_score: FloatArray, k: int) -> float:
        return dcg_score(y_true, y_score, k) / dcg_score(y_true, y_true, k)

    y_true = is_clicked.astype(np.float64)
    by_score = np.take(y_true, np.argsort(scores)[::-1])
    above = scores[is_clicked][:, None] > scores[~is_clicked]
    return {
        "auc": float(above.mean()),
        "mrr": float(np.sum(by_score / (np.arange(len(by_score)) + 1)) / np.sum(by_score)),
        "ndcg@5": ndcg_score(y_true, scores, 5),
        "ndcg@10": ndcg_score(y_true, scores, 10),
    }


@st.composite
def lists(draw: st.DrawFn, largest: int = 30, levels: int | None = None) -> tuple[FloatArray, ...]:
    """Draw the scores of one list, and which of its items were clicked: some, and not all."""
    n = draw(st.integers(2, largest))
    if levels is None:
        scores = draw(st.permutations(range(n)))
    else:
        scores = draw(st.lists(st.integers(0, levels - 1), min_size=n, max_size=n))
    n_clicked = draw(st.integers(1, n - 1))
    clicked = draw(st.permutations([True] * n_clicked + [False] * (n - n_clicked)))
    return np.array(scores, dtype=np.float64), np.array(clicked)


@given(lists())
def test_without_ties_the_values_are_those_of_minds_script(
    one: tuple[FloatArray, BoolArray],
) -> None:
    assert of_one(*one) == pytest.approx(as_mind(*one), abs=1e-12)


@given(lists(largest=5, levels=3))
def test_with_ties_they_are_the_mean_over_all_orders_of_equal_items(
    one: tuple[FloatArray, BoolArray],
) -> None:
    scores, clicked = one
    every = [
        as_mind(scores + np.array(order) / 1_000, clicked)
        for order in permutations(range(len(scores)))
    ]
    expected = {name: np.mean([values[name] for values in every]) for name in IMPRESSION_METRICS}
    assert of_one(scores, clicked) == pytest.approx(expected, abs=1e-9)


@given(lists(levels=6))
def test_auc_is_that_of_scikit_learn(one: tuple[FloatArray, BoolArray]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, clicked = one
    assert of_one(scores, clicked)["auc"] == pytest.approx(metrics.roc_auc_score(clicked, scores))


@given(st.lists(lists(levels=4), min_size=1, max_size=8))
def test_a_list_among_others_has_the_values_that_it_has_alone(
    several: list[tuple[FloatArray, BoolArray]],
) -> None:
    scores, clicked = (np.concatenate(part) for part in zip(*several, strict=True))
    offsets = np.cumsum([0, *(len(one) for one, _ in several)])
    together = impression_metrics(scores, clicked, offsets)
    for place, one in enumerate(several):
        assert of_one(*one) == {name: values[place] for name, values in together.items()}


@given(lists(levels=5))
def test_only_the_order_of_scores_counts(one: tuple[FloatArray, BoolArray]) -> None:
    scores, clicked = one
    assert of_one(np.exp(scores), clicked) == of_one(scores, clicked)
    turned = of_one(scores[::-1], clicked[::-1])
    assert turned == pytest.approx(of_one(scores, clicked))


def test_the_best_order_is_exactly_one_and_constant_scores_are_chance() -> None:
    clicked = np.arange(20) < 7
    best = of_one(-np.arange(20.0), clicked)
    assert (best["auc"], best["ndcg@5"], best["ndcg@10"]) == (1.0, 1.0, 1.0)
    assert best["mrr"] == pytest.approx(np.mean(1 / np.arange(1, 8)))
    assert of_one(np.zeros(20), clicked)["auc"] == 0.5


def test_without_a_click_all_are_nan_and_with_nothing_but_clicks_auc_is() -> None:
    assert np.isnan(list(of_one(np.array([1.0, 2.0]), np.zeros(2, bool)).values())).all()
    found = of_one(np.array([1.0, 2.0]), np.ones(2, bool))
    assert np.isnan(found.pop("auc"))
    assert found == {"mrr": 0.75, "ndcg@5": 1.0, "ndcg@10": 1.0}


def test_infinite_scores_stand_at_the_ends_and_nan_is_refused() -> None:
    clicked = np.array([True, False, False])
    assert of_one(np.array([np.inf, 0.0, -np.inf]), clicked)["auc"] == 1.0
    with pytest.raises(ValueError, match="the score of item 1 is NaN"):
        of_one(np.array([0.0, np.nan, 1.0]), clicked)
