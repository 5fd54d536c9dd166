from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.ranking.baselines import CachedNets
from benchmarks.ranking.rectools import IsolatedPython, sequence_chunks
from benchmarks.ranking.splits import leave_one_out
from llmrec.data.interactions import Interactions
from llmrec.data.readers import read_table
from llmrec.forecasters.sequential_nets import MAX_SEQUENCE

COUNTING = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
stage = np.load(folder / "stage.npz")
rows = np.zeros((len(stage["users"]), settings["n_items"]))
for row, user in zip(rows, stage["users"]):
    np.add.at(row, stage["item"][stage["user"] == user], settings["weight"])
np.save(folder / "rows.npy", rows)
"""


def test_an_isolated_python_sees_histories_alone_and_its_scores_are_cached(tmp_path: Path) -> None:
    users, items = ["ann"] * 4 + ["bob"] * 3, ["i0", "i1", "i1", "i2", "i2", "i3", "i0"]
    hours = pd.date_range("2020-01-01", periods=7, freq="h")
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": hours})
    dataset = read_table(frame.assign(title=items, categories="x"), period="2 events")
    stage = leave_one_out(dataset).tests["test"]
    script = tmp_path / "counting.py"
    script.write_text(COUNTING, encoding="utf-8")
    build = CachedNets(tmp_path / "nets", IsolatedPython(Path(sys.executable), script))
    settings = {"model": "counting", "weight": 2.0}
    cached = build(settings, stage, dataset.catalog, seed=0)
    assert cached.scores(stage.histories).tolist() == [[2, 4, 0, 0], [0, 0, 2, 2]]
    script.unlink()
    assert (build(settings, stage, dataset.catalog, seed=0).rows == cached.rows).all()


def test_older_events_become_users_who_are_never_scored() -> None:
    n = 2 * MAX_SEQUENCE + 1
    users = ["ann"] * n + ["bob"] * 2
    hours = pd.date_range("2020-01-01", periods=n + 2, freq="h")
    log = Interactions.from_frame(
        pd.DataFrame({"user_id": users, "item_id": "i", "timestamp": hours})
    )
    ann, bob = [4] + [2] * MAX_SEQUENCE + [0] * MAX_SEQUENCE, [1, 1]
    assert sequence_chunks(log).tolist() == ann + bob
