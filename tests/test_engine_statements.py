"""Engines and the probabilities of what they say: fitted, saved, served, stored and scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.readers import read_table
from llmrec.data.splits import other_windows, past_windows
from llmrec.data.stored import VALUES_FILE
from llmrec.data.windows import make_windows
from llmrec.engine_fit import fit_engine
from llmrec.engine_folder import SETTINGS_FILE, STATEMENTS_FOLDER
from llmrec.engine_info import describe_engine
from llmrec.evaluation.forecast_store import load_forecasts, save_forecasts, with_log_ids
from llmrec.evaluation.track_record import (
    realized_statements,
    score_forecasts,
    statements_that_came_true,
    summarize_track_record,
)
from llmrec.explain.describe import check_description
from llmrec.forecast import STATEMENT_KINDS, Forecast
from tests.test_whole_engine import events_of
from tests.worlds import CATEGORIES, START

USERS = ("person-003", "person-017", "person-042")


@cache
def dataset(period: str = "7D", n_users: int = 250) -> Dataset:
    """People with a taste each, who take more of some categories and none of others."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        taste = rng.dirichlet(np.full(5, 0.4))
        times = rng.choice(70 * 24 * 3600, 60, replace=False).astype("timedelta64[s]")
        for time in times:
            category = int(rng.choice(5, p=taste))
            item = category + 5 * int(rng.integers(5))
            row = (f"person-{user:03d}", f"article-{item:03d}", START + time)
            rows.append((*row, f"Long title {item}", CATEGORIES[category]))
    columns = ["user_id", "item_id", "timestamp", "title", "categories"]
    return read_table(pd.DataFrame(rows, columns=columns), name="small", period=period)


@cache
def fitted(period: str = "7D") -> InterestEngine:
    return InterestEngine.from_pretrained(data=dataset(period), model=None).fit("quick", seed=3)


def numbers(forecasts: Sequence[Forecast]) -> list[tuple[Any, ...]]:
    return [
        (one.kind, one.category, one.probability, one.usual_rate)
        for forecast in forecasts
        for one in forecast.statements
    ]


@cache
def without_some_of_the_last_week(period: str = "7D") -> Dataset:
    """Every fourth person takes nothing in the last week."""
    whole = dataset(period)
    quiet = (whole.log.user_idx % 4 == 0) & (
        whole.log.timestamp >= whole.log.timestamp.max() - np.timedelta64(7, "D")
    )
    return replace(whole, log=whole.log.drop_events({"quiet": quiet}))


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_what_an_engine_says_has_probabilities_and_passes_the_checker(period: str) -> None:
    engine, said = fitted(period), 0
    for user in USERS:
        session = engine.session(user)
        forecast = session.forecast
        assert check_description(session.history, forecast) is None
        for one in forecast.statements:
            assert one.kind in STATEMENT_KINDS
            assert one.probability is not None
            assert 0 < one.probability < 1
            said += 1
    assert said


def test_one_person_alone_is_told_what_they_are_told_among_many() -> None:
    engine = fitted()
    alone = [engine.forecast(user) for user in USERS]
    assert numbers(alone) == numbers(engine.forecast_many(USERS))


def test_a_session_finds_a_probability_that_was_changed() -> None:
    session = fitted().session(USERS[0])
    found = session.recommend(3)
    texts = [one.explanation for one in found if one.explanation.statements]
    assert texts
    for true in texts:
        assert session.check(true) == ()
        first, *rest = true.statements
        assert first.probability is not None
        for wrong in (
            replace(first, probability=first.probability - 0.01),
            replace(first, usual_rate=0.999),
            replace(first, text=first.text.replace("%)", "1%)")),
        ):
            assert session.check(replace(true, statements=(wrong, *rest)))


def test_edits_change_the_weights_and_not_what_was_said() -> None:
    session = fitted().session(USERS[0])
    edited = session.edit(f"no {session.history.catalog.categories[0]}")
    assert edited.forecast.statements == session.forecast.statements
    assert session.check(edited.recommend(3)[0].explanation)  # of another list
    assert not edited.check(edited.recommend(3)[0].explanation)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_a_saved_engine_says_the_same_with_its_log_and_without(tmp_path: Path, period: str) -> None:
    engine, whole = fitted(period), dataset(period)
    engine.save_pretrained(tmp_path)
    again = InterestEngine.from_pretrained(str(tmp_path), data=whole)
    expected = engine.forecast_many(USERS)
    assert numbers(again.forecast_many(USERS)) == numbers(expected)
    served = InterestEngine.from_pretrained(str(tmp_path))
    for user, forecast in zip(USERS, expected, strict=True):
        assert served.forecast(events_of(whole, user)).description == forecast.description


