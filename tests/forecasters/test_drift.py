from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift, SameSeason

START = np.datetime64("2020-01-01T08:00:00", "s")
ITEMS = Catalog.from_frame(
    pd.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "categories": [["Ale"], ["Rum"]]})
)
PURE = DecayedDirichlet(decay=1.0, strength=1e-6)  # nothing but a person's own counts


def town(days: int = 7, **people: list[str]) -> Interactions:
    """Write what people took as letters, one string a period of so many days."""
    rows = [
        (name, letter, START + np.timedelta64(days * period, "D") + np.timedelta64(hour, "h"))
        for name, periods in people.items()
        for period, taken in enumerate(periods)
        for hour, letter in enumerate(taken)
    ]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))


def seen(events: Interactions, name: str, n_periods: int, days: int = 7) -> History:
    cutoff = START.astype("datetime64[ms]") + np.timedelta64(days * n_periods, "D")
    histories = make_histories(events, ITEMS, f"{days}D", cutoff)
    return next(history for history in histories if history.user_id == name)


TOWN = town(ann=["a", "a"], bob=["aaab", "abbb"])
# Five events of the first week and five of the second, and half an event for each category.
BEFORE, NOW = np.array([4.5, 1.5]) / 6, np.array([2.5, 3.5]) / 6


def test_the_trend_is_the_last_period_over_the_one_before_it() -> None:
    history = seen(TOWN, "bob", 2)
    expected = np.array([4.0, 4.0]) * (NOW / BEFORE) ** 0.5
    found = GlobalDrift(PURE, power=0.0, trend=0.5).category_weights([history])[0]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


def test_the_power_is_of_the_last_period_over_the_mix_while_the_person_was_there() -> None:
    events = town(ann=["aabb", "ab"], bob=["aa", "bbb"])
    first, last = np.array([4.5, 2.5]) / 7, np.array([1.5, 4.5]) / 6
    then = (4 * first + 2 * last) / 6  # four of ann's events in the first week, two in the second
    expected = np.array([3.0, 3.0]) * (last / then) ** 0.75
    history = seen(events, "ann", 2)
    found = GlobalDrift(PURE, power=0.75, trend=0.0).category_weights([history])[0]
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


def test_a_person_of_the_last_period_alone_has_not_missed_any_drift() -> None:
    history = seen(town(ann=["", "aab"], bob=["aaab", "abbb"]), "ann", 2)
    prior = DecayedDirichlet()
    found = GlobalDrift(prior, power=1.0, trend=0.0).category_weights([history])
    np.testing.assert_allclose(found, prior.category_weights([history]))


def test_a_person_without_an_event_has_not_missed_any_drift() -> None:
    history = seen(town(ann=["", "", "a"], bob=["aaab", "abbb", "b"]), "ann", 2)
    assert history.n_events == 0
    prior = DecayedDirichlet()
    found = GlobalDrift(prior, power=1.0, trend=0.0).category_weights([history])
    np.testing.assert_allclose(found, prior.category_weights([history]))


def test_before_the_second_period_there_is_no_trend() -> None:
    history = seen(TOWN, "bob", 1)
    found = GlobalDrift(PURE, power=0.0, trend=1.0).category_weights([history])
    np.testing.assert_allclose(found, PURE.category_weights([history]))


def test_a_town_that_drifts_together_is_fitted_with_a_drift() -> None:
    weeks = ["aaaab", "aaabb", "aabbb", "abbbb"]
    people = {f"p{number}": weeks for number in range(8)}
    windows = make_windows(town(**people), ITEMS, "7D", START + np.timedelta64(21, "D"))
    fitted = GlobalDrift().fit(windows)
    assert fitted.power + fitted.trend > 0
    assert loss(fitted, windows) < loss(fitted.prior, windows)


def test_fitting_never_loses_to_counting_on_what_it_was_fitted_on() -> None:
    windows = make_windows(TOWN, ITEMS, "7D", START + np.timedelta64(7, "D"))
    for model in (GlobalDrift().fit(windows), SameSeason().fit(windows)):
        assert loss(model, windows) <= loss(model.prior, windows) + 1e-12
        assert model.prior.fitted is not None
        assert model.fitted is not None


