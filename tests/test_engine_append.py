"""Appending events to an engine gives what a fit on the whole log gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec import Dataset, InterestEngine
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.population import Population
from llmrec.engine_config import EngineParts
from llmrec.engine_settings import EngineSettings
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import build_blend
from tests.worlds import CATEGORIES, START

STATISTICS = (
    *("RecentPopularity", "PersonalRepeat", "PopularityTrend", "Ease", "PureSVD"),
    *("SparseEaseByDays", "Cosine", "Successors", "NextItems", "EaseSeasonal"),
    *("TitleKernel", "TextPopularity", "EaseWithText"),
)
OF_NEW_ITEMS = ("TitleKernel", "EaseByText")


def items(n: int) -> pd.DataFrame:
    """The first n of items whose titles share words."""
    words = ("red", "green", "old", "new", "long", "short")
    return pd.DataFrame(
        {
            "item_id": [f"i{item:02d}" for item in range(n)],
            "title": [f"{words[item % 6]} {words[item * item % 5]} {item}" for item in range(n)],
            "categories": [CATEGORIES[item % 3] for item in range(n)],
        }
    )


def engine_of(events: pd.DataFrame, catalog: Catalog, cutoff: np.datetime64) -> InterestEngine:
    """Make an engine whose statistics are those of a log's events before a cutoff."""
    log = Interactions.from_frame(events, bot_events_per_day=None, keep_outliers=True)
    data = Dataset("tiny", log.align_to(catalog), catalog, "7D", "films", "viewer", "allow")
    weights = {name: 1.0 for name in STATISTICS}
    parts = EngineParts(
        data,
        cutoff,
        pd.Index([], dtype="str"),
        EngineSettings(model="", format=2, fitted_before=str(cutoff)),
        DecayedDirichlet(),
        None,
        build_blend(data, cutoff, weights),
        new_items=build_blend(data, cutoff, dict.fromkeys(OF_NEW_ITEMS, 1.0)),
    )
    return InterestEngine(parts)


def made_up_events(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Events of few people and items at few times, so that much coincides."""
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in rng.integers(6, size=n)],
            "item_id": [f"i{item:02d}" for item in rng.integers(12, size=n)],
            "timestamp": START + (rng.integers(40, size=n) * 3600 * 24).astype("timedelta64[s]"),
        }
    )


def scores_of(blend: Blend, engine: InterestEngine) -> dict[str, Any]:
    """Give each scorer's scores of everybody, by name."""
    histories = engine.histories()
    return {scorer.name: scorer.scores(histories) for scorer in blend.scorers}  # type: ignore[attr-defined]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_appending_a_log_in_pieces_and_refreshing_is_building_it_whole(
    seed: int, n_pieces: int
) -> None:
    rng = np.random.default_rng(seed)
    events = made_up_events(rng, 90)
    first = pd.concat([events[:30], events[:30].assign(user_id="u9")])
    known = items(9)
    first = first[first["item_id"].isin(known["item_id"])]
    begin = np.datetime64(first["timestamp"].max(), "ms") + np.timedelta64(1, "ms")
    engine = engine_of(first, Catalog.from_frame(known), begin)
    edges = np.sort(rng.integers(30, 90, size=n_pieces - 1))
    for rows in np.split(np.arange(20, 90), edges - 20):  # ten rows are there already
        engine.append(events.iloc[rows].merge(items(12), on="item_id"))
    engine.refresh()
    catalog = engine.dataset.catalog
    whole = pd.concat([first, events[20:]])
    end = np.datetime64(whole["timestamp"].max(), "ms") + np.timedelta64(1, "ms")
    expected = engine_of(whole, catalog, end)
    assert engine.cutoff == end
    same_log(engine.dataset.log, expected.dataset.log)
    same_population(engine.dataset.everybody, expected.dataset.everybody)
    for name in ("blend", "new_items"):
        own, other = getattr(engine._parts, name), getattr(expected._parts, name)
        found, right = scores_of(own, engine), scores_of(other, expected)
        assert found.keys() == right.keys()
        for scorer, values in right.items():
            np.testing.assert_allclose(found[scorer], values, rtol=0, atol=1e-9, err_msg=scorer)
    for one, other in zip(
        engine.forecaster.forecast(engine.histories()),
        expected.forecaster.forecast(expected.histories()),
        strict=True,
    ):
        np.testing.assert_allclose(one.category_weights, other.category_weights, atol=1e-12)


def same_log(found: Interactions, expected: Interactions) -> None:
    assert found.user_ids.tolist() == expected.user_ids.tolist()
    for name in ("user_offsets", "item_idx", "timestamp"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def same_population(found: Population, expected: Population) -> None:
    """Compare two populations but for the order of events of one time."""
    names = ("timestamp", "item_idx", "is_last_of_moment", "is_first_of_person")
    one, other = (
        pd.DataFrame({name: getattr(each, name) for name in names}).sort_values(list(names))
        for each in (found, expected)
    )
    np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())
    assert np.all(found.timestamp[1:] >= found.timestamp[:-1])
    assert found.n_items == expected.n_items
