"""Cancellations on lines of invoices: which purchases they take back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from llmrec.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Cancellations:
    """What cancelling lines did.

    Attributes
    ----------
    matched
        (n_lines,) the cancelling lines that took something back.
    taken_back
        (n_lines,) the purchases that were wholly taken back.
    """

    matched: BoolArray
    taken_back: BoolArray


def find_cancellations(
    lines: pd.DataFrame,
    quantities: FloatArray,
    *,
    purchases: BoolArray,
    cancellations: BoolArray,
) -> Cancellations:
    """Let cancellations take back the person's newest earlier purchases of the same item.

    A cancelling line takes back as many pieces as it has, of the newest purchase first; one at the
    time of a purchase comes after it, and those of one time are in the order of their invoices.
    Lines of one invoice, item and time are one purchase, which is taken back once all its pieces
    are.

    Parameters
    ----------
    lines
        (n_lines, 4): person, item, time and invoice; no missing value in what is looked at.
    quantities
        (n_lines,) > 0, of purchases and cancellations alike.
    purchases, cancellations
        (n_lines,) which lines are looked at; none is both.
    """
    person, item, time, invoice = lines.columns
    pairs, purchase_of = _number_groups(lines[[person, item]]), _number_groups(lines)
    rows = np.flatnonzero((purchases | cancellations) & np.isin(pairs, pairs[cancellations]))
    moments = lines[time].to_numpy("datetime64[ms]").view(np.int64)
    invoices = pd.factorize(lines[invoice], sort=True)[0]
    order = (quantities, invoices, cancellations, moments, pairs)  # the last weighs most
    keys = [one[rows] for one in order]
    rows = rows[np.lexsort(keys)]
    matched = np.zeros(len(lines), dtype=bool)
    taken_back: list[int] = []
    for _, same in groupby(rows.tolist(), key=pairs.__getitem__):
        _take_back(list(same), purchase_of, quantities, cancellations, matched, taken_back)
    return Cancellations(matched, purchases & np.isin(purchase_of, taken_back))


def _number_groups(frame: pd.DataFrame) -> IntArray:
    """(n_rows,) which rows are equal, as numbers."""
    numbers = frame.groupby([*frame], sort=False, dropna=False).ngroup()
    return np.asarray(numbers, dtype=np.int64)


def _take_back(
    rows: list[int],
    purchase_of: IntArray,
    quantities: FloatArray,
    cancellations: BoolArray,
    matched: BoolArray,
    taken_back: list[int],
) -> None:
    """Go through the rows of one person and item in order of time, and note what is taken back."""
    left: dict[int, float] = {}  # pieces of purchases, the oldest first
    for row in rows:
        if not cancellations[row]:
            purchase = int(purchase_of[row])
            left[purchase] = left.get(purchase, 0.0) + float(quantities[row])
            continue
        to_take = float(quantities[row])
        while left and to_take > 0:
            matched[row] = True
            purchase, pieces = left.popitem()
            if pieces > to_take:
                left[purchase] = pieces - to_take
            else:
                taken_back.append(purchase)
            to_take -= pieces
