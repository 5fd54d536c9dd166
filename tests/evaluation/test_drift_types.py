"""Types of drift: a worked example, p-values of constant mixes, and each type on clean cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from llmrec.data.dataset import Dataset
from llmrec.data.synthetic_drift import (
    CYCLE_DAYS,
    DRIFTS,
    DriftWorld,
    make_drift_world,
)
from llmrec.errors import DataError
from llmrec.evaluation.drift_contrasts import (
    gradual_contrasts,
    returning_contrasts,
    seasonal_contrasts,
    sudden_contrasts,
)
from llmrec.evaluation.drift_sittings import expected_counts, person_sittings
from llmrec.evaluation.drift_types import (
    DriftAudit,
    DriftType,
    adjust_p_values,
    audit_drift,
    permutation_test,
    tell_types,
)
from llmrec.types import FloatArray


@pytest.fixture(scope="module")
def world() -> DriftWorld:
    return make_drift_world(100, n_days=1_092, events_per_month=20, seed=1)


@pytest.fixture(scope="module")
def audited(world: DriftWorld) -> DriftAudit:
    return audit_drift(world.dataset, CYCLE_DAYS)


def test_q_values_are_those_worked_out_by_hand() -> None:
    # sorted: .01 * 4 / 1, .02 * 4 / 2, .03 * 4 / 3, .5 * 4 / 4; the smallest from there on
    found = adjust_p_values(np.array([0.5, 0.01, 0.03, 0.02]))
    assert found.tolist() == pytest.approx([0.5, 0.04, 0.04, 0.04])


def test_expected_counts_are_those_worked_out_by_hand() -> None:
    # Person 0 takes the first category alone, person 1 both alike: no period differs.
    counts = np.array([[4.0, 0.0], [6.0, 0.0], [2.0, 2.0], [3.0, 3.0]])
    found = expected_counts(counts, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert found == pytest.approx(counts)


def test_who_came_in_a_period_is_not_taken_for_what_everybody_took_then() -> None:
    # In period 1 only lovers of the second category come; nobody's own mix changes.
    person = np.array([0, 0, 1, 1, 1])
    counts = np.array([[9.0, 1.0], [9.0, 1.0], [1.0, 9.0], [1.0, 9.0], [1.0, 9.0]])
    found = expected_counts(counts, person, np.array([0, 0, 0, 1, 1]))
    assert found == pytest.approx(counts, abs=1e-6)


def test_what_everybody_does_is_expected_of_each() -> None:
    person, period = np.repeat(np.arange(50), 2), np.tile([0, 1], 50)
    counts = np.tile([[80.0, 20.0], [20.0, 80.0]], (50, 1))
    assert expected_counts(counts, person, period) == pytest.approx(counts, abs=0.5)


def test_a_step_is_found_by_hand() -> None:
    # Ten sittings without and ten with: of 20!/(10! 10!) orders two are as extreme.
    residuals = np.repeat([[-1.0], [1.0]], 10, axis=0)
    families: dict[DriftType, FloatArray] = {"sudden": sudden_contrasts(20)}
    p_value, _ = permutation_test(residuals, families, np.random.default_rng(1))
    assert p_value == 1 / 2_000  # the least that 1,999 permutations can give
    # the best contrast is the step itself: (sum of |residuals|)^2 / 20 = 20
    assert float(((families["sudden"] @ residuals) ** 2).max()) == pytest.approx(20)


def test_contrasts_are_centred_and_of_length_1() -> None:
    time = np.linspace(0, 1, 40)
    for rows in (
        sudden_contrasts(40),
        gradual_contrasts(time),
        seasonal_contrasts(time * 2),
        returning_contrasts(time),
    ):
        assert len(rows) > 5
        assert rows.sum(axis=1) == pytest.approx(0, abs=1e-9)
        assert (rows**2).sum(axis=1) == pytest.approx(1)


def test_a_season_is_told_only_from_more_than_one_cycle() -> None:
    assert len(seasonal_contrasts(np.linspace(0, 1.2, 40))) == 0
    assert len(seasonal_contrasts(np.linspace(0, 1.6, 40))) > 0


@pytest.mark.parametrize(("bursty", "swing"), [(False, 0.0), (True, 0.7)], ids=["calm", "bursts"])
def test_p_values_of_constant_mixes_are_uniform_within_binomial_bounds(
    bursty: bool, swing: float
) -> None:
    world = make_drift_world(250, 728, 10, drifts=["none"], bursty=bursty, swing=swing, seed=2)
    found = np.array([one.p_value for one in audit_drift(world.dataset, CYCLE_DAYS).people])
    for level in (0.05, 0.2, 0.5, 0.8):
        low, high = stats.binom.interval(0.999, len(found), level)
        assert low <= (found <= level).sum() <= high, level


def test_each_type_is_told_on_clean_cases(world: DriftWorld, audited: DriftAudit) -> None:
    truth = dict(zip(world.dataset.log.user_ids, world.types, strict=True))
    assert len(audited.people) == 100
    for kind in DRIFTS:
        told = [one.type for one in audited.people if truth[one.user_id] == kind]
        assert told.count(kind) >= 0.8 * len(told), (kind, told)


def test_the_table_counts_everybody_told_and_names_categories(audited: DriftAudit) -> None:
    table = audited.table()
    assert table["people"].sum() == 100
    assert table["share"].sum() == pytest.approx(1)
    sudden = next(one for one in audited.people if one.type == "sudden" and one.category)
    assert sudden.describe().startswith(f"{sudden.category} went from ")
    assert sudden.share_before != sudden.share_after


def test_people_with_too_few_events_are_counted_and_not_told() -> None:
    dataset = make_drift_world(20, n_days=60, events_per_month=6, seed=1).dataset
    found = audit_drift(dataset)
    assert found.n_not_told == dataset.log.n_users
    assert found.of(dataset.log.user_ids[0]) is None
    assert found.table()["people"].tolist() == [0] * 5


def test_a_person_is_told_the_same_whoever_else_is_tested(world: DriftWorld) -> None:
    told = list(person_sittings(world.dataset))
    whole = tell_types(world.dataset, told[:6], CYCLE_DAYS, 0.05, 0)
    alone = tell_types(world.dataset, told[5:6], CYCLE_DAYS, 0.05, 0)
    assert replace(alone[0], q_value=0.0, type="none") == replace(
        whole[5], q_value=0.0, type="none"
    )


def test_settings_that_are_none_are_refused(world: DriftWorld) -> None:
    dataset: Dataset = world.dataset
    with pytest.raises(DataError, match="cycle_days=0"):
        audit_drift(dataset, cycle_days=0)
    with pytest.raises(DataError, match="level=1"):
        audit_drift(dataset, level=1)
    with pytest.raises(DataError, match="drifts"):
        make_drift_world(drifts=["sideways"])
    with pytest.raises(DataError, match="n_days=3"):
        make_drift_world(n_days=3)
