"""The contract of item scorers, run over all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.windows import make_windows
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, SequentialRules
from llmrec.ranking.lm_scorer import LMItemScorer, TextSimilarity
from llmrec.ranking.scorers import ImplicitALS, PersonalRepeat, RecentPopularity
from tests.ranking.fakes import LetterEncoder, make_title_model
from tests.worlds import START, catalog, log

CUTOFF = START + np.timedelta64(28, "D")
ITEMS, EVENTS = catalog(), log(n_users=12)


def als() -> ImplicitALS:
    pytest.importorskip("implicit")
    return ImplicitALS(factors=4, iterations=3).fit(EVENTS, ITEMS, CUTOFF)


def gbdt() -> GBDTReranker:
    pytest.importorskip("lightgbm")
    week, many = np.timedelta64(7, "D"), log(n_users=150).align_to(ITEMS)

    def fitted(cutoff: np.datetime64) -> list[ItemScorer]:
        return [PersonalRepeat(), ItemToItem(Ease(5.0)).fit(many, ITEMS, cutoff)]

    folds = [
        RankingFold(fitted(cutoff), make_windows(many, ITEMS, "7D", cutoff))
        for cutoff in (CUTOFF - 2 * week, CUTOFF - week)
    ]
    reranker = GBDTReranker(candidates=10).fit(folds, fitted(CUTOFF))
    assert reranker.n_leaves > reranker.n_trees
    return reranker


def next_item(model: str) -> Callable[[], ItemScorer]:
    """Train a net for three steps."""

    def make() -> ItemScorer:
        pytest.importorskip("cornac")
        from llmrec.forecasters.sequential import NextItemModel

        week = np.timedelta64(7, "D")
        training, validation = (
            make_windows(EVENTS, ITEMS, "7D", CUTOFF - n * week) for n in (2, 1)
        )
        return NextItemModel(model, steps=3).fit(training, validation)  # type: ignore[arg-type]

    return make


NETS = {model: next_item(model) for model in ("SASRec", "BERT4Rec", "GRU4Rec")}
SCORERS: dict[str, Callable[[], ItemScorer]] = {
    "popularity": RecentPopularity,
    "popularity, one day": lambda: RecentPopularity(days=1),
    "repeat": PersonalRepeat,
    "als": als,
    "ease": lambda: ItemToItem(Ease(5.0), half_life=6.6).fit(EVENTS, ITEMS, CUTOFF),
    "ease, counts": lambda: ItemToItem(
        Ease(5.0, "log"), half_life=9.0, per="days", counts="log"
    ).fit(EVENTS, ITEMS, CUTOFF),
    "neighbours": lambda: ItemToItem(Cosine(3), counts="count").fit(EVENTS, ITEMS, CUTOFF),
    "successors": lambda: ItemToItem(SequentialRules(3), half_life=3.0).fit(EVENTS, ITEMS, CUTOFF),
    "gbdt": gbdt,
    **NETS,
    "texts": lambda: TextSimilarity(LetterEncoder(), half_life=3.0),  # type: ignore[arg-type]
    "titles": lambda: LMItemScorer(*make_title_model()),
    "blend": lambda: Blend((RecentPopularity(), PersonalRepeat(), als()), (0.2, 0.7, 0.1)),
}
every_scorer = pytest.mark.parametrize("make", SCORERS.values(), ids=SCORERS.keys())


@pytest.fixture(scope="module", params=["7D", "10 events"])
def histories(request: pytest.FixtureRequest) -> list[History]:
    return make_histories(EVENTS, ITEMS, request.param, CUTOFF)


@every_scorer
def test_every_item_of_the_catalog_gets_a_finite_score(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scores = make().scores(histories)
    assert scores.shape == (len(histories), ITEMS.n_items)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


@every_scorer
def test_scores_are_log_probabilities(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scorer = make()
    total = np.exp(scorer.scores(histories)).sum(axis=1)
    if not isinstance(scorer, Blend):  # a blend is left unnormalised, so that its parts add up
        np.testing.assert_allclose(total, 1)


@every_scorer
def test_a_batch_gives_the_bytes_that_single_calls_give_in_any_order(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scorer = make()
    batch = scorer.scores(histories)
    singles = np.concatenate([scorer.scores([history]) for history in histories])
    backwards = scorer.scores(histories[::-1])[::-1]
    if make in NETS.values():  # the products of their layers round by the size of the batch
        np.testing.assert_allclose([singles, backwards], [batch, batch], rtol=0, atol=1e-12)
    else:
        assert batch.tobytes() == singles.tobytes() == backwards.tobytes()


@every_scorer
def test_the_same_seed_gives_the_same_bytes(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    assert make().scores(histories).tobytes() == make().scores(histories).tobytes()


@every_scorer
def test_what_happens_at_or_after_the_cutoff_changes_nothing(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    short = truncate_log(EVENTS, CUTOFF).align_to(ITEMS)
    assert 0 < len(short) < len(EVENTS)
    cut = make_histories(short, ITEMS, histories[0].period_length, CUTOFF)
    assert make().scores(histories).tobytes() == make().scores(cut).tobytes()


@every_scorer
def test_somebody_without_an_event_gets_scores_too(make: Callable[[], ItemScorer]) -> None:
    (empty,) = make_histories(EVENTS, ITEMS, "7D", START - np.timedelta64(1, "D"), [0])
    later = History(
        empty.log,
        empty.catalog,
        empty.user_idx,
        empty.offsets,
        empty.bounds,
        CUTOFF,
        empty.period_length,
    )
    assert later.n_events == 0
    assert np.isfinite(make().scores([later])).all()
