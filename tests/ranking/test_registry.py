"""Scorers by name: each can be built, each log has defaults, unknown names are refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llmrec.data.periods import History, make_histories
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError
from llmrec.ranking.blend import Blend
from llmrec.ranking.item_item import MAX_DENSE_ITEMS
from llmrec.ranking.lm_scorer import LMItemScorer
from llmrec.ranking.registry import (
    LM_SCORER,
    MAX_EASE_ITEMS,
    SCORERS,
    build_scorer,
    default_scorers,
    first_stage_scorers,
    load_blend,
    load_scorer,
    stored_blend,
)
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.ranking.seasonal import Seasonal
from llmrec.types import FloatArray, RepeatPolicy
from tests.ranking.fakes import make_title_model
from tests.worlds import START, catalog, log

ITEMS, EVENTS = catalog(), log(n_users=12)
CUTOFF = START + np.timedelta64(28, "D")
LOGS = list(
    product(("7D", "10 events"), (25, MAX_EASE_ITEMS, MAX_EASE_ITEMS + 1), ("allow", "exclude"))
)


@pytest.mark.parametrize("name", SCORERS)
def test_every_name_is_a_scorer_fitted_before_the_cutoff(name: str) -> None:
    if name in ("ImplicitALS", "FactorsFromText"):
        pytest.importorskip("implicit")
    scorer = build_scorer(name, EVENTS, ITEMS, CUTOFF)
    histories = make_histories(EVENTS, ITEMS, "7D", CUTOFF)
    assert np.isfinite(scorer.scores(histories)).all()


@pytest.mark.parametrize(("period", "n_items", "repeat"), LOGS)
def test_the_scorers_of_a_log_have_different_names_in_explanations(
    period: str, n_items: int, repeat: RepeatPolicy
) -> None:
    pytest.importorskip("implicit")
    for choose in (default_scorers, first_stage_scorers):
        names = choose(period, n_items, repeat)
        scorers = [build_scorer(name, EVENTS, ITEMS) for name in names]
        blend = Blend(scorers, (1.0,) * len(scorers))  # refuses two of one name
        assert len(set(blend.names)) == len(names) == len(set(names))


def test_the_defaults_depend_on_repeats_periods_and_the_size_of_the_catalog() -> None:
    for period, n_items, repeat in LOGS:
        names = default_scorers(period, n_items, repeat)
        assert ("PersonalRepeat" in names) == (repeat == "allow")
        assert any("Ease" in name for name in names) == (n_items <= MAX_EASE_ITEMS)
        by_events = period == "10 events" and n_items <= MAX_EASE_ITEMS
        assert ("SparseEaseByEvents" in names) == by_events
        assert ({"Cosine", "Successors"} <= set(names)) == (n_items > MAX_EASE_ITEMS)
    assert MAX_EASE_ITEMS <= MAX_DENSE_ITEMS  # what is chosen can be fitted


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'Eese'.*Ease.*LMItemScorer"):
        build_scorer("Eese", EVENTS, ITEMS)
    with pytest.raises(DataError, match="title embeddings"):
        build_scorer(LM_SCORER, EVENTS, ITEMS)


@pytest.mark.parametrize(("period", "n_items", "repeat"), LOGS)
def test_trees_get_ease_up_to_a_size_and_repeats_where_these_may_be_listed(
    period: str, n_items: int, repeat: RepeatPolicy
) -> None:
    names = first_stage_scorers(period, n_items, repeat)
    assert set(names) <= set(SCORERS)
    assert any(name.startswith("PersonalRepeat") for name in names) == (repeat == "allow")
    assert any("Ease" in name for name in names) == (n_items <= MAX_EASE_ITEMS)
    assert ("Successors" in names) == (period == "10 events")


def test_without_implicit_trees_do_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ImplicitALS" not in first_stage_scorers("7D", 25, "allow")


def test_a_stored_blend_lacks_the_scorer_of_a_model_and_does_without_it(tmp_path: Path) -> None:
    titles = LMItemScorer(*make_title_model())
    blend = Blend((PersonalRepeat(), titles, RecentPopularity()), (0.4, 0.5, 0.0))
    stored_blend(blend).save(tmp_path)
    stored = Stored.load(tmp_path)
    again = load_blend(stored, ITEMS, {LM_SCORER: titles})
    histories = make_histories(EVENTS, ITEMS, "7D", CUTOFF)
    assert again.scores(histories).tobytes() == blend.scores(histories).tobytes()
    assert again.names == blend.names
    without = load_blend(stored, ITEMS)
    assert without.names == tuple(name for name in blend.names if name != titles.name)
    for wrong in ({"weights": [1.0]}, {"weights": ["a", "b", "c"]}, {"trees_weight": 1.0}):
        with pytest.raises(ModelLoadError, match="the stored Blend cannot be used"):
            load_blend(
                replace(stored, values={**stored.values, **wrong}), ITEMS, {LM_SCORER: titles}
            )


def test_a_blend_with_a_scorer_or_trees_of_somebody_else_is_not_stored() -> None:
    class Own:
        name, n_scorers = "own", 1

        def scores(self, histories: Sequence[History]) -> FloatArray:
            return RecentPopularity().scores(histories)

        def second_scores(
            self, first_scores: FloatArray, histories: Sequence[History]
        ) -> FloatArray:
            return first_scores[0]

    with pytest.raises(DataError, match="'own', which cannot be stored"):
        stored_blend(Blend((Own(),), (1.0,)))
    with pytest.raises(DataError, match="'own' cannot be stored: only a GBDTReranker can"):
        stored_blend(Blend((RecentPopularity(),), (1.0,), Own(), 1.0))
    with pytest.raises(ValueError, match="'own' cannot be stored"):
        Seasonal(Own()).stored()


def test_a_stored_scorer_of_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelLoadError, match=r"stored as 'Eese': known are .*ItemToItem.*NextItem"):
        load_scorer(Stored("Eese"), ITEMS)


def test_a_stored_net_is_made_by_the_module_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    class NextItemScorer(RecentPopularity):
        pass

    made = SimpleNamespace(NextItemScorer=NextItemScorer)
    monkeypatch.setitem(sys.modules, "llmrec.forecasters.sequential", made)  # type: ignore[arg-type]
    found = load_scorer(Stored("NextItemScorer", {"days": 3.0}), ITEMS)
    assert isinstance(found, NextItemScorer)
