"""How people's interests drift: gradually, suddenly, with the seasons, there and back, or not.

Each person's sittings are permuted along their own timeline: under the null hypothesis, a constant
mix beside what everybody does, their order says nothing. Discoveries over people are held to a
false-discovery rate (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from llmrec.data.calendar import DAY
from llmrec.data.dataset import Dataset
from llmrec.errors import DataError
from llmrec.evaluation.drift_contrasts import (
    gradual_contrasts,
    returning_contrasts,
    seasonal_contrasts,
    sudden_contrasts,
)
from llmrec.evaluation.drift_sittings import PersonSittings, person_sittings
from llmrec.types import BoolArray, FloatArray

DriftType = Literal["gradual", "sudden", "seasonal", "returning", "none"]
DRIFT_TYPES: tuple[DriftType, ...] = get_args(DriftType)
LEVEL = 0.05  # false-discovery rate
YEAR_DAYS = 365.25
FIRST_ROUND = 199  # permutations of everybody
CLEAR = 0.05  # p-value of the first round up to which there is a second one
SECOND_ROUND = 1_999
BATCH = 500  # permutations at a time, which fit the processor's cache


@dataclass(frozen=True)
class PersonDrift:
    """What is told of one person's interests.

    Attributes
    ----------
    user_id
        As the log writes it.
    type
        "none" where ``q_value`` is above the level.
    p_value, q_value
        Of a constant mix, by permutation; the second is the smallest false-discovery rate at which
        this person is a discovery.
    statistics
        Of each alternative, how far above the mean of its permutations, in standard deviations (a
        mean one over alternatives, so that the one that fits best is the largest).
    category
        The one that changed most; None: those that are rarely taken.
    share_before, share_after
        Its shares of events, in [0, 1]: before and after; outside and in the season, or the
        absence, if it is one of those.
    changed
        First days of the change: its start and its end.
    n_events, n_sittings
        What it was told from.
    """

    user_id: str
    type: DriftType
    p_value: float
    q_value: float
    statistics: Mapping[DriftType, float]
    category: str | None
    share_before: float
    share_after: float
    changed: tuple[np.datetime64, np.datetime64]
    n_events: int
    n_sittings: int

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values for JSON."""
        return {**asdict(self), "changed": [str(day) for day in self.changed]} | {
            "description": self.describe()
        }

    def describe(self) -> str:
        """Say the drift in a sentence."""
        name = self.category or "what is rarely taken"
        before, after = f"{self.share_before:.0%}", f"{self.share_after:.0%}"
        start, end = self.changed
        if self.type == "sudden":
            return f"{name} went from {before} to {after} on {end}."
        if self.type == "gradual":
            return f"{name} went from {before} to {after} between {start} and {end}."
        if self.type == "seasonal":
            return f"{name} has {after} around {start} each cycle, {before} in the other half."
        if self.type == "returning":
            return f"{name} went from {before} to {after} on {start}, and back on {end}."
        return "No drift beyond what everybody does and what chance makes of a constant mix."


@dataclass(frozen=True)
class DriftAudit:
    """The drift of each person of whom something can be told, and how many others there are."""

    people: tuple[PersonDrift, ...]
    n_not_told: int

    def of(self, user_id: str) -> PersonDrift | None:
        """Give one person's drift; None if there is too little to tell."""
        return next((one for one in self.people if one.user_id == user_id), None)

    def table(self) -> pd.DataFrame:
        """Count people by type; columns type, people, share of those told, example."""
        rows = []
        for kind in DRIFT_TYPES:
            found = [one for one in self.people if one.type == kind]
            ranked = sorted(found, key=lambda one: (one.q_value, -max(one.statistics.values())))
            example = f"{ranked[0].user_id}: {ranked[0].describe()}" if ranked else ""
            rows.append((kind, len(found), len(found) / max(1, len(self.people)), example))
        return pd.DataFrame(rows, columns=["type", "people", "share", "example"])


def audit_drift(
    dataset: Dataset, cycle_days: float = YEAR_DAYS, level: float = LEVEL, seed: int = 0
) -> DriftAudit:
    """Say how the interests of each person of a log drift.

    Parameters
    ----------
    cycle_days
        Length of a season's cycle.
    level
        Expected share of people without drift among those said to drift, in (0, 1).

    Raises
    ------
    DataError
        If the cycle is not positive or the level not between 0 and 1.
    """
    if not (cycle_days > 0 and 0 < level < 1):
        raise DataError(
            f"cycle_days={cycle_days}, level={level}: a cycle has more than 0 days, and a level of "
            "false discoveries lies between 0 and 1."
        )
    told = list(person_sittings(dataset))
    people = tell_types(dataset, told, cycle_days, level, seed)
    return DriftAudit(people, dataset.log.n_users - len(told))


def tell_types(
    dataset: Dataset, told: Sequence[PersonSittings], cycle_days: float, level: float, seed: int
) -> tuple[PersonDrift, ...]:
    """Test each person's sittings, and hold the discoveries to the level."""
    tested = [_test_person(dataset, one, cycle_days, seed) for one in told]
    q_values = adjust_p_values(np.array([one.p_value for one in tested]))
    return tuple(
        replace(one, q_value=q, type=one.type if q <= level else "none")
        for one, q in zip(tested, q_values.tolist(), strict=True)
    )


def adjust_p_values(p_values: FloatArray) -> FloatArray:
    """(n,) q-values: the smallest false-discovery rate at which each is a discovery.

    Benjamini and Hochberg 1995; valid for p-values that are independent or positively dependent.
    """
    n = len(p_values)
    order = np.argsort(p_values)[::-1]
    scaled = p_values[order] * n / np.arange(n, 0, -1)
    q_values = np.empty(n)
    q_values[order] = np.minimum(1, np.minimum.accumulate(scaled))
    return q_values


