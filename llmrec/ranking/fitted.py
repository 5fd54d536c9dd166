"""What fitted scorers share: how they are fitted, and how a fit is stored and read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol, runtime_checkable

import numpy as np

from llmrec.data.calendar import to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.json_values import UNREADABLE, describe_error
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import ModelLoadError
from llmrec.forecast import ItemScorer
from llmrec.types import FloatArray


@runtime_checkable
class FittableScorer(Protocol):
    """A scorer that has to be fitted first."""

    def fit(
        self, log: Interactions, catalog: Catalog, cutoff: np.datetime64 | None = None
    ) -> ItemScorer:
        """Fit on all users' events before the cutoff (default: all events)."""
        ...


@runtime_checkable
class StorableScorer(Protocol):
    """A scorer that can be saved in an engine's folder."""

    def stored(self) -> Stored:
        """Give what `llmrec.ranking.registry.load_scorer` makes it again from."""
        ...


def settings_of(scorer: Any) -> dict[str, Any]:
    """Give the parameters of a dataclass as JSON has them.

    Null is a half-life without an end; an encoder of texts is given by its name.
    """
    found = {one.name: getattr(scorer, one.name) for one in fields(scorer) if one.init}
    if found.get("half_life") == np.inf:
        found["half_life"] = None
    if "encoder" in found:
        found["encoder"] = getattr(found["encoder"], "name", found["encoder"])
    return found


def parameters_from(values: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """Give the parameters of `settings_of` again, without other values of these names."""
    found = {name: value for name, value in values.items() if name not in others}
    if "half_life" in found and found["half_life"] is None:
        found["half_life"] = np.inf
    return found


def stored_cutoff(span: TrainingSpan | None, name: str) -> str | None:
    """Give the time that all events of a fit lie before, to be stored; None for a whole log's.

    How many events each person had in a whole log is not stored, since that would tell who they
    are: a stored scorer of one no longer knows whose history it has seen beyond.

    Raises
    ------
    ValueError
        If there is no fit.
    """
    if span is None:
        raise ValueError(f"{name!r} is not fitted: call fit(log, catalog, cutoff) first.")
    return None if span.before is None else str(span.before)


def span_before(cutoff: str | None, catalog: Catalog) -> TrainingSpan:
    """Give the span of a stored fit: a time, and the catalog that it is for."""
    before = None if cutoff is None else to_datetime64(cutoff)
    return TrainingSpan(before, item_ids=catalog.item_ids)


def popularity_of(taken: Any) -> FloatArray:
    """(n_items,) shares of all events, of (n_users, n_items) counts with one more of each item."""
    counts = 1.0 + np.asarray(taken.sum(axis=0)).ravel()
    return np.asarray(counts / counts.sum())


def popularity_from(stored: Stored, catalog: Catalog) -> FloatArray:
    """(n_items,) the stored shares of all events; ValueError if they are none of this catalog."""
    popularity = np.array(stored.arrays["popularity"], dtype=np.float64)
    require_shape("popularity", popularity, (catalog.n_items,))
    if not (popularity > 0).all():
        raise ValueError("an item's popularity is not > 0")
    return popularity


def rows_of_items(name: str, stored: Stored, catalog: Catalog) -> FloatArray:
    """(n_items, d) a stored array; ValueError if it has no row for each item of this catalog."""
    found = np.array(stored.arrays[name], dtype=np.float64)
    if found.ndim != 2 or not found.shape[1]:
        raise ValueError(f"{name!r} has shape {found.shape}, not (n_items, some columns)")
    require_shape(name, found, (catalog.n_items, found.shape[1]))
    return found


def require_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array of another shape than this."""
    if array.shape != shape:
        raise ValueError(f"{name!r} has shape {array.shape}, not {shape} as for this catalog")


@contextmanager
def refusing(kind: str) -> Iterator[None]:
    """Turn what goes wrong while a stored object is read into a ModelLoadError that names it."""
    try:
        yield
    except ModelLoadError:
        raise
    except UNREADABLE as error:
        told = describe_error(error)
        why = f"it has no {told}" if isinstance(error, KeyError) else told
        raise ModelLoadError(f"the stored {kind} cannot be used: {why}") from error
