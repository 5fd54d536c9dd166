"""Of large catalogs few people are scored at a time; their rows are the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmrec.batch import BatchOptions, run_batch
from llmrec.data.readers import read_table
from llmrec.data.splits import past_windows
from llmrec.engine import InterestEngine
from llmrec.ranking import blocks
from llmrec.ranking.blend import Blend
from llmrec.ranking.gbdt import GBDTReranker, RankingFold
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from tests.batch.conftest import labelled, make_events


@pytest.fixture(params=["scorers", "trees"])
def blend_folder(request: pytest.FixtureRequest, engine_folder: Path, tmp_path: Path) -> Path:
    """An engine whose list is one of scorers, or of trees over their scores."""
    if request.param == "scorers":
        return engine_folder
    pytest.importorskip("lightgbm")
    engine = InterestEngine.from_pretrained(str(engine_folder), model=None)
    past = past_windows(read_table(labelled(make_events()), name="small", period="14D"))
    scorers = [RecentPopularity(), PersonalRepeat()]
    trees = GBDTReranker(candidates=20, max_trees=5)
    trees.fit([RankingFold(scorers, windows) for windows in past[2::-1]])
    assert trees.n_leaves > trees.n_trees
    engine.blend = Blend(scorers, (0.5, 0.0), trees, 1.0)
    engine.save_pretrained(tmp_path / "with trees")
    return tmp_path / "with trees"


@pytest.mark.parametrize("scores", [1, 700])
def test_rows_are_the_same_to_the_bit_however_few_people_are_scored_at_a_time(
    blend_folder: Path,
    events: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: int,
) -> None:
    log, options = tmp_path / "events.parquet", BatchOptions(k=4)
    events.to_parquet(log)
    run_batch(blend_folder, log, tmp_path / "together", options)
    monkeypatch.setattr(blocks, "MAX_SMALL_CATALOG", 0)
    monkeypatch.setattr(blocks, "SCORES_PER_BLOCK", scores)
    run_batch(blend_folder, log, tmp_path / "apart", options)
    for table in ("recommendations", "forecasts"):
        found, expected = (
            pd.read_parquet(tmp_path / name / table) for name in ("apart", "together")
        )
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
