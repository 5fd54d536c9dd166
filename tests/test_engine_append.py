"""Appending events to an engine gives what a fit on the whole log gives."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmrec.engine_append
from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.catalog import Catalog
from llmrec.data.impressions import Impressions
from llmrec.data.interactions import Interactions
from llmrec.data.population import Population
from llmrec.data.readers import read_table
from llmrec.engine_config import EngineParts
from llmrec.engine_info import describe_engine
from llmrec.engine_resolve import with_log
from llmrec.engine_settings import EngineSettings
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import build_blend
from tests.explain.people import FixedScorer
from tests.test_whole_engine import events_of, load, table
from tests.worlds import CATEGORIES, START

STATISTICS = (
    *("RecentPopularity", "PersonalRepeat", "PopularityTrend", "Ease", "PureSVD"),
    *("SparseEaseByDays", "Cosine", "Successors", "NextItems", "EaseSeasonal"),
    *("TitleKernel", "TextPopularity", "EaseWithText"),
)
OF_NEW_ITEMS = ("TitleKernel", "EaseByText")


def items(n: int) -> pd.DataFrame:
    """The first n of items whose titles share words."""
    words = ("red", "green", "old", "new", "long", "short")
    return pd.DataFrame(
        {
            "item_id": [f"i{item:02d}" for item in range(n)],
            "title": [f"{words[item % 6]} {words[item * item % 5]} {item}" for item in range(n)],
            "categories": [CATEGORIES[item % 3] for item in range(n)],
        }
    )


def engine_of(events: pd.DataFrame, catalog: Catalog, cutoff: np.datetime64) -> InterestEngine:
    """Make an engine whose statistics are those of a log's events before a cutoff."""
    log = Interactions.from_frame(events, bot_events_per_day=None, keep_outliers=True)
    data = Dataset("tiny", log.align_to(catalog), catalog, "7D", "films", "viewer", "allow")
    weights = {name: 1.0 for name in STATISTICS}
    parts = EngineParts(
        data,
        cutoff,
        pd.Index([], dtype="str"),
        with_log(EngineSettings(model=""), data, cutoff),
        DecayedDirichlet(),
        None,
        build_blend(data, cutoff, weights),
        new_items=build_blend(data, cutoff, dict.fromkeys(OF_NEW_ITEMS, 1.0)),
    )
    return InterestEngine(parts)


def made_up_events(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Events of few people and items at few times, so that much coincides."""
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in rng.integers(6, size=n)],
            "item_id": [f"i{item:02d}" for item in rng.integers(12, size=n)],
            "timestamp": START + (rng.integers(40, size=n) * 3600 * 24).astype("timedelta64[s]"),
        }
    )


def scores_of(blend: Blend, engine: InterestEngine) -> dict[str, Any]:
    """Give each scorer's scores of everybody, by name."""
    histories = engine.histories()
    return {scorer.name: scorer.scores(histories) for scorer in blend.scorers}  # type: ignore[attr-defined]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_appending_a_log_in_pieces_and_refreshing_is_building_it_whole(
    seed: int, n_pieces: int
) -> None:
    rng = np.random.default_rng(seed)
    events = made_up_events(rng, 90)
    first = pd.concat([events[:30], events[:30].assign(user_id="u9")])
    known = items(9)
    first = first[first["item_id"].isin(known["item_id"])]
    begin = np.datetime64(first["timestamp"].max(), "ms") + np.timedelta64(1, "ms")
    engine = engine_of(first, Catalog.from_frame(known), begin)
    edges = np.sort(rng.integers(30, 90, size=n_pieces - 1))
    for rows in np.split(np.arange(20, 90), edges - 20):  # ten rows are there already
        engine.append(events.iloc[rows].merge(items(12), on="item_id"))
    engine.refresh()
    catalog = engine.dataset.catalog
    whole = pd.concat([first, events[20:]])
    end = np.datetime64(whole["timestamp"].max(), "ms") + np.timedelta64(1, "ms")
    expected = engine_of(whole, catalog, end)
    assert engine.cutoff == end
    same_log(engine.dataset.log, expected.dataset.log)
    same_population(engine.dataset.everybody, expected.dataset.everybody)
    for name in ("blend", "new_items"):
        own, other = getattr(engine._parts, name), getattr(expected._parts, name)
        found, right = scores_of(own, engine), scores_of(other, expected)
        assert found.keys() == right.keys()
        for scorer, values in right.items():
            np.testing.assert_allclose(found[scorer], values, rtol=0, atol=1e-9, err_msg=scorer)
    for one, other in zip(
        engine.forecaster.forecast(engine.histories()),
        expected.forecaster.forecast(expected.histories()),
        strict=True,
    ):
        np.testing.assert_allclose(one.category_weights, other.category_weights, atol=1e-12)


