"""How a log is read: the values of each option, and parsers of scripts."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import pytest

from llmrec.data import options
from llmrec.data.options import (
    READING_FIELDS,
    ReadingOptions,
    add_reading_arguments,
    parse_columns,
    parse_dates,
)
from llmrec.data.readers import load_dataset
from llmrec.errors import DataError


def parse_flags(*flags: str) -> ReadingOptions:
    parser = argparse.ArgumentParser()
    add_reading_arguments(parser)
    return ReadingOptions.from_values(vars(parser.parse_args(flags)))


def test_the_options_are_those_of_load_dataset_with_the_same_defaults() -> None:
    of_function = dict(list(inspect.signature(load_dataset).parameters.items())[1:])
    assert {name: option.default for name, option in READING_FIELDS.items()} == {
        name: parameter.default for name, parameter in of_function.items()
    }


@pytest.mark.parametrize(
    "value",
    [
        "user=household,item=sku,time=bought",
        "user_id=household, item_id=sku, timestamp=bought",
        {"user": "household", "item_id": "sku", "time": "bought"},
    ],
)
def test_columns_have_short_names_or_full_ones(value: Any) -> None:
    expected = {"user_id": "household", "item_id": "sku", "timestamp": "bought"}
    assert parse_columns(value) == expected


def test_a_column_may_have_a_comma_or_an_equals_sign_in_its_name() -> None:
    found = parse_columns('"user=customer, paying",title=a=b')
    assert found == {"user_id": "customer, paying", "title": "a=b"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("usr=a", "'usr' is none of our columns; they are user, item, time, title, categories"),
        ("user", "'user' says no columns; write user=NAME"),
        ("", "says no columns"),
        ("user=", "says no columns"),
        ("=a", "says no columns"),
        ("user=a\nitem=b", "is not one line"),
        ("user=a,user_id=b", "'user_id' is given twice: 'a' and 'b'"),
    ],
)
def test_columns_that_say_nothing_or_too_much_are_refused(value: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_columns(value)


@pytest.mark.parametrize("value", [*options.DATE_KINDS, "%d/%m/%Y", "%d.%m.%y %H:%M", "%Y%m%d%z"])
def test_times_are_written_in_a_known_way_or_by_a_format(value: str) -> None:
    assert parse_dates(value) == value


@pytest.mark.parametrize("value", ["", "sometimes", "%d", "%H:%M", "%d/%m", "%q", "%", "%Y%Y%m%d"])
def test_a_way_to_write_times_that_gives_no_day_is_refused(value: str) -> None:
    message = r"no way to write times; write one of day-first, .*%d"
    with pytest.raises(DataError, match=message):
        parse_dates(value)
    with pytest.raises(DataError, match=message):
        load_dataset("synthetic", dates=value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"period": "0D"}, "period '0D' is not understood"),
        ({"repeat": "maybe"}, "'maybe' is no rule; write allow or exclude"),
        ({"separator": ""}, "separates nothing"),
        ({"noun": " \u200b"}, "is no word"),
        ({"keep_bots": "yes"}, "'yes' is neither true nor false"),
    ],
)
def test_a_value_that_cannot_be_is_refused_wherever_options_are_made(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ReadingOptions(**values)


def test_words_are_clean_when_they_reach_a_prompt() -> None:
    assert ReadingOptions(noun="short \u202e\n films").noun == "short films"


def test_what_is_not_set_is_not_stored_and_comes_from_the_other_options() -> None:
    given = ReadingOptions(columns={"user": "who"}, keep_bots=True)
    assert given.to_dict() == {"columns": {"user_id": "who"}, "keep_bots": True}
    assert ReadingOptions.from_values({**given.to_dict(), "seed": 3}) == given
    other = ReadingOptions(columns={"user": "person"}, noun="books")
    assert given.with_defaults(other) == ReadingOptions(
        columns={"user": "who"}, keep_bots=True, noun="books"
    )


def test_a_number_of_clusters_is_whole_and_from_1_on() -> None:
    assert parse_flags("--clusters", "40").clusters == ReadingOptions(clusters=40).clusters == 40
    for wrong in (0, -1, 2.5, True, "many", "²"):
        with pytest.raises(DataError, match="no number of clusters"):
            ReadingOptions(clusters=wrong)  # type: ignore[arg-type]


def test_options_reach_load_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}
    monkeypatch.setattr(options, "load_dataset", lambda name, **rest: taken.update(rest, name=name))
    ReadingOptions(period="2W", separator=",").load("shop.csv")
    expected = {name: option.default for name, option in READING_FIELDS.items()}
    assert taken == {**expected, "name": "shop.csv", "period": "2W", "separator": ","}


def test_flags_of_a_script_are_options() -> None:
    assert parse_flags() == ReadingOptions()
    flags = ["--columns", "user=who", "--repeat", "exclude", "--dates=%d.%m.%Y", "--keep-outliers"]
    assert parse_flags(*flags) == ReadingOptions(
        columns={"user_id": "who"}, repeat="exclude", dates="%d.%m.%Y", keep_outliers=True
    )


def test_a_wrong_flag_of_a_script_is_named_with_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_flags("--columns", "usr=a")
    assert stopped.value.code == 2
    assert "argument --columns: 'usr' is none of our columns" in capsys.readouterr().err


def test_help_of_a_script_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags("--help")
    shown = capsys.readouterr().out
    assert [n for n in READING_FIELDS if f"--{n.replace('_', '-')} " not in shown] == []


def test_one_column_cannot_be_two_of_ours() -> None:
    with pytest.raises(DataError, match="'user_id' is given for two columns"):
        parse_columns("user=user_id,item=user_id")
