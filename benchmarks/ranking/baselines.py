"""Ranking models to compare with, behind `fit` and `scores`, and settings to choose from."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from benchmarks.ranking.splits import Split, Stage
from llmrec.data.calendar import MILLISECOND, Period
from llmrec.data.catalog import Catalog
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import History, Target, Window, make_histories
from llmrec.data.provenance import TrainingSpan
from llmrec.forecast import ItemScorer
from llmrec.forecasters.sequential import NextItemModel
from llmrec.ranking.blend import PrecomputedScorer
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.item_item import (
    Cosine,
    Ease,
    ItemToItem,
    SequentialRules,
    recency_weighted,
    scale_counts,
)
from llmrec.ranking.scorers import ImplicitALS, PersonalRepeat, RecentPopularity, item_counts
from llmrec.types import FloatArray, RepeatPolicy

Settings = Mapping[str, Any]
Build = Callable[[Settings, Stage, Catalog, int], ItemScorer]


@dataclass(frozen=True)
class Peer:
    """A model, the settings that validation chooses from, and whether its seed matters."""

    name: str
    build: Build
    settings: Sequence[Settings]
    seeded: bool = False


class Fitted(Protocol):
    """A scorer that learns from a log."""

    def fit(self, log: Any, catalog: Catalog) -> ItemScorer:
        """Learn from all of it."""
        ...


def fitted(make: Callable[..., Fitted]) -> Build:
    """Build a scorer from settings, and fit it on what may be learned from."""

    def build(settings: Settings, stage: Stage, catalog: Catalog, seed: int) -> ItemScorer:
        return make(**settings).fit(stage.log, catalog)

    return build


def unfitted(make: Callable[..., ItemScorer]) -> Build:
    """Build a scorer that looks everything up when it is asked."""
    return lambda settings, stage, catalog, seed: make(**settings)


def grid(**choices: Iterable[Any]) -> list[dict[str, Any]]:
    """Give all combinations."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def popular(days: float) -> ItemScorer:
    """Recent popularity, as if every item had been taken a little."""
    return RecentPopularity(days, pseudo_count=1e-3)


def frequency(half_life_days: float, strength: float, days: float = 28.0) -> ItemScorer:
    """Personal frequency on popularity."""
    return PersonalRepeat(half_life_days, strength, RecentPopularity(days, 1e-3))


def ease(regularization: float, half_life: float = np.inf, **fade: Any) -> ItemToItem:
    """Make EASE; in days, and with logarithms of counts, if it says so."""
    counts = fade.get("counts", "binary")
    return ItemToItem(Ease(regularization, counts), half_life, floor=1e-6, **fade)


def neighbours(neighbours: int, counts: Any = "binary", half_life: float = np.inf) -> ItemToItem:
    """Make ItemKNN."""
    return ItemToItem(Cosine(neighbours, counts), half_life, "days", counts, floor=1e-6)


def successors(
    window: int, fade: float, power: float, half_life: float, per: Any = "events"
) -> ItemToItem:
    """Make a Markov chain with a long memory."""
    pairs = SequentialRules(window, fade, power)
    return ItemToItem(pairs, half_life, per, "count", floor=1e-6)


def _als(settings: Settings, stage: Stage, catalog: Catalog, seed: int) -> ItemScorer:
    return ImplicitALS(**settings, seed=seed).fit(stage.log, catalog)


@dataclass(frozen=True, eq=False)
class Said:
    """What a net says of a stage's histories, and the seconds that it took to learn and say it."""

    rows: FloatArray
    seconds: float

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items), of that stage's histories alone."""
        if len(histories) != len(self.rows):
            raise ValueError(f"kept for {len(self.rows)} histories, not {len(histories)}")
        return self.rows


def next_item(settings: Settings, stage: Stage, seed: int) -> FloatArray:
    """Train one of our nets and ask it: (n_windows, n_items)."""
    net = NextItemModel(**settings).fit(whole(stage), stage.windows, seed=seed)
    return net.scores(stage.histories)


