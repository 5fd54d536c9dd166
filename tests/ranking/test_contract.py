"""The contract of item scorers, run over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import ModelLoadError
from llmrec.forecast import ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.contributions import AdditiveScorer, contributions_of
from llmrec.ranking.factors import ImplicitALS, PureSVD
from llmrec.ranking.feature_scorers import VECTOR_SCORERS, feature_scorers
from llmrec.ranking.fitted import StorableScorer
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.item_item import Cosine, Ease, ItemToItem, SequentialRules
from llmrec.ranking.lm_scorer import LMItemScorer, TextSimilarity
from llmrec.ranking.ranking import rank
from llmrec.ranking.registry import load_blend, load_scorer, stored_blend
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.ranking.seasonal import Seasonal
from llmrec.ranking.text_ease import EaseByText, EaseWithText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.types import FloatArray
from tests.ranking.fakes import LetterEncoder, make_title_model
from tests.worlds import START, catalog, log, without_log

CUTOFF = START + np.timedelta64(28, "D")
ITEMS, EVENTS = catalog(), log(n_users=12)
NUMBERS = np.random.default_rng(0).normal(size=(ITEMS.n_items, 3))
NUMBERS[::5] = np.nan
FEATURED = ITEMS.with_features("image", NUMBERS)


class EqualScorer:
    """Gives all items the same score, so that popularity decides."""

    name = "equal"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return np.zeros((len(histories), ITEMS.n_items))


def als() -> ImplicitALS:
    pytest.importorskip("implicit")
    return ImplicitALS(factors=4, iterations=3).fit(EVENTS, ITEMS, CUTOFF)


def factors_from_text() -> FactorsFromText:
    pytest.importorskip("implicit")
    als = ImplicitALS(factors=4, iterations=3)
    return FactorsFromText(als).fit(EVENTS, ITEMS, CUTOFF)


def by_features(name: str) -> Callable[[], ItemScorer]:
    """Fit a scorer by the features of four items in five."""

    def make() -> ItemScorer:
        if name == "FactorsFromText":
            pytest.importorskip("implicit")
        scorer: Any = feature_scorers(FEATURED)[f"{name}@image"]()
        return cast(ItemScorer, scorer.fit(EVENTS, FEATURED, CUTOFF))

    return make


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


@cache
def blend_with_trees() -> Blend:
    """Trees by the scores of two scorers, one of them without a weight of its own."""
    scorers = (PersonalRepeat(), ItemToItem(Ease(5.0)).fit(EVENTS, ITEMS, CUTOFF))
    return Blend(scorers, (0.5, 0.0), gbdt(), 0.7)


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
    "ease, few weights": lambda: ItemToItem(Ease(5.0, keep=4)).fit(EVENTS, ITEMS, CUTOFF),
    "successors, few": lambda: ItemToItem(SequentialRules(3, keep=4)).fit(EVENTS, ITEMS, CUTOFF),
    "svd": lambda: PureSVD(4).fit(EVENTS, ITEMS, CUTOFF),
    "svd, counts": lambda: PureSVD(4, "log", half_life=9.0).fit(EVENTS, ITEMS, CUTOFF),
    "ease in season": lambda: Seasonal(ItemToItem(Ease(5.0)), days=7.0).fit(EVENTS, ITEMS, CUTOFF),
    "repeat in season": lambda: Seasonal(PersonalRepeat(), days=7.0),
    "title kernel": lambda: TitleKernel().fit(EVENTS, ITEMS, CUTOFF),
    "title kernel, encoder": lambda: TitleKernel(
        half_life=9.0, encoder=LetterEncoder(), projection="whitened"
    ).fit(EVENTS, ITEMS, CUTOFF),
    "popularity by text": lambda: TextPopularity(neighbours=5).fit(EVENTS, ITEMS, CUTOFF),
    "ease by text": lambda: ItemToItem(EaseByText(5.0)).fit(EVENTS, ITEMS, CUTOFF),
    "ease by text, few weights": lambda: ItemToItem(
        EaseByText(5.0, np.inf, neighbours=3, keep=4), half_life=9.0, per="days"
    ).fit(EVENTS, ITEMS, CUTOFF),
    "ease with text": lambda: ItemToItem(EaseWithText()).fit(EVENTS, ITEMS, CUTOFF),
    "ease with text, few weights": lambda: ItemToItem(
        EaseWithText(2.0, 5.0, np.inf, keep=4), half_life=9.0, per="days"
    ).fit(EVENTS, ITEMS, CUTOFF),
    "factors from text": factors_from_text,
    **{f"{name} by features": by_features(name) for name in VECTOR_SCORERS},
    "gbdt": gbdt,
    **NETS,
    "texts": lambda: TextSimilarity(LetterEncoder(), half_life=3.0),  # type: ignore[arg-type]
    "titles": lambda: LMItemScorer(*make_title_model()),
    "blend": lambda: Blend((RecentPopularity(), PersonalRepeat(), als()), (0.2, 0.7, 0.1)),
    "blend with trees": blend_with_trees,
}
UNSTORED = {"gbdt", "texts", "titles", *NETS}  # trees are stored with their blend
STORED = {name: make for name, make in SCORERS.items() if name not in UNSTORED}
every_stored_scorer = pytest.mark.parametrize("make", STORED.values(), ids=STORED)
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
def test_people_of_whom_the_events_alone_are_given_get_the_same_bytes(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scorer = make()
    assert scorer.scores(without_log(histories)).tobytes() == scorer.scores(histories).tobytes()


@pytest.mark.parametrize(
    "blend",
    [Blend((RecentPopularity(), PersonalRepeat()), (0.3, 0.7)), Blend((EqualScorer(),), (1.0,))],
    ids=["usual", "equal scores"],
)
def test_people_of_whom_the_events_alone_are_given_get_the_same_list(
    blend: Blend, histories: list[History]
) -> None:
    forecasts = DecayedDirichlet().forecast(histories)
    expected = rank(forecasts, histories, blend, k=10)
    found = rank(forecasts, without_log(histories), blend, k=10)
    for one, other in zip(found, expected, strict=True):
        assert one.item_idx.tobytes() == other.item_idx.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()


@every_scorer
def test_the_same_seed_gives_the_same_bytes(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    assert make().scores(histories).tobytes() == make().scores(histories).tobytes()


@every_scorer
def test_contributions_sum_to_the_raw_scores_or_are_what_removal_takes_off(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scorer, items = make(), np.array([7, 0, 24])
    for history in histories[:3]:
        found = contributions_of(scorer, history, items)
        assert found.parts.shape == (3, len(found.past_items))
        assert set(found.past_items) <= set(history.item_idx)
        if isinstance(scorer, AdditiveScorer) and found.is_exact:
            raw = scorer.raw_scores([history])[0, items]
            np.testing.assert_allclose(found.raw_scores, raw, rtol=0, atol=1e-9)
        else:
            scores = scorer.scores([history])[0, items]
            np.testing.assert_allclose(found.raw_scores, scores, rtol=0, atol=1e-9)
            first = history.without_items(found.past_items[:1])
            lost = scores - scorer.scores([first])[0, items]
            np.testing.assert_allclose(found.parts[:, 0], lost, rtol=0, atol=1e-9)


@every_scorer
def test_scores_rise_with_the_raw_scores(
    make: Callable[[], ItemScorer], histories: list[History]
) -> None:
    scorer = make()
    if not isinstance(scorer, AdditiveScorer) or isinstance(scorer, Seasonal):
        pytest.skip("it has no raw scores of its own")
    for raw, scores in zip(scorer.raw_scores(histories), scorer.scores(histories), strict=True):
        positive = np.flatnonzero(raw > 0)
        by_raw = positive[np.argsort(raw[positive], kind="stable")]
        if "floor" not in vars(scorer):  # else popularity has a say
            assert (np.diff(scores[by_raw]) >= -1e-12).all()


@every_scorer
def test_a_person_without_some_items_is_one_who_never_took_them(
    make: Callable[[], ItemScorer],
) -> None:
    (full, *_) = make_histories(EVENTS, ITEMS, "7D", CUTOFF, [3])
    removed = np.unique(full.item_idx)[:2]
    known = truncate_log(EVENTS, CUTOFF).align_to(ITEMS)
    gone = (known.user_idx == 3) & np.isin(known.item_idx, removed)
    shorter = known.drop_events({"never taken": gone})
    (expected,) = make_histories(shorter, ITEMS, "7D", CUTOFF, [3], population=full.population)
    found = full.without_items(removed)
    assert found.n_left_out == gone.sum()
    np.testing.assert_array_equal(found.category_counts, expected.category_counts)
    scorer, expected = make(), replace(expected, n_left_out=found.n_left_out)
    assert scorer.scores([found]).tobytes() == scorer.scores([expected]).tobytes()


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


def to_stored(scorer: ItemScorer) -> Stored:
    if isinstance(scorer, Blend):
        return stored_blend(scorer)
    assert isinstance(scorer, StorableScorer)
    return scorer.stored()


@every_stored_scorer
def test_a_saved_scorer_scores_the_same_to_the_bit(
    make: Callable[[], ItemScorer], histories: list[History], tmp_path: Path
) -> None:
    scorer = make()
    to_stored(scorer).save(tmp_path)
    load = load_blend if isinstance(scorer, Blend) else load_scorer
    again = load(Stored.load(tmp_path), ITEMS)
    assert again.scores(histories).tobytes() == scorer.scores(histories).tobytes()
    to_stored(again).save(tmp_path / "again")
    for path in tmp_path.rglob("*.*"):
        if "again" not in path.parts:
            twin = tmp_path / "again" / path.relative_to(tmp_path)
            assert twin.read_bytes() == path.read_bytes()


@every_stored_scorer
def test_no_id_and_no_title_is_stored_with_a_scorer(
    make: Callable[[], ItemScorer], tmp_path: Path
) -> None:
    to_stored(make()).save(tmp_path)
    found = b"".join(path.read_bytes() for path in tmp_path.rglob("*.*"))
    for text in (*EVENTS.user_ids, *ITEMS.item_ids, *ITEMS.titles):
        assert str(text).encode() not in found


@every_stored_scorer
def test_a_loaded_scorer_of_fitted_numbers_refuses_other_catalogs_and_earlier_cutoffs(
    make: Callable[[], ItemScorer],
) -> None:
    scorer = make()
    stored = to_stored(scorer)
    if isinstance(scorer, Blend) or not stored.values.get("before"):
        pytest.skip("nothing is fitted, or the parts are")
    with pytest.raises(ModelLoadError, match=f"the stored {stored.kind} cannot be used: .*shape"):
        load_scorer(stored, catalog(30))
    early = make_histories(EVENTS, ITEMS, "7D", CUTOFF - np.timedelta64(7, "D"))
    with pytest.raises(ValueError, match="fit it with an earlier cutoff"):
        load_scorer(stored, ITEMS).scores(early)
    for name in stored.arrays:
        part = {key: array for key, array in stored.arrays.items() if key != name}
        with pytest.raises(ModelLoadError, match=f"the stored {stored.kind} cannot be used"):
            load_scorer(replace(stored, arrays=part), ITEMS)
    for name in ("before", "floor", "temperature"):
        if name in stored.values:
            wrong = replace(stored, values={**stored.values, name: "much"})
            with pytest.raises(ModelLoadError, match=f"the stored {stored.kind} cannot be used"):
                load_scorer(wrong, ITEMS)
