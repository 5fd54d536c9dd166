"""A person is taken out of an engine, and the certificate says what of it has seen them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, InterestEngine
from llmrec.data.readers import read_table
from llmrec.engine_forget import STATISTICS
from llmrec.engine_info import describe_engine
from tests.test_whole_engine import answers, files_of, load, table

GONE, LEFT = "person-003", ("person-017", "person-042")


def engine_of(events: pd.DataFrame, effort: Any = "quick") -> InterestEngine:
    data = read_table(events, name="small", period="7D")
    return InterestEngine.from_pretrained(data=data, model=None).fit(effort, seed=3)


def test_the_certificate_counts_what_was_removed_and_names_what_saw_the_person() -> None:
    engine = engine_of(table())
    certificate = engine.forget(GONE)
    assert [str(one) for one in certificate.changed] == [
        "log of the engine: 2,400 events, 2,360 now",
        "what everybody took: 2,400 events, 2,360 now",
    ]
    assert [one.part for one in certificate.unchanged] == [
        STATISTICS,
        "forecaster PretrainedForecaster",
        "choice and weights of members, and how hard forecasts tilt lists",
        "probabilities of statements",
    ]
    assert {one.since for one in certificate.unchanged} == {engine.settings.fitted_before}
    assert GONE not in str(certificate.to_dict())
    with pytest.raises(DataError, match=r"'person-003' is not known .*'person-0"):
        engine.forget(GONE)


def test_of_somebody_who_came_after_the_fit_nothing_was_seen() -> None:
    engine = engine_of(table())
    new = pd.DataFrame(
        {"user_id": ["new"], "item_id": ["article-003"], "timestamp": [engine.cutoff]}
    )
    engine.append(new)
    certificate = engine.forget("new")
    assert [(one.before - one.after) for one in certificate.changed] == [1, 1]
    assert certificate.unchanged == ()


def test_what_was_trained_refuses_if_that_is_asked_for_and_nothing_changes() -> None:
    engine = engine_of(table())
    parts = engine._parts
    with pytest.raises(DataError, match="nothing is forgotten: forecaster PretrainedForecaster; "):
        engine.forget(GONE, trained="refuse")
    with pytest.raises(DataError, match="trained is 'drop'; write keep, fit, refuse"):
        engine.forget(GONE, trained="drop")  # type: ignore[arg-type]
    assert engine._parts is parts


def test_an_engine_that_is_fitted_again_is_that_of_a_log_without_the_person(
    tmp_path: Path,
) -> None:
    events = table()
    engine = engine_of(events)
    certificate = engine.forget(GONE, trained="fit")
    assert certificate.unchanged == ()
    assert {(one.before, one.after) for one in certificate.changed[2:]} == {(60, 59)}
    expected = engine_of(events[events["user_id"] != GONE])
    engine.save_pretrained(tmp_path / "one")
    expected.save_pretrained(tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert answers(engine, LEFT) == answers(expected, LEFT)


def test_all_statistics_of_a_refreshed_engine_are_those_of_a_fit_without_the_person() -> None:
    events = table()
    engine = engine_of(events, "standard")
    seen = [one.part for one in engine.forget(GONE).unchanged]
    assert "trees" in seen
    engine.refresh()
    rest = read_table(events[events["user_id"] != GONE], name="small", period="7D")
    other = InterestEngine.from_pretrained(data=rest, model=None)
    other.blend, other.cutoff = engine.blend, engine.cutoff
    other.refresh()
    histories = other.histories()
    for one, right in zip(engine.blend.scorers, other.blend.scorers, strict=True):
        np.testing.assert_allclose(one.scores(histories), right.scores(histories), atol=1e-9)


def test_info_counts_who_was_forgotten_since_the_fit(tmp_path: Path) -> None:
    engine = engine_of(table())
    for user in (GONE, *LEFT[:1]):
        engine.forget(user)
    engine.refresh()
    engine.save_pretrained(tmp_path)
    said = [line for line in describe_engine(tmp_path).lines() if "forgotten" in line]
    assert [line.strip() for line in said] == [
        "Since then 2 of these people were forgotten: what is no statistic of items has seen them."
    ]
    load(tmp_path, data=engine.dataset).fit("quick").save_pretrained(tmp_path)
    assert not any("forgotten" in line for line in describe_engine(tmp_path).lines())
