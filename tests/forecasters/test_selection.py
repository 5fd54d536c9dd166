from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.provenance import TrainingSpan
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS
from llmrec.errors import DataError, TrainingError
from llmrec.forecast import Forecaster
from llmrec.forecasters import selection
from llmrec.forecasters.calibration import DEFAULT_DISPERSION
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.pool import LogLinearPool
from llmrec.forecasters.precomputed import PrecomputedForecaster, out_of_sample_weights
from llmrec.forecasters.selection import MIXTURES, MemberFigures, Selection, select_mixture
from llmrec.metrics import log_loss
from llmrec.types import FloatArray
from tests.forecasters.test_mixture import ConstantWithHeldOut
from tests.worlds import small_world

WINDOWS = small_world(n_users=120)
HISTORIES = [window.history for window in WINDOWS]
TARGETS = target_counts(WINDOWS)
SHARES = row_shares(TARGETS)
COUNTING = DecayedDirichlet()


def expert(weights: FloatArray) -> Forecaster:
    rows = row_shares(weights)
    return PrecomputedForecaster.of("expert", HISTORIES, rows, DEFAULT_DISPERSION)


def hint(
    seed: int, categories: tuple[int, ...] = (0, 1, 2, 3, 4), noise: float = 0.3
) -> Forecaster:
    """Know something of the target, of some categories only."""
    rng = np.random.default_rng(seed)
    known = np.isin(np.arange(5), categories)
    return expert(np.where(known, SHARES + 0.2, 0.4) * rng.lognormal(0, 0.3, SHARES.shape))


def useless(seed: int) -> Forecaster:
    return expert(np.random.default_rng(seed).dirichlet(np.ones(5), len(WINDOWS)))


def figures(found: Selection) -> dict[str, MemberFigures]:
    return {member.name: member for member in found.members}


def select(experts: Mapping[str, Forecaster | Exception], seed: int = 0) -> Selection:
    return select_mixture(experts, WINDOWS, seed, counting=COUNTING)


@pytest.fixture(scope="module")
def chosen() -> Selection:
    """Of experts that know different categories, one that knows none, and one that failed."""
    failure = TrainingError("loss nan in epoch 1")
    return select(
        {"low": hint(0, (0, 1)), "high": hint(1, (2, 3, 4)), "x": useless(2), "net": failure}
    )


@settings(max_examples=6)
@given(st.lists(st.sampled_from("hulk"), min_size=1, max_size=4), st.integers(0, 9))
def test_held_out_it_is_never_worse_than_its_best_member(kinds: list[str], seed: int) -> None:
    make = {"h": hint, "u": useless, "l": lambda n: hint(n, (0, 1)), "k": lambda n: hint(n, (4,))}
    found = select({f"{kind}{n}": make[kind](seed + n) for n, kind in enumerate(kinds)})
    assert found.loss is not None
    losses = [member.loss for member in found.members if member.loss is not None]
    assert found.loss <= min(losses) + 1e-12
    held_out = log_loss(found.held_out.lookup(WINDOWS), TARGETS).mean()
    assert held_out == pytest.approx(found.loss, abs=1e-12)
    kept = [member.name for member in found.members if member.kept]
    assert kept == list(getattr(found.forecaster, "experts", kept[:1]))


def test_an_expert_that_helps_is_kept_and_a_useless_one_is_left_out(chosen: Selection) -> None:
    members = figures(chosen)
    assert list(members) == sorted(["low", "high", "x", "net"])
    assert [name for name, member in members.items() if member.kept] == ["high", "low"]
    for name in ("high", "low"):
        assert members[name].worth is not None
        assert members[name].worth[1] > 0
        assert members[name].reason == "the mixture is worse without it"
    assert members["x"].worth is not None
    assert members["x"].worth[0] < 1e-3
    assert members["x"].weight == 0
    assert members["x"].reason == "the mixture is as good without it"


def test_gains_are_measured_against_counting_over_the_same_people(chosen: Selection) -> None:
    counted = np.stack([f.category_weights for f in COUNTING.forecast(HISTORIES)])
    base = log_loss(counted, TARGETS)
    assert chosen.gain is not None
    held_out = log_loss(chosen.held_out.lookup(WINDOWS), TARGETS)
    mean, low, high = chosen.gain
    assert mean == pytest.approx((base - held_out).mean())
    assert low < mean < high
    assert figures(chosen)["x"].gain[2] < 0


def test_what_a_member_is_worth_is_what_the_others_fitted_anew_lack(chosen: Selection) -> None:
    without = select({"high": hint(1, (2, 3, 4))})
    member = figures(chosen)["low"]
    assert member.worth is not None
    assert member.worth[0] == pytest.approx(without.loss - chosen.loss)


def test_an_expert_that_could_not_be_fitted_is_left_out_with_its_error(chosen: Selection) -> None:
    member = figures(chosen)["net"]
    assert (member.kept, member.loss, member.gain, member.worth) == (False, None, None, None)
    assert member.reason == "TrainingError: loss nan in epoch 1"


