"""What everybody took: counts, files, and the histories of people whom no log knows."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.kept_arrays import KeptArrays
from llmrec.data.periods import make_histories, truncate_log
from llmrec.data.population import Counted, Population
from llmrec.data.readers import read_table
from llmrec.data.windows import holdout_windows
from llmrec.errors import DataError, ModelLoadError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.types import BoolArray, FloatArray
from tests.test_engine import frame
from tests.worlds import START, catalog, log, without_log

ITEMS = Catalog.from_frame(
    pd.DataFrame({"item_id": ["x", "y", "z"], "categories": [["A"], ["A", "B", "C"], ["C"]]})
)
FEWER = Catalog.from_frame(pd.DataFrame({"item_id": ["z", "y"], "categories": [["C"], ["B"]]}))
DAY = np.timedelta64(1, "D")
CUTOFF = START + 28 * DAY
TIMES = st.integers(0, 6).map(lambda n: np.datetime64("2020-01-01", "ms") + n * DAY)
COUNTED: tuple[Counted, ...] = ("events", "moments", "takers")
few = settings(max_examples=30)


@st.composite
def logs(draw: st.DrawFn) -> Interactions:
    """Few people, items and times, so that events repeat; the order is of the rows or the items."""
    event = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), TIMES)
    table = pd.DataFrame(
        draw(st.lists(event, min_size=1, max_size=25)), columns=["user_id", "item_id", "timestamp"]
    )
    found = Interactions.from_frame(
        table.assign(row=range(len(table))), identity=["row"], in_file_order=draw(st.booleans())
    )
    return found.align_to(ITEMS)


def counted_rows(events: Interactions, counted: Counted) -> BoolArray:
    """Find, one by one, the events that count."""
    facts = list(zip(events.user_idx, events.item_idx, events.timestamp, strict=True))
    if counted == "moments":
        return np.array([fact not in facts[at + 1 :] for at, fact in enumerate(facts)])
    if counted == "takers":
        pairs = [fact[:2] for fact in facts]
        return np.array([pair not in pairs[:at] for at, pair in enumerate(pairs)])
    return np.ones(len(events), dtype=bool)


def assert_same(found: Population, expected: Population) -> None:
    for name in ("item_idx", "timestamp", "is_last_of_moment", "is_first_of_person"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), name
    assert found.n_items == expected.n_items


@few
@given(logs(), st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=5))
def test_counts_between_two_times_are_those_of_a_naive_count(
    events: Interactions, spans: list[tuple[np.datetime64, np.datetime64]]
) -> None:
    population, times = Population.of(events), events.timestamp
    starts, ends = np.array(spans).T
    inside = [(times >= start) & (times < end) for start, end in spans]
    for counted in COUNTED:
        kept = counted_rows(events, counted)
        expected = [np.bincount(events.item_idx[kept & span], minlength=3) for span in inside]
        np.testing.assert_array_equal(population.item_counts(starts, ends, counted), expected)
    all_events = np.array([np.bincount(events.item_idx[span], minlength=3) for span in inside])
    by_category = population.category_counts(ITEMS, starts, ends)
    np.testing.assert_allclose(by_category, all_events @ ITEMS.category_shares, atol=1e-12)


@few
@given(logs(), TIMES)
def test_the_population_before_a_cutoff_is_that_of_the_shorter_log(
    events: Interactions, cutoff: np.datetime64
) -> None:
    if (events.timestamp < cutoff).any():
        shorter = Population.of(truncate_log(events, cutoff))
        assert_same(Population.of(events).before(cutoff), shorter)
    else:
        with pytest.raises(DataError, match="no event"):
            Population.of(events).before(cutoff)


@few
@given(logs())
def test_a_population_of_another_catalog_is_that_of_the_aligned_log(events: Interactions) -> None:
    if (events.item_idx > 0).any():
        aligned = Population.of(events.align_to(FEWER))
        assert_same(Population.of(events).align(ITEMS, FEWER), aligned)
    else:
        with pytest.raises(DataError, match="no event"):
            Population.of(events).align(ITEMS, FEWER)


@few
@given(logs())
def test_a_saved_population_is_the_same_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, events: Interactions
) -> None:
    path, population = tmp_path_factory.getbasetemp() / "population.parquet", Population.of(events)
    population.save(path)
    loaded = Population.load(path, ITEMS)
    assert_same(loaded, population)
    assert str(loaded) == str(population)


def change_column(name: str, values: list[Any]) -> Any:
    """Give a function that writes other values over the first of a column."""

    def change(path: Path) -> None:
        table = pq.read_table(path)
        place = table.schema.get_field_index(name)
        kept = table[name].to_pylist()[len(values) :]
        column = pa.array(values + kept, table.schema.types[place])
        pq.write_table(table.set_column(place, table.schema.field(place), column), path)

    return change


def rewrite(change: Any) -> Any:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: .*No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (change_column("item_idx", [25]), "item 25 is not in the catalog"),
        (change_column("item_idx", [-1]), "item -1 is not in the catalog"),
        (change_column("item_idx", [None]), "'item_idx' has an empty cell"),
        (
            change_column("timestamp", [np.datetime64("2030-01-01", "ms")]),
            "row 1 is before the row",
        ),
        (rewrite(lambda table: table.slice(0, 0)), "holds no event"),
        (rewrite(lambda table: table.drop_columns("timestamp")), "its columns are item_idx"),
        (rewrite(lambda table: table.replace_schema_metadata()), "not written by llmrec"),
        (Population.of(log(2, n_items=20).align_to(catalog(20))).save, "a catalog of 20 items"),
    ],
)
def test_a_damaged_or_swapped_file_is_refused_by_its_name(
    tmp_path: Path, damage: Any, message: str
) -> None:
    path = tmp_path / "population.parquet"
    Population.of(log(2).align_to(catalog())).save(path)
    damage(path)
    with pytest.raises(ModelLoadError, match=rf"population\.parquet.*{message}"):
        Population.load(path, catalog())


def test_a_population_is_made_once_and_keeps_no_log_alive() -> None:
    events = log(3)
    known = weakref.ref(events), weakref.ref(Population.of(events))
    assert Population.of(events) is known[1]()
    del events
    gc.collect()
    assert [one() for one in known] == [None, None]


def test_a_log_without_events_has_no_population() -> None:
    with pytest.raises(DataError, match="no population"):
        Population.of(Interactions.empty(ITEMS.item_ids))


@pytest.fixture(scope="module")
def whole() -> Dataset:
    return read_table(frame(), name="small", period="7D")


@pytest.fixture(scope="module")
def served(whole: Dataset) -> Dataset:
    """Give the dataset without its log."""
    return Dataset.without_log(
        "small",
        whole.catalog,
        Population.of(whole.log),
        period="7D",
        noun=whole.noun,
        person=whole.person,
        repeat=whole.repeat,
    )


def events_of(user: str, **columns: Any) -> pd.DataFrame:
    return frame().query("user_id == @user").assign(**columns).reset_index(drop=True)


@pytest.mark.parametrize("period", ["7D", "1M", "10 events"])
def test_a_history_of_given_events_is_that_of_the_log(period: str) -> None:
    expected = make_histories(log(), catalog(), period, CUTOFF)
    for one, other in zip(without_log(expected), expected, strict=True):
        assert one.user_id == other.user_id
        assert len(one.log) == one.n_events == other.n_events > 0
        assert one.item_idx.tobytes() == other.item_idx.tobytes()
        assert one.days_ago.tobytes() == other.days_ago.tobytes()
        assert one.bounds.tobytes() == other.bounds.tobytes()
        assert np.diff(one.offsets).tolist() == np.diff(other.offsets).tolist()
        assert one.population is other.population


def test_a_dataset_without_a_log_says_so_and_knows_nobody(served: Dataset) -> None:
    assert "no events" in repr(served)
    assert len(served.log) == served.log.n_users == len(served.findings) == 0
    assert served.histories(CUTOFF) == []
    with pytest.raises(
        DataError, match=r"holds no log: give the person's events, session\(frame\)"
    ):
        served.log.user_index("u005")


def test_a_dataset_without_a_log_is_cut_as_one_with_a_log_is(
    whole: Dataset, served: Dataset
) -> None:
    cutoff = whole.log.timestamp.min() + 20 * DAY
    left_out = whole.catalog.categories[:1]
    expected = whole.known_before(cutoff).without_categories(left_out)
    found = served.known_before(cutoff).without_categories(left_out)
    assert found.population is not None
    assert found.catalog.item_ids.equals(expected.catalog.item_ids)
    assert_same(found.population, Population.of(expected.log))


def test_a_new_person_is_not_counted_in_what_everybody_took(whole: Dataset) -> None:
    events = events_of("u005", user_id="zoe")
    history = whole.new_user_history(events, CUTOFF)
    assert history.population is Population.of(whole.log)
    assert set(history.log.user_ids) == {"zoe"}


def test_events_from_before_the_first_of_everybody_stay_in_the_history(served: Dataset) -> None:
    events = events_of("u005", timestamp=np.datetime64("2019-11-20")).head(1)
    history = served.new_user_history(events, CUTOFF)
    assert history.n_events == 1
    assert history.bounds[0] <= np.datetime64("2019-11-20") < history.population.start


def test_items_that_the_catalog_does_not_know_are_dropped_and_counted(served: Dataset) -> None:
    events = events_of("u005").head(3)
    strange = events.assign(item_id=[f"strange {row}" for row in range(3)])
    report = served.new_user_history(pd.concat([events, strange]), CUTOFF).log.report
    assert report.dropped["item not in the catalog"] == 3
    for allow_empty in (False, True):
        with pytest.raises(DataError, match="new user: no event is left"):
            served.new_user_history(strange, CUTOFF, allow_empty=allow_empty)


@pytest.mark.parametrize("period", ["7D", "1M", "10 events"])
@pytest.mark.parametrize("rows", [0, 2])
def test_somebody_without_events_has_an_empty_history_where_that_is_allowed(
    served: Dataset, period: str, rows: int
) -> None:
    late = events_of("u005", timestamp=CUTOFF).head(rows)
    dataset = Dataset(**{**vars(served), "period": period})
    with pytest.raises(DataError, match="the frame of a new user: "):
        dataset.new_user_history(late, CUTOFF)
    history = dataset.new_user_history(late, CUTOFF, allow_empty=True)
    assert history.n_events == 0
    assert history.user_id == ("u005" if rows else "new user")
    assert not history.category_counts.any()
    assert history.log.report.dropped == ({"at or after the cutoff": rows} if rows else {})


@pytest.mark.parametrize(("is_clean", "expected"), [(True, "yxx"), (False, "xy")])
def test_rows_of_a_clean_log_are_each_an_event_in_their_order(
    is_clean: bool, expected: str
) -> None:
    dataset = Dataset.without_log(
        "shop",
        ITEMS,
        Population.of(log(2).align_to(catalog())),
        period="7D",
        noun="goods",
        person="shopper",
        repeat="allow",
    )
    events = pd.DataFrame({"item_id": list("yxx"), "timestamp": START})
    history = dataset.new_user_history(events, CUTOFF, is_clean=is_clean)
    assert "".join(ITEMS.item_ids[history.item_idx]) == expected


def test_one_whom_the_log_knows_is_refused(whole: Dataset, served: Dataset) -> None:
    with pytest.raises(DataError, match="user 'u005' is in the log"):
        whole.new_user_history(events_of("u005"), CUTOFF)
    assert served.new_user_history(events_of("u005"), CUTOFF).user_id == "u005"


def test_counts_are_kept_and_nobody_can_change_them() -> None:
    population = Population.of(log(4, 4).align_to(catalog()))
    spans = np.array([population.start]), np.array([population.end])
    first = population.category_counts(catalog(), *spans)
    items = catalog()
    counted = population.category_counts(items, *spans)
    np.testing.assert_array_equal(counted, first)
    assert population.category_counts(items, *spans) is counted
    with pytest.raises(ValueError, match="read-only"):
        counted[0, 0] = 7.0
    later = population.category_counts(items, spans[0] + DAY, spans[1])
    assert later.sum() < counted.sum()


def test_what_is_kept_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptArrays()

    def make(n: int) -> FloatArray:
        return kept.get(n, lambda: (np.full(n, 1.0),))[0]

    monkeypatch.setattr("llmrec.data.kept_arrays.MAX_BYTES", 8 * 40)
    large = make(11)  # more than a quarter
    assert make(11) is not large
    small = [make(n) for n in range(1, 11)]  # 55 numbers, of which 40 fit
    assert make(10) is small[-1]
    assert make(1) is not small[0]
    monkeypatch.setattr("llmrec.data.kept_arrays.MAX_KEYS", 1)
    last = make(2)
    assert make(2) is last
    assert make(10) is not small[-1]


@pytest.mark.parametrize("period", ["7D", "5 events"])
@pytest.mark.parametrize("forecaster", [DecayedDirichlet(), GlobalDrift(), PretrainedForecaster()])
def test_people_one_by_one_are_forecast_as_if_nothing_were_kept(
    forecaster: Any, period: str
) -> None:
    items, events = catalog(), log().align_to(catalog())
    fitted = forecaster.fit(holdout_windows(events, items, period))
    for user in range(5):
        fresh = replace(events)  # has a population of its own
        one = make_histories(events, items, period, users=[user])
        other = make_histories(fresh, items, period, users=[user])
        weights = fitted.category_weights(one)
        assert weights.tobytes() == fitted.category_weights(other).tobytes()
        assert weights.tobytes() == fitted.category_weights(one).tobytes()