# Fourteen periods of 28 days: a year before their end lies between the first two.
YEARLY = town(28, ann=["bb", *["a"] * 13], bob=["bb", *["a"] * 13])


def test_the_season_is_a_year_before_over_the_year_until_now() -> None:
    history = seen(YEARLY, "ann", 14, days=28)
    # From the 27th day after START: two Ales in the next 28 days, 26 until the cutoff.
    season, year = np.array([2.5, 0.5]) / 3, np.array([26.5, 0.5]) / 27
    expected = PURE.category_weights([history])[0] * (season / year) ** 0.5
    found = SameSeason(PURE, power=0.5).category_weights([history])[0]
    np.testing.assert_allclose(found, expected / expected.sum())
    (forecast,) = SameSeason(PURE, power=0.5).forecast([history])
    assert forecast.source.how == "counting"


def test_what_was_taken_in_the_same_season_is_raised() -> None:
    events = town(1, ann=["b", *["a"] * 365], bob=["b", *["a"] * 365])
    history = seen(events, "ann", 365, days=1)
    counted = PURE.category_weights([history])[0]
    assert SameSeason(PURE, power=1.0).category_weights([history])[0, 1] > 2 * counted[1]


def test_without_a_year_of_log_same_season_is_counting_and_its_source_says_so() -> None:
    history = seen(YEARLY, "ann", 13, days=28)
    (forecast,) = SameSeason(PURE, power=1.0).forecast([history])
    expected = PURE.category_weights([history])[0]
    np.testing.assert_allclose(forecast.category_weights, expected)
    assert forecast.source.how == "fallback"
    assert "year" in forecast.source.why


@pytest.mark.parametrize("model", [GlobalDrift(), SameSeason(power=1.0)], ids=["drift", "season"])
def test_periods_counted_in_events_have_drift_and_season_too(
    model: GlobalDrift | SameSeason,
) -> None:
    histories = make_histories(YEARLY, ITEMS, "3 events")
    weights = model.category_weights(histories)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)


@pytest.mark.parametrize("model", [GlobalDrift(), SameSeason(power=1.0)], ids=["drift", "season"])
def test_the_newest_events_of_others_at_the_cutoff_are_not_looked_at(
    model: GlobalDrift | SameSeason,
) -> None:
    late = town(28, ann=["bb", *["a"] * 13, "b"], bob=["bb", *["a"] * 13, "bbb"])
    found = model.category_weights([seen(late, "ann", 14, days=28)])
    np.testing.assert_array_equal(found, model.category_weights([seen(YEARLY, "ann", 14, days=28)]))


def test_a_period_longer_than_a_year_has_a_season_that_ends_at_the_cutoff() -> None:
    later = town(100, ann=["ab"] * 8, bob=["a"] * 8)
    changed = town(100, ann=["ab"] * 8, bob=["a"] * 4 + ["bbbb"] * 4)
    model = SameSeason(PURE, power=1.0)
    cutoff = START.astype("datetime64[ms]") + np.timedelta64(400, "D")
    found, expected = (
        model.category_weights(make_histories(events, ITEMS, "500D", cutoff, [0]))
        for events in (changed, later)
    )
    np.testing.assert_array_equal(found, expected)


def test_the_decayed_events_and_the_common_mix_weigh_in_what_was_then() -> None:
    events = town(ann=["aabb", "ab"], bob=["aa", "bbb"])
    history, prior = seen(events, "ann", 2), DecayedDirichlet(decay=0.5, strength=10.0)
    first, last = np.array([4.5, 2.5]) / 7, np.array([1.5, 4.5]) / 6
    then = (0.5 * 4 * first + 2 * last + 10 * last) / 14
    expected = prior.category_weights([history])[0] * last / then
    found = GlobalDrift(prior, power=1.0, trend=0.0).category_weights([history])[0]
    np.testing.assert_allclose(found, expected / expected.sum())


def loss(model: DecayedDirichlet | GlobalDrift | SameSeason, windows: list[Window]) -> float:
    weights = model.category_weights([window.history for window in windows])
    targets = np.stack([window.target.category_counts for window in windows])
    shares = targets / targets.sum(axis=1, keepdims=True)
    return float(-(shares * np.log(weights)).sum(axis=1).mean())
