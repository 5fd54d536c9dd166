from __future__ import annotations

import json
import math
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness import results as record
from benchmarks.ranking.splits import leave_one_out
from benchmarks.harness.results import FIELDS, RESULTS
from benchmarks.harness.tables import FRONT, README, front_page, page
from llmrec.data.readers import read_table


def test_the_benchmark_page_shows_what_the_result_files_hold() -> None:
    assert README.read_text(encoding="utf-8") == page()


def test_the_front_page_shows_who_forecasts_best_as_measured() -> None:
    assert FRONT.read_text(encoding="utf-8") == front_page()


def test_every_result_says_how_it_was_made_and_on_how_many() -> None:
    files = sorted(RESULTS.glob("*.json"))
    assert files
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert {"command", "date", "versions", "machine", "rows"} <= set(content)
        for row in content["rows"]:
            assert set(row) == set(FIELDS)
            assert row["n"] >= 1
            if row["low"] is not None:
                assert row["low"] <= row["value"] <= row["high"]
                assert math.isfinite(row["value"])


@pytest.mark.parametrize("package", ["lightgbm", "cornac"])
def test_a_result_names_the_versions_of_what_was_imported_and_of_nothing_else(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1.0")
    for imported in (True, False):
        monkeypatch.delitem(sys.modules, package, raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, package, pd)
        record.record("it", [])
        kept = json.loads((tmp_path / "it.json").read_text(encoding="utf-8"))["versions"]
        assert kept.get(package) == (f"{package} 1.0" if imported else None)
        assert kept["numpy"] == "numpy 1.0"


def test_settings_that_are_not_finite_are_kept_as_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.record("it", [], settings={"EASE": {"half_life": np.inf, "regularization": 300.0}})
    kept = json.loads((tmp_path / "it.json").read_text(encoding="utf-8"))["settings"]
    assert kept == {"EASE": {"half_life": None, "regularization": 300.0}}


def test_what_stands_before_the_last_event_in_the_file_is_history_even_at_its_moment() -> None:
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
