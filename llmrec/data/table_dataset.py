"""A dataset of a table of events and maybe one of items, whose columns may be called otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.column_names import match_columns
from llmrec.data.dataset import Dataset
from llmrec.data.file_frames import make_catalog, make_log
from llmrec.data.log_items import catalog_of_rows, item_rows_of_log
from llmrec.data.tables import TableReader, name_file
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    RATING,
    SHORT_NAMES,
    TIMESTAMP,
    TITLE,
    USER_ID,
    require_columns,
)
from llmrec.errors import DataError

EVENT_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, RATING)
ITEM_COLUMNS = (ITEM_ID, TITLE, CATEGORIES)


def require_known_names(columns: Mapping[str, str]) -> None:
    """Raise a DataError if a mapping has a name that is none of ours."""
    known = dict.fromkeys((*EVENT_COLUMNS, *ITEM_COLUMNS))
    if unknown := set(columns) - set(known):
        raise DataError(f"columns: {min(unknown)!r} is none of our names ({', '.join(known)}).")


def make_table_dataset(
    name: str,
    events: pd.DataFrame,
    items: pd.DataFrame | Catalog | None,
    files: Sequence[Path | None],
    columns: Mapping[str, str],
    separator: str | None,
    cleaning: Mapping[str, Any],
    reader: TableReader,
) -> Dataset:
    """Make a dataset of frames; without one of items the rows of the log name them.

    ``files`` are those of the events and of the items, for messages.
    """
    _require_given(columns, events, items, files)
    with name_file(files[0]):
        event_columns = match_columns(events, EVENT_COLUMNS, columns, reader)
        needed = (USER_ID, ITEM_ID, TIMESTAMP)
        require_columns(events, {ours: event_columns.get(ours, ours) for ours in needed})
        said = {} if items is not None else _item_columns(events, columns, reader)
    log = make_log(
        events, files[0], columns=event_columns, can_map=True, details=[*said], **cleaning
    )
    rows = None
    if isinstance(items, Catalog):
        catalog = items
    elif items is not None:
        with name_file(files[1]):
            item_columns = match_columns(items, ITEM_COLUMNS, columns, reader)
        catalog = make_catalog(items, files[1], item_columns, can_map=True, separator=separator)
    else:
        with name_file(files[0]):
            rows = item_rows_of_log(log, events[[*said]].rename(columns=said))
            catalog = catalog_of_rows(rows, separator)
    with name_file(files[0]):
        _require_shared_items(log.item_ids, catalog.item_ids)
        log = log.align_to(catalog)
    return Dataset(
        *(name, log, catalog, "28D", "items", "person", "allow"),
        reading=tuple(reader.findings),
        item_rows=rows,
        separator=separator,
    )


def _require_shared_items(of_log: pd.Index[Any], of_catalog: pd.Index[Any]) -> None:
    """Raise a DataError if no item is in both; it shows two ids that may be one."""
    if not len(of_catalog) or of_log.isin(of_catalog).any():
        return
    places = pd.Index([str(one).lstrip("0") for one in of_catalog])
    alike = [one for one in of_log if str(one).lstrip("0") in places]
    ours = str((alike or [of_log[0]])[0])
    place = int((places == ours.lstrip("0")).argmax())  # 0 where none is alike
    raise DataError(
        f"no event is left: no item is in the catalog. Items are called such as {ours[:80]!r} in "
        f"the log, and {str(of_catalog[place])[:80]!r} in the catalog: write them alike."
    )


def _item_columns(
    events: pd.DataFrame, columns: Mapping[str, str], reader: TableReader
) -> dict[str, str]:
    """Give what the columns of a log that say something of its items are called: theirs to ours."""
    found = match_columns(events, ITEM_COLUMNS, columns, reader)
    names = {one: found.get(one, one) for one in (TITLE, CATEGORIES)}
    if names[TITLE] not in events and TITLE not in columns:
        del names[TITLE]
    require_columns(events, names)
    return {theirs: ours for ours, theirs in names.items()}


def _require_given(
    columns: Mapping[str, str],
    events: pd.DataFrame,
    items: pd.DataFrame | Catalog | None,
    files: Sequence[Path | None],
) -> None:
    """Raise a DataError if a given name is a column of no table that it may be of."""
    tables = [((*EVENT_COLUMNS, *(ITEM_COLUMNS if items is None else ())), events, files[0])]
    if isinstance(items, pd.DataFrame):
        tables.append((ITEM_COLUMNS, items, files[1]))
    for name, theirs in columns.items():
        possible = [(frame, file) for ours, frame, file in tables if name in ours]
        if possible and not any(theirs in frame for frame, _ in possible):
            found = "; ".join(
                f"{'table' if file is None else file.name}: {', '.join(map(str, frame))[:250]}"
                for frame, file in possible
            )
            raise DataError(
                f"column {theirs!r}, given for {name}, is missing (columns found: {found}). Give "
                f"a name that is there: columns={{{name!r}: 'its name'}}, or --columns "
                f"{SHORT_NAMES[name]}=ITS_NAME."
            )
