"""A person's rows are taken out of the files of a log; all others stay byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmrec import DataError
from llmrec.data.row_removal import RemovedRows, find_event_files, write_without_person
from tests.test_engine import frame

TABLE = "user_id,item_id,timestamp,title\n"


def remove(source: Path, user: object = "anna", **columns: str) -> tuple[Path, list[RemovedRows]]:
    draft = source.parent / ".draft" / source.name
    return draft, write_without_person(source, draft, find_event_files(source, columns), user)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("log.csv", TABLE + "anna,i1,1,A\nben,i1,2,A\nanna,i2,3,\n", TABLE + "ben,i1,2,A\n"),
        ("log.csv", TABLE + "ben,i1,2,A\r\n\r\nanna,i2,3,B", TABLE + "ben,i1,2,A\r\n\r\n"),
        (
            "log.csv",
            TABLE + 'ben,i1,2,"A, of\nanna"\n"anna",i2,3,"B\nC"\nben,i2,4,anna\n',
            TABLE + 'ben,i1,2,"A, of\nanna"\nben,i2,4,anna\n',
        ),
        (
            "log.csv",
            "sep=;\nitem_id;user_id;timestamp\ni1;anna;1\ni1;ben;2\n",
            "sep=;\nitem_id;user_id;timestamp\ni1;ben;2\n",
        ),
        (
            "log.tsv",
            "\ufeffitem_id\tuser_id\ttimestamp\ni1\tanna\t1\ni\u00fc\tben\t2\n",
            "\ufeffitem_id\tuser_id\ttimestamp\ni\u00fc\tben\t2\n",
        ),
        (  # a line that is too short to be read is hers, too
            "log.csv",
            TABLE + "anna,i1,1,A\nben,i1,2,A\nanna,i2\nben,i2,3,B\n",
            TABLE + "ben,i1,2,A\nben,i2,3,B\n",
        ),
        (
            "log.csv",
            "user_id, item_id, timestamp\nanna, i1, 1\nben, i1, 2\n",
            "user_id, item_id, timestamp\nben, i1, 2\n",
        ),
    ],
)
def test_text_keeps_every_other_byte(tmp_path: Path, name: str, before: str, after: str) -> None:
    path = tmp_path / name
    path.write_bytes(before.encode())
    draft, removed = remove(path)
    assert draft.read_bytes().decode() == after
    assert path.read_bytes() == before.encode()
    assert len(removed) == 1


def test_letters_of_another_encoding_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes((TABLE + "j\u00f6rg,i1,1,Caf\u00e9\nben,i1,2,Caf\u00e9\n").encode("cp1252"))
    draft, removed = remove(path, "j\u00f6rg")
    assert draft.read_bytes() == (TABLE + "ben,i1,2,Caf\u00e9\n").encode("cp1252")
    assert [(one.n_before, one.n_after) for one in removed] == [(2, 1)]


def test_ids_are_compared_as_a_log_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("who,item_id,timestamp\n7.0,i1,1\n77,i1,2\n7,i2,2\n")
    draft, _ = remove(path, 7, user_id="who")
    assert draft.read_text() == "who,item_id,timestamp\n77,i1,2\n"


def test_objects_are_taken_out_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"user_id": user, "item_id": "i1", "timestamp": 3} for user in ("ben", "anna", "ben")]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    draft, removed = remove(path)
    assert draft.read_text().splitlines() == [json.dumps(rows[0])] * 2
    assert (removed[0].n_before, removed[0].n_after) == (3, 2)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"log.jsonl: .*do not stand one a line"):
        remove(path)


def test_parquet_keeps_no_dictionary_entry_of_the_person(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log = frame(n_users=5).assign(user_id=lambda rows: rows["user_id"].astype("category"))
    log.to_parquet(path, compression="none")
    draft, removed = remove(path, "u003")
    assert b"u003" in path.read_bytes()
    assert b"u003" not in draft.read_bytes()
    expected = log[log["user_id"] != "u003"]
    found = pq.read_table(draft)
    assert found["timestamp"].equals(pa.chunked_array([expected["timestamp"]]).cast(
        found.schema.field("timestamp").type))  # fmt: skip
    assert found["user_id"].to_pylist() == expected["user_id"].tolist()
    assert removed[0].n_before - removed[0].n_after == len(log) - len(expected)


def test_of_a_folder_only_files_with_the_person_are_written_and_the_others_linked(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "shop"
    (folder / "events").mkdir(parents=True)
    log = frame(n_users=5)
    halves = log[log["user_id"] < "u002"], log[log["user_id"] >= "u002"]
    for number, half in enumerate(halves):
        half.to_csv(folder / "events" / f"part-{number}.csv", index=False)
    (folder / "note.md").write_text("hello")
    draft, removed = remove(folder, "u003")
    assert [one.path for one in removed] == [folder / "events" / "part-1.csv"]
    assert (draft / "note.md").read_text() == "hello"
    assert (draft / "events" / "part-0.csv").samefile(folder / "events" / "part-0.csv")
    assert "u003" not in (draft / "events" / "part-1.csv").read_text()


def test_movielens_and_recbole_are_plain_enough(tmp_path: Path) -> None:
    for folder, name, before, after, item in (
        ("a", "u.data", "1\ti\t3\t9\n11\ti\t3\t8\n", "11\ti\t3\t8\n", "u.item"),
        ("b", "ratings.dat", "1::i::3::9\n2::i::3::9\n", "2::i::3::9\n", "movies.dat"),
        ("c", "x.inter", "user_id:token\titem_id:token\n1\ti\n2\ti\n",
         "user_id:token\titem_id:token\n2\ti\n", "x.item"),
    ):  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(before)
        (tmp_path / folder / item).write_text("")
        draft, _ = remove(tmp_path / folder, 1)
        assert (draft / name).read_text() == after


def test_what_cannot_be_written_safely_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes((TABLE + "anna,i1,1,A\nben,i1,2,A\n").encode("utf-16"))
    with pytest.raises(DataError, match=r"log.csv: it is in utf-16.*save it so"):
        remove(path)
    (tmp_path / "MIND").mkdir()
    for name in ("behaviors.tsv", "news.tsv"):
        (tmp_path / "MIND" / name).write_text("")
    with pytest.raises(DataError, match=r"is of the layout of mind, .*and run the same command"):
        remove(tmp_path / "MIND")


def test_random_logs_without_a_person_are_read_as_the_rows_of_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(30):
        n = int(rng.integers(2, 40))
        signs = np.array(["a", "b,", 'c"', "d\ne", "f;", " g", "\u00fc", ""])
        log = pd.DataFrame(
            {
                "title": ["".join(rng.choice(signs, 3)) for _ in range(n)],
                "user_id": rng.choice(["anna", "ben", 'c"d', "e,f"], n),
                "item_id": "i1",
                "timestamp": np.arange(n),
            }
        )
        log.loc[0, "user_id"], log.loc[1, "user_id"] = "anna", "ben"
        path = tmp_path / f"log{number}.csv"
        log.to_csv(path, index=False, lineterminator=str(rng.choice(["\n", "\r\n"])))
        draft, (removed,) = remove(path)
        expected = log[log["user_id"] != "anna"].to_csv(index=False)
        found = draft.read_bytes().decode()
        assert pd.read_csv(draft).equals(pd.read_csv(path)[lambda rows: rows["user_id"] != "anna"]
                                         .reset_index(drop=True))  # fmt: skip
        assert removed.n_after == (log["user_id"] != "anna").sum()
        assert "anna" not in found or "anna" in expected
