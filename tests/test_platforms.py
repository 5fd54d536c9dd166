"""Lists of one platform from the past on several: its items alone, in the order of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, Dataset, Edit, InterestEngine, read_table
from llmrec.data.join import split_catalog

START = np.datetime64("2024-01-01", "ms")
CUTOFF = START + np.timedelta64(84, "D")
LETTERS = "xyz"


def platform_log(seed: int, features: bool = False) -> Dataset:
    """Sixty people, each with a favourite letter, take what is called by it and a number."""
    rng, rows = np.random.default_rng(seed), []
    for user in range(60):
        for day in range(84):
            if rng.random() < 0.5:
                letter = LETTERS[user % 3 if rng.random() < 0.8 else rng.integers(3)]
                time = START + np.timedelta64(day, "D")
                rows.append((f"u{user:02d}", f"{letter}{rng.integers(8)}", time))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    frame["categories"] = frame["item_id"].str[0].str.upper()
    found = read_table(frame, name="log", period="14D", repeat="allow")
    if not features:
        return found
    numbers = rng.normal(size=(found.catalog.n_items, 3))
    return replace(found, catalog=found.catalog.with_features("image", numbers))


@pytest.fixture(scope="module")
def engine() -> InterestEngine:
    joined = Dataset.join({"grocery": platform_log(0), "drug": platform_log(1)})
    return InterestEngine.from_pretrained(data=joined, cutoff=CUTOFF, model=None, refit=True)


@pytest.mark.parametrize("name", ["grocery", "drug"])
def test_the_list_of_a_platform_is_the_whole_list_of_its_items(
    engine: InterestEngine, name: str
) -> None:
    for options in ({}, {"edits": [Edit(f"{name}: X", 3.0)]}, {"edits": [Edit("drug: Y", 0.5)]}):
        whole = engine.session("u00", **options).ranking()
        own = engine.session("u00", platform=name, **options).ranking()
        items = engine.dataset.platforms.items(name)
        assert sorted(own.item_idx) == sorted(items)
        assert own.item_idx.tolist() == [i for i in whole.item_idx.tolist() if i in items]


def test_reasons_of_a_platform_hold_in_its_own_session(engine: InterestEngine) -> None:
    session = engine.session("u07", platform="drug")
    for one in session.recommend(5):
        assert one.item_id.startswith("drug: ")
        assert session.check(one.explanation) == ()
    taken = engine.session("u07").history.item_idx
    others = np.setdiff1d(engine.dataset.platforms.items("grocery"), taken)
    for item in (np.intersect1d(engine.dataset.platforms.items("grocery"), taken)[0], others[0]):
        elsewhere = session.why_not(engine.dataset.catalog.item_ids[item])
        assert elsewhere.rank is None
        assert "it is not among the candidates" in elsewhere.text
    edited = engine.session("u07", platform="drug", edits=[Edit("drug: X", 3.0)])
    assert edited.effect().verify(5).largest_error < 1e-9


def test_a_calibrated_list_of_a_platform_follows_the_forecast_within_it(
    engine: InterestEngine,
) -> None:
    session = engine.session("u01", platform="drug")
    categories = engine.dataset.platforms.categories("drug")
    wanted = session.forecast.within(categories).category_weights
    listed = session.recommend(8, calibrate=1.0, causes=False)
    taken = [engine.dataset.catalog.item_index(one.item_id) for one in listed]
    mix = engine.dataset.catalog.category_shares[taken].sum(axis=0) / 8
    assert np.abs(mix - wanted).max() < 1 / 8


def test_many_people_get_the_platforms_list_that_each_gets(engine: InterestEngine) -> None:
    users = ["u00", "u01", "u02"]
    many = engine.recommend_many(users, 5, platform="grocery")
    alone = [engine.recommend(user, 5, platform="grocery") for user in users]
    assert [[(o.item_id, o.score, o.why) for o in one] for one in many] == [
        [(o.item_id, o.score, o.why) for o in one] for one in alone
    ]


def test_an_unknown_platform_is_refused_by_name(engine: InterestEngine) -> None:
    with pytest.raises(DataError, match="no platform is called 'shoes': there is drug, grocery"):
        engine.recommend("u00", platform="shoes")
    with pytest.raises(DataError, match="no platform is called 'shoes'"):
        engine.recommend_many(["u00"], platform="shoes")


def test_a_list_of_new_items_is_of_the_platform_too() -> None:
    joined = Dataset.join({"grocery": platform_log(0), "drug": platform_log(1)})
    of_x = joined.log.item_ids[joined.log.item_idx].str.endswith("x7")
    log = joined.log.drop_events({"never sold": np.asarray(of_x)})
    apart = InterestEngine.from_pretrained(
        data=replace(joined, log=log), cutoff=CUTOFF, model=None, refit=True
    )
    assert {one.item_id for one in apart.recommend("u00", shelf="new")} == {
        "grocery: x7",
        "drug: x7",
    }
    session = apart.session("u00", shelf="new", platform="drug")
    (only,) = session.recommend(5)
    assert only.item_id == "drug: x7"
    assert session.check(only.explanation) == ()
    mixed = apart.session("u00", platform="drug").recommend(4, new_items=2)
    assert [one.item_id for one in mixed if one.explanation.shelf == "new"] == ["drug: x7"]
    assert all(one.item_id.startswith("drug: ") for one in mixed)


def test_a_saved_engine_without_its_log_still_knows_its_platforms(
    engine: InterestEngine, tmp_path: Path
) -> None:
    engine.save_pretrained(tmp_path / "engine")
    loaded = InterestEngine.from_pretrained(str(tmp_path / "engine"), model=None)
    assert loaded.dataset.platforms == engine.dataset.platforms
    times = [CUTOFF - np.timedelta64(9, "D")] * 2
    events = pd.DataFrame({"item_id": ["grocery: x0", "grocery: x1"], "timestamp": times})
    lists = [one.recommend(events, 5, platform="drug") for one in (engine, loaded)]
    assert [(o.item_id, o.score, o.why) for o in lists[0]] == [
        (o.item_id, o.score, o.why) for o in lists[1]
    ]


def test_features_of_the_platforms_are_those_of_what_is_joined() -> None:
    with_image, without = platform_log(0, features=True), platform_log(1)
    catalog = Dataset.join({"grocery": with_image, "drug": without}).catalog
    found = pd.DataFrame(catalog.features["image"], index=catalog.item_ids)
    own = with_image.catalog.features["image"]
    np.testing.assert_array_equal(found[found.index.str.startswith("grocery")].to_numpy(), own)
    assert found[found.index.str.startswith("drug")].isna().all(axis=None)
    back = split_catalog(catalog, ("drug", "grocery"))
    assert not back["drug"].features
    np.testing.assert_array_equal(back["grocery"].features["image"], own)
    known = Dataset.join({"grocery": with_image, "drug": without}).known_before(
        START + np.timedelta64(1, "D")
    )
    assert known.catalog.n_items < catalog.n_items
    kept = pd.DataFrame(known.catalog.features["image"], index=known.catalog.item_ids)
    pd.testing.assert_frame_equal(kept, found.loc[known.catalog.item_ids])


def test_features_of_two_widths_are_no_block_of_one_name() -> None:
    one, other = platform_log(0, features=True), platform_log(1)
    wide = other.catalog.with_features("image", np.ones((other.catalog.n_items, 5)))
    with pytest.raises(DataError, match="'image' have 5 columns on 'drug' and 3 on 'grocery'"):
        Dataset.join({"grocery": one, "drug": replace(other, catalog=wide)})


def test_a_catalog_that_is_none_of_its_platforms_is_refused() -> None:
    catalog = Dataset.join({"grocery": platform_log(0), "drug": platform_log(1)}).catalog
    with pytest.raises(DataError, match="items or categories beside those of drug"):
        split_catalog(catalog, ("drug",))
    with pytest.raises(DataError, match="platform 'grocery' are not together"):
        split_catalog(catalog, ("grocery", "drug"))
