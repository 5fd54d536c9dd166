from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.forecast_store import (
    filter_forecasts,
    load_forecasts,
    past_fingerprint,
    save_forecasts,
    with_log_ids,
)
from llmrec.forecast import Forecast, Source, Statement
from llmrec.forecasters.counting import DecayedDirichlet
from tests.worlds import START, catalog, log, small_world

MADE = np.datetime64("2020-03-01T10:00:00", "ms")
CUTOFF = (START + np.timedelta64(35, "D")).astype("datetime64[ms]")


def dataset(events: Interactions, items: Catalog, period: str = "7D") -> Dataset:
    return Dataset("small", events.align_to(items), items, period, "films", "viewer", "allow")


@pytest.fixture(scope="module")
def world() -> Dataset:
    return dataset(log(n_users=8), catalog())


@pytest.fixture(scope="module")
def histories(world: Dataset) -> list[History]:
    return make_histories(world.log, world.catalog, "7D", CUTOFF)


@pytest.fixture(scope="module")
def forecasts(histories: list[History]) -> list[Forecast]:
    """Numbers that no short decimal is equal to, and every field filled."""
    source = Source("by hand", "fallback", "a reason", "v1:ab", "cd" * 20, 7, 2, 1)
    statements = (Statement("rising", 2, 0.1 + 0.2, (5, 3)), Statement("new", 0, 1 / 3))
    return [
        replace(forecast, description="Crème brûlée ↑", statements=statements, source=source)
        for forecast in DecayedDirichlet().forecast(histories)
    ]


def content(forecasts: Sequence[Forecast]) -> list[tuple[object, ...]]:
    return [
        (f.category_weights.tobytes(), f.concentration, f.description, f.statements, f.source)
        for f in forecasts
    ]


