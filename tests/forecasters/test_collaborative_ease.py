from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, TrainingError
from llmrec.forecasters.collaborative import CategoryEASE, solve_ease
from llmrec.metrics import log_loss
from tests.forecasters.test_drift import START, town
from tests.forecasters.test_neighbours import LETTERS
from tests.worlds import catalog, log, small_world

# Those who were there before took a with c, or b with d. Later people have a or b alone and then
# complete the pair. Nobody takes z.
PAIRS = town(
    **{f"{pair}0{n}": [pair * 4, pair * 4] for pair in ("ac", "bd") for n in range(15)},
    **{
        f"{first}{week}{number}": [*[""] * week, first * 4, second * 4]
        for week in (1, 2)
        for first, second in ("ac", "bd")
        for number in range(6)
    },
)


def at(week: int, events: Interactions = PAIRS) -> list[Window]:
    return make_windows(events, LETTERS, "7D", START + np.timedelta64(7 * week, "D"))


def histories(windows: list[Window]) -> list[History]:
    return [window.history for window in windows]


def test_three_categories_by_hand() -> None:
    # All three once together and each once alone. With the penalty 1 the first column on the two
    # others is [[3, 1], [1, 3]] b = [1, 1], so b = 1/4, and so for the rest.
    x = np.array([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    expected = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 4
    np.testing.assert_allclose(solve_ease(x.T @ x, 1.0), expected, atol=1e-12)


@given(arrays(np.float64, (6, 4), elements=st.integers(-5, 5).map(float)), st.floats(0.1, 1e3))
def test_each_column_is_the_ridge_regression_on_the_others(x: np.ndarray, penalty: float) -> None:
    found = solve_ease(x.T @ x, penalty)
    for column in range(4):
        others = np.delete(np.arange(4), column)
        features = x[:, others]
        ridge = np.linalg.solve(
            features.T @ features + penalty * np.eye(3), features.T @ x[:, column]
        )
        np.testing.assert_allclose(found[others, column], ridge, atol=1e-8)
        assert found[column, column] == 0


@pytest.mark.parametrize("n_taken", [0, 1, 20, 39])
def test_columns_of_zeros_have_no_weights_and_change_no_other(n_taken: int) -> None:
    x = np.random.default_rng(0).poisson(0.5, (200, 40)).astype(float)
    x[:, n_taken:] = 0.0
    expected = np.zeros((40, 40))
    taken = x[:, x.any(axis=0)]
    inverse = np.linalg.inv(taken.T @ taken + 3.0 * np.eye(taken.shape[1]))
    places = np.flatnonzero(x.any(axis=0))
    expected[np.ix_(places, places)] = np.eye(len(places)) - inverse / np.diag(inverse)
    np.testing.assert_allclose(solve_ease(x.T @ x, 3.0), expected, atol=1e-12)


def test_those_who_have_half_of_a_pair_are_forecast_the_other_half() -> None:
    fitted = CategoryEASE().fit(at(1), at(2))
    newcomers = at(3)
    weights = fitted.category_weights(histories(newcomers))
    counted = fitted.prior.category_weights(histories(newcomers))
    taken = [int(np.argmax(window.target.category_counts)) for window in newcomers]
    rows = np.arange(12)
    assert len(newcomers) == 12
    assert set(taken) == {2, 3}
    assert (weights[rows, taken] > 0.8).all()
    assert (counted[rows, taken] < 0.6).all()


def test_weights_mix_counting_and_the_power_of_what_goes_with_the_past() -> None:
    (eve,) = histories(at(1, town(eve=["aab", "c"])))
    item_item = np.zeros((5, 5))
    item_item[0, 1:4], item_item[1, 3] = (0.5, -1.0, 0.2), 0.4
    model = CategoryEASE(power=2.0, share=0.4, item_item=item_item)
    a, b = np.log([3, 2])
    scores = np.array([0, 0.5 * a, 0, 0.2 * a + 0.4 * b, 0]) ** 2  # -a counts as nothing
    counted = model.prior.category_weights([eve])[0]
    expected = 0.6 * counted + 0.4 * scores / scores.sum()
    np.testing.assert_allclose(model.category_weights([eve])[0], expected)


def test_the_fit_solves_on_the_training_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.forecasters.collaborative.PENALTIES", (7.0,))
    x = np.log1p(np.stack([window.history.category_counts.sum(axis=0) for window in at(1)]))
    expected = solve_ease(x.T @ x, 7.0)
    found = CategoryEASE().fit(at(1), at(2)).item_item
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_fitting_never_loses_to_counting_on_the_validation_windows() -> None:
    validation = small_world(n_users=30, seed=1)
    fitted = CategoryEASE().fit(small_world(n_users=30), validation)
    targets = np.stack([window.target.category_counts for window in validation])
    learned, counted = (
        log_loss(model.category_weights(histories(validation)), targets).mean()
        for model in (fitted, fitted.prior)
    )
    assert learned <= counted + 1e-12


def test_a_person_without_an_event_gets_the_weights_of_counting() -> None:
    fitted = replace(CategoryEASE().fit(small_world(), small_world(seed=1)), share=0.9)
    items, events = catalog(), log(n_users=4)
    empty = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    np.testing.assert_allclose(fitted.category_weights(empty), fitted.prior.category_weights(empty))


def test_a_category_that_nobody_took_stays_possible() -> None:
    fitted = CategoryEASE().fit(at(1), at(2))
    np.testing.assert_allclose(fitted.item_item[4], 0, atol=1e-12)
    for forecast in fitted.forecast(histories(at(3))):
        assert 0 < forecast.category_weights[4] < 0.05


def test_it_has_seen_the_training_and_the_validation_windows() -> None:
    fitted = CategoryEASE().fit(at(1), at(2)).fitted
    assert fitted is not None
    assert [fitted.covers(at(week)[0]) for week in (1, 2, 3)] == [True, True, False]


def test_asking_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        CategoryEASE().forecast(histories(at(1)))
    with pytest.raises(DataError, match="no window"):
        CategoryEASE().fit([], [])


def test_the_gram_matrix_is_overwritten_and_not_copied() -> None:
    x = np.random.default_rng(0).normal(size=(9, 4))
    gram = x.T @ x
    inverse = np.linalg.inv(gram + 3.0 * np.eye(4))
    expected = np.where(np.eye(4, dtype=bool), 0.0, -inverse / np.diag(inverse))
    found = solve_ease(gram, 3.0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.shares_memory(found, gram)
