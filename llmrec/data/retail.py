"""The reader of UCI's Online Retail and Online Retail II: lines of invoices of a gift shop."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.file_frames import make_log
from llmrec.data.formats import LayoutOptions, title_case
from llmrec.data.ids import MISSING_WORDS
from llmrec.data.log_items import catalog_of_titles, item_rows_of_log
from llmrec.data.retail_lines import find_cancellations
from llmrec.data.source_rows import name_rows, tell_first_row
from llmrec.data.spreadsheets import SPREADSHEET_SUFFIX, read_spreadsheet, spreadsheet_has
from llmrec.data.table_folder import column_names, is_table
from llmrec.data.tables import TableReader, name_file, table_kind
from llmrec.data.times import ParsedTimes, parse_timestamps
from llmrec.data.title_clusters import TitleCategories
from llmrec.data.validation import (
    CATEGORIES,
    ITEM_ID,
    TIMESTAMP,
    TITLE,
    USER_ID,
    require_columns,
    to_float,
)
from llmrec.errors import DataError
from llmrec.types import BoolArray

NO_PRODUCTS = {  # stock codes, in capitals, of lines that are no products, by what they are
    "line of postage or carriage": r"POST|DOT|C[23]",
    "line of a fee or commission": r"AMAZONFEE|BANK CHARGES|CRUK",
    "manual entry, discount or adjustment": r"[MDB]|ADJUST\d*|TEST\d*",
    "line of samples or packing": r"S|PADS",
    "line of a gift voucher": r"GIFT.*",
}
OTHER_CODE = "line of another stock code that is not five digits and maybe letters"
NO_CUSTOMER = "line without a customer"
NO_QUANTITY = "line without a quantity"
NO_PRICE = "line without a price above 0"
CANCELLATION = "cancellation of an earlier purchase"
UNMATCHED = "cancellation without an earlier purchase"
SAME_PURCHASE = "line of an item that another line of the invoice has"
TAKEN_BACK = "purchase that a cancellation takes back"

_INVOICE, _QUANTITY, _PRICE = "InvoiceNo", "Quantity", "UnitPrice"
_NAMES = {  # of the published columns; those that we have no name for keep theirs
    USER_ID: "CustomerID",
    ITEM_ID: "StockCode",
    TIMESTAMP: "InvoiceDate",
    TITLE: "Description",
    _INVOICE: _INVOICE,
    _QUANTITY: _QUANTITY,
    _PRICE: _PRICE,
}
_SECOND_NAMES = {"Invoice": _INVOICE, "Price": _PRICE, "Customer ID": "CustomerID"}
_KEYS = [USER_ID, ITEM_ID, TIMESTAMP, _INVOICE]  # of a purchase
_MARKS = ("StockCode", "InvoiceDate")  # the columns that tell the layout
_PRODUCT = r"\d{5}[A-Z]*"


def find_retail_file(path: Path) -> Path | None:
    """Find the file of this layout: a file itself, or the one in a folder; None if there is none.

    DataError if a folder has several.
    """
    if not path.is_dir():
        return path if _has_retail_columns(path) else None
    files = [one for one in sorted(path.iterdir()) if is_table(one) or _is_spreadsheet(one)]
    found = [one for one in files if _has_retail_columns(one)]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]} may both be meant: leave one of them there.")
    return found[0] if found else None


def _is_spreadsheet(path: Path) -> bool:
    return table_kind(path) == SPREADSHEET_SUFFIX and not path.name.startswith((".", "~"))


def _has_retail_columns(path: Path) -> bool:
    """Whether a file has the columns that tell the layout, and none of categories."""
    if _is_spreadsheet(path):
        return spreadsheet_has(path, _MARKS)
    with suppress(DataError, OSError):  # reading it says what is wrong
        names = column_names(path) if is_table(path) else []
        return all(mark in names for mark in _MARKS) and CATEGORIES not in names
    return False


def read_online_retail(path: Path, options: LayoutOptions) -> Dataset:
    """Read a spreadsheet, CSV or Parquet file, or the folder with it.

    An event is an item on an invoice of a customer, however many lines and pieces it has. What a
    cancellation takes back is left out, see `find_cancellations`; fees, postage and other lines
    that are no products (`NO_PRODUCTS`) and lines without a price are, too. Its price is that of a
    piece on the line that is kept. Categories are clusters of titles.

    Raises
    ------
    DataError
        If a column is missing, a value cannot be read, or no line is left.
    MissingExtraError
        Without what spreadsheets or clusters need.
    """
    file = find_retail_file(path) or path
    reader = TableReader()
    lines = _read_lines(file, reader)
    with name_file(file), name_rows(lines.index):
        written = lines[TIMESTAMP].rename(_NAMES[TIMESTAMP])
        times = parse_timestamps(written, options.cleaning.get("dates") or "month-first")
        lines[TIMESTAMP] = times.times
        unusable, taken_back = _classify(lines, times)
    log = make_log(
        lines,
        file,
        identity=[_INVOICE],
        leave_out=unusable,
        **{**options.cleaning, "dates": None},
    )
    with name_file(file):
        # Before anything is taken back: that came later, and then an item was sold all the same.
        rows = item_rows_of_log(log, lines[[TITLE]])
        log = log.drop_events({TAKEN_BACK: taken_back[log.source_row]})
        catalog, about = catalog_of_titles(rows, TitleCategories(options.clusters))
        prices = lines[_PRICE].to_numpy()[log.source_row]
        log = replace(log.align_to(catalog), price=prices, day_first=times.day_first)
    said = (
        replace(one, example=tell_first_row(one.example, lines.index)) for one in times.findings
    )
    return Dataset(
        *("online-retail", log, catalog, "28D", "products", "customer", "allow", "bought"),
        reading=(*reader.findings, *said),
        item_rows=rows,
        title_categories=about,
    )


def _read_lines(file: Path, reader: TableReader) -> pd.DataFrame:
    """Read the lines of invoices under our names; ids are texts, and titles are in title case."""
    if _is_spreadsheet(file):
        table, findings = read_spreadsheet(file)
        reader.findings.extend(findings)
    else:
        table = reader.table(file)
    table = table.rename(columns=_SECOND_NAMES)
    with name_file(file):
        require_columns(table, _NAMES, can_map=False)
    lines = table[[*_NAMES.values()]].set_axis([*_NAMES], axis=1)
    with name_file(file), name_rows(lines.index):
        for name in (_QUANTITY, _PRICE):
            lines[name] = to_float(lines[name].reset_index(drop=True))
    for name in (USER_ID, ITEM_ID, _INVOICE):
        lines[name] = _texts(lines[name])
    lines[ITEM_ID] = lines[ITEM_ID].str.upper()
    titles = lines[TITLE].astype("str")
    lines[TITLE] = titles.map({one: title_case(one) for one in titles.dropna().unique()})
    return lines


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    """Give ids as texts, missing where there is none; 17850.0 is 17850."""
    texts = column.astype("str").str.strip().str.replace(r"\.0$", "", regex=True)
    return texts.mask((texts == "") | texts.isin(MISSING_WORDS))


def _classify(lines: pd.DataFrame, times: ParsedTimes) -> tuple[dict[str, BoolArray], BoolArray]:
    """Give reason to (n_lines,) mask of lines that are no purchases, and those taken back."""
    codes = lines[ITEM_ID].fillna("")
    reasons: dict[str, BoolArray] = {NO_CUSTOMER: lines[USER_ID].isna().to_numpy()}
    for what, pattern in NO_PRODUCTS.items():
        reasons[what] = codes.str.fullmatch(pattern).to_numpy(bool)
    reasons[OTHER_CODE] = ((codes != "") & ~codes.str.fullmatch(_PRODUCT)).to_numpy(bool)
    quantity = lines[_QUANTITY].to_numpy()
    reasons[NO_QUANTITY] = ~(np.abs(quantity) > 0)
    reasons |= times.unusable
    left = ~np.logical_or.reduce([*reasons.values()])
    has_c = lines[_INVOICE].str.upper().str.startswith("C", na=False).to_numpy(bool)
    is_cancellation = has_c | (quantity < 0)
    has_price = lines[_PRICE].to_numpy() > 0
    purchases, keys = left & ~is_cancellation & has_price, lines[_KEYS].reset_index(drop=True)
    found = find_cancellations(
        keys, np.abs(quantity), purchases=purchases, cancellations=left & is_cancellation
    )
    reasons[CANCELLATION] = found.matched
    reasons[UNMATCHED] = is_cancellation & ~found.matched
    reasons[NO_PRICE] = ~has_price
    reasons[SAME_PURCHASE] = _find_same(keys[purchases], lines[[TITLE, _PRICE]])
    return reasons, found.taken_back


def _find_same(purchases: pd.DataFrame, kept: pd.DataFrame) -> BoolArray:
    """(n_lines,) the lines that are left out where several are one purchase.

    Of these the one whose title, then price, comes first stays, whatever their order. ``purchases``
    are the keys of those lines that are some, by their places; ``kept`` has title and price.
    """
    several = purchases[purchases.duplicated(keep=False)]
    of_lines = kept.iloc[several.index].set_index(several.index)
    ordered = several.join(of_lines).sort_values([*kept], kind="stable")
    again = ordered.index[ordered.duplicated([*purchases])]
    return np.isin(np.arange(len(kept)), again)
