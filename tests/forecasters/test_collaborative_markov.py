from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmrec.data.periods import Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, TrainingError
from llmrec.forecasters.collaborative import CategoryMarkov
from llmrec.metrics import log_loss
from tests.forecasters.test_drift import ITEMS, START, town
from tests.worlds import catalog, log, small_world

SWINGING = town(
    **{f"p{number:02d}": ["aaaaa", "bbbbb", "aaaaa", "bbbbb"] for number in range(6)},
    **{f"q{number:02d}": ["bbbbb", "aaaaa", "bbbbb", "aaaaa"] for number in range(6)},
)


def week(number: int) -> list[Window]:
    """Windows of the swinging town whose target is the week of that number."""
    return make_windows(SWINGING, ITEMS, "7D", START + np.timedelta64(7 * number, "D"))


def test_a_transition_is_what_was_taken_after_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.forecasters.collaborative.RECENCY_DECAYS", (0.0,))
    events = town(ann=["ab", "bbb", "a"])
    first = make_windows(events, ITEMS, "7D", START + np.timedelta64(7, "D"))
    second = make_windows(events, ITEMS, "7D", START + np.timedelta64(14, "D"))
    found = CategoryMarkov().fit(first, second).transition
    # Three b after half an a and half a b, and 20 events of the mix (0.5, 3.5) / 4.
    row = np.array([20 * 0.125, 1.5 + 20 * 0.875]) / 21.5
    np.testing.assert_allclose(found, [row, row])


def test_weights_mix_counting_and_what_follows_the_recent_interests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.forecasters.collaborative.RECENCY_DECAYS", (0.5,))
    fitted = replace(CategoryMarkov().fit(week(1), week(2)), share=0.4)
    (history,) = [window.history for window in week(2)][:1]
    recent = np.array([1 / 3, 2 / 3])  # a week of a, which counts half, and then one of b
    counted = fitted.prior.category_weights([history])[0]
    found = fitted.category_weights([history])[0]
    np.testing.assert_allclose(found, 0.6 * counted + 0.4 * recent @ fitted.transition)


def test_people_who_swing_are_forecast_to_swing_back() -> None:
    fitted = CategoryMarkov().fit(week(1), week(2))
    weights = fitted.category_weights([window.history for window in week(3)])
    assert fitted.share > 0.5
    assert (weights[:6, 1] > 0.6).all()
    assert (weights[6:, 0] > 0.6).all()


def test_fitting_never_loses_to_counting_on_the_validation_windows() -> None:
    training, validation = small_world(n_users=30), small_world(n_users=30, seed=1)
    fitted = CategoryMarkov().fit(training, validation)
    histories = [window.history for window in validation]
    targets = np.stack([window.target.category_counts for window in validation])
    losses = [
        log_loss(model.category_weights(histories), targets).mean()
        for model in (fitted, fitted.prior)
    ]
    assert losses[0] <= losses[1] + 1e-12


def test_rows_of_the_transition_sum_to_one_and_hold_categories_nobody_took() -> None:
    never = town(**{f"p{number}": ["aa", "aaa", "aa"] for number in range(4)})
    windows = [
        make_windows(never, ITEMS, "7D", START + np.timedelta64(7 * number, "D"))
        for number in (1, 2)
    ]
    fitted = CategoryMarkov().fit(*windows)
    np.testing.assert_allclose(fitted.transition.sum(axis=1), 1)
    assert (fitted.transition > 0).all()


def test_nothing_follows_a_person_without_an_event_but_the_common_mix() -> None:
    fitted = replace(CategoryMarkov().fit(small_world(), small_world()), share=0.9)
    items, events = catalog(), log(n_users=4)
    empty = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    np.testing.assert_allclose(fitted.category_weights(empty), fitted.prior.category_weights(empty))


def test_it_has_seen_the_training_and_the_validation_windows() -> None:
    fitted = CategoryMarkov().fit(week(1), week(2)).fitted
    assert fitted is not None
    assert [fitted.covers(week(number)[0]) for number in (1, 2, 3)] == [True, True, False]


def test_asking_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        CategoryMarkov().forecast([week(1)[0].history])
    with pytest.raises(DataError, match="no window"):
        CategoryMarkov().fit([], [])
