"""A made-up log of which each person's type of drift is known, to measure how well it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.synthetic import (
    CATEGORIES,
    FIRST_TIME,
    N_PROTOTYPES,
    PROTOTYPE_CONCENTRATION,
    UNIFORM_WEIGHT,
    make_synthetic_world,
)
from llmrec.errors import DataError
from llmrec.types import FloatArray, IntArray

DRIFTS = ("gradual", "sudden", "seasonal", "returning", "none")
CYCLE_DAYS = 364
RAMP = (0.5, 1.0)  # shares of the time that a gradual drift takes
BURST_DAYS = 3  # in a row, of a bursty person's sitting
BURST_CONCENTRATION = 4.0  # of the Dirichlet that a burst's mix is drawn from


@dataclass(frozen=True, eq=False)
class DriftWorld:
    """A log, and the type of drift of each of ``dataset.log.user_ids``."""

    dataset: Dataset
    types: npt.NDArray[np.str_]


def make_drift_world(
    n_users: int = 300,
    n_days: int = 728,
    events_per_month: float = 10,
    drifts: Sequence[str] = DRIFTS,
    bursty: bool = False,
    swing: float = 0.0,
    seed: int = 0,
) -> DriftWorld:
    """Draw people whose mix of categories is constant or moves from one to another and back.

    Parameters
    ----------
    drifts
        Types that people are given in turn; one that stands there twice is as frequent.
    bursty
        Whether events come in bursts of up to `BURST_DAYS` days, each with a mix of its own.
    swing
        Logarithm of how far everybody's rate of each category swings in a cycle of `CYCLE_DAYS`,
        and half of that as a trend from first to last day.

    Raises
    ------
    DataError
        If a type of drift is unknown or a size too small.
    """
    if not drifts or not set(drifts) <= set(DRIFTS):
        raise DataError(f"drifts {tuple(drifts)} must be some of {DRIFTS}.")
    if n_users < 1 or n_days < 28 or not events_per_month > 0:
        raise DataError(
            f"n_users={n_users}, n_days={n_days}, events_per_month={events_per_month}: a world "
            "needs a person, 28 days and a positive number of events."
        )
    rng = np.random.default_rng(seed)
    catalog = make_synthetic_world(n_users=1, n_periods=1, seed=0).dataset.catalog
    mixes = rng.dirichlet(np.full(len(CATEGORIES), PROTOTYPE_CONCENTRATION), size=N_PROTOTYPES)
    mixes = (1 - UNIFORM_WEIGHT) * mixes + UNIFORM_WEIGHT / len(CATEGORIES)
    phase = rng.random(len(CATEGORIES))
    slope = rng.choice([-0.5, 0.5], size=len(CATEGORIES))
    types = np.array(drifts)[rng.permutation(np.arange(n_users) % len(drifts))]
    rows = []
    for user, kind in enumerate(types.tolist()):
        day, burst = _draw_days(n_days, events_per_month, bursty, rng)
        first, second = mixes[rng.choice(N_PROTOTYPES, 2, replace=False)]
        done = _course(kind, day / n_days, day / CYCLE_DAYS, rng)[:, None]
        of_all = (
            np.cos(2 * np.pi * (day[:, None] / CYCLE_DAYS - phase)) + slope * day[:, None] / n_days
        )
        mix = ((1 - done) * first + done * second) * np.exp(swing * of_all)
        rows.append(_draw_events(user, day, burst, mix, bursty, catalog, rng))
    log = Interactions.from_frame(pd.concat(rows), bot_events_per_day=None).align_to(catalog)
    dataset = Dataset("drifts", log, catalog, "28D", "products", "shopper", "allow")
    known = pd.Series(types, index=np.char.mod("u%06d", np.arange(n_users)))
    return DriftWorld(dataset, known[log.user_ids].to_numpy(dtype=str))


def _course(
    kind: str, time: FloatArray, cycles: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """(n_events,) how far a person has gone from the first mix to the second, in [0, 1]."""
    if kind == "gradual":
        width = rng.uniform(*RAMP)
        return np.clip((time - rng.uniform(0, 1 - width)) / width, 0, 1)
    if kind == "sudden":
        return np.asarray(time >= rng.uniform(0.25, 0.75), dtype=np.float64)
    if kind == "seasonal":
        return np.asarray((cycles + rng.random()) % 1 < 0.5, dtype=np.float64)
    if kind == "returning":
        width = rng.uniform(0.25, 0.5)
        start = rng.uniform(0.2, 0.8 - width)
        return np.asarray((time >= start) & (time < start + width), dtype=np.float64)
    return np.zeros(len(time))


def _draw_days(
    n_days: int, events_per_month: float, bursty: bool, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """(n_events,) days of events, in order, and the number of the burst that each belongs to."""
    size = 5.0 if bursty else 2.0  # events a sitting, on average
    n = max(1, int(rng.poisson(events_per_month * n_days / 28 / size)))
    start = np.sort(rng.integers(n_days, size=n))
    burst = np.repeat(np.arange(n), rng.geometric(1 / size, size=n))
    later = rng.integers(BURST_DAYS, size=len(burst)) if bursty else 0
    day = np.minimum(start[burst] + later, n_days - 1)
    order = np.argsort(day, kind="stable")
    return day[order], burst[order]


def _draw_events(
    user: int,
    day: IntArray,
    burst: IntArray,
    mix: FloatArray,
    bursty: bool,
    catalog: Catalog,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Draw one person's events from (n_events, n_categories) mixes, which need not sum to 1."""
    mix = mix / mix.sum(axis=1, keepdims=True)
    if bursty:  # gammas of one burst, scaled, are a Dirichlet around the mix
        first = np.searchsorted(np.sort(burst), np.arange(burst.max() + 1))
        centre = mix[np.argsort(burst, kind="stable")[first]]
        drawn = rng.gamma(BURST_CONCENTRATION * centre) + 1e-12
        mix = (drawn / drawn.sum(axis=1, keepdims=True))[burst]
    category = (rng.random((len(day), 1)) > mix.cumsum(axis=1)[:, :-1]).sum(axis=1)
    each = catalog.n_items // catalog.n_categories
    item = category * each + rng.integers(each, size=len(day))
    second = np.arange(len(day)).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "user_id": f"u{user:06d}",
            "item_id": catalog.item_ids.to_numpy()[item],
            "timestamp": FIRST_TIME + day.astype("timedelta64[D]") + second,
        }
    )
