"""Ranking models to compare with: how each is built from settings on a stage of a split."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.harness.cached_scores import CachedScores
from benchmarks.ranking.splits import RankingStage
from llmrec.data.calendar import MILLISECOND, Period
from llmrec.data.catalog import Catalog
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import History, Target, Window, make_histories
from llmrec.data.provenance import TrainingSpan
from llmrec.forecast import ItemScorer
from llmrec.forecasters.sequential import NextItemModel
from llmrec.ranking.blend import PrecomputedScorer
from llmrec.ranking.factors import ImplicitALS
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.history_matrix import recency_weighted, scale_counts
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, SequentialRules
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity, item_counts
from llmrec.types import FloatArray, RepeatPolicy

Settings = Mapping[str, Any]
Builder = Callable[[Settings, RankingStage, Catalog, int], ItemScorer]  # the last is the seed


@dataclass(frozen=True)
class Baseline:
    """A model, the settings that validation chooses from, and whether its seed matters."""

    name: str
    build: Builder
    settings: Sequence[Settings]
    seeded: bool = False


class FittableScorer(Protocol):
    """A scorer that learns from a log."""

    def fit(self, log: Any, catalog: Catalog) -> ItemScorer:
        """Learn from all of it."""
        ...


def fitted_builder(make: Callable[..., FittableScorer]) -> Builder:
    """Build a scorer from settings, and fit it on what may be learned from."""

    def build(settings: Settings, stage: RankingStage, catalog: Catalog, seed: int) -> ItemScorer:
        return make(**settings).fit(stage.log, catalog)

    return build


def unfitted_builder(make: Callable[..., ItemScorer]) -> Builder:
    """Build a scorer that computes everything from the histories it scores."""
    return lambda settings, stage, catalog, seed: make(**settings)


def build_with(build: Builder, **settings: Any) -> Builder:
    """Build with these settings, whatever others are given."""
    return lambda _, stage, catalog, seed: build(settings, stage, catalog, seed)


def build_popular(days: float) -> ItemScorer:
    """Build recent popularity, as if every item had been taken a little."""
    return RecentPopularity(days, pseudo_count=1e-3)


def build_frequency(half_life_days: float, strength: float, days: float = 28.0) -> ItemScorer:
    """Build personal frequency on popularity."""
    return PersonalRepeat(half_life_days, strength, RecentPopularity(days, 1e-3))


def build_ease(
    regularization: float,
    half_life: float = np.inf,
    per: Literal["events", "days"] = "events",
    counts: Literal["binary", "log"] = "binary",
) -> ItemToItem:
    """Build EASE, on a history whose older items may count less."""
    return ItemToItem(Ease(regularization, counts), half_life, per, counts, floor=1e-6)


def build_neighbours(
    neighbours: int, counts: Literal["binary", "log"] = "binary", half_life: float = np.inf
) -> ItemToItem:
    """Build ItemKNN."""
    return ItemToItem(Cosine(neighbours, counts), half_life, "days", counts, floor=1e-6)


def build_successors(
    window: int,
    fade: float,
    power: float,
    half_life: float,
    per: Literal["events", "days"] = "events",
) -> ItemToItem:
    """Build a Markov chain that looks several items back."""
    rules = SequentialRules(window, fade, power)
    return ItemToItem(rules, half_life, per, "count", floor=1e-6)


def build_als(settings: Settings, stage: RankingStage, catalog: Catalog, seed: int) -> ItemScorer:
    """Build and fit implicit ALS."""
    return ImplicitALS(
        factors=settings["factors"],
        regularization=settings["regularization"],
        alpha=settings["alpha"],
        seed=seed,
    ).fit(stage.log, catalog)


def score_next_items(settings: Settings, stage: RankingStage, seed: int) -> FloatArray:
    """Train one of our nets and score with it: (n_windows, n_items)."""
    net = NextItemModel(settings["model"], steps=settings.get("steps"), rate=settings.get("rate"))
    net.fit(windows_without_targets(stage), stage.windows, seed=seed)
    return net.scores(stage.histories)


@dataclass(frozen=True)
class CachedNets:
    """Builds nets; training takes long, so their scores of a stage are cached in a folder."""

    folder: Path
    score: Callable[[Settings, RankingStage, int], FloatArray] = score_next_items

    def __call__(
        self, settings: Settings, stage: RankingStage, catalog: Catalog, seed: int
    ) -> CachedScores:
        """Look the scores up; else train, score, and cache them in single precision."""
        name = "-".join(str(value) for value in settings.values())
        path = self.folder / f"{name}-{seed}-{stage.fingerprint[:16]}.npz"
        if not path.exists():
            start = time.perf_counter()
            rows = self.score(settings, stage, seed).astype(np.float32)
            content = io.BytesIO()
            np.savez_compressed(content, rows=rows, seconds=time.perf_counter() - start)
            atomic_write_bytes(path, content.getvalue())
        with np.load(path) as stored:
            return CachedScores(stored["rows"].astype(np.float64), float(stored["seconds"]))


def windows_without_targets(stage: RankingStage) -> list[Window]:
    """Give everybody's whole history, so that nets also learn from people without a list."""
    first = stage.windows[0].history
    windows = []
    for history in make_histories(stage.log, first.catalog, first.period_length):
        stop = history.event_ids.stop
        span = Period(history.cutoff, history.cutoff + MILLISECOND)
        target = Target(history.log, history.catalog, stop, stop, span)
        windows.append(Window(history, target))
    return windows


