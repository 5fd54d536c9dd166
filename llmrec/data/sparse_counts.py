"""Category counts of many windows as sparse matrices: of 4,000 categories a window holds few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from llmrec.data.counts import HISTORIES_PER_BATCH, age_weighted_counts, target_counts
from llmrec.data.periods import History, Window
from llmrec.types import FloatArray


def sparse_age_weighted_counts(
    histories: Sequence[History], age_weights: FloatArray
) -> sparse.csr_array:
    """(n_histories, n_categories) what `age_weighted_counts` gives; at least one history."""
    starts = range(0, len(histories), HISTORIES_PER_BATCH)
    batches = (histories[start : start + HISTORIES_PER_BATCH] for start in starts)
    return sparse.vstack(
        [sparse.csr_array(age_weighted_counts(part, age_weights)) for part in batches], "csr"
    )


def sparse_target_counts(windows: Sequence[Window]) -> sparse.csr_array:
    """(n_windows, n_categories) what `target_counts` gives; at least one window."""
    starts = range(0, len(windows), HISTORIES_PER_BATCH)
    batches = (windows[start : start + HISTORIES_PER_BATCH] for start in starts)
    return sparse.vstack([sparse.csr_array(target_counts(part)) for part in batches], "csr")


def sparse_row_shares(counts: sparse.csr_array) -> sparse.csr_array:
    """Divide each row of (n, n_categories) counts by its sum; rows of 0 stay 0."""
    totals = np.asarray(counts.sum(axis=1))
    divisors = np.repeat(np.where(totals > 0, totals, 1.0), np.diff(counts.indptr))
    return sparse.csr_array((counts.data / divisors, counts.indices, counts.indptr), counts.shape)
