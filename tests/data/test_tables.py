"""Delimited text and JSON: separators, encodings, quotes, broken lines; what is no table."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec.data.readers import load_dataset
from llmrec.data.tables import HEADER_AGAIN, SHORT_LINE
from llmrec.errors import DataError
from tests.data.log_files import (
    HEADER,
    NOON,
    ROWS,
    categories_of,
    events_of,
    json_lines,
    rules_of,
    write_log,
)

TITLED = "user_id,item_id,timestamp,categories,title\n"


def refusal(path: Path, **options: Any) -> str:
    """Give the message that refuses a file: one line, which begins with its name."""
    with pytest.raises(DataError) as caught:
        load_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path)).lstrip(": ")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_whatever_the_name_of_the_file(
    tmp_path: Path, separator: str
) -> None:
    path = write_log(tmp_path, (HEADER + ROWS).replace(",", separator))
    dataset = load_dataset(path)
    assert events_of(dataset) == [("ana", "x"), ("ana", "y"), ("bo", "y")]
    said = [rule for rule in rules_of(dataset) if "stand between values" in rule]
    assert len(said) == (separator != ",")


def test_separators_inside_a_quoted_name_of_a_column_do_not_count(tmp_path: Path) -> None:
    path = write_log(tmp_path, HEADER.strip() + ',"a;b;c;d;e;f"\n' + ROWS.replace("\n", ",1\n"))
    assert len(load_dataset(path).log) == 3


def test_a_comma_inside_numbers_is_a_decimal_one_where_semicolons_separate(tmp_path: Path) -> None:
    text = "user_id;item_id;timestamp;rating;categories\nana;x;2024-01-01;4,5;A,B\n"
    dataset = load_dataset(write_log(tmp_path, text))
    assert dataset.log.rating is not None
    assert dataset.log.rating.tolist() == [4.5]
    assert categories_of(dataset) == {"x": ("A,B",)}


def test_numbers_in_quotes_are_numbers(tmp_path: Path) -> None:
    text = f'user_id,item_id,timestamp,rating,categories\n"07","2","{NOON}","4.5","A"\n'
    log = load_dataset(write_log(tmp_path, text)).log
    assert log.user_ids.tolist() == ["07"]
    assert log.timestamp[0] == np.datetime64(NOON, "s")
    assert log.rating is not None
    assert log.rating.tolist() == [4.5]


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8-sig", b""),
        ("utf-16-le", b"\xff\xfe"),
        ("utf-16-be", b"\xfe\xff"),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", b"\xff\xfe\x00\x00"),
        ("utf-32-be", b"\x00\x00\xfe\xff"),
        ("utf-32-le", b""),
        ("utf-32-be", b""),
        ("latin-1", b""),
        ("cp1252", b""),
    ],
)
def test_encodings_are_found_with_and_without_a_mark(
    tmp_path: Path, encoding: str, mark: bytes
) -> None:
    content = mark + (HEADER + ROWS).replace("A", "Café").encode(encoding)
    dataset = load_dataset(write_log(tmp_path, content))
    assert dataset.catalog.categories == ("B", "Café")
    assert dataset.log.user_ids.tolist() == ["ana", "bo"]
    said = [rule for rule in rules_of(dataset) if "not UTF-8" in rule]
    assert len(said) == (not encoding.startswith("utf-8"))


def test_a_column_whose_name_is_not_ascii_is_found_in_any_encoding(tmp_path: Path) -> None:
    content = HEADER.replace("categories", "Größe").encode("latin-1") + ROWS.encode()
    dataset = load_dataset(write_log(tmp_path, content), columns={"categories": "Größe"})
    assert dataset.catalog.categories == ("A", "B")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("gbk", "喜剧电影"), ("shift-jis", "日本語"), ("cp1251", "Комедия"), ("euc-kr", "코미디")],
)
def test_other_alphabets_are_not_read_as_latin_letters(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path = write_log(tmp_path, (HEADER + ROWS).replace("B", name).encode(encoding))
    assert refusal(path).startswith("line 3 is not UTF-8, and the file is no Latin text either")


def test_a_file_partly_in_utf_8_and_partly_not_is_refused_by_its_line(tmp_path: Path) -> None:
    parts = (HEADER + ROWS).replace("A", "Café").encode(), "cy,x,2024-01-04,Café\n".encode("cp1252")
    assert refusal(write_log(tmp_path, b"".join(parts))).startswith("line 5 is not UTF-8")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_empty_ones_do_not_count(
    tmp_path: Path, line_end: str
) -> None:
    text = ("\n\n" + HEADER + "\n" + ROWS.replace("\n", "\n\n")).replace("\n", line_end)
    dataset = load_dataset(write_log(tmp_path, text))
    assert events_of(dataset) == [("ana", "x"), ("ana", "y"), ("bo", "y")]
    assert dataset.findings == ()


def test_a_file_may_be_gzipped_whatever_its_name(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + ROWS).encode())
    for name in ("log.csv.gz", "log.csv"):
        assert len(load_dataset(write_log(tmp_path, packed, name)).log) == 3
    assert len(load_dataset(write_log(tmp_path, HEADER + ROWS, "plain.csv.gz")).log) == 3


def test_quoted_values_hold_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = TITLED + 'ana,x,2024-01-01,A,"One, ""two""\nthree"\nbo,y,2024-01-02,B,12" disc\n'
    titles = load_dataset(write_log(tmp_path, text)).catalog.titles
    assert titles == ('One, "two" three', '12" disc')


def test_spaces_that_follow_every_separator_are_no_part_of_the_values(tmp_path: Path) -> None:
    text = 'user_id, item_id, timestamp, title, categories\nana, x, 2024-01-01, "T, U", A\n'
    dataset = load_dataset(write_log(tmp_path, text))
    assert dataset.catalog.item_ids.tolist() == ["x"]
    assert categories_of(dataset) == {"T, U": ("A",)}
    assert "spaces that follow separators are left out" in rules_of(dataset)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TITLED + 'ana,x,2024-01-01,A,"T\nbo,x,2024-01-02,A,U\n', 2),
        (TITLED + 'ana,x,2024-01-01,"A,T\nbo,x,2024-01-02,A,U\n', 2),
        (TITLED + 'ana,x,2024-01-01,A,T\nbo,x,2024-01-02,A,"say ""U""\n', 3),
    ],
)
def test_a_quote_that_is_never_closed_is_named_by_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    assert f"a double quote in line {line} is never closed" in refusal(write_log(tmp_path, text))


def test_a_quote_in_the_first_line_that_is_never_closed_is_named(tmp_path: Path) -> None:
    message = refusal(write_log(tmp_path, '"user_id,item_id,timestamp,categories\n' + ROWS))
    assert message.startswith("a double quote in its first line is never closed")


def test_a_closed_quote_before_a_short_last_line_is_no_fault(tmp_path: Path) -> None:
    text = TITLED + 'ana,x,2024-01-01,A,"T\nU"\nbo,x,2024-01-02\n'
    dataset = load_dataset(write_log(tmp_path, text))
    assert dataset.catalog.titles == ("T U",)
    assert rules_of(dataset) == {SHORT_LINE: 1}


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("ana,x,2024-01-01,A,T,9\n", 2),
        ("ana,x,2024-01-01,A,T\n\nbo,x,2024-01-02,A,T,9\n", 4),
        ('ana,x,2024-01-01,A,"T\nU"\nbo,x,2024-01-02,A,T,9\n', 4),
    ],
)
def test_a_line_with_too_many_values_is_named_by_its_number(
    tmp_path: Path, rows: str, line: int
) -> None:
    message = refusal(write_log(tmp_path, TITLED + rows))
    assert message.startswith(f"line {line} has 6 values, not 5: '")


def test_lines_with_too_few_values_are_dropped_counted_and_shown(tmp_path: Path) -> None:
    text = HEADER + "\n" + ROWS + "cy,x\n# the end\n"
    found = [one for one in load_dataset(write_log(tmp_path, text)).findings]
    assert [(one.rule, one.rows, one.effect) for one in found] == [(SHORT_LINE, 2, "dropped")]
    assert found[0].example == "log.csv, line 6: cy,x"


def test_a_file_whose_lines_mostly_have_too_few_values_is_refused(tmp_path: Path) -> None:
    message = refusal(write_log(tmp_path, HEADER + "ana,x,2024-01-01,A\nbo,y\ncy,z\n"))
    assert message == "most lines have fewer than 4 values, such as 'line 3: bo,y'."


def test_a_first_line_that_is_no_row_of_names_is_refused(tmp_path: Path) -> None:
    message = refusal(write_log(tmp_path, "# exported in May\n" + HEADER + ROWS))
    assert "'# exported in May', and line 2 has 4 values" in message
    assert "the first line must name the columns" in message
    assert "(columns found: ana, x, 2024-01-01, A)" in refusal(write_log(tmp_path, ROWS))


def test_rows_that_repeat_the_header_are_dropped(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,rating,categories,\n"
    row = f"ana,x,{NOON},5,A,\n"
    dataset = load_dataset(write_log(tmp_path, header + row + header + row.replace("x", "y")))
    assert len(dataset.log) == 2
    assert dataset.catalog.categories == ("A",)
    assert rules_of(dataset)[HEADER_AGAIN] == 1


def test_two_columns_of_one_name_are_refused_only_if_they_are_read(tmp_path: Path) -> None:
    text = HEADER.strip() + ",{0},{0}\n" + ROWS.replace("\n", ",1,2\n")
    assert len(load_dataset(write_log(tmp_path, text.format("note"))).log) == 3
    message = refusal(write_log(tmp_path, text.format("rating")))
    assert "column 'rating' is there more than once" in message


@pytest.mark.parametrize("text", ["", "\n\n", HEADER, HEADER.strip(), HEADER + "\n\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(write_log(tmp_path, text)) == "it holds no rows."


def test_a_zero_byte_is_named_by_its_line(tmp_path: Path) -> None:
    path = write_log(tmp_path, HEADER + ROWS + "c\0y,x,2024-01-04,A\n")
    assert refusal(path).startswith("line 5 holds a zero byte")


def test_a_line_may_be_long_but_not_the_first_one(tmp_path: Path) -> None:
    long = "q" * 10_000_000
    dataset = load_dataset(write_log(tmp_path, HEADER + ROWS + f"cy,z,2024-01-04,{long}\n"))
    assert len(dataset.log) == 4
    assert "first line is longer than" in refusal(write_log(tmp_path, long + HEADER + ROWS))


def test_what_is_no_text_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("log.csv", HEADER + ROWS)
        file.writestr("items.csv", "item_id\n")
    assert "an archive of several files or a spreadsheet" in refusal(
        write_log(tmp_path, archive.getvalue())
    )
    assert "a Parquet file" in refusal(write_log(tmp_path, b"PAR1\x00\x01"))
    message = refusal(write_log(tmp_path, archive.getvalue(), "log.xlsx"))
    assert message == "log.xlsx is a spreadsheet: save it as CSV."
    message = refusal(write_log(tmp_path, "", "log.inter"))
    assert "give the folder that holds NAME.inter and NAME.item" in message
    message = refusal(write_log(tmp_path, "", "log.pdf"))
    assert message.startswith("log.pdf is not a .csv, .tsv, .txt, .dat, .json, .jsonl or .parq")
    assert ".gz, .bz2, .zip" in message


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz"])
def test_a_gzipped_file_that_is_cut_off_is_named(tmp_path: Path, suffix: str) -> None:
    lines = "".join(f"{n},x,2024-01-01,A\n" for n in range(50_000))
    path = write_log(tmp_path, gzip.compress((HEADER + lines).encode())[:-1_000], f"log{suffix}")
    assert "Correct or replace the file" in refusal(path)


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    message = refusal(write_log(tmp_path, HEADER + ROWS, "log.parquet"))
    assert "Correct or replace the file" in message


def test_parquet_holds_lists_and_named_things_as_categories(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(HEADER + ROWS)).iloc[:2]
    for values in ([["A", "B"], ["B"]], [[{"name": "A"}, {"name": "B"}], [{"name": "B"}]]):
        frame.assign(categories=values).to_parquet(tmp_path / "log.parquet")
        assert categories_of(load_dataset(tmp_path / "log.parquet")) == {
            "x": ("A", "B"),
            "y": ("B",),
        }


def test_a_column_that_was_the_index_of_a_frame_is_still_a_column(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(HEADER + ROWS))
    frame.set_index("user_id").to_parquet(tmp_path / "log.parquet")
    assert load_dataset(tmp_path / "log.parquet").log.user_ids.tolist() == ["ana", "bo"]


EVENT = {"user_id": "ana", "item_id": "x", "timestamp": "2024-01-01", "categories": ["A", "B"]}


def test_json_may_be_lines_or_one_list_in_any_unicode(tmp_path: Path) -> None:
    rows = [EVENT, EVENT | {"item_id": "y", "rating": 4.5}]
    written = [json_lines(rows), json.dumps(rows), json.dumps(rows, indent=2), json_lines(rows)]
    contents = [text.encode() for text in written[:3]] + [written[3].encode("utf-16")]
    for content in contents:
        dataset = load_dataset(write_log(tmp_path, content, "log.json"))
        assert events_of(dataset) == [("ana", "x"), ("ana", "y")]
        assert categories_of(dataset)["x"] == ("A", "B")


def test_json_ids_stay_what_they_are(tmp_path: Path) -> None:
    long = 1_234_567_890_123_456_788
    for ids, found in (
        (["007", "7"], ["007", "7"]),
        (["2024-01-02", "2024-01-02 00:00:00"], ["2024-01-02", "2024-01-02 00:00:00"]),
        ([long, long + 1, None], [str(long), str(long + 1)]),
    ):
        path = write_log(tmp_path, json_lines(EVENT | {"user_id": one} for one in ids), "l.jsonl")
        assert load_dataset(path).log.user_ids.tolist() == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it holds no rows."),
        (json_lines([EVENT]) + '{"user_id": \n', "line 2 is not JSON "),
        (json_lines([EVENT]) + '{"user_id": "\xe9"}\n', "line 2 is not JSON ('utf-8' codec"),
        (
            json_lines([EVENT | {"user_id": 7}, EVENT | {"user_id": [7]}]),
            "column 'user_id', row 1: an array, and a number before it or expected",
        ),
        (json_lines([EVENT | {"user_id": True}]), "column 'user_id', row 0: 'True' is no id"),
        (json_lines([EVENT | {"user_id": {"0": "a"}}]), "column 'user_id', row 0: "),
        ("1\n2\n", "row 0 is a number, not an object"),
        (
            json_lines([{"users": [EVENT]}]),
            "columns 'user_id', 'item_id' and 'timestamp' are missing (columns found: users)",
        ),
    ],
)
def test_broken_json_is_named_by_line_or_column(tmp_path: Path, content: str, message: str) -> None:
    path = write_log(tmp_path, content.encode("latin-1"), "log.jsonl")
    assert refusal(path).startswith(message)


def test_dates_of_a_given_form_keep_their_zeros(tmp_path: Path) -> None:
    text = HEADER + "ana,x,01022024,A\nbo,y,13022024,B\n"
    dataset = load_dataset(write_log(tmp_path, text), dates="%d%m%Y")
    assert dataset.log.timestamp[0] == np.datetime64("2024-02-01")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"user_id":' * 100_000])
def test_json_that_is_nested_too_deeply_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    message = refusal(write_log(tmp_path, content, "log.json"))
    assert message == "its values are nested too deeply. Correct the file."


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        # The quote of line 3 is closed where that of line 5 opens.
        ('a,x,2024-01-01,A,T\na,y,2024-01-02,A,"T\nb,x,2024-01-03,A,U\nb,y,2024-01-04,A,"V\n', 3),
        # The same in lines that have too few values.
        (
            'a,x,2024-01-01,A,T\na,y,2024-01-02,"A\nb,x,2024-01-03,A,U\nb,y,2024-01-04,A"\n'
            "b,z,2024-01-05,A,T\n",
            3,
        ),
        ('a,x,2024-01-01,"A,T\nb,y,2024-01-02,A",T\n', 2),
    ],
)
def test_a_quote_that_swallows_rows_is_named_by_its_line(
    tmp_path: Path, rows: str, line: int
) -> None:
    message = refusal(write_log(tmp_path, TITLED + rows))
    assert message.startswith(f"a double quote in line {line} is closed in a later line only")


def test_a_quoted_text_of_many_lines_and_separators_is_one_value(tmp_path: Path) -> None:
    text = "One, two\nthree, four, five, six, 7\n8, nine,\nten"
    rows = f'ana,x,2024-01-01,A,"{text}"\nbo,y,2024-01-02,B,T\n'
    dataset = load_dataset(write_log(tmp_path, TITLED + rows))
    assert events_of(dataset) == [("ana", " ".join(text.split())), ("bo", "T")]


def test_a_header_in_the_middle_in_another_order_is_refused_by_its_row(tmp_path: Path) -> None:
    path = write_log(tmp_path, HEADER + ROWS + "item_id,user_id,timestamp,categories\n")
    assert refusal(path).startswith("row 3 names the columns in another order (item_id, user_id, ")


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("user_id", '"user_id"')])
def test_a_header_in_the_middle_may_begin_with_the_mark_of_its_file(
    tmp_path: Path, header: str
) -> None:
    dataset = load_dataset(write_log(tmp_path, HEADER + ROWS + "\ufeff" + header + ROWS))
    assert rules_of(dataset)[HEADER_AGAIN] == 1
    assert len(dataset.log) == 3


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_first_line_may_say_the_separator_as_spreadsheets_do(tmp_path: Path, sign: str) -> None:
    rows = (HEADER + ROWS).replace(",", sign)
    assert len(load_dataset(write_log(tmp_path, f"sep={sign}\r\n{rows}")).log) == 3
    message = refusal(write_log(tmp_path, f"sep={sign}\n{rows}ana{sign * 4}9\n"))
    assert message.startswith("line 6 has 5 values, not 4")


def test_every_row_but_the_header_may_end_in_a_separator(tmp_path: Path) -> None:
    rows = ROWS.replace("\n", ",\n")
    dataset = load_dataset(write_log(tmp_path, HEADER + rows))
    assert len(dataset.log) == 3
    assert rules_of(dataset)["rows end in a separator that the header lacks"] == 3
    message = refusal(write_log(tmp_path, HEADER + rows + "ana,x,2024-01-05,A,B\n"))
    assert message.startswith("line 2 has 5 values, not 4")


def test_double_colons_are_found_to_separate(tmp_path: Path) -> None:
    path = write_log(tmp_path, (HEADER + ROWS).replace(",", "::"), "log.dat")
    dataset = load_dataset(path)
    assert events_of(dataset) == [("ana", "x"), ("ana", "y"), ("bo", "y")]
    assert rules_of(dataset)["double colons stand between values"] == 3


def test_a_file_may_be_packed_by_bzip2_or_be_the_only_one_of_a_zip(tmp_path: Path) -> None:
    lines = json_lines([EVENT])
    for name, text in (("log.csv", HEADER + ROWS), ("log.jsonl", lines)):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, text)
        for packed, content in (
            (name + ".bz2", bz2.compress(text.encode())),
            ("log.zip", archive.getvalue()),
            (name, archive.getvalue()),
        ):
            found = load_dataset(write_log(tmp_path, content, packed)).log
            assert len(found) == (3 if text.startswith(HEADER) else 1)


def test_whole_numbers_beside_texts_are_texts_in_json(tmp_path: Path) -> None:
    ids = [7, "7", "07", 8, None]
    path = write_log(tmp_path, json_lines(EVENT | {"user_id": one} for one in ids), "l.jsonl")
    dataset = load_dataset(path)
    assert dataset.log.user_ids.tolist() == ["07", "7", "8"]
    assert rules_of(dataset)["numbers in column 'user_id' are texts, as others there are"] == 5
    mixed = json_lines([EVENT | {"user_id": 7.5}, EVENT | {"user_id": "7"}])
    assert "column 'user_id', row 1: a string" in refusal(write_log(tmp_path, mixed, "l.jsonl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS, "looks like data, not like names of columns: write names above it"),
        (HEADER.replace(",", " ") + ROWS.replace(",", " "), "No separator was found in its first "),
        (
            "\u7528\u6237,\u5546\u54c1\n" + "\u6708,2\n" * 9,
            "look like another encoding: save it as UTF-8",
        ),
        ("who,what\n1,2\n", "columns 'user_id', 'item_id' and 'timestamp' are missing"),
        ("user,item,at,genre\n1,2,3,A\n", "or --columns time=ITS_NAME."),
    ],
)
def test_what_is_wrong_with_the_names_of_columns_is_said(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in refusal(write_log(tmp_path, text.encode("gbk")))


def test_a_word_shows_how_a_text_that_is_not_unicode_is_read(tmp_path: Path) -> None:
    path = write_log(tmp_path, (HEADER + ROWS + "ana,z,2024-01-05,Caf\xe9s\n").encode("cp1252"))
    found = load_dataset(path).findings
    assert "log.csv: Caf\xe9s" in [one.example for one in found]