@dataclass
class PureSvd:
    """Truncated SVD of users by items (Cremonesi et al. 2010): scores w V V'."""

    factors: int
    counts: str = "binary"
    half_life: float = np.inf
    name: str = field(default="PureSVD", init=False)

    def fit(self, log: Any, catalog: Catalog) -> PureSvd:
        """Learn V from everybody's counts."""
        _, histories = TrainingSpan.of_log(log, catalog, None)
        taken = scale_counts(item_counts(histories), self.counts).astype(np.float64)
        start = np.full(min(taken.shape), min(taken.shape) ** -0.5)
        _, _, vt = svds(taken, k=self.factors, v0=start)
        self.vt = vt
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) w V V'."""
        w = scale_counts(recency_weighted(histories, self.half_life, "days"), self.counts)
        return np.asarray((w @ self.vt.T) @ self.vt)


@dataclass
class TifuKnn:
    """Item frequency of a person and of similar people (Hu et al. 2020, arXiv 2006.00556).

    A basket is what was taken at one time. A person's baskets are cut into ``groups`` of equal
    number; a basket's weight is multiplied by ``within`` for each later one of its group, a
    group's by ``between`` for each later group. Scores are share * own + (1 - share) * mean of the
    nearest ``neighbours``.
    """

    within: float
    between: float
    groups: int
    neighbours: int
    share: float
    name: str = field(default="TIFU-KNN", init=False)

    def fit(self, log: Any, catalog: Catalog) -> TifuKnn:
        """Compute everybody's vectors."""
        _, histories = TrainingSpan.of_log(log, catalog, None)
        self.row_of = {history.user_id: row for row, history in enumerate(histories)}
        self.vectors = self._vectors(histories)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items)."""
        own = self._vectors(histories)
        norms = np.asarray(self.vectors.multiply(self.vectors).sum(axis=1)).ravel()
        similarity = 2 * np.asarray((own @ self.vectors.T).todense()) - norms
        for row, history in enumerate(histories):
            similarity[row, self.row_of[history.user_id]] = -np.inf
        nearest = np.argpartition(-similarity, self.neighbours, axis=1)[:, : self.neighbours]
        rows = np.repeat(np.arange(len(histories)), self.neighbours)
        mean = np.full(len(rows), 1 / self.neighbours)
        shape = (len(histories), self.vectors.shape[0])
        others = sparse.csr_array((mean, (rows, nearest.ravel())), shape=shape) @ self.vectors
        return np.asarray((self.share * own + (1 - self.share) * others).todense())

    def _vectors(self, histories: Sequence[History]) -> sparse.csr_array:
        rows, items, values = [], [], []
        for row, history in enumerate(histories):
            events = slice(history.event_ids.start, history.event_ids.stop)
            _, basket = np.unique(history.log.timestamp[events], return_inverse=True)
            n = int(basket.max(initial=-1)) + 1
            pairs = np.unique(np.stack((basket, history.log.item_idx[events])), axis=1)
            place = np.arange(n)
            group = np.minimum(self.groups - 1, place * self.groups // max(n, 1))
            group = group if n >= self.groups else place + self.groups - n
            size = np.bincount(group, minlength=self.groups)[group]
            later = np.array([np.sum(group[p + 1 :] == group[p]) for p in place])
            weight = self.within**later / size * self.between ** (self.groups - 1 - group)
            weight /= min(max(n, 1), self.groups)
            rows += [row] * pairs.shape[1]
            items += pairs[1].tolist()
            values += weight[pairs[0]].tolist()
        shape = (len(histories), histories[0].catalog.n_items)
        return sparse.csr_array((values, (rows, items)), shape=shape)


@dataclass(frozen=True)
class Seasonal:
    """Another scorer plus a trend of the population: power * log(recent / all-time popularity)."""

    scorer: ItemScorer
    days: float
    power: float

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items)."""
        recent, whole = RecentPopularity(self.days, 1.0), RecentPopularity(36_500.0, 1.0)
        shift = recent.scores(histories) - whole.scores(histories)
        return np.asarray(self.scorer.scores(histories) + self.power * shift)


def seasonal_builder(build: Builder) -> Builder:
    """Build a scorer and add a trend, see `Seasonal`."""

    def built(settings: Settings, stage: RankingStage, catalog: Catalog, seed: int) -> ItemScorer:
        own = {key: value for key, value in settings.items() if key not in ("days", "power")}
        scorer = build(own, stage, catalog, seed)
        return Seasonal(scorer, settings["days"], settings["power"])

    return built


def two_stage_builder(repeat: RepeatPolicy, *first_stage: Builder) -> Builder:
    """Build trees over the scores of other scorers, trained on the earlier stages.

    The scorers are fitted and scored once a stage, with seed 0; the seed is the trees'.
    """
    scored: WeakKeyDictionary[RankingStage, list[PrecomputedScorer]] = WeakKeyDictionary()

    def scorers(stage: RankingStage, catalog: Catalog) -> list[PrecomputedScorer]:
        if stage not in scored:
            fitted = (build({}, stage, catalog, 0) for build in first_stage)
            scored[stage] = [
                _in_single(PrecomputedScorer.of(one, stage.histories, f"first stage {place}"))
                for place, one in enumerate(fitted)
            ]
        return scored[stage]

    def built(settings: Settings, stage: RankingStage, catalog: Catalog, seed: int) -> ItemScorer:
        folds = [RankingFold(scorers(one, catalog), one.windows) for one in stage.earlier]
        trees = GBDTReranker(repeat=repeat, seed=seed, **settings)
        return trees.fit(folds, scorers(stage, catalog))

    return built


def _in_single(scorer: PrecomputedScorer) -> PrecomputedScorer:
    """Give the same in half of the memory: trees split in single precision anyway."""
    return PrecomputedScorer(
        scorer.name, {key: row.astype(np.float32) for key, row in scorer.rows.items()}
    )
