"""Forecasts from what people of similar interests took next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from llmrec.data.counts import age_weighted_counts, row_shares
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.sparse_counts import (
    sparse_age_weighted_counts,
    sparse_row_shares,
    sparse_target_counts,
)
from llmrec.data.stored import Stored, sparse_arrays
from llmrec.errors import TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import (
    fit_interpolation_of_cells,
    interpolate,
    make_forecasts,
)
from llmrec.forecasters.counting import age_weights
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.precomputed import HeldOutPredictions
from llmrec.forecasters.stored_values import (
    fit_values,
    read_fit,
    read_number,
    read_sparse_shares,
    refuse_broken,
)
from llmrec.forecasters.target_cells import TargetCells
from llmrec.types import FloatArray, IntArray

RECENCY_DECAY = 0.9  # weight of a period relative to the next newer one
SHARPNESSES = (10.0, 20.0, 40.0, 80.0)
MAX_NEIGHBOURS = 8_000  # windows that are stored; more lower the loss of neither embedded log
HISTORIES_PER_BATCH = 256  # histories compared with all others at a time


@dataclass(frozen=True, eq=False)
class NeighbouringUsers:
    """q = (1 - share) * counting + share * weighted mean of what others took next.

    Others are histories of the windows, `MAX_NEIGHBOURS` at most: everybody's newest, then
    everybody's second, and so on. Their weights are the softmax of ``sharpness`` times the
    similarity of the interest vectors (Bhattacharyya coefficient, 0..1). All of them count, the
    most similar ones most, so that no rounding decides who is a neighbour.

    Attributes
    ----------
    neighbour_interests
        (n_windows, n_categories) square roots of the others' interest vectors, sparse rows in
        single precision.
    neighbour_next_shares
        (n_windows, n_categories) what they took in the period after, of the same type.
    """

    prior: GlobalDrift = field(default_factory=GlobalDrift)
    sharpness: float = 20.0
    share: float = 0.0
    neighbour_interests: sparse.csr_array = field(default_factory=lambda: sparse.csr_array((0, 0)))
    neighbour_next_shares: sparse.csr_array = field(
        default_factory=lambda: sparse.csr_array((0, 0))
    )
    spread: Spread = DEFAULT_DISPERSION
    fitted: TrainingSpan | None = None
    held_out: HeldOutPredictions | None = None

    def fit(self, training: Sequence[Window], validation: Sequence[Window]) -> NeighbouringUsers:
        """Store the training windows; sharpness and share are those of least validation loss.

        Afterwards the validation windows are stored as well. ``held_out`` are their weights from
        before.
        """
        prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        fitted = TrainingSpan.of_windows(training, validation).union(prior.fitted)
        histories = [window.history for window in validation]
        counted = prior.category_weights(histories)
        others = _neighbours(training)
        sharpness, share = _choose(validation, counted, others)
        predicted = _means_of_all(histories, *others, sharpness)
        weights = interpolate(counted, predicted, share)
        interests, next_shares = _neighbours([*training, *validation])
        return replace(
            self,
            prior=prior,
            sharpness=sharpness,
            share=share,
            neighbour_interests=interests,
            neighbour_next_shares=next_shares,
            spread=fit_dispersion(validation, weights),
            fitted=fitted,
            held_out=HeldOutPredictions.of(validation, weights),
        )

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        self._check_fitted()
        others = self.neighbour_interests, self.neighbour_next_shares
        predicted = _means_of_all(histories, *others, self.sharpness)
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source("NeighbouringUsers", "counting")
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def stored(self) -> Stored:
        """Give the neighbours, and the prior as a part; TrainingError before a fit."""
        self._check_fitted()
        values = {"sharpness": self.sharpness, "share": self.share}
        values |= fit_values(self.spread, self.fitted)
        arrays = sparse_arrays("interests", self.neighbour_interests)
        arrays |= sparse_arrays("next_shares", self.neighbour_next_shares)
        parts = {"prior": self.prior.stored()}
        return Stored("NeighbouringUsers", values, arrays, parts=parts)

    @classmethod
    def from_stored(cls, stored: Stored) -> NeighbouringUsers:
        """Make it again, without held-out weights; ModelLoadError if a value cannot be."""
        with refuse_broken(stored, "NeighbouringUsers"):
            interests = read_sparse_shares(stored, "interests")
            next_shares = read_sparse_shares(stored, "next_shares")
            if interests.shape != next_shares.shape:
                raise ValueError(f"interests are {interests.shape}, next_shares not")
            return cls(
                GlobalDrift.from_stored(stored.parts["prior"]),
                sharpness=read_number(stored, "sharpness"),
                share=read_number(stored, "share", high=1.0),
                neighbour_interests=interests,
                neighbour_next_shares=next_shares,
                **read_fit(stored),
            )

    def _check_fitted(self) -> None:
        if not self.neighbour_interests.shape[0]:
            raise TrainingError("NeighbouringUsers has no neighbours yet: fit it")


def _neighbours(windows: Sequence[Window]) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Interests and next shares of the newest windows, in the order of the windows."""
    found = [windows[position] for position in _newest(windows, MAX_NEIGHBOURS)]
    histories = [window.history for window in found]
    counts = sparse_age_weighted_counts(histories, age_weights(RECENCY_DECAY))
    interests, next_shares = sparse_row_shares(counts).sqrt(), sparse_target_counts(found)
    return interests.astype(np.float32), sparse_row_shares(next_shares).astype(np.float32)


