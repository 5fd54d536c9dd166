from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.times import IMPOSSIBLE, MISSING, NOT_UNDERSTOOD, ParsedTimes, parse_timestamps
from llmrec.errors import DataError

NOON = np.datetime64("2020-01-01T12:00:00", "ms")
NOON_SECONDS = 1_577_880_000
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def parse(values: Any, **options: Any) -> ParsedTimes:
    column = values if isinstance(values, pd.Series) else pd.Series(values)
    return parse_timestamps(column.rename("when"), **options)


def parsed(values: Any, **options: Any) -> list[np.datetime64 | None]:
    times = parse(values, **options).times
    assert times.dtype == "datetime64[ms]"
    return [None if np.isnat(time) else time for time in times]


def days(values: Any, **options: Any) -> list[str | None]:
    return [None if time is None else str(time)[:10] for time in parsed(values, **options)]


def written_together(digits: str) -> Callable[[datetime], int]:
    return lambda time: int(time.strftime(digits))


def epoch(per_second: int) -> Callable[[datetime], int]:
    return lambda time: round(time.replace(tzinfo=UTC).timestamp()) * per_second


def excel(time: datetime) -> float:
    return (time - datetime(1899, 12, 30)).total_seconds() / 86_400


# How the same times are written, and what they are rounded down to.
SECOND, MINUTE, DAY = "s", "m", "D"
NUMBERS: dict[str, tuple[Callable[[datetime], Any], str]] = {
    **{unit: (epoch(per_second), SECOND) for unit, per_second in UNITS.items()},
    "excel": (excel, SECOND),
    "year": (written_together("%Y"), "Y"),
    "yyyymm": (written_together("%Y%m"), "M"),
    "yyyymmdd": (written_together("%Y%m%d"), DAY),
    "yyyymmddhhmm": (written_together("%Y%m%d%H%M"), MINUTE),
    "yyyymmddhhmmss": (written_together("%Y%m%d%H%M%S"), SECOND),
}
TEXTS = {
    "%Y-%m-%d %H:%M:%S": SECOND,
    "%Y-%m-%dT%H:%M:%SZ": SECOND,
    "%Y-%m-%dT%H:%M:%S+00:00": SECOND,
    "%Y%m%dT%H%M%S": SECOND,
    "%Y/%m/%d %H:%M": MINUTE,
    "%d %b %Y %H:%M:%S": SECOND,
    "%A, %B %d, %Y %I:%M %p": MINUTE,
    "%b %d %Y": DAY,
    "%d-%b-%y": DAY,
    "%a %b %d %H:%M:%S +0000 %Y": SECOND,
    "%a, %d %b %Y %H:%M:%S GMT": SECOND,
    "%d/%b/%Y:%H:%M:%S +0000": SECOND,
}
ORDERED = {  # texts of which the order of day and month must be known
    "%d/%m/%Y %H:%M": ("day-first", MINUTE),
    "%d.%m.%Y": ("day-first", DAY),
    "%d-%m-%y": ("day-first", DAY),
    "%m/%d/%Y %I:%M:%S %p": ("month-first", SECOND),
    "%m/%d/%y": ("month-first", DAY),
    "%y-%m-%d": ("year-first", DAY),
}
TIMES = st.lists(
    st.datetimes(datetime(1991, 1, 1), datetime(2025, 1, 1)).map(
        lambda time: time.replace(microsecond=0)
    ),
    min_size=1,
    max_size=20,
)


def rounded(times: list[datetime], unit: str) -> list[np.datetime64]:
    return [np.datetime64(time).astype(f"datetime64[{unit}]").astype("M8[ms]") for time in times]


@settings(max_examples=20)
@given(TIMES, st.sampled_from(sorted(NUMBERS)), st.booleans())
def test_numbers_of_every_kind_are_known_by_their_size(
    times: list[datetime], kind: str, as_text: bool
) -> None:
    write, unit = NUMBERS[kind]
    values = [write(time) for time in times]
    if as_text:
        values = [str(value) for value in values]
    assert parsed(values) == parsed(values, dates=kind) == rounded(times, unit)


@settings(max_examples=20)
@given(TIMES, st.sampled_from(sorted(TEXTS)))
def test_texts_of_every_form_are_the_same_times(times: list[datetime], form: str) -> None:
    values = [time.strftime(form) for time in times]
    assert parsed(values) == rounded(times, TEXTS[form])