def test_an_engine_of_before_has_no_probabilities_and_is_used_as_it_was(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / STATEMENTS_FOLDER)
    path = tmp_path / SETTINGS_FILE
    values = json.loads(path.read_text())
    values["parts"] = {
        name: part for name, part in values["parts"].items() if STATEMENTS_FOLDER not in name
    }
    del values["report"]["statements"]
    path.write_text(json.dumps(values))
    engine = InterestEngine.from_pretrained(str(tmp_path), data=dataset())
    statements = [one for user in USERS for one in engine.forecast(user).statements]
    assert {one.kind for one in statements} <= {"rising", "fading", "new", "returning"}
    assert all(one.probability is None for one in statements)
    assert "have no probabilities" in "\n".join(describe_engine(tmp_path).lines())
    engine.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / STATEMENTS_FOLDER).exists()


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_part_that_is_missing_or_changed_is_named(tmp_path: Path, change: str) -> None:
    fitted().save_pretrained(tmp_path)
    path = tmp_path / STATEMENTS_FOLDER / "again" / VALUES_FILE
    if change == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("usual_rate", "usual_ratE"))
    with pytest.raises(DataError, match=r"statements/again/stored\.json"):
        InterestEngine.from_pretrained(str(tmp_path), data=dataset())


def test_on_another_log_an_engine_has_the_probabilities_of_that_log(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    other = without_some_of_the_last_week()
    with pytest.warns(UserWarning, match="fitted on another log"):
        engine = InterestEngine.from_pretrained(str(tmp_path), data=other)
    fresh = InterestEngine.from_pretrained(data=other, model=None, refit=True)
    assert numbers(engine.forecast_many(USERS)) == numbers(fresh.forecast_many(USERS))
    assert numbers(engine.forecast_many(USERS)) != numbers(fitted().forecast_many(USERS))


def test_probabilities_are_fitted_on_everybody_also_those_who_take_nothing() -> None:
    data = without_some_of_the_last_week()
    (last, *_) = past_windows(data)
    others = other_windows(data, last)
    assert {one.target.n_events for one in others} <= set(range(5))
    cutoff = last[0].history.cutoff
    everybody = make_windows(data.log, data.catalog, "7D", cutoff, min_target_events=0)
    assert len(last) + len(others) == len(everybody) > len(last)
    fit = fit_engine(data, "quick")
    assert len(fit.everybody) == len(everybody)
    taken = sum(bool(one.target.n_events) for one in fit.everybody)
    usual = fit.report["statements"]["again"]["usual_rate"]
    true = sum(int(statements_that_came_true(one)["again"].sum()) for one in fit.everybody)
    assert usual == pytest.approx(true / fit.report["statements"]["again"]["cases"])
    assert taken < len(everybody)


def test_with_periods_of_events_everybody_has_one() -> None:
    data = dataset("10 events")
    assert other_windows(data, past_windows(data)[0]) == []
    assert other_windows(data, []) == []


def test_a_log_too_small_for_any_kind_says_nothing_and_info_says_why(tmp_path: Path) -> None:
    few = dataset(n_users=12)
    engine = InterestEngine.from_pretrained(data=few, model=None).fit("quick")
    kinds = engine.settings.report["statements"]
    assert any(one["usual_rate"] is None for one in kinds.values())
    said = {one.kind for one in engine.forecast("person-003").statements}
    assert said <= {kind for kind, one in kinds.items() if one["usual_rate"] is not None}
    engine.save_pretrained(tmp_path)
    assert "too few to calibrate on" in "\n".join(describe_engine(tmp_path).lines())


def test_stored_forecasts_show_what_was_said_and_what_came_true(tmp_path: Path) -> None:
    whole = dataset()
    cutoff = past_windows(whole)[0][0].history.cutoff
    engine = InterestEngine.from_pretrained(data=whole, cutoff=cutoff, model=None, refit=True)
    histories = engine.histories()
    forecasts = engine.forecast_many(histories)
    save_forecasts(tmp_path, whole, histories, forecasts)
    stored = with_log_ids(load_forecasts(tmp_path), whole)
    by_user = {one.user_id: one.forecast for one in stored}
    for history, forecast in zip(histories, forecasts, strict=True):
        assert by_user[history.user_id].statements == forecast.statements
    scores = score_forecasts(stored, whole).set_index("user_id")
    windows = make_windows(whole.log, whole.catalog, "7D", cutoff, min_target_events=0)
    for window in windows:
        forecast = by_user[window.history.user_id]
        if forecast.statements:
            row = scores.loc[window.history.user_id]
            likely = [one.probability for one in forecast.statements]
            true = realized_statements(window, forecast.statements)
            assert row["said"] == pytest.approx(np.mean(likely))
            assert row["came_true"] == pytest.approx(np.mean(true))
    record = summarize_track_record(scores.reset_index()).set_index("metric")
    assert record.loc["said", "n"] == record.loc["came_true", "n"] > 10


def test_of_an_empty_period_nothing_of_is_true_and_nothing_else() -> None:
    data = without_some_of_the_last_week()
    engine = fitted()
    empty = [one for one in other_windows(data, past_windows(data)[0]) if not one.target.n_events]
    assert empty
    for window in empty:
        forecast = engine.forecast(window.history)
        for one, true in zip(
            forecast.statements, realized_statements(window, forecast.statements), strict=True
        ):
            assert true == (one.kind == "nothing of")
