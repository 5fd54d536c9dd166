"""One random log, written in many file formats and read from each: the same log every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.dataset import Dataset
from llmrec.data.ids import MISSING_WORDS
from llmrec.data.readers import load_dataset
from llmrec.data.report import Finding
from tests.data.log_files import NOON, write_files


@dataclass(frozen=True)
class PlainLog:
    """Events (user_id, item_id, seconds, rating) and items (item_id, title, categories)."""

    events: pd.DataFrame
    items: pd.DataFrame

    @property
    def rows(self) -> pd.DataFrame:
        """Events with what is known of their items, times in words, categories in one cell."""
        return self.events.merge(self._with_cells(), on="item_id").assign(timestamp=self.words)

    @property
    def words(self) -> pd.Series[str]:
        """Times of the events as people write them."""
        return pd.to_datetime(self.events["seconds"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S")

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Events with times in seconds, and items with categories in one cell."""
        return self.events.rename(columns={"seconds": "timestamp"}), self._with_cells()

    def _with_cells(self) -> pd.DataFrame:
        return self.items.assign(categories=self.items["categories"].map("|".join))


def write_csv(folder: Path, log: PlainLog) -> Path:
    log.rows.to_csv(folder / "log.csv", index=False)
    return folder / "log.csv"


def write_tsv(folder: Path, log: PlainLog) -> Path:
    log.rows.to_csv(folder / "log.tsv", index=False, sep="\t")
    return folder / "log.tsv"


def write_bars(folder: Path, log: PlainLog) -> Path:
    log.rows.to_csv(folder / "log.txt", index=False, sep="|", lineterminator="\r\n")
    return folder / "log.txt"


def write_semicolons(folder: Path, log: PlainLog) -> Path:
    log.rows.to_csv(folder / "log.csv", index=False, sep=";", decimal=",")
    return folder / "log.csv"


def write_utf_16(folder: Path, log: PlainLog) -> Path:
    log.rows.to_csv(folder / "log.csv", index=False, encoding="utf-16")
    return folder / "log.csv"


def write_gzipped_csv(folder: Path, log: PlainLog) -> Path:
    rows = log.rows.assign(timestamp=log.events["seconds"])
    rows.to_csv(folder / "log.csv.gz", index=False)
    return folder / "log.csv.gz"


def write_parquet(folder: Path, log: PlainLog) -> Path:
    rows = log.events.merge(log.items, on="item_id")
    rows["timestamp"] = pd.to_datetime(rows["seconds"], unit="s")
    rows.to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def write_json_lines(folder: Path, log: PlainLog) -> Path:
    rows = log.events.merge(log.items, on="item_id").assign(timestamp=log.events["seconds"] * 1000)
    rows.to_json(folder / "log.jsonl", orient="records", lines=True, force_ascii=False)
    return folder / "log.jsonl"


def write_gzipped_json_lines(folder: Path, log: PlainLog) -> Path:
    log.rows.to_json(folder / "log.jsonl.gz", orient="records", lines=True)
    return folder / "log.jsonl.gz"


def write_json_list(folder: Path, log: PlainLog) -> Path:
    log.rows.to_json(folder / "log.json", orient="records", indent=2)
    return folder / "log.json"


def write_movielens_csv(folder: Path, log: PlainLog) -> Path:
    ratings, movies = log.tables()
    names = {"user_id": "userId", "item_id": "movieId", "categories": "genres"}
    ratings.rename(columns=names).to_csv(folder / "ratings.csv", index=False)
    movies.rename(columns=names).to_csv(folder / "movies.csv", index=False)
    return folder


def write_movielens_dat(folder: Path, log: PlainLog) -> Path:
    events, items = log.tables()
    ratings = events[["user_id", "item_id", "rating", "timestamp"]]
    return write_files(
        folder,
        {"ratings.dat": _lines(ratings, "::"), "movies.dat": _lines(items, "::")},
    )


def write_recbole(folder: Path, log: PlainLog) -> Path:
    events, _ = log.tables()
    quoted = [", ".join(map(repr, names)) for names in log.items["categories"]]
    inter = "user_id:token\titem_id:token\ttimestamp:float\trating:float\n"
    item = "item_id:token\ttitle:token_seq\tcategories:token_seq\n"
    return write_files(
        folder,
        {
            "shop.inter": inter + _lines(events, "\t"),
            "shop.item": item + _lines(log.items.assign(categories=quoted), "\t"),
        },
    )


