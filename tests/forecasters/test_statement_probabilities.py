from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmrec.data.counts import target_counts
from llmrec.data.periods import Window, make_histories
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, ModelLoadError
from llmrec.forecast import STATEMENT_KINDS
from llmrec.forecasters.past_counts import PastCounts
from llmrec.forecasters.statement_outcomes import statement_outcomes, where_applicable
from llmrec.forecasters.statement_probabilities import (
    COMPARED_KINDS,
    MAX_OF_KIND,
    MAX_STATEMENTS,
    StatementProbabilities,
)
from llmrec.types import FloatArray
from tests.forecasters.known_world import known_world
from tests.worlds import catalog, log, small_world

WINDOWS, WEIGHTS = known_world(500, with_empty=True)
HISTORIES = [window.history for window in WINDOWS]
MODEL = StatementProbabilities.fit(WINDOWS, WEIGHTS)
each_kind = pytest.mark.parametrize("kind", STATEMENT_KINDS)


def same(one: StatementProbabilities, other: StatementProbabilities) -> bool:
    found, expected = (model.probabilities(HISTORIES[:50], WEIGHTS[:50]) for model in (one, other))
    return all(found[kind].tobytes() == expected[kind].tobytes() for kind in STATEMENT_KINDS)


@each_kind
def test_probabilities_lie_between_0_and_1_where_a_statement_can_be_said(kind: str) -> None:
    found = MODEL.probabilities(HISTORIES, WEIGHTS)[kind]  # type: ignore[index]
    applicable = where_applicable(PastCounts.of(HISTORIES))[kind]  # type: ignore[index]
    np.testing.assert_array_equal(np.isnan(found), ~applicable)
    assert ((found[applicable] > 0) & (found[applicable] < 1)).all()


@each_kind
def test_statements_come_true_as_often_as_they_say_in_a_log_not_fitted_on(kind: str) -> None:
    windows, weights = known_world(500, with_empty=True, seed=1)
    histories = [window.history for window in windows]
    found = MODEL.probabilities(histories, weights)[kind]  # type: ignore[index]
    past = PastCounts.of(histories)
    true = statement_outcomes(past, target_counts(windows))[kind]  # type: ignore[index]
    known = ~np.isnan(found)
    said, held = found[known], true[known]
    for part in np.array_split(np.argsort(said), 5):
        assert said[part].mean() == pytest.approx(held[part].mean(), abs=0.06)


def test_again_new_and_returning_part_the_categories_between_them() -> None:
    masks = where_applicable(PastCounts.of(HISTORIES))
    n = masks["again"].astype(int) + masks["new"] + masks["returning"]
    assert (n == 1).all()


def test_nothing_of_a_category_is_what_again_is_not() -> None:
    windows = [window for window in WINDOWS if window.target.n_events]
    past = PastCounts.of([window.history for window in windows])
    outcomes = statement_outcomes(past, target_counts(windows))
    np.testing.assert_array_equal(outcomes["again"], ~outcomes["nothing of"])
    assert not (outcomes["rising"] & outcomes["fading"]).any()


def test_of_a_period_without_events_only_nothing_of_is_true() -> None:
    outcomes = statement_outcomes(PastCounts.of(HISTORIES[:3]), np.zeros((3, 12)))
    assert outcomes.pop("nothing of").all()
    assert not any(found.any() for found in outcomes.values())


def test_a_larger_share_makes_again_likelier_and_nothing_of_less_likely() -> None:
    more = 0.5 * WEIGHTS
    more[:, 0] += 0.5
    less_found, found = (MODEL.probabilities(HISTORIES, q) for q in (WEIGHTS, more))
    for kind, sign in (("again", 1), ("rising", 1), ("fading", -1), ("nothing of", -1)):
        change = sign * (found[kind] - less_found[kind])[:, 0]  # type: ignore[index]
        assert change[~np.isnan(change)].mean() > 0


def test_a_batch_gives_what_single_calls_give() -> None:
    rows = range(0, 60)
    batch = MODEL.choose_statements([HISTORIES[r] for r in rows], WEIGHTS[:60])
    alone = [MODEL.choose_statements([HISTORIES[r]], WEIGHTS[r : r + 1])[0] for r in rows]
    assert batch == alone
    found = MODEL.probabilities(HISTORIES[:60], WEIGHTS[:60])
    for statement in batch[7]:
        alone_found = MODEL.probabilities([HISTORIES[7]], WEIGHTS[7:8])[statement.kind]
        one = alone_found[0, statement.category]
        assert one == statement.probability == found[statement.kind][7, statement.category]


def test_what_is_said_is_little_and_tells_more_than_the_usual_rate() -> None:
    said = MODEL.choose_statements(HISTORIES, WEIGHTS)
    assert sum(map(len, said)) > len(said)
    for statements in said:
        kinds = [one.kind for one in statements]
        assert len(statements) <= MAX_STATEMENTS
        assert len({one.category for one in statements}) == len(statements)
        assert all(kinds.count(kind) <= MAX_OF_KIND for kind in kinds)
        assert all(one.probability > one.usual_rate for one in statements)
        assert sum(one.probability < 0.6 for one in statements) <= 1


