from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.periods import make_histories, observed_windows, truncate_log
from llmrec.data.readers import load_dataset, read_table
from llmrec.data.windows import last_period_windows, make_windows
from llmrec.evaluation.evaluator import evaluate, evaluate_forecasters
from llmrec.evaluation.forecast_store import (
    StoredForecast,
    load_forecasts,
    save_forecasts,
    with_log_ids,
)
from llmrec.evaluation.track_record import realized_claims, score_forecasts, summarize_track_record
from llmrec.explain.describe import describe_from_claims
from llmrec.forecasters.counting import DECAYS, DecayedDirichlet
from tests.real_parts import needs_real_parts
from tests.test_engine import frame
from tests.worlds import catalog, log

MADE = np.datetime64("2020-06-01", "ms")


@pytest.fixture(scope="module")
def world() -> Dataset:
    return read_table(frame(n_users=30), name="small", period="7D")


def day(world: Dataset, n: int) -> np.datetime64:
    return world.log.timestamp.min() + np.timedelta64(n, "D")


def store(
    folder: Path,
    world: Dataset,
    cutoff: np.datetime64,
    *,
    period: str = "",
    whole_log: bool = False,
) -> list[StoredForecast]:
    """Store counting's described forecasts of everybody, with or without later events."""
    shortened = world if whole_log else replace(world, log=truncate_log(world.log, cutoff))
    histories = make_histories(shortened.log, shortened.catalog, period or world.period, cutoff)
    forecasts = DecayedDirichlet(mix="all").forecast(histories)
    described = [describe_from_claims(*pair, {}) for pair in zip(histories, forecasts, strict=True)]
    save_forecasts(folder, shortened, histories, described, MADE)
    return with_log_ids(load_forecasts(folder), world)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_scores_are_what_evaluate_finds_on_the_same_windows(
    tmp_path: Path, world: Dataset, period: str
) -> None:
    cutoff = day(world, 42)
    scores = score_forecasts(store(tmp_path, world, cutoff, period=period), world)
    windows = make_windows(world.log, world.catalog, period, cutoff)
    model = DecayedDirichlet(mix="all")
    evaluated = evaluate_forecasters({"counting": [model]}, windows).scores.set_index("user_id")
    found = scores[scores["status"] == "scored"].set_index("user_id")
    assert sorted(found.index) == sorted(evaluated.index)
    assert len(found) > 10
    for metric in ("log_loss", "jsd", "coverage50", "coverage80", "coverage90"):
        np.testing.assert_array_equal(found[metric], evaluated.loc[found.index, metric])
    table = evaluate({"counting": model}, windows, reference="counting")
    whole = table[table["slice"] == "all"].set_index("metric").loc["log_loss"]
    record = summarize_track_record(scores).set_index("metric").loc["log_loss"]
    assert record["value"] == pytest.approx(whole["value"], abs=1e-12)
    assert record["n"] == whole["n"]
    assert record["low"] < record["value"] < record["high"]


def test_a_forecast_that_is_the_reference_gains_nothing_on_it(tmp_path: Path) -> None:
    items = catalog()
    events = log(n_users=30, n_periods=9).align_to(items)  # tastes move: counting forgets
    drifting = Dataset("drifting", events, items, "7D", "films", "viewer", "allow")
    cutoff = day(drifting, 49)
    past = truncate_log(events, cutoff)
    windows = last_period_windows(past, items, "7D")
    histories = make_histories(events, items, "7D", cutoff)
    for decays, gain in (((1.0,), "gain_on_mean"), (DECAYS, "gain_on_counting")):
        model = DecayedDirichlet(name=gain).fit(windows, decays)
        save_forecasts(tmp_path, drifting, histories, model.forecast(histories), MADE)
    scores = score_forecasts(load_forecasts(tmp_path), drifting).set_index(["model", "user_id"])
    mean, counting = (scores.loc[f"gain_on_{name}"] for name in ("mean", "counting"))
    np.testing.assert_allclose(mean["gain_on_mean"], 0.0, atol=1e-12)
    np.testing.assert_allclose(counting["gain_on_counting"], 0.0, atol=1e-12)
    gained = mean["log_loss"] - counting["log_loss"]
    assert gained.mean() > 0.01
    np.testing.assert_allclose(counting["gain_on_mean"], gained, atol=1e-12)
    np.testing.assert_allclose(mean["gain_on_counting"], -gained, atol=1e-12)


def test_statements_came_true_where_the_period_supports_them(
    tmp_path: Path, world: Dataset
) -> None:
    cutoff = day(world, 42)
    stored = store(tmp_path, world, cutoff)
    scores = score_forecasts(stored, world).set_index("receipt")
    histories = make_histories(world.log, world.catalog, "7D", cutoff)
    windows = {w.history.user_id: w for w in observed_windows(histories) if w is not None}
    shares = []
    for one in stored:
        claims = [(s.kind, s.category) for s in one.forecast.statements]
        row = scores.loc[one.receipt]
        assert row["statements"] == len(claims)
        if claims and row["status"] == "scored":
            shares.append(np.mean(realized_claims(windows[one.user_id], claims)))
            assert row["came_true"] == shares[-1]
        else:
            assert np.isnan(row["came_true"])
    assert 0 < np.mean(shares) < 1


