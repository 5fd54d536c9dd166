"""Lists for a frame of events: for Spark's `applyInPandas`, or any other pool of workers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from llmrec.batch.events import sort_out
from llmrec.batch.people import BatchOptions, make_tables
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID, require_columns
from llmrec.engine import InterestEngine


def transform(
    frame: pd.DataFrame, engine: Path | str, options: BatchOptions | None = None
) -> pd.DataFrame:
    """Recommend to everybody in a frame: a row a person and rank, as `run_batch` writes them.

    A process loads an engine once. With Spark, people are to be whole in a group::

        events.groupBy(crc32("user_id") % 1000).applyInPandas(
            lambda frame: transform(frame, "/shared/engine"), schema=SPARK_SCHEMA
        )

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

    Raises
    ------
    DataError
        If a column is missing or cannot be read.
    """
    options = options or BatchOptions()
    require_columns(frame, {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)})
    loaded = _load(str(engine), options)
    piece = sort_out(frame, loaded.dataset.catalog, loaded.dataset.log.day_first)
    with threadpool_limits(1, "blas"):
        made = make_tables(loaded, piece.events, options)
    found: pd.DataFrame = made.recommendations.to_pandas()
    return found


SPARK_SCHEMA = "user_id string, rank int, item_id string, title string, score double, reason string"


@lru_cache(maxsize=2)
def _load(engine: str, options: BatchOptions) -> Any:
    return InterestEngine.from_pretrained(
        engine, cutoff=options.cutoff, model=options.model, describe=False
    )
