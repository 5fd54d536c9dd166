"""Edits: factors of shares, with laws that hold for every forecast."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.errors import EditError
from llmrec.forecast import Forecast, Source
from llmrec.ranking.edits import Edit, apply_edits, edit_sentence, muted_item_mask
from llmrec.types import FloatArray
from tests.worlds import CATEGORIES, catalog

ITEMS = catalog()
weights = st.lists(st.floats(0.01, 1), min_size=5, max_size=5).map(lambda w: np.array(w) / sum(w))
factors = st.floats(0.01, 100)
names = st.sampled_from(CATEGORIES)


def edited(category_weights: FloatArray, *edits: Edit, at: str | None = None) -> FloatArray:
    forecast = Forecast(category_weights, 10.0, "words", (), Source("test", "counting"))
    time = None if at is None else np.datetime64(at)
    return apply_edits(forecast, edits, ITEMS, time).category_weights


def test_an_edit_multiplies_and_the_shares_sum_to_1_again() -> None:
    found = edited(np.array([0.2, 0.2, 0.2, 0.2, 0.2]), Edit("Comedy", 2))
    np.testing.assert_allclose(found, [1 / 6, 2 / 6, 1 / 6, 1 / 6, 1 / 6])


def test_a_locked_share_is_exactly_weight_times_factor() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    found = edited(before, Edit("Comedy", 1.5, lock=True), Edit("Drama", 3))
    np.testing.assert_allclose(found, [0.1 * 0.5, 0.3, 0.9 * 0.5, 0.4 * 0.5, 0])
    assert found[1] == 0.2 * 1.5


def test_a_factor_of_1_changes_no_forecast_even_one_that_sums_to_1_only_nearly() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.4, 9e-7])
    np.testing.assert_allclose(edited(before, Edit("Drama", 1.0)), before, rtol=1e-15)


def test_a_tiny_share_that_is_left_gets_the_whole_forecast() -> None:
    assert edited(np.array([1.0, 1e-310, 0, 0, 0]), Edit("Action", 0)).tolist() == [0, 1, 0, 0, 0]


def test_an_item_with_any_share_of_a_muted_category_is_muted_until_the_edit_ends() -> None:
    edits = [Edit("War", 0, until=np.datetime64("2020-03-01")), Edit("Drama", 2)]
    assert np.flatnonzero(muted_item_mask(edits, ITEMS)).tolist() == [4, 9, 14, 19, 24]
    assert not muted_item_mask(edits, ITEMS, np.datetime64("2020-03-01")).any()


def test_a_muted_category_gets_nothing() -> None:
    assert edited(np.full(5, 0.2), Edit("War", 0)).tolist() == [0.25] * 4 + [0]


def test_the_description_and_the_source_stay() -> None:
    forecast = Forecast(np.full(5, 0.2), 10.0, "words", (), Source("test", "counting"))
    found = apply_edits(forecast, [Edit("War", 3)], ITEMS)
    assert (found.description, found.source) == (forecast.description, forecast.source)
    assert apply_edits(forecast, [], ITEMS) is forecast


@pytest.mark.parametrize(
    ("at", "active"),
    [(None, True), ("2020-02-29", True), ("2020-03-01", False), ("2020-03-02", False)],
)
def test_an_edit_ends_at_its_time(at: str | None, active: bool) -> None:
    edit = Edit("War", 0, until=np.datetime64("2020-03-01"))
    assert (edited(np.full(5, 0.2), edit, at=at)[4] == 0) == active


@given(weights, names, factors)
def test_undoing_an_edit_restores_the_forecast(
    before: FloatArray, name: str, factor: float
) -> None:
    there = edited(before, Edit(name, factor))
    np.testing.assert_allclose(edited(there, Edit(name, 1 / factor)), before, atol=1e-9)


@given(weights, names, factors, factors)
def test_a_larger_factor_never_gives_a_smaller_share(
    before: FloatArray, name: str, one: float, other: float
) -> None:
    low, high = (edited(before, Edit(name, factor)) for factor in sorted((one, other)))
    category = CATEGORIES.index(name)
    assert high[category] >= low[category] - 1e-12
    others = np.arange(5) != category
    assert (high[others] <= low[others] + 1e-12).all()


@given(weights, names, st.floats(0.1, 10), st.floats(0.1, 10))
def test_edits_one_after_another_add_up_in_log_space(
    before: FloatArray, name: str, first: float, second: float
) -> None:
    in_turn = edited(edited(before, Edit(name, first)), Edit(name, second))
    np.testing.assert_allclose(in_turn, edited(before, Edit(name, first * second)), atol=1e-9)


@given(weights, st.permutations([Edit("Action", 3), Edit("Drama", 0), Edit("War", 1.0, lock=True)]))
def test_the_order_of_edits_changes_no_byte(before: FloatArray, edits: list[Edit]) -> None:
    expected = edited(before, Edit("Action", 3), Edit("Drama", 0), Edit("War", 1.0, lock=True))
    assert edited(before, *edits).tobytes() == expected.tobytes()


@given(weights, names, st.floats(0, 1), names, factors)
def test_a_lock_holds_against_every_other_edit(
    before: FloatArray, name: str, factor: float, other: str, by: float
) -> None:
    edits = [Edit(name, factor, lock=True)] + [Edit(other, by)] * (other != name)
    category = CATEGORIES.index(name)
    assert edited(before, *edits)[category] == before[category] * factor


def test_the_same_edit_twice_counts_once() -> None:
    before = np.full(5, 0.2)
    once, twice = edited(before, Edit("War", 3)), edited(before, Edit("War", 3), Edit("War", 3))
    assert once.tobytes() == twice.tobytes()


def test_an_edit_that_has_ended_contradicts_nothing() -> None:
    ended = Edit("War", 2, until=np.datetime64("2020-01-01"))
    found = edited(np.full(5, 0.2), ended, Edit("War", 0), at="2020-06-01")
    assert found[4] == 0


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Edit("Comdy", 2)], "unknown category 'Comdy'; near names: Comedy"),
        ([Edit("War", 2), Edit("War", 3)], "two edits of 'War' contradict"),
        ([Edit("War", 2), Edit("War", 2, lock=True)], "two edits of 'War' contradict"),
        ([Edit("War", 6, lock=True)], "locked shares sum to 1.2 > 1: lower a factor of 'War'"),
        ([Edit(name, 0) for name in CATEGORIES], "no category is left to share 1 .*'Action', 'Com"),
        ([Edit(name, 0.5, lock=True) for name in CATEGORIES], "left to share 0.5 .*unlock one of"),
    ],
)
def test_edits_that_cannot_be_applied_are_named_in_the_error(
    edits: list[Edit], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        edited(np.full(5, 0.2), *edits)


def test_a_contradiction_is_explained_in_sentences() -> None:
    with pytest.raises(
        EditError, match=r"contradict each other: “No War.” and “Twice as much War.”"
    ):
        edited(np.full(5, 0.2), Edit("War", 0), Edit("War", 2))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Edit("War", 0), "No War."),
        (Edit("War", 2), "Twice as much War."),
        (Edit("War", 0.5, lock=True), "Exactly half as much War."),
        (Edit("War", 1.4), "1.4 times as much War."),
        (Edit("War", 0, lock=True), "Exactly 0 times as much War."),
        (Edit("War", 1, lock=True), "Keep War as it is."),
        (Edit("War", 3, np.datetime64("2018-03-01")), "3 times as much War until 1 March 2018."),
        (Edit("War", 0, np.datetime64("2018-03-01T06")), "No War until 2018-03-01T06:00:00.000."),
    ],
)
def test_an_edit_is_a_plain_sentence(edit: Edit, sentence: str) -> None:
    assert edit_sentence(edit) == sentence


@pytest.mark.parametrize("factor", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_factor_out_of_bounds_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=r"'War': the factor must lie in 0\.\.100"):
        Edit("War", factor)


@pytest.mark.parametrize(
    "until", ["2020-03-01", date(2020, 3, 1), datetime(2020, 3, 1), pd.Timestamp("2020-03-01")]
)
def test_an_end_is_a_time_however_it_is_written(until: date | str) -> None:
    edit = Edit("War", 0, until)
    assert edit == Edit("War", 0, np.datetime64("2020-03-01"))
    assert edit_sentence(edit) == "No War until 1 March 2020."
    assert edit.is_active(np.datetime64("2020-02-29"))
    assert not edit.is_active(np.datetime64("2020-03-01"))


@pytest.mark.parametrize("until", [np.datetime64("NaT"), "soon", 2018, ["2018"], object()])
def test_an_end_that_is_no_time_is_refused(until: Any) -> None:
    with pytest.raises(EditError, match=r"edit of 'War': until .* is not a time"):
        Edit("War", 2, until=until)


@pytest.mark.parametrize("factor", ["2", None, [2]])
def test_a_factor_that_is_no_number_is_refused(factor: Any) -> None:
    with pytest.raises(EditError, match=r"'War': the factor must lie in 0\.\.100"):
        Edit("War", factor)


def test_a_category_that_is_no_name_is_refused() -> None:
    with pytest.raises(EditError, match="edited by its name, not by 4"):
        Edit(4, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("edits", ["more comedy", ["more comedy"], Edit("War", 2), [None]])
def test_what_is_no_list_of_edits_is_refused_with_an_example(edits: Any) -> None:
    forecast = Forecast(np.full(5, 0.2), 10.0, "", (), Source("test", "counting"))
    with pytest.raises(EditError, match=r"edits are a list, .*parse_edits\(.* parses text"):
        apply_edits(forecast, edits, ITEMS)


def test_the_error_of_locked_shares_names_locked_categories_only() -> None:
    with pytest.raises(EditError, match=r"a factor of 'War'\.$"):
        edited(np.full(5, 0.2), Edit("Comedy", 2), Edit("War", 6, lock=True))


def test_a_forecast_of_another_catalog_is_refused() -> None:
    with pytest.raises(ValueError, match="has 4 category weights, the catalog 5"):
        edited(np.full(4, 0.25))
