"""Logs of several platforms as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec import DataError, Dataset, parse_edits, read_table
from llmrec.data.calendar import period_boundaries
from llmrec.data.catalog import Catalog
from llmrec.data.counts import target_counts
from llmrec.data.interactions import Interactions
from llmrec.data.log_items import catalog_of_rows, item_rows_of_log
from llmrec.data.population import Population
from llmrec.data.splits import training_windows
from llmrec.data.windows import make_windows
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.collaborative import CategoryEASE
from llmrec.ranking.blend import Blend
from llmrec.ranking.item_item import Ease, ItemToItem
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import RecentPopularity

DAY = np.timedelta64(1, "D")
START = np.datetime64("2024-01-01T00:00:00", "ms")
EVENTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.integers(0, 30)),
    min_size=1,
    max_size=12,
)


def dataset(*events: tuple[str, str, int], period: str = "7D", repeat: str = "allow") -> Dataset:
    """A log of (person, item, day); an item's category is its first letter."""
    frame = pd.DataFrame(events, columns=["user_id", "item_id", "day"])
    frame["timestamp"] = START + frame.pop("day").to_numpy() * DAY
    frame["categories"] = frame["item_id"].str[0].str.upper()
    log = Interactions.from_frame(frame)
    items = item_rows_of_log(log, frame[["categories"]])
    words = (period, "items", "person", repeat)
    return Dataset("log", log, catalog_of_rows(items, None), *words, item_rows=items)


def rows(data: Dataset) -> list[tuple[str, ...]]:
    """List who took what, of which categories, and when, in the order of the log."""
    log, catalog = data.log.align_to(data.catalog), data.catalog
    return [
        (user, catalog.item_ids[item], str(time), *catalog.categories_of(item))
        for user, item, time in zip(
            log.user_ids[log.user_idx], log.item_idx, log.timestamp, strict=True
        )
    ]


@settings(max_examples=10, deadline=None)
@given(first=EVENTS, second=EVENTS, third=EVENTS)
def test_each_platform_can_be_taken_out_again(first: list, second: list, third: list) -> None:
    given = {
        name: dataset(("a", "x", 0), *events)
        for name, events in (("shop", first), ("films", second), ("x", third))
    }
    joined = Dataset.join(given)
    for name, own in given.items():
        back = joined.platform(name)
        assert back.log.fingerprint == own.log.fingerprint
        assert rows(back) == rows(own)
        assert (back.log.user_ids == own.log.user_ids).all()
    prefixed = [
        (user, f"{name}: {item}", time, *(f"{name}: {one}" for one in categories))
        for name, own in given.items()
        for user, item, time, *categories in rows(own)
    ]
    assert sorted(rows(joined)) == sorted(prefixed)
    times = [(user, time) for user, _, time, *_ in rows(joined)]
    assert times == sorted(times)


@settings(max_examples=5, deadline=None)
@given(first=EVENTS, second=EVENTS)
def test_the_order_of_the_platforms_does_not_matter(first: list, second: list) -> None:
    shop, films = dataset(("a", "x", 0), *first), dataset(("a", "x", 0), *second)
    one = Dataset.join({"shop": shop, "films": films})
    other = Dataset.join({"films": films, "shop": shop})
    assert one.log.fingerprint == other.log.fingerprint
    assert one.catalog.categories == other.catalog.categories
    assert (one.name, one.platforms, one.findings) == (other.name, other.platforms, other.findings)


def test_items_and_categories_are_divided_among_the_platforms() -> None:
    joined = Dataset.join(
        {"b": dataset(("u", "x", 0), ("u", "y", 1)), "a": dataset(("u", "x", 2), ("v", "z", 3))}
    )
    platforms, catalog = joined.platforms, joined.catalog
    assert platforms.names == ("a", "b")
    for name in platforms.names:
        items, categories = platforms.items(name), platforms.categories(name)
        assert catalog.item_ids[items].str.startswith(f"{name}: ").all()
        assert [one for one in catalog.categories if one.startswith(f"{name}: ")] == [
            catalog.categories[category] for category in categories
        ]
        inside = catalog.category_shares[items][:, categories].sum()
        assert inside == catalog.category_shares[items].sum() == len(items)
    with pytest.raises(DataError, match="no platform is called 'c': there is a, b"):
        platforms.items("c")
    with pytest.raises(DataError, match="nothing was joined"):
        dataset(("u", "x", 0)).platform("a")


