"""Made-up logs of many kinds, for what has to work on any log.

Unlike `llmrec.data.synthetic`, whose best forecast is known, a log here differs from the next in
everything: how many categories, how much people take, what they share, and how they change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from llmrec.data.calendar import DAY, MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.report import CleaningReport
from llmrec.types import FloatArray, IntArray

FIRST_TIME = np.datetime64("2020-01-01T00:00:00", "ms")
PERIOD_DAYS = 28
EVENTS_PER_PERIOD = (5, 10, 20, 40)  # one of them, where periods are counted in events
CALENDAR_SHARE = 0.65  # of the logs, in which periods are calendar periods
KINDS = ("steady", "gradual", "sudden", "seasonal")  # how a person's interests change
MOST_EVENTS_OF_MANY = 50.0  # a person and period, in a log of more than 200 categories


@dataclass(frozen=True)
class RandomLogSettings:
    """What a made-up log is like; `draw` draws all of it.

    Attributes
    ----------
    n_users, n_periods, n_categories, n_prototypes
        Sizes.
    events
        Mean events of a person in a period.
    kind
        How people change, one of `KINDS`; "mixed": each in a way of their own.
    popularity, difference, idiosyncrasy
        Standard deviations of log weights: of categories, of prototypes around these, and of a
        person's own.
    walk, season
        How far everybody's mix wanders in a period, and swings in a year.
    bursts
        Concentration of a period's mix around the person's; infinite: the same in each.
    satiation
        Added to a category's log weight where it was taken lately: above 0 a habit.
    activity, absence
        Spread of log activity over people, and the share of empty periods.
    mixing
        Concentration of a person's mix of prototypes.
    change, changed
        How often a sudden person changes, and which share of their own weights then.
    """

    n_users: int
    n_periods: int
    n_categories: int
    n_prototypes: int
    events: float
    kind: str
    popularity: float
    difference: float
    idiosyncrasy: float
    walk: float
    season: float
    bursts: float
    satiation: float
    activity: float
    absence: float
    mixing: float
    change: float
    changed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> RandomLogSettings:
        """Draw the settings of a log."""
        n_categories = int(np.exp(rng.uniform(np.log(6), np.log(450))))
        events = float(np.exp(rng.uniform(np.log(4), np.log(80))))
        return cls(
            n_users=260,
            n_periods=int(rng.integers(5, 16)),
            n_categories=n_categories,
            n_prototypes=int(rng.integers(4, 25)),
            events=min(events, MOST_EVENTS_OF_MANY) if n_categories > 200 else events,
            kind=str(rng.choice([*KINDS, "mixed"])),
            popularity=rng.uniform(0.6, 1.8),
            difference=rng.uniform(0.5, 2.0),
            idiosyncrasy=rng.uniform(0.2, 2.2),
            walk=rng.choice([0, 0.03, 0.08, 0.15]),
            season=rng.choice([0, 0, 0.3, 0.8]),
            bursts=rng.choice([np.inf, 200, 50, 15]),
            satiation=rng.choice([0, 0, 0.5, -0.5, -1.5]),
            activity=rng.uniform(0.2, 1.0),
            absence=rng.choice([0, 0.1, 0.3, 0.5]),
            mixing=rng.uniform(0.1, 1.0),
            change=rng.uniform(0.05, 0.35),
            changed=rng.uniform(0.2, 0.6),
        )


def make_random_log(seed: int) -> Dataset:
    """Make a log of its own kind; its period is 28 days, or a number of events."""
    rng = np.random.default_rng(seed)
    settings = RandomLogSettings.draw(rng)
    period = f"{PERIOD_DAYS}D"
    if rng.random() > CALENDAR_SHARE:
        period = f"{rng.choice(EVENTS_PER_PERIOD)} events"
    counts = draw_counts(settings, rng)
    catalog = _make_catalog(settings.n_categories)
    log = _make_log(counts, catalog, rng)
    return Dataset(f"made-up-{seed}", log, catalog, period, "products", "shopper", "allow")


def draw_counts(settings: RandomLogSettings, rng: np.random.Generator) -> IntArray:
    """(n_periods, n_users, n_categories) events that people take."""
    people, (n, n_categories) = _People(settings, rng), (settings.n_users, settings.n_categories)
    popularity = rng.normal(0, settings.popularity, n_categories)
    spread = rng.normal(0, settings.difference, (settings.n_prototypes, n_categories))
    prototypes = special.softmax(popularity + spread, axis=1)
    steps = rng.normal(0, settings.walk, (settings.n_periods, n_categories))
    walk = np.cumsum(steps * (rng.random(n_categories) < 0.4), axis=0)
    season = settings.season * rng.normal(0, 1, n_categories)
    phase = rng.uniform(0, 2 * np.pi, n_categories)
    rate = settings.events * np.exp(rng.normal(0, settings.activity, n) - settings.activity**2 / 2)
    taken, counts = np.zeros((n, n_categories)), []
    for period in range(settings.n_periods):
        own, mixture = people.advance(period)
        common = walk[period] + season * np.sin(2 * np.pi * period / 12 + phase)
        habit = settings.satiation * np.minimum(taken, 1.5)
        mix = special.softmax(np.log(mixture @ prototypes + 1e-9) + own + common + habit, axis=1)
        if np.isfinite(settings.bursts):
            mix = rng.gamma(np.maximum(mix * settings.bursts, 1e-3)) + 1e-12
            mix /= mix.sum(axis=1, keepdims=True)
        events = np.maximum(1, rng.poisson(rate)) * (rng.random(n) >= settings.absence)
        counts.append(rng.multinomial(events, mix))
        taken = 0.5 * taken + np.minimum(counts[-1], 2)
    return np.stack(counts)


class _People:
    """What people like, period by period."""

    def __init__(self, settings: RandomLogSettings, rng: np.random.Generator) -> None:
        n, concentration = settings.n_users, np.full(settings.n_prototypes, settings.mixing)
        self.settings, self.rng, self.concentration = settings, rng, concentration
        self.mixture = rng.dirichlet(concentration, n)
        self.other = rng.dirichlet(concentration, n)
        self.own = rng.normal(0, settings.idiosyncrasy, (n, settings.n_categories))
        self.kinds = np.full(n, settings.kind)
        if settings.kind == "mixed":
            self.kinds = np.array(KINDS)[rng.integers(0, len(KINDS), n)]
        self.season_periods = int(rng.choice([2, 3, 6]))

    def advance(self, period: int) -> tuple[FloatArray, FloatArray]:
        """Give people's own log weights and mixes of prototypes in the next period."""
        settings, rng = self.settings, self.rng
        gradual = self.kinds == "gradual"
        if n := int(gradual.sum()):
            kept = 1 - settings.change / 2
            fresh = rng.normal(0, settings.idiosyncrasy, (n, settings.n_categories))
            self.own[gradual] = kept * self.own[gradual] + np.sqrt(1 - kept**2) * fresh
            self.mixture[gradual] = 0.9 * self.mixture[gradual] + 0.1 * self.other[gradual]
        sudden = (self.kinds == "sudden") & (rng.random(len(self.kinds)) < settings.change)
        if n := int(sudden.sum()):
            self.mixture[sudden] = rng.dirichlet(self.concentration, n)
            fresh = rng.normal(0, settings.idiosyncrasy, (n, settings.n_categories))
            changed = rng.random(fresh.shape) < settings.changed
            self.own[sudden] = np.where(changed, fresh, self.own[sudden])
        away = (self.kinds == "seasonal") & ((period // self.season_periods) % 2 == 1)
        return self.own, np.where(away[:, None], self.other, self.mixture)


def _make_catalog(n_categories: int) -> Catalog:
    """Make a catalog of one item a category."""
    names = [f"{category:04d}" for category in range(n_categories)]
    frame = pd.DataFrame({"item_id": names, "title": names, "categories": [[n] for n in names]})
    return Catalog.from_frame(frame)


def _make_log(counts: IntArray, catalog: Catalog, rng: np.random.Generator) -> Interactions:
    """Make a log of (n_periods, n_users, n_categories) counts, at random times of each period."""
    period, user, category = np.nonzero(counts)
    each = np.repeat(np.arange(len(period)), counts[period, user, category])
    span = int(PERIOD_DAYS * DAY / MILLISECOND)
    time = period[each] * span + rng.integers(0, span, len(each))
    order = np.lexsort((time, user[each]))
    users = np.bincount(user[each], minlength=counts.shape[1])
    kept = np.flatnonzero(users)
    log = Interactions.empty(catalog.item_ids)
    return replace(
        log,
        user_ids=pd.Index([f"u{number:05d}" for number in kept]),
        user_offsets=np.concatenate(([0], users[kept].cumsum())),
        item_idx=category[each][order],
        timestamp=FIRST_TIME + time[order].astype("timedelta64[ms]"),
        source_row=order,
        report=CleaningReport(len(order)),
    )
