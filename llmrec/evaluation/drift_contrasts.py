"""The courses that an interest may take over a person's sittings, each a contrast of weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmrec.types import BoolArray, FloatArray

MIN_CYCLES = 1.5  # that a history spans, of a season that can be told from a return
EDGE = 0.12  # share of the sittings that lie on either side of a change at least
RAMP_WIDTHS = (0.5, 0.75, 1.0)  # of the time from first to last sitting
N_STARTS = 7  # of ramps and of absences
ABSENCE_WIDTHS = (0.2, 0.3, 0.4, 0.55)
N_PHASES = 8  # of half a cycle


def sudden_contrasts(n: int) -> FloatArray:
    """(n_contrasts, n) steps: 0 before a change and 1 from it on, then centred and scaled."""
    edge = max(2, round(EDGE * n))
    return _unit(np.arange(n) >= np.arange(edge, n - edge + 1)[:, None])


def gradual_contrasts(time: FloatArray) -> FloatArray:
    """(n_contrasts, n) straight ways from 0 to 1 between two times.

    Parameters
    ----------
    time
        (n,) times of sittings, from 0 at the first to 1 at the last.
    """
    ramps = [
        np.clip((time - start) / width, 0, 1)
        for width in RAMP_WIDTHS
        for start in np.unique(np.linspace(0, 1 - width, N_STARTS))
    ]
    return _unit(np.stack(ramps))


def seasonal_contrasts(cycles: FloatArray) -> FloatArray:
    """(n_contrasts, n) waves of each phase, smooth and square; none if there are too few cycles.

    Parameters
    ----------
    cycles
        (n,) times of sittings in cycles since the first.
    """
    if cycles[-1] < MIN_CYCLES:
        return np.empty((0, len(cycles)))
    phases = np.arange(N_PHASES)[:, None] / (2 * N_PHASES)
    smooth = np.cos(2 * np.pi * (cycles - phases))
    return _unit(np.concatenate((smooth, smooth >= 0)))


def returning_contrasts(time: FloatArray) -> FloatArray:
    """(n_contrasts, n) 1 within a stretch of time, 0 before and after it; times as for ramps."""
    return _unit(np.stack(list(_stretches(time))))


def _stretches(time: FloatArray) -> Iterator[BoolArray]:
    edge = max(2, round(EDGE * len(time)))
    for width in ABSENCE_WIDTHS:
        for start in np.linspace(EDGE, 1 - EDGE - width, N_STARTS):
            inside = (time >= start) & (time <= start + width)
            before, after = (time < start).sum(), (time > start + width).sum()
            if inside.sum() >= edge and min(before, after) >= edge:
                yield inside
    third = len(time) // 3  # of sittings, where they lie too unevenly in time
    yield np.arange(len(time)) // max(1, third) == 1


def _unit(rows: FloatArray | BoolArray) -> FloatArray:
    """Centre each row and scale it to length 1; leave out rows that are constant."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    kept = length[:, 0] > 1e-9
    return np.asarray(centred[kept] / length[kept])
