from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, TrainingError
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.neighbours import NeighbouringUsers, _neighbours, _newest
from tests.forecasters.test_drift import START, town
from tests.worlds import catalog, log, small_world

LETTERS = Catalog.from_frame(
    pd.DataFrame({"item_id": list("abcdz"), "categories": [[f"kind {c}"] for c in "abcdz"]})
)
# People come three weeks in turn. After a they take c, after b they take d, and never both: what
# a person takes next is in nobody's own past and, half of the town being like this and half like
# that, not in what everybody takes either. Nobody ever takes z.
COHORTS = town(
    **{
        f"{who}{week}{number}": [*[""] * week, who * 4, {"a": "c", "b": "d"}[who] * 4]
        for week in (0, 1, 2)
        for who in "ab"
        for number in range(6)
    }
)


def at(week: int, events: Interactions = COHORTS) -> list[Window]:
    return make_windows(events, LETTERS, "7D", START + np.timedelta64(7 * week, "D"))


def rows(of: list[int]) -> sparse.csr_array:
    return sparse.csr_array(np.eye(5, dtype=np.float32)[of])


def histories(windows: list[Window]) -> list:
    return [window.history for window in windows]


def test_what_a_person_takes_next_is_what_similar_others_took() -> None:
    fitted = NeighbouringUsers().fit(at(1), at(2))
    newcomers = at(3)
    weights = fitted.category_weights(histories(newcomers))
    counted = fitted.prior.category_weights(histories(newcomers))
    taken = [np.argmax(window.target.category_counts) for window in newcomers]
    assert len(newcomers) == 12
    assert set(taken) == {2, 3}
    rows = np.arange(12)
    assert (weights[rows, taken] > 0.8).all()
    assert (counted[rows, taken] < 0.6).all()


def test_others_weigh_by_the_softmax_of_their_likeness() -> None:
    events = town(ann=["a", "c"], bob=["b", "d"], eve=["aaab", "z"])
    fitted = NeighbouringUsers(sharpness=2.0, share=0.6).fit(at(1, events), at(1, events))
    known = replace(fitted, sharpness=2.0, share=0.6, neighbour_interests=rows([0, 1]))
    known = replace(known, neighbour_next_shares=rows([2, 3]))  # a is followed by c and b by d
    (eve,) = [w.history for w in at(1, events) if w.history.user_id == "eve"]
    c, d = np.exp(2 * np.sqrt([0.75, 0.25]))
    counted = fitted.prior.category_weights([eve])[0]
    expected = 0.4 * counted + 0.6 * np.array([0, 0, c, d, 0]) / (c + d)
    np.testing.assert_allclose(known.category_weights([eve])[0], expected)


def test_held_out_weights_know_nothing_of_the_validation_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llmrec.forecasters.neighbours.SHARPNESSES", (40.0,))
    monkeypatch.setattr("llmrec.forecasters.calibration.INTERPOLATION_WEIGHTS", (0.5,))
    training, validation = small_world(n_users=10), small_world(n_users=10, seed=1)
    prior = GlobalDrift().fit(validation)
    few, everybody = (
        NeighbouringUsers(prior).fit(training, windows) for windows in (validation[:4], validation)
    )
    assert few.held_out is not None
    assert everybody.held_out is not None
    np.testing.assert_allclose(few.held_out.weights, everybody.held_out.weights[:4], atol=1e-12)
    others = {
        "neighbour_interests": everybody.neighbour_interests[:10],
        "neighbour_next_shares": everybody.neighbour_next_shares[:10],
    }
    of_training = replace(everybody, **others).category_weights(histories(validation))  # type: ignore[arg-type]
    np.testing.assert_allclose(everybody.held_out.weights, of_training, atol=1e-12)
    # What is forecast after the fit knows the person's own window, and so much more.
    asked = everybody.category_weights(histories(validation))
    targets = np.stack([window.target.category_counts for window in validation])
    assert (np.log(asked / everybody.held_out.weights) * targets).sum() > 1
    assert everybody.neighbour_interests.shape == everybody.neighbour_next_shares.shape == (20, 5)


def test_batches_change_nothing_that_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = NeighbouringUsers().fit(at(1), at(2))
    monkeypatch.setattr("llmrec.forecasters.neighbours.HISTORIES_PER_BATCH", 5)
    sliced = NeighbouringUsers().fit(at(1), at(2))
    asked = histories(at(3))
    np.testing.assert_allclose(
        sliced.category_weights(asked), whole.category_weights(asked), atol=1e-12
    )


@pytest.mark.parametrize("n", [1, 3, 6, 8, 9, 100])
def test_everybodys_newest_windows_are_stored_first(n: int) -> None:
    events = town(ann=["a"] * 6, bob=["b"] * 3 + [""] * 3, eve=["", "", "", "c", "c", "c"])
    windows = [window for week in (3, 1, 4, 2, 5) for window in at(week, events)]
    stored = _newest(windows, n)
    assert list(stored) == sorted(set(stored))
    assert len(stored) == min(n, len(windows))
    left = set(range(len(windows))) - set(stored)

    def place(position: int) -> tuple[int, float]:
        """Newer windows of the same person, then time."""
        one = windows[position].history
        newer = sum(
            w.history.cutoff > one.cutoff for w in windows if w.history.user_id == one.user_id
        )
        return newer, -float(one.cutoff.astype(np.int64))

    assert not left or max(map(place, stored)) <= min(map(place, left))


def test_more_windows_than_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmrec.forecasters.neighbours.MAX_NEIGHBOURS", 15)
    fitted = NeighbouringUsers().fit(at(1), at(2))
    assert fitted.neighbour_interests.shape == (15, 5)
    validation = _neighbours(at(2))
    assert len(at(2)) == 12
    for some, of_validation in zip(
        (fitted.neighbour_interests, fitted.neighbour_next_shares), validation, strict=True
    ):
        assert (some.toarray()[-12:] == of_validation.toarray()).all()


def test_a_person_without_an_event_gets_the_weights_of_counting() -> None:
    fitted = replace(NeighbouringUsers().fit(small_world(), small_world(seed=1)), share=0.9)
    items, events = catalog(), log(n_users=4)
    empty = make_histories(events.align_to(items), items, "7D", events.timestamp.min(), [0])
    np.testing.assert_allclose(fitted.category_weights(empty), fitted.prior.category_weights(empty))


def test_a_category_that_nobody_took_stays_possible() -> None:
    for forecast in NeighbouringUsers().fit(at(1), at(2)).forecast(histories(at(3))):
        assert (forecast.category_weights > 0).all()
        assert forecast.category_weights[4] < 0.05


def test_it_has_seen_the_training_and_the_validation_windows() -> None:
    fitted = NeighbouringUsers().fit(at(1), at(2)).fitted
    assert fitted is not None
    assert [fitted.covers(at(week)[0]) for week in (1, 2, 3)] == [True, True, False]


def test_asking_before_fitting_and_fitting_on_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="fit it"):
        NeighbouringUsers().forecast(histories(at(1)))
    with pytest.raises(DataError, match="no window"):
        NeighbouringUsers().fit([], [])
