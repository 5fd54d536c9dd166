"""Lists that people were shown, and what of them they clicked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.ids import read_ids
from llmrec.data.report import Effect, Finding
from llmrec.data.source_rows import name_row
from llmrec.data.validation import TIMESTAMP, USER_ID
from llmrec.types import BoolArray, IntArray, TimeArray

IMPRESSIONS = "impressions"  # column of the lists
_WITHOUT_CLICK = "{:,} impressions are without a click: they are kept, and no metric counts them"
UNKNOWN_SHOWN = "impression without those of its items that the catalog does not have"
_WITHOUT_PERSON = "impression without a user_id"
_WITHOUT_TIME = "impression without a time"
_WITHOUT_ITEMS = "impression that shows no item of the catalog with -1 or -0 at its end"
_WITHOUT_ANSWER = "impression without those of its items that do not end in -1 or -0"
_SHOWN_TWICE = "impression that shows an item twice: it counts once, as clicked if it ever was"


@dataclass(frozen=True, eq=False)
class Impressions:
    """Lists of items that people were shown, by time, then person. Make one with `from_frame`.

    Attributes
    ----------
    user_ids
        (n_impressions,) who was shown a list; people without any event are among them.
    timestamp
        (n_impressions,) datetime64[ms], UTC, never falling.
    offsets
        (n_impressions + 1,) what impression ``i`` showed is at ``offsets[i]:offsets[i + 1]`` of
        the arrays below: at least one item, and none twice.
    item_ids
        (n_items,) ids of the catalog; ``item_idx`` points into them.
    item_idx, is_clicked
        (n_shown,) the items, and whether they were clicked.
    source_row
        (n_impressions,) row number in the frame the impression came from.
    findings
        What reading left out or changed, and how many impressions have no click.
    """

    user_ids: pd.Index[str]
    timestamp: TimeArray
    offsets: IntArray
    item_ids: pd.Index[str]
    item_idx: IntArray
    is_clicked: BoolArray
    source_row: IntArray
    findings: tuple[Finding, ...] = ()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, catalog: Catalog) -> Impressions:
        """Read lists such as "N2-1 N13-0": an item's id, and whether it was clicked.

        Parameters
        ----------
        frame
            Columns user_id, timestamp (datetime64, NaT where there is none) and impressions, one
            row an impression; its index has the rows of the file, see `llmrec.data.source_rows`.
        catalog
            Items that it does not have are left out, and so is an impression of which none stays.

        Raises
        ------
        DataError
            If an id is none, see `read_ids`.
        """
        users, times = read_ids(frame[USER_ID]), frame[TIMESTAMP].to_numpy("datetime64[ms]")
        table, at_once = _read_lists(frame[IMPRESSIONS], catalog)
        is_known = (users.codes >= 0) & ~np.isnat(times)
        table = table[is_known[table["row"].to_numpy()]]
        n_shown = np.bincount(table["row"], minlength=len(frame))
        clicks = np.bincount(table["row"], table["is_clicked"], minlength=len(frame))
        dropped = {
            _WITHOUT_PERSON: users.codes < 0,
            _WITHOUT_TIME: (users.codes >= 0) & np.isnat(times),
            _WITHOUT_ITEMS: is_known & (n_shown == 0),
        }
        changed = {rule: rows & (n_shown > 0) for rule, rows in at_once.items()}
        idle = (n_shown > 0) & (clicks == 0)
        findings = (
            *_tell("dropped", dropped, frame.index),
            *_tell("changed", changed, frame.index),
            *_tell("read", {_WITHOUT_CLICK.format(idle.sum()): idle}, frame.index),
        )
        rows = np.flatnonzero(n_shown > 0)
        rows = rows[np.lexsort((users.codes[rows], times[rows]))]
        place = np.empty(len(frame), dtype=np.int64)
        place[rows] = np.arange(len(rows))
        table = table.iloc[np.argsort(place[table["row"].to_numpy()], kind="stable")]
        return cls(
            user_ids=users.labels[users.codes[rows]],
            timestamp=times[rows],
            offsets=np.concatenate(([0], np.cumsum(n_shown[rows]))),
            item_ids=catalog.item_ids,
            item_idx=table["item"].to_numpy(np.int64),
            is_clicked=table["is_clicked"].to_numpy(np.bool_),
            source_row=rows,
            findings=findings,
        )

    def __repr__(self) -> str:
        """Say how much it holds, in a line."""
        return f"Impressions({self.n_impressions:,} lists of {len(self.item_idx):,} items shown)"

    @property
    def n_impressions(self) -> int:
        """Number of lists."""
        return len(self.timestamp)

    @property
    def n_shown(self) -> IntArray:
        """(n_impressions,) items of each list."""
        return np.asarray(np.diff(self.offsets), dtype=np.int64)

    @property
    def n_clicked(self) -> IntArray:
        """(n_impressions,) items of each list that were clicked."""
        return np.bincount(self.list_of_item[self.is_clicked], minlength=self.n_impressions)

    @property
    def list_of_item(self) -> IntArray:
        """(n_shown,) the impression that showed each item."""
        return np.repeat(np.arange(self.n_impressions), self.n_shown)

    def select(self, chosen: IntArray) -> Impressions:
        """Give some of the impressions, by their rising positions."""
        return self._keep(np.isin(self.list_of_item, chosen), chosen)

    def before(self, cutoff: np.datetime64) -> Impressions:
        """Give the impressions before a cutoff; there may be none."""
        return self.select(np.arange(np.searchsorted(self.timestamp, cutoff, side="left")))

    def since(self, cutoff: np.datetime64) -> Impressions:
        """Give the impressions at or after a cutoff; there may be none."""
        first = int(np.searchsorted(self.timestamp, cutoff, side="left"))
        return self.select(np.arange(first, self.n_impressions))

    def align_to(self, catalog: Catalog) -> Impressions:
        """Give the impressions with ``item_idx`` pointing into another catalog.

        Items that it does not have are left out, and impressions of which none stays; a finding
        counts both.
        """
        if self.item_ids is catalog.item_ids:
            return self
        item_idx = catalog.item_ids.get_indexer(self.item_ids)[self.item_idx].astype(np.int64)
        known, lists = item_idx >= 0, self.list_of_item
        moved = replace(self, item_ids=catalog.item_ids, item_idx=item_idx)
        cut = np.unique(lists[~known])
        if not len(cut):
            return moved
        example = f"row {self.source_row[cut[0]]}"
        finding = Finding(UNKNOWN_SHOWN, len(cut), example, "changed")
        kept = moved._keep(known, np.unique(lists[known]))
        return replace(kept, findings=(*self.findings, finding))

    def _keep(self, shown: BoolArray, chosen: IntArray) -> Impressions:
        """Give these (n_shown,) items, which are of the chosen impressions alone."""
        n_shown = np.bincount(self.list_of_item[shown], minlength=self.n_impressions)[chosen]
        return replace(
            self,
            user_ids=self.user_ids[chosen],
            timestamp=self.timestamp[chosen],
            offsets=np.concatenate(([0], np.cumsum(n_shown))).astype(np.int64),
            item_idx=self.item_idx[shown],
            is_clicked=self.is_clicked[shown],
            source_row=self.source_row[chosen],
        )


def _read_lists(
    column: pd.Series[str], catalog: Catalog
) -> tuple[pd.DataFrame, dict[str, BoolArray]]:
    """Read what each row shows: a table of row, item and is_clicked, and the rows left in part."""
    written = column.fillna("").str.split().reset_index(drop=True).explode().dropna()
    rows, texts = written.index.to_numpy(np.int64), written.astype("str")
    items = catalog.item_ids.get_indexer(pd.Index(texts.str[:-2])).astype(np.int64)
    is_answered = texts.str.endswith(("-0", "-1")).to_numpy(np.bool_)
    kept = is_answered & (items >= 0)
    table = pd.DataFrame(
        {"row": rows, "item": items, "is_clicked": texts.str.endswith("-1").to_numpy(np.bool_)}
    )[kept]
    again = table.duplicated(["row", "item"]).to_numpy()
    hit = {
        UNKNOWN_SHOWN: rows[is_answered & (items < 0)],
        _WITHOUT_ANSWER: rows[~is_answered],
        _SHOWN_TWICE: table["row"].to_numpy()[again],
    }
    if again.any():
        table["is_clicked"] = table.groupby(["row", "item"])["is_clicked"].transform("any")
    return table[~again], {rule: _mask(found, len(column)) for rule, found in hit.items()}


def _mask(rows: IntArray, n_rows: int) -> BoolArray:
    """(n_rows,) whether each row is among some."""
    return np.asarray(np.bincount(rows, minlength=n_rows) > 0)


def _tell(
    effect: Effect, hit: Mapping[str, BoolArray], index: pd.Index[Any]
) -> tuple[Finding, ...]:
    """Tell which rules hit which (n_rows,) rows, each with the first one as its file has it."""
    return tuple(
        Finding(rule, int(rows.sum()), f"row {name_row(index, int(rows.argmax()))}", effect)
        for rule, rows in hit.items()
        if rows.any()
    )
