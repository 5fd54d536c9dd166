"""What people of a log take together, in turn, and with the length of their membership."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from llmrec.data.counts import normalize_rows, row_shares
from llmrec.data.stored import Stored
from llmrec.forecasters.category_events import CategoryEvents
from llmrec.forecasters.collaborative import solve_ease
from llmrec.forecasters.stored_values import read_matrix, refuse_broken
from llmrec.types import FloatArray

MAX_CATEGORIES = 1_000  # of more, the squares take seconds and much memory: there are no lifts
MEMBERSHIP_PERIODS = 24  # whose mixes are told apart; later ones are one
MAX_TRANSITIONS = 12  # newest pairs of periods that transitions are counted in
OLD_HALF_LIFE, RECENT_HALF_LIFE = 10.0, 3.0  # in periods
PENALTY = 0.003  # of the gram matrix' trace, in its diagonal
FLOOR = 0.02  # share of everybody's mix in what is taken together


@dataclass(frozen=True, eq=False)
class CategoryLifts:
    """Category by category, what a log's people take together or in turn.

    Attributes
    ----------
    together
        (n_categories, n_categories) weights of EASE (Steck 2019) over square roots of shares.
    alongside
        (n_categories, n_categories) mix of the people who take the row's category; rows sum to 1.
    following
        (n_categories, n_categories) mix of the period after one with the row's category; rows sum
        to 1.
    by_membership
        (MEMBERSHIP_PERIODS + 1, n_categories) mix of people's first period, their second, and so
        on; rows sum to 1.
    """

    together: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    alongside: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    following: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    by_membership: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    def __bool__(self) -> bool:
        """Whether there are any: not of more than `MAX_CATEGORIES`."""
        return bool(len(self.together))

    @classmethod
    def fit(cls, events: CategoryEvents, lately: FloatArray, overall: FloatArray) -> CategoryLifts:
        """Count in the whole past of people.

        Parameters
        ----------
        events
            Of one history a person.
        lately, overall
            (n_categories,) what everybody took lately, and in all, which smooth the counts.
        """
        if events.n_categories > MAX_CATEGORIES:
            return cls()
        shares = row_shares(events.decayed(OLD_HALF_LIFE))
        roots = row_shares(np.sqrt(shares))
        gram = roots.T @ roots
        together = solve_ease(gram.copy(), PENALTY * float(np.trace(gram)) + 1e-3)
        alongside = shares.T @ shares + 1e-9 * overall
        return cls(
            together,
            normalize_rows(alongside),
            _following(events, lately),
            _by_membership(events, overall),
        )

    def predict(
        self, old: FloatArray, recent: FloatArray, lately: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Give what goes together, alongside, and next, as mixes; all > 0.

        Parameters
        ----------
        old, recent
            (n_histories, n_categories) counts of `OLD_HALF_LIFE` and of `RECENT_HALF_LIFE`.
        lately
            (n_histories, n_categories) what everybody took lately: the mix of a person without
            events.

        Returns
        -------
        together, alongside, following
            (n_histories, n_categories) each; rows sum to 1.
        """
        old, recent = row_shares(old), row_shares(recent)
        together = np.maximum(row_shares(np.sqrt(old)) @ self.together, 0.0)
        together = normalize_rows(together + FLOOR * lately + 1e-6)
        alongside = normalize_rows(old @ self.alongside + 1e-7)
        following = normalize_rows(recent @ self.following + 1e-7 * lately)
        return together, alongside, following

    def predict_membership(self, events: CategoryEvents) -> tuple[FloatArray, FloatArray]:
        """(n_histories, n_categories) mixes of members as old as each person will be, and was."""
        first = events.first_period_ages()
        coming = self.by_membership[np.minimum(first + 1, MEMBERSHIP_PERIODS)]
        nth = np.minimum(first[events.rows] - events.period_ages, MEMBERSHIP_PERIODS)
        own = row_shares(events.sums_by(nth, MEMBERSHIP_PERIODS + 1, events.shares))
        passed = own @ self.by_membership
        return coming, np.where(own.sum(axis=1, keepdims=True) > 0, passed, coming)

    def stored(self) -> Stored:
        """Give the matrices."""
        arrays = {name: getattr(self, name) for name in _MATRICES} if self else {}
        return Stored("CategoryLifts", {"any": bool(self)}, arrays)

    @classmethod
    def from_stored(cls, stored: Stored) -> CategoryLifts:
        """Make them again; ModelLoadError if a matrix is missing or cannot be."""
        with refuse_broken(stored, "CategoryLifts"):
            if stored.values["any"] is False:
                return cls()
            squares = {name: read_matrix(stored, name) for name in _MATRICES[:3]}
            mixes = np.asarray(stored.arrays["by_membership"])
            shape = (MEMBERSHIP_PERIODS + 1, len(squares["together"]))
            if mixes.shape != shape or mixes.dtype != np.float64:
                raise ValueError(f"by_membership is {mixes.dtype} of {mixes.shape}, not {shape}")
            found = {**squares, "by_membership": mixes}
            for name in _MATRICES[1:]:
                matrix = found[name]
                if not (matrix > 0).all() or np.abs(matrix.sum(axis=1) - 1).max() > 1e-6:
                    raise ValueError(f"a row of {name} is no distribution")
            if {len(square) for square in squares.values()} != {shape[1]}:
                raise ValueError("its matrices are of different numbers of categories")
            return cls(**found)


_MATRICES = ("together", "alongside", "following", "by_membership")


def _following(events: CategoryEvents, lately: FloatArray) -> FloatArray:
    """(n_categories, n_categories) mix of the period after one with the row's category."""
    longest = min(int(events.period_ages.max(initial=0)), MAX_TRANSITIONS)
    moves = np.zeros((events.n_categories, events.n_categories))
    newer = events.period_shares(0)
    for age in range(longest):
        older = events.period_shares(age + 1)
        moves += (older.T @ newer).toarray()  # 0 where one of the two is empty
        newer = older
    return normalize_rows(moves + 3.0 * lately)


def _by_membership(events: CategoryEvents, overall: FloatArray) -> FloatArray:
    """(MEMBERSHIP_PERIODS + 1, n_categories) mix of people's first period, their second, ..."""
    nth = events.first_period_ages()[events.rows] - events.period_ages
    cells = np.minimum(nth, MEMBERSHIP_PERIODS) * events.n_categories + events.categories
    n = (MEMBERSHIP_PERIODS + 1) * events.n_categories
    counts = np.bincount(cells, events.shares, minlength=n).reshape(-1, events.n_categories)
    return normalize_rows(counts + 100.0 * overall)
