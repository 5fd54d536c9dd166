"""A made-up shop whose best possible forecast is known exactly, and its people's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from llmrec.data.calendar import DAY, MILLISECOND, PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.counts import period_counts
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.types import FloatArray, IntArray, TimeArray

DriftPattern = Literal["stable", "drifting", "abrupt", "seasonal"]
DRIFT_PATTERNS: tuple[DriftPattern, ...] = get_args(DriftPattern)
JUMP_PROBABILITY = 0.15  # that an abrupt person changes at a boundary
DRIFT_STEPS = 4  # steps, one a boundary, of a drifting person's way from one prototype to another
SEASON_PERIODS = 2  # periods until a seasonal person changes over
FIRST_TIME = np.datetime64("2020-01-01T00:00:00", "ms")
PERIOD = PeriodLength(28, "days")
N_PROTOTYPES = 8
PROTOTYPE_CONCENTRATION = 0.4  # of the Dirichlet that prototypes are drawn from, a category
UNIFORM_WEIGHT = 0.03  # of equal shares in each prototype, so that none has a share of 0
# Category, what its items are like, what they are. In the catalog's own order: by name.
_WORDS = (
    ("Aquarium", "Tropical Silent Freshwater Compact Glass", "Filter Pump Gravel Heater"),
    ("Astronomy", "Portable Refracting Lunar Deep-Sky Beginner", "Telescope Atlas Eyepiece Tripod"),
    ("Baking", "Wholegrain Vanilla Nonstick Sourdough Almond", "Flour Tin Mix Kit"),
    ("Camping", "Ultralight Waterproof Family Alpine Folding", "Tent Stove Lantern Mat"),
    ("Coffee", "Dark Ethiopian Organic Decaf Italian", "Roast Espresso Beans Pods"),
    ("Cycling", "Carbon Reflective Mountain City Touring", "Helmet Pedal Jersey Saddle"),
    ("Fishing", "Trout Saltwater Telescopic Braided Floating", "Rod Reel Line Lure"),
    ("Gardening", "Climbing Heirloom Potted Perennial Fragrant", "Rose Tomato Lavender Seeds"),
    ("Knitting", "Merino Chunky Bamboo Striped Cotton", "Yarn Needles Pattern Shawl"),
    ("Music", "Acoustic Electric Vintage Student Studio", "Guitar Keyboard Microphone Strings"),
    ("Painting", "Watercolour Acrylic Stretched Sable Pastel", "Set Canvas Brush Easel"),
    ("Photography", "Wide-Angle Mirrorless Padded Polarising Instant", "Camera Lens Bag Flash"),
    ("Pottery", "Stoneware Glazed Porcelain Terracotta Raku", "Clay Bowl Wheel Vase"),
    ("Puzzles", "Wooden Panorama Magnetic Mystery Classic", "Jigsaw Cube Maze Labyrinth"),
    ("Skiing", "Thermal Freestyle Racing Powder Nordic", "Goggles Skis Boots Gloves"),
    ("Yoga", "Cork Restorative Stretch Travel Meditation", "Block Mat Strap Cushion"),
)
CATEGORIES = tuple(name for name, _, _ in _WORDS)


@dataclass(frozen=True, eq=False)
class InterestHMM:
    """Hidden Markov model of a person's interests: states, and the mix of categories in each.

    A person follows one drift pattern for good, all patterns being equally likely, and starts in
    each state of that pattern with the same probability. Only "abrupt" changes state; the other
    states are whole plans (which prototypes, and when), whose mix depends on the period.

    Attributes
    ----------
    patterns
        The drift patterns that occur.
    prototypes
        (n_prototypes, n_categories) mixes, all > 0; rows sum to 1.
    n_periods
        Length of the log; a drift begins at one of its inner boundaries.
    """

    patterns: tuple[DriftPattern, ...]
    prototypes: FloatArray
    n_periods: int

    def state_mixes(self, pattern: DriftPattern, period: int) -> FloatArray:
        """(n_states, n_categories) mix of categories in a period (0: the first), by state."""
        if pattern in ("stable", "abrupt"):
            return self.prototypes
        pairs = np.array(list(permutations(range(len(self.prototypes)), 2)))
        first, second = self.prototypes[pairs[:, 0]], self.prototypes[pairs[:, 1]]
        if pattern == "seasonal":
            return np.asarray(second if period // SEASON_PERIODS % 2 else first)
        begins = np.arange(max(1, self.n_periods - 1))
        done = np.clip(period - begins, 0, DRIFT_STEPS)[:, None, None] / DRIFT_STEPS
        mixes = (1 - done) * first + done * second
        return np.asarray(mixes.reshape(-1, mixes.shape[-1]))

    def all_state_mixes(self, period: int) -> FloatArray:
        """(n_all_states, n_categories) the same for all patterns, one after the other."""
        return np.concatenate([self.state_mixes(pattern, period) for pattern in self.patterns])

    def sample_paths(self, pattern: DriftPattern, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, n_periods, n_categories) mixes by period of n people, drawn at random."""
        state, mixes = rng.integers(len(self.state_mixes(pattern, 0)), size=n), []
        for period in range(self.n_periods):
            mixes.append(self.state_mixes(pattern, period)[state])
            if pattern == "abrupt":
                n_states = len(self.prototypes)
                other = (state + rng.integers(1, n_states, size=n)) % n_states
                state = np.where(rng.random(n) < JUMP_PROBABILITY, other, state)
        return np.stack(mixes, axis=1)

    def posterior(self, counts: FloatArray) -> FloatArray:
        """(n, n_all_states) probability of each state in the period after some counts.

        Parameters
        ----------
        counts
            (n, n_periods, n_categories) events by category since the log's first period.

        Returns
        -------
        FloatArray
            Rows sum to 1. The forward filter of Rabiner 1989, equations 19 and 20, in logarithms.
        """
        sizes = [len(self.state_mixes(pattern, 0)) for pattern in self.patterns]
        log_joint = np.tile(np.repeat(-np.log(sizes), sizes), (len(counts), 1))
        for period in range(counts.shape[1]):
            log_joint = log_joint + counts[:, period] @ np.log(self.all_state_mixes(period)).T
            log_joint -= log_joint.max(axis=1, keepdims=True)
            if "abrupt" in self.patterns:
                first = sum(sizes[: self.patterns.index("abrupt")])
                abrupt = slice(first, first + len(self.prototypes))
                log_joint[:, abrupt] = _jump(log_joint[:, abrupt])
        return np.asarray(special.softmax(log_joint, axis=1))