@settings(max_examples=20)
@given(TIMES, st.sampled_from(sorted(ORDERED)))
def test_days_and_months_are_read_in_the_order_that_is_said(
    times: list[datetime], form: str
) -> None:
    values, (order, unit) = [time.strftime(form) for time in times], ORDERED[form]
    assert parsed(values, dates=order) == parsed(values, dates=form) == rounded(times, unit)


@settings(max_examples=20)
@given(TIMES, st.sampled_from(["%d/%m/%Y", "%m/%d/%Y"]))
def test_one_day_after_the_twelfth_tells_the_order_of_all(times: list[datetime], form: str) -> None:
    times = [*times, datetime(2001, 5, 13)]
    assert parsed([time.strftime(form) for time in times]) == rounded(times, DAY)


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from(
            ["2024-04-03", "03/04/2024", "13/04/2024", "04/13/2024", "1712102400", "banana", None]
        )
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_does_not_matter(values: list[str | None], random: Any) -> None:
    order = random.sample(range(len(values)), len(values))

    def read(rows: list[str | None]) -> list[np.datetime64 | None] | None:
        try:
            return parsed(pd.Series(rows, dtype=object))
        except DataError:
            return None

    expected, found = read(values), read([values[row] for row in order])
    assert found == (expected and [expected[row] for row in order])


@settings(max_examples=25)
@given(TIMES)
def test_datetimes_are_taken_as_they_are(times: list[datetime]) -> None:
    assert parsed(times) == rounded(times, SECOND)
    assert parsed(pd.Series(times, dtype=object)) == rounded(times, SECOND)


@pytest.mark.parametrize(
    "value",
    [
        "2020-01-01T13:00:00+01:00",
        "2020-01-01 12:00:00+00",
        " 2020-01-01 12:00 ",
        "01/01/2020 12:00:00 PM",
        "1 January 2020, 12:00",
        "Jan 1st, 2020 12:00 p.m.",
        "Wed Jan  1 12:00:00 2020",
        "01/Jan/2020:14:00:00 +0200",
        "1.57788e+09",
        "1577880000.0",
        Decimal(NOON_SECONDS),
        datetime(2020, 1, 1, 12, tzinfo=UTC),
        pd.Timestamp("2020-01-01 07:00", tz="US/Eastern"),
        np.datetime64("2020-01-01T12:00"),
        pd.Period("2020-01-01 12:00", freq="h"),
    ],
)
def test_every_way_to_write_a_time_gives_the_same_utc_time(value: object) -> None:
    assert parsed([value]) == [NOON]


@pytest.mark.parametrize(
    "dtype",
    ["int64[pyarrow]", "Int64", "float64", "Float64", "str", "string[python]", "category", object],
)
def test_every_dtype_of_a_column_gives_the_same_times(dtype: Any) -> None:
    assert parsed(pd.Series([NOON_SECONDS, NOON_SECONDS + 1]).astype(dtype))[0] == NOON


def test_times_of_polars_keep_their_zone() -> None:
    frame = pl.DataFrame({"when": [datetime(2020, 1, 1, 7)]}).with_columns(
        pl.col("when").dt.replace_time_zone("US/Eastern")
    )
    assert parsed(frame.to_pandas()["when"]) == [NOON]


def test_a_day_alone_is_its_midnight() -> None:
    assert parsed([date(2020, 1, 1), "2020-01-01"]) == [np.datetime64("2020-01-01", "ms")] * 2


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, -1, 0, 1e300, 4_102_444_800, 99_999_999_999, None]
)
def test_numbers_that_are_no_possible_time_have_none(value: float | None) -> None:
    assert parsed([NOON_SECONDS, NOON_SECONDS, value]) == [NOON, NOON, None]


@pytest.mark.parametrize(
    "value",
    ["banana", "", "1969-12-31", "9999-12-31", "123456-01-01", "2020-02-30", "10", "now", "TODAY"],
)
def test_texts_that_are_no_possible_time_have_none(value: str) -> None:
    assert parsed(["2020-01-01 12:00", "2020-01-01 12:00", value]) == [NOON, NOON, None]


