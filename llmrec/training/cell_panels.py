"""Features and targets of many people of a log, on disk, for the training of cell nets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.calendar import PeriodLength, period_boundaries
from llmrec.data.counts import row_shares, target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.forecasters.cell_features import CellFeatures
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.pretrained_forecaster import FittedCounts
from llmrec.types import FloatArray

MIN_PEOPLE, MIN_TARGET_EVENTS = 12, 3
MAX_SHORT_PERIODS = 4  # that a shortened history is left with
DONE_FILE = "panels.json"


@dataclass(frozen=True, eq=False)
class Panel:
    """People at one time: what is known of their cells, and what they took next.

    Attributes
    ----------
    path
        Where it is; its arrays are read when they are used.
    """

    path: Path

    @cached_property
    def features(self) -> CellFeatures:
        """The features; those of cells stay on disk, in half precision."""
        cells = np.load(self.path.with_suffix(".npy"), mmap_mode="r")
        return CellFeatures(cells=cells, **{n: a for n, a in self._others.items() if n != "shares"})

    @property
    def shares(self) -> FloatArray:
        """(n_people, n_categories) what they took next, as shares."""
        shares: FloatArray = self._others["shares"]
        return shares

    @cached_property
    def _others(self) -> dict[str, Any]:
        with np.load(self.path.with_suffix(".npz")) as stored:
            return dict(stored)

    def save(self, features: CellFeatures, shares: FloatArray) -> None:
        """Write features and target shares."""
        cells, others = io.BytesIO(), io.BytesIO()
        np.save(cells, features.cells.astype(np.float16))
        rest = {name: getattr(features, name) for name in features._fields if name != "cells"}
        rest = {n: a if n == "cutoffs" else a.astype(np.float32) for n, a in rest.items()}
        np.savez(others, **rest, shares=shares.astype(np.float32))
        atomic_write_bytes(self.path.with_suffix(".npy"), cells.getvalue())
        atomic_write_bytes(self.path.with_suffix(".npz"), others.getvalue())


def make_panels(
    dataset: Dataset, folder: Path, *, n_panels: int, max_people: int, short: float, seed: int
) -> list[Panel]:
    """Write panels of a log at times spread over it; those that are there already are read.

    At each time counting and lifts are fitted on what came before, as a forecaster would.

    Parameters
    ----------
    n_panels, max_people
        How many panels, and people in each, at most.
    short
        Share of the people whose histories are cut to a few periods.
    """
    done = folder / DONE_FILE
    if done.exists():
        n = json.loads(done.read_text(encoding="utf-8"))["panels"]
        return [Panel(folder / f"{number:02d}") for number in range(n)]
    rng, panels = np.random.default_rng(seed), list[Panel]()
    for past, windows in _times(dataset, n_panels):
        panel = Panel(folder / f"{len(panels):02d}")
        past = sample_windows(past, max_people, seed)
        windows = sample_windows(windows, max_people, seed)
        counts = FittedCounts.fit(past, DecayedDirichlet().fit(past))
        cut = rng.random(len(windows)) < short
        histories = [
            _shorten(
                window.history, int(rng.integers(1, MAX_SHORT_PERIODS + 1)) if is_cut else None
            )
            for window, is_cut in zip(windows, cut, strict=True)
        ]
        panel.save(counts.features(histories), row_shares(target_counts(windows)))
        panels.append(panel)
    atomic_write_text(done, json.dumps({"log": dataset.name, "panels": len(panels)}))
    return panels


def _times(dataset: Dataset, n: int) -> Iterator[tuple[list[Window], list[Window]]]:
    """Give windows to fit on and the windows a period later, at most n times, newest first."""
    log, catalog, period = dataset.log.align_to(dataset.catalog), dataset.catalog, dataset.period
    if PeriodLength.parse(period).unit == "events":
        by_back = [_windows_or_none(dataset, back) for back in range(n + 1)]
        pairs = [(past, windows) for windows, past in pairwise(by_back)]
    else:
        grid = period_boundaries(log, period)
        positions = np.unique(np.linspace(2, max(2, len(grid) - 2), n).round().astype(int))
        pairs = []
        for position in positions[::-1].tolist():
            if position < len(grid) - 1:
                before, after = (
                    make_windows(log, catalog, period, cutoff, min_target_events=MIN_TARGET_EVENTS)
                    for cutoff in grid[position - 1 : position + 1]
                )
                pairs.append((before, after))
    for past, windows in pairs:
        if len(past) >= MIN_PEOPLE and len(windows) >= MIN_PEOPLE:
            yield past, windows


def _windows_or_none(dataset: Dataset, back: int) -> list[Window]:
    """Give windows of a period of events so many back; none where the log is too short."""
    try:
        return make_windows(dataset.log, dataset.catalog, dataset.period, back=back)
    except DataError:
        return []


def _shorten(history: History, n_periods: int | None) -> History:
    """Give a history of its last periods alone, from so many before its newest event on."""
    if n_periods is None:
        return history
    active = np.flatnonzero(np.diff(history.offsets))
    first = max(0, int(active[-1]) + 1 - n_periods) if len(active) else 0
    return replace(history, offsets=history.offsets[first:], bounds=history.bounds[first:])