@dataclass(frozen=True)
class KeptNets:
    """Builds nets. They are dear, so what they say of a stage is kept in a folder."""

    folder: Path
    ask: Callable[[Settings, Stage, int], FloatArray] = next_item

    def __call__(self, settings: Settings, stage: Stage, catalog: Catalog, seed: int) -> Said:
        """Give what is kept; else train, ask, and keep it in single precision."""
        learned = "-".join(str(value) for value in settings.values())
        path = self.folder / f"{learned}-{seed}-{stage.fingerprint[:16]}.npz"
        if not path.exists():
            start = time.perf_counter()
            rows = self.ask(settings, stage, seed).astype(np.float32)
            content = io.BytesIO()
            np.savez_compressed(content, rows=rows, seconds=time.perf_counter() - start)
            atomic_write_bytes(path, content.getvalue())
        with np.load(path) as kept:
            return Said(kept["rows"].astype(np.float64), float(kept["seconds"]))


def whole(stage: Stage) -> list[Window]:
    """Windows without a target, so that nets learn from those, too, who are not asked."""
    first = stage.windows[0].history
    found = []
    for history in make_histories(stage.log, first.catalog, first.period_length):
        stop = history.event_ids.stop
        span = Period(history.cutoff, history.cutoff + MILLISECOND)
        target = Target(history.log, history.catalog, stop, stop, span)
        found.append(Window(history, target))
    return found


@dataclass
class PureSvd:
    """Truncated SVD of who took what (Cremonesi et al. 2010): scores w V V'."""

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
    """Personal item frequency and that of like people (Hu et al. 2020, arXiv 2006.00556).

    A person's baskets are cut into ``groups`` of equal number; a basket counts ``within`` less for
    each later one of its group, a group ``between`` less for each later one. Scores are share *
    own + (1 - share) * mean of the nearest ``neighbours``. A basket is what was taken at one time.
    """

    within: float
    between: float
    groups: int
    neighbours: int
    share: float
    name: str = field(default="TIFU-KNN", init=False)

    def fit(self, log: Any, catalog: Catalog) -> TifuKnn:
        """Keep everybody's vectors."""
        _, histories = TrainingSpan.of_log(log, catalog, None)
        self.known = {history.user_id: row for row, history in enumerate(histories)}
        self.vectors = self._vectors(histories)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items)."""
        own = self._vectors(histories)
        norms = np.asarray(self.vectors.multiply(self.vectors).sum(axis=1)).ravel()
        likeness = 2 * np.asarray((own @ self.vectors.T).todense()) - norms
        for row, history in enumerate(histories):
            likeness[row, self.known[history.user_id]] = -np.inf
        nearest = np.argpartition(-likeness, self.neighbours, axis=1)[:, : self.neighbours]
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
            worth = self.within**later / size * self.between ** (self.groups - 1 - group)
            worth /= min(max(n, 1), self.groups)
            rows += [row] * pairs.shape[1]
            items += pairs[1].tolist()
            values += worth[pairs[0]].tolist()
        shape = (len(histories), histories[0].catalog.n_items)
        return sparse.csr_array((values, (rows, items)), shape=shape)


@dataclass(frozen=True)
class Seasonal:
    """Another scorer, lifted by how the common mix moved: + power * log(recent / whole past)."""

    scorer: ItemScorer
    days: float
    power: float

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items)."""
        recent, whole = RecentPopularity(self.days, 1.0), RecentPopularity(36_500.0, 1.0)
        shift = recent.scores(histories) - whole.scores(histories)
        return np.asarray(self.scorer.scores(histories) + self.power * shift)


def seasonal(build: Build) -> Build:
    """Build a scorer and lift it, see `Seasonal`."""

    def built(settings: Settings, stage: Stage, catalog: Catalog, seed: int) -> ItemScorer:
        own = {key: value for key, value in settings.items() if key not in ("days", "power")}
        scorer = build(own, stage, catalog, seed)
        return Seasonal(scorer, settings["days"], settings["power"])

    return built


def _half_life(decay: float) -> float:
    """Events after which a worth that falls by ``decay`` an event is a half."""
    return float(np.log(0.5) / np.log(decay))


