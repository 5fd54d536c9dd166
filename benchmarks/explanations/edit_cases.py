"""People, catalogs, forecasts and edits to test the laws of edits on: random, or of a real log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy import sparse

from llmrec.data.calendar import DAY, MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.report import CleaningReport
from llmrec.data.windows import make_windows
from llmrec.engine import InterestEngine
from llmrec.errors import EditError
from llmrec.forecast import Forecast, ItemScorer, Source
from llmrec.forecasters.next_item import NextItemScorer
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import MAX_FACTOR, Edit, apply_edits
from llmrec.ranking.effects import EditEffect, predict_effect
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.item_item import Cosine, ItemToItem
from llmrec.ranking.ranking import Ranking, rank
from llmrec.ranking.scorers import RecentPopularity
from llmrec.types import FloatArray, RepeatPolicy

# Some of these must stand in quotes in a sentence.
CATEGORY_NAMES = (
    *("Action", "Sci-Fi", "Film-Noir", "Children's", "Drama", "drama", "Comedies", "Cold And Flu"),
    *(
        "No",
        "More War",
        "Only",
        "Until March",
        "Toys, Games",
        'The "Best"',
        "2 times as much",
        "3D",
    ),
    *("Fruit - Shelf Stable", "Misc. Dairy", "But Then", "Ünïcode", "戦争", "A", "Films", "&"),
)
N_LEARNED = 3  # made-up logs that trees and nets learn from
ONE_EVENT = Interactions.from_frame(
    pd.DataFrame([("u", "i0", "2020-01-02")], columns=["user_id", "item_id", "timestamp"])
)


@dataclass(frozen=True)
class FixedScorer:
    """Gives the same scores to everybody."""

    name: str
    row: FloatArray

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) the row, once a user."""
        return np.tile(self.row, (len(histories), 1))


@dataclass(frozen=True, eq=False)
class EditCase:
    """A person, all that their list is made of, and edits that can be applied."""

    history: History
    forecast: Forecast
    blend: Blend
    edits: tuple[Edit, ...]
    strength: float
    repeat: RepeatPolicy

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self.history.catalog

    def apply(self, *edits: Edit, forecast: Forecast | None = None) -> Forecast:
        """Give the forecast with those edits that are in force at the cutoff."""
        return apply_edits(forecast or self.forecast, edits, self.catalog, self.history.cutoff)

    def rank(
        self,
        *edits: Edit,
        forecast: Forecast | None = None,
        strength: float | None = None,
        edit_strength: float | None = None,
    ) -> Ranking:
        """Give the ranking of all items that may be ranked."""
        return rank(
            [forecast or self.forecast],
            [self.history],
            self.blend,
            k=self.catalog.n_items,
            strength=self.strength if strength is None else strength,
            edit_strength=edit_strength if strength is None else strength,
            repeat=self.repeat,
            edits=edits,
        )[0]

    def scores(
        self, *edits: Edit, forecast: Forecast | None = None, strength: float | None = None
    ) -> FloatArray:
        """(n,) scores of the items that may be ranked, in the order of the catalog."""
        ranking = self.rank(*edits, forecast=forecast, strength=strength)
        scores: FloatArray = ranking.scores[ranking.item_idx.argsort()]
        return scores

    def effect(
        self, strength: float | None = None, edit_strength: float | None = None
    ) -> EditEffect:
        """Predict what the edits, and another strength, do; edits may have a strength of theirs."""

        def rerank(
            edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
        ) -> Ranking:
            return self.rank(*edits, strength=strength, edit_strength=edit_strength)

        return predict_effect(
            self.forecast,
            self.edits,
            self.history,
            rerank,
            self.strength,
            strength,
            edit_strength,
        )


def random_case(
    seed: int, n_items: int | None = None, n_categories: int | None = None, n_edits: int = 3
) -> EditCase:
    """Make a random case: items in several categories and unequal shares, forecasts with zeros."""
    rng = np.random.default_rng(seed)
    catalog = _random_catalog(
        n_items or int(rng.integers(1, 40)), n_categories or int(rng.integers(1, 13)), rng
    )
    forecast = _random_forecast(catalog.n_categories, rng)
    (history,) = make_histories(ONE_EVENT, catalog, "7D")
    scale, digits = rng.choice([0.1, 3.0, 30.0]), int(rng.choice([0, 12]))  # 0: so that items tie
    rows = rng.normal(scale=scale, size=(rng.integers(1, 4), catalog.n_items)).round(digits)
    scorers = tuple(FixedScorer(f"scorer {i}", row) for i, row in enumerate(rows))
    return EditCase(
        history=history,
        forecast=forecast,
        blend=Blend(scorers, tuple(rng.uniform(0, 2, len(scorers)))),
        edits=_applicable_edits(forecast, history, n_edits, rng),
        strength=_random_strength(rng),
        repeat="allow" if rng.random() < 0.5 else "exclude",
    )


def learned_case(seed: int, n_edits: int = 3) -> EditCase:
    """Make a case on a blend with trees and a net, learned from a made-up log; the rest is random.

    The parts of the blend are scored once a log, for everybody; their weights are random.
    """
    rng = np.random.default_rng(seed)
    histories, parts = _learned_blend(int(rng.integers(N_LEARNED)))
    history = histories[rng.integers(len(histories))]
    forecast = _random_forecast(history.catalog.n_categories, rng)
    weights = rng.uniform(0, 2, len(parts.scorers)) * (rng.random(len(parts.scorers)) < 0.8)
    weights[-1] += not weights.any()
    return EditCase(
        history=history,
        forecast=forecast,
        blend=Blend(parts.scorers, tuple(weights)),
        edits=_applicable_edits(forecast, history, n_edits, rng),
        strength=_random_strength(rng),
        repeat="allow" if rng.random() < 0.5 else "exclude",
    )


