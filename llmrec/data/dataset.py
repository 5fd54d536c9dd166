"""A log with its catalog, and the words and rules of its domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything the later stages need to know about a log.

    Attributes
    ----------
    name
        What tables of results call it.
    log
        The events, aligned with the catalog.
    catalog
        The items.
    period
        The period length that suits the log, such as "28D" or "10 events".
    noun, person
        What items and users are called in prompts and explanations: "films", "viewer".
    repeat
        Whether items already taken may be recommended again.
    """

    name: str
    log: Interactions
    catalog: Catalog
    period: str
    noun: str
    person: str
    repeat: Literal["allow", "exclude"]
