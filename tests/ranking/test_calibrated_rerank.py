"""A list whose mix follows the forecast: greedy steps by hand, extreme weights, errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.forecast import Forecast, Source
from llmrec.ranking.calibrated_rerank import SMOOTHING, rerank_calibrated, smoothed_kl
from llmrec.ranking.ranking import Ranking

NAMES = ("X", "Y", "Z")
EMPTY = sparse.csr_array((5, 3))


def case(seed: int, n: int = 12) -> tuple[Ranking, Forecast, Catalog]:
    rng = np.random.default_rng(seed)
    held = [rng.choice(3, rng.integers(0, 4), replace=False) for _ in range(n)]
    frame = pd.DataFrame(
        {
            "item_id": [f"i{item:02d}" for item in range(n)],
            "categories": [[NAMES[c] for c in categories] for categories in held],
        }
    )
    frame.loc[0, "categories"] = list(NAMES)
    catalog = Catalog.from_frame(frame)
    items = rng.permutation(catalog.n_items)[:n]
    scores = np.sort(rng.normal(size=len(items)))[::-1]
    parts = sparse.csr_array(rng.normal(size=(len(items), 3)))
    rest = (scores - parts.sum(axis=1))[:, None]
    weights = rng.dirichlet(np.full(3, 0.5))
    forecast = Forecast(weights, 10.0, "", (), Source("test", "counting"))
    muted = np.zeros(len(items), dtype=bool)
    return Ranking(items, scores, ("one",), rest, parts, muted, forecast, 1.0), forecast, catalog


def far_from_forecast(ranking: Ranking, forecast: Forecast, catalog: Catalog) -> float:
    mix = catalog.category_shares[ranking.item_idx].toarray().mean(axis=0)
    return float(smoothed_kl(forecast.category_weights, mix))


@given(st.integers(0, 2**32 - 1), st.integers(1, 15))
def test_at_0_the_list_is_the_rankings_first_items(seed: int, k: int) -> None:
    ranking, forecast, catalog = case(seed)
    found = rerank_calibrated(ranking, forecast, catalog, k, 0.0)
    assert found.item_idx.tolist() == ranking.item_idx[:k].tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_every_step_chooses_the_best_item_left_and_parts_add_up(seed: int, weight: float) -> None:
    ranking, forecast, catalog = case(seed)
    found = rerank_calibrated(ranking, forecast, catalog, 5, weight)
    position = {item: at for at, item in enumerate(ranking.item_idx)}

    def objective(items: list[int]) -> float:
        mix = catalog.category_shares[items].toarray().sum(axis=0) / len(items)
        smoothed = (1 - SMOOTHING) * mix + SMOOTHING * forecast.category_weights
        w = forecast.category_weights
        loss = sum(w[c] * np.log(w[c] / smoothed[c]) for c in range(3) if w[c] > 0)
        total = sum(ranking.scores[position[item]] for item in items)
        return float((1 - weight) * total - weight * len(items) * loss)

    taken: list[int] = []
    for item in found.item_idx.tolist():
        others = [other for other in ranking.item_idx.tolist() if other not in taken]
        best = max(objective([*taken, other]) for other in others)
        assert objective([*taken, item]) == pytest.approx(best, abs=1e-9)
        taken.append(item)
    total = found.scorer_parts.sum(axis=1) + found.category_parts.sum(axis=1)
    np.testing.assert_allclose(total, found.scores, atol=1e-9)


def test_at_1_a_list_has_the_forecasts_mix_where_items_allow_it() -> None:
    catalog = Catalog.from_frame(
        pd.DataFrame(
            {"item_id": list("abcdefgh"), "categories": [["X"]] * 4 + [["Y"]] * 4},
        )
    )
    forecast = Forecast(np.array([0.25, 0.75]), 10.0, "", (), Source("test", "counting"))
    ranking = Ranking(
        np.arange(8),
        -np.arange(8.0),
        ("one",),
        -np.arange(8.0)[:, None],
        sparse.csr_array((8, 2)),
        np.zeros(8, dtype=bool),
        forecast,
        1.0,
    )
    found = rerank_calibrated(ranking, forecast, catalog, 4, 1.0)
    assert sorted(found.item_idx.tolist()) == [0, 4, 5, 6]
    plain = rerank_calibrated(ranking, forecast, catalog, 4, 0.0)
    mixes = [catalog.category_shares[one.item_idx].toarray().mean(axis=0) for one in (plain, found)]
    assert smoothed_kl(forecast.category_weights, mixes[1]) < 1e-4
    assert smoothed_kl(forecast.category_weights, mixes[0]) > 1


@pytest.mark.parametrize(
    ("k", "weight", "message"),
    [(0, 0.5, "k must be"), (3, 1.5, "a weight in"), (3, float("nan"), "a weight in")],
)
def test_arguments_out_of_bounds_are_refused(k: int, weight: float, message: str) -> None:
    ranking, forecast, catalog = case(0)
    with pytest.raises(ValueError, match=message):
        rerank_calibrated(ranking, forecast, catalog, k, weight)


def test_a_forecast_of_another_catalog_is_refused() -> None:
    ranking, _, catalog = case(0)
    other = Forecast(np.ones(2) / 2, 10.0, "", (), Source("test", "counting"))
    with pytest.raises(ValueError, match="make the forecast with this catalog"):
        rerank_calibrated(ranking, other, catalog, 3, 0.5)


def test_a_muted_item_is_chosen_only_when_nothing_else_is_left() -> None:
    held = [["A"], ["A"], ["A"], ["B", "C"], ["B", "C"]]
    items = Catalog.from_frame(pd.DataFrame({"item_id": list("abcde"), "categories": held}))
    muted = np.array([False] * 3 + [True] * 2)
    forecast = Forecast(np.array([0.5, 0.0, 0.5]), 10.0, "", (), Source("test", "counting"))
    parts = -np.arange(5.0)[:, None]
    ranking = Ranking(np.arange(5), parts[:, 0], ("one",), parts, EMPTY, muted, forecast, 1.0)
    for weight in (0.0, 0.9, 1.0):
        found = rerank_calibrated(ranking, forecast, items, 4, weight)
        assert found.muted.tolist() == [False, False, False, True]


@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_higher_weight_never_chooses_a_first_item_farther_from_the_forecast(
    seed: int, calibration_weights: list[float]
) -> None:
    ranking, forecast, catalog = case(seed)
    low, high = (
        far_from_forecast(
            rerank_calibrated(ranking, forecast, catalog, 1, weight), forecast, catalog
        )
        for weight in sorted(calibration_weights)
    )
    assert high <= low + 1e-9


def test_the_mix_of_lists_nears_the_forecast_as_the_weight_rises() -> None:
    cases = [case(seed, 40) for seed in range(60)]
    distances = [
        np.mean([far_from_forecast(rerank_calibrated(*one, 8, weight), *one[1:]) for one in cases])
        for weight in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    assert (np.diff(distances) < 0).all()
    assert distances[-1] < distances[0] / 5