def _jump(log_joint: FloatArray) -> FloatArray:
    """(n, n_prototypes) log joint probabilities of abrupt people after one more boundary."""
    each = JUMP_PROBABILITY / (log_joint.shape[1] - 1)
    total = special.logsumexp(log_joint, axis=1, keepdims=True)
    return np.asarray(
        np.logaddexp(np.log(1 - JUMP_PROBABILITY - each) + log_joint, np.log(each) + total)
    )


@dataclass(frozen=True, eq=False)
class SyntheticWorld:
    """A synthetic log, the drift pattern of each of its people, and the best forecast of them.

    The forecast, E[mix of the next period | own counts], knows the generator (prototypes, rates,
    calendar) and neither a person's pattern nor their state. It is the best on average over the
    people of the world, not for those of one pattern picked out afterwards.

    Attributes
    ----------
    dataset
        The log, named "synthetic", of 28-day periods that start with the log's first event.
    patterns
        (n_users,) drift pattern of each of ``dataset.log.user_ids``.
    hmm
        The hidden states that events were drawn from.
    events_per_period
        Mean number of events a person and period, before the empty ones get their one event.
    """

    dataset: Dataset
    patterns: npt.NDArray[np.str_]
    hmm: InterestHMM
    events_per_period: float

    def expected_shares(self, histories: Sequence[History]) -> tuple[FloatArray, FloatArray]:
        """Give expected shares of the period after each history, and how far they scatter.

        Returns
        -------
        category_weights, concentration
            (n_histories, n_categories) expected mixes, and (n_histories,) Dirichlet concentrations
            of the shares that events will be drawn from.

        Raises
        ------
        DataError
            If a history is not cut at a boundary of this world's periods.
        """
        periods = np.array([self._period_after(history) for history in histories], dtype=np.int64)
        weights = np.empty((len(histories), self.dataset.catalog.n_categories))
        concentration = np.empty(len(histories))
        for period in np.unique(periods).tolist():
            rows = np.flatnonzero(periods == period).tolist()
            part = [histories[row] for row in rows]
            weights[rows], concentration[rows] = self._expected_in(period, part)
        return weights, concentration

    def _period_after(self, history: History) -> int:
        """Give the number of the period that follows a history."""
        period = int((history.cutoff - FIRST_TIME) / np.timedelta64(PERIOD.n, "D"))
        if (
            history.period_length != PERIOD
            or period < 0
            or history.cutoff != PERIOD.shift(FIRST_TIME, period)
        ):
            raise DataError(
                f"the history of user {history.user_id!r} has periods of {history.period_length} "
                f"and is cut at {history.cutoff}; the optimum is known for periods of {PERIOD} "
                f"since {FIRST_TIME}. Cut at one of period_boundaries(log, '{PERIOD.n}D')."
            )
        if history.catalog.n_categories != self.hmm.prototypes.shape[1]:
            raise DataError(
                f"the catalog has {history.catalog.n_categories} categories, this world "
                f"{self.hmm.prototypes.shape[1]}. Forecast histories of the world's own dataset."
            )
        return period

    def _expected_in(
        self, period: int, histories: Sequence[History]
    ) -> tuple[FloatArray, FloatArray]:
        """(n, n_categories) expected mixes of one period, and (n,) concentrations.

        The concentration is the one whose summed variance of shares is that of the mix. What is
        observed scatters more: few events are drawn from it.
        """
        posterior = self.hmm.posterior(period_counts(histories, period))
        mixes = self.hmm.all_state_mixes(period)
        mean = posterior @ mixes
        mean /= mean.sum(axis=1, keepdims=True)
        squared, of_mean = posterior @ (mixes**2).sum(axis=1), (mean**2).sum(axis=1)
        variance = np.maximum(squared - of_mean, 1e-9)
        return mean, np.clip((1 - of_mean) / variance - 1, 0.5, 1e6)


