from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.calendar import MILLISECOND
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, truncate_log
from llmrec.data.readers import read_table
from llmrec.data.splits import past_windows
from llmrec.data.stored import Stored
from llmrec.engine import InterestEngine
from llmrec.errors import DataError, ModelLoadError
from llmrec.evaluation.comparison import compare
from llmrec.evaluation.forecast_store import save_forecasts
from llmrec.evaluation.horizons import HORIZON_SLICE, horizon_table, windows_by_horizon
from llmrec.evaluation.html_report import render_report
from llmrec.evaluation.report_figures import plot_horizons
from llmrec.explain.describe import check_description
from llmrec.explain.evidence import format_period_ahead
from llmrec.forecast import Forecast
from llmrec.forecasters.counting import DecayedDirichlet, population_mix
from llmrec.forecasters.horizon import (
    MAX_HORIZON,
    HorizonForecaster,
    LaterPeriods,
    horizon_windows,
)
from llmrec.forecasters.loading import load_forecaster
from llmrec.forecasters.precomputed import predict_weights
from llmrec.types import FloatArray
from tests.worlds import CATEGORIES, START

PERIODS = ("7D", "10 events")


def fading_fads(n_users: int = 80, n_periods: int = 14, keep: float = 0.75) -> pd.DataFrame:
    """Events of people of a taste of everybody's, each with a fad that goes on with ``keep``."""
    rng = np.random.default_rng(0)
    common, rows = np.array([0.4, 0.3, 0.15, 0.1, 0.05]), []
    for user in range(n_users):
        fad = int(rng.choice(5, p=common))
        for period in range(n_periods):
            if rng.random() > keep:
                fad = int(rng.choice(5, p=common))
            for moment in np.sort(rng.random(10)):
                category = fad if rng.random() < 0.8 else int(rng.choice(5, p=common))
                item = category + 5 * int(rng.integers(5))
                time = START + np.timedelta64(int((period + moment) * 7 * 86_400), "s")
                name = CATEGORIES[category]
                rows.append((f"u{user:03d}", f"i{item:03d}", time, f"Title {item}", name))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title", "categories"])


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return fading_fads()


@pytest.fixture(scope="module")
def few_events() -> pd.DataFrame:
    return fading_fads(n_users=24, n_periods=7)


@pytest.fixture(scope="module", params=PERIODS)
def dataset(few_events: pd.DataFrame, request: pytest.FixtureRequest) -> Dataset:
    return read_table(few_events, name="fads", period=request.param)


@pytest.fixture(scope="module")
def engine(dataset: Dataset) -> InterestEngine:
    return InterestEngine.from_pretrained(data=dataset, model=None)


def weights_of(forecasts: list[Forecast]) -> FloatArray:
    return np.stack([np.append(one.category_weights, one.concentration) for one in forecasts])


def people(dataset: Dataset) -> list[History]:
    return dataset.histories(dataset.log.timestamp.max() + MILLISECOND)


@pytest.mark.parametrize("horizon", range(1, MAX_HORIZON + 1))
def test_a_target_ahead_lies_as_many_periods_after_the_history_and_ends_with_the_log(
    dataset: Dataset, horizon: int
) -> None:
    windows, end = past_windows(dataset, horizon)[0], dataset.log.timestamp.max() + MILLISECOND
    assert len(windows) == 24
    for window in windows:
        history, target = window.history, window.target
        assert target.period.end <= end
        if history.period_length.unit == "events":
            assert target.start == history.event_ids.stop + 10 * (horizon - 1)
            assert target.stop == history.log.user_offsets[history.user_idx + 1]
        else:
            assert target.period.start - history.cutoff == np.timedelta64(7 * (horizon - 1), "D")
            assert target.period.end == end
            times = target.log.timestamp[target.start : target.stop]
            assert ((times >= target.period.start) & (times < target.period.end)).all()


