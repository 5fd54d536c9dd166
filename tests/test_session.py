"""One person opened once: whatever is asked, in whatever order, the work is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import (
    DataError,
    Dataset,
    Edit,
    EditError,
    Forecast,
    InterestEngine,
    UserSession,
    read_table,
)
from llmrec.data.periods import History, make_histories
from llmrec.data.population import Population
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Blend
from llmrec.types import FloatArray
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

VERBS: dict[str, Callable[[UserSession], Any]] = {
    "forecast": lambda session: session.forecast.category_weights.tobytes(),
    "recommend": lambda session: session.recommend(5),
    "calibrated": lambda session: session.recommend(5, calibrate=0.5),
    "ranking": lambda session: session.ranking(7).scores.tobytes(),
    "why": lambda session: session.why(session.recommend(1)[0].item_id),
    "why_not": lambda session: session.why_not("i004", 3),
    "explain": lambda session: session.explain("i004", 3),
    "effect": lambda session: session.effect().verify(5),
    "edit": lambda session: session.edit("more war").recommend(5),
}


class Counted:
    """An item scorer that says of whom it was asked, and of which shortened histories."""

    name = "counted"

    def __init__(self, n_items: int) -> None:
        self.n_items, self.asked = n_items, list[str]()
        self.shortened = list[tuple[int, ...]]()

    def scores(self, histories: Sequence[History]) -> FloatArray:
        self.asked.extend(one.user_id for one in histories if not one.n_left_out)
        self.shortened.extend(tuple(one.item_idx) for one in histories if one.n_left_out)
        return np.zeros((len(histories), self.n_items))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_table(frame(), name="small", period="7D")


@pytest.fixture
def engine(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> InterestEngine:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: FakeModel())
    return InterestEngine.from_pretrained(data=dataset)


def lists(recommendations: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [(one.item_id, one.rank, one.score, one.why) for one in recommendations]


def contents(forecast: Forecast) -> tuple[Any, ...]:
    return forecast.category_weights.tobytes(), forecast.description, forecast.source


def test_the_person_is_forecast_and_scored_once_whatever_the_question(
    engine: InterestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Counted(engine.dataset.catalog.n_items)
    engine.blend = Blend([*engine.blend.scorers, scorer], [*engine.blend.weights, 1.0])
    forecast, forecasts = engine.forecaster.forecast, list[str]()

    def counted(histories: Sequence[History]) -> Any:
        forecasts.extend(history.user_id for history in histories)
        return forecast(histories)

    monkeypatch.setattr(engine.forecaster, "forecast", counted)
    session = engine.session("u005", edits=[Edit("Drama", 2.0)])
    assert forecasts == scorer.asked == []
    for ask in VERBS.values():
        ask(session)
    assert forecasts == scorer.asked == ["u005"]
    sessions = 2  # the edited one ranks shortened histories itself
    assert 1 <= max(Counter(scorer.shortened).values()) <= sessions


def test_the_order_of_questions_changes_no_answer(engine: InterestEngine) -> None:
    answers = {name: ask(engine.session("u005")) for name, ask in VERBS.items()}
    rng = np.random.default_rng(0)
    for _ in range(5):
        session = engine.session("u005")
        for name in rng.permutation(list(VERBS)):
            assert VERBS[name](session) == answers[name]


def test_an_edit_gives_another_session_and_leaves_the_first_as_it_is(
    engine: InterestEngine,
) -> None:
    session = engine.session("u005")
    before = lists(session.recommend(5))
    edited = session.edit(Edit("War", 3.0)).edit("no drama", strength=2.0)
    assert edited.edits == (Edit("War", 3.0), Edit("Drama", 0.0))
    assert edited.strength == 2.0
    assert edited.forecast is session.forecast
    assert lists(session.recommend(5)) == before != lists(edited.recommend(5))
    assert session.edits == ()
    weights = edited.edited_forecast.category_weights
    assert weights[list(engine.dataset.catalog.categories).index("Drama")] == 0
    at_once = engine.session("u005", edits=edited.edits, strength=2.0)
    assert lists(at_once.recommend(5)) == lists(edited.recommend(5))


def test_edits_in_any_order_give_the_same_list(engine: InterestEngine) -> None:
    edits = [Edit("War", 3.0), Edit("Drama", 0.5), Edit("Comedy", 0.0)]
    found = [
        lists(engine.session("u005").edit(*order).recommend(25)) for order in permutations(edits)
    ]
    assert all(one == found[0] for one in found)


def test_what_of_a_text_is_not_understood_is_an_issue(engine: InterestEngine) -> None:
    session = engine.session("u005").edit("twice as much war", "more foo")
    assert session.edits == (Edit("War", 2.0),)
    assert [issue.said for issue in session.issues] == ["more foo"]
    assert session.edit("no drama").issues == session.issues


def test_a_changed_description_is_an_edit(engine: InterestEngine) -> None:
    session = engine.session("u005")
    edited = session.edit(description=f"{session.forecast.description} No war.")
    assert edited.edits == (Edit("War", 0.0),)


def test_contradicting_edits_are_refused_when_they_are_made(engine: InterestEngine) -> None:
    session = engine.session("u005").edit("no war")
    with pytest.raises(EditError, match="contradict"):
        session.edit("more war")
    with pytest.raises(EditError, match="at most 100"):
        session.edit(strength=1e9)
    with pytest.raises(EditError, match="unknown category 'Foo'"):
        engine.session("u005", edits=[Edit("Foo", 2.0)])


def test_edits_may_come_from_a_generator(engine: InterestEngine) -> None:
    edits = [Edit("War", 3.0), Edit("Drama", 0.0)]
    assert engine.session("u005", edits=(edit for edit in edits)).edits == tuple(edits)  # type: ignore[arg-type]
    assert engine.session("u005").edit(*(edit for edit in edits)).edits == tuple(edits)
    with pytest.raises(EditError, match="one by one"):
        engine.session("u005").edit(edits)  # type: ignore[arg-type]


def test_a_text_of_which_nothing_is_understood_is_an_error(engine: InterestEngine) -> None:
    with pytest.raises(EditError, match="“mroe foo”"):
        engine.session("u005").edit("mroe foo")


def test_what_a_session_gives_cannot_change_it(engine: InterestEngine) -> None:
    session = engine.session("u005")
    before, ranking = lists(session.recommend(5)), session.ranking()
    for array in (ranking.item_idx, ranking.scores, ranking.scorer_parts, ranking.muted):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert lists(session.recommend(5)) == before


def test_an_effect_compares_with_the_list_without_edits_at_the_fitted_strength(
    engine: InterestEngine,
) -> None:
    session = engine.session("u005")
    edited = session.edit("more war", strength=2.0).edit("no drama")
    effect = edited.effect()
    assert (effect.strength_before, effect.strength_after) == (session.strength, 2.0)
    outcome, ids = effect.verify(5), engine.dataset.catalog.item_ids
    assert outcome.holds
    was, now = ([item.item_id for item in one.recommend(5)] for one in (session, edited))
    assert [ids[item] for item in outcome.listed] == now
    assert {ids[item] for item in outcome.left} == set(was) - set(now)


def test_why_explains_what_is_listed_and_refers_what_is_not(engine: InterestEngine) -> None:
    session = engine.session("u005", edits=[Edit("War", 0.0)])
    items = session.recommend(25)
    assert session.why(items[2].title, 3) == items[2].explanation
    with pytest.raises(DataError, match=r"has rank 4 and is not among the 3 best: ask why_not"):
        session.why(items[3].item_id, 3)
    muted = set(engine.dataset.catalog.item_ids) - {item.item_id for item in items}
    with pytest.raises(DataError, match="cannot be listed"):
        session.why(min(muted))
    with pytest.raises(DataError, match="i999"):
        session.why("i999")
    for k in (0, 2.5, "3"):
        with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
            session.why(items[0].item_id, k)  # type: ignore[arg-type]


def test_items_already_taken_are_listed_as_the_session_says(engine: InterestEngine) -> None:
    history = engine.history("u005")
    taken = set(history.catalog.item_ids[history.item_idx])
    for repeat, common in (("allow", taken), ("exclude", set())):
        session = engine.session(history, repeat=repeat)  # type: ignore[arg-type]
        listed = {item.item_id for item in session.recommend(25)}
        assert listed & taken == common
        assert session.repeat == repeat


@pytest.mark.parametrize("calibrate", [0.0, 0.5])
def test_a_batch_gives_what_single_calls_give(
    engine: InterestEngine, monkeypatch: pytest.MonkeyPatch, calibrate: float
) -> None:
    users = ["u005", engine.history("u001"), "u030", "u005"]
    alone = [lists(engine.recommend(user, 5, calibrate=calibrate)) for user in users]
    together = engine.recommend_many(users, 5, calibrate=calibrate)
    assert list(map(lists, together)) == alone
    monkeypatch.setattr("llmrec.engine_people.SCORES_PER_BATCH", 1)
    assert list(map(lists, engine.recommend_many(users, 5, calibrate=calibrate))) == alone
    forecasts = engine.forecast_many(users)
    for user, forecast in zip(users, forecasts, strict=True):
        assert contents(forecast) == contents(engine.forecast(user))
    assert engine.recommend_many([]) == []
    generated = engine.recommend_many((user for user in users), 5, calibrate=calibrate)
    assert list(map(lists, generated)) == alone
    for users_of_one in ("u005", frame()):
        with pytest.raises(DataError, match="users are a list"):
            engine.recommend_many(users_of_one)


def test_somebody_who_is_not_in_the_log_is_known_by_a_frame(
    engine: InterestEngine, dataset: Dataset
) -> None:
    events = frame().query("user_id == 'u005'").assign(user_id="zoe")
    session = engine.session(events)
    together = read_table(pd.concat([frame(), events]), name="small", period="7D")
    everybody = Population.of(dataset.log)  # without the new person
    (history,) = make_histories(
        together.log, together.catalog, "7D", engine.cutoff, [60], population=everybody
    )
    assert session.history.user_id == history.user_id == "zoe"
    expected = engine.session(history)
    assert contents(session.forecast) == contents(expected.forecast)
    assert lists(session.recommend(5)) == lists(expected.recommend(5))
    nameless = engine.session(events[["item_id", "timestamp"]])
    assert nameless.history.user_id == "new user"
    assert lists(nameless.recommend(5)) == lists(expected.recommend(5))
    assert [lists(one) for one in engine.recommend_many([events, "u001"], 5)] == [
        lists(expected.recommend(5)),
        lists(engine.recommend("u001", 5)),
    ]
    assert len(dataset.log) == len(frame())


def test_frames_without_ids_are_each_somebody_of_their_own(engine: InterestEngine) -> None:
    nameless = ["item_id", "timestamp"]
    frames = [frame().query(f"user_id == '{user}'")[nameless].head(6) for user in ("u005", "u006")]
    alone = [lists(engine.recommend(one, 5)) for one in frames]
    assert alone[0] != alone[1]
    together = engine.recommend_many([*frames, "u001", *frames], 5)
    assert [lists(one) for one in together] == [*alone, lists(engine.recommend("u001", 5)), *alone]


def test_days_and_months_of_a_frame_are_in_the_order_of_the_logs_own() -> None:
    table = frame()
    table["timestamp"] = pd.to_datetime(table["timestamp"]).dt.strftime("%d/%m/%Y")
    dataset = read_table(table, name="small", period="7D")
    events = pd.DataFrame({"item_id": table["item_id"].head(1), "timestamp": ["04/01/2020"]})
    cutoff = np.datetime64("2020-06-01")
    history = dataset.new_user_history(events, cutoff)
    assert history.log.timestamp[-1] == np.datetime64("2020-01-04", "ms")
    events["timestamp"] = 1_578_096_000  # numbers have no such order
    assert dataset.new_user_history(events, cutoff).log.timestamp[-1] == history.log.timestamp[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": "u005"}, "user 'u005' is in the log"),
        ({"user_id": ["a", "b"]}, "events of 2 users"),
        ({"item_id": "i999"}, "the frame of a new user: no event is left"),
        ({"timestamp": None}, "no interaction survived cleaning"),
    ],
)
def test_a_frame_that_is_nobody_new_is_refused(
    engine: InterestEngine, change: dict[str, Any], message: str
) -> None:
    events = frame().head(2).assign(**{"user_id": "zoe", **change})
    with pytest.raises(DataError, match=message):
        engine.session(events)


def test_a_frame_that_lacks_a_column_is_refused_by_its_name(engine: InterestEngine) -> None:
    with pytest.raises(DataError, match="the frame of a new user: column 'timestamp' is missing"):
        engine.session(frame()[["item_id"]])


def test_of_a_frame_the_events_before_the_cutoff_are_taken(
    engine: InterestEngine, dataset: Dataset
) -> None:
    cutoff = dataset.log.timestamp.min() + np.timedelta64(40, "D")
    early = InterestEngine.from_pretrained(data=dataset, cutoff=cutoff)
    events = frame().query("user_id == 'u005'").assign(user_id="zoe")
    before = events[events["timestamp"] < cutoff]
    assert 0 < len(before) < len(events)
    found, expected = early.session(events), early.session(before)
    assert found.history.n_events == len(before)
    assert lists(found.recommend(5)) == lists(expected.recommend(5))


def test_a_history_of_another_catalog_is_refused(engine: InterestEngine) -> None:
    other = read_table(frame().assign(item_id=lambda table: "x" + table["item_id"]), period="7D")
    (history,) = make_histories(other.log, other.catalog, "7D", users=[0])
    with pytest.raises(DataError, match="another catalog"):
        engine.session(history)


def test_a_session_says_whose_it_is(engine: InterestEngine) -> None:
    session = engine.session("u005").edit("no war")
    assert repr(session).startswith("UserSession('u005', 40 events, edits=[Edit(category='War'")
