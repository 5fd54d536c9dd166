"""Train a net of RecTools on a stage's events, and write what it says of the people asked.

It imports nothing of ours: it runs in an environment of its own, see `benchmarks.ranking.rectools`.
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
    """Read a stage and settings; write ``rows.npy``, (n_asked, n_items), -inf for the unknown."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    kind, n_items = settings.pop("model"), settings.pop("n_items")
    seed_everything(settings.pop("seed"))
    with np.load(folder / "stage.npz") as stage:
        asked = stage["asked"]
        dataset = Dataset.construct(_in_order(stage["user"], stage["item"]))
    model = getattr(rectools.models, kind)(**settings).fit(dataset)
    said = model.recommend(asked, dataset, k=n_items, filter_viewed=False)
    row_of = pd.Series(np.arange(len(asked)), index=asked)
    rows = np.full((len(asked), n_items), -np.inf, np.float32)
    rows[row_of[said[Columns.User]], said[Columns.Item]] = said[Columns.Score]
    np.save(folder / "rows.npy", rows)


def _in_order(user: np.ndarray, item: np.ndarray) -> pd.DataFrame:
    """Let events that are in order happen a second apart: many share a time in truth."""
    time = pd.to_datetime(np.arange(len(user)), unit="s")
    columns = (user, item, 1.0, time)
    return pd.DataFrame(dict(zip(Columns.Interactions, columns, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
