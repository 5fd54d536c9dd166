from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from datasets import Dataset as HubDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.errors import DataError
from tests.worlds import log as world_log

DAY = 86_400
NOON = 1_577_880_000


def frame(rows: Sequence[tuple[object, ...]], *more: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", *more])


def events(log: Interactions) -> list[tuple[str, str, int]]:
    return [
        (log.user_ids[user], log.item_ids[item], int(time.astype("datetime64[s]").astype(int)))
        for user, item, time in zip(log.user_idx, log.item_idx, log.timestamp, strict=True)
    ]


def catalog(*ids: str, bare: str | None = None) -> Catalog:
    rows = [(item, None if item == bare else "A") for item in ids]
    return Catalog.from_frame(pd.DataFrame(rows, columns=["item_id", "categories"]))


UNSORTED = [("b", "x", NOON), ("a", "y", NOON + 1), ("a", "z", NOON), ("a", "x", NOON)]


def test_events_are_sorted_by_user_then_time_then_item() -> None:
    log = Interactions.from_frame(frame(UNSORTED))
    assert events(log) == [
        ("a", "x", NOON),
        ("a", "z", NOON),
        ("a", "y", NOON + 1),
        ("b", "x", NOON),
    ]
    assert log.user_offsets.tolist() == [0, 3, 4]
    assert log.source_row.tolist() == [3, 2, 1, 0]


def test_events_of_one_time_can_stay_in_the_order_of_the_rows() -> None:
    log = Interactions.from_frame(frame(UNSORTED), in_file_order=True)
    assert log.source_row.tolist() == [2, 3, 1, 0]


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.from_pandas, HubDataset.from_pandas])
def test_every_kind_of_frame_gives_the_same_log(kind: Any) -> None:
    plain = frame([(1, "x", NOON, 4.0), (2, "y", NOON + 5, 3.5)], "rating")
    log = Interactions.from_frame(kind(plain))
    assert events(log) == [("1", "x", NOON), ("2", "y", NOON + 5)]
    assert log.rating is not None
    assert log.rating.tolist() == [4.0, 3.5]


def test_something_that_is_no_frame_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected a pandas or polars frame.*list"):
        Interactions.from_frame([("a", "x", NOON)])


def test_columns_can_be_mapped() -> None:
    renamed = frame([("a", "x", NOON)]).rename(columns={"user_id": "who", "timestamp": "when"})
    log = Interactions.from_frame(renamed, {"user_id": "who", "timestamp": "when"})
    assert events(log) == [("a", "x", NOON)]


def test_a_missing_or_renamed_column_is_named_with_those_found() -> None:
    renamed = frame([("a", "x", NOON)]).rename(columns={"user_id": "who"})
    with pytest.raises(DataError, match=r"'user_id' is missing \(columns found: who, item_id"):
        Interactions.from_frame(renamed)
    with pytest.raises(DataError, match=r"'nobody' is missing.*columns=\{'user_id'"):
        Interactions.from_frame(renamed, {"user_id": "nobody"})


def test_a_column_that_is_there_twice_is_refused() -> None:
    twice = frame([("a", "x", NOON, "b")], "other").rename(columns={"other": "user_id"})
    with pytest.raises(DataError, match="'user_id' is there more than once"):
        Interactions.from_frame(twice)


@pytest.mark.parametrize("empty", [frame([]), frame([(None, "x", NOON)])])
def test_an_empty_log_and_one_where_nothing_survives_are_refused(empty: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"the log is empty|no interaction survived"):
        Interactions.from_frame(empty)


def test_each_dropped_row_is_counted_once_under_its_reason() -> None:
    log = Interactions.from_frame(
        frame(
            [
                ("a", "x", NOON),
                (None, None, NOON),
                ("a", "", NOON),
                ("a", "x", -5),
                ("a", "x", np.inf),
                ("a", "y", np.nan),
                ("a", "x", NOON),
                ("a", "z", 99_999_999_999),
            ]
        )
    )
    assert log.report.dropped == {
        "missing user_id": 1,
        "missing item_id": 1,
        "missing time": 1,
        "time that is not understood": 2,
        "impossible time: before 1970, or in the future": 1,
        "duplicate": 1,
    }
    assert log.report.examples["time that is not understood"] == (3, 4)
    assert str(log.report).splitlines()[0] == "8 rows read, 1 kept"


