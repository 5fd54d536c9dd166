"""Several item scorers as one: a log-linear blend, trees over its scores, and fitted weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Protocol

import numpy as np
from scipy.optimize import minimize

from llmrec.data.history_keys import HistoryKey, history_key
from llmrec.data.periods import History, Window
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.types import BoolArray, FloatArray, RepeatPolicy


class SecondStage(Protocol):
    """A scorer that scores items by the scores that others give them."""

    @property
    def name(self) -> str:
        """Its name in explanations."""
        ...

    @property
    def n_scorers(self) -> int:
        """How many scorers it scores by: the first of a blend."""
        ...

    def second_scores(self, first_scores: FloatArray, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probabilities; ``first_scores`` (n_scorers, n_users, n_items)."""
        ...


@dataclass(frozen=True)
class Blend:
    """A weighted sum of the log-probabilities of scorers; itself one, up to normalisation.

    The scorers are scored once, whether trees use their scores or not. In ``names`` and parts are
    those of weight > 0 only.

    Parameters
    ----------
    scorers
        At least one item scorer; their names differ.
    weights
        One a scorer, finite and >= 0. Those of weight 0 are scored for the trees alone, and not at
        all without trees.
    trees
        A fitted second stage, such as a `GBDTReranker`: one more part, by the scores of the first
        scorers, those that it was fitted on. More may follow them.
    trees_weight
        Its weight, finite and >= 0.
    """

    scorers: Sequence[ItemScorer]
    weights: Sequence[float]
    trees: SecondStage | None = None
    trees_weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.scorers or len(self.scorers) != len(self.weights):
            raise ValueError(
                f"a blend needs one weight a scorer and at least one scorer, not "
                f"{len(self.weights)} weights for {len(self.scorers)} scorers"
            )
        if self.trees is None and self.trees_weight:
            raise ValueError(f"there are no trees for the weight {self.trees_weight}: give both")
        each = self._names_and_weights
        names = [name for name, _ in each]
        duplicates = {name for name in names if names.count(name) > 1}
        if duplicates:
            raise ValueError(
                f"two scorers are called {min(duplicates)!r}, so their contributions could not be "
                "distinguished: give one of them another `name`"
            )
        for name, weight in each:
            if not (np.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of {name!r} must be finite and >= 0, not {weight}")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each part of weight > 0 in explanations, the trees' last."""
        return tuple(name for name, weight in self._names_and_weights if weight > 0)

    @property
    def named_weights(self) -> dict[str, float]:
        """Weight of each scorer, and of the trees, by name; those of 0 included."""
        return dict(self._names_and_weights)

    def weighted_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_parts, n_users, n_items) weighted log-probabilities of the parts in ``names``.

        Raises
        ------
        ValueError
            If a scorer gives another shape, NaN or infinity; the message names the scorer.
        """
        if not histories:
            return np.empty((len(self.names), 0, 0))
        parts = self._part_scores(histories)
        parts *= np.array([weight for _, weight in self._positive])[:, None, None]
        return parts

    def precompute(self, histories: Sequence[History]) -> Blend:
        """Give the same blend for these histories only, with the scores of its parts stored."""
        if not self.names:
            return self
        weights = [weight for _, weight in self._positive]
        if self.trees is None or not self.trees_weight:
            used = compress(self.scorers, [weight > 0 for weight in self.weights])
            return Blend([PrecomputedScorer.of(scorer, histories) for scorer in used], weights)
        keys = [history_key(history) for history in histories]
        scores = self._part_scores(histories) if histories else [()] * len(self.names)
        parts = [
            PrecomputedScorer(name, dict(zip(keys, rows, strict=True)))
            for name, rows in zip(self.names, scores, strict=True)
        ]
        return Blend(parts, weights)

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) sum of the parts."""
        return np.asarray(self.weighted_scores(histories).sum(axis=0), dtype=np.float64)

    @property
    def _names_and_weights(self) -> list[tuple[str, float]]:
        each = list(zip(map(scorer_name, self.scorers), self.weights, strict=True))
        return each if self.trees is None else [*each, (self.trees.name, self.trees_weight)]

    @property
    def _positive(self) -> list[tuple[str, float]]:
        return [(name, weight) for name, weight in self._names_and_weights if weight > 0]

    def _part_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_parts, n_users, n_items) log-probabilities of the parts of weight > 0."""
        weighted = [weight > 0 for weight in self.weights]
        if self.trees is None or not self.trees_weight:
            return stack_scores(list(compress(self.scorers, weighted)), histories)
        first = stack_scores(self.scorers, histories)
        second = self.trees.second_scores(first[: self.trees.n_scorers], histories)
        found = np.empty((sum(weighted) + 1, *second.shape))
        found[-1] = _checked(second, self.trees.name, histories)
        for row, part in zip(found[:-1], compress(first, weighted), strict=True):
            row[:] = part
        return found


@dataclass(frozen=True, eq=False)
class PrecomputedScorer:
    """Gives back a scorer's scores of some histories, computed once.

    Parameters
    ----------
    name
        What explanations call it.
    rows
        (n_items,) scores of each history, see `of`.
    """

    name: str
    rows: Mapping[HistoryKey, FloatArray]

    @classmethod
    def of(
        cls, scorer: ItemScorer, histories: Sequence[History], name: str = ""
    ) -> PrecomputedScorer:
        """Score all histories now, in one batch; ``name`` is another one than the scorer's own.

        Raises
        ------
        ValueError
            If it gives another shape, NaN or infinity; it names the scorer.
        """
        name = name or scorer_name(scorer)
        rows = _checked_scores(scorer, name, histories) if histories else ()
        return cls(name, dict(zip(map(history_key, histories), rows, strict=True)))

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) the stored scores; DataError for a history without some."""
        return np.stack([self._row_of(history) for history in histories])

    def copy_to(self, found: FloatArray, histories: Sequence[History]) -> None:
        """Write what `scores` gives into (n_users, n_items) ``found``."""
        for row, history in zip(found, histories, strict=True):
            row[:] = self._row_of(history)

    def _row_of(self, history: History) -> FloatArray:
        row = self.rows.get(history_key(history))
        if row is None:
            raise DataError(f"{self.name}: no scores of {history.user_id!r} were stored")
        return row