def permutation_test(
    residuals: FloatArray, families: Mapping[DriftType, FloatArray], rng: np.random.Generator
) -> tuple[float, dict[DriftType, float]]:
    """Test whether the order of a person's sittings says something.

    The statistic of an alternative is the largest squared length of a contrast's sums, over all
    columns; that of the person is the largest one in standard deviations of its permutations.

    Parameters
    ----------
    residuals
        (n_sittings, n_columns) as in `PersonSittings`.
    families
        (n_contrasts, n_sittings) rows of length 1 by alternative.

    Returns
    -------
    p_value, statistics
        The first is at least 1 / (n + 1) for n permutations. A p-value of a first round that is
        clear is taken from a second one alone, which keeps it valid.
    """
    p_value, statistics = _round(residuals, families, FIRST_ROUND, rng)
    if p_value <= CLEAR:
        return _round(residuals, families, SECOND_ROUND, rng)
    return p_value, statistics


def _round(
    residuals: FloatArray,
    families: Mapping[DriftType, FloatArray],
    n: int,
    rng: np.random.Generator,
) -> tuple[float, dict[DriftType, float]]:
    contrasts = np.concatenate(list(families.values())).astype(np.float32)
    starts = np.cumsum([0, *map(len, families.values())])[:-1]
    order = rng.permuted(np.tile(np.arange(len(residuals)), (n + 1, 1)), axis=1)
    order[0] = np.arange(len(residuals))
    values = residuals.astype(np.float32)
    found = []
    for begin in range(0, n + 1, BATCH):
        permuted = values[order[begin : begin + BATCH].T]  # (n_sittings, n_batch, n_columns)
        sums = contrasts @ permuted.reshape(len(values), -1)
        squared = (sums.reshape(len(contrasts), *permuted.shape[1:]) ** 2).sum(axis=2)
        found.append(np.maximum.reduceat(squared, starts, axis=0))
    largest = np.concatenate(found, axis=1).astype(np.float64)  # (n_families, n + 1)
    deviation = np.maximum(largest.std(axis=1, keepdims=True), 1e-9)
    standard = (largest - largest.mean(axis=1, keepdims=True)) / deviation
    of_person = standard.max(axis=0)
    p_value = float((of_person >= of_person[0] - 1e-4).mean())  # float32 rounds
    excess = (largest[:, 0] - largest.mean(axis=1)) / deviation.mean()
    return p_value, dict(zip(families, excess.tolist(), strict=True))


def _test_person(
    dataset: Dataset, one: PersonSittings, cycle_days: float, seed: int
) -> PersonDrift:
    """Test one person; the q-value is not known yet."""
    days = (one.start - one.start[0]) / DAY
    families = _families(days, cycle_days)
    rng = np.random.default_rng((seed, one.user_idx))
    p_value, statistics = permutation_test(one.residuals, families, rng)
    kind = max(statistics, key=lambda name: statistics[name])
    projected = families[kind] @ one.residuals
    best = int((projected**2).sum(axis=1).argmax())
    column = int(np.abs(projected[best]).argmax())
    contrast, category = families[kind][best], int(one.columns[column])
    before, after = _shares(one, contrast, category)
    return PersonDrift(
        user_id=str(dataset.log.user_ids[one.user_idx]),
        type=kind,
        p_value=p_value,
        q_value=1.0,
        statistics=statistics,
        category=None if category < 0 else dataset.catalog.categories[category],
        share_before=before,
        share_after=after,
        changed=_change(one, contrast),
        n_events=one.n_events,
        n_sittings=len(one.start),
    )


def _families(days: FloatArray, cycle_days: float) -> dict[DriftType, FloatArray]:
    """Give the contrasts of each alternative that a history is long enough for."""
    time = days / days[-1]
    families: dict[DriftType, FloatArray] = {
        "gradual": gradual_contrasts(time),
        "sudden": sudden_contrasts(len(days)),
        "seasonal": seasonal_contrasts(days / cycle_days),
        "returning": returning_contrasts(time),
    }
    return {name: rows for name, rows in families.items() if len(rows)}


def _shares(one: PersonSittings, contrast: FloatArray, category: int) -> tuple[float, float]:
    """Share of a category where the contrast is low and where it is high."""
    low, high = _sides(contrast)
    shares = []
    for side in (low, high):
        counts = one.counts[side].sum(axis=0)
        taken = counts[np.setdiff1d(np.arange(len(counts)), one.columns)].sum()
        if category >= 0:
            taken = counts[category]
        shares.append(float(taken / max(counts.sum(), 1e-12)))
    return shares[0], shares[1]


def _sides(contrast: FloatArray) -> tuple[BoolArray, BoolArray]:
    """(n_sittings,) which lie in the lower, and in the upper quarter of a contrast's range."""
    quarter = (contrast.max() - contrast.min()) / 4
    return contrast <= contrast.min() + quarter, contrast >= contrast.max() - quarter


def _change(one: PersonSittings, contrast: FloatArray) -> tuple[np.datetime64, np.datetime64]:
    """First day of the upper part after the lower one, and first day when it is over.

    Of a contrast that only rises these are the end of the lower part and the start of the upper.
    """
    low, high = _sides(contrast)
    start = int(np.flatnonzero(high)[0])
    if high[start:].all():
        return one.start[np.flatnonzero(low)[-1]], one.start[start]
    return one.start[start], one.start[start + int(np.flatnonzero(~high[start:])[0])]
