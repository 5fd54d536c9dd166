"""A history that is pickled carries its own person alone, and an engine answers it as before."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec import DataError, Dataset, InterestEngine, UserSession, read_table
from llmrec.data.history_keys import history_key
from llmrec.data.periods import History, make_histories
from llmrec.forecasters.counting import DecayedDirichlet
from tests.data.test_population import ITEMS, TIMES, logs
from tests.test_engine import frame

EMBEDDED = ("ml-100k", "completejourney")


def send(history: History) -> History:
    found = pickle.loads(pickle.dumps(history))
    assert isinstance(found, History)
    return found


@cache
def embedded(name: str) -> InterestEngine:
    return InterestEngine.from_pretrained(data=name, model=None)


@pytest.fixture(scope="module")
def engine() -> InterestEngine:
    return InterestEngine.from_pretrained(data=small(), model=None)


@cache
def small() -> Dataset:
    return read_table(frame(), name="small", period="7D")


def answers(session: UserSession) -> Any:
    """All that a session says, but for the places that events have in its log."""
    forecast, found = session.forecast, session.recommend(5)
    for item in found:
        assert session.check(item.explanation) == ()
    evidence = [[(one.item_id, one.date) for one in item.explanation.evidence] for item in found]
    explained = session.explain(found[-1].item_id, 3)
    assert session.check(explained) == ()
    numbers = forecast.category_weights.tobytes(), forecast.concentration
    lists = [(one.item_id, one.rank, one.score, one.why) for one in found]
    return numbers, forecast.description, lists, evidence, explained.text


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_engine_gives_a_sent_history_the_answers_of_the_original(name: str) -> None:
    engine = embedded(name)
    histories = engine.histories([17, engine.dataset.log.n_users - 1])
    sent = [send(history) for history in histories]
    for history, own in zip(histories, sent, strict=True):
        assert answers(engine.session(own)) == answers(engine.session(history))
    for ours, theirs in zip(
        engine.forecast_many(sent), engine.forecast_many(histories), strict=True
    ):
        assert ours.category_weights.tobytes() == theirs.category_weights.tobytes()
        assert (ours.concentration, ours.description) == (theirs.concentration, theirs.description)
    for found, expected in zip(
        engine.recommend_many(sent, 5), engine.recommend_many(histories, 5), strict=True
    ):
        assert [(i.item_id, i.score, i.why) for i in found] == [
            (i.item_id, i.score, i.why) for i in expected
        ]


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_history_of_100_events_is_sent_in_20_kb(name: str) -> None:
    histories = embedded(name).histories()
    of_100 = [history for history in histories if 80 <= history.n_events <= 100][:50]
    assert len(of_100) > 20
    assert max(len(pickle.dumps(history)) for history in of_100) < 20_000
    longest = max(histories, key=lambda history: history.n_events)
    assert len(pickle.dumps(longest)) < 200 * longest.n_events


def test_nothing_of_other_people_and_nothing_after_the_cutoff_is_sent() -> None:
    cutoff = np.datetime64("2020-02-15")
    history = small().histories(cutoff, [5])[0]
    data = pickle.dumps(history)
    assert b"u005" in data
    assert not any(f"u{user:03d}".encode() in data for user in range(60) if user != 5)
    own = send(history)
    assert len(own.log) == own.n_events == history.n_events
    assert own.log.timestamp.max() < cutoff
    assert set(own.catalog.item_ids) == set(own.log.item_ids)
    assert own.log.report.rows_read == own.n_events


def test_a_sent_history_has_no_population_until_it_is_attached(engine: InterestEngine) -> None:
    history = engine.history("u005")
    sent = send(history)
    with pytest.raises(DataError, match=r"sent without what everybody took.*attach"):
        _ = sent.population
    with pytest.raises(DataError, match="sent without"):
        DecayedDirichlet().forecast([sent])
    with pytest.raises(DataError, match="sent without"):
        sent.without_items(sent.item_idx[:1])
    own = sent.attach(engine.dataset.catalog, engine.dataset.everybody)
    assert own.population is history.population
    expected = DecayedDirichlet().category_weights([history])
    assert DecayedDirichlet().category_weights([own]).tobytes() == expected.tobytes()
    assert history.attach(engine.dataset.catalog, engine.dataset.everybody) is history


def test_a_sent_history_of_another_catalog_is_refused(engine: InterestEngine) -> None:
    other = read_table(frame().assign(item_id=lambda table: "x" + table["item_id"]), period="7D")
    (history,) = make_histories(other.log, other.catalog, "7D", users=[0])
    for ask in (engine.session, engine.forecast, lambda one: engine.recommend_many([one])):
        with pytest.raises(DataError, match="another catalog"):
            ask(send(history))


def test_an_engine_without_the_log_takes_histories_of_the_one_with_it(
    engine: InterestEngine, tmp_path: Any
) -> None:
    engine.save_pretrained(tmp_path / "engine")
    serving = InterestEngine.from_pretrained(str(tmp_path / "engine"), model=None)
    history = engine.history("u005")
    assert answers(serving.session(send(history))) == answers(engine.session(history))


def test_a_history_of_a_frame_and_one_without_some_items_can_be_sent(
    engine: InterestEngine,
) -> None:
    events = frame().query("user_id == 'u005'").assign(user_id="zoe")
    new = engine.session(events).history
    fewer = engine.history("u001")
    fewer = fewer.without_items(fewer.item_idx[:2])
    for history in (new, fewer):
        sent = send(history)
        assert sent.n_left_out == history.n_left_out
        assert answers(engine.session(sent)) == answers(engine.session(history))


@settings(max_examples=40, deadline=None)
@given(logs(), TIMES, st.sampled_from(["1D", "3D", "2 events"]), st.data())
def test_sending_keeps_all_that_a_history_says_of_its_person(
    events: Any, cutoff: np.datetime64, period: str, data: st.DataObject
) -> None:
    history = data.draw(st.sampled_from(make_histories(events, ITEMS, period, cutoff)))
    first = data.draw(st.integers(0, history.n_periods - 1))
    shorter = replace(history, offsets=history.offsets[first:], bounds=history.bounds[first:])
    sent = send(send(shorter))
    own = sent.attach(ITEMS, history.population)
    assert history_key(own) == history_key(sent) == history_key(shorter)
    np.testing.assert_array_equal(own.item_idx, shorter.item_idx)
    np.testing.assert_array_equal(own.days_ago, shorter.days_ago)
    np.testing.assert_array_equal(own.category_counts, shorter.category_counts)
    np.testing.assert_array_equal(own.recently_absent, shorter.recently_absent)
    assert own.periods == sent.periods == shorter.periods
    assert [sent.catalog.item_ids[i] for i in sent.item_idx] == [
        ITEMS.item_ids[i] for i in shorter.item_idx
    ]
    assert sent.category_counts.sum() == shorter.category_counts.sum()
