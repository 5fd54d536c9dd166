"""Features of a catalog go with the engine: into its log's past, its blend and its folder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec import Dataset, InterestEngine
from llmrec.ranking.feature_scorers import feature_scorers
from tests.test_whole_engine import USERS, answers, dataset, events_of, load


def featured(seed: int = 0) -> Dataset:
    """The log of whole engines, with numbers of its items but the first."""
    data = dataset()
    numbers = np.random.default_rng(seed).normal(size=(data.catalog.n_items, 4))
    numbers[0] = np.nan
    return replace(data, catalog=data.catalog.with_features("image", numbers))


@cache
def fitted() -> InterestEngine:
    """An engine with a scorer by features in its blend."""
    data = featured()
    engine = InterestEngine.from_pretrained(data=data, model=None)
    engine.fit("quick", seed=3, without=list(feature_scorers(data.catalog)))
    kernel: Any = feature_scorers(engine.dataset.catalog)["TitleKernel@image"]()
    kernel.fit(data.log, engine.dataset.catalog, engine.cutoff)
    blend = engine.blend
    engine.blend = replace(
        blend, scorers=[*blend.scorers, kernel], weights=[*blend.weights, sum(blend.weights)]
    )
    return engine


def test_a_fit_tries_the_scorers_of_features_and_says_what_they_are_worth() -> None:
    engine = InterestEngine.from_pretrained(data=featured(), model=None).fit("quick", seed=3)
    members = {one["name"]: one for one in engine.settings.report["list"]["members"]}
    assert set(feature_scorers(engine.dataset.catalog)) - {"EaseByText@image"} <= set(members)
    assert members["TitleKernel@image"]["ndcg"] is not None


def test_a_saved_engine_has_its_features_and_answers_to_the_bit_without_the_log(
    tmp_path: Path,
) -> None:
    engine = fitted()
    engine.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert not len(again.dataset.log)
    found = again.dataset.catalog.features["image"]
    assert found.tobytes() == engine.dataset.catalog.features["image"].tobytes()
    assert np.isnan(found).any(axis=1).sum() == 1
    expected = answers(engine, USERS)
    assert answers(again, [events_of(dataset(), user) for user in USERS]) == expected
    assert answers(load(tmp_path, data=featured()), USERS) == expected
    shown = again.session(events_of(dataset(), USERS[0])).recommend(1)[0].explanation
    assert "image like what was taken" in shown.scorer_parts


def test_a_log_with_other_features_is_another_one(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="with other items, categories or features"):
        load(tmp_path, data=featured(1))


def test_a_log_without_features_gets_those_of_the_engine(tmp_path: Path) -> None:
    engine = fitted()
    engine.save_pretrained(tmp_path)
    again = load(tmp_path, data=dataset())
    np.testing.assert_array_equal(
        again.dataset.catalog.features["image"], engine.dataset.catalog.features["image"]
    )
    assert answers(again, USERS) == answers(engine, USERS)