def same_log(found: Interactions, expected: Interactions) -> None:
    assert found.user_ids.tolist() == expected.user_ids.tolist()
    for name in ("user_offsets", "item_idx", "timestamp"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def same_population(found: Population, expected: Population) -> None:
    """Compare two populations but for the order of events of one time."""
    names = ("timestamp", "item_idx", "is_last_of_moment", "is_first_of_person")
    one, other = (
        pd.DataFrame({name: getattr(each, name) for name in names}).sort_values(list(names))
        for each in (found, expected)
    )
    np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())
    assert np.all(found.timestamp[1:] >= found.timestamp[:-1])
    assert found.n_items == expected.n_items


def small_engine() -> InterestEngine:
    """An engine of 9 items in 3 categories, and its log before day 30."""
    rng = np.random.default_rng(5)
    events = made_up_events(rng, 80)
    known = events[events["item_id"].isin(items(9)["item_id"]) & (events["timestamp"] < day(30))]
    return engine_of(known, Catalog.from_frame(items(9)), day(30))


def day(n: float) -> np.datetime64:
    return np.datetime64(START, "ms") + np.timedelta64(int(n * 24 * 3600_000), "ms")


def taken(user: str, item: str, when: float = 31) -> pd.DataFrame:
    row = {"user_id": [user], "item_id": [item], "timestamp": [day(when)]}
    return pd.DataFrame(row)


def test_somebody_new_has_a_forecast_and_a_list_without_a_fit() -> None:
    engine = small_engine()
    with pytest.raises(DataError, match="not known"):
        engine.session("somebody")
    report = engine.append(taken("somebody", "i03"))
    assert (report.n_accepted, report.n_new_people, report.n_new_items) == (1, 1, 0)
    session = engine.session("somebody")
    assert session.history.n_events == 1
    assert session.forecast.category_weights.sum() == pytest.approx(1)
    assert len(session.recommend(5)) == 5


def test_the_cutoff_follows_the_newest_event_and_never_goes_back() -> None:
    engine = small_engine()
    assert engine.append(taken("u1", "i03", 33)).cutoff == engine.cutoff
    assert engine.cutoff == day(33) + np.timedelta64(1, "ms")
    assert engine.append(taken("u1", "i04", 2)).n_accepted == 1
    assert engine.cutoff == day(33) + np.timedelta64(1, "ms")
    assert engine.settings.cutoff == str(engine.cutoff)


def test_sessions_opened_before_do_not_change() -> None:
    engine = small_engine()
    session, other = engine.session("u1"), engine.session("u1")
    before = [(one.item_id, one.score) for one in session.recommend(5)]
    engine.append(taken("u1", "i00").merge(items(12)), items=items(12))
    engine.refresh()
    assert [(one.item_id, one.score) for one in session.recommend(5)] == before
    assert [(one.item_id, one.score) for one in other.recommend(5)] == before  # made only now
    assert engine.session("u1").history.n_events == session.history.n_events + 1


def test_a_new_item_can_be_listed_at_once_and_by_its_title_after_a_refresh() -> None:
    engine = small_engine()
    report = engine.append(taken("u1", "i03").iloc[:0], items=items(11))
    assert (report.n_accepted, report.n_new_items) == (0, 2)
    listed = {one.item_id for one in engine.session("u1").recommend(11)}
    assert {"i09", "i10"} <= listed
    for _ in range(2):
        shelf = engine.session("u1", shelf="new").recommend(11)
        assert {"i09", "i10"} <= {one.item_id for one in shelf}
        engine.refresh()


def test_events_of_items_without_a_known_category_are_left_out_and_counted() -> None:
    engine = small_engine()
    unknown = taken("u1", "x").assign(title="X")
    assert engine.append(unknown).left_out["item not in the catalog"].tolist() == [0]
    report = engine.append(unknown.assign(categories="No such category"))
    assert report.left_out["item not in the catalog"].tolist() == [0]
    assert (report.n_accepted, report.n_new_items) == (0, 0)
    given = pd.DataFrame({"item_id": ["y", "i03"], "categories": ["No such category", "Drama"]})
    assert engine.append(unknown.iloc[:0], items=given).unknown_items == ("y",)
    assert engine.append(unknown.assign(categories="Drama")).n_accepted == 1
    assert engine.dataset.catalog.categories_of(9) == ("Drama",)


def test_a_scorer_of_a_users_own_gets_no_items_that_it_does_not_know() -> None:
    engine = small_engine()
    engine.blend = Blend([FixedScorer("mine", 1.0)], [1.0])
    report = engine.append(taken("u1", "i09").assign(categories="Drama"))
    assert report.left_out["item not in the catalog"].tolist() == [0]
    assert len(engine.session("u1").recommend(9)) == 9