def test_each_row_without_a_time_has_its_reason() -> None:
    found = parse(["2020-01-01", "2020-01-01", None, " ", "NULL", "banana", "1969-12-31"])
    rows = {reason: np.flatnonzero(mask).tolist() for reason, mask in found.unusable.items()}
    assert rows == {MISSING: [2, 3, 4], NOT_UNDERSTOOD: [5], IMPOSSIBLE: [6]}
    assert np.isnat(found.times).tolist() == [False, False, True, True, True, True, True]


@pytest.mark.parametrize("values", [[None, None], [np.nan, np.nan], ["", " "], ["NaN", "null"], []])
def test_a_column_of_nothing_is_missing_times(values: list[object]) -> None:
    found = parse(pd.Series(values, dtype=object))
    assert found.unusable[MISSING].all()
    assert not found.findings


def test_latest_moves_the_end_of_possible_times() -> None:
    future = np.datetime64("2100-01-01", "ms")
    assert parsed(["2100-01-01"]) == [None]
    assert parsed(["2100-01-01"], latest=future) == [future]
    tomorrow, later = (
        np.datetime64("now", "ms") + np.timedelta64(hours, "h") for hours in (23, 25)
    )
    assert parsed([str(tomorrow), str(later)]) == [tomorrow, None]


@pytest.mark.parametrize("stray", [NOON_SECONDS * 1000, 20_200_101, 43_831, 2020, 202_001])
def test_mixed_units_are_refused_with_the_row(stray: int) -> None:
    with pytest.raises(DataError, match=r"'when' mixes units: .*seconds.*, row 2 .*dates='s'"):
        parse([NOON_SECONDS, NOON_SECONDS, stray])
    assert parsed([NOON_SECONDS, NOON_SECONDS, stray], dates="s")[:2] == [NOON, NOON]


def test_numbers_of_no_known_kind_are_refused_with_the_way_out() -> None:
    for values in ([19_000, 19_500], [157_766_400], [1, 711], [2020.5], [20_241_304, 20_241_504]):
        with pytest.raises(DataError, match=r"'when' holds numbers from .* dates=, or --dates"):
            parse(values)
    assert days([0, 18_262], dates="days") == ["1970-01-01", "2020-01-01"]


def test_nanoseconds_that_may_be_ticks_of_dot_net_are_refused() -> None:
    ticks = [637_134_768_000_000_000]
    with pytest.raises(DataError, match=r"row 0: 637134768000000000 may be .*1990.*ticks.*2020"):
        parse(ticks)
    assert parsed(ticks, dates="ticks") == [NOON]
    assert days(ticks, dates="ns") == ["1990-03-11"]


def test_a_given_unit_is_used_whatever_the_numbers_look_like() -> None:
    assert parsed([NOON_SECONDS], dates="ms")[0] == np.datetime64("1970-01-19T06:18:00", "ms")
    with pytest.raises(DataError, match=r"row 1: 'banana' is no number, and dates='s'"):
        parse(["12", "banana", "apple"], dates="s")


@pytest.mark.parametrize("dates", ["hours", "dayfirst", "%Q", "%H:%M", "%d.%m.", ""])
def test_an_unknown_way_to_write_dates_is_refused(dates: str) -> None:
    with pytest.raises(DataError, match=rf"dates '{dates}' is no way .* %d/%m/%Y"):
        parse(["2020-01-01"], dates=dates)


@pytest.mark.parametrize("ambiguous", ["03/04/2024", "3.4.24", "03-04-03", "24-04-03"])
def test_dates_that_fit_two_orders_are_refused_until_one_is_said(ambiguous: str) -> None:
    other = "year-first" if ambiguous == "24-04-03" else "month-first"
    with pytest.raises(DataError, match=rf"row 1: .* may be .* or .*--dates day.*--dates {other}"):
        parse([None, ambiguous, ambiguous])


def test_dates_that_are_the_same_in_both_orders_are_read() -> None:
    found = parse(["03/03/2024", "05/05/2024"])
    assert [str(time)[:10] for time in found.times] == ["2024-03-03", "2024-05-05"]
    assert found.day_first is None


def test_the_order_of_dates_is_told() -> None:
    found = parse(["03/04/2024", "25/12/2024"])
    assert found.day_first is True
    (finding,) = found.findings
    assert finding.rule == "dates in column 'when' are read day first"
    assert (finding.rows, finding.example) == (2, "row 0: 03/04/2024 is 2024-04-03")
    assert parse(["03/04/2024", "12/25/2024"]).day_first is False


