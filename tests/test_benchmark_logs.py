"""The benchmarks on Online Retail: a made-up file of its columns, and the published one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.explanations import came_true, truthfulness
from benchmarks.forecasting import engines, pretrained, quality
from benchmarks.forecasting.engines import forecast_tests
from benchmarks.harness import engine_tables, new_item_tables, results, summaries
from benchmarks.harness.labels import COUNTING, MIXTURE, ONLINE_RETAIL
from benchmarks.harness.logs import (
    VARIABLE,
    available_logs,
    benchmark_dataset,
    evaluation_dataset,
)
from benchmarks.harness.results import load_results
from benchmarks.ranking import compare, launches
from benchmarks.ranking.shelves import shelf_starts, shelves_from
from llmrec.data.calendar import period_boundaries
from tests.online_retail import write_online_retail

pytest.importorskip("sklearn", reason="clusters of titles need the extra clusters")

N_PEOPLE = 24
PUBLISHED = os.environ.get(VARIABLE, "")
needs_published = pytest.mark.skipif(
    not PUBLISHED, reason=f"{VARIABLE} does not say where Online Retail is"
)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the variable name a made-up file, and results go into a folder of the test."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    path = write_online_retail(tmp_path, N_PEOPLE)
    monkeypatch.setenv(VARIABLE, str(path))
    return path


@pytest.fixture
def run(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a script on the made-up file, and give the rows that it writes by their keys."""

    def start(module: Any, name: str, *arguments: str) -> dict[tuple[str, str, str], Any]:
        monkeypatch.setattr(sys, "argv", [str(module.__file__), *arguments])
        module.main()
        rows = load_results(name)["rows"]
        assert {row["dataset"] for row in rows} == {ONLINE_RETAIL}
        return {(row["split"], row["model"], row["metric"]): row for row in rows}

    return start


THIRD_LOG = {  # result files as they will be called, and those of another log in their place
    "forecasting/quality_online-retail": "forecasting/quality_completejourney",
    "forecasting/engines_online-retail": "forecasting/engines_completejourney",
    "ranking/compare_retail-repeat": "ranking/compare_repeat-allowed",
    "ranking/compare_retail-explore": "ranking/compare_explore-only",
    "engines/whole_online-retail": "engines/whole_ml-100k",
}


def cells_of(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]


