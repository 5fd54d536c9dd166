"""Fitted forecasters made again from what was stored, by kind; each module is imported when used.

It imports no forecaster itself, so that those made of others can load these.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmrec.data.catalog import Catalog
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError
from llmrec.forecast import Forecaster

MODULE_OF_KIND = {
    "DecayedDirichlet": "counting",
    "ExponentialDecay": "counting",
    "GlobalDrift": "drift",
    "SameSeason": "drift",
    "RidgeAutoregression": "ridge",
    "CategoryEASE": "collaborative",
    "CategoryMarkov": "collaborative",
    "NeighbouringUsers": "neighbours",
    "NetworkForecaster": "network",
    "NextItemModel": "sequential",
    "GatedMixture": "mixture",
    "LogLinearPool": "pool",
    "HorizonForecaster": "horizon",
    "PretrainedForecaster": "pretrained_forecaster",
}
KINDS_WITH_ITEMS = ("NextItemModel",)  # they are made again with a catalog
# And these with others that are loaded.
KINDS_OF_EXPERTS = ("GatedMixture", "LogLinearPool", "HorizonForecaster")


def load_forecaster(stored: Stored, catalog: Catalog | None = None) -> Forecaster:
    """Give the forecaster that something was stored of.

    Parameters
    ----------
    catalog
        Of those that know items (`KINDS_WITH_ITEMS`), or are made of such.

    Raises
    ------
    ModelLoadError
        If no forecaster is of that kind, or a value is missing or cannot be.
    """
    if stored.kind not in MODULE_OF_KIND:
        known = ", ".join(MODULE_OF_KIND)
        raise ModelLoadError(f"no forecaster is of the kind {stored.kind!r}; known are {known}")
    module = import_module(f"llmrec.forecasters.{MODULE_OF_KIND[stored.kind]}")
    given: tuple[Any, ...] = ()
    if stored.kind in KINDS_WITH_ITEMS:
        given = (catalog,)
    elif stored.kind in KINDS_OF_EXPERTS:
        given = (lambda part: load_forecaster(part, catalog),)
    loaded: Forecaster = getattr(module, stored.kind).from_stored(stored, *given)
    return loaded


def stored_forecaster(forecaster: Forecaster) -> Stored:
    """Give what a forecaster is made again from; DataError if it cannot be stored."""
    if not hasattr(forecaster, "stored"):
        raise DataError(
            f"{type(forecaster).__name__} cannot be stored: known are {', '.join(MODULE_OF_KIND)}"
        )
    stored: Stored = forecaster.stored()
    return stored
