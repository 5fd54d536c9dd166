"""The Complete Journey (84.51): a year of grocery lines, as Parquet files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from llmrec.contracts import IntArray
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.frames import CATEGORIES, ITEM_ID, TITLE
from llmrec.data.interactions import Interactions
from llmrec.data.tables import read_parquet

NO_PRODUCTS = ("COUPON", "COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "FUEL")
_LINES = ["household_id", "basket_id", "product_id", "transaction_timestamp"]
_PRODUCTS = ["product_id", "product_category", "product_type"]


def read(folder: Path) -> Dataset:
    """Read ``transactions.parquet`` and ``products.parquet``.

    An item is a product type within a category (the log has no product names, and the same type
    occurs under several categories), so each item has one category. Two products of one type in
    one basket are two events. Coupons, fuel and lines without a category are dropped and counted.
    """
    lines = read_parquet(folder / "transactions.parquet", _LINES)
    products = read_parquet(folder / "products.parquet", _PRODUCTS).drop_duplicates("product_id")
    items, item_of_product = _items(products)
    # Position -1, an unknown product, takes the last entry: no item, and not excluded either.
    product = pd.Index(products["product_id"]).get_indexer(pd.Index(lines["product_id"]))
    codes = np.append(item_of_product, -1)[product]
    excluded = np.append(products["product_category"].isin(NO_PRODUCTS), False)[product]
    lines[ITEM_ID] = pd.Categorical.from_codes(codes, pd.Index(items[ITEM_ID]))
    log = Interactions.from_frame(
        lines,
        {"user_id": "household_id", "timestamp": "transaction_timestamp"},
        identity=["basket_id", "product_id"],
        leave_out={"coupon or fuel": excluded, "line without a category": codes < 0},
    )
    catalog = Catalog.from_frame(items[items[ITEM_ID].isin(log.item_ids)])
    return Dataset(
        "completejourney", log.aligned(catalog), catalog, "28D", "groceries", "shopper", "allow"
    )


def _items(products: pd.DataFrame) -> tuple[pd.DataFrame, IntArray]:
    """Give the items, one a row, and (n_products,) each product's row among them, or -1."""
    category = products["product_category"]
    pairs = pd.DataFrame({CATEGORIES: category, TITLE: products["product_type"].fillna(category)})
    keys = [CATEGORIES, TITLE]
    codes = pairs.groupby(keys, sort=True).ngroup().fillna(-1).astype(np.int64)
    items = pairs[codes >= 0].drop_duplicates().sort_values(keys).apply(lambda c: c.map(readable))
    items[ITEM_ID] = items[CATEGORIES] + ": " + items[TITLE]
    # Types are cut at 30 characters, often inside a bracket.
    items[TITLE] = items[TITLE].str.replace(r" *\([^()]*$", "", regex=True)
    shared = items[TITLE].duplicated(keep=False)
    items[TITLE] = items[TITLE].mask(shared, items[TITLE] + " (" + items[CATEGORIES] + ")")
    items[CATEGORIES] = items[CATEGORIES].map(lambda name: [name])
    return items, np.asarray(codes, dtype=np.int64)


def readable(text: str) -> str:
    """Write capitals as words: "FLUID MILK PRODUCTS" as "Fluid Milk Products".

    Only the case of letters changes, so different names stay different; letters after a digit
    ("15PK") stay as they are.
    """
    return re.sub(r"(?<![0-9A-Z'])[A-Z][A-Z']*", lambda word: word[0].capitalize(), text)