def test_stored_probabilities_are_the_same_to_the_bit(tmp_path: Path) -> None:
    MODEL.stored().save(tmp_path)
    loaded = StatementProbabilities.from_stored(Stored.load(tmp_path), MODEL.categories)
    assert same(loaded, MODEL)
    assert loaded.report == MODEL.report


def test_other_categories_than_those_of_the_fit_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="12 other categories"):
        StatementProbabilities.from_stored(MODEL.stored(), ["a", "b"])
    with pytest.raises(DataError, match="other categories"):
        MODEL.probabilities([small_world(1)[0].history], np.full((1, 5), 0.2))


@pytest.mark.parametrize("part", ["events", "dispersion", "again"])
def test_a_part_that_is_missing_or_of_another_kind_is_refused(part: str) -> None:
    stored = MODEL.stored()
    missing = {name: one for name, one in stored.parts.items() if name != part}
    other = dict(stored.parts) | {part: Stored("Other")}
    for parts in (missing, other):
        with pytest.raises(ModelLoadError):
            StatementProbabilities.from_stored(replace(stored, parts=parts), MODEL.categories)


@pytest.mark.parametrize("array", ["coefficients", "scaling"])
def test_an_array_of_another_shape_is_refused(array: str) -> None:
    stored = MODEL.stored()
    again = stored.parts["again"]
    arrays = dict(again.arrays) | {f"predictor.{array}": np.zeros((1, 1))}
    parts = dict(stored.parts) | {"again": replace(again, arrays=arrays)}
    with pytest.raises(ModelLoadError):
        StatementProbabilities.from_stored(replace(stored, parts=parts), MODEL.categories)


def fit_evenly(windows: list[Window]) -> tuple[StatementProbabilities, FloatArray]:
    n_categories = windows[0].history.catalog.n_categories
    weights = np.full((len(windows), n_categories), 1 / n_categories)
    return StatementProbabilities.fit(windows, weights), weights


def without_events() -> list[Window]:
    items, events = catalog(), log(5).align_to(catalog())
    end = events.timestamp.max() + np.timedelta64(7, "D")
    return make_windows(events, items, "7D", end, min_target_events=0)


def of_one_category() -> list[Window]:
    return known_world(60, n_categories=1)[0]


def of_fixed_periods() -> list[Window]:
    return make_windows(log(30), catalog(), "6 events")


@pytest.mark.parametrize(
    "windows",
    [
        small_world(1),
        small_world(2, empty=True),
        without_events(),
        of_one_category(),
        of_fixed_periods(),
        small_world(40),
    ],
    ids=["one person", "empty histories", "empty targets", "one category", "fixed", "few"],
)
def test_a_degenerate_log_has_finite_probabilities_or_none(windows: list[Window]) -> None:
    model, weights = fit_evenly(windows)
    histories = [window.history for window in windows]
    for kind, found in model.probabilities(histories, weights).items():
        assert ((found > 0) & (found < 1) | np.isnan(found)).all()
        if not model.calibrators[kind].is_fitted:
            assert np.isnan(found).all()
            assert model.report[kind]["usual_rate"] is None
    assert len(model.choose_statements(histories, weights)) == len(windows)


def test_a_kind_of_too_few_cases_is_counted_and_never_said() -> None:
    model, weights = fit_evenly(small_world(20))
    new = model.calibrators["new"]
    assert not new.is_fitted
    assert new.n_cases < 200
    said = model.choose_statements([one.history for one in small_world(20)], weights)
    assert all(one.kind != "new" for person in said for one in person)


def test_nobody_has_statements_about_nobody() -> None:
    assert MODEL.choose_statements([], np.empty((0, 12))) == []
    with pytest.raises(DataError, match="not none"):
        StatementProbabilities.fit([], np.empty((0, 12)))
    with pytest.raises(DataError, match="of shape"):
        StatementProbabilities.fit(WINDOWS, WEIGHTS[:, :3])


def test_people_unlike_any_of_the_fit_have_finite_probabilities() -> None:
    busy = log(1, n_periods=200).align_to(catalog())
    model, _ = fit_evenly(small_world(60))
    histories = make_histories(busy, catalog(), "7D")
    weights = np.array([[1.0, 0, 0, 0, 0]])
    for found in model.probabilities(histories, weights).values():
        assert ((found > 0) & (found < 1) | np.isnan(found)).all()


def test_a_fit_with_many_categories_holds_few_copies_of_the_weights() -> None:
    windows, weights = known_world(40, n_categories=1_000)
    tracemalloc.start()
    StatementProbabilities.fit(windows, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_the_same_seed_gives_the_same_fit() -> None:
    assert same(StatementProbabilities.fit(WINDOWS, WEIGHTS), MODEL)


def test_of_fewer_kinds_the_probabilities_are_the_same() -> None:
    whole = MODEL._calibrated(HISTORIES[:50], WEIGHTS[:50], WEIGHTS[:50])
    some = MODEL._calibrated(HISTORIES[:50], WEIGHTS[:50], WEIGHTS[:50], None, COMPARED_KINDS)
    assert set(some) == set(COMPARED_KINDS)
    for kind, found in some.items():
        np.testing.assert_array_equal(found, whole[kind])