def test_what_numbers_are_is_told_by_a_row_that_has_a_time() -> None:
    (finding,) = parse([np.inf, 20_200_199, 20_200_101, 20_200_101]).findings
    assert finding.rule == "numbers in column 'when' are dates, written together"
    assert finding.example.startswith("row 2: 20200101 is 2020-01-01")


def test_two_orders_in_one_column_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 0 is '13/04/2024', row 2 is '04/16/2024'"):
        parse(["13/04/2024", "01/02/2024", "04/16/2024"])


def test_a_year_of_zeros_is_no_year_of_two_digits() -> None:
    assert days(["13/01/0000", "13/01/2024", "14/01/2024"]) == [None, "2024-01-13", "2024-01-14"]
    assert days(["31/12/68", "31/12/69"], latest=np.datetime64("2100-01-01")) == [
        "2068-12-31",
        None,  # 1969
    ]


def test_a_format_brings_back_the_zero_that_a_number_lost() -> None:
    assert days([3_042_024, 13_042_024], dates="%d%m%Y") == ["2024-04-03", "2024-04-13"]


def test_one_text_in_twenty_may_be_no_time_and_more_are_refused_with_the_row() -> None:
    with pytest.raises(DataError, match=r"'when', row 1: 'milk' is no time .*2 of 3.*--dates"):
        parse(["2020-01-01", "milk", "tea"])
    for present, most in ((1, 0), (2, 1), (20, 1), (21, 2), (100, 5)):
        for unread, is_refused in ((most, False), (most + 1, True)):
            values = ["milk"] * unread + ["2020-01-01"] * (present - unread) + [None] * present
            with pytest.raises(DataError) if is_refused else contextlib.nullcontext():
                assert parse(values).unusable[NOT_UNDERSTOOD].sum() == unread


def test_a_given_order_that_fits_no_text_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"row 0: '13/04/2024' does not fit dates='month-first' \(2 of"
    ):
        parse(["13/04/2024", "14/04/2024"], dates="month-first")


@pytest.mark.parametrize("digits", [[20_241_204, 20_240_304], [20_241_204.5]])
def test_numbers_of_which_many_are_not_of_the_kind_of_most_are_refused(digits: list[float]) -> None:
    values = [20_240_101] * 3 + [99_999_999, 99_999_999] + digits
    for options in ({}, {"dates": "yyyymmdd"}):
        with pytest.raises(
            DataError, match=r"'when', row 3: 99999999 is not what the others are, dates"
        ):
            parse(values, **options)


@pytest.mark.parametrize(
    "months",
    [
        "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        "Jan. Feb. Mrz. Apr. Mai Jun. Jul. Aug. Sept. Okt. Nov. Dez.",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "janv. févr. mars avr. mai juin juil. aout sept. oct. nov. déc.",
        "ene feb mar abr may jun jul ago sep oct nov dic",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
        "dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "jan feb mrt apr mei jun jul aug sep okt nov dec",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "jan fev mar abr mai jun jul ago set out nov dez",
    ],
)
def test_months_of_seven_languages_are_known_by_name(months: str) -> None:
    names = months.split()
    expected = [f"2024-{month:02}-05" for month in range(1, 13)]
    assert days([f"5 {name} 2024" for name in names]) == expected
    assert days([f"5 de {name.upper()} de 2024" for name in names]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "3. Jänner 2023",
        "Dienstag, 3. Januar 2023 um 08:16 Uhr",
        "mardi 3 janvier 2023 à 08h16",
        "3er janvier 2023",
        "mar, 3 gen 2023",
        "2023年1月3日",
        "2023-W01-2",
        "2023W012",
        "2023-003",
    ],
)
def test_days_that_have_a_name_or_a_place_in_their_year_are_read(text: str) -> None:
    assert days([text]) == ["2023-01-03"]


def test_mar_is_march_unless_a_date_comes_after_it() -> None:
    texts = ["Mar 3 2023", "Mar 3rd, 2023", "mar. 3 janv. 2023", "mar 03 Jan 2023", "mar 3/1/2023"]
    expected = ["2023-03-03"] * 2 + ["2023-01-03"] * 3
    assert days(texts, dates="day-first") == expected


@pytest.mark.parametrize("text", ["5 Marzec 2024", "5 Maya 2024", "2023-W53-1", "2023-366"])
def test_words_that_are_no_months_and_days_that_are_not_are_no_times(text: str) -> None:
    assert days([text, "5 May 2024"]) == [None, "2024-05-05"]


