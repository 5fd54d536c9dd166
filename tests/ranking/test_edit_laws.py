"""The laws of edits over random catalogs, forecasts and scorers; the benchmark runs 10,000."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from benchmarks.explanations.edit_cases import EditCase, learned_case, random_case
from benchmarks.explanations.edit_laws import LAWS, holds
from benchmarks.harness.results import load_results
from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Ranking
from llmrec.types import FloatArray

SEED = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("n_cases", [40, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_every_law_of_edits_holds(law: Callable[[EditCase], bool], n_cases: int) -> None:
    @settings(max_examples=n_cases, deadline=None)
    @given(SEED, st.integers(1, 30), st.integers(1, 12), st.integers(1, 5))
    def check(seed: int, n_items: int, n_categories: int, n_edits: int) -> None:
        assert holds(law, random_case(seed, n_items, n_categories, n_edits)) is not False

    check()


@dataclass
class RandomTrees:
    """A second stage that orders a few of the items, whatever the scorers say of them."""

    seed: int
    name: str = "trees"
    n_scorers: int | None = None  # of as many as there are

    def second_scores(self, first_scores: FloatArray, histories: Sequence[History]) -> FloatArray:
        rng = np.random.default_rng(self.seed)
        scores = log_softmax(first_scores.sum(axis=0), axis=1) + np.log(0.01)
        some = rng.random(scores.shape) < 0.5
        leaves = rng.integers(-3, 3, scores.shape) * rng.choice([0.1, 5.0])  # so that items tie
        return np.where(some, np.logaddexp(scores, leaves), scores)


@pytest.mark.parametrize("n_cases", [40, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_every_law_of_edits_holds_on_top_of_trees(
    law: Callable[[EditCase], bool], n_cases: int
) -> None:
    @settings(max_examples=n_cases, deadline=None)
    @given(SEED, st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.booleans())
    def check(seed: int, n_items: int, n_categories: int, n_edits: int, alone: bool) -> None:
        case = random_case(seed, n_items, n_categories, n_edits)
        weights = [0.0] * len(case.blend.weights) if alone else case.blend.weights
        blend = Blend(case.blend.scorers, weights, RandomTrees(seed), 0.7)
        assert holds(law, replace(case, blend=blend)) is not False

    check()


@pytest.mark.parametrize("n_cases", [40, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_every_law_of_edits_holds_on_trees_and_nets_that_learned(
    law: Callable[[EditCase], bool], n_cases: int
) -> None:
    pytest.importorskip("lightgbm")

    @settings(max_examples=n_cases, deadline=None)
    @given(SEED, st.integers(1, 5))
    def check(seed: int, n_edits: int) -> None:
        assert holds(law, learned_case(seed, n_edits)) is not False

    check()


def test_learned_cases_have_the_scores_of_trees_and_a_net() -> None:
    pytest.importorskip("lightgbm")
    names = {name for seed in range(20) for name in learned_case(seed).blend.names}
    assert {"order learned from earlier lists", "what comes next (GRU4Rec)"} <= names


def test_the_benchmark_found_no_violation_of_any_law_in_ten_thousand_cases() -> None:
    rows = load_results("explanations/edit_laws")["rows"]
    assert {row["value"] for row in rows} == {0}
    n_cases = {row["model"]: row["n"] for row in rows if row["dataset"] == "synthetic"}
    assert set(n_cases) == set(LAWS)
    assert min(n_cases.values()) >= 10_000


class Ignoring(EditCase):
    """A ranking that does nothing with edits."""

    def rank(self, *edits: Edit, **options: object) -> Ranking:
        return super().rank(**options)  # type: ignore[arg-type]


class Remembering(EditCase):
    """A ranking that remembers the first edits it was given."""

    seen: tuple[Edit, ...] = ()

    def rank(self, *edits: Edit, **options: object) -> Ranking:
        object.__setattr__(self, "seen", self.seen or edits)
        return super().rank(*(edits or self.seen), **options)  # type: ignore[arg-type]


class Contrary(EditCase):
    """A ranking that inverts factors."""

    def rank(self, *edits: Edit, **options: object) -> Ranking:
        inverted = [replace(edit, factor=1 / (edit.factor or 0.02)) for edit in edits]
        return super().rank(*inverted, **options)  # type: ignore[arg-type]


class Leaking(EditCase):
    """Edits that change locked shares a little."""

    def apply(self, *edits: Edit, forecast: Forecast | None = None) -> Forecast:
        given = super().apply(*edits, forecast=forecast)
        return given.with_weights(given.category_weights * (1 - 1e-7))


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (Ignoring, {"predicted", "muted", "additive"}),
        (Remembering, {"removable", "predicted"}),
        (Contrary, {"predicted", "monotone", "muted", "additive"}),
        (Leaking, {"locked", "additive", "undoable"}),
    ],
)
def test_a_planted_fault_violates_the_laws_it_is_against(
    fault: type[EditCase], caught_by: set[str]
) -> None:
    violated = set()
    for seed in range(40):
        case = fault(**vars(random_case(seed)))
        violated |= {name for name, law in LAWS.items() if holds(law, case) is False}
    assert caught_by <= violated


def test_random_cases_have_zeros_ties_and_items_without_a_category() -> None:
    cases = [random_case(seed) for seed in range(60)]
    assert any((case.forecast.category_weights == 0).any() for case in cases)
    assert any((~case.catalog.has_category).any() for case in cases)
    assert any(edit.lock for case in cases for edit in case.edits)
    ended = [not e.is_active(case.history.cutoff) for case in cases for e in case.edits]
    assert any(ended)
    assert any(len(set(case.rank(strength=0).scores)) < case.catalog.n_items for case in cases)