def test_a_forecast_one_period_ahead_is_that_of_the_next_period_to_the_bit(
    engine: InterestEngine,
) -> None:
    users = ["u003", "u017"]
    for same, other in zip(
        engine.forecast_many(users, 1), engine.forecast_many(users), strict=True
    ):
        assert same.category_weights.tobytes() == other.category_weights.tobytes()
        assert (same.concentration, same.statements) == (other.concentration, other.statements)
        assert (same.description, same.horizon) == (other.description, 1)
    one = engine.forecast("u003", horizon=1)
    assert one.category_weights.tobytes() == engine.forecast("u003").category_weights.tobytes()
    assert one.statements == engine.forecast("u003").statements


@pytest.mark.parametrize("horizon", [2, 4])
def test_a_batch_gives_what_single_calls_give_in_any_order(
    engine: InterestEngine, horizon: int
) -> None:
    users = [f"u{user:03d}" for user in range(0, 24, 5)]
    batch = engine.forecast_many(users, horizon)
    single = [engine.forecast(user, horizon) for user in users[::-1]][::-1]
    np.testing.assert_allclose(weights_of(batch), weights_of(single), rtol=1e-12, atol=1e-12)
    assert [one.description for one in batch] == [one.description for one in single]


def test_the_order_of_requests_changes_no_byte(dataset: Dataset) -> None:
    counting, histories = DecayedDirichlet().fit(past_windows(dataset)[0]), people(dataset)
    found = []
    for order in ((2, 3), (3, 2)):
        later = LaterPeriods(counting, dataset)
        made = {horizon: weights_of(later[horizon].forecast(histories)) for horizon in order}
        found.append(made[2].tobytes() + made[3].tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("horizon", [2, 3, 4])
def test_a_later_forecast_is_one_of_shares_and_claims_no_probability(
    engine: InterestEngine, horizon: int
) -> None:
    history, made = engine.history("u011"), engine.forecast("u011", horizon)
    assert made.horizon == horizon
    assert made.category_weights.sum() == pytest.approx(1, abs=1e-12)
    assert (made.category_weights > 0).all()
    assert made.statement_model is None
    assert all(one.probability is None and one.usual_rate is None for one in made.statements)
    assert "next" not in made.description
    assert check_description(history, made) is None


def test_a_description_without_statements_speaks_of_that_period(engine: InterestEngine) -> None:
    history, made = engine.history("u011"), engine.forecast("u011", 2)
    said = "Nothing about that period is certain enough to be said."
    silent = replace(made, statements=(), description=said)
    assert check_description(history, silent) is None
    assert check_description(history, replace(silent, horizon=1)) is not None


def test_what_happens_after_the_cutoff_changes_no_forecast(dataset: Dataset) -> None:
    cutoff = START.astype("datetime64[ms]") + np.timedelta64(7 * 6, "D")
    early = replace(dataset, log=truncate_log(dataset.log, cutoff), item_rows=None)
    found = []
    for known in (dataset, early):
        made = InterestEngine.from_pretrained(data=known, cutoff=cutoff, model=None)
        found.append(weights_of([made.forecast("u004", horizon) for horizon in (1, 2)]))
    assert found[0].tobytes() == found[1].tobytes()


def test_the_further_ahead_the_nearer_a_forecast_is_to_the_mix_of_everybody(
    events: pd.DataFrame,
) -> None:
    whole = read_table(events, name="fads", period="7D")
    tests = windows_by_horizon(whole)
    histories = [window.history for window in tests[1]]  # of the end: all with one cutoff
    cutoff = histories[0].cutoff
    known = replace(whole, log=truncate_log(whole.log, cutoff), item_rows=None)
    counting = DecayedDirichlet().fit(past_windows(known)[0])
    later, common = LaterPeriods(counting, known), population_mix(histories, "all")
    away = [
        np.abs(predict_weights(later[horizon], histories) - common).sum(axis=1).mean()
        for horizon in range(1, MAX_HORIZON + 1)
    ]
    assert all(near < far for far, near in pairwise(away))
    assert away[-1] < 0.75 * away[0]


def test_forecasts_fitted_for_a_horizon_beat_those_of_the_next_period_used_for_it(
    events: pd.DataFrame,
) -> None:
    table = horizon_table(read_table(events, name="fads", period="7D"), "test 2")
    gains = table.query("metric == 'log_loss_gain' and model == 'HorizonForecaster'")
    assert list(gains["slice"]) == [f"horizon {horizon}" for horizon in (1, 2, 3, 4)]
    assert gains.set_index("slice").loc["horizon 4", "low"] > 0
    losses = table.query("metric == 'log_loss' and model == 'DecayedDirichlet'")["value"]
    assert losses.is_monotonic_increasing
    assert table["n"].nunique() == 1


@pytest.mark.parametrize("horizon", [0, -1, 5, "2", 1.5, None])
def test_what_is_no_horizon_is_refused(engine: InterestEngine, horizon: Any) -> None:
    for ask in (engine.forecast, lambda user, h: engine.forecast_many([user], h)):
        with pytest.raises(DataError, match=r"horizon is .*a whole one from 1 .* to 4"):
            ask("u001", horizon)


def test_a_horizon_beyond_the_log_is_refused_with_the_number_of_periods_that_it_allows(
    few_events: pd.DataFrame,
) -> None:
    start = few_events["timestamp"].min()
    month = few_events[few_events["timestamp"] < start + pd.Timedelta(27, "D")]
    few = read_table(month, name="month", period="7D")
    later = LaterPeriods(DecayedDirichlet(), few)
    assert later[3].forecast(people(few)[:1])[0].horizon == 3
    with pytest.raises(DataError, match="month allows forecasts of 3 periods ahead, not of 4: 0"):
        later[4]


def test_an_engine_without_its_log_says_why_it_forecasts_the_next_period_alone(
    few_events: pd.DataFrame, tmp_path: Path
) -> None:
    dataset = read_table(few_events, name="fads", period="7D")
    whole = InterestEngine.from_pretrained(data=dataset, model=None)
    whole.save_pretrained(tmp_path)
    served = InterestEngine.from_pretrained(str(tmp_path))
    person = few_events[few_events["user_id"] == "u001"][["user_id", "item_id", "timestamp"]]
    assert served.forecast(person).horizon == 1
    with pytest.raises(DataError, match=r"can forecast horizon 1\. Load it with"):
        served.forecast(person, 2)
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    both = weights_of([one.forecast("u001", 2) for one in (again, whole)])
    assert both[0].tobytes() == both[1].tobytes()


@pytest.mark.parametrize("period", PERIODS)
def test_a_saved_engine_forecasts_as_far_ahead_as_was_asked_for_without_its_log_to_the_bit(
    few_events: pd.DataFrame, period: str, tmp_path: Path
) -> None:
    dataset = read_table(few_events, name="fads", period=period)
    whole = InterestEngine.from_pretrained(data=dataset, model=None)
    histories, asked = whole.histories()[:5], (4, 2)
    expected = {ahead: weights_of(whole.forecast_many(histories, ahead)) for ahead in asked}
    whole.save_pretrained(tmp_path)
    served = InterestEngine.from_pretrained(str(tmp_path))
    for data in (None, dataset):
        loaded = InterestEngine.from_pretrained(str(tmp_path), data=data)
        loaded.save_pretrained(tmp_path / "again")
        for ahead in asked:
            found = weights_of(loaded.forecast_many(histories, ahead))
            assert found.tobytes() == expected[ahead].tobytes()
    again = InterestEngine.from_pretrained(str(tmp_path / "again"))
    assert weights_of(again.forecast_many(histories, 2)).tobytes() == expected[2].tobytes()
    with pytest.raises(DataError, match=r"can forecast horizons 1, 2, 4\..*ask for horizon=3"):
        served.forecast_many(histories, 3)
    whole.fit("quick").save_pretrained(tmp_path)
    assert not (tmp_path / "horizon").exists()


def test_the_forecaster_of_next_periods_is_stored_once_and_no_later_fit_is_used_before_it(
    few_events: pd.DataFrame,
) -> None:
    dataset = read_table(few_events, name="fads", period="7D")
    end = dataset.log.timestamp.max() + MILLISECOND
    counting = DecayedDirichlet().fit(past_windows(dataset)[0])
    later = LaterPeriods(counting, dataset)
    assert later.stored() is None
    assert later[2].horizon == 2
    stored = later.stored()
    assert stored is not None
    assert not stored.parts["horizon2"].parts["mixture"].parts["next period"].values
    nothing = Dataset.without_log(
        *("fads", dataset.catalog, dataset.everybody),
        **{"period": "7D", "noun": "items", "person": "person", "repeat": "allow"},
    )
    assert LaterPeriods.from_stored(stored, counting, nothing, end)[2].horizon == 2
    with pytest.raises(DataError, match="there is no log to learn from"):
        LaterPeriods.from_stored(stored, counting, nothing, end - np.timedelta64(8, "D"))[2]
    with pytest.raises(ModelLoadError, match="no LaterPeriods can be made of a stored"):
        LaterPeriods.from_stored(stored.parts["horizon2"], counting, nothing, end)


def test_what_was_stored_forecasts_the_same_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    counting = DecayedDirichlet().fit(past_windows(dataset)[0])
    fitted = HorizonForecaster.fit(counting, horizon_windows(dataset, 3), 3)
    fitted.stored().save(tmp_path)
    loaded = load_forecaster(Stored.load(tmp_path))
    histories = people(dataset)
    assert {one.horizon for one in loaded.forecast(histories)} == {3}
    assert weights_of(loaded.forecast(histories)).tobytes() == (
        weights_of(fitted.forecast(histories)).tobytes()
    )


@pytest.mark.parametrize("horizon", [1, 5, 2.5, "2", None])
def test_a_stored_horizon_that_cannot_be_is_refused(dataset: Dataset, horizon: Any) -> None:
    counting = DecayedDirichlet().fit(past_windows(dataset)[0])
    stored = HorizonForecaster.fit(counting, horizon_windows(dataset, 2), 2).stored()
    with pytest.raises(ModelLoadError, match="HorizonForecaster cannot be read: horizon is"):
        load_forecaster(replace(stored, values={"horizon": horizon}))


def test_a_later_forecast_is_neither_ranked_by_nor_stored_for_the_next_period(
    engine: InterestEngine, tmp_path: Path
) -> None:
    later = engine.forecast("u001", 2)
    with pytest.raises(DataError, match="a session is of the next period, not of horizon=2"):
        engine.session("u001", forecast=later)
    with pytest.raises(DataError, match="not of horizon=2"):
        save_forecasts(tmp_path, engine.dataset, [engine.history("u001")], [later])


@pytest.mark.parametrize(
    ("period", "horizon", "text"),
    [
        ("7D", 1, "the next 7 days"),
        ("7D", 3, "the period from 15 Jan 2020 to 21 Jan 2020"),
        ("1M", 2, "the period from 1 Feb 2020 to 29 Feb 2020"),
        ("10 events", 1, "the next 10 events"),
        ("10 events", 4, "events 31 to 40 from then on"),
    ],
)
def test_a_later_period_is_named_by_its_days_or_events(
    events: pd.DataFrame, period: str, horizon: int, text: str
) -> None:
    known = read_table(events, period=period)
    history = known.histories(np.datetime64("2020-01-01", "ms"), [0])[0]
    assert format_period_ahead(history, horizon) == text


def test_a_comparison_has_the_horizons_in_its_table_and_in_its_report(
    few_events: pd.DataFrame,
) -> None:
    whole = read_table(few_events, name="fads", period="7D")
    found = compare(whole, [], horizons=(1, 2))
    ahead = found.table["slice"].str.startswith(HORIZON_SLICE)
    rows = found.table[ahead]
    assert set(rows["slice"]) == {"horizon 1", "horizon 2"}
    assert set(rows["metric"]) == {"log_loss", "log_loss_gain", "coverage80"}
    assert rows["value"].notna().all()
    assert "Further ahead" in render_report(found)
    assert plot_horizons(rows).count("<svg") == 1
    assert plot_horizons(found.table[~ahead]) == ""


def test_horizons_that_a_log_is_too_short_for_have_no_rows(few_events: pd.DataFrame) -> None:
    table = horizon_table(read_table(few_events, period="7D"), "test 2")
    assert "horizon 2" in set(table["slice"])
    assert list(table.columns[:4]) == ["dataset", "split", "slice", "model"]
    assert "horizon 4" not in set(table["slice"])
