from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("holidays")

from llmrec.data.calendar import Period
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window, make_histories
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet, population_mix_between
from llmrec.forecasters.holidays import HolidayForecaster, HolidayScorer, holidays_in
from llmrec.types import FloatArray
from tests.worlds import CATEGORIES, catalog, log, small_world

DAY = np.timedelta64(1, "D")
FIRST = np.datetime64("2018-01-01T10:00", "ms")


class Knowing:
    """A language model that knows one thing: which categories go with which words."""

    name = "knowing"

    def __init__(self, fingerprint: str = "knowing-1", **known: dict[str, float]) -> None:
        self.fingerprint, self.known = fingerprint, known
        self.asked: list[str] = []

    def continuation_logprobs(self, prompt: str, continuations: Sequence[str]) -> FloatArray:
        self.asked.append(prompt)
        found = np.full(len(continuations), -5.0)
        for word, gains in self.known.items():
            for row, text in enumerate(continuations):
                found[row] += gains.get(text, 0.0) if word in prompt else 0.0
        return found


def scorer_of(model: Knowing, cache_file: Path | None = None) -> HolidayScorer:
    return HolidayScorer(model, CATEGORIES, "films", cache_file=cache_file)  # type: ignore[arg-type]


# Weeks from the first of January 2020, as in `small_world`: the third has Martin Luther King's day
# (20 January), the fifth Groundhog Day (2 February), the others nothing but winter.
WINTRY = {" action": 1.0, " war": -1.0}
MARMOTS = {" comedy": 5.0}


def span(start: str, end: str) -> Period:
    return Period(np.datetime64(start, "ms"), np.datetime64(end, "ms"))


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        ("2017-11-05T11:53", "2017-12-03T11:53", ("Veterans Day", "Thanksgiving Day")),
        ("2017-07-16", "2017-08-13", ("summer",)),
        ("2016-12-27", "2017-01-03", ("New Year's Eve", "New Year's Day")),
        ("2018-03-26", "2018-04-02", ("Good Friday", "Easter Sunday")),
        # What a day needs is bought before it: its eve decides.
        ("2017-12-18", "2017-12-25", ("Christmas Eve", "Christmas Day")),
        ("2017-12-25", "2017-12-29", ("winter",)),
        # Two holidays on one day are two occasions.
        ("2022-06-17", "2022-06-20", ("Father's Day", "Juneteenth National Independence Day")),
    ],
)
def test_a_period_is_known_by_its_holidays_or_else_by_its_season(
    start: str, end: str, names: tuple[str, ...]
) -> None:
    assert set(holidays_in(span(start, end))) == set(names)
    assert len(holidays_in(span(start, end))) == len(names)


@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(0, 3_000),
    hours=st.integers(0, 23),
    lengths=st.lists(st.integers(20, 60), min_size=1, max_size=8),
)
def test_wherever_periods_are_cut_each_holiday_belongs_to_one(
    start: int, hours: int, lengths: list[int]
) -> None:
    first = np.datetime64("2015-01-01T00:00", "ms") + start * DAY + np.timedelta64(hours, "h")
    bounds = first + np.cumsum([0, *lengths]) * DAY
    parts = [holidays_in(Period(a, b)) for a, b in pairwise(bounds)]
    seasons = {"winter", "spring", "summer", "autumn"}
    found = [name for part in parts for name in part if name not in seasons]
    whole = [name for name in holidays_in(Period(bounds[0], bounds[-1])) if name not in seasons]
    assert found == whole


def test_a_category_scores_what_an_occasion_adds_to_its_name() -> None:
    read = scorer_of(Knowing(winter=WINTRY, Groundhog=MARMOTS))
    winter, marmots = read.scores(
        [span("2020-01-01", "2020-01-08"), span("2020-01-29", "2020-02-05")]
    )
    np.testing.assert_allclose(winter, [1, 0, 0, 0, -1])
    np.testing.assert_allclose(marmots, [-1, 4, -1, -1, -1])  # 5 on comedy, centred on 0


