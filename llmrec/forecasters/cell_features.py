"""What is known of each cell, a person and a category: the inputs of the pretrained nets.

Everything is a ratio, a logarithm or a share, so that it means the same on any log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llmrec.data.counts import age_weighted_counts, normalize_rows, row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.forecasters.category_events import HALF_LIVES, CategoryEvents, PopulationMixes
from llmrec.forecasters.category_lifts import CategoryLifts
from llmrec.forecasters.counting import (
    STRENGTHS,
    DecayedDirichlet,
    age_weights,
    population_mix,
    setting_losses,
)
from llmrec.types import FloatArray, IntArray

N_CELL, N_CATEGORY, N_PERSON, N_LOG = 25, 4, 7, 19
N_FEATURES = N_CELL + N_CATEGORY + N_PERSON + N_LOG
MAX_LOG_WINDOWS = 500  # windows that the numbers of a log are taken from
TRIED_DECAYS, TRIED_STRENGTHS = (0.6, 0.8, 0.9, 1.0), (5.0, 20.0, 80.0, 270.0)
LONGEST_HALF_LIFE = 30.0  # in periods; that of a decay of 1
SMALLEST_EXCESS = 0.002  # of a loss over the least, in nats: what is less makes no difference


class CellFeatures(NamedTuple):
    """Features of n histories, those of several cells alike once.

    ``prior`` (n, n_categories) are the log weights of counting, which the nets correct.
    ``cells`` (n, n_categories, N_CELL); ``categories`` (n_cutoffs, n_categories, N_CATEGORY), of
    which ``cutoffs`` (n,) is the row of each history; ``people`` (n, N_PERSON); ``log`` (N_LOG,).
    """

    prior: FloatArray
    cells: FloatArray
    categories: FloatArray
    cutoffs: IntArray
    people: FloatArray
    log: FloatArray

    def rows(self, rows: IntArray) -> FloatArray:
        """(len(rows), n_categories, N_FEATURES) all features of some histories, for training."""
        shape = (len(rows), self.prior.shape[1])
        parts = [
            self.cells[rows],
            self.categories[self.cutoffs[rows]],
            np.broadcast_to(self.people[rows][:, None], (*shape, N_PERSON)),
            np.broadcast_to(self.log, (*shape, N_LOG)),
        ]
        return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=2)


def compute_features(
    histories: Sequence[History],
    log_prior: FloatArray,
    mixes: PopulationMixes,
    lifts: CategoryLifts,
    log_features: FloatArray,
) -> CellFeatures:
    """Compute the features of at least one history.

    Parameters
    ----------
    log_prior
        (n_histories, n_categories) log weights of counting.
    mixes
        What everybody took before the histories' cutoffs.
    log_features
        Of `describe_log`.
    """
    events = CategoryEvents.of(histories)
    counts = [events.decayed(half_life) for half_life in HALF_LIVES]
    recent, n_categories = np.log(mixes.recent), events.n_categories
    lately = mixes.recent[mixes.which, 1]
    expected = mixes.expected(events)
    holding, active = events.active_periods()
    last = events.since_last()
    share = row_shares(counts[-1])
    cells = np.stack(
        [
            log_prior - np.log(lately),
            log_prior + np.log(n_categories),
            *(_log_ratio(count, lately) for count in counts),
            *(np.log1p(counts[position]) for position in (0, 1, 2, 4)),
            np.sqrt(share),
            np.log((row_shares(counts[3]) + 0.01 * lately) / (1.01 * lately)),
            np.log1p(np.minimum(last, 20.0)),
            np.where(last > 100, 1.0, 0.0),
            holding / np.maximum(active, 1.0)[:, None],
            np.log((holding + 0.2) / (active[:, None] + 0.4)),
            np.log(lately / expected),
            _log_ratio(counts[-1], expected),
            *_lift_features(events, counts, lately, lifts),
        ],
        axis=-1,
    )
    categories = np.stack(
        [
            recent[:, 1] + np.log(n_categories),
            recent[:, 0] - recent[:, 2],
            recent[:, 1] - recent[:, 3],
            recent[:, 1] - recent[:, 4],
        ],
        axis=-1,
    )
    people = _person_features(events, counts, share, expected, active, last)
    return CellFeatures(log_prior, cells, categories, mixes.which, people, log_features)


def describe_log(windows: Sequence[Window], prior: DecayedDirichlet) -> FloatArray:
    """(N_LOG,) numbers of a log: its size, and how well each setting of counting does on windows.

    They are taken from `MAX_LOG_WINDOWS` windows, evenly spread.
    """
    windows = windows[:: -(-len(windows) // MAX_LOG_WINDOWS)]
    histories = [window.history for window in windows]
    length, n_categories = histories[0].period_length, histories[0].catalog.n_categories
    active = np.array([np.count_nonzero(np.diff(history.offsets)) for history in histories])
    n_events = np.array([history.n_events for history in histories])
    mix = normalize_rows(population_mix(histories[-1:], "all"))[0]
    taken = age_weighted_counts(histories, age_weights(1.0)) > 0
    repeated = (row_shares(target_counts(windows)) * taken).sum(axis=1).mean()
    half_life = LONGEST_HALF_LIFE
    if prior.decay < 1:
        half_life = min(half_life, -np.log(2) / np.log(max(prior.decay, 1e-3)))
    numbers = [
        np.log(n_categories),
        np.log(max((n_events / np.maximum(active, 1)).mean(), 0.1)),
        float(length.unit != "events"),
        np.log(prior.strength),
        np.log(half_life),
        float(prior.mix == "all"),
        np.exp(-(mix * np.log(mix)).sum()) / n_categories,
        repeated,
        np.log(max(active.mean(), 0.5)),
    ]
    return np.array([*numbers, *_excess_losses(windows)], dtype=np.float64)


def _excess_losses(windows: Sequence[Window]) -> list[float]:
    """Give logs of how much worse counting is with one of its numbers fixed, number by number."""
    losses = setting_losses(windows)
    least, mixes = min(losses.values()), {mix for _, _, mix in losses}

    def excess(position: int, value: object) -> float:
        found = min(loss for setting, loss in losses.items() if setting[position] == value)
        return float(np.log(found - least + SMALLEST_EXCESS))

    assert set(TRIED_STRENGTHS) <= set(STRENGTHS)
    of_mixes = [excess(2, mix) if mix in mixes else 0.0 for mix in ("last period", "all")]
    by_decay = [excess(0, decay) for decay in TRIED_DECAYS]
    return [*by_decay, *of_mixes, *(excess(1, strength) for strength in TRIED_STRENGTHS)]


def _log_ratio(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """Log of (n, n_categories) counts over what a mix leads to expect, smoothed by half an event.

    A rare category is smoothed by less: by half of what an average category is expected to be.
    """
    smoothing = 0.5 * np.minimum(1.0, counts.shape[1] * expected)
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.log((counts + smoothing) / (total * expected + smoothing)))


def _lift_features(
    events: CategoryEvents, counts: list[FloatArray], lately: FloatArray, lifts: CategoryLifts
) -> list[FloatArray]:
    """Six (n, n_categories) logs of lifts; 0 of a log without lifts."""
    if not lifts:
        return [np.zeros_like(lately)] * 6
    together, alongside, following = lifts.predict(counts[3], counts[2], lately)
    coming, passed = lifts.predict_membership(events)
    ratios = [
        together / lately,
        alongside / lately,
        following / lately,
        following / alongside,
        coming / passed,
        coming / lately,
    ]
    return [np.log(ratio) for ratio in ratios]


def _person_features(
    events: CategoryEvents,
    counts: list[FloatArray],
    share: FloatArray,
    expected: FloatArray,
    active: FloatArray,
    last: FloatArray,
) -> FloatArray:
    """(n, N_PERSON): how much, how often, since when, how widely, and how far from everybody."""
    log_share = np.log(np.maximum(share, 1e-9))
    first = np.zeros(events.n_histories)
    np.maximum.at(first, events.rows, events.ages)
    return np.stack(
        [
            np.log1p(counts[4].sum(axis=1)),
            np.log1p(counts[1].sum(axis=1)),
            np.log(np.maximum(active, 0.5)),
            np.log1p(last.min(axis=1)),
            -(share * log_share).sum(axis=1),
            np.log1p(first),
            (share * (log_share - np.log(expected))).sum(axis=1),
        ],
        axis=-1,
    )