def test_a_dropped_time_is_shown_as_it_was_written() -> None:
    log = Interactions.from_frame(frame([("a", "x", day) for day in ("2024-04-03", "1969-07-20")]))
    (finding,) = log.report.findings
    assert finding.rule.startswith("impossible time")
    assert (finding.rows, finding.example, finding.effect) == (1, "row 1: 1969-07-20", "dropped")


def test_examples_in_a_report_are_safe_to_print() -> None:
    log = Interactions.from_frame(
        frame([("a", "x", "2024-04-03")] * 2 + [("a", "x", "\x1b[31mno\u202e\ntime")])
    )
    assert log.report.values["time that is not understood"] == "[31mno time"


@pytest.mark.parametrize("ratings", [(5, 1, None), (1, None, 5), (None, 5, 1)])
def test_of_equal_events_the_one_of_the_highest_rating_counts(ratings: tuple[Any, ...]) -> None:
    rows = frame([("a", "x", NOON, rating) for rating in ratings], "rating")
    log = Interactions.from_frame(rows)
    assert log.report.dropped == {"duplicate": 2}
    assert log.rating is not None
    assert log.rating.tolist() == [5]


@pytest.mark.parametrize("said", [("A", "B", None), ("B", None, "A"), (None, "A", "B")])
def test_details_decide_which_one_of_equal_rows_counts(said: tuple[Any, ...]) -> None:
    rows = frame([("a", "x", NOON, one) for one in said], "said")
    log = Interactions.from_frame(rows, details=["said"])
    assert rows["said"][log.source_row[0]] == "A"


def test_identity_columns_tell_equal_events_apart() -> None:
    rows = frame([("a", "x", NOON, 1), ("a", "x", NOON, 2), ("a", "x", NOON, 2)], "product")
    assert len(Interactions.from_frame(rows)) == 1
    assert len(Interactions.from_frame(rows, identity=["product"])) == 2


def test_rows_to_leave_out_are_counted_under_the_given_reason() -> None:
    rows = frame([("a", "x", NOON), ("a", "y", NOON)])
    coupons = np.array([True, False])
    for index in ([0, 1], [7, 3], pd.MultiIndex.from_tuples([("p", 1), ("p", 2)])):
        log = Interactions.from_frame(rows.set_axis(index), leave_out={"a coupon": coupons})
        assert log.report.dropped == {"a coupon": 1}
        assert log.item_ids.tolist() == ["y"]
        assert log.source_row.tolist() == [1]


def test_a_user_with_too_many_events_on_one_day_is_a_bot() -> None:
    bot = [("bot", f"i{n}", NOON + n) for n in range(6)]
    person = [("person", f"i{n}", NOON + n * DAY) for n in range(6)]
    log = Interactions.from_frame(frame(bot + person), bot_events_per_day=5)
    assert log.user_ids.tolist() == ["person"]
    assert log.report.dropped == {"bot: more than 5 events in one day": 6}
    assert Interactions.from_frame(frame(bot + person), bot_events_per_day=None).n_users == 2


def test_a_rating_that_is_no_number_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match="column 'rating', row 1: 'good' is not a number"):
        Interactions.from_frame(frame([("a", "x", NOON, 3), ("a", "y", NOON, "good")], "rating"))


def test_an_id_is_the_same_as_number_and_as_text() -> None:
    rows = frame([(7, 1.0, NOON), ("7", "1", NOON), (7.0, 1, NOON), (np.float32(7), 1, NOON)])
    log = Interactions.from_frame(rows.astype(object))
    assert events(log) == [("7", "1", NOON)]
    assert log.report.dropped == {"duplicate": 3}


def test_ids_that_are_lists_are_refused() -> None:
    with pytest.raises(DataError, match=r"column 'item_id', row 0: .* of type list"):
        Interactions.from_frame(frame([("a", ["x"], NOON)]))


def test_who_has_no_event_left_is_told_why() -> None:
    rows = frame([("anna", "x", NOON), ("otto", "x", -5), ("otto", "y", None), (None, "x", NOON)])
    log = Interactions.from_frame(rows)
    with pytest.raises(DataError, match=r"'otto' has no event here: all were left out \(.*time"):
        log.user_index("otto")
    aligned = Interactions.from_frame(frame([("anna", "x", NOON), ("otto", "y", NOON)])).align_to(
        catalog("x")
    )
    with pytest.raises(DataError, match=r"all were left out \(item not in the catalog\)"):
        aligned.user_index("otto")