def test_an_expert_that_fails_when_it_is_asked_is_left_out_too() -> None:
    found = select({"a": hint(0), "unfitted": LogLinearPool({"a": hint(0), "b": hint(1)})})
    assert found.form == "single"
    assert "TrainingError: LogLinearPool has no exponents" in figures(found)["unfitted"].reason


def test_one_expert_is_the_forecaster() -> None:
    alone = hint(0)
    found = select({"alone": alone, "net": TrainingError("diverged")})
    assert found.forecaster is alone
    assert (found.form, found.reason) == ("single", "there is one expert")
    assert figures(found)["alone"].kept


def test_the_best_expert_is_taken_alone_where_no_mixture_is_better() -> None:
    best = expert(SHARES + 1e-13)  # any change makes it worse
    found = select({"best": best, "x": useless(0), "y": useless(1)})
    assert found.forecaster is best
    assert found.form == "single"
    assert found.reason.startswith("no mixture is better than best alone")
    assert [member.name for member in found.members if member.kept] == ["best"]


def test_an_expert_that_rules_out_what_happened_does_not_spoil_the_figures() -> None:
    never = expert(np.tile([0.0, 1.0, 1.0, 1.0, 1.0], (len(WINDOWS), 1)))
    found = select({"a": hint(0), "b": hint(1), "never": never})
    assert np.isfinite(found.loss)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("n", [0, 1, MIN_CALIBRATION_WINDOWS - 1])
def test_few_windows_decide_nothing_and_it_is_counting(n: int) -> None:
    found = select_mixture({"a": hint(0), "b": TrainingError("diverged")}, WINDOWS[:n])
    assert isinstance(found.forecaster, DecayedDirichlet)
    assert found.form == "counting"
    assert found.reason.startswith(f"{n} validation windows")
    assert figures(found)["a"].reason == found.reason
    assert figures(found)["b"].reason == "TrainingError: diverged"
    assert len(found.held_out.rows) == n


def test_the_given_counting_is_what_few_windows_fall_back_to() -> None:
    own = DecayedDirichlet(0.5, 5.0)
    assert select_mixture({"DecayedDirichlet": own}, []).forecaster is own
    assert select_mixture({"a": hint(0)}, [], counting=own).forecaster is own


def test_few_windows_fall_back_to_the_expert_that_is_named() -> None:
    experts = {"a": hint(0), "b": hint(1)}
    found = select_mixture(experts, WINDOWS[:5], fallback="b")
    assert found.forecaster is experts["b"]
    assert found.form == "single"
    assert [member.name for member in found.members if member.kept] == ["b"]
    np.testing.assert_array_equal(
        found.held_out.lookup(WINDOWS[:5]), out_of_sample_weights(experts["b"], WINDOWS[:5])
    )
    missing = select_mixture({"a": hint(0), "b": TrainingError("diverged")}, [], fallback="b")
    assert missing.form == "counting"


def test_without_an_expert_it_is_counting() -> None:
    for experts in ({}, {"net": TrainingError("diverged")}):
        found = select_mixture(experts, WINDOWS)
        assert isinstance(found.forecaster, DecayedDirichlet)
        assert found.reason == "no expert could be fitted"


def test_the_same_seed_gives_the_same_and_the_order_of_experts_changes_nothing() -> None:
    experts = {"a": hint(0, (0, 1)), "b": hint(1, (2,)), "c": hint(2)}
    once, again = select(experts), select(dict(reversed(experts.items())))
    assert once.to_dict() == again.to_dict()
    assert once.held_out.weights.tobytes() == again.held_out.weights.tobytes()


def test_of_forms_that_are_as_good_the_simplest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = {"low": hint(0, (0, 1)), "high": hint(1, (2, 3, 4))}
    alone = {}
    for form in MIXTURES:
        monkeypatch.setattr(selection, "MIXTURES", {form: MIXTURES[form]})
        found = select(experts)
        assert found.form == form
        alone[form] = found.loss
    monkeypatch.setattr(selection, "MIXTURES", MIXTURES)
    assert select(experts).form == "log-linear pool"  # it is better by far here
    monkeypatch.setattr(selection, "MARGIN", 1e6)
    assert select(experts).form == "single"
    assert min(alone.values()) == alone["log-linear pool"]


def test_figures_are_plain_values_for_json(chosen: Selection) -> None:
    values = json.loads(json.dumps(chosen.to_dict(), allow_nan=False))
    assert values["form"] == chosen.form
    assert len(values["members"]) == 4
    names = [member["name"] for member in values["members"]]
    assert all(before < after for before, after in pairwise(names))


def test_an_expert_fitted_on_the_windows_without_held_out_weights_is_refused() -> None:
    lost = ConstantWithHeldOut((0.2,) * 5, TrainingSpan.of_windows(WINDOWS))
    with pytest.raises(DataError, match="has no held-out weights"):
        select({"a": hint(0), "lost": lost})
