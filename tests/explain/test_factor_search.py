from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.errors import EditError
from llmrec.explain import factor_search
from llmrec.explain.counterfactual import find_removal, why_not
from llmrec.explain.factor_verdicts import LISTED, NOT_LISTED, UNKNOWN, verdicts_by_factor
from llmrec.ranking.blend import Blend
from llmrec.ranking.edits import Edit, compose_edits
from llmrec.ranking.ranking import Ranking, Reranker, listed_rank, make_reranker
from llmrec.ranking.scorers import PersonalRepeat
from llmrec.types import FloatArray
from tests.explain.people import make_forecast

NAMES = tuple("abcdef")
CUTOFF = np.datetime64("2020-03-01", "ms")
LATER, BEFORE = np.datetime64("2030-01-01"), np.datetime64("2000-01-01")


@dataclass(frozen=True)
class GivenScorer:
    """Gives everybody the same scores."""

    given: FloatArray
    name: str = "given"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return np.tile(self.given, (len(histories), 1))


@dataclass(frozen=True)
class World:
    """A person, edits, and what ranks the items."""

    history: History
    edits: tuple[Edit, ...]
    rerank: Reranker

    @property
    def catalog(self) -> Catalog:
        return self.history.catalog


def make_world(seed: int) -> World:
    """Items of one to three categories, or none; scores with ties; edits of all kinds."""
    rng = np.random.default_rng(seed)
    n_items, n_categories = int(rng.integers(4, 31)), int(rng.integers(2, len(NAMES) + 1))
    held = [
        [str(one) for one in rng.choice(NAMES[:n_categories], size, replace=False)]
        for size in np.minimum(rng.choice([0, 1, 1, 2, 2, 3], n_items), n_categories)
    ]
    held[:2] = [[*NAMES[:n_categories]], ["a"]]
    ids = [f"i{number:02d}" for number in range(n_items)]
    catalog = Catalog.from_frame(pd.DataFrame({"item_id": ids, "categories": held}))
    known = [one for one, names in zip(ids, held, strict=True) if names]
    days = pd.to_timedelta(rng.integers(1, 50, 12), "D")
    events = {"user_id": ["ann"] * 12, "item_id": rng.choice(known, 12)}
    frame = pd.DataFrame(events | {"timestamp": pd.Timestamp(str(CUTOFF)) - days})
    log = Interactions.from_frame(frame).align_to(catalog)
    (history,) = make_histories(log, catalog, "7D", CUTOFF)
    scorer = GivenScorer(np.round(rng.normal(size=n_items) * 2, int(rng.integers(0, 4))))
    weights = rng.dirichlet(np.full(catalog.n_categories, rng.choice([0.1, 1.0])))
    weights *= rng.random(len(weights)) < rng.choice([0.6, 1.0])
    weights[0] += not weights.any()
    rerank = make_reranker(
        history,
        make_forecast(*weights),
        Blend((scorer, PersonalRepeat()), (1.0, 0.3)),
        strength=float(rng.choice([0.0, 0.3, 1.0, 4.0])),
        edit_strength=float(rng.choice([0.0, 0.5, 1.0, 5.0, 100.0])),
        repeat="exclude" if rng.random() < 0.3 else "allow",
    )
    return World(history, make_edits(rng, catalog.categories, rerank), rerank)


def make_edits(
    rng: np.random.Generator, names: Sequence[str], rerank: Reranker
) -> tuple[Edit, ...]:
    """Give edits that can be applied: factors, locks, mutes, and some that end, or have ended."""
    chosen = rng.choice(names, int(rng.integers(0, len(names) + 1)), replace=False)
    edits = tuple(
        Edit(
            str(name),
            float(rng.choice([0.0, 0.01, 0.5, 1.0, 1.0, 2.0, 30.0, 90.0])),
            [None, None, LATER, BEFORE][rng.integers(4)],
            bool(rng.random() < 0.4),
        )
        for name in chosen
    )
    while True:
        try:
            rerank(edits)
        except EditError:
            edits = edits[1:]
        else:
            return edits


