"""Forecasters that are combined: their out-of-sample weights, block by block, and their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError
from llmrec.forecast import Forecaster
from llmrec.forecasters.dispersion import Spread, is_possible_spread, read_spread
from llmrec.forecasters.precomputed import out_of_sample_weights, predict_weights
from llmrec.types import FloatArray

HISTORIES_PER_BATCH = 1_024  # most histories that experts forecast at a time
CELLS_PER_BATCH = 2**23  # most histories x experts x categories in memory at a time

Experts = Mapping[str, Forecaster]
ExpertWeights = Mapping[str, FloatArray]  # (n_windows, n_categories) of each expert
ForecasterLoader = Callable[[Stored], Forecaster]


def sorted_experts(experts: Experts) -> dict[str, Forecaster]:
    """Give two experts or more, by name; DataError for fewer."""
    if len(experts) < 2:
        raise DataError(f"a mixture needs two experts at least, not {list(experts)}")
    return dict(sorted(experts.items()))


def joint_span(
    validation: Sequence[Window], experts: Mapping[str, Any], *, may_be_later: bool = False
) -> TrainingSpan:
    """Give what experts, and a mixture of them, were fitted on.

    An expert whose fit has no time, such as a net of a whole log, has no part in it.
    ``may_be_later``: experts may have been fitted on events after the windows.

    Raises
    ------
    DataError
        If there are no windows, or an expert was fitted on events after these.
    """
    fitted = TrainingSpan.of_windows(validation)
    end = fitted.before
    assert end is not None
    for name, expert in experts.items():
        span: TrainingSpan | None = getattr(expert, "fitted", None)
        if span is None or span.before is None:
            continue
        if span.before > end and not may_be_later:
            raise DataError(f"expert {name} was fitted on events after the mixture's windows")
        fitted = fitted.union(span)
    return fitted


def out_of_sample_blocks(
    experts: Experts, validation: Sequence[Window], known: ExpertWeights | None = None
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield rows and their (n_rows, n_experts, n_categories) `out_of_sample_weights`.

    ``known`` are these weights where they are known already.
    """
    for rows in _batches([window.history for window in validation], len(experts)):
        if known is None:
            found = [out_of_sample_weights(e, validation[rows]) for e in experts.values()]
        else:
            found = [known[name][rows] for name in experts]
        yield rows, np.stack(found, axis=1)


def predicted_blocks(
    experts: Experts, histories: Sequence[History]
) -> Iterator[tuple[Sequence[History], FloatArray]]:
    """Yield histories and their (n_histories, n_experts, n_categories) forecast weights."""
    for rows in _batches(histories, len(experts)):
        part = histories[rows]
        yield part, np.stack([predict_weights(e, part) for e in experts.values()], axis=1)


def stored_experts(experts: Experts) -> dict[str, Stored]:
    """Give each expert's stored form; ModelLoadError for one that has none."""
    if bad := [name for name, expert in experts.items() if not hasattr(expert, "stored")]:
        kind = type(experts[bad[0]]).__name__
        raise ModelLoadError(f"expert {bad[0]!r} is a {kind}, which cannot be stored")
    return {name: expert.stored() for name, expert in experts.items()}  # type: ignore[attr-defined]


def restored_arrays(
    stored: Stored, kind: str, shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> tuple[dict[str, FloatArray], Spread, TrainingSpan]:
    """Give arrays, spread and training span of a stored mixture.

    ``shapes`` are those that an array may have, by its name.

    Raises
    ------
    ModelLoadError
        If it is of another kind, or an array is missing, of another shape or not finite.
    """
    if stored.kind != kind:
        raise ModelLoadError(f"a stored {stored.kind} is no {kind}")
    found = {}
    for name, allowed in shapes.items():
        array = np.asarray(stored.arrays.get(name, np.empty(0)))
        if array.shape not in allowed or array.dtype != np.float64:
            raise ModelLoadError(
                f"{kind}: {name} is {array.dtype} of shape {array.shape}, not float64 of "
                f"{' or '.join(map(str, allowed))}"
            )
        if not np.isfinite(array).all():
            raise ModelLoadError(f"{kind}: a number of {name} is not finite; fit it again")
        found[name] = array
    try:
        spread = read_spread([*map(float, stored.values["spread"])])
        fitted = TrainingSpan.from_dict(stored.values["fitted"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"{kind}: its values cannot be read: {error!r}") from error
    if not is_possible_spread(spread):
        raise ModelLoadError(f"{kind}: its spread {list(spread)} cannot be")
    return found, spread, fitted


def _batches(histories: Sequence[History], n_experts: int) -> Iterator[slice]:
    if not histories:
        return
    cells = n_experts * histories[0].catalog.n_categories
    size = max(1, min(HISTORIES_PER_BATCH, CELLS_PER_BATCH // max(1, cells)))
    for start in range(0, len(histories), size):
        yield slice(start, start + size)
