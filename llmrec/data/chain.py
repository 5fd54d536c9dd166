"""How the people of a made-up world move from mix to mix, and what their events tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import numpy as np
from scipy import special

from llmrec.contracts import FloatArray

Movement = Literal["stable", "drifting", "abrupt", "seasonal"]
MOVEMENTS: tuple[Movement, ...] = get_args(Movement)
JUMP = 0.15  # probability that an abrupt person changes at a boundary
GLIDE = 4  # steps, one a boundary, of a drifting person's way from one prototype to another
SEASON = 2  # periods until a seasonal person changes over


@dataclass(frozen=True, eq=False)
class Chain:
    """The hidden states of a person, and the mix of categories that each takes from.

    A person moves in one way for good, all ways being equally likely, and starts in each state of
    that way with the same probability. Only "abrupt" changes state; the other states are whole
    plans (which prototypes, and when), whose mix depends on the period.

    Attributes
    ----------
    movements
        The ways that occur.
    prototypes
        (n_prototypes, n_categories) mixes, all > 0; rows sum to 1.
    n_periods
        Length of the log; a drift begins at one of its inner boundaries.
    """

    movements: tuple[Movement, ...]
    prototypes: FloatArray
    n_periods: int

    def mixes(self, movement: Movement, period: int) -> FloatArray:
        """(n_states, n_categories) what is taken from in a period (0: the first), by state."""
        if movement in ("stable", "abrupt"):
            return self.prototypes
        pairs = np.array(list(permutations(range(len(self.prototypes)), 2)))
        first, second = self.prototypes[pairs[:, 0]], self.prototypes[pairs[:, 1]]
        if movement == "seasonal":
            return np.asarray(second if period // SEASON % 2 else first)
        begins = np.arange(max(1, self.n_periods - 1))
        gone = np.clip(period - begins, 0, GLIDE)[:, None, None] / GLIDE
        mixes = (1 - gone) * first + gone * second
        return np.asarray(mixes.reshape(-1, mixes.shape[-1]))

    def all_mixes(self, period: int) -> FloatArray:
        """(n_all_states, n_categories) the same for all movements, one after the other."""
        return np.concatenate([self.mixes(movement, period) for movement in self.movements])

    def path(self, movement: Movement, n: int, rng: np.random.Generator) -> FloatArray:
        """(n, n_periods, n_categories) draw the mixes that n people take from."""
        state, found = rng.integers(len(self.mixes(movement, 0)), size=n), []
        for period in range(self.n_periods):
            found.append(self.mixes(movement, period)[state])
            if movement == "abrupt":
                n_states = len(self.prototypes)
                other = (state + rng.integers(1, n_states, size=n)) % n_states
                state = np.where(rng.random(n) < JUMP, other, state)
        return np.stack(found, axis=1)

    def posterior(self, counts: FloatArray) -> FloatArray:
        """Filter forward: how likely each state is in the period after some counts.

        Parameters
        ----------
        counts
            (n, n_periods, n_categories) what was taken since the log's first period.

        Returns
        -------
        FloatArray
            (n, n_all_states), rows sum to 1. Rabiner 1989, equations 19 and 20, in logarithms.
        """
        sizes = [len(self.mixes(movement, 0)) for movement in self.movements]
        log_joint = np.tile(np.repeat(-np.log(sizes), sizes), (len(counts), 1))
        for period in range(counts.shape[1]):
            log_joint = log_joint + counts[:, period] @ np.log(self.all_mixes(period)).T
            log_joint -= log_joint.max(axis=1, keepdims=True)
            if "abrupt" in self.movements:
                first = sum(sizes[: self.movements.index("abrupt")])
                abrupt = slice(first, first + len(self.prototypes))
                log_joint[:, abrupt] = _jumped(log_joint[:, abrupt])
        return np.asarray(special.softmax(log_joint, axis=1))


def _jumped(log_joint: FloatArray) -> FloatArray:
    """One boundary of the abrupt chain on (n, n_prototypes) logarithms."""
    each = JUMP / (log_joint.shape[1] - 1)
    total = special.logsumexp(log_joint, axis=1, keepdims=True)
    return np.asarray(np.logaddexp(np.log(1 - JUMP - each) + log_joint, np.log(each) + total))