def rewrite(path: Path, column: str, row: int, value: object) -> None:
    """Change one value of a file as an editor of Parquet files would."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    changed = pa.array(values, table.schema.field(column).type)
    pq.write_table(table.set_column(place, column, changed), path)


def test_what_is_loaded_is_what_was_stored_to_the_last_bit(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    save_forecasts(tmp_path, world, histories, forecasts, MADE)
    found = load_forecasts(tmp_path)
    named = sorted(with_log_ids(found, world), key=lambda one: one.user_id)
    assert [one.user_id for one in named] == [history.user_id for history in histories]
    assert content([one.forecast for one in named]) == content(forecasts)
    assert {one.cutoff for one in found} == {CUTOFF}
    assert {(one.period, one.log, one.made) for one in found} == {
        (histories[0].period_length, "small", MADE)
    }
    assert found[0].categories == world.catalog.categories
    assert found[0].model == "by hand + cdcdcdcd"


def test_the_order_of_storing_does_not_matter_and_files_stay_as_they_are(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    first = save_forecasts(tmp_path / "a", world, histories[:3], forecasts[:3], MADE)
    before = first.read_bytes()
    save_forecasts(tmp_path / "a", world, histories[3:], forecasts[3:], MADE)
    assert first.read_bytes() == before
    for i in range(len(histories))[::-1]:
        save_forecasts(tmp_path / "b", world, [histories[i]], [forecasts[i]], MADE)
    found = [[one.receipt for one in load_forecasts(tmp_path / name)] for name in "ab"]
    assert found[0] == found[1]
    assert len(found[0]) == len(set(found[0])) == len(histories)


def test_the_same_forecast_stored_twice_is_loaded_once_and_the_first_counts(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    shortened = replace(world, log=truncate_log(world.log, CUTOFF))
    early = make_histories(shortened.log, shortened.catalog, "7D", CUTOFF)
    save_forecasts(tmp_path, world, histories, forecasts, MADE + np.timedelta64(9, "D"))
    save_forecasts(tmp_path, shortened, early, forecasts, MADE)
    save_forecasts(tmp_path, world, histories, forecasts, MADE + np.timedelta64(1, "D"))
    found = load_forecasts(tmp_path)
    assert len(found) == len(histories)
    assert {one.made for one in found} == {MADE}
    assert all(one.in_advance for one in found)


def test_another_forecast_of_the_same_person_is_another_row(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    other = replace(forecasts[0], source=replace(forecasts[0].source, seed=8))
    save_forecasts(tmp_path, world, histories[:1] * 2, [forecasts[0], other], MADE)
    assert len(load_forecasts(tmp_path)) == 2


@pytest.mark.parametrize(("extra", "in_advance"), [(0, True), (1, False)])
def test_a_forecast_is_made_in_advance_only_if_the_log_ended_by_its_cutoff(
    tmp_path: Path, world: Dataset, forecasts: list[Forecast], extra: int, in_advance: bool
) -> None:
    newest = np.sort(world.log.timestamp)[-2]  # of the log at hand
    shortened = replace(world, log=truncate_log(world.log, newest + np.timedelta64(1, "ms")))
    cutoff = newest + np.timedelta64(1 - extra, "ms")
    histories = make_histories(shortened.log, shortened.catalog, "7D", cutoff)
    save_forecasts(tmp_path, shortened, histories, forecasts, MADE)
    assert {one.in_advance for one in load_forecasts(tmp_path)} == {in_advance}


def test_histories_of_a_longer_log_are_not_in_advance_whatever_log_is_given_with_them(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    shortened = replace(world, log=truncate_log(world.log, CUTOFF))
    save_forecasts(tmp_path, shortened, histories, forecasts, MADE)
    assert not any(one.in_advance for one in load_forecasts(tmp_path))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("user_id", "u007"),
        ("cutoff", (CUTOFF + np.timedelta64(1, "ms")).item()),
        ("log_end", START.item()),
        ("made", START.item()),
        ("category_weights", [0.2] * 5),
        ("concentration", 1.0),
        ("statements", []),
        ("seed", 8),
        ("description", "All was foreseen."),
    ],
)
def test_a_changed_row_is_refused_by_name(
    tmp_path: Path,
    world: Dataset,
    histories: list[History],
    forecasts: list[Forecast],
    column: str,
    value: object,
) -> None:
    path = save_forecasts(tmp_path, world, histories, forecasts, MADE)
    rewrite(path, column, 2, value)
    with pytest.raises(
        DataError, match=rf"{path.name}, row 2: the forecast of user '(u00.|keyed-.*)'"
    ):
        load_forecasts(tmp_path)


def test_no_changed_byte_of_a_file_changes_a_forecast(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    path = save_forecasts(tmp_path, world, histories[:2], forecasts[:2], MADE)
    whole, known = path.read_bytes(), load_forecasts(tmp_path)
    stored, expected = [one.receipt for one in known], content([one.forecast for one in known])
    refused = 0
    places = np.random.default_rng(0).permutation(len(whole))[:300]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found = load_forecasts(tmp_path)
        except DataError:
            refused += 1
        else:  # a byte of the file's own bookkeeping
            assert [one.receipt for one in found] == stored
            assert content([one.forecast for one in found]) == expected
    assert refused > len(places) / 4


def test_a_file_cut_short_or_of_other_columns_is_named(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    path = save_forecasts(tmp_path, world, histories, forecasts, MADE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=str(path)):
        load_forecasts(tmp_path)
    pq.write_table(pa.table({"user_id": ["u001"]}), path)
    with pytest.raises(DataError, match=rf"{path.name}: column 'adapter' is missing"):
        load_forecasts(tmp_path)


def test_the_error_of_an_empty_folder_says_how_to_store_a_forecast(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no stored forecast; `llmrec forecast --store`"):
        load_forecasts(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; `llmrec forecast --stor"):
        load_forecasts(tmp_path / "nowhere")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    tmp_path: Path,
    world: Dataset,
    histories: list[History],
    forecasts: list[Forecast],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save_forecasts(tmp_path, world, histories[:1], forecasts[:1], MADE)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"no forecast was stored: .*No space left"):
        save_forecasts(tmp_path, world, histories, forecasts, MADE)
    assert len(list(tmp_path.iterdir())) == len(load_forecasts(tmp_path)) == 1


def test_a_file_where_the_folder_should_be_is_named(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(DataError, match=r"no forecast was stored: .*taken"):
        save_forecasts(tmp_path / "taken", world, histories, forecasts, MADE)


def test_a_forecast_of_another_catalog_is_refused(
    tmp_path: Path, world: Dataset, histories: list[History]
) -> None:
    wrong = Forecast(np.full(4, 0.25), 10.0, "", (), Source("by hand", "counting"))
    with pytest.raises(DataError, match="user 'u000': the forecast has 4 category weights"):
        save_forecasts(tmp_path, world, histories[:1], [wrong], MADE)


def test_a_history_with_events_at_its_cutoff_is_refused(
    tmp_path: Path, forecasts: list[Forecast]
) -> None:
    events = log(n_users=8)
    tied = dataset(replace(events, timestamp=events.timestamp.astype("datetime64[D]")), catalog())
    tied = replace(tied, log=replace(tied.log, timestamp=tied.log.timestamp.astype("M8[ms]")))
    histories = [w.history for w in make_windows(tied.log, tied.catalog, "3 events")]
    with pytest.raises(DataError, match=r"events at its cutoff .* Cut it with make_histories"):
        save_forecasts(tmp_path, tied, histories, forecasts[: len(histories)], MADE)


def test_the_fingerprint_stays_when_the_catalog_grows_and_differs_when_the_past_changes(
    world: Dataset,
) -> None:
    seen = past_fingerprint(world.log, CUTOFF)
    larger = catalog(n_items=40)
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(
        larger,
        item_ids=larger.item_ids[order],
        category_shares=larger.category_shares[order],
        report=larger.report,
    )
    assert past_fingerprint(dataset(log(n_users=8), shuffled).log, CUTOFF) == seen
    assert past_fingerprint(truncate_log(world.log, CUTOFF), CUTOFF) == seen
    items = world.log.item_idx.copy()
    items[0] = (items[0] + 1) % 25
    assert past_fingerprint(replace(world.log, item_idx=items), CUTOFF) != seen
    assert past_fingerprint(world.log, CUTOFF - np.timedelta64(7, "D")) != seen


def test_forecasts_are_selected_by_user_and_by_part_of_a_models_name(
    tmp_path: Path, world: Dataset, histories: list[History], forecasts: list[Forecast]
) -> None:
    save_forecasts(tmp_path, world, histories, forecasts, MADE)
    save_forecasts(tmp_path, world, histories, DecayedDirichlet().forecast(histories), MADE)
    found = load_forecasts(tmp_path)
    assert len(filter_forecasts(found, world)) == 2 * len(histories)
    assert {one.user_id for one in filter_forecasts(found, world, "u003")} == {"u003"}
    by_model = filter_forecasts(found, world, model="Dirichlet")
    assert {one.model for one in by_model} == {"DecayedDirichlet"}
    with pytest.raises(DataError, match=r"user 'u03' is not known .*'u003'"):
        filter_forecasts(found, world, "u03")
    with pytest.raises(DataError, match=r"like 'T5'; there is 'DecayedDirichlet', 'by hand \+ cd"):
        filter_forecasts(found, world, model="T5")


def test_nothing_before_the_first_event_can_be_stored(
    tmp_path: Path, world: Dataset, forecasts: list[Forecast]
) -> None:
    histories = [window.history for window in small_world(n_users=8, empty=True)]
    with pytest.raises(DataError, match="no event is left"):
        save_forecasts(tmp_path, world, histories, forecasts, MADE)