def second_stage(repeat: RepeatPolicy, *first: Build) -> Build:
    """Build trees over what some scorers say, taught by the stage's lessons.

    The scorers are fitted and asked once a stage, with seed 0; the seed is the trees'.
    """
    asked: WeakKeyDictionary[Stage, list[PrecomputedScorer]] = WeakKeyDictionary()

    def scorers(stage: Stage, catalog: Catalog) -> list[PrecomputedScorer]:
        if stage not in asked:
            fitted = (build({}, stage, catalog, 0) for build in first)
            asked[stage] = [
                _in_single(PrecomputedScorer.of(one, stage.histories, f"first stage {place}"))
                for place, one in enumerate(fitted)
            ]
        return asked[stage]

    def built(settings: Settings, stage: Stage, catalog: Catalog, seed: int) -> ItemScorer:
        lessons = [RankingFold(scorers(one, catalog), one.windows) for one in stage.lessons]
        trees = GBDTReranker(repeat=repeat, seed=seed, **settings)
        return trees.fit(lessons, scorers(stage, catalog))

    return built


def _in_single(asked: PrecomputedScorer) -> PrecomputedScorer:
    """Give the same in half of the memory: trees split in single precision anyway."""
    return PrecomputedScorer(
        asked.name, {key: row.astype(np.float32) for key, row in asked.rows.items()}
    )


def at(build: Build, **settings: Any) -> Build:
    """Build with these settings."""
    return lambda _, stage, catalog, seed: build(settings, stage, catalog, seed)


LOG_DAYS = {"per": "days", "counts": "log"}
FADES = [_half_life(decay) for decay in (0.8, 0.9, 0.95, 0.99)]
EASE_DAYS = grid(
    regularization=(1000.0, 3000.0), half_life=(84.0, 224.0, np.inf), per=["days"], counts=["log"]
) + grid(regularization=(300.0, 1000.0, 3000.0), half_life=(224.0, np.inf), per=["days"])
SEASONS = grid(days=(14.0, 28.0), power=(0.25, 0.5, 0.75))
ALWAYS = [
    at(unfitted(popular), days=36_500.0),
    at(unfitted(popular), days=84.0),
    at(unfitted(popular), days=28.0),
    at(unfitted(popular), days=7.0),
    at(fitted(neighbours), neighbours=50),
    at(_als, factors=64, regularization=10.0, alpha=1.0),
]
ON_FILMS = [
    *ALWAYS,
    at(fitted(ease), regularization=300.0),
    at(fitted(ease), regularization=1000.0, half_life=_half_life(0.9)),
    at(fitted(successors), window=10, fade=0.9, power=0.8, half_life=_half_life(0.8)),
    at(fitted(PureSvd), factors=30),
]
ON_GROCERIES = [
    *ALWAYS,
    at(unfitted(frequency), half_life_days=21.0, strength=30.0),
    at(unfitted(frequency), half_life_days=84.0, strength=30.0),
    at(unfitted(frequency), half_life_days=1000.0, strength=30.0),
    at(fitted(ease), regularization=1000.0),
    at(seasonal(fitted(ease)), regularization=1000.0, days=28.0, power=0.5),
    at(fitted(ease), regularization=1000.0, half_life=224.0, **LOG_DAYS),
    at(fitted(successors), window=30, fade=0.97, power=0.8, half_life=84.0, per="days"),
    at(fitted(PureSvd), factors=32, counts="log", half_life=112.0),
    at(fitted(PureSvd), factors=64),
]
NET: Settings = {"model": "GRU4Rec", "steps": 1800, "rate": 0.02}
TWO_STAGE = "Two-stage trees"
WITH_NET = f"{TWO_STAGE} with {NET['model']}"
NETS: dict[str, Sequence[Settings]] = {
    "SASRec": grid(steps=(900, 1800)),
    "BERT4Rec": grid(steps=(1800, 3600), rate=[0.005]),
    "GRU4Rec": grid(steps=(1800, 3600), rate=[0.02]),
}


def peers_of(split: Split, kept: Path) -> list[Peer]:
    """Give the peers of a split's log and rule; what nets say is kept in a folder."""
    nets = KeptNets(kept)
    return on_films(nets) if split.dataset.name == "ml-100k" else on_groceries(split.repeat, nets)