@cache
def _learned_blend(seed: int) -> tuple[list[History], Blend]:
    """Fit scorers, a net, and trees over them; give people, and all parts scored for them."""
    rng = np.random.default_rng(seed)
    catalog = _random_catalog(40, 10, rng)
    log = _made_up_log(catalog, rng)
    end = log.timestamp.max() + MILLISECOND
    folds = []
    for back in (1, 0):
        windows = make_windows(log, catalog, "7D", end - (back + 1) * 7 * DAY)
        past = truncate_log(log, windows[0].history.cutoff).align_to(catalog)
        folds.append(RankingFold(_fit_scorers(past, catalog, seed), windows))
    trees = GBDTReranker(candidates=20, max_trees=20, seed=seed).fit(folds)
    assert trees.n_leaves > trees.n_trees, "the trees order nothing"
    scorers = _fit_scorers(log, catalog, seed)
    histories = make_histories(log, catalog, "7D", end)
    blend = Blend(scorers, (1.0,) * len(scorers), trees, 1.0)
    return histories, blend.precompute(histories)


def _fit_scorers(log: Interactions, catalog: Catalog, seed: int) -> list[ItemScorer]:
    net = NextItemScorer("GRU4Rec", steps=15).fit(log, catalog, seed=seed)
    return [RecentPopularity(), ItemToItem(Cosine()).fit(log, catalog), net]


def _made_up_log(catalog: Catalog, rng: np.random.Generator) -> Interactions:
    """Make six weeks of 60 people who take some of their few favourites, and other items."""
    with_category, rows = np.flatnonzero(catalog.has_category), []
    for person in range(60):
        liked = rng.choice(with_category, 4)
        minutes = np.sort(rng.integers(6 * 7 * 24 * 60, size=36))
        for minute in minutes.tolist():
            item = rng.choice(liked if rng.random() < 0.7 else with_category)
            time = np.datetime64("2020-01-01", "m") + minute
            rows.append((f"u{person:03d}", catalog.item_ids[item], time))
    columns = ["user_id", "item_id", "timestamp"]
    return Interactions.from_frame(pd.DataFrame(rows, columns=columns)).align_to(catalog)


def real_cases(dataset: Dataset, n: int, seed: int = 0) -> Iterator[EditCase]:
    """Draw people of a log, with forecasts and scores of its engine without a language model."""
    rng = np.random.default_rng(seed)
    engine = InterestEngine.from_pretrained(data=dataset, model=None)
    users = rng.choice(dataset.log.n_users, n, replace=n > dataset.log.n_users)
    for user in users:
        history = engine.histories([int(user)])[0]
        (forecast,) = engine.forecaster.forecast([history])
        yield EditCase(
            history=history,
            forecast=forecast,
            blend=engine.blend.precompute([history]),  # once a person, not once a ranking
            edits=_applicable_edits(forecast, history, 3, rng),
            strength=float(rng.choice([0, 0.25, engine.settings.strength, 2])),
            repeat=dataset.repeat,
        )


def _random_forecast(n_categories: int, rng: np.random.Generator) -> Forecast:
    weights = rng.dirichlet(np.full(n_categories, rng.choice([0.1, 1.0, 5.0])))
    weights *= rng.random(n_categories) > rng.choice([0, 0.3])
    weights = weights / weights.sum() if weights.any() else np.eye(n_categories)[0]
    return Forecast(weights, 10.0, "", (), Source("random", "counting"))


def _random_strength(rng: np.random.Generator) -> float:
    return float(rng.choice([0, 0.25, 1, rng.uniform(0, 3), 100]))


def _random_catalog(n_items: int, n_categories: int, rng: np.random.Generator) -> Catalog:
    shares = rng.random((n_items, n_categories)) * (
        rng.random((n_items, n_categories)) < rng.choice([0.1, 0.3, 0.9])
    )
    single = rng.random(n_items) < 0.3
    shares[single] = np.eye(n_categories)[rng.integers(n_categories, size=int(single.sum()))]
    shares[0] += not shares[0].any()  # the log's one event is of it
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    return Catalog(
        item_ids=pd.Index([f"i{item}" for item in range(n_items)], dtype="str"),
        titles=tuple(f"Item {item}" for item in range(n_items)),
        categories=tuple(rng.permutation(CATEGORY_NAMES)[:n_categories].tolist()),
        category_shares=sparse.csr_array(shares),
        report=CleaningReport(n_items),
    )


def _applicable_edits(
    forecast: Forecast, history: History, n: int, rng: np.random.Generator
) -> tuple[Edit, ...]:
    """Draw edits of up to n categories, as many of them as can be applied together."""
    catalog = history.catalog
    edits: tuple[Edit, ...] = ()
    probabilities = 0.5 * forecast.category_weights + 0.5 / catalog.n_categories
    chosen = rng.choice(catalog.n_categories, min(n, catalog.n_categories), False, probabilities)
    for category in chosen:
        factor = float(np.exp(rng.uniform(-1, 1) * np.log(MAX_FACTOR)))
        ends = rng.choice([0, 0, 1, 400])  # 1: it has ended before the cutoff
        edit = Edit(
            catalog.categories[category],
            factor if rng.random() < 0.8 else 0.0,
            history.cutoff + int(ends - 2) * DAY if ends else None,
            bool(rng.random() < 0.25),
        )
        try:
            apply_edits(forecast, (*edits, edit), catalog, history.cutoff)
        except EditError:
            continue
        edits = (*edits, edit)
    return edits
