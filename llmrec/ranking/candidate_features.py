"""What trees know of a candidate: its scores, when a person took it, and how often all people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llmrec.data.periods import History
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.scorers import item_counts, one_of_each_cutoff
from llmrec.types import FloatArray, IntArray, TimeArray

RECENT_DAYS = (7.0, 28.0, 84.0)  # before the cutoff, in which an item's moments are counted
N_HISTORY_FEATURES = 14  # of `candidate_features`, beside one a scorer
NEVER_TAKEN_DAYS = 1000.0  # since the last time, for a person who never took an item


def candidate_features(
    scores: FloatArray, items: IntArray, histories: Sequence[History]
) -> FloatArray:
    """(n_users, n_candidates, n_features) features of candidates, in float32.

    Parameters
    ----------
    scores
        (n_scorers, n_users, n_items) the scorers' log-probabilities.
    items
        (n_users, n_candidates) each person's candidates, rising.
    """
    rows = np.arange(len(items))[:, None]
    found = [part[rows, items] for part in scores]
    found += _person_item_features(histories, items)
    found += _population_features(histories, items)
    for feature in _user_features(histories):
        found.append(np.broadcast_to(feature[:, None], items.shape))
    return np.stack(found, axis=2).astype(np.float32)


def _person_item_features(histories: Sequence[History], items: IntArray) -> Iterator[FloatArray]:
    """(n_users, n_candidates) when and how often a person took an item, and its categories."""
    rows = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    of_event = np.concatenate([np.empty(0, np.int64), *(one.item_idx for one in histories)])
    age = np.concatenate([np.empty(0), *(history.days_ago for history in histories)])
    people, n_items = np.arange(len(items))[:, None], histories[0].catalog.n_items
    candidates = (people * n_items + items).ravel()  # they rise
    places = np.searchsorted(candidates, rows * n_items + of_event).clip(max=len(candidates) - 1)
    known = candidates[places] == rows * n_items + of_event
    taken = _entries(item_counts(histories), items)
    newest, oldest = np.full(items.shape, NEVER_TAKEN_DAYS), np.zeros(items.shape)
    np.minimum.at(newest.ravel(), places[known], age[known])  # of new arrays these are views
    np.maximum.at(oldest.ravel(), places[known], age[known])
    gap = np.maximum(oldest - newest, 0.0) / np.maximum(taken - 1, 1)
    yield from (taken, newest, gap, newest / np.maximum(gap, 1.0))
    for days in RECENT_DAYS:
        yield _entries(item_counts(histories, (age <= days).astype(np.float64)), items)
    shares = histories[0].catalog.category_shares
    for half_life in (28.0, np.inf):
        of_category = recency_weighted(histories, half_life, "days") @ shares
        yield np.log1p((of_category @ shares.T).toarray()[people, items])


def _entries(matrix: Any, items: IntArray) -> FloatArray:
    """(n_users, n_candidates) the entries of a sparse (n_users, n_items) matrix at items."""
    rows = np.broadcast_to(np.arange(len(items))[:, None], items.shape)
    return np.asarray(matrix[rows.ravel(), items.ravel()]).reshape(items.shape)


def _population_features(histories: Sequence[History], items: IntArray) -> Iterator[FloatArray]:
    """(n_users, n_candidates) of how many people an item was taken, and how often by each."""
    firsts, rows = one_of_each_cutoff(histories)
    population, ends = histories[0].population, np.array([first.cutoff for first in firsts])
    starts: TimeArray = np.full_like(ends, population.start)
    rows = rows[:, None]
    takers = population.item_counts(starts, ends, "takers")[rows, items]
    yield np.log1p(takers)
    yield population.item_counts(starts, ends, "moments")[rows, items] / np.maximum(takers, 1)


def _user_features(histories: Sequence[History]) -> Iterator[FloatArray]:
    """(n_users,) how much a person takes, of how many items, and how much of it recently."""
    taken = item_counts(histories)
    yield np.log1p(np.asarray(taken.sum(axis=1)).ravel())
    yield np.log1p(np.diff(taken.indptr))
    yield np.log1p([float(np.sum(history.days_ago <= RECENT_DAYS[1])) for history in histories])