def test_what_somebody_forgotten_was_shown_is_forgotten_too() -> None:
    engine = small_engine()
    shown = pd.DataFrame(
        {"user_id": ["u1", "u2"], "timestamp": [day(3)] * 2, "impressions": ["i01-1 i02-0"] * 2}
    )
    impressions = Impressions.from_frame(shown, engine.dataset.catalog)
    engine.dataset = replace(engine.dataset, impressions=impressions)
    engine.forget("u1")
    assert engine.dataset.impressions is not None
    assert engine.dataset.impressions.user_ids.tolist() == ["u2"]


def test_bad_rows_are_named_and_the_others_are_added() -> None:
    engine = small_engine()
    rows = pd.concat([taken("u1", "i03"), taken("u1", "i04"), taken("u2", "i05", 30_000)])
    rows = pd.concat([rows, rows.iloc[:1], taken("u3", "i03")], ignore_index=True)
    rows.loc[1, "item_id"] = None
    report = engine.append(rows)
    found = {reason: rows.tolist() for reason, rows in report.left_out.items()}
    assert found == {
        "missing item_id": [1],
        "impossible time: before 1970, or in the future": [2],
        "duplicate": [3],
    }
    assert report.n_accepted == 2
    again = engine.append(rows.iloc[[0]])
    assert (again.n_accepted, again.n_duplicates) == (0, 1)
    assert engine.append(taken("u1", "i00", 40), latest=day(35)).n_accepted == 0


def test_what_cannot_be_read_changes_nothing() -> None:
    engine = small_engine()
    parts = engine._parts
    with pytest.raises(DataError, match="column 'timestamp' is missing"):
        engine.append(pd.DataFrame({"user_id": ["u1"], "item_id": ["i03"]}))
    with pytest.raises(DataError, match="no id"):
        engine.append(taken("u1", "i03").assign(user_id=[True]))
    assert engine.append(taken("u1", "i03").iloc[:0]).n_accepted == 0
    assert engine._parts is parts


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_forgetting_somebody_and_refreshing_is_building_without_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = made_up_events(rng, 60)
    catalog = Catalog.from_frame(items(12))
    end = np.datetime64(events["timestamp"].max(), "ms") + np.timedelta64(1, "ms")
    engine = engine_of(events.iloc[:40], catalog, end)
    engine.append(events.iloc[40:])
    gone = events["user_id"].iloc[0]
    engine.forget(gone)
    engine.refresh()
    expected = engine_of(events[events["user_id"] != gone], catalog, end)
    same_log(engine.dataset.log, expected.dataset.log)
    same_population(engine.dataset.everybody, expected.dataset.everybody)
    right = scores_of(expected.blend, expected)
    for scorer, values in scores_of(engine.blend, engine).items():
        np.testing.assert_allclose(values, right[scorer], rtol=0, atol=1e-9, err_msg=scorer)
    with pytest.raises(DataError, match="not known"):
        engine.session(gone)


def test_forgetting_the_only_person_is_refused() -> None:
    engine = engine_of(taken("u1", "i03"), Catalog.from_frame(items(9)), day(32))
    with pytest.raises(DataError, match="only events"):
        engine.forget("u1")
    with pytest.raises(DataError, match="not known"):
        engine.forget("u2")


def test_an_event_appended_during_a_refresh_is_kept_and_somebody_forgotten_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, meanwhile = small_engine(), [lambda: engine.forget("u2"), lambda: None]
    meanwhile[1] = lambda: engine.append(taken("u1", "i11").merge(items(12)))
    refresh = llmrec.engine_append.refresh_parts

    def interrupted(parts: EngineParts) -> EngineParts:
        found = refresh(parts)
        if meanwhile:
            meanwhile.pop(0)()
        return found

    monkeypatch.setattr("llmrec.engine_append.refresh_parts", interrupted)
    engine.refresh()
    assert not meanwhile
    assert "u2" not in engine.dataset.log.user_ids
    assert engine.dataset.log.item_ids[-1] == "i11"
    assert "i11" in {one.item_id for one in engine.session("u1").recommend(12)}
    assert engine.settings.fitted_before == str(day(30))  # the event is in the next one


def test_what_was_trained_says_since_when() -> None:
    engine = small_engine()
    engine.append(taken("u1", "i03"))
    assert engine.settings.fitted_before == str(day(30))
    engine.refresh()
    assert engine.settings.fitted_before == str(engine.cutoff)
    assert engine.settings.trained_before == str(day(30))
    engine.append(taken("u1", "i04", 35))
    engine.refresh()
    assert engine.settings.trained_before == str(day(30))


