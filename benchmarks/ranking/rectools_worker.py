"""Train a net of RecTools on a stage's events, and write its scores of some people.

It imports nothing of llmrec: it runs in another environment, see `benchmarks.ranking.rectools`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import rectools.models
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset


def main(folder: Path) -> None:
    """Read a stage and settings; write ``rows.npy``, (n_users, n_items), -inf for the unknown."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    kind, n_items = settings.pop("model"), settings.pop("n_items")
    seed_everything(settings.pop("seed"))
    with np.load(folder / "stage.npz") as stage:
        users = stage["users"]
        dataset = Dataset.construct(_in_order(stage["user"], stage["item"]))
    model = getattr(rectools.models, kind)(**settings).fit(dataset)
    recommended = model.recommend(users, dataset, k=n_items, filter_viewed=False)
    row_of = pd.Series(np.arange(len(users)), index=users)
    rows = np.full((len(users), n_items), -np.inf, np.float32)
    row = row_of[recommended[Columns.User]]
    rows[row, recommended[Columns.Item]] = recommended[Columns.Score]
    np.save(folder / "rows.npy", rows)


def _in_order(user: np.ndarray, item: np.ndarray) -> pd.DataFrame:
    """Give events, which are in order, times a second apart: many share their real time."""
    time = pd.to_datetime(np.arange(len(user)), unit="s")
    columns = (user, item, 1.0, time)
    return pd.DataFrame(dict(zip(Columns.Interactions, columns, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
