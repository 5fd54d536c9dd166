"""The benchmarks of engines, run whole on a made-up log with the effort that takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.engines import members, whole
from benchmarks.forecasting import engines as forecasting
from benchmarks.forecasting.engines import forecast_tests
from benchmarks.harness import engine_tables, logs, results
from benchmarks.harness.engines import (
    EngineFit,
    engine_lists,
    fit_measured,
    kept_members,
    make_engine,
)
from benchmarks.harness.front_page import BLOCKS
from benchmarks.harness.results import load_results
from benchmarks.harness.tables import wide_tables
from benchmarks.ranking import compare
from benchmarks.ranking import engines as ranking
from benchmarks.ranking.adapters import targets_in
from benchmarks.ranking.engines import stage_dataset
from benchmarks.ranking.splits import leave_one_out, next_period, next_weeks
from llmrec.data.dataset import Dataset
from llmrec.errors import DataError
from tests import worlds

QUICK = EngineFit("quick")


def make_dataset(period: str = "7D") -> Dataset:
    catalog = worlds.catalog(30)
    log = worlds.log(50, 9, 30).align_to(catalog)
    repeat: Any = "exclude" if "events" in period else "allow"
    return Dataset("completejourney", log, catalog, period, "items", "shopper", repeat)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script on the made-up log; its results go into a folder of the test."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    dataset = make_dataset()

    def start(module: Any, *arguments: str) -> None:
        monkeypatch.setattr(logs, "load_dataset", lambda name, **options: dataset)
        monkeypatch.setattr(sys, "argv", [str(module.__file__), *arguments])
        module.main()

    return start


def rows_of(name: str) -> dict[tuple[str, str, str], Any]:
    rows = load_results(name)["rows"]
    return {(row["split"], row["model"], row["metric"]): row for row in rows}


@pytest.mark.parametrize("open_split", [next_period, leave_one_out])
def test_an_engine_sees_the_log_before_a_test_and_lists_what_it_recommends(
    open_split: Callable[[Dataset], Any],
) -> None:
    split = open_split(make_dataset("5 events"))
    stage = split.tests["test"]
    engine = make_engine(stage_dataset(split, stage))
    fit_measured(engine, QUICK)
    lists = engine_lists(engine, stage.histories[:12])
    ids = split.dataset.catalog.item_ids
    assert len(engine.dataset.log) == len(stage.log) < len(split.dataset.log)
    for history, items in zip(stage.histories, lists, strict=False):
        recommended = engine.recommend(history)
        assert [item.item_id for item in recommended] == ids[items].tolist()
        assert not set(items) & set(history.item_idx.tolist())


def test_an_engine_whose_log_holds_more_events_than_a_history_is_refused() -> None:
    split = leave_one_out(make_dataset("5 events"))
    engine = make_engine(split.dataset)
    with pytest.raises(DataError, match="events of user"):
        engine_lists(engine, split.tests["test"].histories)


def test_a_log_too_small_for_an_effort_gets_no_row_of_it() -> None:
    dataset = replace(make_dataset(), log=worlds.log(8, 4, 30).align_to(worlds.catalog(30)))
    engine = make_engine(dataset)
    with (
        pytest.warns(UserWarning, match="no member was chosen"),
        pytest.raises(DataError, match="instead"),
    ):
        fit_measured(engine, EngineFit("best"))


def test_known_settings_pair_engines_with_a_baseline_fitted_again_and_keep_rows_of_others(
    run: Callable[..., None], tmp_path: Path
) -> None:
    options = ["--split", "repeat-allowed", "--seeds", "1", "--cache"]
    own = ["--baselines", "Popular lately,Personal frequency", "--efforts"]
    run(compare, *options, str(tmp_path / "first"), *own)
    name, test = "ranking/compare_repeat-allowed", "next 28 days, repeat allowed / test 1"
    first, chosen = rows_of(name), load_results(name)["settings"]
    again = ["--known-settings", "--keep-rows", "--baselines", "Popular lately"]
    run(compare, *options, str(tmp_path / "second"), *again, "--efforts", "quick")
    rows = rows_of(name)
    assert load_results(name)["settings"] == chosen
    same = {key: row for key, row in rows.items() if key[2] != "seconds" and key in first}
    assert same == {key: row for key, row in first.items() if key[2] != "seconds"}
    metrics = {metric for split, model, metric in rows if (split, model) == (test, "llmrec quick")}
    assert {"ndcg@10", "CPU seconds of fit", "MB of the folder"} <= metrics
    assert {one for one in metrics if " to " in one} == {"ratio to Popular lately"}
    above = rows[test, "llmrec quick", "ndcg@10 above Popular lately"]["value"]
    difference = [rows[test, one, "ndcg@10"]["value"] for one in ("llmrec quick", "Popular lately")]
    assert above == pytest.approx(difference[0] - difference[1])
    header = wide_tables(list(rows.values()))[1].splitlines()[0]
    assert header == "| model | compared with | ndcg@10 above | ratio |"


def test_cached_lists_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = next_weeks(make_dataset(), "allow")
    (_, first), *_ = ranking.engine_entries(split, [QUICK], 1, tmp_path)
    monkeypatch.setattr(ranking, "fit_measured", None)
    (_, again), *_ = ranking.engine_entries(split, [QUICK], 1, tmp_path)
    assert again.lists == first.lists
    assert set(again.lists) == set(split.tests)


@pytest.mark.parametrize("period", ["7D", "5 events"])
def test_an_engine_that_is_tested_on_a_forecast_has_seen_nothing_of_the_target(period: str) -> None:
    dataset = make_dataset(period)
    for test in forecast_tests(dataset):
        for window in test.windows:
            log, history = test.dataset.log, window.history
            user = log.user_index(history.user_id)
            known = slice(*log.user_offsets[user : user + 2])
            target = slice(window.target.start, window.target.stop)
            later = window.target.log.source_row[target]
            assert not set(log.source_row[known]) & set(later)
            assert history.log is log


def test_engines_forecast_beside_counting_mixture_and_their_own_members(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--efforts", "quick", "--seeds", "2", "--cache", str(tmp_path)]
    run(forecasting, *options)
    rows = rows_of("forecasting/engines_completejourney")
    for test in ("test 1", "test 2"):
        loss, counting, mixture = (
            rows[test, model, "log_loss"]["value"]
            for model in ("llmrec quick", "DecayedDirichlet", "GatedMixture")
        )
        gains = {"": counting - loss, " on GatedMixture": mixture - loss}
        for end, gain in gains.items():
            row = rows[test, "llmrec quick", f"log_loss_gain{end}"]
            assert row["value"] == pytest.approx(gain)
            assert row["seeds"] == [0, 1]
        of_members = [
            row["value"]
            for (split, model, metric), row in rows.items()
            if split == test and model.startswith("llmrec quick: ") and metric == "log_loss"
        ]
        best = rows[test, "llmrec quick", "log_loss_gain on its best member"]["value"]
        assert best == pytest.approx(min(of_members, default=loss) - loss)
    monkeypatch.setattr(forecasting, "fit_measured", None)
    run(forecasting, *options)
    assert rows_of("forecasting/engines_completejourney") == rows


def test_an_engine_is_fitted_without_each_member_that_it_keeps(
    run: Callable[..., None], tmp_path: Path
) -> None:
    caches = ["--cache", str(tmp_path / "a"), "--ranking-cache", str(tmp_path / "b")]
    run(members, "--data", "completejourney", "--effort", "quick", *caches)
    rows = rows_of("engines/members_quick_completejourney")
    split = next_weeks(make_dataset(), "allow")
    engine = make_engine(stage_dataset(split, split.tests["test 1"]))
    fit_measured(engine, QUICK)
    lost = {
        model
        for test, model, metric in rows
        if test.endswith("/ test 1") and metric == "ndcg@10 lost"
    }
    assert lost == {f"llmrec quick without {name}" for name in kept_members(engine, "list")}
    assert "Complete Journey: loss" in engine_tables.member_table()


def test_a_saved_engine_ranks_the_same_in_another_process_without_the_log(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "N_PROCESSES", 1)
    run(whole, "--data", "completejourney", "--efforts", "quick", "--people", "15")
    rows = {metric: row for (_, _, metric), row in rows_of("engines/whole_completejourney").items()}
    assert rows["same lists"]["value"] == rows["same scores"]["value"] == 1
    assert rows["same lists"]["n"] == 15
    load, both, process = (
        rows[f"seconds {what}"]["value"]
        for what in ("to load", "to import and load", "of the whole process")
    )
    assert 0 < load < both < process
    assert "| Complete Journey | llmrec quick |" in engine_tables.cost_table()


def test_a_score_that_differs_in_its_last_bit_is_found() -> None:
    own = {"items": np.arange(4), "scores": np.ones(4), "sizes": np.array([2, 2])}
    other = own | {"scores": np.array([1, 1, 1, np.nextafter(1, 2)])}
    same = whole.compare(own, other)
    assert same["same lists"].tolist() == [True, True]
    assert same["same scores"].tolist() == [True, False]


def test_the_made_up_log_has_as_many_items_as_it_is_to_have_and_all_are_taken() -> None:
    dataset = whole.make_many_items(n_items=200, n_people=50)
    assert dataset.catalog.n_items == len(np.unique(dataset.log.item_idx)) == 200


def test_an_adapter_may_have_learned_from_targets_that_begin_in_its_log() -> None:
    split = leave_one_out(make_dataset("5 events"))
    seen = targets_in(split.validation.log)
    assert not any(map(seen, split.validation.windows))
    assert all(map(targets_in(split.tests["test"].log), split.validation.windows))


def test_rows_that_are_not_measured_yet_are_dashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    lines = BLOCKS["forecasts"]().splitlines()
    assert lines[-1] == "| llmrec best | - | - | - |"