def _newest(windows: Sequence[Window], n: int) -> IntArray:
    """Positions of n windows at most, ascending: everybody's newest, then everybody's second."""
    users = np.array([window.history.user_idx for window in windows])
    cutoffs = np.array([window.history.cutoff for window in windows], dtype="datetime64[ms]")
    newest_first = np.lexsort((-cutoffs.view(np.int64), users))
    of_user = users[newest_first]
    newer = np.empty(len(users), dtype=np.int64)  # windows of the same person that are newer
    newer[newest_first] = np.arange(len(users)) - np.searchsorted(of_user, of_user)
    return np.sort(np.lexsort((-cutoffs.view(np.int64), newer))[:n])


def _choose(
    validation: Sequence[Window],
    counted: FloatArray,
    others: tuple[sparse.csr_array, sparse.csr_array],
) -> tuple[float, float]:
    """Give the sharpness and the share of least validation loss.

    Of the means of each sharpness those of a batch alone are in memory, and what targets hold of
    them is kept.
    """
    cells = TargetCells.of_windows(validation)
    found = np.empty((len(SHARPNESSES), len(cells.rows)))
    known = np.empty((len(SHARPNESSES), len(validation)))
    for rows, means in _neighbour_means([one.history for one in validation], *others, SHARPNESSES):
        part, places = cells.part(rows)
        for place, mean in enumerate(means):
            found[place, part], known[place, rows] = mean[places], mean.sum(axis=1)
    fits = [
        fit_interpolation_of_cells(cells, cells.take(counted), one, total)
        for one, total in zip(found, known, strict=True)
    ]
    best = min(range(len(fits)), key=lambda place: fits[place][1])
    return SHARPNESSES[best], fits[best][0]


def _means_of_all(
    histories: Sequence[History],
    interests: sparse.csr_array,
    next_shares: sparse.csr_array,
    sharpness: float,
) -> FloatArray:
    """(n, n_categories) weighted means of others' next shares; 0 for a person without events."""
    batches = _neighbour_means(histories, interests, next_shares, (sharpness,))
    return np.concatenate([means[0] for _, means in batches])


def _neighbour_means(
    histories: Sequence[History],
    interests: sparse.csr_array,
    next_shares: sparse.csr_array,
    sharpnesses: Sequence[float],
) -> Iterator[tuple[slice, list[FloatArray]]]:
    """Yield the rows of a batch, and their weighted means of next shares for each sharpness."""
    for start in range(0, len(histories), HISTORIES_PER_BATCH):
        part = histories[start : start + HISTORIES_PER_BATCH]
        own = np.sqrt(row_shares(age_weighted_counts(part, age_weights(RECENCY_DECAY))))
        similarity = interests @ own.T
        known = own.sum(axis=1, keepdims=True) > 0
        means = [
            (next_shares.T @ _softmax(sharpness * similarity)).T * known
            for sharpness in sharpnesses
        ]
        yield slice(start, start + len(part)), means


def _softmax(scores: FloatArray) -> FloatArray:
    """Softmax down the columns of (n_others, n) scores, which are overwritten."""
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores
