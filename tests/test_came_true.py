from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.explanations import came_true
from benchmarks.explanations.came_true import Outcomes, said_rows, with_everybody
from benchmarks.explanations.free_text import checked_rows
from benchmarks.explanations.unchecked_claims import (
    KINDS_OF_TEMPLATE,
    claim_rows,
    claims_that_came_true,
    template_claims,
)
from benchmarks.forecasting.engines import forecast_tests
from benchmarks.harness import engines, logs, results
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.explain.facts import MAX_CLAIMS, ClaimFacts, history_shares
from llmrec.forecast import STATEMENT_KINDS, Forecast
from llmrec.forecasters.counting import DecayedDirichlet
from tests.explain.fixed_chances import FixedChances
from tests.test_benchmark_engines import make_dataset as make_whole_dataset
from tests.worlds import small_world

KEYS = {"dataset": "a log", "split": "test", "seeds": [0]}


def make_dataset(period: str = "7D") -> Dataset:
    """Make a log in which some people take nothing in the last three weeks."""
    dataset = make_whole_dataset(period)
    log = dataset.log
    is_late = log.timestamp >= log.timestamp.max() - np.timedelta64(21, "D")
    left_out = log.drop_events({"stayed away": is_late & (log.user_idx < 8)})
    return replace(dataset, log=left_out)


def count_forecasts(windows: list[Window]) -> list[Forecast]:
    found = DecayedDirichlet().forecast([window.history for window in windows])
    return [replace(forecast, statement_model=FixedChances()) for forecast in found]


def rows_by_name(rows: Any) -> dict[tuple[str, ...], Any]:
    return {(row["split"], row["model"], row["metric"]): row for row in rows}


def empty_target(window: Window) -> Window:
    start = window.target.start
    return Window(window.history, replace(window.target, stop=start))


def test_the_error_is_the_mean_gap_of_the_bins_and_the_worst_that_of_a_large_one() -> None:
    said = np.array([0.25] * 300 + [0.75] * 100)
    true = np.array([True] * 90 + [False] * 210 + [True] * 100)
    rows = {(r["model"], r["metric"]): r for r in Outcomes(said, true).rows(KEYS, "again")}
    assert rows["again", "came_true_error"]["value"] == pytest.approx(0.75 * 0.05 + 0.25 * 0.25)
    assert rows["again", "came_true_worst"]["value"] == pytest.approx(0.05)
    assert rows["again 0.2 to 0.3", "came_true"]["value"] == pytest.approx(0.3)
    assert rows["again 0.7 to 0.8", "said"]["n"] == 100


def test_a_certain_probability_is_in_the_last_bin_and_nothing_has_no_rows() -> None:
    ((label, _),) = Outcomes(np.ones(2), np.ones(2, dtype=bool)).bins()
    assert label == "0.9 to 1.0"
    assert not list(Outcomes(np.empty(0), np.empty(0, dtype=bool)).rows(KEYS, "new"))


def test_who_is_told_nothing_counts_among_the_people() -> None:
    rows = {(r["model"], r["metric"]): r for r in said_rows(KEYS, [[("again", 0.8, True)], []])}
    assert rows["said", "statements"]["value"] == 0.5
    assert rows["said", "median_likely_statements"]["value"] == 0.5
    assert rows["said: again", "came_true"]["n"] == 1


def test_an_engine_is_measured_on_both_tests_and_on_everybody_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(logs, "load_dataset", lambda name, **options: make_dataset())
    options = ["--effort", "quick", "--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", [came_true.__file__, *options])
    came_true.main()
    found = results.load_results("explanations/came_true_completejourney")
    rows = rows_by_name(found["rows"])
    assert set(found["calibrators"]) == {"test 1", "test 2"}
    for test in ("test 1", "test 2"):
        assert 0.5 < rows[test, "llmrec quick", "coverage80"]["value"] <= 1
        assert (f"{test} / short histories", "llmrec quick", "coverage80") in rows
        for split in (test, f"{test} / everybody"):
            assert 0 < rows[split, "nothing of", "came_true"]["value"] < 1
            assert rows[split, "template of 0.1", "statements"]["value"] <= MAX_CLAIMS
        n_people = rows[test, "said", "statements"]["n"]
        assert rows[f"{test} / everybody", "said", "statements"]["n"] > n_people
    monkeypatch.setattr(engines, "fit_measured", None)
    came_true.main()
    assert results.load_results("explanations/came_true_completejourney")["rows"] == found["rows"]


def test_everybody_has_a_history_in_the_log_before_the_test_and_may_take_nothing() -> None:
    dataset = make_dataset()
    for test in forecast_tests(dataset):
        everybody = with_everybody(dataset, test)
        assert everybody is not None
        assert {window.history.log for window in everybody.windows} == {test.dataset.log}
        ids = [window.history.user_id for window in everybody.windows]
        assert len(set(ids)) == len(ids) > len(test.windows)
        assert all(window.history.n_events for window in everybody.windows)
    (test,) = forecast_tests(make_dataset("5 events"))
    assert with_everybody(make_dataset("5 events"), test) is None


def test_the_template_says_each_category_once_and_the_kinds_take_turns() -> None:
    windows = small_world(n_users=15)
    forecasts = count_forecasts(windows)
    for window, forecast, claims in zip(
        windows, forecasts, template_claims(windows, forecasts), strict=True
    ):
        facts = ClaimFacts.compare(window.history, replace(forecast, statement_model=None))
        supported = {kind: facts.supported(kind) for kind in KINDS_OF_TEMPLATE}
        assert all(supported[kind][category] for kind, category in claims)
        assert len({category for _, category in claims}) == len(claims) <= MAX_CLAIMS
        kinds = [kind for kind, _ in claims]
        assert kinds == sorted(kinds, key=lambda kind: kind == "steady")
        for kind in ("rising", "fading"):
            assert (kind in kinds) == supported[kind].any()


def test_of_a_period_without_events_only_nothing_of_what_was_taken_is_true() -> None:
    window = empty_target(small_world(n_users=1)[0])
    taken = int(np.flatnonzero(history_shares(window.history))[0])
    kinds = (*STATEMENT_KINDS, "steady")
    true = claims_that_came_true(window, [(kind, taken) for kind in kinds])
    assert dict(zip(kinds, true, strict=True)) == {kind: kind == "nothing of" for kind in kinds}


def test_a_claim_that_the_past_rules_out_is_false() -> None:
    for window in small_world(n_users=10):
        for category in np.flatnonzero(history_shares(window.history)).tolist():
            assert claims_that_came_true(window, [("new", category)]) == [False]


def test_claims_are_counted_by_kind_and_those_that_the_checker_accepts() -> None:
    windows = small_world(n_users=8)
    forecasts = count_forecasts(windows)
    true = [
        ClaimFacts.of(window.history, forecast).chosen_claims()
        for window, forecast in zip(windows, forecasts, strict=True)
    ]
    for claims, share in ((true, 1), ([[*one, *one] for one in true], 0.5)):
        possible, supported = checked_rows(KEYS, windows, forecasts, claims)
        assert (possible["value"], supported["value"]) == (1, share)
    rows = rows_by_name(claim_rows(KEYS, "claims", windows, true))
    n = sum(map(len, true))
    assert rows["test", "claims", "came_true"]["n"] == n
    assert rows["test", "claims", "statements"]["value"] == pytest.approx(n / len(windows))
    by_kind = [row["n"] for (_, model, _), row in rows.items() if model.startswith("claims: ")]
    assert sum(by_kind) == n
