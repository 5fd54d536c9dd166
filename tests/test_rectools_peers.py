from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from benchmarks.ranking.baselines import KeptNets
from benchmarks.ranking.splits import leave_one_out
from benchmarks.ranking.rectools import OtherPython, pieces
from llmrec.data.interactions import Interactions
from llmrec.data.readers import read_table
from llmrec.forecasters.sequential_nets import MAX_SEQUENCE

COUNTING = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
told = json.loads((folder / "settings.json").read_text())
stage = np.load(folder / "stage.npz")
rows = np.zeros((len(stage["asked"]), told["n_items"]))
for row, user in zip(rows, stage["asked"]):
    np.add.at(row, stage["item"][stage["user"] == user], told["worth"])
np.save(folder / "rows.npy", rows)
"""


def test_another_python_sees_the_past_alone_and_what_it_says_is_kept(tmp_path: Path) -> None:
    users, items = ["ann"] * 4 + ["bob"] * 3, ["i0", "i1", "i1", "i2", "i2", "i3", "i0"]
    hours = pd.date_range("2020-01-01", periods=7, freq="h")
    frame = pd.DataFrame({"user_id": users, "item_id": items, "timestamp": hours})
    dataset = read_table(frame.assign(title=items, categories="x"), period="2 events")
    stage = leave_one_out(dataset).tests["test"]
    script = tmp_path / "counting.py"
    script.write_text(COUNTING, encoding="utf-8")
    build = KeptNets(tmp_path / "nets", OtherPython(Path(sys.executable), script))
    settings = {"model": "counting", "worth": 2.0}
    said = build(settings, stage, dataset.catalog, seed=0)
    assert said.scores(stage.histories).tolist() == [[2, 4, 0, 0], [0, 0, 2, 2]]
    script.unlink()
    assert (build(settings, stage, dataset.catalog, seed=0).rows == said.rows).all()


def test_older_events_become_users_who_are_never_asked() -> None:
    n = 2 * MAX_SEQUENCE + 1
    users = ["ann"] * n + ["bob"] * 2
    hours = pd.date_range("2020-01-01", periods=n + 2, freq="h")
    log = Interactions.from_frame(
        pd.DataFrame({"user_id": users, "item_id": "i", "timestamp": hours})
    )
    ann, bob = [4] + [2] * MAX_SEQUENCE + [0] * MAX_SEQUENCE, [1, 1]
    assert pieces(log).tolist() == ann + bob
