from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.data.catalog import Catalog
from llmrec.data.counts import events_per_share, target_counts, target_events
from llmrec.data.periods import Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.evaluation.evaluator import coverages
from llmrec.forecasters.dispersion import (
    DEFAULT_DISPERSION,
    Dispersion,
    EventDispersion,
    fit_dispersion,
    is_possible_spread,
    largest_columns,
    read_spread,
)
from tests.forecasters.known_world import known_world
from tests.worlds import catalog, log, small_world


def test_the_concentration_that_events_were_drawn_with_is_found_again() -> None:
    windows, weights = known_world(1_000)
    found = fit_dispersion(windows, weights).concentration([one.history for one in windows])
    assert np.median(found) == pytest.approx(20, rel=0.15)


def test_intervals_cover_as_much_of_long_histories_as_of_short_ones() -> None:
    windows, weights = known_world(900, concentration=lambda n: 2.0 + n / 3)
    spread = fit_dispersion(windows, weights)
    later, truth = known_world(900, concentration=lambda n: 2.0 + n / 3, seed=1)
    histories = [one.history for one in later]
    covered = coverages(truth, spread.concentration(histories), later)["coverage80"]
    by_length = np.argsort([history.n_events for history in histories])
    for third in np.array_split(covered[by_length], 3):
        assert third.mean() == pytest.approx(0.8, abs=0.02)


def test_a_longer_history_than_any_of_the_fit_is_as_sure_as_the_longest() -> None:
    windows, weights = known_world(200, concentration=lambda n: 2.0 + n / 3)
    spread = fit_dispersion(windows, weights)
    longest = max(windows, key=lambda one: one.history.n_events).history
    (longer,) = make_histories(log(1, n_periods=300), catalog(), "7D")
    assert longer.n_events > longest.n_events
    for slope in ("per_period", "per_period_squared"):
        assert isinstance(spread, EventDispersion)
        spread = spread._replace(**{slope: 0.0})
    np.testing.assert_array_equal(spread.concentration([longer]), spread.concentration([longest]))


def test_what_is_the_same_for_everybody_has_no_part_in_the_fit() -> None:
    items = catalog()
    windows = make_windows(log(40), items, "6 events")
    spread = fit_dispersion(windows, np.full((len(windows), 5), 0.2))
    assert isinstance(spread, EventDispersion)
    assert (spread.per_period, spread.per_period_squared) == (0, 0)


@pytest.mark.parametrize("n_users", [1, 3])
def test_few_people_share_a_finite_concentration(n_users: int) -> None:
    windows = small_world(n_users)
    spread = fit_dispersion(windows, np.full((len(windows), 5), 0.2))
    found = spread.concentration([one.history for one in windows])
    assert np.isfinite(found).all()
    assert len(set(found)) == 1


def test_without_events_in_any_target_the_dispersion_is_the_default() -> None:
    items, events = catalog(), log(5).align_to(catalog())
    end = events.timestamp.max() + np.timedelta64(7, "D")
    windows = make_windows(events, items, "7D", end, min_target_events=0)
    assert windows
    assert fit_dispersion(windows, np.full((5, 5), 0.2)) == DEFAULT_DISPERSION


def test_a_log_of_one_category_has_a_finite_concentration() -> None:
    windows, weights = known_world(40, n_categories=1)
    found = fit_dispersion(windows, weights).concentration([one.history for one in windows])
    assert (found > 0).all()
    assert np.isfinite(found).all()


def test_a_batch_has_the_concentrations_of_single_histories() -> None:
    windows, weights = known_world(60)
    spread = fit_dispersion(windows, weights)
    histories = [one.history for one in windows]
    alone = np.concatenate([spread.concentration([history]) for history in histories])
    np.testing.assert_array_equal(spread.concentration(histories), alone)


@given(st.floats(0, 1), st.floats(0, 10))
def test_two_numbers_of_older_versions_are_the_dispersion_they_were(
    latent: float, sampling: float
) -> None:
    found = read_spread([latent, sampling])
    assert found == Dispersion(latent, sampling)
    histories = [one.history for one in small_world(3)]
    n = np.array([np.diff(h.offsets)[np.diff(h.offsets) > 0].mean() for h in histories])
    expected = 1 / np.clip(latent + sampling / n, 1e-6, 2 / 3) - 1
    np.testing.assert_array_equal(found.concentration(histories), expected)


@given(st.lists(st.floats(-9, 9), min_size=11, max_size=11))
def test_eleven_numbers_are_read_to_the_bit(values: list[float]) -> None:
    found = read_spread(values)
    assert isinstance(found, EventDispersion)
    assert list(found) == values
    assert is_possible_spread(found)


def test_other_numbers_are_no_spread() -> None:
    assert not is_possible_spread(Dispersion(-0.1))
    assert not is_possible_spread(read_spread([np.nan] * 11))
    with pytest.raises(TypeError):
        read_spread([0.1, 0.2, 0.3])


def test_few_events_make_a_forecast_less_sure() -> None:
    items, events = catalog(), log(n_users=1)
    (few,) = make_histories(events, items, "2 events")
    (many,) = make_histories(events, items, "20 events")
    less, more = Dispersion(0.01, 0.9).concentration([few, many])
    assert less < more


def several_categories() -> list[Window]:
    """Windows of items that are of one category, of two or of none."""
    items = Catalog.from_frame(
        pd.DataFrame(
            {
                "item_id": [f"i{item:03d}" for item in range(25)],
                "title": [f"Title {item}" for item in range(25)],
                "categories": [[["A"], ["A", "B"], []][item % 3] for item in range(25)],
            }
        )
    )
    events = log(8).align_to(items)
    return make_windows(events, items, "7D")


def test_an_event_of_two_categories_counts_for_each() -> None:
    windows = several_categories()
    events, counts = target_events(windows), target_counts(windows)
    per_share = events_per_share([one.history for one in windows])
    taken = np.concatenate([one.target.item_idx for one in windows])
    assert events[:, 1].sum() == (taken % 3 == 1).sum()
    np.testing.assert_allclose(events[:, 1], 2 * counts[:, 1])
    assert per_share[1] > per_share[0]


def test_where_items_have_one_category_events_are_its_counts() -> None:
    windows = small_world(6)
    np.testing.assert_array_equal(target_events(windows), target_counts(windows))
    np.testing.assert_array_equal(events_per_share([one.history for one in windows]), np.ones(5))


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 30)),
        elements=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ),
    st.integers(1, 12),
)
def test_the_largest_columns_are_those_of_a_whole_sort(values: np.ndarray, k: int) -> None:
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(largest_columns(values, k), expected)


def test_weights_that_are_made_in_blocks_give_the_same_dispersion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows, weights = known_world(60)
    place = {id(window.history): row for row, window in enumerate(windows)}
    whole = fit_dispersion(windows, weights)
    monkeypatch.setattr("llmrec.forecasters.target_cells.CELLS_PER_BLOCK", 7 * weights.shape[1])
    assert fit_dispersion(windows, weights) == whole
    assert fit_dispersion(windows, lambda some: weights[[place[id(h)] for h in some]]) == whole
