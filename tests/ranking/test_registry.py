"""Scorers by name: each can be built, each log has defaults, unknown names are refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from llmrec.data.periods import make_histories
from llmrec.errors import DataError
from llmrec.ranking.blend import Blend
from llmrec.ranking.item_item import MAX_DENSE_ITEMS, Ease, ItemToItem
from llmrec.ranking.registry import (
    LM_SCORER,
    MAX_EASE_ITEMS,
    SCORERS,
    build_scorer,
    default_scorers,
    registered_name,
)
from llmrec.types import RepeatPolicy
from tests.worlds import START, catalog, log

ITEMS, EVENTS = catalog(), log(n_users=12)
CUTOFF = START + np.timedelta64(28, "D")
LOGS = list(
    product(("7D", "10 events"), (25, MAX_EASE_ITEMS, MAX_EASE_ITEMS + 1), ("allow", "exclude"))
)


@pytest.mark.parametrize("name", SCORERS)
def test_every_name_is_a_scorer_fitted_before_the_cutoff(name: str) -> None:
    if name == "ImplicitALS":
        pytest.importorskip("implicit")
    scorer = build_scorer(name, EVENTS, ITEMS, CUTOFF)
    histories = make_histories(EVENTS, ITEMS, "7D", CUTOFF)
    assert np.isfinite(scorer.scores(histories)).all()


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_is_registered_under_its_name_and_parameters(name: str) -> None:
    assert registered_name(SCORERS[name]()) == name
    assert registered_name(ItemToItem(Ease(77.0))) is None


@pytest.mark.parametrize(("period", "n_items", "repeat"), LOGS)
def test_the_default_scorers_have_different_names_in_explanations(
    period: str, n_items: int, repeat: RepeatPolicy
) -> None:
    names = default_scorers(period, n_items, repeat)
    scorers = [build_scorer(name, EVENTS, ITEMS) for name in names]
    blend = Blend(scorers, (1.0,) * len(scorers))  # refuses two of one name
    assert len(set(blend.names)) == len(names) == len(set(names))


def test_the_defaults_depend_on_repeats_periods_and_the_size_of_the_catalog() -> None:
    for period, n_items, repeat in LOGS:
        names = default_scorers(period, n_items, repeat)
        assert ("PersonalRepeat" in names) == (repeat == "allow")
        assert any(name.startswith("Ease") for name in names) == (n_items <= MAX_EASE_ITEMS)
        by_events = period == "10 events" and n_items <= MAX_EASE_ITEMS
        assert ("EaseByEvents" in names) == by_events
        assert ({"Cosine", "Successors"} <= set(names)) == (n_items > MAX_EASE_ITEMS)
    assert MAX_EASE_ITEMS <= MAX_DENSE_ITEMS  # what is chosen can be fitted


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'Eese'.*Ease.*LMItemScorer"):
        build_scorer("Eese", EVENTS, ITEMS)
    with pytest.raises(DataError, match="title embeddings"):
        build_scorer(LM_SCORER, EVENTS, ITEMS)
