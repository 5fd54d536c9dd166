"""How far a person's events of one category scatter around its forecast share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.beta_binomial import (
    MAX_SHARE,
    MIN_SHARE,
    clip_concentration,
    fit_log_concentration,
    log_pmf,
)
from llmrec.data.counts import events_per_share, target_events
from llmrec.data.periods import History, Window
from llmrec.data.stored import Stored
from llmrec.forecasters.dispersion import events_per_period
from llmrec.forecasters.linear_predictor import LinearPredictor
from llmrec.forecasters.past_counts import burstiness
from llmrec.forecasters.stored_values import refuse_broken
from llmrec.types import FloatArray, IntArray

N_FEATURES = 4
MAX_FIT_CELLS = 120_000  # (window, category) that the predictor is fitted on
MAX_OFFSET_CELLS = 1_000_000  # (window, category) that offsets are fitted on
CELLS_PER_BATCH = 2**20
OFFSETS = np.linspace(-2.5, 1.5, 17)  # of a category's log concentration
OFFSET_DEVIATION = 0.5  # of their normal prior
MAX_BIAS = 3.0  # of a category's forecast on validation: that is no dispersion


@dataclass(frozen=True, eq=False)
class CategoryDispersion:
    """Concentration of the beta-binomial of a category's events, by category and history.

    Its logarithm is linear in log share, log number of events, log events of a non-empty period
    and the category's burstiness, and each category has an offset.

    Attributes
    ----------
    predictor
        Of the log concentration, by the four features.
    offset, burst
        (n_categories,) what is added for a category, and its `burstiness`.
    per_share
        (n_categories,) `events_per_share`: turns shares into those of events with the category.
    """

    predictor: LinearPredictor
    offset: FloatArray
    burst: FloatArray
    per_share: FloatArray

    @classmethod
    def fit(
        cls, windows: Sequence[Window], category_weights: FloatArray, seed: int = 0
    ) -> CategoryDispersion:
        """Fit by likelihood on windows that ``category_weights`` were not fitted on.

        The offsets are fitted last, by the posterior mode under a normal prior.
        """
        histories = [window.history for window in windows]
        bare = cls(
            LinearPredictor(np.zeros(1 + N_FEATURES), np.zeros((4, N_FEATURES))),
            np.zeros(category_weights.shape[1]),
            burstiness(histories),
            events_per_share(histories),
        )
        some = np.flatnonzero([window.target.n_events > 0 for window in windows])
        rng = np.random.default_rng(seed)
        n_cells = min(MAX_FIT_CELLS, len(some) * category_weights.shape[1])
        rows = rng.choice(some, n_cells) if len(some) else some
        columns = rng.integers(category_weights.shape[1], size=len(rows))
        shares = bare.event_shares(category_weights)[rows, columns]
        numbers = np.array([float(window.target.n_events) for window in windows])
        counts = _cells_of_targets(windows, rows, columns)
        features = bare._features(histories, category_weights)
        cells = [np.broadcast_to(one, category_weights.shape)[rows, columns] for one in features]
        predictor = LinearPredictor.fit(
            np.stack(cells, axis=1),
            lambda x: fit_log_concentration(x, shares, counts, numbers[rows]),
        )
        fitted = cls(predictor, bare.offset, bare.burst, bare.per_share)
        most = max(1, MAX_OFFSET_CELLS // category_weights.shape[1])
        rows = np.sort(rng.permutation(some)[:most])
        chosen = [windows[row] for row in rows.tolist()]
        offset = fitted._fit_offsets(chosen, category_weights[rows])
        return cls(predictor, offset, bare.burst, bare.per_share)

    def event_shares(self, category_weights: FloatArray) -> FloatArray:
        """(n, n_categories) forecast shares of events that have a category."""
        return np.clip(category_weights * self.per_share, MIN_SHARE, MAX_SHARE)

    def concentration(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> FloatArray:
        """(n_histories, n_categories) concentrations."""
        features = self._features(histories, category_weights)
        return clip_concentration(self.predictor.predict(features) + self.offset)

    def stored(self) -> Stored:
        """Give the numbers."""
        names = ("offset", "burst", "per_share")
        arrays = {name: getattr(self, name) for name in names}
        return Stored("CategoryDispersion", {}, arrays | self.predictor.arrays("predictor"))

    @classmethod
    def from_stored(cls, stored: Stored, n_categories: int) -> CategoryDispersion:
        """Make it again; ModelLoadError if an array is missing or of other categories."""
        with refuse_broken(stored, "CategoryDispersion"):
            arrays = [stored.arrays[name] for name in ("offset", "burst", "per_share")]
            if wrong := [one.shape for one in arrays if one.shape != (n_categories,)]:
                raise ValueError(f"an array is of shape {wrong[0]}, not ({n_categories},)")
            predictor = LinearPredictor.from_arrays("predictor", stored.arrays, N_FEATURES)
            return cls(predictor, *arrays)

    def _features(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> list[FloatArray]:
        """Give arrays that broadcast to (n_histories, n_categories)."""
        events = np.array([float(history.n_events) for history in histories])
        return [
            np.log(self.event_shares(category_weights)),
            np.log(np.maximum(events, 1))[:, None],
            np.log(events_per_period(histories))[:, None],
            self.burst[None],
        ]

    def _fit_offsets(self, windows: Sequence[Window], category_weights: FloatArray) -> FloatArray:
        """(n_categories,) offsets of `OFFSETS` with the largest posterior.

        Shares are first scaled to a category's total, so that a bias of the period is none.
        """
        if not windows:
            return self.offset
        gains = np.zeros((len(OFFSETS), len(self.offset)))
        shares, counts = self.event_shares(category_weights), target_events(windows)
        numbers = np.array([float(window.target.n_events) for window in windows])[:, None]
        counts = np.minimum(counts, numbers)
        bias = (counts.sum(axis=0) + 5) / ((shares * numbers).sum(axis=0) + 5)
        scaled = np.clip(shares * np.clip(bias, 1 / MAX_BIAS, MAX_BIAS), MIN_SHARE, MAX_SHARE)
        for rows in _blocks(len(windows), len(self.offset)):
            histories = [window.history for window in windows[rows]]
            concentration = self.concentration(histories, category_weights[rows])
            q, k, n = scaled[rows], counts[rows], numbers[rows]
            for nth, offset in enumerate(OFFSETS):
                alpha = concentration * np.exp(offset)
                gains[nth] += log_pmf(k, n, alpha * q, alpha * (1 - q)).sum(axis=0)
        prior = OFFSETS[:, None] ** 2 / (2 * OFFSET_DEVIATION**2)
        return np.asarray(OFFSETS[np.argmax(gains - prior, axis=0)])


def _cells_of_targets(windows: Sequence[Window], rows: IntArray, columns: IntArray) -> FloatArray:
    """(n_cells,) events of the targets of some rows that have the category of the column."""
    found = np.empty(len(rows))
    for block in _blocks(len(windows), windows[0].history.catalog.n_categories):
        inside = (rows >= block.start) & (rows < block.stop)
        counts = target_events(windows[block])
        found[inside] = counts[rows[inside] - block.start, columns[inside]]
    return found


def _blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    size = max(1, CELLS_PER_BATCH // max(1, n_columns))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)