@pytest.mark.parametrize("text", ["01/2023", "1-2023", "January 2023", "ene. 2023"])
def test_a_month_alone_is_its_first_day(text: str) -> None:
    assert days([text]) == ["2023-01-01"]


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("13/01/2023 20:08 PM", "13T20:08"),
        ("13/01/2023 08:16 AM", "13T08:16"),
        ("13/01/2023 00:16 AM", "13T00:16"),
        ("2023-01-13 24:00:00", "14T00:00"),
        ("2023-01-13T24:00Z", "14T00:00"),
        ("2023-01-13 23:59:60", "14T00:00"),
        ("13/01/2023 23:59:60", "14T00:00"),
        ("08:16 13/01/2023", "13T08:16"),
        ("8:16 PM, 13/01/2023", "13T20:16"),
        ("13/01/2023 08h16", "13T08:16"),
        ("13.01.2023 08.16", "13T08:16"),
        ("1/13/2023 8:16\u202fAM", "13T08:16"),
        ("1/13/2023 8:16\u00a0PM", "13T20:16"),
        ("13-JAN-23 08.16.00.000000 AM", "13T08:16"),
        ("[13/Jan/2023:08:16:00 +0000]", "13T08:16"),
        ("2023-01-13 08:16 (UTC)", "13T08:16"),
        ("2023-01-13T08:16:00+01:00[Europe/Berlin]", "13T07:16"),
        ("Fri Jan 13 2023 08:16:00 GMT+0100 (Central European Standard Time)", "13T07:16"),
        ("13/01/2023 08:16 +01", "13T07:16"),
    ],
)
def test_clocks_of_every_form_are_read(text: str, hours: str) -> None:
    assert parsed([text, text]) == [np.datetime64(f"2023-01-{hours}", "ms")] * 2


@pytest.mark.parametrize(
    "clock", ["20:08 AM", "00:08 PM", "24:01", "12:60", "08:16.14", "24:00 PM"]
)
def test_hours_that_no_clock_shows_are_no_time(clock: str) -> None:
    assert days([f"13/01/2023 {clock}", "14/01/2023 08:16"]) == [None, "2023-01-14"]


@pytest.mark.parametrize("zone", ["EST", "BST", "Europe/Berlin", "(CET)"])
@pytest.mark.parametrize("time", ["2023-01-13 08:16:14", "1/13/2023 8:16 AM"])
def test_a_zone_that_is_only_named_is_refused_with_the_way_out(time: str, zone: str) -> None:
    wanted = rf"row 40: .* names its time zone, {zone.strip('()')}, .*\+01:00"
    with pytest.raises(DataError, match=wanted):
        parse([time] * 40 + [f"{time} {zone}"])


def test_dates_of_json_are_milliseconds() -> None:
    assert parsed([f"/Date({NOON_SECONDS}000)/", f"/Date({NOON_SECONDS}000+0100)/"]) == [NOON, NOON]


@pytest.mark.parametrize("dates", [None, "excel"])
def test_days_of_a_spreadsheet_may_have_a_decimal_comma(dates: str | None) -> None:
    assert parsed(["43831,5", "43831.5", "43831"], dates=dates) == [
        NOON,
        NOON,
        np.datetime64("2020-01-01", "ms"),
    ]


@pytest.mark.parametrize("as_text", [True, False])
def test_digits_are_never_moved_between_the_parts_of_a_format(as_text: bool) -> None:
    def write(*values: int) -> list[Any]:
        return [str(value) for value in values] if as_text else list(values)

    assert days(write(3_012_023, 1_112_023, 13_012_023), dates="%d%m%Y") == [
        "2023-01-03",
        "2023-11-01",
        "2023-01-13",
    ]
    assert days(write(20_230_111, 2_023_111), dates="%Y%m%d") == ["2023-01-11", None]
    assert days(write(13_012_023, 312_023), dates="%d%m%Y") == ["2023-01-13", None]


def test_a_format_may_go_on_after_parts_that_are_written_together() -> None:
    texts = ["3012023 8:16", "13012023 10:00"]
    assert days(texts, dates="%d%m%Y %H:%M") == ["2023-01-03", "2023-01-13"]


