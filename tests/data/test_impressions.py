from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.impressions import Impressions
from llmrec.data.readers import load_dataset
from tests.data.log_files import write_files
from tests.news_log import write_news_log

NEWS = "".join(f"N{n}\t{'AB'[n % 2]}\tsub\tTitle {n}\t\t\t[]\t[]\n" for n in range(6))
DAY = "11/12/2019"


def read(folder: Path, *rows: str) -> Dataset:
    """Read rows of ``behaviors.tsv``: user, hour and minute, history and list, apart by ";"."""
    cells = [row.split(";") for row in rows]
    lines = [
        f"{n}\t{user}\t{DAY} {time}:00 AM\t{history}\t{shown}\n"
        for n, (user, time, history, shown) in enumerate(cells)
    ]
    return load_dataset(write_files(folder, {"news.tsv": NEWS, "behaviors.tsv": "".join(lines)}))


def lists_of(impressions: Impressions | None) -> list[tuple[str, str, str]]:
    """(user, time, list as in the file) of each impression."""
    assert impressions is not None
    found, offsets = [], impressions.offsets
    for place in range(impressions.n_impressions):
        spot = slice(offsets[place], offsets[place + 1])
        shown = zip(
            impressions.item_ids[impressions.item_idx[spot]],
            impressions.is_clicked[spot],
            strict=True,
        )
        time = str(impressions.timestamp[place])[11:16]
        text = " ".join(f"{item}-{int(clicked)}" for item, clicked in shown)
        found.append((impressions.user_ids[place], time, text))
    return found


def told(dataset: Dataset) -> dict[str, tuple[int, str, str]]:
    """What was found of impressions: rule to rows, example and effect."""
    assert dataset.impressions is not None
    return {one.rule: (one.rows, one.example, one.effect) for one in dataset.impressions.findings}


def test_impressions_are_kept_by_time_whatever_was_clicked(tmp_path: Path) -> None:
    rows = (
        "U2;09:30;;N1-1 N0-0",
        "U1;08:00;N4;N3-0 N2-1 N1-1",
        "U1;07:00;N4;N2-0 N1-0",  # no click
        "U3;08:00;;N5-0",  # nobody that the log knows
        "U2;07:30;;N0-1 N5-1",  # nothing but clicks
    )
    dataset = read(tmp_path, *rows)
    assert lists_of(dataset.impressions) == [
        ("U1", "07:00", "N2-0 N1-0"),
        ("U2", "07:30", "N0-1 N5-1"),
        ("U1", "08:00", "N3-0 N2-1 N1-1"),
        ("U3", "08:00", "N5-0"),
        ("U2", "09:30", "N1-1 N0-0"),
    ]
    assert dataset.impressions is not None
    assert dataset.impressions.n_clicked.tolist() == [0, 2, 2, 0, 1]
    assert "U3" not in dataset.log.user_ids
    assert told(dataset) == {
        "2 impressions are without a click: they are kept, and no metric counts them": (
            2,
            "row 2",
            "read",
        )
    }


def test_what_cannot_be_read_of_an_impression_is_left_out_and_told(tmp_path: Path) -> None:
    dataset = read(
        tmp_path,
        "U1;08:00;N4;N1-1 N77-0 N2-0",
        "U1;08:10;N4;N1-1 N2-0 N1-0 N1-0",
        "U1;08:20;N4;N1-1 N2 N3-2 N0-0",
        "U1;08:30;N4;N77-1",
        ";08:40;N4;N1-1 N2-0",
        "U1;99:40;N4;N1-1 N2-0",
        "U1;08:50;N4;",
        *(f"U2;09:{n + 10};;N1-1 N2-0" for n in range(20)),  # broken times are few
    )
    assert lists_of(dataset.impressions)[:3] == [
        ("U1", "08:00", "N1-1 N2-0"),
        ("U1", "08:10", "N1-1 N2-0"),
        ("U1", "08:20", "N1-1 N0-0"),
    ]
    assert len(lists_of(dataset.impressions)) == 23
    assert told(dataset) == {
        "impression without a user_id": (1, "row 4", "dropped"),
        "impression without a time": (1, "row 5", "dropped"),
        "impression that shows no item of the catalog with -1 or -0 at its end": (
            *(2, "row 3", "dropped"),
        ),
        "impression without those of its items that the catalog does not have": (
            *(1, "row 0", "changed"),
        ),
        "impression without those of its items that do not end in -1 or -0": (
            *(1, "row 2", "changed"),
        ),
        "impression that shows an item twice: it counts once, as clicked if it ever was": (
            *(1, "row 1", "changed"),
        ),
    }
    assert set(dataset.impressions.findings) <= set(dataset.findings)  # type: ignore[union-attr]


def test_a_test_part_without_answers_has_no_impressions_and_says_why(tmp_path: Path) -> None:
    dataset = read(tmp_path, "U1;08:00;N4 N3;N1 N2", "U2;08:00;N3;N2 N1")
    assert lists_of(dataset.impressions) == []
    rule = "impression that shows no item of the catalog with -1 or -0 at its end"
    assert told(dataset) == {rule: (2, "row 0", "dropped")}


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    folder = write_news_log(tmp_path / "log")
    found = load_dataset(folder).impressions
    rows = (folder / "behaviors.tsv").read_text().splitlines(keepends=True)
    write_files(folder, {"behaviors.tsv": "".join(rows[::-1])})
    assert lists_of(load_dataset(folder).impressions) == lists_of(found)


@pytest.mark.parametrize("hour", [0, 13, 99])
def test_impressions_before_and_since_a_cutoff_are_all_of_them(tmp_path: Path, hour: int) -> None:
    dataset = load_dataset(write_news_log(tmp_path))
    cutoff = np.datetime64("2019-11-11T00:00:00", "ms") + np.timedelta64(hour, "h")
    shown = dataset.impressions
    assert shown is not None
    before, since = shown.before(cutoff), shown.since(cutoff)
    assert (before.timestamp < cutoff).all()
    assert (since.timestamp >= cutoff).all()
    assert lists_of(before) + lists_of(since) == lists_of(shown)
    if hour == 13:
        known = dataset.known_before(cutoff)
        assert lists_of(known.impressions) == lists_of(before)
        assert known.log.timestamp.max() < cutoff


def test_with_another_catalog_the_lists_hold_its_items_alone(tmp_path: Path) -> None:
    dataset = read(tmp_path, "U1;08:00;N4;N1-1 N2-0 N4-0", "U2;08:30;;N1-1", "U2;08:40;;N0-1")
    fewer = dataset.without_categories(["B"])
    assert lists_of(fewer.impressions) == [
        ("U1", "08:00", "N2-0 N4-0"),
        ("U2", "08:40", "N0-1"),
    ]
    assert fewer.impressions is not None
    assert fewer.impressions.item_ids.equals(fewer.catalog.item_ids)
    assert fewer.impressions.findings[-1].rows == 2
    assert isinstance(fewer.impressions.user_ids, pd.Index)


def test_a_joined_log_has_no_impressions_and_its_parts_tell_nothing_of_later(
    tmp_path: Path,
) -> None:
    dataset = load_dataset(write_news_log(tmp_path))
    joined = Dataset.join({"news": dataset, "video": dataset})
    assert joined.impressions is None
    assert [part.impressions for part in joined.parts.values()] == [None, None]