def on_films(nets: Build) -> list[Peer]:
    """Peers for logs in which nothing is taken twice."""
    days = (7.0, 30.0, 90.0, 36_500.0)
    with_net = second_stage("exclude", *ON_FILMS, at(nets, **NET))
    return [
        Peer("Popular lately", unfitted(popular), grid(days=days)),
        Peer("ItemKNN", fitted(neighbours), grid(neighbours=(10, 20, 50, 100, 200))),
        Peer("EASE", fitted(ease), grid(regularization=(100.0, 200.0, 300.0, 500.0, 1000.0))),
        Peer("PureSVD", fitted(PureSvd), grid(factors=(10, 20, 30, 50, 70))),
        Peer(
            "iALS",
            _als,
            grid(factors=(32, 64, 128), regularization=(1.0, 10.0, 30.0), alpha=(1.0, 4.0)),
            seeded=True,
        ),
        Peer(
            "Successors",
            fitted(successors),
            grid(
                window=(3, 10, 20),
                fade=(0.7, 0.9, 0.97),
                power=(0.5, 0.8, 1.0),
                half_life=[_half_life(decay) for decay in (0.5, 0.8, 0.9)],
            ),
        ),
        Peer(
            "EASE on a fading history",
            fitted(ease),
            grid(regularization=(100.0, 300.0, 1000.0, 2000.0), half_life=FADES),
        ),
        *_nets(nets),
        Peer(TWO_STAGE, second_stage("exclude", *ON_FILMS), [{}], seeded=True),
        Peer(WITH_NET, with_net, [{}], seeded=True),
    ]


def on_groceries(repeat: RepeatPolicy, nets: Build) -> list[Peer]:
    """Peers for logs in which people take the same again."""
    frequencies = grid(half_life_days=(56.0, 84.0, 112.0, 168.0), strength=(10.0, 30.0, 100.0))
    few = grid(regularization=(1000.0,), half_life=(224.0, np.inf), per=["days"])
    few += [one | {"counts": "log"} for one in few]
    ease_seasons = [one | season for one in few for season in SEASONS]
    often_seasons = [
        one | season for one in frequencies for season in SEASONS if one["strength"] == 30.0
    ]
    markov = grid(
        window=(10, 30), fade=(0.97,), power=(0.5, 0.8, 1.0), half_life=(28.0, 84.0), per=["days"]
    )
    return [
        Peer("Popular lately", unfitted(popular), grid(days=(7.0, 28.0, 84.0))),
        Peer("Personal frequency", unfitted(frequency), frequencies),
        Peer("Personal frequency with season", seasonal(unfitted(frequency)), often_seasons),
        Peer(
            "ItemKNN", fitted(neighbours), grid(neighbours=(20, 50, 100), counts=("binary", "log"))
        ),
        Peer("EASE", fitted(ease), EASE_DAYS),
        Peer("EASE with season", seasonal(fitted(ease)), ease_seasons),
        Peer(
            "PureSVD",
            fitted(PureSvd),
            grid(factors=(16, 32, 64), counts=["log", "binary"], half_life=(112.0, np.inf)),
        ),
        Peer(
            "iALS",
            _als,
            grid(factors=(64,), regularization=(1.0, 10.0), alpha=(1.0, 5.0)),
            seeded=True,
        ),
        Peer("Successors", fitted(successors), markov),
        Peer(
            "TIFU-KNN",
            fitted(TifuKnn),
            grid(
                within=(0.9, 1.0),
                between=(0.7, 0.9),
                groups=(7, 13),
                neighbours=(100, 300, 900),
                share=(0.3, 0.5, 0.7, 0.9),
            ),
        ),
        *_nets(nets, 1),  # longer ones were hardly better there: LOG.md
        Peer(TWO_STAGE, second_stage(repeat, *ON_GROCERIES), [{}], seeded=True),
    ]


def _nets(build: Build, most: int | None = None) -> list[Peer]:
    return [
        Peer(name, build, [{"model": name, **one} for one in settings[:most]], seeded=True)
        for name, settings in NETS.items()
    ]
