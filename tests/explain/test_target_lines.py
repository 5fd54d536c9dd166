from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from llmrec.data.calendar import Period
from llmrec.data.periods import Target, Window
from llmrec.errors import DataError
from llmrec.explain.describe import supported_claims, target_line
from llmrec.explain.facts import observed_forecast, seeded_rng
from llmrec.explain.statements import check_statement, make_statement
from llmrec.forecast import Forecast, StatementKind
from llmrec.language.codec import Codec
from tests.explain.people import APPLES, BREAD, CATEGORIES, COLA, DIPS, catalog, person
from tests.language.test_grammar import accepts
from tests.worlds import small_world

weeks = st.lists(st.text("abcd", max_size=6), min_size=1, max_size=6)
CODEC = Codec(CATEGORIES)
PRIOR = np.array([0.4, 0.3, 0.2, 0.1])


def window_of(past: list[str], week: str, user_id: str = "ann") -> Window:
    """Make ann's history of these weeks, with the week that followed as the target."""
    whole = person([*past, week], user_id=user_id)
    history = replace(
        whole, offsets=whole.offsets[:-1], bounds=whole.bounds[:-1], cutoff=whole.bounds[-2]
    )
    start, stop = (int(offset) for offset in whole.offsets[-2:])
    period = Period(whole.bounds[-2], whole.bounds[-1])
    return Window(history, Target(whole.log, whole.catalog, start, stop, period))


def is_true(kind: StatementKind, category: int, window: Window, ahead: Forecast) -> bool:
    """Whether the checker accepts a claim, or the target says what becomes of the category."""
    taken = bool(window.target.category_counts[category])
    if kind in ("again", "nothing of"):
        return taken == (kind == "again")
    statement = make_statement(kind, category, window.history, ahead)
    return check_statement(statement, window.history, ahead) is None


def test_supported_claims_are_sorted_by_change() -> None:
    # So far: 7 Apples, 10 Bread, 4 Cola (none lately), no Dips. Then: half Apples, a third Dips.
    window = window_of(["bbbbcca", "bbbbcca", "bbaaa", "aa"], "aaaddc")
    assert supported_claims(window) == [
        ("fading", BREAD),  # 10 of 21 to nothing
        ("new", DIPS),
        ("rising", APPLES),
        ("returning", COLA),
    ]


def test_what_stays_the_same_is_there_again() -> None:
    window = window_of(["aab", "aab", "aba"], "aba")
    assert supported_claims(window) == [("again", APPLES), ("again", BREAD)]


@settings(max_examples=30)
@given(weeks, st.text("abcd", min_size=1, max_size=6))
def test_supported_claims_meet_the_checkers_conditions_one_a_category(
    past: list[str], week: str
) -> None:
    window = window_of(past, week)
    claims, truth = supported_claims(window), observed_forecast(window)
    assert len({category for _, category in claims}) == len(claims) <= 4
    for kind, category in claims:
        assert is_true(kind, category, window, truth)


@settings(max_examples=30)
@given(weeks, st.text("abcd", min_size=1, max_size=6), st.integers(0, 9))
def test_a_target_line_is_between_prior_and_observed_shares_and_its_claims_are_true_of_it(
    past: list[str], week: str, seed: int
) -> None:
    window = window_of(past, week)
    line = target_line(CODEC, window, PRIOR, seed)
    parsed, truth = CODEC.line.parse(line), observed_forecast(window)
    lowest = np.minimum(PRIOR, truth.category_weights)
    highest = np.maximum(PRIOR, truth.category_weights)
    assert (parsed.category_weights >= lowest - 0.0101).all()
    assert (parsed.category_weights <= highest + 0.0101).all()
    found, unread = CODEC.line.parse_claims(parsed.description)
    assert not unread
    assume(found)
    assert accepts(CODEC.line.grammar(), f" {line}")
    expected = replace(truth, category_weights=_between(window, seed))
    for kind, category in found:
        assert is_true(kind, category, window, expected)


def _between(window: Window, seed: int) -> np.ndarray:
    """Give the exact weights of a target line, whose claims are about shares before rounding."""
    share = seeded_rng(seed, window.history.user_id, window.history.cutoff).uniform(0.2, 1.0)
    weights = (1 - share) * PRIOR + share * observed_forecast(window).category_weights
    return np.asarray(weights / weights.sum())


def test_a_target_line_differs_by_seed_and_by_user_and_is_the_same_again() -> None:
    weeks = ["bbbbcca", "bbbbcca", "bbaaa", "aa"]
    windows = [window_of(weeks, "aaaddc", user_id=f"ann {number}") for number in range(20)]
    lines = [target_line(CODEC, window, PRIOR, seed=0) for window in windows]
    assert lines == [target_line(CODEC, window, PRIOR, seed=0) for window in windows]
    assert len(set(lines)) > 15
    assert len({target_line(CODEC, windows[0], PRIOR, seed) for seed in range(20)}) > 15


def test_of_one_period_a_line_says_what_is_there_again_and_what_is_not() -> None:
    window = window_of(["ab"], "a")  # one period shows no direction
    assert supported_claims(window) == [("again", APPLES), ("nothing of", BREAD)]
    only_apples = np.array([1.0, 0.0, 0.0, 0.0])
    line = target_line(CODEC, window, only_apples, seed=0)
    assert line.startswith("Apples 100%, other 0%: Apples ")


def test_a_period_without_any_category_is_an_error_that_names_the_user() -> None:
    window = window_of(["aab"], "a")
    bare = replace(catalog(), category_shares=sparse.csr_array(catalog().category_shares.shape))
    nothing = Window(window.history, replace(window.target, catalog=bare))
    with pytest.raises(DataError, match="'ann': no event of the period"):
        supported_claims(nothing)


@pytest.mark.parametrize("kind", ["rising", "fading"])
def test_drifting_histories_have_claims_of_both_directions(kind: StatementKind) -> None:
    all_claims = [supported_claims(window) for window in small_world(n_users=20)]
    assert sum(kind in {k for k, _ in claims} for claims in all_claims) > 10
