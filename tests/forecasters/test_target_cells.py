"""The loss at the cells of the targets is the loss of the whole table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llmrec.data.counts import normalize_rows
from llmrec.forecasters.target_cells import TargetCells
from llmrec.metrics import mean_log_loss

tables = st.tuples(st.integers(1, 6), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=st.floats(0, 50)),
        arrays(np.float64, shape, elements=st.floats(0.01, 50)),
    )
)


@given(tables)
def test_the_loss_at_the_cells_is_that_of_all_weights(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, weights = table[0], normalize_rows(table[1])
    cells = TargetCells.of(targets)
    assert len(cells.rows) == np.count_nonzero(targets)
    expected = mean_log_loss(weights, targets)
    assert cells.mean_log_loss(cells.take(weights)) == pytest.approx(expected, abs=1e-12)


@given(tables, st.integers(1, 20))
def test_cells_collected_in_blocks_are_those_of_the_whole(
    table: tuple[np.ndarray, np.ndarray], block: int
) -> None:
    targets, weights = table
    cells = TargetCells.of(targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmrec.forecasters.target_cells.CELLS_PER_BLOCK", block)
        found, totals = cells.collect(lambda rows: weights[rows])
    np.testing.assert_array_equal(found, cells.take(weights))
    np.testing.assert_array_equal(totals, weights.sum(axis=1)[cells.rows])
