"""A second stage: boosted trees order the best candidates of several scorers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax

from llmrec.data.counts import item_counts_between
from llmrec.data.periods import History, Window
from llmrec.errors import MissingExtraError
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend, fit_blend, rankable_items
from llmrec.ranking.item_item import recency_weighted
from llmrec.ranking.scorers import (
    dedupe_moments,
    first_interactions,
    item_counts,
    require_positive,
    shared_log,
)
from llmrec.types import FloatArray, IntArray, RepeatPolicy, TimeArray

DAYS = (7.0, 28.0, 84.0)  # before the cutoff, in which an item's moments are counted
NEVER_TAKEN_DAYS = 1000.0  # days since an item was last taken by who never took it
_TREES = {
    "objective": "rank_xendcg",
    "metric": "ndcg",
    "eval_at": [10],
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


@dataclass(frozen=True, eq=False)
class RankingFold:
    """Lists that could have been made: windows, and scorers fitted on what lies before them."""

    scorers: Sequence[ItemScorer]
    windows: Sequence[Window]


@dataclass(eq=False)
class GBDTReranker:
    """Scores items by trees over what several scorers say of them.

    The scorers' log-linear blend names each person's ``candidates``. LightGBM, trained by a
    cross-entropy of lists (XE-NDCG, Bruch 2021, arXiv 1911.09798) on what came of earlier
    candidates, orders them by the scorers' log-probabilities, when and how often the person took
    the item, how the item fares with everybody, and how much the person takes. The number of trees
    is that of greatest NDCG@10 on the last lesson; they are then grown on all lessons.

    p_i = (1 - floor) * softmax(trees) over the candidates + floor * softmax(blend) over all.

    Parameters
    ----------
    candidates
        Items a person that the trees order.
    repeat
        "exclude": only items that a person has not taken are candidates.
    max_trees
        At most; > 0.
    floor
        In (0, 1), so that no item is impossible.
    """

    candidates: int = 120
    repeat: RepeatPolicy = "allow"
    max_trees: int = 400
    floor: float = 0.01
    seed: int = 0
    name: str = field(default="order learned from earlier lists", init=False)
    _first: Blend | None = field(default=None, init=False, repr=False)
    _trees: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(candidates=self.candidates, most_trees=self.max_trees, floor=self.floor)
        if self.floor >= 1:
            raise ValueError(f"floor must lie in (0, 1), not {self.floor}")

    @property
    def n_trees(self) -> int:
        """How many were grown."""
        return 0 if self._trees is None else int(self._trees.num_trees())

    @property
    def n_leaves(self) -> int:
        """Of all trees; a tree of one leaf orders nothing."""
        if self._trees is None:
            return 0
        return sum(tree["num_leaves"] for tree in self._trees.dump_model()["tree_info"])

    def fit(self, lessons: Sequence[RankingFold], scorers: Sequence[ItemScorer]) -> GBDTReranker:
        """Learn from lessons, oldest first, how to order what ``scorers`` say.

        ``scorers`` are those of the lessons, in their order, fitted for the lists to come.

        Raises
        ------
        MissingExtraError
            If the package ``lightgbm`` is not installed.
        ValueError
            If there are fewer than two lessons, they have other scorers, or in the last one or in
            those before it nothing came that was a candidate.
        """
        lightgbm = _import_lightgbm()
        if len(lessons) < 2 or any(len(lesson.scorers) != len(scorers) for lesson in lessons):
            raise ValueError("a second stage needs two lessons or more, with the scorers to come")
        last = lessons[-1]
        weights = fit_blend(last.scorers, last.windows, repeat=self.repeat).weights
        sheets = [self._sheet(Blend(one.scorers, weights), one.windows) for one in lessons]
        if not len(sheets[-1][1]) or not any(len(came) for _, came in sheets[:-1]):
            raise ValueError("nothing that came was a candidate: give more candidates or lessons")
        known, judged = _data(lightgbm, sheets[:-1]), _data(lightgbm, sheets[-1:])
        stop = lightgbm.early_stopping(50, verbose=False)
        settings = _TREES | {"seed": self.seed}
        tried = lightgbm.train(settings, known, self.max_trees, [judged], callbacks=[stop])
        trees = lightgbm.train(settings, _data(lightgbm, sheets), max(tried.best_iteration, 1))
        self._first, self._trees = Blend(scorers, weights), trees
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError before `fit`."""
        if self._first is None:
            raise ValueError(f"{self.name!r} is not fitted: call fit(lessons, scorers) first.")
        if not histories:
            return np.empty((0, 0))
        said, items = self._candidates(self._first, histories)
        found = candidate_features(said, items, histories)
        margins = self._trees.predict(found.reshape(-1, found.shape[2]), num_threads=1)
        ordered = log_softmax(margins.reshape(items.shape), axis=1) + np.log(1 - self.floor)
        blended = _blended(said, self._first.weights)
        scores: FloatArray = log_softmax(blended, axis=1) + np.log(self.floor)
        rows = np.arange(len(items))[:, None]
        scores[rows, items] = np.logaddexp(scores[rows, items], ordered)
        return scores

    def _sheet(self, first: Blend, windows: Sequence[Window]) -> tuple[FloatArray, FloatArray]:
        """(n, n_candidates, n_features) features, and (n, n_candidates) what came, of n windows.

        Windows in which no candidate came teach nothing and are left out. Seen items that stand
        among the candidates of who has too few unseen ones never came.
        """
        histories = [window.history for window in windows]
        said, items = self._candidates(first, histories)
        came = np.zeros(items.shape)
        for row, window in enumerate(windows):
            wanted = rankable_items(window.history, self.repeat)[items[row]]
            came[row] = wanted & np.isin(items[row], window.target.item_idx)
        some = came.any(axis=1)
        return candidate_features(said, items, histories)[some], came[some]

    def _candidates(
        self, first: Blend, histories: Sequence[History]
    ) -> tuple[FloatArray, IntArray]:
        """Give what scorers say, and (n_users, n_candidates) their best items, in items' order."""
        said = Blend(first.scorers, (1.0,) * len(first.weights)).weighted_scores(histories)
        possible = np.stack([rankable_items(history, self.repeat) for history in histories])
        blended = np.where(possible, _blended(said, first.weights), -np.inf)
        best = np.argsort(-blended, axis=1, kind="stable")[:, : self.candidates]
        return said, np.sort(best, axis=1)


