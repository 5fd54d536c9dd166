"""Sparse counts hold what dense ones hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmrec.data import counts
from llmrec.data.catalog import Catalog
from llmrec.data.counts import age_weighted_counts, row_shares, target_counts
from llmrec.data.periods import Window
from llmrec.data.sparse_counts import (
    sparse_age_weighted_counts,
    sparse_row_shares,
    sparse_target_counts,
)
from llmrec.data.windows import make_windows
from tests.worlds import CATEGORIES, START, log, small_world


def windows_of(seed: int) -> list[Window]:
    """Windows of items with one to three categories; one history is empty."""
    rng = np.random.default_rng(seed)
    several = [list(rng.permutation(CATEGORIES)[: 1 + item % 3]) for item in range(25)]
    names = [f"i{item:03d}" for item in range(25)]
    items = Catalog.from_frame(pd.DataFrame({"item_id": names, "categories": several}))
    week = START + np.timedelta64(21, "D")
    return make_windows(log(n_users=14, seed=seed).align_to(items), items, "7D", week)


@pytest.mark.parametrize("batch", [1, 5, 256])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_dense_functions(
    seed: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "HISTORIES_PER_BATCH", batch)
    monkeypatch.setattr("llmrec.data.sparse_counts.HISTORIES_PER_BATCH", batch)
    windows = windows_of(seed)
    histories = [window.history for window in windows]
    weights = np.power(0.7, np.arange(5))
    dense = age_weighted_counts(histories, weights)
    found = sparse_age_weighted_counts(histories, weights)
    assert (found.toarray() == dense).all()
    assert (sparse_target_counts(windows).toarray() == target_counts(windows)).all()
    np.testing.assert_allclose(
        sparse_row_shares(found).toarray(), row_shares(dense), rtol=1e-14, atol=0
    )


def test_a_history_without_events_is_a_row_of_nothing() -> None:
    histories = [window.history for window in small_world(n_users=3, empty=True)]
    shares = sparse_row_shares(sparse_age_weighted_counts(histories, np.ones(3)))
    assert shares.shape == (3, 5)
    assert shares.nnz == 0
