from __future__ import annotations

import json
import math
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness import results
from benchmarks.harness.front_page import BLOCKS, FRONT_PAGE, mark, rewrite
from benchmarks.harness.results import FIELDS, load_results, result_names
from benchmarks.harness.tables import TABLES, build_tables
from benchmarks.ranking.splits import leave_one_out
from llmrec.data.readers import read_table

ROOT = Path(__file__).parents[1]


def test_the_page_of_tables_shows_what_the_result_files_hold() -> None:
    assert TABLES.read_text(encoding="utf-8") == build_tables()


def test_the_front_page_shows_who_forecasts_and_ranks_best_as_measured() -> None:
    text = FRONT_PAGE.read_text(encoding="utf-8")
    assert text == rewrite(text)


def test_blocks_between_marks_are_rewritten_and_nothing_else_is() -> None:
    page = f"before\n{mark('rankings')}\n\nold\n\n<!-- up to here -->\nafter\n"
    text = rewrite(page)
    assert text == page.replace("old", BLOCKS["rankings"]())
    assert rewrite(text) == text
    assert rewrite("no marks\n") == "no marks\n"
    with pytest.raises(ValueError, match="up to here"):
        rewrite(mark("forecasts"))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_table_of_the_front_page_has_at_most_six_rows(name: str) -> None:
    header, _, *rows = BLOCKS[name]().splitlines()
    assert 0 < len(rows) <= 6
    assert {row.count("|") for row in rows} == {header.count("|")}


def test_every_result_says_how_it_was_made_and_on_how_many() -> None:
    assert result_names()
    for name in result_names():
        content = load_results(name)
        assert {"command", "date", "versions", "machine", "rows"} <= set(content)
        for row in content["rows"]:
            assert set(row) == set(FIELDS)
            assert row["n"] >= 1
            if row["low"] is not None:
                assert row["low"] <= row["value"] <= row["high"]
                assert math.isfinite(row["value"])


@pytest.mark.parametrize("name", result_names())
def test_a_result_file_is_called_after_the_script_that_writes_it(name: str) -> None:
    module = load_results(name)["command"].split()[2]
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()
    assert f"benchmarks/{name}".startswith(module.replace(".", "/"))


@pytest.mark.parametrize("package", ["lightgbm", "cornac"])
def test_a_result_names_the_versions_of_what_was_imported_and_of_nothing_else(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1.0")
    for imported in (True, False):
        monkeypatch.delitem(sys.modules, package, raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, package, pd)
        results.record_results("group/it", [])
        versions = json.loads((tmp_path / "group/it.json").read_text(encoding="utf-8"))["versions"]
        assert versions.get(package) == (f"{package} 1.0" if imported else None)
        assert versions["numpy"] == "numpy 1.0"


def test_settings_that_are_not_finite_are_written_as_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.record_results(
        "group/it", [], settings={"EASE": {"half_life": np.inf, "regularization": 300.0}}
    )
    settings = json.loads((tmp_path / "group/it.json").read_text(encoding="utf-8"))["settings"]
    assert settings == {"EASE": {"half_life": None, "regularization": 300.0}}


def test_events_before_the_last_one_in_the_file_are_history_even_at_its_time() -> None:
    hours = np.datetime64("2020-01-01") + np.array([0, 5, 5, 5]) * np.timedelta64(1, "h")
    items = ["i0", "i1", "i2", "i3"]
    frame = pd.DataFrame({"user_id": "ann", "item_id": items, "timestamp": hours})
    dataset = read_table(frame.assign(title=items, categories="x"), period="2 events")
    (window,) = leave_one_out(dataset).tests["test"].windows
    ids = dataset.catalog.item_ids
    assert list(ids[window.target.item_idx]) == ["i3"]
    assert list(ids[window.history.item_idx]) == ["i0", "i1", "i2"]
    assert np.diff(window.history.offsets).tolist() == [2, 1]
    assert window.history.bounds.tolist() == hours[[0, 1, 1]].astype("datetime64[ms]").tolist()
    assert window.history.cutoff == hours[3]


def test_the_front_page_says_how_new_items_are_ranked_as_measured() -> None:
    found = results.load_rows("ranking/launches")
    text = " ".join(FRONT_PAGE.read_text(encoding="utf-8").split())
    values = [
        f"{found['online-retail', 'test / launch', model, 'ndcg@10']['value']:.3f}"[1:]
        for model in ("llmrec quick", "Random")
    ]
    assert f"{values[0]} on launches of Online Retail, {values[1]} by chance" in text
    shop = results.load_rows("ranking/young_shop_online-retail")
    split, added = "young shop / 300", "ndcg@10 above llmrec quick without titles"
    gain = shop["online-retail", split, "llmrec quick", added]["value"]
    assert f"of 300 people they add +{gain:.3f}" in text