def fit_blend(
    scorers: Sequence[ItemScorer],
    windows: Sequence[Window],
    *,
    l2: float = 1e-3,
    repeat: RepeatPolicy = "allow",
    top_n: int = 0,
) -> Blend:
    """Find the weights that make the windows' target items most likely.

    Maximises the mean over users of the mean log-likelihood of a user's target events under
    ``softmax(sum_s w_s score_s)``, less ``l2 |w|^2 / 2``, subject to w >= 0: a concave problem,
    solved by L-BFGS-B. All scores are in memory: 8 * n_scorers * n_windows * n_items bytes.

    Parameters
    ----------
    windows
        Validation windows; none may overlap what a scorer was fitted on.
    l2
        > 0 pulls the weights to 0, and makes them unique where two scorers agree.
    repeat
        "exclude": the softmax runs over unseen items, and only unseen targets count.
    top_n
        If not 0: twice more, fit the weights among the items that a list could hold, the top_n
        best of each person. An item taken often then counts as one taken once, as in a list.

    Raises
    ------
    ValueError
        If no window has a target event that counts, ``top_n`` is 1 or negative, or a scorer
        misbehaves (see `Blend.weighted_scores`).
    """
    if top_n < 0 or top_n == 1:
        raise ValueError(f"top_n must be 0, or at least 2 items, not {top_n}")
    shares = [target_shares(window, repeat) for window in windows]
    usable = [index for index, share in enumerate(shares) if share.any()]
    if not usable:
        raise ValueError(
            f"none of {len(windows)} windows has a target event to learn from (repeat={repeat!r}): "
            "give windows with targets."
        )
    histories = [windows[index].history for index in usable]
    scores = Blend(scorers, (1.0,) * len(scorers)).weighted_scores(histories)
    possible = np.stack([rankable_items(history, repeat) for history in histories])
    taken = np.stack([shares[index] for index in usable])
    weights = most_likely_weights(scores, taken, possible, l2)
    for _ in range(2 if top_n else 0):
        top = top_items(scores, taken, possible, weights, top_n)
        weights = most_likely_weights(*top, l2) if top[1].size else weights
    return Blend(tuple(scorers), tuple(float(weight) for weight in weights))