def test_it_is_told_how_many_people_two_platforms_share() -> None:
    joined = Dataset.join(
        {
            "a": dataset(("u", "x", 0), ("v", "x", 1)),
            "b": dataset(("v", "x", 0), ("w", "y", 1)),
            "c": dataset(("v", "x", 0), ("w", "y", 1), ("w", "y", 2)),
        }
    )
    counted = {one.rule: one.rows for one in joined.findings if "people are on both" in one.rule}
    assert counted == {
        "1 people are on both 'a' and 'b'": 2,
        "1 people are on both 'a' and 'c'": 2,
        "2 people are on both 'b' and 'c'": 5,
    }


def test_a_cutoff_cuts_the_catalog_of_each_platform() -> None:
    shop = dataset(("u", "x", 0), ("v", "y", 9))
    films = dataset(("u", "x", 1), ("u", "z", 12), ("v", "y", 2))
    cutoff = START + 5 * DAY
    known = Dataset.join({"shop": shop, "films": films}).known_before(cutoff)
    assert known.catalog.categories == ("films: X", "films: Y", "shop: X")
    for name, own in (("shop", shop), ("films", films)):
        assert rows(known.platform(name)) == rows(own.known_before(cutoff))
    later = known.with_catalog_before(START + 30 * DAY)
    assert later.catalog.categories == known.catalog.categories
    with pytest.raises(DataError, match="platform 'films': the log names no item before"):
        Dataset.join({"shop": shop, "films": films}).known_before(START + DAY)


def test_categories_can_be_left_out_of_what_is_joined() -> None:
    shop, films = dataset(("u", "x", 0), ("u", "y", 1)), dataset(("u", "x", 2), ("u", "z", 20))
    joined = Dataset.join({"shop": shop, "films": films}).without_categories(["shop: X"])
    assert rows(joined.platform("shop")) == rows(shop.without_categories(["X"]))
    assert rows(joined.platform("films")) == rows(films)
    known = joined.with_catalog_before(START + 10 * DAY)
    assert known.catalog.categories == ("films: X", "shop: Y")


def test_a_name_with_the_platform_says_which_category_an_edit_means() -> None:
    joined = Dataset.join({"shop": dataset(("u", "x", 0)), "films": dataset(("u", "x", 1))})
    parsed = parse_edits("more shop: x", joined.catalog, START)
    assert [edit.category for edit in parsed.edits] == ["shop: X"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["shop"], "give at least two"),
        (["shop", " "], "the name of a platform is ' '"),
        (["shop", ""], "the name of a platform is ''"),
        (["shop", "a: b"], "platform 'a: b' contains ':'"),
        (["shop", "s" * 31], "too long"),
        (["shop", "films\u200b"], "invisible characters"),
        (["shop", "Shop"], "'shop' and 'Shop' have one name"),
    ],
)
def test_names_that_items_cannot_be_called_by_are_refused(names: list[str], said: str) -> None:
    own = dataset(("u", "x", 0))
    with pytest.raises(DataError, match=said):
        Dataset.join(dict.fromkeys(names, own))


def test_platforms_that_do_not_fit_together_are_refused_by_name() -> None:
    own = dataset(("u", "x", 0))
    with pytest.raises(DataError, match="the period is 14 days on 'a' and 7 days on 'b'"):
        Dataset.join({"b": own, "a": dataset(("u", "x", 0), period="14D")})
    with pytest.raises(DataError, match="repeat is exclude on 'a' and allow on 'b'"):
        Dataset.join({"b": own, "a": dataset(("u", "x", 0), repeat="exclude")})
    assert len(Dataset.join({"b": own, "a": replace(own, period="1W")}).log) == 2
    foreign = {"a": own, "b": dataset(("u", "x", 0)), "c": dataset(("0u", "x", 0))}
    with pytest.raises(DataError, match=r"'c' has no person in common .* such as '0u' there"):
        Dataset.join(foreign)
    nobody = Dataset.without_log(
        *("nobody", own.catalog, Population.of(own.log)),
        **{"period": "7D", "noun": "items", "person": "person", "repeat": "allow"},
    )
    with pytest.raises(DataError, match="platform 'b' holds no log"):
        Dataset.join({"a": own, "b": nobody})


