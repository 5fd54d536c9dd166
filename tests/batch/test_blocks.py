"""Of large catalogs few people are scored at a time; their rows are the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmrec.batch import BatchOptions, run_batch
from llmrec.ranking import blocks


@pytest.mark.parametrize("scores", [1, 700])
def test_rows_are_the_same_to_the_bit_however_few_people_are_scored_at_a_time(
    engine_folder: Path,
    events: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: int,
) -> None:
    log, options = tmp_path / "events.parquet", BatchOptions(k=4)
    events.to_parquet(log)
    run_batch(engine_folder, log, tmp_path / "together", options)
    monkeypatch.setattr(blocks, "MAX_SMALL_CATALOG", 0)
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", scores)
    run_batch(engine_folder, log, tmp_path / "apart", options)
    for table in ("recommendations", "forecasts"):
        found, expected = (
            pd.read_parquet(tmp_path / name / table) for name in ("apart", "together")
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
