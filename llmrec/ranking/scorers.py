"""Item scorers: popularity, repeats and matrix factorisation, without any forecast."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import log_softmax

from llmrec.data.calendar import DAY, MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.counts import item_counts_between
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History
from llmrec.data.provenance import TrainingSpan, require_fitted
from llmrec.errors import MissingExtraError
from llmrec.types import FloatArray, IntArray, TimeArray

# None stands for the log itself: a value that is its key would keep it alive for ever.
_DEDUPED: WeakKeyDictionary[Interactions, Interactions | None] = WeakKeyDictionary()
_FIRST_INTERACTION_LOGS: WeakKeyDictionary[Interactions, Interactions | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class RecentPopularity:
    """Scores items by what everybody took in the last days before the cutoff.

    What a person takes of one item at one moment counts once: three packs in a basket are one
    purchase.

    Parameters
    ----------
    days
        Length of the span, > 0: events with cutoff - days <= time < cutoff count.
    pseudo_count
        Added to the events of every item, > 0, so that no item is impossible.
    """

    days: float = 28.0
    pseudo_count: float = 1.0

    def __post_init__(self) -> None:
        require_positive(days=self.days, pseudo_count=self.pseudo_count)

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return f"popular in the last {self.days:g} days"

    def item_shares(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) each item's smoothed share of the recent events; rows sum to 1."""
        if not histories:
            return np.empty((0, 0))
        span = round(self.days * (DAY / MILLISECOND)) * MILLISECOND
        starts = np.array([history.cutoff - span for history in histories])
        ends = np.array([history.cutoff for history in histories])
        log = dedupe_moments(shared_log(histories))
        shares = item_counts_between(log, starts, ends)
        shares += self.pseudo_count
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError if the logs differ."""
        shares = self.item_shares(histories)
        return np.asarray(np.log(shares, out=shares), dtype=np.float64)


def popularity_before(history: History) -> tuple[str, FloatArray]:
    """Give (n_items,) log-probabilities by popularity before the cutoff, and their name.

    By what everybody took lately; where that is the same for all items, by all that was taken.
    """
    recent = RecentPopularity()
    scores = recent.scores([history])[0]
    if np.ptp(scores) > 0:
        return recent.name, scores
    age = (history.cutoff - history.log.timestamp.min()) / DAY
    ever = RecentPopularity(days=max(age, recent.days) + 1)
    return "popular so far", ever.scores([history])[0]


@dataclass(frozen=True)
class PersonalRepeat:
    """Scores items by what the person took before, recent events more, and by what is popular.

    An item's probability is proportional to its decayed count in the history plus ``strength``
    times its popularity. What is taken of it at one moment counts once.

    Parameters
    ----------
    half_life_days
        Age at which an event counts half, > 0.
    strength
        Events that popularity is worth, > 0.
    popularity
        The distribution of what the person never took.
    """

    half_life_days: float = 84.0
    strength: float = 30.0
    popularity: RecentPopularity = field(default_factory=RecentPopularity)

    def __post_init__(self) -> None:
        require_positive(half_life_days=self.half_life_days, strength=self.strength)

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return "taken before or popular"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; ValueError if the logs differ."""
        shares = self.popularity.item_shares(histories)
        shares *= self.strength
        shares += self._decayed_counts(histories).toarray()
        shares /= shares.sum(axis=1, keepdims=True)
        return np.asarray(np.log(shares, out=shares), dtype=np.float64)

    def _decayed_counts(self, histories: Sequence[History]) -> sparse.csr_matrix:
        ages = np.concatenate([np.empty(0), *(history.days_ago for history in histories)])
        return item_counts(histories, np.exp2(-ages / self.half_life_days))