def test_the_order_of_dates_and_how_columns_were_read_stay_with_the_log() -> None:
    rows = frame([("12.0", "x", "03/04/2024"), ("12", "y", "25/12/2024")])
    log = Interactions.from_frame(rows).align_to(catalog("x"))
    assert log.day_first is True
    assert [one.effect for one in log.report.findings] == ["changed", "read", "dropped"]
    assert Interactions.from_frame(rows, dates="%d/%m/%Y").day_first is None


def test_an_unknown_user_gets_near_ids() -> None:
    log = Interactions.from_frame(frame([("anna", "x", NOON), ("otto", "x", NOON)]))
    assert log.user_index("otto") == 1
    with pytest.raises(DataError, match=r"user 'ana' is not known \(2 users; .*anna"):
        log.user_index("ana")


def test_aligning_counts_unknown_items_and_items_without_a_category() -> None:
    log = Interactions.from_frame(
        frame([("a", "x", NOON), ("a", "bare", NOON), ("b", "lost", NOON)])
    )
    items = catalog("w", "x", "bare", bare="bare")
    aligned = log.align_to(items)
    assert events(aligned) == [("a", "x", NOON)]
    assert aligned.report.dropped == {"item not in the catalog": 1, "item without a category": 1}
    assert aligned.align_to(items) is aligned
    with pytest.raises(DataError, match=r"no event is left[^$]*3 dropped: item not in the catalog"):
        log.align_to(catalog("w"))


def test_the_fingerprint_follows_content() -> None:
    one = Interactions.from_frame(frame([("a", "x", NOON), ("b", "y", NOON)]))
    same = Interactions.from_frame(frame([("b", "y", NOON), ("a", "x", NOON)]))
    other = Interactions.from_frame(frame([("a", "x", NOON), ("b", "y", NOON + 1)]))
    assert one.fingerprint == same.fingerprint != other.fingerprint


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(["x", "y", "z", ""]),
        st.one_of(
            st.integers(NOON, NOON + 9), st.sampled_from([np.nan, np.inf, -1.0, 99_999_999_999])
        ),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(ROWS)
def test_rows_read_are_rows_kept_plus_rows_dropped(rows: list[tuple[object, ...]]) -> None:
    table = frame([("a", "x", NOON), *rows])
    log = Interactions.from_frame(table, dates="s", bot_events_per_day=6)
    log = log.align_to(catalog("x", "y"))
    assert log.report.rows_read == len(table)
    assert log.report.rows_kept == len(log)
    assert log.user_offsets[-1] == len(log)
    assert (np.diff(log.user_offsets) > 0).all()


@settings(max_examples=25)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[object, ...]], random: Any) -> None:
    rows = [("a", "x", NOON), *rows]
    shuffled = random.sample(rows, len(rows))
    one, other = (Interactions.from_frame(frame(order), dates="s") for order in (rows, shuffled))
    assert events(one) == events(other)
    assert one.fingerprint == other.fingerprint
    assert one.report.dropped == other.report.dropped


def test_whoever_was_left_out_is_told_the_rule_that_took_the_last_rows() -> None:
    bot = [("bot", f"i{n}", NOON + n) for n in range(6)]
    rows = frame([*bot, bot[0], ("person", "x", NOON), ("late", "x", None)])
    log = Interactions.from_frame(rows, bot_events_per_day=5)
    with pytest.raises(DataError, match=r"user 'bot' has no event here: .*bot: more than 5"):
        log.user_index("bot")
    with pytest.raises(DataError, match=r"user 'late' has no event here: .*missing time"):
        log.user_index("late")


def test_a_log_of_which_nothing_is_dropped_is_not_copied() -> None:
    events = world_log(4, 2)
    nothing = np.zeros(len(events), dtype=bool)
    assert events.drop_events({"never": nothing}) is events
    fewer = events.drop_events({"never": nothing, "first": np.arange(len(events)) == 0})
    assert len(fewer) == len(events) - 1
    assert dict(fewer.report.dropped) == {"first": 1}
