"""Rows in messages and reports: those of the files, whatever was dropped or joined on the way."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmrec.data.readers import load_dataset, read_table
from llmrec.data.source_rows import tell_first_row, tell_rows
from llmrec.errors import DataError
from tests.data.log_files import write_files, write_log

HEADER = "user_id,item_id,timestamp,rating,categories\n"
GOOD = "ana,x,2024-01-01,5,A\n"
NO_NUMBER = "ana,x,2024-01-02,bad,A\n"
NO_PERSON = ",x,2024-01-02,5,A\n"
PARTS = pd.MultiIndex.from_tuples([("a.csv", 0), ("b.csv", 0), ("b.csv", 2)])


def test_rows_after_a_repeated_header_and_a_short_line_keep_their_numbers(tmp_path: Path) -> None:
    dropped = GOOD + HEADER + "bo,x\n"  # rows 0 to 2
    with pytest.raises(DataError, match=r"log\.csv: column 'rating', row 3: 'bad'"):
        load_dataset(write_log(tmp_path, HEADER + dropped + NO_NUMBER))
    dataset = load_dataset(write_log(tmp_path, HEADER + dropped + NO_PERSON))
    found = {one.rule: one.example for one in dataset.findings}
    assert found["missing user_id"] == "row 3"
    assert found["header again"] == "log.csv, row 1"
    assert "missing user_id (rows 3)" in str(dataset.log.report)


def test_a_value_over_two_lines_is_in_one_row(tmp_path: Path) -> None:
    text = HEADER + 'ana,"x\ny",2024-01-01,5,A\n' + "bo,x\n\n" + NO_NUMBER
    with pytest.raises(DataError, match=r"column 'rating', row 2: 'bad'"):
        load_dataset(write_log(tmp_path, text))


def test_a_row_of_a_part_is_named_with_the_part(tmp_path: Path) -> None:
    files = {"events/part-0.csv": HEADER + 5 * GOOD, "events/part-1.csv": HEADER + GOOD + NO_NUMBER}
    with pytest.raises(DataError, match=r"events: column 'rating', row 1 of part-1\.csv: 'bad'"):
        load_dataset(write_files(tmp_path, files))
    files = {"events/part-1.csv": HEADER + GOOD + NO_PERSON}
    report = load_dataset(write_files(tmp_path, files)).log.report
    assert report.findings[-2].example == "row 1 of part-1.csv"
    assert "missing user_id (rows 1 of part-1.csv)" in str(report)


def test_what_a_later_cutoff_drops_is_told_by_rows_of_the_file_too(tmp_path: Path) -> None:
    text = HEADER + GOOD + HEADER + GOOD.replace("2024-01-01", "2024-03-01")
    dataset = load_dataset(write_log(tmp_path, text))
    known = dataset.known_before(dataset.log.timestamp[1])
    assert known.log.report.findings[-1].example == "row 2"


def test_rows_of_a_frame_are_its_own(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"user_id": ["a", None], "item_id": "x", "timestamp": "2024-01-01", "categories": "A"},
        index=[7, 8],
    )
    assert read_table(frame).log.report.findings[-1].example == "row 1"


def test_values_in_quotes_are_left_as_they_are() -> None:
    message = "column 'row 1', row 2: \"it's row 1\" is no id (rows 0, 2), and row 9 is none"
    assert tell_rows(message, PARTS) == (
        "column 'row 1', row 2 of b.csv: \"it's row 1\" is no id (rows 0 of a.csv, 2 of b.csv), "
        "and row 9 is none"
    )
    assert tell_first_row("row 1: row 2 is it", PARTS) == "row 0 of b.csv: row 2 is it"
    assert tell_first_row("a row 1", PARTS) == "a row 1"
