"""What an engine's lists and statements are scored by, against counts made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmrec.evaluation.engine_scores
import llmrec.session
from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.readers import read_table
from llmrec.data.splits import split_windows
from llmrec.evaluation.comparison import compare
from llmrec.evaluation.engine_scores import (
    COMPARED_METRICS,
    explanation_values,
    list_values,
    score_engines,
)
from llmrec.evaluation.saved_engine import SavedEngine, load_saved_engine, load_saved_engines
from llmrec.forecast import Forecast
from llmrec.metrics import ndcg_at
from llmrec.ranking.blend import Blend
from llmrec.ranking.scorers import RecentPopularity
from tests.worlds import CATEGORIES, log

DIFFERENCES = {f"{name}_difference" for name in COMPARED_METRICS}


@pytest.fixture(autouse=True)
def few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmrec.evaluation.engine_scores, "MAX_PEOPLE", 5)


def read(repeat: str = "allow", extra: pd.DataFrame | None = None) -> Dataset:
    """Read the log of a small world, with more rows if some are given."""
    found = log(n_users=60, n_periods=8)
    items = pd.Index([f"i{item:03d}" for item in range(25)])
    place = items.get_indexer(found.item_ids)[found.item_idx]
    rows = pd.DataFrame(
        {
            "user_id": found.user_ids[found.user_idx],
            "item_id": items[place],
            "timestamp": found.timestamp,
            "title": [f"Title {item}" for item in place],
            "categories": [CATEGORIES[item % 5] for item in place],
        }
    )
    rows = rows if extra is None else pd.concat([rows, extra])
    return read_table(rows, name="small", period="7D", repeat=repeat)


def save_and_load(dataset: Dataset, folder: Path, whole: Dataset | None = None) -> SavedEngine:
    """Fit an engine on what precedes the tests, save it, and load it to be judged."""
    cutoff = split_windows(dataset)["test 1"][0].history.cutoff
    engine = InterestEngine.from_pretrained(data=dataset, cutoff=cutoff, model=None)
    engine.save_pretrained(folder)
    return load_saved_engine(str(folder), dataset if whole is None else whole)


@pytest.mark.parametrize("repeat", ["allow", "exclude"])
def test_lists_are_those_that_the_engine_recommends(tmp_path: Path, repeat: str) -> None:
    saved = save_and_load(read(repeat), tmp_path)
    windows = saved.windows["test 1"][:15]
    values = list_values(saved, windows)
    items = windows[0].history.catalog.item_ids
    lists = saved.engine.recommend_many([window.history for window in windows], 10)
    for window, listed, ndcg in zip(windows, lists, values["ndcg@10"], strict=True):
        relevant = window.target.item_idx
        if repeat == "exclude":
            relevant = np.setdiff1d(relevant, window.history.item_idx)
        ranked = items.get_indexer([one.item_id for one in listed])
        expected = ndcg_at(10, ranked, relevant)
        np.testing.assert_allclose(ndcg, expected)
    gains = values["ndcg@10"] - values["popularity_ndcg@10"]
    np.testing.assert_allclose(values["ndcg@10_gain"], gains)
    assert np.nanmean(gains) > 0  # people here have tastes


def test_items_that_came_after_the_fit_count_as_missed(tmp_path: Path) -> None:
    old = read()
    windows = split_windows(old)["test 1"]
    first = windows[0]
    new = pd.DataFrame(
        {
            "user_id": first.history.user_id,
            "item_id": [f"new{n}" for n in range(40)],
            "timestamp": first.history.cutoff + np.timedelta64(1, "h"),
            "title": "New",
            "categories": "War",
        }
    )
    before = save_and_load(old, tmp_path / "old")
    after = save_and_load(old, tmp_path / "new", read(extra=new))
    found = [list_values(saved, saved.windows["test 1"])["recall@10"] for saved in (before, after)]
    users = [window.history.user_id for window in after.windows["test 1"]]
    place = users.index(first.history.user_id)
    assert not after.forecaster.is_same
    assert found[1][place] < found[0][place]
    np.testing.assert_allclose(np.delete(found[0], place), np.delete(found[1], place))


def test_each_forecast_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = save_and_load(read(), tmp_path)
    asked: list[str] = []
    forecaster = saved.engine.forecaster
    real = forecaster.forecast

    class Counting:
        def forecast(self, histories: Sequence[Any]) -> list[Forecast]:
            asked.extend(history.user_id for history in histories)
            return real(histories)

    monkeypatch.setattr(saved.engine, "forecaster", Counting())
    windows = saved.windows["test 1"]
    once = saved.forecaster.forecast([window.history for window in windows[:5]])
    again = saved.forecaster.forecast([window.history for window in windows])
    list_values(saved, windows)
    assert sorted(asked) == sorted(window.history.user_id for window in windows)
    for one, other in zip(once, again, strict=False):
        np.testing.assert_array_equal(one.category_weights, other.category_weights)


def test_true_statements_hold_and_altered_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_and_load(read(), tmp_path)
    windows = saved.windows["test 1"][:8]
    values = explanation_values(saved, windows)
    assert np.nanmin(values["statements_supported"]) == 1
    assert np.nanmin(values["explanations_supported"]) == 1
    assert 0 < np.nanmean(values["statements_true"]) < 1
    make = saved.engine.forecast_many

    def altered(users: Sequence[Any]) -> list[Forecast]:
        return [
            replace(
                forecast,
                statements=tuple(replace(one, change=-one.change) for one in forecast.statements),
            )
            for forecast in make(users)
        ]

    monkeypatch.setattr(saved.engine, "forecast_many", altered)
    assert np.nanmax(explanation_values(saved, windows)["statements_supported"]) == 0


def test_an_explanation_that_says_too_much_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_and_load(read(), tmp_path)
    real = llmrec.session.explain_item
    monkeypatch.setattr(
        llmrec.session, "explain_item", lambda *given: replace(real(*given), times_taken=99)
    )
    values = explanation_values(saved, saved.windows["test 1"][:3])
    np.testing.assert_allclose(values["explanations_supported"], 0.1)  # the first in full


def test_the_table_is_tidy_and_explanations_are_of_some_people_alone(tmp_path: Path) -> None:
    saved = save_and_load(read(), tmp_path)
    table = score_engines([saved], "small")
    assert set(table["split"]) == {"test 1", "test 2"}
    assert not table.duplicated(["split", "model", "metric"]).any()
    n = table.set_index(["split", "metric"])["n"]
    assert n["test 1", "explanations_supported"] == 5
    assert n["test 1", "ndcg@10"] == len(saved.windows["test 1"])
    bounded = table.dropna()
    assert (bounded["low"] <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["high"]).all()


def test_engines_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    dataset = read()
    for place in ("a", "b"):
        save_and_load(dataset, tmp_path / place / "mine")
    folders = [str(tmp_path / place / "mine") for place in ("a", "b")]
    saved = load_saved_engines([*folders, folders[0]], dataset, 20)
    assert [one.name for one in saved] == [f"engine {folder}" for folder in folders]
    found = compare(dataset, [], saved_engine=saved)
    losses = found.table.query("slice == 'all' and metric == 'log_loss' and split == 'test 1'")
    values = losses.set_index("model")["value"]
    assert values[saved[0].name] == values[saved[1].name]
    with pytest.raises(DataError, match="two engines are called 'mine'"):
        compare(dataset, [], saved_engine=[replace(one, name="mine") for one in saved])


def test_lists_of_engines_are_compared_over_the_windows_that_both_have(tmp_path: Path) -> None:
    data = read()
    first = save_and_load(data, tmp_path)
    second = replace(
        load_saved_engine(str(tmp_path), data),
        name="other",
        windows={"test 1": first.windows["test 1"][5:][::-1]},
    )
    second.engine.blend = Blend((RecentPopularity(),), (1.0,))
    table = score_engines([first, second, replace(first, name="again")], "small")
    assert set(table.loc[table["model"] == first.name, "metric"]).isdisjoint(DIFFERENCES)
    rows = table[table["metric"] == "ndcg@10_difference"].set_index(["model", "split"])
    own, others = (list_values(one, one.windows["test 1"])["ndcg@10"] for one in (first, second))
    value, low, high, n = rows.loc[("other", "test 1"), ["value", "low", "high", "n"]]
    assert value == pytest.approx(np.nanmean(others - own[5:][::-1]))
    assert low <= value <= high
    assert value != 0
    assert n == np.isfinite(others).sum()
    same = rows.loc["again", ["value", "low", "high"]]
    assert (same == 0).all(axis=None)
    assert set(same.index) == set(first.windows)