def make_synthetic_world(
    n_users: int = 500,
    n_periods: int = 12,
    events_per_period: float = 20,
    patterns: Sequence[DriftPattern] = DRIFT_PATTERNS,
    seed: int = 0,
) -> SyntheticWorld:
    """Draw a world whose people keep their interests or change them in known ways.

    Parameters
    ----------
    n_users, n_periods
        Size of the log; everybody is there in every period.
    events_per_period
        Mean of a Poisson number of events a person and period, of which there is at least one.
    patterns
        "stable" people have one prototype for good. "drifting" ones move from one to another in
        `DRIFT_STEPS` steps from a random boundary. "abrupt" ones jump to another with probability
        `JUMP_PROBABILITY` at each boundary. "seasonal" ones have two that take turns every
        `SEASON_PERIODS` periods.

    Raises
    ------
    DataError
        If a size is not positive, or a pattern is unknown or there twice.
    """
    if min(n_users, n_periods) < 1 or not events_per_period > 0:
        raise DataError(
            f"n_users={n_users}, n_periods={n_periods}, events_per_period={events_per_period}: "
            "a world needs at least one person, one period and a positive number of events."
        )
    known = set(DRIFT_PATTERNS)
    if not patterns or len(set(patterns)) < len(patterns) or not set(patterns) <= known:
        raise DataError(f"patterns {tuple(patterns)} must be some of {DRIFT_PATTERNS}, each once.")
    rng = np.random.default_rng(seed)
    concentrations = np.full(len(CATEGORIES), PROTOTYPE_CONCENTRATION)
    prototypes = rng.dirichlet(concentrations, size=N_PROTOTYPES)
    prototypes = (1 - UNIFORM_WEIGHT) * prototypes + UNIFORM_WEIGHT / len(CATEGORIES)
    hmm = InterestHMM(tuple(patterns), prototypes, n_periods)
    of_users = np.array(patterns)[rng.permutation(np.arange(n_users) % len(patterns))]
    mixes = np.empty((n_users, n_periods, len(CATEGORIES)))
    for pattern in hmm.patterns:
        rows = of_users == pattern
        mixes[rows] = hmm.sample_paths(pattern, int(rows.sum()), rng)
    catalog = _catalog()
    log = _draw_log(mixes, catalog, events_per_period, rng)
    dataset = Dataset("synthetic", log, catalog, "28D", "products", "shopper", "allow")
    return SyntheticWorld(dataset, of_users, hmm, events_per_period)


