"""Loading of any log: by an embedded name, from a folder in a known layout, or from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from llmrec.data import formats, retail, web_formats
from llmrec.data.calendar import PeriodLength
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import log_folder
from llmrec.data.outliers import BOT_EVENTS_PER_DAY
from llmrec.data.synthetic import make_synthetic_world, relabel_categories
from llmrec.data.table_dataset import make_table_dataset, require_known_names
from llmrec.data.table_folder import find_tables, name_parts, read_tables
from llmrec.data.tables import TableReader, name_file
from llmrec.data.times import check_dates
from llmrec.data.validation import RATING, TIMESTAMP, to_pandas
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy

SYNTHETIC_PREFIX = "synthetic-"
LayoutReader = Callable[[Path, formats.LayoutOptions], Dataset]


class _Layout(NamedTuple):
    """The files that tell a published layout, its reader, and what else must be so of a folder."""

    files: tuple[str, ...]
    read: LayoutReader
    fits: Callable[[Path], bool] = Path.is_dir


_LAYOUTS = (  # the first that fits is taken
    _Layout(("*.inter", "*.item"), formats.read_recbole),
    _Layout(("u.data", "u.item"), formats.read_movielens_100k),
    _Layout(("ratings.dat", "movies.dat"), formats.read_movielens_1m),
    _Layout(("ratings.csv", "movies.csv"), formats.read_movielens_csv),
    _Layout(  # a warehouse may call its tables so, too
        ("transactions.parquet", "products.parquet"),
        formats.read_completejourney,
        formats.has_completejourney_columns,
    ),
    _Layout(("behaviors.tsv", "news.tsv"), web_formats.read_mind),
    _Layout(("meta_*.jsonl*",), web_formats.read_amazon),
    _Layout(
        ("user_taggedartists-timestamps.dat", "artists.dat", "tags.dat"), web_formats.read_lastfm
    ),
    _Layout(("steam_reviews*.json*", "steam_games*.json*"), web_formats.read_steam),
)


def load_dataset(
    name: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    dates: str | None = None,
    keep_bots: bool = False,
    keep_outliers: bool = False,
    clusters: int | None = None,
    period: str | None = None,
    noun: str | None = None,
    person: str | None = None,
    verb: str | None = None,
    repeat: RepeatPolicy | None = None,
) -> Dataset:
    """Load a log with its catalog.

    Parameters
    ----------
    name
        "ml-100k" or "completejourney": embedded logs ("./ml-100k" is a folder of yours).
        "synthetic": the made-up log of `make_synthetic_world`, whose best forecast is known;
        "synthetic-3": another one, of seed 3 and with category names of its own. A folder of
        MovieLens (100K, 1M, 20M, latest), RecBole's atomic files, Complete Journey, MIND, Amazon
        Reviews 2023, HetRec Last.fm or Steam reviews; or of tables: events alone or with items.
        UCI's Online Retail, a spreadsheet, CSV or Parquet file or a folder with it.
        A .csv, .tsv, .txt, .dat, .json, .jsonl or .parquet file with columns user_id, item_id,
        timestamp, categories and, if there, title and rating.
    columns
        Of tables: our name to theirs, for those that differ.
    separator
        Of categories in a cell of text; None: "|", or what the layout has.
    dates
        How times are written, where that is ambiguous; see
        `llmrec.data.times.parse_timestamps`.
    keep_bots, keep_outliers
        Keep people with more than 1,000 events in a day; stray dates and one-day bursts.
    clusters
        How many clusters of titles become categories, where a layout has none (Online Retail);
        None: 150, or one for every five titles if those are fewer.
    period, noun, person, verb, repeat
        Of the `Dataset`; None: what suits the layout.

    Raises
    ------
    DataError
        If it is none of these, or cannot be read without a doubt; the message names file, column,
        line or row, and the way out.
    """
    check_dates(dates)
    about = {"period": period, "noun": noun, "person": person, "verb": verb, "repeat": repeat}
    own: dict[str, Any] = {field: value for field, value in about.items() if value is not None}
    if period is not None:
        PeriodLength.parse(period)
    found, source = _load_synthetic(str(name)), None
    if found is None:
        cleaning = _cleaning(dates, keep_bots, keep_outliers)
        found, source = _load(name, columns, formats.LayoutOptions(separator, cleaning, clusters))
    else:
        given: dict[str, Any] = {"columns": columns, "separator": separator, "dates": dates}
        given |= {"keep_bots": keep_bots, "keep_outliers": keep_outliers, "clusters": clusters}
        _refuse_options(str(name), given)
    return replace(found, source=source, **own)


def read_table(
    log: Any,
    catalog: Any = None,
    columns: Mapping[str, str] | None = None,
    *,
    name: str = "table",
    period: str = "28D",
    noun: str = "items",
    person: str = "person",
    repeat: RepeatPolicy = "allow",
    verb: str = "taken",
    separator: str | None = None,
    dates: str | None = None,
    keep_bots: bool = False,
    keep_outliers: bool = False,
) -> Dataset:
    """Make a dataset of any table of events and any table of items.

    Parameters
    ----------
    log
        Path of a .csv, .tsv, .txt, .dat, .json, .jsonl or .parquet file, pandas or polars frame, or
        ``datasets.Dataset``: user_id, item_id, timestamp, and maybe rating.
    catalog
        The same for items: item_id, categories (lists, or text separated by ``separator``), maybe
        title. Or a `Catalog`. None: the log's own columns of these names; what an item's rows say
        most often counts.
    columns
        Our name to the tables' name, for those that differ.
    name, period, noun, person, repeat, verb
        See `Dataset`.
    separator, dates, keep_bots, keep_outliers
        See `load_dataset`.

    Raises
    ------
    DataError
        If a column is missing, cannot be read, or nothing survives cleaning.
    """
    reader = TableReader()
    own = dict(columns or {})
    require_known_names(own)
    numbers = _number_columns(own, dates)
    events = _as_frame(log, reader, numbers)
    items = catalog
    if not (catalog is None or isinstance(catalog, Catalog)):
        items = _as_frame(catalog, reader, numbers)
    cleaning = _cleaning(dates, keep_bots, keep_outliers)
    files = [Path(one) if isinstance(one, (str, Path)) else None for one in (log, catalog)]
    found = make_table_dataset(name, events, items, files, own, separator, cleaning, reader)
    found = replace(found, source=files[0] and files[0].absolute(), repeat=repeat)
    return replace(found, period=period, noun=noun, person=person, verb=verb)


def _cleaning(dates: str | None, keep_bots: bool, keep_outliers: bool) -> dict[str, Any]:
    """Give the arguments of `Interactions.from_frame` that say how rows are read."""
    limit = None if keep_bots else BOT_EVENTS_PER_DAY
    return {"dates": dates, "bot_events_per_day": limit, "keep_outliers": keep_outliers}


def _load(
    name: str | Path, columns: Mapping[str, str] | None, options: formats.LayoutOptions
) -> tuple[Dataset, Path | None]:
    """Load a log from files, and say where they are; None: it is embedded.

    DataError begins with the path of what cannot be read.
    """
    path, is_embedded = _find_path(name)
    if is_embedded:  # measured tables and shipped engines are of the order of their files
        options = replace(options, cleaning={**options.cleaning, "in_file_order": True})
    with name_file(path):
        read_layout = choose_layout(path, columns)
        if options.clusters is not None and read_layout is not retail.read_online_retail:
            raise DataError("it has categories of its own: leave clusters out.")
        if read_layout is not None and columns:
            raise DataError("its columns are those of its layout: leave columns out.")
        if read_layout is None:
            found = _read_files(path, columns, options.separator, options.cleaning)
        else:
            found = read_layout(path, options)
    return found, None if is_embedded else path.absolute()


def _read_files(
    path: Path,
    columns: Mapping[str, str] | None,
    separator: str | None,
    cleaning: Mapping[str, Any],
) -> Dataset:
    """Read a table of events, or a folder of tables of events and maybe items."""
    reader, own = TableReader(), dict(columns or {})
    require_known_names(own)
    numbers = _number_columns(own, cleaning["dates"])
    files = [path, None]
    if path.is_file():
        events, items = reader.table(path, numbers), None
    else:
        event_files, item_files = find_tables(path)
        events = read_tables(event_files, reader, numbers)
        items = read_tables(item_files, reader, numbers) if item_files else None
        files = [name_parts(event_files), name_parts(item_files)]
    name = path.resolve().name.partition(".")[0]
    return make_table_dataset(name, events, items, files, own, separator, cleaning, reader)


def _load_synthetic(name: str) -> Dataset | None:
    """Make the made-up log of a name; None if it is no such name."""
    if name == "synthetic":
        return make_synthetic_world().dataset
    seed = name.removeprefix(SYNTHETIC_PREFIX)
    if seed == name or not seed.isdecimal():
        return None
    dataset = make_synthetic_world(seed=int(seed)).dataset
    return replace(relabel_categories(dataset, int(seed)), name=name)


def _refuse_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise a DataError if it is said how to read a log that is made, not read."""
    if given := [option for option, value in options.items() if value]:
        raise DataError(f"{name} is made up, not read: leave {' and '.join(given)} out.")


