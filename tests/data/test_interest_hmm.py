"""The hidden states of the synthetic world, against the sum over every path through them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations, product

import numpy as np
import pytest

from llmrec.data.synthetic import (
    DRIFT_PATTERNS,
    DRIFT_STEPS,
    JUMP_PROBABILITY,
    SEASON_PERIODS,
    DriftPattern,
    InterestHMM,
)
from llmrec.types import FloatArray

N_PROTOTYPES, N_CATEGORIES, N_PERIODS = 4, 5, 6


def make_hmm(*patterns: DriftPattern) -> InterestHMM:
    rng = np.random.default_rng(2)
    prototypes = rng.dirichlet(np.ones(N_CATEGORIES), size=N_PROTOTYPES)
    return InterestHMM(patterns, prototypes, N_PERIODS)


def paths(of: FloatArray, pattern: DriftPattern, n: int) -> Iterator[tuple[float, FloatArray]]:
    """Every way through n periods as its probability and (n, n_categories) mixes, as documented."""
    n_of = len(of)
    pairs = list(permutations(range(n_of), 2))
    if pattern == "stable":
        for one in range(n_of):
            yield 1 / n_of, np.stack([of[one]] * n)
    elif pattern == "abrupt":
        for path in product(range(n_of), repeat=n):
            jumps = sum(a != b for a, b in pairwise(path))
            chance = (JUMP_PROBABILITY / (n_of - 1)) ** jumps * (1 - JUMP_PROBABILITY) ** (
                n - 1 - jumps
            )
            yield chance / n_of, of[list(path)]
    elif pattern == "seasonal":
        for pair in pairs:
            yield 1 / len(pairs), np.stack([of[pair[t // SEASON_PERIODS % 2]] for t in range(n)])
    else:
        begins = range(N_PERIODS - 1)
        for (a, b), begin in product(pairs, begins):
            gone = [min(max(t - begin, 0), DRIFT_STEPS) / DRIFT_STEPS for t in range(n)]
            mixes = np.stack([(1 - part) * of[a] + part * of[b] for part in gone])
            yield 1 / len(pairs) / len(begins), mixes


def by_enumeration(states: InterestHMM, counts: FloatArray) -> FloatArray:
    """(n_categories,) expected mix of the period after (n_periods, n_categories) counts."""
    total, expected = 0.0, np.zeros(N_CATEGORIES)
    for pattern in states.patterns:
        for chance, mixes in paths(states.prototypes, pattern, len(counts) + 1):
            joint = chance * float(np.prod(mixes[:-1] ** counts))
            total, expected = total + joint, expected + joint * mixes[-1]
    return expected / total


@pytest.mark.parametrize("patterns", [*((pattern,) for pattern in DRIFT_PATTERNS), DRIFT_PATTERNS])
@pytest.mark.parametrize("n_periods", [0, 1, 5])
def test_the_filter_is_the_sum_over_all_paths(
    patterns: tuple[DriftPattern, ...], n_periods: int
) -> None:
    states, rng = make_hmm(*patterns), np.random.default_rng(n_periods)
    counts = rng.poisson(0.8, size=(3, n_periods, N_CATEGORIES)).astype(np.float64)
    found = states.posterior(counts) @ states.all_state_mixes(n_periods)
    expected = [by_enumeration(states, person) for person in counts]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", DRIFT_PATTERNS)
def test_paths_are_drawn_as_often_as_they_are_likely(pattern: DriftPattern) -> None:
    states, n = make_hmm(pattern), 4_000
    drawn = states.sample_paths(pattern, n, np.random.default_rng(0))
    ways = list(paths(states.prototypes, pattern, N_PERIODS))
    expected = sum(chance * mixes for chance, mixes in ways)
    assert drawn.shape == (n, N_PERIODS, N_CATEGORIES)
    np.testing.assert_allclose(drawn.sum(axis=2), 1.0)
    assert (
        np.abs(drawn.mean(axis=0) - expected) < 5 * drawn.std(axis=0) / np.sqrt(n) + 1e-12
    ).all()