def test_several_occasions_of_a_period_are_averaged() -> None:
    (found,) = scorer_of(Knowing(Thanksgiving=MARMOTS)).scores([span("2017-11-05", "2017-12-03")])
    np.testing.assert_allclose(found, [-0.5, 2, -0.5, -0.5, -0.5])


def test_the_prompts_are_the_published_text() -> None:
    model = Knowing()
    scorer_of(model).scores([span("2020-01-29", "2020-02-05")])
    assert model.asked == ["Popular films include", "Popular films for Groundhog Day include"]


def test_a_forecast_is_moved_by_what_is_new_in_the_coming_period() -> None:
    windows = small_world(n_users=4, n_periods=5)
    prior = DecayedDirichlet()
    season = HolidayForecaster(
        prior, scorer_of(Knowing(winter=WINTRY, Groundhog=MARMOTS)), 0.1, 0.5
    )
    histories = [window.history for window in windows]
    # The last four weeks weigh 1/8, 1/4, 1/2 and 1; in the third was Martin Luther King's day.
    past = (1 / 8 + 1 / 4 + 1) / (15 / 8) * np.array([1, 0, 0, 0, -1])
    counted = prior.category_weights(histories)
    expected = counted * np.exp(0.1 * (np.array([-1, 4, -1, -1, -1]) - past))
    expected /= expected.sum(axis=1, keepdims=True)
    found = np.stack([f.category_weights for f in season.forecast(histories)])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    (source,) = {f.source for f in season.forecast(histories)}
    assert (source.model, source.how) == ("HolidayForecaster(DecayedDirichlet)", "llm")
    assert source.prompt == "season-v1"


@pytest.mark.parametrize(
    ("a", "period", "why"), [(0.0, "7D", "a = 0"), (0.3, "10 events", "no calendar")]
)
def test_without_a_weight_or_a_calendar_the_prior_comes_back_to_the_byte(
    a: float, period: str, why: str
) -> None:
    histories = make_histories(log(n_users=6), catalog(), period)
    prior, model = DecayedDirichlet(), Knowing(winter=WINTRY)
    found = HolidayForecaster(prior, scorer_of(model), a).forecast(histories)
    for ours, theirs in zip(found, prior.forecast(histories), strict=True):
        assert ours.category_weights.tobytes() == theirs.category_weights.tobytes()
        assert ours.concentration == theirs.concentration
        assert ours.source.how == "fallback"
        assert why in ours.source.why
    assert model.asked == []


def test_people_of_different_cutoffs_are_forecast_together_as_alone_in_any_order() -> None:
    items, events = catalog(), log(n_users=4, n_periods=9)
    first = events.timestamp.min()
    histories = [
        history
        for weeks in (4, 6, 5)
        for history in make_histories(events, items, "7D", first + 7 * weeks * DAY)
    ]
    model = Knowing(winter=WINTRY, Groundhog=MARMOTS, Valentine={" drama": 2.0})
    season = HolidayForecaster(DecayedDirichlet(), scorer_of(model), 0.2, 0.8)
    together = season.forecast(histories)
    for order in (histories, histories[::-1]):
        for history in order:
            (alone,) = season.forecast([history])
            row = histories.index(history)
            np.testing.assert_allclose(alone.category_weights, together[row].category_weights)


@cache
def year(gain: float = 3.0) -> tuple[Interactions, Knowing]:
    """Two years of a town that takes more of what a model knows it takes for holidays."""
    rng = np.random.default_rng(0)
    holidays = ("Valentine", "Easter", "Memorial", "Independence", "Halloween", "Thanksgiving")
    model = Knowing(
        **{
            name: {f" {category.lower()}": 1.0}
            for name, category in zip(holidays, (*CATEGORIES, CATEGORIES[0]), strict=True)
        }
    )
    bounds = FIRST + 28 * np.arange(25) * DAY
    parts = []
    for start, z in zip(
        bounds[:-1],
        scorer_of(model).scores(list(map(Period, bounds[:-1], bounds[1:]))),
        strict=True,
    ):
        shares = np.exp(gain * z) / np.exp(gain * z).sum()
        items = rng.choice(5, size=300, p=shares) + 5 * rng.integers(5, size=300)
        parts.append(
            pd.DataFrame(
                {
                    "user_id": [f"u{row % 20}" for row in range(300)],
                    "item_id": [f"i{item:03d}" for item in items],
                    "timestamp": start
                    + rng.integers(28 * 86_400, size=300) * np.timedelta64(1, "s"),
                }
            )
        )
    return Interactions.from_frame(pd.concat(parts)), model


