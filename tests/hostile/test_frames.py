"""Bad frames and files of events: every row is an event or counted as none, or a named error."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from tests.batch import conftest as batch_worlds
from tests.hostile.bad_frames import bad_frames, good_frame
from tests.hostile.conftest import Count

EVERY, FILES_EVERY = 40, 200  # of the fast suite: that many cases have one that is tried
# What broke once is always tried.
ONCE_BROKEN = {
    *("rating twice", "title twice", "number", "polars, lazy", "title: arrow lists"),
    *("rating: fields of numpy", "rating: 1 times half a character", "categories: sparse"),
    *(f"{column}: 1 times signaling NaN" for column in ("user_id", "timestamp", "rating", "title")),
}
# What an error must name: a column, a row, or what the whole frame is.
NAMED = re.compile(
    r"\bcolumns?\b|\brows?\b|\bline \d+|expected a pandas or polars frame|events of \d+ users"
    r"|user ['\"].*['\"] is (?:in the log|not known)",
    re.DOTALL,
)
DOORS: dict[str, Callable[[InterestEngine, Any], tuple[int, int]]] = {}


def door(check: Callable[[InterestEngine, Any], tuple[int, int]]) -> Any:
    """Register a way in; it gives the rows that came in, and those that are told of."""
    DOORS[check.__name__] = check
    return check


@door
def from_frame(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    log = Interactions.from_frame(frame)
    assert log.report.rows_kept == len(log)
    return len(frame), len(log) + sum(log.report.dropped.values())


@door
def table(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    data = read_table(frame)
    aligned = data.log.align_to(data.catalog)
    assert aligned.report.rows_read == data.log.report.rows_read
    return len(frame), len(aligned) + sum(aligned.report.dropped.values())


@door
def items(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    found = Catalog.from_frame(frame)
    given = found.report.rows_kept
    assert found.n_items <= given
    return len(frame), given + sum(found.report.dropped.values())


@door
def append(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    report = InterestEngine(engine._parts).append(frame)
    rows = [row for rows in report.left_out.values() for row in rows]
    assert len(set(rows)) == len(rows)
    return len(frame), report.n_accepted + len(rows)


@door
def append_items(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    changed = InterestEngine(engine._parts)
    changed.append(good_frame().iloc[:0], items=frame)
    return 0, 0


@door
def session(engine: InterestEngine, frame: Any) -> tuple[int, int]:
    own = frame.get("user_id") if isinstance(frame, pd.DataFrame) else None
    if isinstance(own, pd.Series) and own.equals(good_frame()["user_id"]):
        frame = frame.drop(columns="user_id")  # all of one person
    log = engine.session(frame).history.log
    return len(frame), len(log) + sum(log.report.dropped.values())


@pytest.fixture(scope="module")
def engine() -> InterestEngine:
    events = batch_worlds.labelled(batch_worlds.make_events())
    data = read_table(events, name="small", period="14D")
    return InterestEngine.from_pretrained(data=data, model=None, refit=True)


def find_fault(check: Callable[[], tuple[int, int]]) -> tuple[str, str]:
    """Give what became of a frame, and what is wrong with that; "" if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            n_rows, n_told = check()
    except DataError as error:
        return "refused", "" if NAMED.search(str(error)) else f"names nothing: {error}"
    except Exception as error:  # none of ours
        return "broke", f"{type(error).__name__}: {error}"
    return "read", "" if n_rows == n_told else f"{n_rows} rows, {n_told} told of"


@pytest.mark.parametrize(
    "every", [pytest.param(EVERY, id="some"), pytest.param(1, id="all", marks=pytest.mark.hostile)]
)
@pytest.mark.parametrize("way", DOORS)
def test_no_row_of_a_frame_is_lost_in_silence_and_every_error_is_named(
    way: str, every: int, engine: InterestEngine, count: Count
) -> None:
    found, became = [], Counter[str]()
    for number, (name, make) in enumerate(bad_frames()):
        if (number + len(way)) % every and name not in ONCE_BROKEN:
            continue
        frame = make()
        what, fault = find_fault(lambda frame=frame: DOORS[way](engine, frame))
        became[what] += 1
        found += [f"{number} {name}: {fault}"] if fault else []
    count(f"bad frames, {way}", became.total(), len(found))
    assert not found
    assert min(became["read"], became["refused"]) > 0


def written(frame: pd.DataFrame, path: Path) -> Any:
    """Write a frame to a file, if anything can; None if not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if path.suffix == ".parquet":
                frame.to_parquet(path)
            elif path.suffix == ".jsonl":
                frame.to_json(path, orient="records", lines=True)
            else:
                frame.to_csv(path, index=False)
        except Exception:  # of whatever writes it: there is no file then
            return None
    return path


@pytest.mark.parametrize(
    "every",
    [pytest.param(FILES_EVERY, id="some"), pytest.param(3, id="all", marks=pytest.mark.hostile)],
)
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_no_row_of_a_file_is_lost_in_silence_and_every_error_is_named(
    ending: str, every: int, tmp_path: Path, count: Count
) -> None:
    found, n_tried = [], 0
    for number, (name, make) in enumerate(bad_frames()):
        if number % every or not isinstance(frame := make(), pd.DataFrame):
            continue
        path = written(frame, tmp_path / f"{number}.{ending}")
        if path is None:
            continue

        def check(path: Path = path, frame: pd.DataFrame = frame) -> tuple[int, int]:
            data = read_table(path)
            return len(frame), len(data.log) + sum(data.log.report.dropped.values())

        n_tried += 1
        _, fault = find_fault(check)
        found += [f"{number} {name}: {fault}"] if fault else []
    count(f"bad files, {ending}", n_tried, len(found))
    assert not found
