"""Gradient-boosted trees that rerank the best candidates of several scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from scipy.special import log_softmax

from llmrec.data.periods import History, Window
from llmrec.data.stored import Stored
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import fit_blend, rankable_items, stack_scores
from llmrec.ranking.blocks import MAX_SMALL_CATALOG, people_blocks
from llmrec.ranking.candidate_features import N_HISTORY_FEATURES, candidate_features
from llmrec.ranking.fitted import parameters_from, refusing, settings_of
from llmrec.ranking.largest import places_of_largest
from llmrec.ranking.scorers import require_positive
from llmrec.ranking.trees_text import import_lightgbm, read_trees, text_digest
from llmrec.ranking.weights import likely_weights
from llmrec.types import FloatArray, IntArray, RepeatPolicy

_LIGHTGBM_PARAMETERS = {
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
    """Windows, and scorers fitted on what precedes their targets: past lists to learn from."""

    scorers: Sequence[ItemScorer]
    windows: Sequence[Window]


@dataclass(eq=False)
class GBDTReranker:
    """Scores items by trees over the scores of several scorers: the second stage of a `Blend`.

    The scorers' log-linear blend, the first stage, selects each person's ``candidates``. LightGBM,
    trained by a cross-entropy of lists (XE-NDCG, Bruch 2021, arXiv 1911.09798) on which candidates
    of past lists were taken, orders them by the scorers' log-probabilities, when and how often the
    person took the item, how often everybody does, and how much the person takes. The number of
    trees is that of greatest NDCG@10 on the last fold; the trees are then fitted on all folds.

    p_i = (1 - floor) * softmax(trees) over the candidates + floor * softmax(first) over all.

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
    first_weights: tuple[float, ...] = field(default=(), init=False, repr=False)
    _booster: Any = field(default=None, init=False, repr=False)
    _scorers: Sequence[ItemScorer] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(candidates=self.candidates, max_trees=self.max_trees, floor=self.floor)
        if self.floor >= 1:
            raise ValueError(f"floor must lie in (0, 1), not {self.floor}")
        if self.repeat not in get_args(RepeatPolicy):
            raise ValueError(f"repeat must be 'allow' or 'exclude', not {self.repeat!r}")

    @property
    def n_scorers(self) -> int:
        """Number of scorers that it was fitted on; 0 before `fit`."""
        return len(self.first_weights)

    @property
    def n_trees(self) -> int:
        """Number of trees; 0 before `fit`."""
        return 0 if self._booster is None else int(self._booster.num_trees())

    @property
    def n_leaves(self) -> int:
        """Number of leaves of all trees; a tree of one leaf orders nothing."""
        if self._booster is None:
            return 0
        return sum(tree["num_leaves"] for tree in self._booster.dump_model()["tree_info"])

    def fit(self, folds: Sequence[RankingFold], scorers: Sequence[ItemScorer] = ()) -> GBDTReranker:
        """Fit the trees on folds, oldest first.

        Parameters
        ----------
        folds
            At least two, each with the same scorers in the same order, fitted on what precedes
            the fold's targets.
        scorers
            Those of the folds, fitted for the lists to come: what `scores` scores with. A `Blend`
            does without: it has scorers of its own.

        Raises
        ------
        MissingExtraError
            If the package ``lightgbm`` is not installed.
        ValueError
            If there are fewer than two folds, they have other scorers, or no candidate was taken in
            the last one or in those before it.
        """
        lightgbm = import_lightgbm()
        n_scorers = {len(fold.scorers) for fold in folds} | ({len(scorers)} if scorers else set())
        if len(folds) < 2 or len(n_scorers) != 1:
            raise ValueError("a GBDTReranker needs two folds or more, each with the same scorers")
        last = folds[-1]
        weights = self._first_weights(last)
        examples = [self._examples(fold, weights) for fold in folds]
        if not len(examples[-1][1]) or not any(len(taken) for _, taken in examples[:-1]):
            raise ValueError("no candidate was taken: give more candidates or folds")
        training, validation = _dataset(lightgbm, examples[:-1]), _dataset(lightgbm, examples[-1:])
        stop = lightgbm.early_stopping(50, verbose=False)
        options = _LIGHTGBM_PARAMETERS | {"seed": self.seed}
        stopped = lightgbm.train(options, training, self.max_trees, [validation], callbacks=[stop])
        n_trees = max(stopped.best_iteration, 1)
        self._booster = lightgbm.train(options, _dataset(lightgbm, examples), n_trees)
        self.first_weights, self._scorers = tuple(weights), tuple(scorers)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probabilities by the scorers that `fit` was given.

        Raises
        ------
        ValueError
            If it was given none; a `Blend` has its own.
        """
        if not self._scorers:
            raise ValueError(f"{self.name!r} is not fitted with scorers: call fit(folds, scorers).")
        if not histories:
            return np.empty((0, 0))
        return self.second_scores(stack_scores(self._scorers, histories), histories)

    def second_scores(self, first_scores: FloatArray, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item, by what the scorers gave them.

        Parameters
        ----------
        first_scores
            (n_scorers, n_users, n_items) log-probabilities of the folds' scorers, in their order.

        Raises
        ------
        ValueError
            If there was no fit, or one on another number of scorers.
        """
        if self._booster is None:
            raise ValueError(f"{self.name!r} is not fitted: call fit(folds) first.")
        if len(first_scores) != len(self.first_weights):
            raise ValueError(
                f"{self.name!r} was fitted on {len(self.first_weights)} scorers, "
                f"not {len(first_scores)}: give those of its folds."
            )
        if not histories:
            return np.empty((0, 0))
        items = self._select_candidates(first_scores, self.first_weights, histories)
        features = candidate_features(first_scores, items, histories)
        margins = self._booster.predict(features.reshape(-1, features.shape[2]), num_threads=1)
        ordered = log_softmax(margins.reshape(items.shape), axis=1) + np.log(1 - self.floor)
        blended = _weighted_sum(first_scores, self.first_weights)
        scores: FloatArray = log_softmax(blended, axis=1) + np.log(self.floor)
        rows = np.arange(len(items))[:, None]
        scores[rows, items] = np.logaddexp(scores[rows, items], ordered)
        return scores

    def stored(self) -> Stored:
        """Give the trees as LightGBM's text, with the parameters; ValueError before `fit`.

        The scorers are not in it: they are those of a `Blend`.
        """
        if self._booster is None:
            raise ValueError(f"{self.name!r} is not fitted: call fit(folds) first.")
        text = self._booster.model_to_string()
        fitted = {"first_weights": list(self.first_weights), "trees": text_digest(text)}
        return Stored("GBDTReranker", settings_of(self) | fitted, texts={"trees": text})

    @classmethod
    def from_stored(cls, stored: Stored) -> GBDTReranker:
        """Make the trees again.

        Raises
        ------
        MissingExtraError
            If the package ``lightgbm`` is not installed.
        ModelLoadError
            If the text is not the one that was stored, or its trees expect other features.
        """
        with refusing(stored.kind):
            made = cls(**parameters_from(stored.values, "first_weights", "trees"))
            weights = [float(weight) for weight in stored.values["first_weights"]]
            if not weights or not (np.isfinite(weights) & (np.array(weights) >= 0)).all():
                raise ValueError(f"the first stage has the weights {weights}: each must be >= 0")
            made.first_weights = tuple(weights)
            n_features = len(weights) + N_HISTORY_FEATURES
            digest = stored.values["trees"]
            made._booster = read_trees(stored.texts["trees"], digest, n_features)
        return made

    def _first_weights(self, fold: RankingFold) -> tuple[float, ...]:
        """Give the weights of most likely targets; of large catalogs among the best items alone."""
        if fold.windows[0].history.catalog.n_items > MAX_SMALL_CATALOG:
            return likely_weights(fold.scorers, fold.windows, self.repeat)
        return (*fit_blend(fold.scorers, fold.windows, repeat=self.repeat).weights,)

    def _examples(
        self, fold: RankingFold, weights: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """(n, n_candidates, n_features) features, and (n, n_candidates) 1 for a taken candidate.

        Windows in which no candidate was taken are left out. Seen items are among the candidates of
        a person who has too few unseen ones; they do not count as taken.
        """
        n_items = fold.windows[0].history.catalog.n_items
        blocks = people_blocks(len(fold.windows), n_items, len(fold.scorers))
        found = [
            self._examples_of_block(fold.scorers, fold.windows[block], weights) for block in blocks
        ]
        features, taken = zip(*found, strict=True)
        return np.concatenate(features), np.concatenate(taken)

    def _examples_of_block(
        self, scorers: Sequence[ItemScorer], windows: Sequence[Window], weights: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        histories = [window.history for window in windows]
        scores = stack_scores(scorers, histories)
        items = self._select_candidates(scores, weights, histories)
        taken = np.zeros(items.shape)
        for row, window in enumerate(windows):
            possible = rankable_items(window.history, self.repeat)[items[row]]
            taken[row] = possible & np.isin(items[row], window.target.item_idx)
        some = taken.any(axis=1)
        return candidate_features(scores, items, histories)[some], taken[some]

    def _select_candidates(
        self, scores: FloatArray, weights: Sequence[float], histories: Sequence[History]
    ) -> IntArray:
        """(n_users, n_candidates) the best items by the first stage's blend, in items' order."""
        possible = np.stack([rankable_items(history, self.repeat) for history in histories])
        blended = np.where(possible, _weighted_sum(scores, weights), -np.inf)
        return np.stack([np.sort(_best_places(row, self.candidates)) for row in blended])


def _weighted_sum(scores: FloatArray, weights: Sequence[float]) -> FloatArray:
    """(n_users, n_items) a weighted sum, one scorer after the other: the same in any batch."""
    total = np.zeros(scores.shape[1:])
    for part, weight in zip(scores, weights, strict=True):
        total += weight * part
    return total


def _best_places(values: FloatArray, n: int) -> IntArray:
    """(n,) the places of the largest values; of equal ones the first."""
    places = places_of_largest(values, n)
    return places[np.argsort(-values[places], kind="stable")[:n]]


def _dataset(lightgbm: Any, examples: Sequence[tuple[FloatArray, FloatArray]]) -> Any:
    """Make a LightGBM dataset in which the candidates of a person are one list."""
    rows = np.concatenate([features.reshape(-1, features.shape[2]) for features, _ in examples])
    taken = np.concatenate([labels.ravel() for _, labels in examples])
    sizes = np.concatenate([np.full(*labels.shape) for _, labels in examples])
    return lightgbm.Dataset(rows, taken, group=sizes, free_raw_data=False)
