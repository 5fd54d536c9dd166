"""Saved engines are compared on windows that begin after their fit, and on no others."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import llmrec.evaluation.engine_scores
from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.readers import read_table
from llmrec.data.splits import split_windows
from llmrec.evaluation.comparison import Comparison, compare
from llmrec.evaluation.evaluator import predict
from llmrec.evaluation.html_report import save_report
from llmrec.evaluation.saved_engine import load_saved_engine
from llmrec.language.model import LanguageModel
from llmrec.metrics import log_loss
from tests.forecasters.fakes import FakeModel
from tests.saved_settings import change_settings
from tests.test_engine import TitleModel, frame, merged


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_table(frame(n_users=100, n_days=200), name="small", period="28D")


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: FakeModel())
    monkeypatch.setattr(llmrec.evaluation.engine_scores, "MAX_PEOPLE", 5)


def save_engine(dataset: Dataset, folder: Path, split: str) -> InterestEngine:
    """Save an engine that was fitted on what precedes a test split."""
    cutoff = split_windows(dataset)[split][0].history.cutoff
    engine = InterestEngine.from_pretrained(data=dataset, cutoff=cutoff).fit(
        "quick", use_llm=True, n_windows=60
    )
    engine.save_pretrained(folder)
    return engine


def losses_of(comparison: Comparison, split: str, model: str) -> dict[str, float]:
    scores = comparison.scores.query("split == @split and model == @model")
    return dict(zip(scores["user_id"], scores["log_loss"], strict=True))


def test_an_engine_is_scored_by_the_forecasts_that_it_makes(
    dataset: Dataset, tmp_path: Path
) -> None:
    engine = save_engine(dataset, tmp_path / "mine", "test 1")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        saved = load_saved_engine(str(tmp_path / "mine"), dataset)
    assert saved.name == "engine mine"
    found = compare(dataset, ["LastPeriod"], saved_engine=saved)
    windows = split_windows(dataset)["test 1"]
    weights, _ = predict(engine.forecaster, windows)
    expected = log_loss(weights, np.stack([w.target.category_counts for w in windows]))
    users = [window.history.user_id for window in windows]
    losses = losses_of(found, "test 1", "engine mine")
    np.testing.assert_allclose([losses[user] for user in users], expected)
    assert len(losses_of(found, "test 2", "engine mine")) == len(found.windows["test 2"])


def test_an_engine_is_not_judged_on_what_it_was_fitted_on(dataset: Dataset, tmp_path: Path) -> None:
    save_engine(dataset, tmp_path / "mine", "test 2")
    n_seen = len(split_windows(dataset)["test 1"])
    with pytest.warns(UserWarning, match=f"it is not evaluated on {n_seen} windows that begin"):
        saved = load_saved_engine(str(tmp_path / "mine"), dataset, 30)
    assert {split: len(windows) for split, windows in saved.windows.items()} == {"test 2": 30}
    found = compare(dataset, [], saved_engine=saved)
    assert not losses_of(found, "test 1", saved.name)
    assert save_report(found, tmp_path / "report").is_file()
    InterestEngine.from_pretrained(data=dataset).save_pretrained(tmp_path / "later")
    with pytest.raises(DataError, match=r"all windows to .* begin earlier: test 1 \(\d+, 2020-"):
        load_saved_engine(str(tmp_path / "later"), dataset)


def test_nor_on_what_its_adapter_learned_from(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: TitleModel())
    splits = split_windows(dataset)
    first, second = (splits[f"test {n}"][0].history.cutoff for n in (1, 2))
    model = merged(tmp_path / "model", dataset, cutoff=str(second))
    with pytest.warns(UserWarning, match="no calibration"):
        engine = InterestEngine.from_pretrained(model, data=dataset, cutoff=first)
    engine.save_pretrained(tmp_path / "mine")
    with pytest.warns(UserWarning, match=f"up to {second}: it is not evaluated on"):
        saved = load_saved_engine(str(tmp_path / "mine"), dataset)
    assert saved.windows.keys() == {"test 2"}


def test_where_people_have_windows_of_their_own_only_the_later_ones_count(tmp_path: Path) -> None:
    dataset = read_table(frame(n_users=60), name="small", period="10 events")
    cutoffs = np.sort([window.history.cutoff for window in split_windows(dataset)["test"]])
    middle = cutoffs[len(cutoffs) // 2]
    engine = InterestEngine.from_pretrained(data=dataset, cutoff=middle)
    engine.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"windows that begin earlier, of test \(60, 2020-"):
        saved = load_saved_engine(str(tmp_path), dataset)
    later = cutoffs[cutoffs >= np.datetime64(engine.settings.fitted_before)]
    assert sorted(w.history.cutoff for w in saved.windows["test"]) == later.tolist()


def test_an_engine_of_another_log_has_no_forecasts_of_its_own_to_judge(
    dataset: Dataset, tmp_path: Path
) -> None:
    other = read_table(frame(n_users=70), name="other", period="7D")
    InterestEngine.from_pretrained(data=other).fit(
        "quick", use_llm=True, n_windows=60
    ).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"was fitted on 'other', not on this log .*nothing that"):
        load_saved_engine(str(tmp_path), dataset)
    save_engine(dataset, tmp_path / "mine", "test 1")
    with pytest.raises(DataError, match="in periods of 28D, not of 14D: nothing that it learned"):
        load_saved_engine(str(tmp_path / "mine"), replace(dataset, period="14D"))


@pytest.mark.parametrize("form", [1, 2])
def test_an_engine_without_the_calibration_that_it_had_is_not_judged(
    dataset: Dataset, tmp_path: Path, form: int
) -> None:
    engine = save_engine(dataset, tmp_path, "test 1")
    (tmp_path / "calibration.json").unlink()
    if form == 2:
        with pytest.raises(DataError, match=r"calibration\.json is missing, without which"):
            load_saved_engine(str(tmp_path), dataset)
        return
    old = {"format": 1, "parts": ["calibration.json"], "blend": {"RecentPopularity": 1.0}}
    change_settings(tmp_path / "engine.json", lambda values: values.update(old))
    assert engine.settings.precision != "auto"
    with (
        pytest.warns(UserWarning, match=r"calibration\.json is missing"),
        pytest.raises(DataError, match=r"cannot be evaluated: calibration\.json is missing\. Copy"),
    ):
        load_saved_engine(str(tmp_path), dataset)


def test_an_engine_is_judged_by_its_own_forecasts_after_a_new_category_came(
    tmp_path: Path,
) -> None:
    old = frame(n_users=100, n_days=200)
    alone = read_table(old, name="small", period="28D")
    fitted, begin = (
        split_windows(alone)[split][0].history.cutoff for split in ("validation", "test 1")
    )
    new = old[(old["timestamp"] > fitted) & (old["item_id"] == "i003")]
    new = new.assign(item_id="new", title="New", categories="Western")
    grown = read_table(pd.concat([old, new]), name="small", period="28D")
    assert (new["timestamp"] < begin).any()
    engine = save_engine(grown, tmp_path, "validation")
    assert "Western" not in engine.dataset.catalog.categories
    assert engine.language is not None
    assert engine.language.calibration is not None
    trusted = replace(engine.language.calibration, a=1.0, gain=(0.1, 0.05, 0.2))
    engine.language = replace(engine.language, calibration=trusted)  # its scores are seen
    engine.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="it was fitted without 'Western', to which the least"):
        saved = load_saved_engine(str(tmp_path), grown)
    windows = saved.windows["test 1"]
    assert windows[0].history.catalog.categories[-1] == "Western"
    weights, concentrations = predict(saved.forecaster, windows)
    users = [alone.log.user_index(window.history.user_id) for window in windows]
    own = engine.language.forecaster(engine.prior).forecast(alone.histories(begin, users))
    assert {forecast.source.how for forecast in own} == {"llm"}
    expected = np.stack([forecast.category_weights for forecast in own])
    least = expected.min(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, np.hstack([expected, least]) / (1 + least))
    np.testing.assert_array_equal(concentrations, [forecast.concentration for forecast in own])
    found = compare(grown, ["LastPeriod"], saved_engine=saved)
    assert np.isfinite(list(losses_of(found, "test 1", saved.name).values())).all()