def windows_at(events: Interactions, month: int) -> list[Window]:
    return make_windows(events, catalog(), "28D", FIRST + 28 * month * DAY)


def test_where_the_model_is_right_it_gets_a_weight_and_the_next_period_is_forecast_better() -> None:
    events, model = year()
    prior = DecayedDirichlet(strength=500.0)
    season = HolidayForecaster(prior, scorer_of(model)).fit(windows_at(events, 22))
    assert season.a > 0.3
    assert season.gain > 0.01
    tests = windows_at(events, 23)
    histories = [window.history for window in tests]
    ends = np.array([window.target.period.end for window in tests])
    truth = population_mix_between(histories, np.array([h.cutoff for h in histories]), ends)
    losses = [
        -(truth * np.log(np.stack([f.category_weights for f in who.forecast(histories)]))).sum()
        for who in (season, prior)
    ]
    assert losses[0] < losses[1]


def test_where_the_model_is_wrong_nothing_is_changed() -> None:
    events, model = year(gain=-3.0)
    windows = windows_at(events, 22)
    prior = DecayedDirichlet()
    season = HolidayForecaster(prior, scorer_of(model)).fit(windows)
    assert season.a == 0
    assert season.gain < 0
    histories = [window.history for window in windows]
    for ours, theirs in zip(season.forecast(histories), prior.forecast(histories), strict=True):
        assert ours.category_weights.tobytes() == theirs.category_weights.tobytes()


def test_a_log_too_short_to_leave_a_period_out_is_not_fitted_on() -> None:
    season = HolidayForecaster(DecayedDirichlet(), scorer_of(Knowing(winter=WINTRY)))
    assert season.fit(small_world(n_periods=3)).a == 0


def test_nothing_after_the_newest_target_is_used() -> None:
    events, model = year()
    end = FIRST + 28 * 18 * DAY
    assert (events.timestamp >= end).any()
    prior = DecayedDirichlet()
    fits = [
        HolidayForecaster(prior, scorer_of(model)).fit(windows_at(found, 17))
        for found in (events, events.drop_events({"late": events.timestamp >= end}))
    ]
    assert (fits[0].a, fits[0].decay) == (fits[1].a, fits[1].decay)
    assert fits[0].fitted is not None
    assert fits[0].fitted.before == end
    assert fits[0].fitted.covers(windows_at(events, 17)[0])
    assert not fits[0].fitted.covers(windows_at(events, 18)[0])


def test_held_out_weights_are_those_of_the_prior_adjusted() -> None:
    windows = small_world(n_users=8)
    season = HolidayForecaster(DecayedDirichlet().fit(windows), scorer_of(Knowing())).fit(windows)
    assert season.held_out is not None
    assert season.held_out.lookup(windows).shape == (8, 5)


def test_scores_are_stored_and_not_computed_again(tmp_path: Path) -> None:
    kept, spans = tmp_path / "scores.json", [span("2020-01-29", "2020-02-05")]
    first, second = Knowing(Groundhog=MARMOTS), Knowing()
    found = scorer_of(first, kept).scores(spans)
    np.testing.assert_array_equal(scorer_of(second, kept).scores(spans), found)
    assert first.asked
    assert not second.asked
    another = Knowing("knowing-2")
    scorer_of(another, kept).scores(spans)
    assert another.asked
    assert len(json.loads(kept.read_text())) == 2  # the first model's are still there
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "scores.json"
    for content in ("[1, 2", "[1, 2]", '{"a": 3}'):
        kept.write_text(content)
        with pytest.raises(DataError, match=r"scores.json holds no scores .* Delete it"):
            scorer_of(Knowing(), kept)
