"""Whatever happens at or after the cutoff changes no bit of a forecast, a list, a word or a fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories
from llmrec.data.readers import read_table
from llmrec.data.windows import make_windows
from llmrec.engine import InterestEngine
from llmrec.engine_settings import SETTINGS_FILE
from llmrec.forecast import Forecaster
from llmrec.forecasters import neural
from llmrec.forecasters.network import NetworkForecaster
from llmrec.forecasters.network_inputs import TrainingPlan
from llmrec.forecasters.registry import (
    BUILDERS,
    NEURAL_FORECASTERS,
    NEXT_ITEM_MODELS,
    ForecasterRegistry,
)
from llmrec.forecasters.sequential import NextItemModel
from llmrec.ranking.registry import SCORERS, build_scorer
from tests.forecasters.test_contract import FORECASTERS
from tests.hostile.conftest import Count
from tests.worlds import CATEGORIES, START, catalog, log

WEEK = np.timedelta64(7, "D")
CUTOFF = START + 7 * WEEK
ITEMS = catalog(30)  # five of which nobody takes before the cutoff
PERIODS = ("7D", "5 events")
Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


@cache
def world() -> pd.DataFrame:
    """Events of 20 people in nine weeks, the last two of which are the future."""
    events = log(20, 9)
    return pd.DataFrame(
        {
            "user_id": events.user_ids[events.user_idx],
            "item_id": events.item_ids[events.item_idx],
            "timestamp": events.timestamp.astype("datetime64[ms]"),
            "rating": 1.0 + np.arange(len(events)) % 5,
        }
    )


def _permuted(column: str) -> Change:
    return lambda frame, rng: frame.assign(
        **{column: frame[column].to_numpy()[rng.permutation(len(frame))]}
    )


def _added(**values: Callable[[int, np.random.Generator], Any]) -> Change:
    """Give what adds rows in which some columns are others."""

    def change(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        more = frame.sample(int(rng.integers(1, 40)), replace=True, random_state=rng)
        more = more.assign(**{name: value(len(more), rng) for name, value in values.items()})
        return pd.concat([frame, more], ignore_index=True)

    return change


def _times(n: int, rng: np.random.Generator) -> Any:
    return CUTOFF.astype("datetime64[ms]") + rng.integers(21 * 86_400_000, size=n)


FUTURES: dict[str, Change] = {
    "nothing": lambda frame, rng: frame.iloc[:0],
    "half of it": lambda frame, rng: frame[rng.random(len(frame)) < 0.5],
    "one event": lambda frame, rng: frame.iloc[[int(rng.integers(len(frame)))]],
    "other times": _permuted("timestamp"),
    "other items": _permuted("item_id"),
    "other people": _permuted("user_id"),
    "other ratings": _permuted("rating"),
    "more of the same": _added(timestamp=_times),
    "new people": _added(user_id=lambda n, rng: [f"a{k}" for k in rng.integers(3, size=n)]),
    "new items": _added(item_id=lambda n, rng: [f"i{k:03d}" for k in rng.integers(25, 30, size=n)]),
    "unknown items": _added(item_id=lambda n, rng: [f"j{k}" for k in rng.integers(9, size=n)]),
    "at the cutoff": _added(timestamp=lambda n, rng: CUTOFF.astype("datetime64[ms]")),
    "a year later": lambda frame, rng: frame.assign(timestamp=frame["timestamp"] + 52 * WEEK),
    "one person, one item": lambda frame, rng: frame.assign(user_id="u003", item_id="i007"),
}


def futures(n: int, seed: int = 0) -> Iterator[tuple[str, pd.DataFrame]]:
    """Give n logs of the same past, in any order of rows, each with a name for its future."""
    past, future = (
        world()[mask] for mask in (world().timestamp < CUTOFF, ~(world().timestamp < CUTOFF))
    )
    for number in range(n):
        rng = np.random.default_rng((seed, number))
        names = rng.choice(list(FUTURES), int(rng.integers(1, 4)))
        changed = future
        for name in names:
            changed = FUTURES[name](changed, rng) if len(changed) else changed
        frame = pd.concat([past, changed], ignore_index=True)
        assert (changed["timestamp"] >= CUTOFF).all()
        yield f"{number}: {', '.join(names)}", frame.iloc[rng.permutation(len(frame))]


def read(frame: pd.DataFrame) -> Interactions:
    return Interactions.from_frame(frame, keep_outliers=True, bot_events_per_day=None)


def histories_of(events: Interactions, period: str) -> list[History]:
    """Give the histories of everybody with a past, in the order of their ids."""
    known = events.align_to(ITEMS)
    users = [known.user_index(user) for user in sorted(world()["user_id"].unique())]
    return make_histories(known, ITEMS, period, CUTOFF, users)


def describe(forecaster: Forecaster, people: list[History]) -> list[Any]:
    """Give all that forecasts say."""
    return [
        (one.category_weights.tobytes(), one.concentration, one.description, one.source)
        for one in forecaster.forecast(people)
    ]


@cache
def fitted(name: str) -> Forecaster:
    """Give a forecaster that was fitted on something else, next-item nets on these items."""
    if name not in NEXT_ITEM_MODELS:
        return FORECASTERS[name]()
    windows = make_windows(read(world()).align_to(ITEMS), ITEMS, "7D", CUTOFF - WEEK)
    return NextItemModel(name, steps=3).fit(windows, windows)  # type: ignore[arg-type]


def fit_again(name: str, events: Interactions, period: str) -> Forecaster:
    """Fit a forecaster on the windows of a log whose targets lie before the cutoff."""
    known = events.align_to(ITEMS)
    training, validation = (make_windows(known, ITEMS, period, CUTOFF - n * WEEK) for n in (2, 1))
    if name in NEXT_ITEM_MODELS:
        return NextItemModel(name, steps=3).fit(training, validation)  # type: ignore[arg-type]
    if name in NEURAL_FORECASTERS:
        short = TrainingPlan(epochs=2, batch_size=8)
        net = NetworkForecaster(getattr(neural, name), training_plan=short, n_periods=6)
        return net.fit(training, validation)
    return ForecasterRegistry(training, validation)[name]


def answers(events: Interactions, period: str, kind: str, name: str) -> Any:
    """Give what one member says of everybody, fitted before or on this very log."""
    people = histories_of(events, period)
    if kind == "scorer":
        return build_scorer(name, events.align_to(ITEMS), ITEMS, CUTOFF).scores(people).tobytes()
    forecaster = fitted(name) if kind == "forecaster" else fit_again(name, events, period)
    return describe(forecaster, people)


MEMBERS = [
    *(("forecaster", name) for name in FORECASTERS),
    *(("fitted forecaster", name) for name in BUILDERS if name != "GatedMixture"),
    *(("scorer", name) for name in SCORERS),
]


@pytest.mark.parametrize(
    ("n", "n_members"),
    [
        pytest.param(12, 3, id="some"),
        pytest.param(900, 3, id="all", marks=pytest.mark.hostile),
    ],
)
def test_no_future_changes_a_forecaster_or_a_scorer(n: int, n_members: int, count: Count) -> None:
    base, found = read(world()), list[str]()
    expected = cache(lambda *member: answers(base, *member))
    for number, (future, frame) in enumerate(futures(n)):
        events, period = read(frame), PERIODS[number % 2]
        for place in range(n_members):
            member = MEMBERS[(number * n_members + place) % len(MEMBERS)]
            if answers(events, period, *member) != expected(period, *member):
                found.append(f"{future}: {member} with periods of {period}")
    count("futures, members", n, len(found))
    assert not found


def titled(frame: pd.DataFrame) -> pd.DataFrame:
    """Give events with what their rows say of items: the catalog comes of them."""
    numbers = frame["item_id"].str[1:].astype(int)
    return frame.assign(
        title="Title " + numbers.astype(str), categories=[CATEGORIES[n % 5] for n in numbers]
    )


def engine_of(
    frame: pd.DataFrame, period: str, name: str | None = None, **options: Any
) -> InterestEngine:
    """Fit an engine on a log with a future, or load one and give it that log."""
    data = read_table(titled(frame), period=period, keep_bots=True, keep_outliers=True)
    arguments = {} if name is None else {"name": name}
    return InterestEngine.from_pretrained(
        **arguments, data=data, cutoff=str(CUTOFF), model=None, **options
    )


def said_by(engine: InterestEngine) -> dict[str, Any]:
    """Give forecasts, statements, lists and explanations of some people, and of a stranger."""
    found: dict[str, Any] = {}
    stranger = world()[world()["user_id"] == "u004"].drop(columns="user_id")
    for user in ("u000", "u003", "u011", stranger[stranger["timestamp"] < CUTOFF]):
        session = engine.session(user)
        forecast, listed = session.forecast, session.recommend(5)
        edited = session.edit("more war, no drama").recommend(3)
        explained = session.explain(listed[0].item_id)
        found[session.history.user_id] = (
            forecast.category_weights.tobytes(),
            forecast.description,
            forecast.statements,
            [(one.item_id, one.title, one.score, one.why) for one in (*listed, *edited)],
            explained.text,
        )
    return found


def files_of(engine: InterestEngine, folder: Path) -> dict[str, Any]:
    """Give the bytes of a saved engine's files, and its settings but for how long it took."""
    engine.save_pretrained(folder)
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != SETTINGS_FILE
    }
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    settings["report"].pop("seconds", None)
    return files | {SETTINGS_FILE: settings}


@pytest.mark.parametrize(
    ("n_fits", "n_loads"),
    [
        pytest.param(1, 1, id="some"),
        pytest.param(15, 35, id="all", marks=pytest.mark.hostile),
    ],
)
@pytest.mark.parametrize("period", PERIODS)
def test_no_future_changes_an_engine_or_anything_it_says(
    n_fits: int, n_loads: int, period: str, tmp_path: Path, count: Count
) -> None:
    base, found = engine_of(world(), period, refit=True), list[str]()
    expected, files = said_by(base), files_of(base, tmp_path / "base")
    for number, (future, frame) in enumerate(futures(n_fits + n_loads, seed=1)):
        if number < n_fits:
            engine = engine_of(frame, period, refit=True)
            found += (
                [f"files, {future}"] if files_of(engine, tmp_path / f"{number}") != files else []
            )
        else:
            with warnings.catch_warnings():  # of items that came after the fit
                warnings.simplefilter("ignore", UserWarning)
                engine = engine_of(frame, period, str(tmp_path / "base"))
        found += [future] if said_by(engine) != expected else []
    count("futures, engines", n_fits + n_loads, len(found))
    assert not found