def _find_path(name: str | Path) -> tuple[Path, bool]:
    """Find a log's folder or file, and say whether it is an embedded one."""
    try:
        return log_folder(str(name)), True
    except DataError as error:
        if not Path(name).exists():
            raise DataError(
                f"{error} A made-up one is called 'synthetic'. Nor is there such a folder or file."
            ) from error
    return Path(name), False


def choose_layout(path: Path, columns: Mapping[str, str] | None) -> LayoutReader | None:
    """Find the layout of a folder or file; None if it is of plain tables; DataError if neither."""
    found = [one for one in _LAYOUTS if path.is_dir() and not _missing(one, path)]
    for layout in found:
        if layout.fits(path):
            return layout.read
    # Whoever says which column is which means a plain table, whatever its columns are called.
    if not columns and retail.find_retail_file(path) is not None:
        return retail.read_online_retail
    if path.is_dir() and not find_tables(path)[0]:
        raise DataError(_say_unknown(path))
    return None


def _missing(layout: _Layout, folder: Path) -> list[str]:
    """Name the files of a layout that a folder lacks."""
    return [file for file in layout.files if not any(folder.glob(file))]


def _say_unknown(folder: Path) -> str:
    """Say that a folder has no known layout, what it holds, and what is known."""
    partial = []
    for layout in _LAYOUTS:
        missing = _missing(layout, folder)
        if 0 < len(missing) < len(layout.files):
            there = next(file for file in layout.files if file not in missing)
            partial.append(f"with {there} there must be {' and '.join(missing)}")
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    known = "; ".join(" + ".join(layout.files) for layout in _LAYOUTS)
    hint = f" {'; '.join(partial)}." if partial else ""
    return (
        f"no known layout. Found {found};{hint} known are {known}; a file with the columns of "
        "Online Retail; or tables called events and maybe items, such as events.csv. Or use "
        "read_table."
    )


def _number_columns(own: Mapping[str, str], dates: str | None) -> list[str]:
    """Name the columns that are no text; written dates keep their zeros: 01022024."""
    return [own.get(ours, ours) for ours in (TIMESTAMP, RATING) if ours == RATING or dates is None]


def _as_frame(table: Any, reader: TableReader, numbers: Sequence[str]) -> pd.DataFrame:
    if isinstance(table, (str, Path)):
        return reader.table(Path(table), numbers)
    return to_pandas(table).reset_index(drop=True)  # whose rows are those of no file