def candidate_features(
    said: FloatArray, items: IntArray, histories: Sequence[History]
) -> FloatArray:
    """(n_users, n_candidates, n_features) what is known of candidates, in float32.

    ``said`` (n_scorers, n_users, n_items) are the scorers' log-probabilities.
    """
    rows = np.arange(len(items))[:, None]
    found = [part[rows, items] for part in said]
    found += [of[rows, items] for of in _of_items(histories)]
    found += [np.broadcast_to(of[:, None], items.shape) for of in _of_people(histories)]
    return np.stack(found, axis=2).astype(np.float32)


def _blended(said: FloatArray, weights: Sequence[float]) -> FloatArray:
    """(n_users, n_items) a weighted sum, one scorer after the other: the same in any batch."""
    found = np.zeros(said.shape[1:])
    for part, weight in zip(said, weights, strict=True):
        found += weight * part
    return found


def _of_items(histories: Sequence[History]) -> Iterator[FloatArray]:
    """(n_users, n_items) how a person took an item, and how everybody does."""
    rows = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    items = np.concatenate([np.empty(0, np.int64), *(history.item_idx for history in histories)])
    age = np.concatenate([np.empty(0), *(history.days_ago for history in histories)])
    taken = item_counts(histories).toarray()
    newest, oldest = np.full(taken.shape, NEVER_TAKEN_DAYS), np.zeros(taken.shape)
    np.minimum.at(newest, (rows, items), age)
    np.maximum.at(oldest, (rows, items), age)
    apart = np.maximum(oldest - newest, 0.0) / np.maximum(taken - 1, 1)
    yield from (taken, newest, apart, newest / np.maximum(apart, 1.0))
    for days in DAYS:
        yield item_counts(histories, (age <= days).astype(np.float64)).toarray()
    shares = histories[0].catalog.category_shares
    for half_life in (28.0, np.inf):
        of_category = recency_weighted(histories, half_life, "days") @ shares
        yield np.log1p((of_category @ shares.T).toarray())
    log = shared_log(histories)
    takers, moments = (
        item_counts_between(one, *_past(histories))
        for one in (first_interactions(log), dedupe_moments(log))
    )
    yield np.log1p(takers)
    yield moments / np.maximum(takers, 1)


def _of_people(histories: Sequence[History]) -> Iterator[FloatArray]:
    """(n_users,) how much a person takes, of how many items, and how much of it lately."""
    taken = item_counts(histories)
    yield np.log1p(np.asarray(taken.sum(axis=1)).ravel())
    yield np.log1p(np.diff(taken.indptr))
    yield np.log1p([float(np.sum(history.days_ago <= DAYS[1])) for history in histories])


def _past(histories: Sequence[History]) -> tuple[TimeArray, TimeArray]:
    """From before all events up to each cutoff."""
    ends = np.array([history.cutoff for history in histories])
    return np.full_like(ends, histories[0].log.timestamp.min()), ends


def _data(lightgbm: Any, sheets: Sequence[tuple[FloatArray, FloatArray]]) -> Any:
    """Give sheets to LightGBM: a person's candidates are one list."""
    rows = np.concatenate([found.reshape(-1, found.shape[2]) for found, _ in sheets])
    came = np.concatenate([one.ravel() for _, one in sheets])
    sizes = np.concatenate([np.full(one.shape[0], one.shape[1]) for _, one in sheets])
    return lightgbm.Dataset(rows, came, group=sizes, free_raw_data=False)


def _import_lightgbm() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise MissingExtraError(
            "a second stage needs the package lightgbm: pip install 'llmrec[trees]'"
        ) from error