def scorer_name(scorer: ItemScorer) -> str:
    """Give a scorer's name in explanations: its ``name``, or else its class."""
    return str(getattr(scorer, "name", type(scorer).__name__))


def stack_scores(scorers: Sequence[ItemScorer], histories: Sequence[History]) -> FloatArray:
    """(n_scorers, n_users, n_items) log-probabilities of each scorer, for at least one history.

    Raises
    ------
    ValueError
        If a scorer gives another shape, NaN or infinity; the message names the scorer.
    """
    found = np.empty((len(scorers), len(histories), histories[0].catalog.n_items))
    for part, scorer in zip(found, scorers, strict=True):
        if isinstance(scorer, PrecomputedScorer):
            scorer.copy_to(part, histories)
            _checked(part, scorer.name, histories)
        else:
            part[:] = _checked_scores(scorer, scorer_name(scorer), histories)
    return found


def rankable_items(history: History, repeat: RepeatPolicy) -> BoolArray:
    """(n_items,) the items that may be ranked for this history: all of them, or the unseen.

    A log has no event of an item without a category (`Interactions.align_to`), so it is not known
    who has seen it: where seen items are left out, it is left out too.
    """
    if repeat not in ("allow", "exclude"):
        raise ValueError(f"repeat must be 'allow' or 'exclude', not {repeat!r}")
    if repeat == "allow":
        return np.ones(history.catalog.n_items, dtype=np.bool_)
    possible = history.catalog.has_category.copy()
    possible[history.item_idx] = False
    return possible


def target_shares(window: Window, repeat: RepeatPolicy) -> FloatArray:
    """(n_items,) shares of the target events that count by item; zeros if none counts."""
    counts = np.bincount(window.target.item_idx, minlength=window.history.catalog.n_items)
    counts = counts * rankable_items(window.history, repeat)
    return np.asarray(counts / max(counts.sum(), 1), dtype=np.float64)


def most_likely_weights(
    scores: FloatArray, shares: FloatArray, possible: BoolArray, l2: float
) -> FloatArray:
    """(n_scorers,) weights for (n_scorers, n_users, n_items) scores and target shares."""
    n_scorers, n_users, _ = scores.shape
    flat = scores.reshape(n_scorers, -1)
    observed = flat @ shares.ravel() / n_users

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        blended = np.where(possible, (weights @ flat).reshape(possible.shape), -np.inf)
        largest = blended.max(axis=1, keepdims=True)
        probability = np.exp(blended - largest)
        total = probability.sum(axis=1, keepdims=True)
        expected = flat @ (probability / total).ravel() / n_users
        log_total = (largest + np.log(total)).mean()
        value = log_total - weights @ observed + l2 / 2 * (weights @ weights)
        return float(value), expected - observed + l2 * weights

    start = np.full(n_scorers, 1 / n_scorers)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * n_scorers)
    return np.asarray(found.x, dtype=np.float64)


def top_items(
    scores: FloatArray, taken: FloatArray, possible: BoolArray, weights: FloatArray, n: int
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Select each person's n best items under the weights, and the people who took one of them."""
    blended = np.where(possible, np.tensordot(weights, scores, 1), -np.inf)
    best = np.argsort(-blended, axis=1, kind="stable")[:, :n]
    rows = np.arange(len(best))[:, None]
    found = (taken[rows, best] > 0).astype(np.float64)
    some = found.any(axis=1)
    shares = found[some] / found[some].sum(axis=1, keepdims=True)
    return scores[:, rows, best][:, some], shares, possible[rows, best][some]


def _checked_scores(scorer: ItemScorer, name: str, histories: Sequence[History]) -> FloatArray:
    return _checked(scorer.scores(histories), name, histories)


def _checked(given: FloatArray, name: str, histories: Sequence[History]) -> FloatArray:
    """Give (n_users, n_items) finite scores as they are; ValueError, with the name, for others."""
    scores = np.asarray(given, dtype=np.float64)
    expected = (len(histories), histories[0].catalog.n_items)
    if scores.shape != expected:
        raise ValueError(f"{name!r} gave scores of shape {scores.shape}, not {expected}")
    if not np.isfinite(scores).all():
        user, item = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"{name!r} gave {scores[user, item]} to item "
            f"{histories[user].catalog.item_ids[item]!r} of user {histories[user].user_id!r}: "
            "scores must be finite"
        )
    return scores