def write_parts(folder: Path, log: PlainLog) -> Path:
    orders, products = log.tables()
    (folder / "orders").mkdir()
    for part in range(3):
        orders.iloc[part::3].to_csv(folder / "orders" / f"part-0000{part}.csv", index=False)
    products.to_csv(folder / "products.csv", index=False)
    return folder


def write_two_parquet_files(folder: Path, log: PlainLog) -> Path:
    log.events.assign(timestamp=log.words).to_parquet(folder / "events.parquet")
    log.items.to_parquet(folder / "items.parquet")
    return folder


def _lines(table: pd.DataFrame, sign: str) -> str:
    """Write values without quotes, each row in one line."""
    rows = table.astype("str").itertuples(index=False)
    return "".join(sign.join(" ".join(value.split()) for value in row) + "\n" for row in rows)


WRITERS: tuple[Callable[[Path, PlainLog], Path], ...] = (
    *(write_csv, write_tsv, write_bars, write_semicolons, write_utf_16, write_gzipped_csv),
    *(write_parquet, write_json_lines, write_gzipped_json_lines, write_json_list),
    *(write_movielens_csv, write_movielens_dat, write_recbole, write_parts),
    write_two_parquet_files,
)
# No colon, which doubled separates .dat files; no point, which would make numbers of ids.
LETTERS = st.characters(categories=["L", "M", "N", "S", "Zs"], exclude_characters="&|:.")
HARD_IDS = (
    "007",
    "07",
    "7",
    "1e5",
    "100000",
    "a b",
    "a,b",
    'a"b',
    "a;b",
    "'a'",
    "NA",
    "2024-01-02",
)


def _is_plain(text: str) -> bool:
    return text == " ".join(text.split()) and text != "" and text not in MISSING_WORDS


IDS = st.sampled_from(HARD_IDS) | st.text(LETTERS, max_size=5).filter(_is_plain)
TITLES = st.sampled_from(('One, "two"', "One\ntwo", '"One', "007", "NA", "12,5")) | st.text(
    LETTERS, max_size=8
).filter(_is_plain)
NAMES = ("Drama", "Home & Kitchen", "Children's", "Hair, Care", "01", "1", "Komödie", "日本")


@st.composite
def logs(draw: st.DrawFn) -> PlainLog:
    """Draw a log without anything to clean."""
    item_ids = draw(st.lists(IDS, min_size=1, max_size=5, unique=True))
    some_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
    items = [(one, draw(TITLES), draw(some_names)) for one in item_ids]
    seconds = st.integers(NOON, NOON + 100 * 86_400)
    ratings = st.integers(1, 10).map(lambda half: half / 2)
    event = st.tuples(IDS, st.sampled_from(item_ids), seconds, ratings)
    events = draw(st.lists(event, min_size=1, max_size=12, unique_by=lambda one: one[:3]))
    taken = {one[1] for one in events}
    return PlainLog(
        pd.DataFrame(events, columns=["user_id", "item_id", "seconds", "rating"]),
        pd.DataFrame(
            [item for item in items if item[0] in taken],
            columns=["item_id", "title", "categories"],
        ),
    )


def contents(dataset: Dataset) -> tuple[object, ...]:
    """Everything that a dataset says of its events and items, in an order of its own."""
    log, catalog = dataset.log, dataset.catalog
    assert log.rating is not None
    items = {
        item_id: (catalog.titles[item], dict(zip(catalog.categories, shares, strict=True)))
        for item, (item_id, shares) in enumerate(
            zip(catalog.item_ids, catalog.category_shares.toarray().tolist(), strict=True)
        )
    }
    events = zip(
        log.user_ids[log.user_idx],
        log.item_ids[log.item_idx],
        log.timestamp.astype("datetime64[s]").astype(np.int64).tolist(),
        log.rating.tolist(),
        strict=True,
    )
    return sorted(events), items


def _changes(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if finding.effect != "read"]


@settings(max_examples=30)
@given(log=logs(), randomness=st.randoms(use_true_random=False))
def test_every_format_gives_the_same_log_in_any_order_of_rows(
    log: PlainLog, randomness: Random
) -> None:
    rows = log.events[["user_id", "item_id", "seconds", "rating"]].itertuples(index=False)
    expected = sorted(tuple(row) for row in rows)
    known: tuple[object, ...] | None = None
    for write in WRITERS:
        order = randomness.sample(range(len(log.events)), len(log.events))
        shuffled = PlainLog(log.events.iloc[order].reset_index(drop=True), log.items)
        with TemporaryDirectory() as folder:
            dataset = load_dataset(write(Path(folder), shuffled))
        assert _changes(dataset.findings) == []
        found = contents(dataset)
        assert found[0] == expected
        known = known or found
        assert found == known