def test_catalogs_given_apart_and_their_items_without_events_are_joined() -> None:
    items = pd.DataFrame({"item_id": ["x", "new"], "categories": [["A", "B"], ["B"]]})
    catalog = Catalog.from_frame(items)
    events = pd.DataFrame({"user_id": ["u"], "item_id": ["x"], "timestamp": [START]})
    apart = read_table(events, catalog, period="7D")
    joined = Dataset.join({"apart": apart, "log": dataset(("u", "x", 0), ("u", "y", 9))})
    known = joined.known_before(START + DAY)
    assert list(known.catalog.item_ids) == ["apart: x", "apart: new", "log: x"]
    assert known.catalog.categories_of(0) == ("apart: A", "apart: B")


def forecast(weights: list[float], concentration: float = 40.0) -> Forecast:
    return Forecast(np.array(weights), concentration, "", (), Source("given", "counting"))


def test_a_forecast_within_categories_is_that_of_its_samples() -> None:
    whole = forecast([0.1, 0.2, 0.3, 0.4])
    part = whole.within(np.array([1, 3]))
    assert part.category_weights == pytest.approx([0, 1 / 3, 0, 2 / 3])
    drawn = whole.sample(20_000)[:, [1, 3]]
    drawn /= drawn.sum(axis=1, keepdims=True)
    assert drawn.mean(axis=0) == pytest.approx([1 / 3, 2 / 3], abs=0.005)
    assert drawn[:, 0].var() == pytest.approx(2 / 9 / (part.concentration + 1), rel=0.05)


@pytest.mark.parametrize("categories", [[4], [-1], [0.5], [2]])
def test_a_forecast_within_nothing_is_refused(categories: list[float]) -> None:
    with pytest.raises(ValueError, match=r"categories"):
        forecast([0.5, 0.5, 0.0, 0.0]).within(np.array(categories))


def crossing_world(n_people: int = 90, n_periods: int = 8) -> dict[str, Dataset]:
    """People who take x, y or z in the shop take films of the same letter, and no others."""
    rng = np.random.default_rng(0)
    logs: dict[str, list[tuple[str, str, int]]] = {"shop": [], "films": []}
    for person in range(n_people):
        letter = "xyz"[person % 3]
        for day in range(7 * n_periods):
            for name, events in logs.items():
                # The last ten have only just heard of the films.
                if person >= n_people - 10 and name == "films" and day < 7 * (n_periods - 2):
                    continue
                if rng.random() < 0.8:
                    events.append((f"u{person:02d}", f"{letter}{day % 2}", day))
    return {name: dataset(*events) for name, events in logs.items()}


def test_who_is_known_in_the_shop_alone_gets_forecasts_and_lists_of_films() -> None:
    joined = Dataset.join(crossing_world())
    platforms, catalog = joined.platforms, joined.catalog
    films, items = platforms.categories("films"), platforms.items("films")
    cutoff = period_boundaries(joined.log, joined.period)[-2]
    windows = make_windows(joined.log, catalog, joined.period, cutoff)
    new = [window for window in windows if window.history.user_id >= "u80"]
    histories = [window.history for window in new]
    assert len(new) == 10
    assert not any(np.isin(history.item_idx, items).any() for history in histories)
    known = joined.known_before(cutoff)
    grid = period_boundaries(joined.log, joined.period)
    training = [one for one in training_windows(joined, grid) if one.target.period.end < cutoff]
    validation = make_windows(known.log, catalog, joined.period, grid[-3])
    ease = replace(CategoryEASE().fit(training, validation), share=0.5)
    forecasts = [one.within(films) for one in ease.forecast(histories)]
    likeliest = np.array([one.top(1)[0] for one in forecasts])
    favourite = target_counts(new)[:, films].argmax(axis=1)
    assert (likeliest == films[favourite]).all()

    scorer = ItemToItem(Ease(10.0)).fit(known.log, catalog, cutoff)
    blend = Blend((RecentPopularity(), scorer), (1.0, 1.0))
    rankings = rank(forecasts, histories, blend, k=2, strength=0.0, candidates=items)
    for window, ranking in zip(new, rankings, strict=True):
        taken = np.intersect1d(window.target.item_idx, items)
        assert sorted(ranking.item_idx) == list(taken)
