from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.readers import read_table
from llmrec.data.splits import split_windows
from llmrec.evaluation.audits import audit_dataset
from llmrec.evaluation.comparison import Comparison, LLMScores, compare
from llmrec.evaluation.html_report import render_report, save_report
from llmrec.forecasters.dispersion import Dispersion
from llmrec.forecasters.precomputed import PrecomputedForecaster
from tests.data.test_splits import growing
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame
from tests.worlds import small_world

NAMES = ("LastPeriod", "RidgeAutoregression", "NeighbouringUsers", "CategoryEASE")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_table(frame(n_users=100, n_days=200), name="small <log>", period="28D")


@pytest.fixture(scope="module")
def comparison(dataset: Dataset) -> Comparison:
    readings = LLMScores.sample(dataset, 60).score(FakeModel(), dataset)  # type: ignore[arg-type]
    return compare(dataset, NAMES, llm_scores=readings)


def test_scores_that_are_noise_leave_counting_as_it_is(comparison: Comparison) -> None:
    assert not comparison.calibrations["DecayedDirichlet"].is_trusted
    table = comparison.table
    chosen = (table["metric"] == "log_loss_gain") & (table["slice"] == "all")
    gains = table[chosen & (table["model"] == "LLM on DecayedDirichlet")]
    assert len(gains) == 2
    np.testing.assert_allclose(gains[["value", "low", "high"]], 0, atol=1e-12)
    assert set(gains["n"]) == {60}


def test_every_forecaster_is_evaluated_on_both_test_splits(comparison: Comparison) -> None:
    losses = comparison.table.query("metric == 'log_loss' and slice == 'all'")
    for _, part in losses.groupby("split"):
        assert {"Mean", "DecayedDirichlet", *NAMES, "LLM alone (zero-shot)"} <= set(part["model"])
    assert set(comparison.scores["split"]) == {"test 1", "test 2"}


def test_more_seeds_are_fitted_for_forecasters_that_depend_on_one(dataset: Dataset) -> None:
    found = compare(dataset, ["CellMLP"], seeds=(0, 1))
    fitted = found.forecasters["test 1"]
    assert [one.seed for one in fitted["CellMLP"]] == [0, 1]  # type: ignore[attr-defined]
    assert len(fitted["DecayedDirichlet"]) == 1


def test_the_page_is_self_contained_and_its_tables_hold_what_it_shows(
    comparison: Comparison, tmp_path: Path
) -> None:
    path = save_report(comparison, tmp_path / "report")
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "src=" not in text
    assert text.count("<svg") == 5 + 5
    assert "small &lt;log&gt;" in text  # names are text, never markup
    table = pd.read_parquet(path.with_name("table.parquet"))
    pd.testing.assert_frame_equal(table, comparison.table)
    scores = pd.read_parquet(path.with_name("scores.parquet"))
    assert len(scores) == len(comparison.scores)
    best = table.query("slice == 'all' and metric == 'log_loss' and split == 'test 1'")
    whole = best[best["n"] == best["n"].max()]
    assert f"{whole['value'].min():.3f}" in text


def test_the_same_comparison_gives_the_same_page(comparison: Comparison) -> None:
    assert render_report(comparison, seed=1) == render_report(comparison, seed=1)


def test_a_log_of_few_people_and_odd_names_still_makes_a_page() -> None:
    events = frame(n_users=9, n_days=100)
    events["categories"] = events["categories"].replace("Drama", r"$\frac$ deals & <b>")
    few = compare(read_table(events, name="few", period="14D"), ["LastPeriod"])
    assert r"$\frac$ deals &amp; &lt;b&gt;" in render_report(few)


def test_precomputed_forecasts_are_only_for_their_histories() -> None:
    first, *others = [window.history for window in small_world(n_users=3)]
    precomputed = PrecomputedForecaster.of("x", [first], np.full((1, 5), 0.2), Dispersion())
    assert precomputed.forecast([first])[0].category_weights.tolist() == [0.2] * 5
    with pytest.raises(ValueError, match="x: no forecast of 'u001' was stored"):
        precomputed.forecast(others)


def test_names_that_only_the_tests_hold_change_no_score() -> None:
    old = read_table(frame(n_days=100), name="small", period="7D")
    grown = growing("7D", split_windows(old)["test 1"][0].history.cutoff)
    one, other = (compare(data, ["LastPeriod"]).table for data in (old, grown))
    pd.testing.assert_frame_equal(one, other)
    audited = [audit_dataset(data, "order", ["LastPeriod"]) for data in (old, grown)]
    pd.testing.assert_frame_equal(*audited)
    read = [LLMScores.sample(data).score(FakeModel(), data).scores for data in (old, grown)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(*(scores["test 2"] for scores in read))
