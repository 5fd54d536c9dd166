"""What every forecaster must hold, run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest

from llmrec.data.periods import Window, make_histories
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.holidays import HolidayForecaster, HolidayScorer
from llmrec.forecasters.llm import LLMForecaster
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.pool import LogLinearPool
from llmrec.forecasters.registry import (
    BUILDERS,
    NEURAL_FORECASTERS,
    NEXT_ITEM_MODELS,
    ForecasterRegistry,
)
from llmrec.language.codec import Codec
from tests.forecasters.fakes import FakeModel
from tests.worlds import CATEGORIES, catalog, log, small_world, without_log


def llm(**options: object) -> LLMForecaster:
    model = FakeModel()
    calibration = Calibration(0.3, np.zeros(5), np.zeros(5), n=100, categories=CATEGORIES)
    return LLMForecaster(model, Codec(CATEGORIES), DecayedDirichlet(), calibration, **options)  # type: ignore[arg-type]


def learned(name: str) -> Callable[[], Forecaster]:
    """Fit a forecaster of the family on another small world, quickly."""

    def make() -> Forecaster:
        validation = small_world(n_users=16, n_periods=6, seed=1)
        training = [
            window
            for n_periods in (3, 4, 5)
            for window in small_world(n_users=16, n_periods=n_periods, seed=1)
        ]
        return ForecasterRegistry(training, validation)[name]

    return make


def net(name: str) -> Callable[[], Forecaster]:
    """Fit a net for two epochs."""

    def make() -> Forecaster:
        from llmrec.forecasters.network import NetworkForecaster
        from llmrec.forecasters.network_inputs import TrainingPlan

        network = getattr(import_module("llmrec.forecasters.neural"), name)
        windows = small_world(n_users=16, seed=1)
        forecaster = NetworkForecaster(
            network, training_plan=TrainingPlan(epochs=2, batch_size=8), n_periods=6
        )
        return forecaster.fit(windows, windows)

    return make


def next_item(name: str) -> Callable[[], Forecaster]:
    """Train a next-item net for three steps."""

    def make() -> Forecaster:
        pytest.importorskip("cornac")
        from llmrec.forecasters.sequential import NextItemModel

        windows = small_world(n_users=16, seed=1)
        return NextItemModel(name, steps=3).fit(windows, windows)  # type: ignore[arg-type]

    return make


def season(a: float) -> Callable[[], Forecaster]:
    """Read the calendar, trusted so far."""

    def make() -> Forecaster:
        pytest.importorskip("holidays")
        reader = HolidayScorer(FakeModel(), CATEGORIES, "films")  # type: ignore[arg-type]
        return HolidayForecaster(DecayedDirichlet(), reader, a, decay=0.5)

    return make


SLOW = {
    *NEURAL_FORECASTERS,
    *NEXT_ITEM_MODELS,
    "GatedMixture",
}  # made smaller here, or with experts of their own
FORECASTERS: dict[str, Callable[[], Forecaster]] = {
    "counting, unfitted": DecayedDirichlet,
    "counting, all": lambda: DecayedDirichlet(mix="all"),
    **{name: learned(name) for name in BUILDERS if name not in SLOW},
    **{name: net(name) for name in NEURAL_FORECASTERS},
    **{name: next_item(name) for name in NEXT_ITEM_MODELS},
    "GatedMixture": lambda: GatedMixture(
        {"a": DecayedDirichlet(0.5), "b": DecayedDirichlet(1.0, 5.0)}
    ).fit(small_world(n_users=16, seed=1)),
    "LogLinearPool": lambda: LogLinearPool(
        {"a": DecayedDirichlet(0.5), "b": DecayedDirichlet(1.0, 5.0)}
    ).fit(small_world(n_users=16, seed=1)),
    "SeasonReading": season(0.3),
    "SeasonReading, not trusted": season(0.0),
    "llm, read": llm,
    "llm, generate": lambda: llm(mode="generate", samples=2),
}
every_forecaster = pytest.mark.parametrize("make", FORECASTERS.values(), ids=FORECASTERS.keys())


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    return small_world(n_users=12)


@every_forecaster
def test_weights_are_a_distribution_over_all_categories(
    make: Callable[[], Forecaster], windows: list[Window]
) -> None:
    forecasts = make().forecast([window.history for window in windows])
    assert len(forecasts) == len(windows)
    for forecast in forecasts:
        assert forecast.category_weights.shape == (5,)
        assert forecast.category_weights.dtype == np.float64
        assert (forecast.category_weights > 0).all()
        assert forecast.category_weights.sum() == pytest.approx(1, abs=1e-9)
        assert forecast.concentration > 0
        assert forecast.source.model


@every_forecaster
@pytest.mark.parametrize("period", ["7D", "5 events"])
def test_people_of_whom_the_events_alone_are_given_get_the_same_forecast(
    make: Callable[[], Forecaster], period: str, windows: list[Window]
) -> None:
    first, forecaster = windows[0].history, make()
    histories = make_histories(first.log, first.catalog, period, first.cutoff)
    expected = forecaster.forecast(histories)
    for one, other in zip(forecaster.forecast(without_log(histories)), expected, strict=True):
        assert one.category_weights.tobytes() == other.category_weights.tobytes()
        assert one.concentration == other.concentration
        assert one.source == other.source


@every_forecaster
def test_a_batch_gives_what_single_calls_give_in_any_order(
    make: Callable[[], Forecaster], windows: list[Window]
) -> None:
    histories = [window.history for window in windows]
    forecaster = make()
    batch = forecaster.forecast(histories)
    backwards = forecaster.forecast(histories[::-1])[::-1]
    for history, together, reordered in zip(histories, batch, backwards, strict=True):
        (alone,) = forecaster.forecast([history])
        np.testing.assert_allclose(alone.category_weights, together.category_weights, atol=1e-12)
        np.testing.assert_allclose(
            reordered.category_weights, together.category_weights, atol=1e-12
        )
        assert alone.description == together.description == reordered.description


@every_forecaster
def test_the_same_seed_gives_the_same_bytes(
    make: Callable[[], Forecaster], windows: list[Window]
) -> None:
    histories = [window.history for window in windows]
    once, again = make().forecast(histories), make().forecast(histories)
    for a, b in zip(once, again, strict=True):
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert a.source == b.source


@every_forecaster
def test_no_history_gives_no_forecast(make: Callable[[], Forecaster]) -> None:
    assert make().forecast([]) == []


@every_forecaster
def test_a_user_without_an_event_gets_a_forecast(make: Callable[[], Forecaster]) -> None:
    (window,) = small_world(n_users=1, empty=True)
    (forecast,) = make().forecast([window.history])
    assert forecast.category_weights.sum() == pytest.approx(1)


@every_forecaster
def test_what_happens_after_the_cutoff_changes_nothing(make: Callable[[], Forecaster]) -> None:
    items, events = catalog(), log(n_users=8, n_periods=6)
    cutoff = events.timestamp.min() + np.timedelta64(28, "D")
    short = log(n_users=8, n_periods=6)
    before = short.timestamp < cutoff
    from llmrec.data.periods import truncate_log

    whole = make().forecast(make_histories(events.align_to(items), items, "7D", cutoff))
    assert before.sum() < len(events)
    cut = make().forecast(make_histories(truncate_log(short, cutoff), items, "7D", cutoff))
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a.category_weights, b.category_weights, atol=1e-12)


@every_forecaster
def test_a_category_that_nobody_ever_took_stays_possible(
    make: Callable[[], Forecaster],
) -> None:
    items, events = catalog(), log(n_users=6)
    without_war = events.drop_events({"war": events.item_idx % 5 == 4}).align_to(items)
    for forecast in make().forecast(make_histories(without_war, items, "7D")):
        assert (forecast.category_weights > 0).all()


@every_forecaster
def test_periods_counted_in_events_work_too(make: Callable[[], Forecaster]) -> None:
    items = catalog()
    histories = make_histories(log(n_users=4), items, "10 events")
    for forecast in make().forecast(histories):
        assert forecast.category_weights.sum() == pytest.approx(1)
