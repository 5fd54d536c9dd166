"""Amazon Reviews 2023 (McAuley Lab): JSON lines of reviews and of item metadata."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.frames import CATEGORIES, ITEM_ID, RATING, TIMESTAMP, TITLE, USER_ID
from llmrec.data.interactions import Interactions
from llmrec.data.tables import read_json_lines

_REVIEW = {
    USER_ID: pa.string(),
    "parent_asin": pa.string(),
    TIMESTAMP: pa.int64(),
    RATING: pa.float64(),
}
_META = {
    "parent_asin": pa.string(),
    TITLE: pa.string(),
    "main_category": pa.string(),
    CATEGORIES: pa.list_(pa.string()),
}


def read(folder: Path) -> Dataset:
    """Read every ``meta_NAME.jsonl`` or ``.jsonl.gz`` of a folder with its ``NAME.jsonl``.

    An item's category is the second step of its path ``categories`` (the first is the same for a
    whole file), or ``main_category`` where the path is shorter.
    """
    metas = sorted(folder.glob("meta_*.jsonl*"))
    reviews = [path.with_name(path.name.removeprefix("meta_")) for path in metas]
    items = pd.concat([read_json_lines(path, _META) for path in metas], ignore_index=True)
    items = items.reindex(columns=list(dict.fromkeys([*items, CATEGORIES, "main_category"])))
    items[CATEGORIES] = items[CATEGORIES].astype("object").str.get(1).fillna(items["main_category"])
    items[CATEGORIES] = [[name] for name in items[CATEGORIES]]
    catalog = Catalog.from_frame(items, {ITEM_ID: "parent_asin"})
    log = Interactions.from_frame(
        pd.concat([read_json_lines(path, _REVIEW) for path in reviews], ignore_index=True),
        {ITEM_ID: "parent_asin"},
        unit="ms",
    )
    name = f"amazon-{'+'.join(path.name.partition('.')[0] for path in reviews)}"
    return Dataset(
        name, log.aligned(catalog), catalog, "10 events", "products", "shopper", "exclude"
    )
