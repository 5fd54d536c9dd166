"""Forecasts and lists of everybody: `run_batch` on disk, `transform` for a frame of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrec.lazy import lazy_attributes

if TYPE_CHECKING:
    from llmrec.batch.cost import BatchCost as BatchCost
    from llmrec.batch.cost import measure_cost as measure_cost
    from llmrec.batch.frames import transform as transform
    from llmrec.batch.job import BatchSummary as BatchSummary
    from llmrec.batch.job import run_batch as run_batch
    from llmrec.batch.people import BatchOptions as BatchOptions

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "llmrec.batch.cost": ["BatchCost", "measure_cost"],
        "llmrec.batch.frames": ["transform"],
        "llmrec.batch.job": ["BatchSummary", "run_batch"],
        "llmrec.batch.people": ["BatchOptions"],
    },
)
