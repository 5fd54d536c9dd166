"""The synthetic world: its best forecast is exact, and nobody beats it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from llmrec.data.calendar import period_boundaries
from llmrec.data.periods import History, Window, make_histories, truncate_log
from llmrec.data.splits import split_windows
from llmrec.data.synthetic import (
    CATEGORIES,
    DRIFT_PATTERNS,
    FIRST_TIME,
    JUMP_PROBABILITY,
    PERIOD,
    DriftPattern,
    SyntheticWorld,
    make_synthetic_world,
)
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.references import OracleForecaster
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.metrics import log_loss
from llmrec.types import FloatArray

every_pattern = pytest.mark.parametrize("pattern", DRIFT_PATTERNS)


@cache
def world_of(*patterns: DriftPattern, n_users: int = 200, events: float = 20) -> SyntheticWorld:
    return make_synthetic_world(n_users, 12, events, patterns, seed=3)


def histories_at(world: SyntheticWorld, period: int) -> list[History]:
    log, catalog = world.dataset.log, world.dataset.catalog
    return make_histories(log, catalog, "28D", PERIOD.shift(FIRST_TIME, period))


def weights_of(forecaster: Forecaster, histories: list[History]) -> FloatArray:
    return np.stack([forecast.category_weights for forecast in forecaster.forecast(histories)])


def targets_of(windows: list[Window]) -> FloatArray:
    return np.stack([window.target.category_counts for window in windows])


def losses(forecaster: Forecaster, windows: list[Window]) -> FloatArray:
    weights = weights_of(forecaster, [window.history for window in windows])
    return log_loss(weights, targets_of(windows))


def persistence_lag(world: SyntheticWorld) -> tuple[float, float]:
    """Mean loss of persistence above the optimum, and its standard error."""
    split = split_windows(world.dataset)
    persistence = DecayedDirichlet().fit(split["validation"], (1.0,))
    windows = split["test 1"] + split["test 2"]
    lag = losses(persistence, windows) - losses(OracleForecaster(world), windows)
    return float(lag.mean()), float(lag.std() / np.sqrt(len(lag)))


def test_the_forecast_is_what_the_states_lead_to_after_ones_own_counts() -> None:
    world = make_synthetic_world(8, 4, 4, seed=5)
    histories = histories_at(world, 3)
    counts = np.stack([history.category_counts for history in histories])
    expected = world.hmm.posterior(counts) @ world.hmm.all_state_mixes(3)
    np.testing.assert_allclose(
        weights_of(OracleForecaster(world), histories), expected, rtol=0, atol=1e-12
    )


@every_pattern
def test_counting_never_beats_the_optimum(pattern: DriftPattern) -> None:
    world = world_of(pattern)
    split = split_windows(world.dataset)
    counting = DecayedDirichlet().fit(split["validation"])
    for name in ("test 1", "test 2"):
        behind = losses(counting, split[name]) - losses(OracleForecaster(world), split[name])
        assert behind.mean() > -2 * behind.std() / np.sqrt(len(behind))


def test_not_knowing_how_people_move_the_optimum_still_wins() -> None:
    world = world_of(*DRIFT_PATTERNS)
    split = split_windows(world.dataset)
    counting = DecayedDirichlet().fit(split["validation"])
    windows = split["test 1"] + split["test 2"]
    behind = losses(counting, windows) - losses(OracleForecaster(world), windows)
    assert behind.mean() > 5 * behind.std() / np.sqrt(len(behind))


def test_where_nothing_drifts_persistence_nears_the_optimum_as_events_grow() -> None:
    few, some, many = (persistence_lag(world_of("stable", events=n))[0] for n in (5, 20, 80))
    assert few > 2 * some > 4 * many > 0
    assert some < 0.05


@pytest.mark.parametrize("pattern", ["drifting", "abrupt", "seasonal"])
def test_where_interests_move_persistence_is_far_from_the_optimum(pattern: DriftPattern) -> None:
    lag, error = persistence_lag(world_of(pattern))
    assert lag > 0.15
    assert lag > 5 * error


@every_pattern
def test_the_forecast_is_on_average_what_happens(pattern: DriftPattern) -> None:
    world = world_of(pattern, n_users=600)
    windows = make_windows(world.dataset.log, world.dataset.catalog, "28D")
    targets = targets_of(windows)
    weights = weights_of(OracleForecaster(world), [window.history for window in windows])
    surprise = targets / targets.sum(axis=1, keepdims=True) - weights
    for sure in (weights < 0.1, (weights >= 0.1) & (weights < 0.3), weights >= 0.3):
        # People are independent, a person's categories are not: so the error is over people.
        by_person = (surprise * sure).sum(axis=1)
        assert abs(by_person.mean()) < 4 * by_person.std() / np.sqrt(len(by_person))


def test_concentrations_have_the_variance_that_is_found() -> None:
    world = world_of(*DRIFT_PATTERNS, n_users=600)
    windows = make_windows(world.dataset.log, world.dataset.catalog, "28D")
    forecasts = OracleForecaster(world).forecast([window.history for window in windows])
    concentration = np.array([forecast.concentration for forecast in forecasts])
    weights = np.stack([forecast.category_weights for forecast in forecasts])
    targets = targets_of(windows)
    shares = targets / targets.sum(axis=1, keepdims=True)
    found = ((shares - weights) ** 2).sum(axis=1)
    drawn = 1 / targets.sum(axis=1)  # the part of the variance that few events add
    promised = (1 - (weights**2).sum(axis=1)) * (drawn + (1 - drawn) / (concentration + 1))
    error = (found - promised).std() / np.sqrt(len(found))
    assert abs((found - promised).mean()) < 4 * error


def test_period_boundaries_are_the_generators() -> None:
    world = make_synthetic_world(3, 5, 2)
    grid = period_boundaries(world.dataset.log, world.dataset.period)
    assert grid.tolist() == [PERIOD.shift(FIRST_TIME, period).item() for period in range(6)]
    histories = histories_at(world, 5)
    assert all((np.diff(history.offsets) > 0).all() for history in histories)
    assert not world.dataset.log.report.dropped


def test_people_have_the_given_patterns_in_equal_numbers() -> None:
    world = make_synthetic_world(40, 3, 2)
    assert len(world.patterns) == world.dataset.log.n_users == 40
    assert all((world.patterns == pattern).sum() == 10 for pattern in DRIFT_PATTERNS)
    assert set(make_synthetic_world(5, 3, 2, ("abrupt",)).patterns) == {"abrupt"}


def test_peoples_events_follow_their_pattern() -> None:
    world = world_of(*DRIFT_PATTERNS)
    counts = np.stack([history.category_counts for history in histories_at(world, 12)])
    sizes = [len(world.hmm.state_mixes(pattern, 0)) for pattern in DRIFT_PATTERNS]
    starts = np.cumsum([0, *sizes[:-1]])
    posterior = np.add.reduceat(world.hmm.posterior(counts), starts, axis=1)
    own = (posterior * (world.patterns[:, None] == np.array(DRIFT_PATTERNS))).sum(axis=1)
    # A calibrated probability b holds the truth with probability b: on average that is sum b^2.
    surprise = own - (posterior**2).sum(axis=1)
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))
    assert own.mean() > 0.8


def test_abrupt_people_change_as_often_as_the_optimum_expects() -> None:
    mixes = world_of("abrupt").hmm.sample_paths("abrupt", 4_000, np.random.default_rng(0))
    changes = (mixes[:, 1:] != mixes[:, :-1]).any(axis=2)
    assert abs(changes.mean() - JUMP_PROBABILITY) < 4 * np.sqrt(
        JUMP_PROBABILITY * (1 - JUMP_PROBABILITY) / changes.size
    )


def test_the_catalog_can_be_read() -> None:
    catalog = make_synthetic_world(1, 1, 1).dataset.catalog
    assert catalog.categories == CATEGORIES
    assert len(set(catalog.titles)) == catalog.n_items
    assert catalog.titles[catalog.item_index("cof00")] == "Dark Roast"
    assert catalog.categories_of(catalog.item_index("cof00")) == ("Coffee",)


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    one, same, other = (make_synthetic_world(20, 4, 5, seed=seed) for seed in (1, 1, 2))
    assert one.dataset.log.fingerprint == same.dataset.log.fingerprint
    assert one.dataset.log.fingerprint != other.dataset.log.fingerprint
    assert one.patterns.tolist() == same.patterns.tolist()
    histories = (histories_at(world, 3) for world in (one, same))
    once, again = (weights_of(OracleForecaster(one), found) for found in histories)
    assert once.tobytes() == again.tobytes()


def test_what_happens_after_the_cutoff_changes_nothing() -> None:
    world = world_of(*DRIFT_PATTERNS)
    whole = histories_at(world, 6)
    cutoff = whole[0].cutoff
    before = truncate_log(world.dataset.log, cutoff)
    cut = make_histories(before, world.dataset.catalog, "28D", cutoff)
    np.testing.assert_allclose(
        weights_of(OracleForecaster(world), whole),
        weights_of(OracleForecaster(world), cut),
        atol=1e-12,
    )


def test_a_batch_of_several_cutoffs_gives_what_single_calls_give() -> None:
    world = world_of(*DRIFT_PATTERNS)
    batch = [*histories_at(world, 7)[:3], *histories_at(world, 0)[:2], *histories_at(world, 12)[:3]]
    together = OracleForecaster(world).forecast(batch)
    for history, forecast in zip(batch, together, strict=True):
        (alone,) = OracleForecaster(world).forecast([history])
        np.testing.assert_allclose(alone.category_weights, forecast.category_weights, atol=1e-12)
        assert alone.concentration == pytest.approx(forecast.concentration)
        assert alone.source == forecast.source
    assert OracleForecaster(world).forecast([]) == []


@pytest.mark.parametrize("period", [0, 6])
def test_a_user_without_events_gets_the_prior_mean(period: int) -> None:
    world = world_of(*DRIFT_PATTERNS)
    history = histories_at(world, period)[0]
    empty = replace(history, offsets=np.full_like(history.offsets, history.offsets[0]))
    prior = world.hmm.prototypes.mean(axis=0)
    np.testing.assert_allclose(weights_of(OracleForecaster(world), [empty])[0], prior, atol=1e-12)


@pytest.mark.parametrize("period", ["14D", "10 events"])
def test_other_periods_than_the_worlds_are_refused(period: str) -> None:
    world = make_synthetic_world(3, 4, 5)
    log, catalog = world.dataset.log, world.dataset.catalog
    histories = make_histories(log, catalog, period, PERIOD.shift(FIRST_TIME, 2))
    with pytest.raises(DataError, match=r"Cut at one of period_boundaries\(log, '28D'\)"):
        OracleForecaster(world).forecast(histories)
    aside = PERIOD.shift(FIRST_TIME, 2) + np.timedelta64(1, "D")
    with pytest.raises(DataError, match="is cut at 2020-02-27"):
        OracleForecaster(world).forecast(make_histories(log, catalog, "28D", aside))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_users": 0}, "n_users=0"),
        ({"events_per_period": 0}, "events_per_period=0"),
        ({"patterns": ("fickle",)}, "fickle"),
        ({"patterns": ("stable", "stable")}, "each once"),
    ],
)
def test_worlds_that_cannot_be_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        make_synthetic_world(**wrong)  # type: ignore[arg-type]
