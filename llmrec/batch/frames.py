"""Lists for a frame of events: for Spark's `applyInPandas`, or any other pool of workers."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from llmrec.batch.events import split_rows
from llmrec.batch.people import (
    NO_EVENT,
    RECOMMENDATION_SCHEMA,
    BatchOptions,
    load_engine,
    make_tables,
)
from llmrec.data.files import file_hash
from llmrec.data.text_times import date_order
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID, require_columns
from llmrec.engine import InterestEngine
from llmrec.engine_settings import SETTINGS_FILE

# The columns as Spark names their types.
SPARK_SCHEMA = ", ".join(
    f"{one.name} {'int' if one.type == 'int32' else one.type}" for one in RECOMMENDATION_SCHEMA
)


def transform(
    frame: pd.DataFrame, engine: Path | str, options: BatchOptions | None = None
) -> pd.DataFrame:
    """Recommend to everybody in a frame: a row a person and rank, as `run_batch` writes them.

    A process loads an engine once. The people of a frame are to be whole: docs/batch.md shows how
    Spark groups them.

    Parameters
    ----------
    frame
        (n_events, ...) with columns user_id, item_id and timestamp; others are left alone.
    engine
        Folder of a saved engine.
    options
        As of `run_batch`. The cutoff is the engine's own if none is given: newer events are left
        out, since a part of the log does not know when all of it ends.

    Returns
    -------
    DataFrame
        user_id, rank, item_id, title, score, reason; no row for those of whom no event can be used.

    Warns
    -----
    UserWarning
        If it fails for somebody; it names them and why.

    Raises
    ------
    DataError
        If a column is missing or cannot be read, or it fails for everybody.
    """
    options = options or BatchOptions()
    require_columns(frame, {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)})
    settings = Path(engine) / SETTINGS_FILE
    loaded = _load(str(engine), file_hash(settings) if settings.exists() else "", options)
    dates = None
    if not pd.api.types.is_numeric_dtype(frame[TIMESTAMP].dtype):
        dates = date_order(loaded.dataset.log.day_first)
    piece = split_rows(frame, loaded.dataset.catalog, dates=dates)
    with threadpool_limits(1, "blas"):
        made = make_tables(loaded, piece.events, options)
    for row in made.rejected.to_pylist():
        if row["reason"] != NO_EVENT:
            warnings.warn(f"no list for {row[USER_ID]!r}: {row['reason']}", stacklevel=2)
    found: pd.DataFrame = made.recommendations.to_pandas()
    return found


@lru_cache(maxsize=2)
def _load(engine: str, content: str, options: BatchOptions) -> InterestEngine:
    """Load an engine once a process; another ``content`` is another engine in the same folder."""
    return load_engine(engine, options)
