"""What stored forecasters hold: each value is checked when read, and what cannot be is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import sparse

from llmrec.data.calendar import to_datetime64
from llmrec.data.json_values import UNREADABLE, describe_error
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored, sparse_matrix
from llmrec.errors import ModelLoadError
from llmrec.forecasters.dispersion import (
    Dispersion,
    EventDispersion,
    Spread,
    is_possible_spread,
    read_spread,
)
from llmrec.types import FloatArray

SPREAD_SIZES = tuple(len(kind._fields) for kind in (Dispersion, EventDispersion))
LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min  # of finite and of positive numbers


@contextmanager
def refuse_broken(stored: Stored, kind: str) -> Iterator[None]:
    """Read values of a kind in the block of this.

    Raises
    ------
    ModelLoadError
        If something is stored of another kind, or a value is missing or cannot be.
    """
    if stored.kind != kind:
        raise ModelLoadError(f"no {kind} can be made of a stored {stored.kind!r}")
    try:
        yield
    except ModelLoadError:
        raise
    except KeyError as error:
        raise ModelLoadError(f"a stored {kind} has no {error}: save it again") from error
    except UNREADABLE as error:
        raise ModelLoadError(f"a stored {kind} cannot be read: {describe_error(error)}") from error


def fit_values(spread: Spread, fitted: TrainingSpan | None) -> dict[str, Any]:
    """Plain values of a spread, and of the time before which all events of the fit lie."""
    return {"spread": list(spread), "fitted_before": None if fitted is None else str(fitted.before)}


def read_fit(stored: Stored) -> dict[str, Any]:
    """Give spread and fitted of `fit_values` as keywords; whose events were seen is not stored."""
    before = stored.values["fitted_before"]
    if before is not None and not isinstance(before, str):
        raise ValueError(f"fitted_before is {before!r}, no time")
    spread = _read_spread(stored.values["spread"])
    fitted = None if before is None else TrainingSpan(to_datetime64(before))
    return {"spread": spread, "fitted": fitted}


def read_number(stored: Stored, name: str, low: float = 0.0, high: float = LARGEST) -> float:
    """Give a number from low to high; ValueError for anything else."""
    value = stored.values[name]
    if not _is_number(value, low, high):
        raise ValueError(f"{name} is {value!r}, no number from {low:g} to {high:g}")
    return float(value)


def read_choice(stored: Stored, name: str, choices: tuple[Any, ...]) -> Any:
    """Give one of some values; ValueError for anything else."""
    value = stored.values[name]
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, none of {', '.join(map(repr, choices))}")
    return value


def read_matrix(stored: Stored, name: str, rows_per_column: int = 1) -> FloatArray:
    """Give a finite (n * rows_per_column, n) float64 array, n > 0; ValueError for anything else."""
    array = stored.arrays[name]
    if array.ndim != 2 or array.dtype != np.float64 or not array.size:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, no matrix of float64")
    if len(array) != rows_per_column * array.shape[1]:
        raise ValueError(f"{name} is of shape {array.shape}, not {rows_per_column} n times n")
    if not np.isfinite(array).all():
        raise ValueError(f"a number of {name} is not finite")
    return np.ascontiguousarray(array)


def read_sparse_shares(stored: Stored, name: str) -> sparse.csr_array:
    """Give an (n, n_categories) float32 matrix of numbers from 0 to 1, n > 0, else ValueError."""
    matrix = sparse_matrix(name, stored.arrays)
    data = matrix.data
    if data.dtype != np.float32 or not matrix.shape[0] or not ((data >= 0) & (data <= 1)).all():
        raise ValueError(f"{name} holds no shares of single precision, 0 to 1")
    return matrix


def _read_spread(values: Any) -> Spread:
    """Give a spread of its numbers; ValueError if it cannot be."""
    if len(values) in SPREAD_SIZES and all(_is_number(v, -LARGEST, LARGEST) for v in values):
        spread = read_spread(values)
        if is_possible_spread(spread):
            return spread
    raise ValueError(f"spread is {values!r}, not the numbers of a spread")


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