def test_a_third_log_that_is_measured_gets_its_columns_and_rows_and_nothing_else_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(results.RESULTS, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    for name in THIRD_LOG:
        (tmp_path / f"{name}.json").unlink(missing_ok=True)
    tables = (summaries.forecast_table, summaries.ranking_table, engine_tables.cost_table)
    before = [build() for build in tables]
    assert not any("Online Retail" in table for table in before)
    for name, source in THIRD_LOG.items():
        text = (tmp_path / f"{source}.json").read_text(encoding="utf-8")
        for log in ('"completejourney"', '"ml-100k"'):
            text = text.replace(log, f'"{ONLINE_RETAIL}"')
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    after = [build() for build in tables]
    for earlier, later, copied in zip(before[:2], after[:2], ([1, 2], [4, 5, 6, 7]), strict=True):
        for old, new in zip(cells_of(earlier)[1:], cells_of(later)[1:], strict=True):
            assert new == [*old, *(old[place] for place in copied)]
    added = [row for row in cells_of(after[2]) if row not in cells_of(before[2])]
    assert [row[0] for row in added] == ["Online Retail"] * 3
    assert [row[1:] for row in added] == [row[1:] for row in cells_of(before[2])[1:4]]


def test_without_its_file_a_script_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ONLINE_RETAIL not in available_logs()
    with pytest.raises(SystemExit, match=f"Set {VARIABLE}"):
        benchmark_dataset(ONLINE_RETAIL)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no such file"))
    with pytest.raises(SystemExit, match="no such file"):
        evaluation_dataset(ONLINE_RETAIL)


def test_what_comes_after_the_first_test_shapes_no_cluster(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = evaluation_dataset(ONLINE_RETAIL)
    cutoff = period_boundaries(dataset.log, dataset.period)[-3]
    assert len(dataset.log) == len(benchmark_dataset(ONLINE_RETAIL).log)
    known = dataset.known_before(cutoff)
    assert known.catalog.n_items < dataset.catalog.n_items
    (tmp_path / "other").mkdir()
    fewer = {"pink": 3, "gold": 4, "silver": 9, "orange": 9, "purple": 9}
    other = write_online_retail(tmp_path / "other", N_PEOPLE, fewer)
    monkeypatch.setenv(VARIABLE, str(other))
    assert evaluation_dataset(ONLINE_RETAIL).catalog.categories == dataset.catalog.categories


def test_forecasters_are_compared_on_it_without_a_language_model(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    options = ["--data", ONLINE_RETAIL, "--model", "", "--cache", str(tmp_path)]
    rows = run(quality, "forecasting/quality_online-retail", *options, "--models", "LastPeriod")
    for test in ("test 1", "test 2"):
        assert rows[test, "LastPeriod", "log_loss"]["n"] == N_PEOPLE
        assert rows[test, "Mean", "log_loss"]["value"] > 0


def test_engines_forecast_and_their_statements_are_audited_on_it(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {name: np.full(N_PEOPLE, 3.0) for name in (COUNTING, MIXTURE)}
    monkeypatch.setattr(engines, "peer_losses", lambda *given: counted)
    for module in (engines, came_true):
        monkeypatch.setattr(module, "forecast_tests", lambda data: forecast_tests(data)[1:])
    options = ["--data", ONLINE_RETAIL, "--cache", str(tmp_path)]
    own = ["--efforts", "quick", "--seeds", "1"]
    rows = run(engines, "forecasting/engines_online-retail", *options, *own)
    assert rows["test 2", "llmrec quick", "log_loss_gain"]["n"] == N_PEOPLE
    rows = run(came_true, "explanations/came_true_online-retail", *options, "--effort", "quick")
    assert 0.5 < rows["test 2", "llmrec quick", "coverage80"]["value"] < 1


@pytest.mark.parametrize("split", ["retail-repeat", "retail-explore"])
def test_lists_are_compared_on_its_last_two_periods(
    run: Callable[..., Any], tmp_path: Path, split: str
) -> None:
    own = ["--baselines", "Popular lately", "--efforts", "quick", "--tests", "test 2"]
    name = f"ranking/compare_{split}"
    rows = run(compare, name, "--split", split, *own, "--cache", str(tmp_path))
    parts = [part for one, part, _ in summaries.RETAIL_RANKING_TESTS if one == split]
    assert len(parts) == 2
    assert 0 < rows[parts[1], "llmrec quick", "ndcg@10"]["value"] < 1
    assert 0 < rows[parts[1], "Popular lately", "ndcg@10"]["n"] <= N_PEOPLE


def test_explanations_are_checked_in_the_catalog_that_the_engine_knows(made_up: Path) -> None:
    study = truthfulness.build_case(ONLINE_RETAIL, 3)
    later = benchmark_dataset(ONLINE_RETAIL).catalog.n_items - study.dataset.catalog.n_items
    assert later == 4  # purple things
    for number, person in enumerate(study.people):
        found = dict(truthfulness.check_case(study, *person, np.random.default_rng(number)))
        assert found["explanations that are true"]


def test_shelves_are_of_what_is_first_taken_then_and_of_what_was_in_the_eight_weeks_before(
    made_up: Path,
) -> None:
    dataset = benchmark_dataset(ONLINE_RETAIL)
    start = shelf_starts(dataset.log)["test"][-1]
    shelves = shelves_from(dataset, start)
    titles = {
        kind: {shelf.known.catalog.titles[item].split()[0] for item in shelf.items}
        for kind, shelf in shelves.items()
    }
    assert titles == {"launch": {"Purple"}, "new": {"Silver", "Orange"}}
    assert not shelves["launch"].had.any()
    new = shelves["new"]
    assert new.had.any()
    assert not (new.had & new.taken).any()
    assert new.taken.any(axis=1).all()
    assert (new.known.log.timestamp < start).all()


def test_both_kinds_of_shelves_are_ranked_by_every_model(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "ITEM_DRAWS", 20)
    starts = shelf_starts(benchmark_dataset(ONLINE_RETAIL).log)["test"]
    monkeypatch.setattr(
        launches, "shelf_starts", lambda log: {"validation": [], "test": starts[1:]}
    )
    rows = run(launches, "ranking/launches", "--data", ONLINE_RETAIL)
    for kind, chance in (("launch", "Random"), ("new", "RecentPopularity")):
        values = {m: rows[f"test / {kind}", m, "ndcg@10"]["value"] for m in (chance, "TitleKernel")}
        assert values["TitleKernel"] > values[chance]
        assert rows[f"test / {kind}", "llmrec quick", "ndcg@10"]["n"] > 0
        assert rows[f"test / {kind}", "Shelves", "items"]["value"] > 0
    table = new_item_tables.launch_table()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        f"| Online Retail, {kind}, {split}"
        for kind in ("launch", "new")
        for split in ("test", "all")
    ]


def test_a_log_without_new_items_has_rows_that_say_so(
    run: Callable[..., Any], made_up: Path
) -> None:
    write_online_retail(made_up.parent, N_PEOPLE, {})
    rows = run(launches, "ranking/launches", "--data", ONLINE_RETAIL)
    assert {model for _, model, _ in rows} == {"Shelves"}
    values = {split: row["value"] for (split, _, metric), row in rows.items() if metric == "items"}
    assert values["all / launch"] == values["test / new"] == 0
    assert min(row["n"] for row in rows.values()) == 1
    assert "| Online Retail, new, test | 0 | 0 | - |" in new_item_tables.launch_table()


def test_pretrained_nets_are_tried_on_it_where_it_is_there(
    made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = [target.name for target in pretrained.list_targets()]
    monkeypatch.delenv(VARIABLE)
    without = [target.name for target in pretrained.list_targets()]
    assert [one for one in with_it if one not in without] == [
        f"Online Retail, {n} clusters, 28 days" for n in (50, 150, 400)
    ]


@needs_published
def test_the_published_log_has_the_shelves_and_tests_of_the_tables() -> None:
    dataset = benchmark_dataset(ONLINE_RETAIL)
    starts = shelf_starts(dataset.log)
    assert [str(day) for day in starts["test"]] == ["2011-10-15", "2011-11-12"]
    shelf = shelves_from(dataset, starts["test"][0])["launch"]
    assert (len(shelf.items), len(shelf.histories)) == (69, 461)
