"""Kinds of statements about the next period: of what they can be said, and when they come true."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llmrec.beta_binomial import cdf, log_pmf, mean_none
from llmrec.data.counts import row_shares
from llmrec.forecast import STATEMENT_KINDS, StatementKind
from llmrec.forecasters.next_events import EventNumbers
from llmrec.forecasters.past_counts import PastCounts
from llmrec.types import BoolArray, FloatArray

SHARE_KINDS: tuple[StatementKind, ...] = ("rising", "fading")  # true only if there is an event
MIN_PERIODS = 2  # non-empty ones that a past share needs to be compared with
TOLERANCE = 1e-6  # of shares that are the same
MIN_PROBABILITY = 1e-6
CELLS_PER_BATCH = 2**13


def where_applicable(past: PastCounts) -> dict[StatementKind, BoolArray]:
    """(n_histories, n_categories) of which categories each kind of statement can be said.

    "again" of one taken in the newest two non-empty periods, "returning" of one that was taken
    before, "new" of one never taken, the others of any that was taken. Where a share is compared
    with the past, or lately with before, two non-empty periods are needed.
    """
    taken, recent = past.was_taken, past.is_recent
    compared = (past.n_periods >= MIN_PERIODS)[:, None]
    return {
        "again": taken & recent,
        "fading": taken & compared,
        "nothing of": taken,
        "rising": taken & compared,
        "new": ~taken,
        "returning": taken & ~recent & compared,
    }


def statement_outcomes(past: PastCounts, targets: FloatArray) -> dict[StatementKind, BoolArray]:
    """(n_histories, n_categories) whether each statement came true in a period.

    ``targets`` are its (n_histories, n_categories) counts. Of a period without events "nothing of"
    is true and nothing else.
    """
    shares, taken = row_shares(targets), targets > 0
    rising = shares > past.shares + TOLERANCE
    some = taken.any(axis=1, keepdims=True)
    fading = (shares < past.shares - TOLERANCE) & some
    return {
        "again": taken,
        "fading": fading,
        "nothing of": ~taken,
        "rising": rising,
        "new": taken,
        "returning": taken,
    }


def raw_probabilities(
    past: PastCounts,
    event_shares: FloatArray,
    concentration: FloatArray,
    numbers: EventNumbers,
    per_share: FloatArray,
    kinds: Collection[StatementKind] = STATEMENT_KINDS,
) -> dict[StatementKind, FloatArray]:
    """(n_histories, n_categories) probability of each statement, before calibration.

    The mean over the numbers n of events of the beta-binomial's: "again", "new" and
    "returning" are P(K > 0), "nothing of" is P(K = 0), "rising" is P(K > n * past share) and
    "fading" P(K < n * past share), both given that there is an event. NaN where a statement cannot
    be said.

    Parameters
    ----------
    event_shares, concentration
        (n_histories, n_categories) of `CategoryDispersion`.
    numbers
        What `NextPeriodEvents` gives.
    per_share
        (n_categories,) `events_per_share`.
    kinds
        Which kinds to give; "new" is said of most of many categories, and so takes longest.
    """
    a, b = concentration * event_shares, concentration * (1 - event_shares)
    applicable = {kind: mask for kind, mask in where_applicable(past).items() if kind in kinds}
    none = np.full(a.shape, np.nan)
    rows, columns = np.nonzero(
        np.logical_or.reduce([applicable[kind] for kind in kinds if kind not in SHARE_KINDS])
    )
    some = (1 - numbers.none)[rows]
    mean = mean_none(numbers.some[rows], a[rows, columns], b[rows, columns])
    none[rows, columns] = 1 - some + some * mean
    rows, columns = np.nonzero(applicable["rising"])
    cells = a[rows, columns], b[rows, columns]
    limit = (past.shares * per_share)[rows, columns]
    below, above = _mean_tails(numbers.some[rows], limit, *cells)
    found: dict[StatementKind, FloatArray] = {}
    for kind, mask in applicable.items():
        values = np.full(a.shape, np.nan)
        if kind in SHARE_KINDS:
            values[rows, columns] = above if kind == "rising" else below
        else:
            values[mask] = none[mask] if kind == "nothing of" else 1 - none[mask]
        found[kind] = np.clip(values, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return found


def _mean_tails(
    numbers: FloatArray, limit: FloatArray, a: FloatArray, b: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Two (n_cells,) means over n of P(K < n * limit) and P(K > n * limit), n > 0.

    ``numbers`` are (n_cells, n_numbers), the others (n_cells,).
    """
    below, above = np.empty(len(a)), np.empty(len(a))
    for start in range(0, len(a), CELLS_PER_BATCH):
        rows = slice(start, start + CELLS_PER_BATCH)
        n, first, second = np.broadcast_arrays(numbers[rows], a[rows, None], b[rows, None])
        edge = n * limit[rows, None]
        less = cdf(np.ceil(edge - TOLERANCE) - 1, n, first, second)
        whole = np.rint(edge)
        same = (np.abs(edge - whole) <= TOLERANCE) & (whole <= n)
        equal = np.zeros(n.shape)
        equal[same] = np.exp(log_pmf(whole[same], n[same], first[same], second[same]))
        below[rows] = less.mean(axis=1)
        above[rows] = np.clip(1 - less - equal, 0, 1).mean(axis=1)
    return below, above