def test_a_period_is_pending_until_the_log_reaches_its_end(tmp_path: Path, world: Dataset) -> None:
    cutoff = day(world, 42)
    stored = store(tmp_path, world, cutoff)
    end = cutoff + np.timedelta64(7, "D")
    short = replace(world, log=truncate_log(world.log, end))
    times = short.log.timestamp.copy()
    times[times.argmax()] = end - np.timedelta64(2, "ms")
    pending = score_forecasts(stored, replace(short, log=replace(short.log, timestamp=times)))
    assert set(pending["status"]) == {"pending"}
    assert pending["log_loss"].isna().all()
    assert summarize_track_record(pending).empty
    times[times.argmax()] = end - np.timedelta64(1, "ms")
    passed = score_forecasts(stored, replace(short, log=replace(short.log, timestamp=times)))
    assert set(passed["status"]) <= {"scored", "nothing taken"}


def test_a_period_of_events_is_pending_until_the_person_has_taken_as_many(
    tmp_path: Path, world: Dataset
) -> None:
    cutoff = day(world, 60)
    scores = score_forecasts(store(tmp_path, world, cutoff, period="6 events"), world)
    events = np.array(
        [
            (world.log.timestamp[world.log.user_idx == world.log.user_index(user)] >= cutoff).sum()
            for user in scores["user_id"]
        ]
    )
    assert set(scores["status"]) == {"scored", "pending"}
    np.testing.assert_array_equal(scores["status"] == "scored", events >= 6)
    assert (scores["events"].dropna() == 6).all()


def test_nothing_taken_is_not_a_loss_of_zero(tmp_path: Path, world: Dataset) -> None:
    cutoff = day(world, 42)
    stored = store(tmp_path, world, cutoff)
    idle = world.log.user_index("u003")
    resting = (world.log.user_idx == idle) & (world.log.timestamp >= cutoff)
    scores = score_forecasts(
        stored, replace(world, log=world.log.drop_events({"resting": resting}))
    )
    row = scores.set_index("user_id").loc["u003"]
    assert row["status"] == "nothing taken"
    assert row["events"] == 0
    assert row[["log_loss", "jsd", "gain_on_mean", "coverage80", "came_true"]].isna().all()
    assert np.isnan(row["said"])  # no statement of these forecasts has a probability
    record = summarize_track_record(scores).set_index("metric")
    assert record.loc["log_loss", "receipts"] == (scores["status"] == "scored").sum()


def test_forecasts_that_cannot_be_scored_are_listed_with_the_reason(
    tmp_path: Path, world: Dataset
) -> None:
    stored = store(tmp_path, world, day(world, 42))
    forgotten = world.log.user_idx == world.log.user_index("u004")
    gone = replace(world, log=world.log.drop_events({"forgotten": forgotten}))
    scores = score_forecasts(stored, gone).set_index("user_id")
    assert len(scores) == len(stored)
    assert scores.loc["u004", "status"] == "unknown user"
    assert "no event of 'u004' is in 'small'" in scores.loc["u004", "why"]
    assert not scores["same_past"].any()
    fewer = score_forecasts(stored, world.without_categories(["War"]))
    assert set(fewer["status"]) == {"other categories"}
    assert "in one and not in the other: War" in fewer["why"].iloc[0]
    later = world.log.timestamp + np.timedelta64(1, "h")
    other = replace(world, name="other", log=replace(world.log, timestamp=later))
    found = score_forecasts(stored, other)
    assert set(found["status"]) == {"other log"}
    assert "made from 'small'; this is 'other'" in found["why"].iloc[0]
    future = replace(world, log=replace(world.log, timestamp=later + np.timedelta64(400, "D")))
    assert set(score_forecasts(stored, future)["status"]) == {"other log"}


def test_a_log_that_has_grown_under_another_name_is_still_the_same_log(
    tmp_path: Path, world: Dataset
) -> None:
    scores = score_forecasts(
        store(tmp_path, world, day(world, 42)), replace(world, name="small-2021")
    )
    assert scores["same_past"].all()
    assert "scored" in set(scores["status"])


def test_forecasts_are_scored_on_the_categories_of_their_time(
    tmp_path: Path, world: Dataset
) -> None:
    cutoff = day(world, 42)
    stored = store(tmp_path, world.known_before(cutoff), cutoff)
    new = frame(n_users=30).query("timestamp > @cutoff").assign(item_id="new", categories="Western")
    grown = read_table(pd.concat([frame(n_users=30), new]), name="small", period="7D")
    assert "Western" in grown.catalog.categories
    scores = score_forecasts(stored, grown)
    assert scores["same_past"].all()
    pd.testing.assert_frame_equal(scores, score_forecasts(stored, world))
    assert "scored" in set(scores["status"])


