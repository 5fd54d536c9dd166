"""MIND (Microsoft News): impressions with clicks, and the clicks before the first of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from llmrec.data.calendar import INSTANT
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.frames import CATEGORIES, ITEM_ID, TIMESTAMP, TITLE, USER_ID
from llmrec.data.interactions import Interactions
from llmrec.data.tables import read_text

_BEHAVIORS = ("impression_id", USER_ID, TIMESTAMP, "history", "impressions")
_NEWS = (ITEM_ID, CATEGORIES, "subcategory", TITLE, "abstract", "url", "entities", "mentions")


def read(folder: Path) -> Dataset:
    """Read ``behaviors.tsv`` and ``news.tsv``.

    Events are the clicked impressions, and the clicks of the column ``history``. Those carry no
    time; they are known to precede the user's first impression, and are put one millisecond before
    it, in their order. So periods are counted in events here: calendar periods would be wrong.
    """
    news = read_text(folder / "news.tsv", "\t", _NEWS)
    behaviors = read_text(folder / "behaviors.tsv", "\t", _BEHAVIORS)
    behaviors[TIMESTAMP] = pd.to_datetime(
        behaviors[TIMESTAMP], format="%m/%d/%Y %I:%M:%S %p", errors="coerce"
    )
    clicked = behaviors["impressions"].str.findall(r"(\S+)-1(?!\S)")
    first = behaviors.sort_values(TIMESTAMP, kind="stable").drop_duplicates(USER_ID)
    earlier = first.assign(**{TIMESTAMP: first[TIMESTAMP] - INSTANT})
    events = pd.concat(
        [
            earlier.assign(**{ITEM_ID: first["history"].str.split()}),
            behaviors.assign(**{ITEM_ID: clicked}),
        ]
    )[[USER_ID, ITEM_ID, TIMESTAMP]].explode(ITEM_ID, ignore_index=True)
    # An impression without a click and a user without a history are rows of no event.
    events = events.dropna(subset=[ITEM_ID])
    catalog = Catalog.from_frame(news)
    log = Interactions.from_frame(events, bot_events_per_day=None).aligned(catalog)
    return Dataset("mind", log, catalog, "10 events", "articles", "reader", "exclude")
