"""Frames of events as no program should write them, each with a name that says what it is."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars
import pyarrow as pa

from tests.worlds import CATEGORIES, START

N_ROWS = 60
COLUMNS = ("user_id", "item_id", "timestamp", "rating", "title", "categories")
Change = Callable[[pd.DataFrame], Any]

# Single values, each put into a few cells of every column.
VALUES: dict[str, Any] = {
    "None": None,
    "NaN": np.nan,
    "NaT": pd.NaT,
    "NA": pd.NA,
    "datetime64 NaT": np.datetime64("NaT"),
    "infinity": np.inf,
    "minus infinity": -np.inf,
    "empty text": "",
    "blank": " \t",
    "word nan": "nan",
    "bool": True,
    "numpy bool": np.bool_(False),
    "bytes": b"u001",
    "list": [1, 2],
    "empty list": [],
    "nested list": [["Drama"], None],
    "tuple": ("Drama", 3),
    "set": {"Drama"},
    "dict": {"a": 1},
    "array": np.array([1, 2]),
    "series": pd.Series([1, 2]),
    "frame": pd.DataFrame({"a": [1]}),
    "object": object(),
    "type": int,
    "function": len,
    "huge int": 10**30,
    "minus one": -1,
    "zero": 0,
    "int beyond floats": 2**53 + 1,
    "float beyond ints": float(2**60),
    "int64 limit": -(2**63),
    "half a character": "\ud800",
    "null character": "u\x00",
    "invisible": "u\u200b001",
    "right to left": "\u202eu001",
    "spaces between": "u 001",
    "long text": "x" * 100_000,
    "line break": "u\n001",
    "fraction": 1.5,
    "tiny float": 5e-324,
    "complex": 1 + 2j,
    "decimal": Decimal("7.0"),
    "decimal NaN": Decimal("NaN"),
    "signaling NaN": Decimal("sNaN"),
    "decimal infinity": Decimal("Infinity"),
    "uuid": UUID(int=7),
    "date": datetime.date(2020, 1, 2),
    "date year 1": datetime.date(1, 1, 1),
    "datetime": datetime.datetime(2020, 1, 2, 3),
    "datetime year 9999": datetime.datetime(9999, 12, 31),
    "datetime with zone": datetime.datetime(2020, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
    "clock time": datetime.time(3, 4),
    "timestamp": pd.Timestamp("2020-01-02"),
    "timestamp with zone": pd.Timestamp("2020-01-02", tz="Asia/Kolkata"),
    "numpy seconds": np.datetime64("2020-01-02", "s"),
    "numpy year": np.datetime64("2020", "Y"),
    "timedelta": pd.Timedelta("1D"),
    "period": pd.Period("2020-01"),
    "interval": pd.Interval(0, 1),
    "seconds": 1_577_900_000,
    "milliseconds": 1_577_900_000_000,
    "nanoseconds": 1_577_900_000_000_000_000,
    "negative seconds": -1_577_900_000,
    "text of seconds": "1577900000",
    "ISO text": "2020-01-02T03:04:05",
    "ISO text with zone": "2020-01-02T03:04:05+05:30",
    "text with named zone": "2020-01-02 03:04:05 CEST",
    "day that is none": "2020-02-30",
    "hour 24": "2020-01-02 24:00:00",
    "leap second": "2016-12-31 23:59:60",
    "either order": "01/02/2020",
    "before 1970": "1901-01-01",
    "far future": "2999-01-01",
    "beyond every clock": "+99999-01-01",
    "now": "now",
    "decimal comma": "4,5",
    "arabic digits": "٣",
    "separators": "|||",
}

# Other types of a whole column.
TYPES: dict[str, Callable[[pd.Series[Any]], Any]] = {
    "all missing": lambda one: pd.Series([None] * len(one), dtype=object),
    "all NaN": lambda one: pd.Series(np.nan, index=one.index),
    "all NaT": lambda one: pd.Series(pd.NaT, index=one.index),
    "bool": lambda one: pd.Series(np.arange(len(one)) % 2 == 0),
    "nullable bool": lambda one: pd.Series([True, None] * (len(one) // 2), dtype="boolean"),
    "int8": lambda one: pd.Series(np.arange(len(one)) % 5, dtype="int8"),
    "uint64 at its limit": lambda one: pd.Series(2**64 - 1 - np.arange(len(one), dtype="uint64")),
    "nullable int": lambda one: pd.Series([None, *range(1, len(one))], dtype="Int64"),
    "float16": lambda one: pd.Series(np.arange(len(one)) % 7, dtype="float16"),
    "nullable float": lambda one: pd.Series([None, *range(1, len(one))], dtype="Float32"),
    "complex": lambda one: pd.Series(np.arange(len(one)) * 1j),
    "category": lambda one: one.astype(object).astype("category"),
    "category of ints": lambda one: pd.Series(np.arange(len(one)) % 9).astype("category"),
    "category, some missing": lambda one: one.where(one.index % 7 > 0).astype("category"),
    "text": lambda one: one.astype("str"),
    "arrow text": lambda one: one.astype("string[pyarrow]"),
    "arrow large text": lambda one: one.astype(str).astype(pd.ArrowDtype(pa.large_string())),
    "arrow ints": lambda one: pd.Series(range(len(one)), dtype=pd.ArrowDtype(pa.int64())),
    "arrow decimals": lambda one: pd.Series(
        [Decimal(n) for n in range(len(one))], dtype=pd.ArrowDtype(pa.decimal128(10, 2))
    ),
    "arrow binary": lambda one: pd.Series([b"u"] * len(one), dtype=pd.ArrowDtype(pa.binary())),
    "arrow lists": lambda one: pd.Series(
        [["Drama"]] * len(one), dtype=pd.ArrowDtype(pa.list_(pa.string()))
    ),
    "arrow structs": lambda one: pd.Series(
        [{"a": 1}] * len(one), dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))
    ),
    "arrow dates": lambda one: pd.Series(
        [datetime.date(2020, 1, 2)] * len(one), dtype=pd.ArrowDtype(pa.date32())
    ),
    "arrow seconds": lambda one: pd.Series(
        [datetime.datetime(2020, 1, 2)] * len(one), dtype=pd.ArrowDtype(pa.timestamp("s"))
    ),
    "arrow times of a zone": lambda one: pd.Series(
        [datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)] * len(one),
        dtype=pd.ArrowDtype(pa.timestamp("us", "Asia/Tokyo")),
    ),
    "arrow clock times": lambda one: pd.Series(
        [datetime.time(1)] * len(one), dtype=pd.ArrowDtype(pa.time64("us"))
    ),
    "arrow nulls": lambda one: pd.Series([None] * len(one), dtype=pd.ArrowDtype(pa.null())),
    "arrow dictionary": lambda one: pd.Series(
        ["u1", None] * (len(one) // 2),
        dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string())),
    ),
    "sparse": lambda one: pd.Series(
        pd.arrays.SparseArray([0, 1, 2] * (len(one) // 3), fill_value=0)
    ),
    "timedelta": lambda one: pd.Series(pd.to_timedelta(np.arange(len(one)), "D")),
    "periods": lambda one: pd.Series(pd.period_range("2020", periods=len(one), freq="D")),
    "intervals": lambda one: pd.Series(pd.interval_range(0, len(one))),
    "times of a zone": lambda one: pd.Series(
        pd.date_range("2020", periods=len(one), freq="D", tz="America/New_York")
    ),
    "times in seconds": lambda one: pd.Series(
        np.datetime64("2020-01-01", "s") + np.arange(len(one))
    ),
    "times of many zones": lambda one: pd.Series(
        [
            pd.Timestamp("2020-01-02", tz=zone)
            for zone in ("UTC", "Asia/Tokyo", "Europe/Paris") * (len(one) // 3)
        ],
        dtype=object,
    ),
    "with and without a zone": lambda one: pd.Series(
        [pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-02", tz="UTC")] * (len(one) // 2),
        dtype=object,
    ),
    "seconds and milliseconds": lambda one: pd.Series(
        [1_577_900_000, 1_577_900_000_000] * (len(one) // 2)
    ),
    "nanoseconds and microseconds": lambda one: pd.Series(
        [1_577_900_000_000_000_000, 1_577_900_000_000_000] * (len(one) // 2)
    ),
    "negative seconds": lambda one: pd.Series(-np.arange(1, len(one) + 1) * 10**8),
    "seconds and texts": lambda one: pd.Series([1_577_900_000, "2020-01-02"] * (len(one) // 2)),
    "texts in either order": lambda one: pd.Series(["01/02/2020", "03/04/2020"] * (len(one) // 2)),
    "texts in both orders": lambda one: pd.Series(["13/02/2020", "02/13/2020"] * (len(one) // 2)),
    "one value": lambda one: pd.Series([one.iloc[0]] * len(one), dtype=object),
    "numbers and their texts": lambda one: pd.Series([7, "7", 7.0] * (len(one) // 3)),
    "objects": lambda one: pd.Series([object() for _ in one]),
    "arrays": lambda one: pd.Series([np.arange(2) for _ in one]),
    "fields of numpy": lambda one: pd.Series(
        list(np.zeros(len(one), dtype=[("a", int), ("b", float)])), dtype=object
    ),
}

# Other frames, or what is none.
SHAPES: dict[str, Change] = {
    "no row": lambda frame: frame.iloc[:0],
    "no row, no type": lambda frame: pd.DataFrame(columns=list(frame)),
    "no column": lambda frame: frame[[]],
    "no column, no row": lambda frame: pd.DataFrame(),
    "one row": lambda frame: frame.iloc[:1],
    "every row twice": lambda frame: pd.concat([frame, frame]),
    "every row twice, same index": lambda frame: pd.concat([frame, frame.iloc[::-1]]),
    "index of texts": lambda frame: frame.set_axis([f"r{n % 3}" for n in range(len(frame))]),
    "index of levels": lambda frame: frame.set_index("item_id", append=True, drop=False),
    "index is named as a column": lambda frame: frame.rename_axis("user_id"),
    "column in the index": lambda frame: frame.set_index("user_id"),
    "index of NaN": lambda frame: frame.set_axis(np.full(len(frame), np.nan)),
    "levels of columns": lambda frame: frame.set_axis(
        pd.MultiIndex.from_product([["a"], list(frame)]), axis=1
    ),
    "two columns of levels": lambda frame: pd.concat({"user_id": frame, "b": frame}, axis=1),
    "numbers as columns": lambda frame: frame.set_axis(range(frame.shape[1]), axis=1),
    "None as a column": lambda frame: frame.assign(extra=1).rename(columns={"extra": None}),
    "NaN as a column": lambda frame: frame.assign(extra=1).rename(columns={"extra": np.nan}),
    "tuple as a column": lambda frame: frame.assign(extra=1).rename(columns={"extra": ("a", 1)}),
    "columns with spaces": lambda frame: frame.rename(columns=lambda name: f" {name} "),
    "columns in capitals": lambda frame: frame.rename(columns=str.upper),
    "rows and columns turned": lambda frame: frame.T,
    **{
        f"{name} twice": lambda frame, name=name: pd.concat([frame, frame[[name]]], axis=1)
        for name in COLUMNS
    },
    **{f"no {name}": lambda frame, name=name: frame.drop(columns=name) for name in COLUMNS},
    **{
        f"{name} renamed to ours": lambda frame, name=name: frame.rename(columns={"extra": name})
        for name in ("report", "row of the frame", "identity user_id")
    },
    "series": lambda frame: frame["user_id"],
    "dict": lambda frame: frame.to_dict("list"),
    "records": lambda frame: frame.to_dict("records"),
    "records of numpy": lambda frame: frame.drop(columns="categories").to_records(index=False),
    "array": lambda frame: frame.to_numpy(),
    "None": lambda frame: None,
    "number": lambda frame: 7,
    "rows one by one": lambda frame: iter(frame.to_dict("records")),
    "group": lambda frame: frame.groupby("user_id"),
    "arrow table": lambda frame: pa.Table.from_pandas(frame),
    "arrow batch": lambda frame: pa.RecordBatch.from_pandas(frame),
    "arrow table in chunks": lambda frame: pa.concat_tables(
        [pa.Table.from_pandas(frame.iloc[:20]), pa.Table.from_pandas(frame.iloc[20:])]
    ),
    "arrow column twice": lambda frame: (table := pa.Table.from_pandas(frame)).append_column(
        "user_id", table["user_id"]
    ),
    "arrow dictionary": lambda frame: pa.Table.from_pandas(frame).set_column(
        0, "user_id", pa.array(frame["user_id"]).dictionary_encode()
    ),
    "polars": lambda frame: polars.from_pandas(frame),
    "polars, lazy": lambda frame: polars.from_pandas(frame).lazy(),
    "polars series": lambda frame: polars.from_pandas(frame)["user_id"],
    "polars categorical": lambda frame: polars.from_pandas(frame).with_columns(
        polars.col("user_id").cast(polars.Categorical)
    ),
    "polars binary": lambda frame: polars.from_pandas(frame).with_columns(
        polars.col("user_id").cast(polars.Binary)
    ),
    "polars structs": lambda frame: polars.from_pandas(frame).with_columns(
        polars.struct("user_id", "item_id").alias("item_id")
    ),
    "polars objects": lambda frame: polars.from_pandas(frame).with_columns(
        polars.Series("item_id", [object()] * len(frame), dtype=polars.Object)
    ),
    "polars nulls": lambda frame: polars.from_pandas(frame).with_columns(
        polars.lit(None).alias("item_id")
    ),
    "polars durations": lambda frame: polars.from_pandas(frame).with_columns(
        polars.duration(days=1).alias("timestamp")
    ),
    "polars days": lambda frame: polars.from_pandas(frame).with_columns(
        polars.col("timestamp").cast(polars.Date)
    ),
    "polars times of a zone": lambda frame: polars.from_pandas(frame).with_columns(
        polars.col("timestamp").dt.replace_time_zone("Asia/Tokyo")
    ),
    "polars decimals": lambda frame: polars.from_pandas(frame).with_columns(
        polars.lit("7.50").cast(polars.Decimal(10, 2)).alias("user_id")
    ),
}


def good_frame() -> pd.DataFrame:
    """Give events that can be read: of ten people and 25 items, over twelve weeks."""
    rng = np.random.default_rng(0)
    items = rng.integers(25, size=N_ROWS)
    hours = np.sort(rng.integers(24 * 84, size=N_ROWS))
    return pd.DataFrame(
        {
            "user_id": [f"u{n:03d}" for n in rng.integers(10, size=N_ROWS)],
            "item_id": [f"i{item:03d}" for item in items],
            "timestamp": START + hours.astype("timedelta64[h]"),
            "rating": rng.integers(1, 6, size=N_ROWS).astype(float),
            "title": [f"Title {item}" for item in items],
            "categories": [CATEGORIES[item % 5] for item in items],
        }
    )


def _with_value(frame: pd.DataFrame, column: str, value: Any, n: int) -> pd.DataFrame:
    """Put a value into n cells of a column, which are objects then."""
    cells = list(frame[column].astype(object))
    for row in range(3, 3 + 7 * n, 7):
        cells[row] = value
    values = pd.Series(index=range(len(cells)), dtype=object)
    for row, cell in enumerate(cells):
        values.iat[row] = cell
    return frame.assign(**{column: values})


def bad_frames() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give the name of each frame, and what makes it."""
    for name, change in SHAPES.items():
        yield name, lambda change=change: change(good_frame())
    for column in COLUMNS:
        for name, to_type in TYPES.items():
            yield (
                f"{column}: {name}",
                lambda column=column, to_type=to_type: good_frame().assign(
                    **{column: to_type(good_frame()[column])}
                ),
            )
        for name, value in VALUES.items():
            for n in (1, 8):
                yield (
                    f"{column}: {n} times {name}",
                    lambda column=column, value=value, n=n: _with_value(
                        good_frame(), column, value, n
                    ),
                )
