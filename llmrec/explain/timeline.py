"""A history as shares by period: what every picture of it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llmrec.contracts import FloatArray, IntArray
from llmrec.data.catalog import clean_text
from llmrec.data.periods import History, PeriodLength, TimeArray
from llmrec.explain.evidence import day, day_of, horizon

MOST_POINTS = 24  # more periods than this are merged, from the newest back
USER_ID_LENGTH = 26


@dataclass(frozen=True, eq=False)
class Timeline:
    """Shares by (merged) period, from the first non-empty one on.

    ``length`` is that of a merged period; ``starts`` is (n,); ``shares`` and ``smooth`` (each
    period pooled with the two beside it) are (n, n_categories), with NaN where there is no event.
    """

    length: PeriodLength
    starts: TimeArray
    shares: FloatArray
    smooth: FloatArray

    @classmethod
    def of(cls, history: History) -> Timeline:
        """Merge periods, newest first, until there are few enough to see."""
        counts = history.category_counts
        filled = np.flatnonzero(counts.any(axis=1))
        first = int(filled[0]) if len(filled) else len(counts)
        step = -(-(len(counts) - first) // MOST_POINTS) or 1
        begins = np.arange(len(counts) - step, first - step, -step)[::-1].clip(min=first)
        if not len(begins):
            return cls(history.length, history.bounds[:0], counts[:0], counts[:0])
        merged = np.add.reduceat(counts, begins, axis=0)
        pooled = merged.copy()
        pooled[1:] += merged[:-1]
        pooled[:-1] += merged[1:]
        length = replace(history.length, n=history.length.n * step)
        return cls(length, history.bounds[begins], _shares(merged), _shares(pooled))


def leading_categories(past: FloatArray, ahead: FloatArray, top: int) -> IntArray:
    """Give the categories that are or will be largest, by forecast."""
    largest = np.argsort(-np.maximum(past, ahead), kind="stable")[:top]
    return largest[np.argsort(-ahead[largest], kind="stable")]


def heading(history: History) -> str:
    """Say whose picture it is, and of what; plain text."""
    user_id = clean_text(history.user_id, USER_ID_LENGTH)
    return (
        f"User {user_id} · {history.n_events:,} events before {day(day_of(history.cutoff))} · "
        f"forecast of the next {horizon(history.length)}"
    )


def _shares(counts: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(counts / counts.sum(axis=1, keepdims=True), dtype=np.float64)
