"""Predictions are found again by what identifies a history, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec.data.history_keys import HistoryKey, history_key
from llmrec.data.periods import make_histories, truncate_log
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.audits import truncate_histories
from llmrec.forecast import Source
from llmrec.forecasters.calibration import Dispersion, make_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.precomputed import (
    HeldOutPredictions,
    PrecomputedForecaster,
    load_rows,
    save_rows,
)
from tests.worlds import START, catalog, log, small_world

ITEMS = catalog()
LOG = log(n_users=6).align_to(ITEMS)
WEEK = np.timedelta64(7, "D")


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_a_history_has_the_same_key_in_a_longer_log_and_when_it_is_shortened(period: str) -> None:
    cutoff = START + 3 * WEEK
    longer = make_histories(LOG, ITEMS, period, cutoff)
    shorter = make_histories(truncate_log(LOG, cutoff), ITEMS, period, cutoff)
    keys = {history.user_id: history_key(history) for history in longer}
    assert all(history_key(history) == keys[history.user_id] for history in shorter)
    windows = make_windows(LOG, ITEMS, period, cutoff)
    for window, cut in zip(windows, truncate_histories(windows, 2), strict=True):
        assert history_key(cut.history) == history_key(window.history)


def test_histories_of_other_people_times_or_events_have_other_keys() -> None:
    histories = [
        history
        for weeks in (2, 3)
        for history in make_histories(LOG, ITEMS, "7D", START + weeks * WEEK)
    ]
    assert len({history_key(history) for history in histories}) == len(histories) == 12


def test_a_precomputed_forecaster_gives_the_same_forecasts_in_any_order() -> None:
    histories = [window.history for window in small_world(n_users=9)]
    counting = DecayedDirichlet()
    expected = counting.forecast(histories)
    keys = map(history_key, histories)
    stored = PrecomputedForecaster("stored", dict(zip(keys, expected, strict=True)))
    for found, forecast in zip(stored.forecast(histories[::-1]), expected[::-1], strict=True):
        assert found.category_weights.tobytes() == forecast.category_weights.tobytes()
        assert found.source == forecast.source
    assert stored.forecast([]) == []
    (other,) = small_world(n_users=1, n_periods=4)
    with pytest.raises(DataError, match="no forecast of 'u000' was stored"):
        stored.forecast([other.history])


def test_saved_forecasts_come_back_to_the_byte(tmp_path: Path) -> None:
    histories = [window.history for window in small_world(n_users=9)]
    weights = np.random.default_rng(0).dirichlet(np.ones(5), size=9)
    made = PrecomputedForecaster.of("one", histories, weights, Dispersion(0.1, 0.2), "counting")
    made.save(tmp_path / "one.parquet")
    again = PrecomputedForecaster.load(tmp_path / "one.parquet")
    for found, forecast in zip(again.forecast(histories), made.forecast(histories), strict=True):
        assert found.category_weights.tobytes() == forecast.category_weights.tobytes()
        assert found.concentration == forecast.concentration
        assert found.source == forecast.source
    assert again.name == "one"


def test_forecasts_of_several_origins_are_not_saved(tmp_path: Path) -> None:
    histories = [window.history for window in small_world(n_users=2)]
    counted = DecayedDirichlet().forecast(histories)
    (read,) = make_forecasts(Source("x", "llm"), histories[:1], np.full((1, 5), 0.2), Dispersion())
    keys = [history_key(history) for history in histories]
    both = PrecomputedForecaster("both", dict(zip(keys, [read, counted[1]], strict=True)))
    with pytest.raises(DataError, match="of one origin"):
        both.save(tmp_path / "both.parquet")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_and_the_values_beside_them_survive_their_file(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    rows = {
        HistoryKey(user, n, np.datetime64("2020-01-01T10", "ms")): rng.normal(size=7).astype(dtype)
        for user, n in (("7", 3), ("7", 4), ("ünal", 3))
    }
    save_rows(tmp_path / "rows.parquet", rows, {"seconds": 1.5})
    found, values = load_rows(tmp_path / "rows.parquet")
    assert values == {"seconds": 1.5}
    assert list(found) == list(rows)
    for key, row in rows.items():
        assert found[key].dtype == dtype
        np.testing.assert_array_equal(found[key], row)


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("nothing")
    with pytest.raises(DataError, match="holds no precomputed rows"):
        load_rows(tmp_path / "rows.parquet")


def test_held_out_weights_are_found_by_window_and_keep_their_order() -> None:
    windows = small_world(n_users=5)
    weights = np.random.default_rng(0).dirichlet(np.ones(5), size=5)
    held_out = HeldOutPredictions.of(windows, weights)
    np.testing.assert_array_equal(held_out.weights, weights)
    np.testing.assert_array_equal(held_out.lookup(windows[::-2]), weights[::-2])
