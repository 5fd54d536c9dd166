"""Types of drift: false discoveries, and how many drifts are found and told for what they are.

Worlds are drawn whose people's types are known, calm and bursty, with and without a season of
everybody. Statistics were chosen on the seeds below 100; those measured start at 100. Of real logs,
people by type are counted, and once more with each person's sittings shuffled.

Run: python -m benchmarks.safety.drift
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.harness.formatting import Row
from benchmarks.harness.logs import available_logs, benchmark_dataset
from benchmarks.harness.results import mean_row, record_results, value_row
from llmrec.data.synthetic_drift import CYCLE_DAYS, DRIFTS, DriftWorld, make_drift_world
from llmrec.evaluation.drift_sittings import PersonSittings, person_sittings
from llmrec.evaluation.drift_types import (
    DRIFT_TYPES,
    LEVEL,
    YEAR_DAYS,
    PersonDrift,
    audit_drift,
    tell_types,
)

FIRST_SEED = 100
N_DAYS = (364, 728, 1_092)
WORLDS: dict[str, dict[str, Any]] = {
    "calm": {"bursty": False, "swing": 0.0},
    "season of everybody": {"bursty": False, "swing": 0.7},
    "bursty": {"bursty": True, "swing": 0.0},
    "bursty, season of everybody": {"bursty": True, "swing": 0.7},
}
MOSTLY_NONE = ("none",) * 6  # beside one person of each type
Values = dict[str, list[float]]


def main() -> None:
    """Measure worlds of many seeds, then count people of real logs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--people", type=int, default=200)
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    rows: list[Row] = []
    for name, settings in WORLDS.items():
        for n_days in N_DAYS:
            values: Values = defaultdict(list)
            for seed in seeds:
                drifts = (*MOSTLY_NONE, *DRIFTS)
                world = make_drift_world(
                    arguments.people, n_days, drifts=drifts, seed=seed, **settings
                )
                for metric, value in world_values(world):
                    values[metric].append(value)
            keys = {"dataset": "drifts", "split": f"{n_days} days", "model": name}
            rows += summary(keys, values, seeds)
            print(name, n_days, "days", flush=True)
    for data in available_logs():
        rows += log_rows(data)
    record_results("safety/drift", rows)


def world_values(world: DriftWorld) -> Iterator[tuple[str, float]]:
    """Give what one world's audit found: rates of people, and p-values of those without drift."""
    truth = dict(zip(world.dataset.log.user_ids, world.types, strict=True))
    people = audit_drift(world.dataset, CYCLE_DAYS).people
    found = [one for one in people if one.type != "none"]
    wrong = [one for one in found if truth[one.user_id] == "none"]
    yield "false discovery rate", len(wrong) / max(1, len(found))
    constant = [one.p_value for one in people if truth[one.user_id] == "none"]
    yield "p-values of none up to .05", float(np.mean(np.array(constant) <= 0.05))
    for kind in DRIFTS:
        told: list[str] = [one.type for one in people if truth[one.user_id] == kind]
        if kind != "none" and told:
            yield f"found, {kind}", np.mean([one != "none" for one in told]).item()
            yield f"found and told, {kind}", told.count(kind) / len(told)


def summary(keys: Row, values: Values, seeds: Sequence[int]) -> Iterator[Row]:
    """Give the means over seeds, with intervals."""
    for metric, found in values.items():
        yield mean_row(keys | {"seeds": list(seeds)}, metric, np.array(found))


def log_rows(data: str) -> Iterator[Row]:
    """Count the people of a real log by type, as it is and with each one's sittings shuffled."""
    dataset = benchmark_dataset(data)
    told = list(person_sittings(dataset))
    rng = np.random.default_rng(FIRST_SEED)
    shuffled = [shuffle(one, rng) for one in told]
    for name, people in (("as it is", told), ("shuffled", shuffled)):
        found = tell_types(dataset, people, YEAR_DAYS, LEVEL, 0)
        keys = {"dataset": data, "split": "all", "model": name, "seeds": [0]}
        yield from counts(keys, found)
    missing = dataset.log.n_users - len(told)
    yield value_row(keys, "people not told", missing, dataset.log.n_users)


def counts(keys: Row, found: Sequence[PersonDrift]) -> Iterator[Row]:
    """Give a row a type: people of it."""
    for kind in DRIFT_TYPES:
        n = sum(one.type == kind for one in found)
        yield value_row(keys, f"people, {kind}", n, len(found))


def shuffle(one: PersonSittings, rng: np.random.Generator) -> PersonSittings:
    """Give a person whose sittings happened in another order, at the same times."""
    order = rng.permutation(len(one.start))
    return replace(one, counts=one.counts[order], residuals=one.residuals[order])


if __name__ == "__main__":
    main()