def test_info_of_a_refreshed_engine_says_since_when_the_rest_is(tmp_path: Path) -> None:
    engine = small_engine()
    engine.append(taken("u1", "i03"))
    engine.save_pretrained(tmp_path)
    assert not any("the rest was fitted" in line for line in describe_engine(tmp_path).lines())
    engine.refresh()
    engine.save_pretrained(tmp_path)
    lines = [line.strip() for line in describe_engine(tmp_path).lines()]
    assert "Fitted on events before 2020-02-01 12:00:00.001." in lines
    expected = "That are statistics of items; the rest was fitted before 2020-01-31 12:00:00.000."
    assert expected in lines


def test_a_saved_engine_goes_on_where_it_was(tmp_path: Path) -> None:
    engine = small_engine()
    engine.append(taken("u1", "i11").merge(items(12)))
    for refreshed in (False, True):
        if refreshed:
            engine.refresh()
        engine.save_pretrained(tmp_path)
        again = load(tmp_path)
        assert again.cutoff == engine.cutoff
        same_population(again.dataset.everybody, engine.dataset.everybody)
        own = events_of(engine.dataset, "u1")
        found, right = (
            [(one.item_id, one.score) for one in each.recommend(who, 12)]
            for each, who in ((again, own), (engine, "u1"))
        )
        assert found == right


def test_an_engine_without_its_log_keeps_appended_people_and_counts_them(tmp_path: Path) -> None:
    whole = small_engine()
    whole.save_pretrained(tmp_path)
    engine, before = load(tmp_path), whole.dataset.everybody
    report = engine.append(pd.concat([taken("new", "i03"), taken("new", "i04", 20)]))
    assert (report.n_accepted, report.n_new_people) == (2, 1)
    assert engine.dataset.everybody.n_events == before.n_events + 2
    frame = pd.concat([taken("other", "i03"), taken("other", "i04", 20)])
    assert [one.item_id for one in engine.recommend("new", 9)] == [
        one.item_id for one in engine.recommend(frame, 9)
    ]
    with pytest.raises(DataError, match="holds no log"):
        engine.refresh()
    with pytest.raises(DataError, match="holds no log"):
        engine.fit("quick")
    engine.forget("new")
    same_population(engine.dataset.everybody, before)
    assert not len(engine.dataset.log)


def test_sessions_may_be_opened_while_events_are_appended() -> None:
    engine, failures = small_engine(), list[Exception]()
    rows = taken("u1", "i03").merge(items(40))

    def write() -> None:
        for n in range(9, 30):
            engine.append(rows.assign(timestamp=day(31 + n)), items=items(n))
            if n % 10 == 0:
                engine.refresh()

    writer = Thread(target=write)
    writer.start()
    while writer.is_alive():
        try:
            engine.session("u1").recommend(5)
        except Exception as error:
            failures.append(error)
    writer.join()
    assert not failures
    assert engine.session("u1").history.catalog.n_items == 29


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_a_fitted_engine_takes_events_and_answers_as_one_that_had_them(period: str) -> None:
    events = table()
    end = np.datetime64(events["timestamp"].max(), "ms")
    later = events["timestamp"] > end - np.timedelta64(5, "D")
    name = {"name": "small", "period": period}
    engine = InterestEngine.from_pretrained(data=read_table(events[~later], **name), model=None)
    engine.append(events[later])
    whole = read_table(events, **name)
    same_log(engine.dataset.log, whole.log)
    expected = InterestEngine(
        replace(engine._parts, dataset=whole, cutoff=end + np.timedelta64(1, "ms"))
    )
    for user in ("person-003", "person-017"):
        one, other = engine.session(user), expected.session(user)
        weights = other.forecast.category_weights
        np.testing.assert_allclose(one.forecast.category_weights, weights, atol=1e-12)
        assert [x.item_id for x in one.recommend(9)] == [x.item_id for x in other.recommend(9)]


def test_100000_events_at_once_take_seconds_at_most() -> None:
    engine, rng = small_engine(), np.random.default_rng(0)
    n = 100_000
    rows = {
        "user_id": [f"p{user}" for user in rng.integers(5_000, size=n)],
        "item_id": [f"i{item:02d}" for item in rng.integers(9, size=n)],
        "timestamp": day(31) + rng.integers(10**9, size=n).astype("timedelta64[ms]"),
    }
    began = time.process_time()
    report = engine.append(pd.DataFrame(rows))
    assert time.process_time() - began < 10
    assert report.n_accepted + report.n_duplicates == n
    assert engine.dataset.everybody.n_events == len(engine.dataset.log)