@dataclass
class ImplicitALS:
    """Implicit-feedback matrix factorisation, with the person's factors from their history.

    Hu, Koren & Volinsky (2008), with confidence ``alpha * log2(1 + count)``. A person's factors
    are solved from the history that is scored (equation 4), so new people are scored too.

    Parameters
    ----------
    factors, regularization, alpha, iterations, seed
        Of ``implicit.als.AlternatingLeastSquares``, trained in float32 on one thread. The default
        regularization suits logs of a thousand people or more; choose less for a handful.
    temperature
        The factorisation predicts preferences in about [0, 1]; they are divided by this (> 0)
        before the softmax: undivided they would make all items nearly equally likely.
    """

    factors: int = 64
    regularization: float = 10.0
    alpha: float = 1.0
    iterations: int = 15
    seed: int = 0
    temperature: float = 0.1
    name: str = field(default="people with similar taste", init=False)
    _model: Any = field(default=None, init=False, repr=False)
    _fitted: TrainingSpan | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)

    def fit(
        self,
        log: Interactions,
        catalog: Catalog,
        cutoff: np.datetime64 | str | None = None,
    ) -> ImplicitALS:
        """Learn item factors from all users' events before the cutoff (default: all events).

        Raises
        ------
        MissingExtraError
            If the package ``implicit`` is not installed.
        ValueError
            If no event lies before the cutoff.
        """
        als, threadpoolctl = _import_als()
        fitted, histories = TrainingSpan.of_log(log, catalog, cutoff)
        counts = item_counts(histories)
        with threadpoolctl.threadpool_limits(1, "blas"):
            model = als.AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=self.iterations,
                num_threads=1,
                random_state=self.seed,
            )
            model.fit(_damp_counts(counts), show_progress=False)
        self._model, self._fitted = model, fitted
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item; a person without events gets equal ones.

        Raises
        ------
        ValueError
            If not fitted, fitted on another catalog, or fitted on events at or after a cutoff.
        """
        require_fitted(self._fitted, self.name, histories)
        if not histories:
            return np.empty((0, 0))
        counts = _damp_counts(item_counts(histories))
        users = self._model.recalculate_user(np.arange(len(histories)), counts)
        # One product a person: a batched product would round differently with the batch size.
        preferences = np.stack([self._model.item_factors @ user for user in users])
        logits = preferences.astype(np.float64) / self.temperature
        return np.asarray(log_softmax(logits, axis=1), dtype=np.float64)


def item_counts(
    histories: Sequence[History], weights: FloatArray | None = None
) -> sparse.csr_matrix:
    """(n_users, n_items) weighted number of moments at which each item was taken.

    ``weights`` (default 1) are of the events of all histories; the last event of a moment counts.
    """
    if not histories:
        return sparse.csr_matrix((0, 0))
    rows = np.repeat(np.arange(len(histories)), [history.n_events for history in histories])
    spans = [slice(history.event_ids.start, history.event_ids.stop) for history in histories]
    items = np.concatenate([h.log.item_idx[span] for h, span in zip(histories, spans, strict=True)])
    times = np.concatenate(
        [h.log.timestamp[span] for h, span in zip(histories, spans, strict=True)]
    )
    last = ~_is_repeated(rows, times, items)
    values = np.ones(len(items)) if weights is None else weights
    shape = (len(histories), histories[0].catalog.n_items)
    return sparse.csr_matrix((values[last], (rows[last], items[last])), shape=shape)


def dedupe_moments(log: Interactions) -> Interactions:
    """Give a log without events that another one of the same moment and item follows."""
    if log not in _DEDUPED:
        repeated = _is_repeated(log.user_idx, log.timestamp, log.item_idx)
        dropped = {"taken again at that moment": repeated}
        _DEDUPED[log] = log.drop_events(dropped) if repeated.any() else None
    return _DEDUPED[log] or log


def first_interactions(log: Interactions) -> Interactions:
    """Give a log of the events in which somebody took an item for the first time."""
    if log not in _FIRST_INTERACTION_LOGS:
        pairs = log.user_idx.astype(np.int64) * (log.item_idx.max(initial=0) + 1) + log.item_idx
        repeated = np.ones(len(pairs), dtype=np.bool_)
        repeated[np.unique(pairs, return_index=True)[1]] = False  # a person's events are in order
        _FIRST_INTERACTION_LOGS[log] = (
            log.drop_events({"taken before": repeated}) if repeated.any() else None
        )
    return _FIRST_INTERACTION_LOGS[log] or log


def shared_log(histories: Sequence[History]) -> Interactions:
    """Give the log that all histories share; ValueError if there are several."""
    log = histories[0].log
    if any(history.log is not log for history in histories):
        raise ValueError(
            "the histories come from different logs: align the log once "
            "(log = log.align_to(catalog)) and make all histories from it."
        )
    return log


def require_positive(**values: float) -> None:
    """Raise ValueError, with its name, for a parameter that is not finite and > 0."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, not {value}")


def _is_repeated(users: IntArray, times: TimeArray, items: IntArray) -> npt.NDArray[np.bool_]:
    """(n_events,) which events another one of the same user, moment and item follows."""
    order = np.lexsort((items, times, users))  # stable: of equal ones the later event is later
    differs = np.zeros(len(order), dtype=np.bool_)
    for values in (users, times, items):
        differs[:-1] |= values[order][1:] != values[order][:-1]
    repeated = np.zeros(len(order), dtype=np.bool_)
    repeated[order[:-1]] = ~differs[:-1]
    return repeated


def _damp_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Scale counts to log2(1 + count), so that frequent items do not dominate."""
    found = counts.astype(np.float32)
    found.data = np.log2(1 + found.data)
    return found


def _import_als() -> tuple[Any, Any]:
    try:
        return importlib.import_module("implicit.cpu.als"), importlib.import_module("threadpoolctl")
    except ImportError as error:
        raise MissingExtraError(
            "implicit ALS needs the package implicit: pip install 'llmrec[als]'"
        ) from error