class PlainSearch:
    """Ranks under every factor that a search comes upon."""

    def __init__(self, world: World, item: int, k: int) -> None:
        self.world, self.item, self.k = world, item, k
        self.names = world.catalog.categories_of(item)

    def compose(self, names: Sequence[str], factor: float) -> tuple[Edit, ...]:
        return compose_edits(self.world.edits, names, factor, self.world.history.cutoff)

    def is_listed(self, names: Sequence[str], factor: float) -> bool:
        ranking = self.world.rerank(self.compose(names, factor), self.k)
        return listed_rank(ranking, self.item) is not None

    def removes(self, name: str, hundredths: int) -> bool:
        try:
            return not self.is_listed((name,), hundredths / 100)
        except EditError:
            return False

    def change(self) -> tuple[str, float] | None:
        if len(self.names) > 1:
            for hundredths in range(99, -1, -1):
                for name in self.names:
                    if self.removes(name, hundredths):
                        return name, hundredths / 100
            return None
        (name,) = self.names
        if not self.removes(name, 0):
            return None
        off, on = 0, 100
        while on - off > 1:
            middle = (on + off) // 2
            off, on = (middle, on) if self.removes(name, middle) else (off, middle)
        return name, off / 100

    def applies(self, hundredths: int) -> bool:
        try:
            self.is_listed(self.names, hundredths / 100)
        except EditError:
            return False
        return True

    def most(self) -> float:
        on, off = 100, 10_000
        if self.applies(off):
            return 100.0
        while off - on > 1:
            middle = (on + off) // 2
            on, off = (middle, off) if self.applies(middle) else (on, middle)
        return on / 100

    def factor(self) -> float | None:
        most = self.most()
        if len(self.names) > 1 and any(edit.lock for edit in self.world.edits):
            hundredths = 101
            while hundredths <= round(100 * most):
                if self.is_listed(self.names, hundredths / 100):
                    return hundredths / 100
                hundredths = max(hundredths + 1, round(1.01 * hundredths))
            return None
        low, high = 1.0, most
        if not self.is_listed(self.names, high):
            return None
        while high / low > 1.01:
            middle = round(sqrt(low * high), 2)
            low, high = (low, middle) if self.is_listed(self.names, middle) else (middle, high)
        return high


def cases(world: World, seed: int) -> list[tuple[int, int]]:
    """Some items, and lengths of lists from 1 to more than there is."""
    rng = np.random.default_rng(seed)
    items = rng.choice(world.catalog.n_items, 3, replace=False)
    lengths = 1, int(rng.integers(1, world.catalog.n_items + 2)), world.catalog.n_items - 1
    return [(int(item), k) for item, k in zip(items, lengths, strict=True)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_what_is_found_is_what_ranking_under_every_factor_finds(seed: int) -> None:
    world = make_world(seed)
    rest = world.catalog, world.history, world.edits
    for item, k in cases(world, seed):
        plain = PlainSearch(world, item, k)
        removal, missed = (find(item, world.rerank, k, *rest) for find in (find_removal, why_not))
        if plain.names and removal.rank and removal.rank <= k:
            change = plain.change()
            found = None if removal.factor is None else (removal.categories[0], removal.factor)
            assert found == change
            assert removal.edits == (plain.compose(change[:1], change[1]) if change else ())
        elif plain.names and missed.rank:
            factor = plain.factor()
            assert (missed.factor, missed.most) == (factor, plain.most())
            assert missed.edits == (plain.compose(plain.names, factor) if factor else ())


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0, 1.01, 3.0, 100.0]))
@settings(max_examples=80, deadline=None)
def test_a_verdict_is_what_ranking_gives(seed: int, factor: float) -> None:
    world, at = make_world(seed), CUTOFF
    now = world.rerank(world.edits)
    for item, k in cases(world, seed):
        names = world.catalog.categories_of(item)
        if not names or listed_rank(now, item) is None:
            continue
        factors = np.array([factor, 0.5])
        rest = world.catalog, world.edits, at, names, factors
        verdicts = verdicts_by_factor(now, item, k, *rest)
        plain = PlainSearch(world, item, k)
        for one, verdict in zip(factors.tolist(), verdicts.tolist(), strict=True):
            if verdict != UNKNOWN:
                assert plain.is_listed(names, one) == (verdict == LISTED)


def test_of_items_of_several_categories_few_factors_are_ranked() -> None:
    counts: list[int] = []
    for seed in range(100):
        world, calls = make_world(seed), []

        def counted(edits: Sequence[Edit], k: int | None = None, **options: float) -> Ranking:
            calls.append(edits)  # noqa: B023
            return world.rerank(edits, k, **options)  # noqa: B023

        for item, k in cases(world, seed):
            found = find_removal(item, counted, k, world.catalog, world.history, world.edits)
            several = len(world.catalog.categories_of(item)) > 1
            if found.factor is not None and several and not any(e.lock for e in world.edits):
                counts.append(len(calls))
            calls.clear()
    assert len(counts) > 20
    assert np.median(counts) <= 4  # as it is, what is found, the factor next to it, and the rank


def test_verdicts_that_ranking_contradicts_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*arguments: FloatArray) -> FloatArray:
        return np.full(len(arguments[-1]), NOT_LISTED)

    monkeypatch.setattr(factor_search, "verdicts_by_factor", mistaken)
    compared = 0
    for seed in range(30):
        world = make_world(seed)
        for item, k in cases(world, seed):
            rest = world.catalog, world.history, world.edits
            found, plain = find_removal(item, world.rerank, k, *rest), PlainSearch(world, item, k)
            if len(plain.names) > 1 and found.rank and found.rank <= k:
                change, compared = plain.change(), compared + 1
                assert found.factor == (None if change is None else change[1])
    assert compared > 5
