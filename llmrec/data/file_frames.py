"""Logs and catalogs of frames that were read from files; messages name the file and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.source_rows import name_rows
from llmrec.data.tables import name_file
from llmrec.data.validation import CATEGORIES, ITEM_ID, TIMESTAMP, USER_ID, require_columns


def make_log(
    frame: pd.DataFrame,
    file: Path | None,
    catalog: Catalog | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    can_map: bool = False,
    **options: Any,
) -> Interactions:
    """Make the log of a frame, and align it with a catalog if there is one.

    Parameters
    ----------
    frame
        Its index has the rows of the file, see `llmrec.data.source_rows`.
    file
        Where it was read, or the folder of several files; None: from no file.
    columns, options
        Of `Interactions.from_frame`.
    can_map
        Whether whoever reads the log can say what its columns are called.

    Raises
    ------
    DataError
        What `Interactions.from_frame` and `Interactions.align_to` raise.
    """
    names = {name: name for name in (USER_ID, ITEM_ID, TIMESTAMP)} | dict(columns or {})
    with name_file(file), name_rows(frame.index):
        require_columns(frame, names, can_map=can_map)
        log = Interactions.from_frame(frame, columns, **options)
    log = replace(log, report=log.report.with_source_rows(frame.index))
    with name_file(file):
        return log if catalog is None else log.align_to(catalog)


def make_catalog(
    frame: pd.DataFrame,
    file: Path | None,
    columns: Mapping[str, str] | None = None,
    *,
    can_map: bool = False,
    separator: str | None = None,
) -> Catalog:
    """Make the catalog of a frame; see `make_log` and `Catalog.from_frame`."""
    names = {name: name for name in (ITEM_ID, CATEGORIES)} | dict(columns or {})
    with name_file(file), name_rows(frame.index):
        require_columns(frame, names, can_map=can_map)
        catalog = Catalog.from_frame(frame, columns, separator=separator)
    return replace(catalog, report=catalog.report.with_source_rows(frame.index))
