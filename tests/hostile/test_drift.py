"""People whose interests do not drift, in worlds made to look as if they did."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from llmrec.data.synthetic_drift import CYCLE_DAYS, DRIFTS, make_drift_world
from llmrec.evaluation.drift_types import audit_drift
from tests.hostile.conftest import Count

WORLDS: tuple[dict[str, Any], ...] = (
    {"bursty": False, "swing": 0.0},
    {"bursty": True, "swing": 0.0},
    {"bursty": False, "swing": 1.0},
    {"bursty": True, "swing": 1.0},
)
SIZES = [
    pytest.param(4, id="some"),
    pytest.param(60, id="all", marks=pytest.mark.hostile),
]


@pytest.mark.parametrize("n", SIZES)
def test_at_most_a_twentieth_of_those_said_to_drift_do_not(n: int, count: Count) -> None:
    n_found = n_wrong = 0
    for seed in range(1_000, 1_000 + n):
        drifts = ("none",) * 5 + DRIFTS
        settings = WORLDS[seed % len(WORLDS)]
        world = make_drift_world(120, 728, drifts=drifts, seed=seed, **settings)
        truth = dict(zip(world.dataset.log.user_ids, world.types, strict=True))
        found = [one for one in audit_drift(world.dataset, CYCLE_DAYS).people if one.type != "none"]
        n_found += len(found)
        n_wrong += sum(truth[one.user_id] == "none" for one in found)
    most = int(stats.binom.ppf(0.999, n_found, 0.05))
    count("false discoveries of drift beyond 5 %", n_found, max(0, n_wrong - most))
    assert n_wrong <= most, f"{n_wrong} of {n_found}"


@pytest.mark.parametrize("n", SIZES)
def test_a_world_without_drift_has_next_to_no_discovery(n: int, count: Count) -> None:
    n_with_discovery = 0
    for seed in range(2_000, 2_000 + n):
        settings = WORLDS[seed % len(WORLDS)]
        world = make_drift_world(60, 728, drifts=("none",), seed=seed, **settings)
        types = [one.type for one in audit_drift(world.dataset, CYCLE_DAYS).people]
        n_with_discovery += any(kind != "none" for kind in types)
    most = int(stats.binom.ppf(0.999, n, 0.05))
    count("worlds without drift, discoveries in more than 5 %", n, max(0, n_with_discovery - most))
    assert n_with_discovery <= most
