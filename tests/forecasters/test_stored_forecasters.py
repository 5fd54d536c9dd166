"""Forecasters come back from disk as they were, without the people that they were fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.data.periods import Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.data.windows import make_windows
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecasters.collaborative import CategoryEASE, CategoryMarkov
from llmrec.forecasters.counting import DecayedDirichlet, ExponentialDecay
from llmrec.forecasters.dispersion import Dispersion, EventDispersion
from llmrec.forecasters.drift import GlobalDrift, SameSeason
from llmrec.forecasters.loading import MODULE_OF_KIND, load_forecaster
from llmrec.forecasters.neighbours import NeighbouringUsers
from llmrec.forecasters.precomputed import out_of_sample_weights
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.forecasters.ridge import RidgeAutoregression
from tests.worlds import START, catalog, log

NAMES = (
    "DecayedDirichlet",
    "LastPeriod",
    "Mean",
    "ExponentialDecay",
    "GlobalDrift",
    "SameSeason",
    "CategoryMarkov",
    "RidgeAutoregression",
    "NeighbouringUsers",
    "CategoryEASE",
    "PretrainedForecaster",
)
EVENTS, ITEMS = log(n_users=12), catalog()


def at(week: int) -> list[Window]:
    return make_windows(EVENTS, ITEMS, "7D", START + np.timedelta64(7 * week, "D"))


REGISTRIES = {
    "7D": ForecasterRegistry([*at(2), *at(3)], at(4)),
    "6 events": ForecasterRegistry(
        [
            window
            for back in (3, 2)
            for window in make_windows(EVENTS, ITEMS, "6 events", back=back)
        ],
        make_windows(EVENTS, ITEMS, "6 events", back=1),
    ),
}
TESTS = {"7D": at(5), "6 events": make_windows(EVENTS, ITEMS, "6 events")}
each_name = pytest.mark.parametrize("name", NAMES)
decays, powers = st.floats(0, 1), st.floats(0, 10)
spreads = st.builds(Dispersion, st.floats(0, 1), st.floats(0, 10)) | st.builds(
    EventDispersion, *[st.floats(-9, 9)] * len(EventDispersion._fields)
)
times = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1))
spans = st.none() | times.map(
    lambda time: TrainingSpan(np.datetime64(time, "ms"), "log", np.arange(3))
)
countings = st.builds(
    DecayedDirichlet,
    decays,
    st.floats(1e-3, 1e6),
    st.sampled_from(["last period", "all"]),
    spreads,
    st.text(),
    spans,
)
settings = st.one_of(
    countings,
    st.builds(
        ExponentialDecay,
        st.floats(0.01, 1),
        st.floats(0.01, 0.99),
        st.sampled_from(["last period", "all"]),
        spreads,
        spans,
    ),
    st.builds(GlobalDrift, countings, powers, powers, spreads, spans),
    st.builds(SameSeason, countings, powers, spreads, spans),
)


def forecaster(name: str, period: str = "7D") -> Any:
    return REGISTRIES[period][name]


def plain(stored: Stored) -> Any:
    """Everything that is stored, to compare."""
    arrays = {name: (a.dtype, a.shape, a.tobytes()) for name, a in stored.arrays.items()}
    parts = {name: plain(part) for name, part in stored.parts.items()}
    return stored.kind, dict(stored.values), arrays, dict(stored.texts), parts


@pytest.mark.parametrize("period", REGISTRIES)
@each_name
def test_a_saved_forecaster_forecasts_the_same_to_the_bit(
    tmp_path: Path, name: str, period: str
) -> None:
    fitted = forecaster(name, period)
    fitted.stored().save(tmp_path)
    loaded: Any = load_forecaster(Stored.load(tmp_path))
    assert type(loaded) is type(fitted)
    histories = [window.history for window in TESTS[period]]
    for some in (histories, histories[:1]):
        for a, b in zip(fitted.forecast(some), loaded.forecast(some), strict=True):
            assert a.category_weights.tobytes() == b.category_weights.tobytes()
            assert (a.concentration, a.source) == (b.concentration, b.source)
    again = plain(loaded.stored())
    assert again[1:] == plain(fitted.stored())[1:]


@given(settings)
def test_any_setting_comes_back_as_it_was(setting: Any) -> None:
    def through_json(stored: Stored) -> Stored:
        parts = {name: through_json(part) for name, part in stored.parts.items()}
        return replace(stored, values=json.loads(json.dumps(dict(stored.values))), parts=parts)

    loaded: Any = load_forecaster(through_json(setting.stored()))
    assert loaded == setting
    assert (loaded.fitted is None) == (setting.fitted is None)
    if setting.fitted:
        assert loaded.fitted.before == setting.fitted.before


@pytest.mark.parametrize("period", REGISTRIES)
@each_name
def test_of_the_fit_only_its_time_is_stored(tmp_path: Path, name: str, period: str) -> None:
    fitted = forecaster(name, period)
    fitted.stored().save(tmp_path)
    loaded: Any = load_forecaster(Stored.load(tmp_path))
    assert loaded.fitted.before == fitted.fitted.before
    assert (loaded.fitted.log, loaded.fitted.stops) == ("", None)
    assert getattr(loaded, "held_out", None) is None
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json")]
    assert texts
    assert not any(str(user) in text for user in EVENTS.user_ids for text in texts)
    if hasattr(loaded, "held_out"):  # what was learned of the windows must not be judged by them
        with pytest.raises(DataError, match="no held-out weights"):
            out_of_sample_weights(loaded, at(4))


@each_name
def test_what_is_missing_is_refused(name: str) -> None:
    stored = forecaster(name).stored()
    for field in ("values", "arrays", "parts"):
        whole = getattr(stored, field)
        for missing in whole:
            left = {key: value for key, value in whole.items() if key != missing}
            with pytest.raises(ModelLoadError, match=missing.split(".")[0]):
                load_forecaster(replace(stored, **{field: left}))


@each_name
def test_a_value_that_cannot_be_is_refused(name: str) -> None:
    stored = forecaster(name).stored()
    for key in stored.values:
        for broken in (float("nan"), float("inf"), -1.0, [], {}, [1.0], [1.0, "x"], True):
            with pytest.raises(ModelLoadError, match=stored.kind):
                load_forecaster(replace(stored, values={**stored.values, key: broken}))


@pytest.mark.parametrize(
    "name", ["CategoryMarkov", "RidgeAutoregression", "NeighbouringUsers", "CategoryEASE"]
)
def test_an_array_that_cannot_be_is_refused(name: str) -> None:
    stored = forecaster(name).stored()
    changes: list[Callable[[Any], Any]] = [
        lambda array: array[:-1],
        lambda array: array[:0],
        lambda array: array.astype(np.float16),
        lambda array: np.full_like(array, np.nan) if array.dtype.kind == "f" else array - 9,
    ]
    for key, array in stored.arrays.items():
        if key.endswith((".columns", ".indptr", ".indices")):
            continue  # see the sparse matrices of Stored
        for change in changes:
            with pytest.raises(ModelLoadError, match=name):
                load_forecaster(replace(stored, arrays={**stored.arrays, key: change(array)}))


def test_a_transition_that_is_no_distribution_is_refused() -> None:
    stored = forecaster("CategoryMarkov").stored()
    for wrong in (2 * stored.arrays["transition"], -np.eye(5)):
        with pytest.raises(ModelLoadError, match="no distribution"):
            load_forecaster(replace(stored, arrays={"transition": wrong}))


def test_neighbours_of_two_lengths_are_refused() -> None:
    fitted = forecaster("NeighbouringUsers")
    shorter = replace(fitted, neighbour_next_shares=fitted.neighbour_next_shares[:-1])
    with pytest.raises(ModelLoadError, match="next_shares"):
        load_forecaster(shorter.stored())


def test_another_kind_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="'Prophet'; known are DecayedDirichlet"):
        load_forecaster(Stored("Prophet"))
    with pytest.raises(ModelLoadError, match="no GlobalDrift can be made of a stored 'SameSeason'"):
        GlobalDrift.from_stored(SameSeason().stored())
    swapped = replace(GlobalDrift().stored(), parts={"prior": SameSeason().stored()})
    with pytest.raises(ModelLoadError, match="no DecayedDirichlet"):
        load_forecaster(swapped)


@pytest.mark.parametrize(
    "unfitted", [CategoryEASE(), CategoryMarkov(), NeighbouringUsers(), RidgeAutoregression()]
)
def test_what_has_learned_nothing_is_not_stored(unfitted: Any) -> None:
    with pytest.raises(TrainingError, match="fit it"):
        unfitted.stored()


@pytest.mark.parametrize(("kind", "module"), MODULE_OF_KIND.items())
def test_each_kind_is_a_class_of_its_module(kind: str, module: str) -> None:
    found = find_spec(f"llmrec.forecasters.{module}")
    assert found is not None
    assert found.origin is not None
    assert f"class {kind}" in Path(found.origin).read_text(encoding="utf-8")
