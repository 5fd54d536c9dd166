from __future__ import annotations

import json
import math

from benchmarks.record import FIELDS, RESULTS
from benchmarks.tables import FRONT, README, front_page, page


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