def relabel_categories(dataset: Dataset, seed: int) -> Dataset:
    """Give the dataset with each category named after one of its items: Yoga is Cork Yoga."""
    catalog, rng = dataset.catalog, np.random.default_rng(seed)
    items_of = catalog.category_shares.tocsc()
    names = {}
    for c, name in enumerate(catalog.categories):
        item = int(rng.choice(items_of.indices[items_of.indptr[c] : items_of.indptr[c + 1]]))
        names[name] = f"{catalog.titles[item].split()[0]} {name}"
    frame = pd.DataFrame(
        {
            "item_id": catalog.item_ids,
            "title": catalog.titles,
            "categories": [
                [names[name] for name in catalog.categories_of(item)]
                for item in range(catalog.n_items)
            ],
        }
    )
    return replace(dataset, catalog=Catalog.from_frame(frame))


def _catalog() -> Catalog:
    """Make a catalog of twenty items a category, named by what they are like and what they are."""
    rows = [
        (f"{name[:3].lower()}{number:02d}", " ".join(words), [name])
        for name, qualities, things in _WORDS
        for number, words in enumerate(product(qualities.split(), things.split()))
    ]
    return Catalog.from_frame(pd.DataFrame(rows, columns=["item_id", "title", "categories"]))


def _draw_log(
    mixes: FloatArray, catalog: Catalog, events_per_period: float, rng: np.random.Generator
) -> Interactions:
    """Draw a log of events from (n_users, n_periods, n_categories) mixes."""
    n_users, n_periods, n_categories = mixes.shape
    counts = np.maximum(1, rng.poisson(events_per_period, size=n_users * n_periods))
    cell = np.repeat(np.arange(len(counts)), counts)
    bounds = mixes.reshape(-1, n_categories).cumsum(axis=1)[:, :-1]  # the last one is 1
    category = (rng.random((len(cell), 1)) > bounds[cell]).sum(axis=1)
    per_category = catalog.n_items // n_categories
    zipf = 1 / np.arange(1, per_category + 1)
    rank = rng.choice(per_category, size=len(cell), p=zipf / zipf.sum())
    frame = pd.DataFrame(
        {
            "user_id": np.char.mod("u%06d", cell // n_periods),
            "item_id": catalog.item_ids.to_numpy()[category * per_category + rank],
            "timestamp": _draw_times(counts, cell % n_periods, n_periods, rng),
        }
    )
    end = PERIOD.shift(FIRST_TIME, n_periods)
    log = Interactions.from_frame(frame, latest=end, bot_events_per_day=None)
    return log.align_to(catalog)


def _draw_times(
    counts: IntArray, period: IntArray, n_periods: int, rng: np.random.Generator
) -> TimeArray:
    """(n_events,) times, no two of one person alike: each event has its own part of the period.

    The first and the last event of all lie at the very ends of the grid of periods.
    """
    span = int(PERIOD.n * DAY / MILLISECOND)
    nth = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    part = np.repeat(span // counts, counts)
    times = period * span + nth * part + rng.integers(part)
    times[0], times[-1] = 0, n_periods * span - 1
    return FIRST_TIME + times.astype("timedelta64[ms]")