def test_a_period_has_passed_when_the_log_reaches_its_end_with_events_of_new_items(
    tmp_path: Path, world: Dataset
) -> None:
    cutoff = day(world, 63)
    assert world.log.timestamp.max() < cutoff + np.timedelta64(7, "D")
    stored = store(tmp_path, world.known_before(cutoff), cutoff)
    assert set(score_forecasts(stored, world)["status"]) == {"pending"}
    late = frame(n_users=30).query("timestamp > @cutoff")
    late = late.assign(item_id="new", categories="Western")
    late["timestamp"] += pd.Timedelta(7, "D")
    grown = read_table(pd.concat([frame(n_users=30), late]), name="small", period="7D")
    assert "scored" in set(score_forecasts(stored, grown)["status"])


def test_the_order_of_forecasts_does_not_matter(tmp_path: Path, world: Dataset) -> None:
    for days in (42, 49):
        stored = store(tmp_path, world, day(world, days))
    backwards = score_forecasts(stored[::-1], world)
    pd.testing.assert_frame_equal(backwards, score_forecasts(stored, world))
    pd.testing.assert_frame_equal(
        summarize_track_record(backwards),
        summarize_track_record(backwards.sample(frac=1, random_state=0)),
    )


def test_many_forecasts_of_a_person_count_as_one_person_in_a_models_record(
    tmp_path: Path, world: Dataset
) -> None:
    for days in (28, 35, 42, 49, 56):
        stored = store(tmp_path, world, day(world, days))
    scores = score_forecasts(stored, world)
    scored = scores[scores["status"] == "scored"]
    row = summarize_track_record(scores).set_index("metric").loc["log_loss"]
    assert row["n"] == scored["user_id"].nunique()
    assert row["receipts"] == len(scored) > row["n"]
    assert row["value"] == pytest.approx(scored.groupby("user_id")["log_loss"].mean().mean())
    by_user = summarize_track_record(scores, by_user=True).set_index(["user_id", "metric"])
    one = by_user.loc[("u005", "log_loss")]
    own = scored[scored["user_id"] == "u005"]
    assert one["n"] == one["receipts"] == len(own)
    assert one["value"] == pytest.approx(own["log_loss"].mean())
    assert np.isnan(one["low"])  # five values bear no interval


def test_hindsight_is_never_mixed_with_forecasts(tmp_path: Path, world: Dataset) -> None:
    store(tmp_path, world, day(world, 42))
    stored = store(tmp_path, world, day(world, 49), whole_log=True)
    scores = score_forecasts(stored, world)
    record = summarize_track_record(scores)
    losses = record[record["metric"] == "log_loss"].set_index("in_advance")
    for in_advance, cutoff in ((True, day(world, 42)), (False, day(world, 49))):
        own = scores[(scores["cutoff"] == cutoff) & (scores["status"] == "scored")]
        assert losses.loc[in_advance, "value"] == pytest.approx(own["log_loss"].mean())


@pytest.mark.filterwarnings("error")
def test_a_certainty_that_failed_is_an_infinite_loss_without_an_interval(
    tmp_path: Path, world: Dataset
) -> None:
    histories = make_histories(world.log, world.catalog, "7D", day(world, 42))
    forecasts = DecayedDirichlet().forecast(histories)
    forecasts[5] = forecasts[5].with_weights(np.eye(5)[0])
    save_forecasts(tmp_path, world, histories, forecasts, MADE)
    scores = score_forecasts(load_forecasts(tmp_path), world)
    assert np.isinf(scores["log_loss"]).sum() == 1
    record = summarize_track_record(scores).set_index("metric")
    assert record.loc["log_loss", "value"] == np.inf
    assert record.loc["gain_on_mean", "value"] == -np.inf
    assert np.isnan(record.loc["log_loss", ["low", "high"]].astype(float)).all()
    assert np.isfinite(record.loc["jsd", ["low", "high"]].astype(float)).all()


@needs_real_parts
def test_the_track_record_of_counting_on_a_real_log(tmp_path: Path) -> None:
    films = load_dataset("ml-100k")
    cutoff = np.datetime64("1998-03-20", "ms")
    scores = score_forecasts(store(tmp_path, films, cutoff), films)
    assert len(scores) == truncate_log(films.log, cutoff).n_users
    assert set(scores["status"]) == {"scored", "pending"}
    assert scores["in_advance"].all()
    assert scores["same_past"].all()
    windows = make_windows(films.log, films.catalog, films.period, cutoff)
    evaluated = evaluate_forecasters({"counting": [DecayedDirichlet(mix="all")]}, windows).scores
    found = scores[scores["status"] == "scored"].set_index("user_id")
    evaluated = evaluated.set_index("user_id").loc[found.index]
    np.testing.assert_array_equal(found["log_loss"], evaluated["log_loss"])
    record = summarize_track_record(scores).set_index("metric")
    assert record.loc["log_loss", "n"] == len(evaluated) > 30
    assert 0.5 < record.loc["coverage80", "value"] < 1
    assert abs(record.loc["gain_on_mean", "value"]) < 0.05
