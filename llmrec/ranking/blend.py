"""Several item scorers as one: a log-linear blend with weights fitted on validation windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from llmrec.data.periods import History, HistoryKey, Window, history_key
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.types import BoolArray, FloatArray, RepeatPolicy


@dataclass(frozen=True)
class Blend:
    """A weighted sum of the log-probabilities of scorers; itself one, up to normalisation.

    Parameters
    ----------
    scorers
        At least one item scorer; their names differ.
    weights
        One a scorer, finite and >= 0.
    """

    scorers: Sequence[ItemScorer]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        if not self.scorers or len(self.scorers) != len(self.weights):
            raise ValueError(
                f"a blend needs one weight a scorer and at least one scorer, not "
                f"{len(self.weights)} weights for {len(self.scorers)} scorers"
            )
        duplicates = {name for name in self.names if self.names.count(name) > 1}
        if duplicates:
            raise ValueError(
                f"two scorers are called {min(duplicates)!r}, so their contributions could not be "
                "distinguished: give one of them another `name`"
            )
        for name, weight in zip(self.names, self.weights, strict=True):
            if not (np.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of {name!r} must be finite and >= 0, not {weight}")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each scorer in explanations: its ``name``, or else its class."""
        return tuple(getattr(scorer, "name", type(scorer).__name__) for scorer in self.scorers)

    def weighted_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_scorers, n_users, n_items) each scorer's weighted log-probabilities.

        Raises
        ------
        ValueError
            If a scorer gives another shape, NaN or infinity; the message names the scorer.
        """
        if not histories:
            return np.empty((len(self.scorers), 0, 0))
        parts = np.empty((len(self.scorers), len(histories), histories[0].catalog.n_items))
        for part, scorer, name, weight in zip(
            parts, self.scorers, self.names, self.weights, strict=True
        ):
            np.multiply(_checked_scores(scorer, name, histories), weight, out=part)
        return parts

    def precompute(self, histories: Sequence[History]) -> Blend:
        """Give the same blend for these histories only, with their scores computed once."""
        return Blend(
            [PrecomputedScorer.of(scorer, histories) for scorer in self.scorers], self.weights
        )

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) sum of the parts."""
        return np.asarray(self.weighted_scores(histories).sum(axis=0), dtype=np.float64)


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
        name = name or Blend((scorer,), (1.0,)).names[0]
        rows = _checked_scores(scorer, name, histories) if histories else ()
        return cls(name, dict(zip(map(history_key, histories), rows, strict=True)))

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) the stored scores; DataError for a history without some."""
        for history in histories:
            if history_key(history) not in self.rows:
                raise DataError(f"{self.name}: no scores of {history.user_id!r} were stored")
        return np.stack([self.rows[history_key(history)] for history in histories])


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
    softmax(sum_s w_s score_s), less l2 |w|^2 / 2, subject to w >= 0: a concave problem, solved by
    L-BFGS-B. All scores are in memory: 8 * n_scorers * n_windows * n_items bytes.

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
    shares = [_target_shares(window, repeat) for window in windows]
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
    weights = _most_likely_weights(scores, taken, possible, l2)
    for _ in range(2 if top_n else 0):
        top = _top_items(scores, taken, possible, weights, top_n)
        weights = _most_likely_weights(*top, l2) if top[1].size else weights
    return Blend(tuple(scorers), tuple(float(weight) for weight in weights))


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


def _target_shares(window: Window, repeat: RepeatPolicy) -> FloatArray:
    """(n_items,) shares of the target events that count by item; zeros if none counts."""
    counts = np.bincount(window.target.item_idx, minlength=window.history.catalog.n_items)
    counts = counts * rankable_items(window.history, repeat)
    return np.asarray(counts / max(counts.sum(), 1), dtype=np.float64)


def _most_likely_weights(
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


def _top_items(
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
    scores = np.asarray(scorer.scores(histories), dtype=np.float64)
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