@pytest.mark.parametrize("word", ["N/A", "n/a", "#N/A", "(null)", "none", "undefined"])
def test_words_for_a_missing_value_are_no_broken_times(word: str) -> None:
    assert parse(["2024-04-03", word, word]).unusable[MISSING].tolist() == [False, True, True]


@pytest.mark.parametrize("swapped", ["2024-19-04", "2024/31/01 10:00", "2024.13.5"])
def test_a_day_between_year_and_month_is_refused_until_its_format_is_said(swapped: str) -> None:
    form = f"%Y{swapped[4]}%d{swapped[7]}%m"
    for values in (["2024-12-04", swapped], [swapped], ["13/04/2024", swapped]):
        with pytest.raises(DataError, match=rf"row \d: '{swapped}' has its day .*--dates {form}"):
            parse(values)
    assert days(["2024-12-04", swapped], dates="year-first") == ["2024-12-04", None]


def test_days_between_years_and_months_are_read_by_their_format() -> None:
    found = days(["2024-19-04", "2024-12-04"], dates="%Y-%d-%m")
    assert found == ["2024-04-19", "2024-04-12"]


def test_texts_that_repeat_are_told_by_their_first_row_and_counted_by_all() -> None:
    written = ["25/12/2024", "03/04/2024", "3 Apr 2024"]
    found = parse([None, *written * 3, "2024-04-03"])
    assert [str(time)[:10] for time in found.times[1:]] == [
        *["2024-12-25", "2024-04-03", "2024-04-03"] * 3,
        "2024-04-03",
    ]
    (finding,) = found.findings
    assert (finding.rows, finding.example) == (6, "row 1: 25/12/2024 is 2024-12-25")


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        (["1712145609"] * 6, ["2024-04-03 10:00:00"] * 4),
        (["1712145609"] * 4, ["3 Apr 2024 10:00"] * 6),
        (["2024", "2023"], ["2024-05-01"]),
        (["20240403"], ["13/04/2024"] * 40),
    ],
)
def test_numbers_and_written_times_are_not_mixed(numbers: list[str], texts: list[str]) -> None:
    wanted = rf"mixes numbers and written times: row 0 is '{numbers[0]}', row {len(numbers)} is"
    with pytest.raises(DataError, match=wanted):
        parse([*numbers, *texts])


@pytest.mark.parametrize("values", [["1712145609"] * 3 + ["tea"], ["2024-04-03"] * 3 + ["7"]])
def test_what_is_no_time_beside_times_is_no_mixture(values: list[str]) -> None:
    assert days(values) == ["2024-04-03"] * 3 + [None]
    with pytest.raises(DataError, match=r"row 3: '(tea|7)' is no (number|time)"):
        parse(values + values[-1:])


@pytest.mark.parametrize(
    "values",
    [
        ["2020-01-01 12:00:00", "2020-01-01 12:00:00", "2020-01-01 12:00:00+02:00"],
        ["20200101T120000", "20200101T120000", "20200101T120000Z"],
        ["Wed Jan 01 12:00:00 2020"] * 2 + ["Wed Jan 01 12:00:00 +0000 2020"],
        ["01/13/2020 1:00 PM", "01/13/2020 1:00 PM", "01/13/2020 1:00 PM UTC"],
        [datetime(2020, 1, 1), datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)],
    ],
)
def test_times_with_and_without_a_zone_are_not_mixed(values: list[object]) -> None:
    with pytest.raises(DataError, match=r"'when' mixes times with and without a time zone: row 2"):
        parse(values)


def test_different_zones_are_one_time_line() -> None:
    assert parsed(["2020-01-01T12:00Z", "2020-01-01T17:30+05:30"]) == [NOON, NOON]


@pytest.mark.parametrize("dtype", [bool, "boolean", "bool[pyarrow]", object])
def test_booleans_are_no_times(dtype: Any) -> None:
    with pytest.raises(DataError, match=r"booleans|'True' is no time"):
        parse(pd.Series([True, False]).astype(dtype))


def test_half_a_character_among_times_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match=r"'when', row 1: '\\ud800' is no time"):
        parse(pd.Series(["2020-01-01", "\ud800"], dtype=object))


def test_messages_name_rows_by_their_place_whatever_the_index() -> None:
    column = pd.Series(["2020-01-01", "x", "y"], index=pd.MultiIndex.from_product([[5], [7, 8, 9]]))
    with pytest.raises(DataError, match="row 1: 'x'"):
        parse(column)
