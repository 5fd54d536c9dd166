"""RecTools' nets as baselines. Another Python trains them: RecTools excludes our pins."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.ranking.baselines import Baseline, CachedNets, Settings
from benchmarks.ranking.splits import RankingStage
from llmrec.data.interactions import Interactions
from llmrec.forecasters.sequential_nets import BATCH_SIZE, BLOCKS, FACTORS, HEADS, MAX_SEQUENCE
from llmrec.types import FloatArray, IntArray

SIZES = {  # of our own nets
    "session_max_len": MAX_SEQUENCE,
    "n_factors": FACTORS,
    "n_blocks": BLOCKS,
    "n_heads": HEADS,
    "batch_size": BATCH_SIZE,
}
RATE = 4e-3
RECTOOLS = {
    "SASRec of RecTools": {"model": "SASRecModel", "lr": RATE, "dropout_rate": 0.4},
    "BERT4Rec of RecTools": {"model": "BERT4RecModel", "lr": RATE, "mask_prob": 0.3},
}
EPOCHS = {"ml-100k": (8, 16), "completejourney": (1,)}  # the latter's are ten times as long
SCRIPT = Path(__file__).with_name("rectools_worker.py")


@dataclass(frozen=True)
class IsolatedPython:
    """Trains a net, and scores with it, by a script in another environment.

    The script reads ``settings.json`` and ``stage.npz`` in the folder that it is given: user and
    item of each event, a user's oldest first, and the users to score (``users``). It writes
    ``rows.npy`` there.
    The start of that Python, some seconds, counts as the net's time.
    """

    python: Path
    script: Path = SCRIPT

    def __call__(self, settings: Settings, stage: RankingStage, seed: int) -> FloatArray:
        """(n_windows, n_items) scores; -inf where the net does not know the person or the item."""
        history = stage.windows[0].history  # its log is that of all, and has the catalog's items
        values = SIZES | dict(settings) | {"seed": seed, "n_items": history.catalog.n_items}
        users = [one.user_idx for one in stage.histories]
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
            user, item = sequence_chunks(history.log), history.log.item_idx
            np.savez(folder / "stage.npz", user=user, item=item, users=users)
            command = [str(self.python), str(self.script), name]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            return np.asarray(np.load(folder / "rows.npy"), np.float64)


def sequence_chunks(log: Interactions) -> IntArray:
    """(n_events,) user of each event: the person, or for older events one who is never scored.

    RecTools learns from a user's newest session_max_len events, or one more, and from no others.
    So the newest `MAX_SEQUENCE` stay a person's, and every `MAX_SEQUENCE` before become a user's.
    """
    newer = log.user_offsets[log.user_idx + 1] - 1 - np.arange(len(log))
    return np.asarray(log.user_idx + newer // MAX_SEQUENCE * log.n_users)


def rectools_baselines(dataset: str, folder: Path, python: Path) -> list[Baseline]:
    """Give a log's baselines, none for a log that they are not set for.

    Their scores are cached in a folder, as those of our nets are.
    """
    build = CachedNets(folder, IsolatedPython(python))
    return [
        Baseline(name, build, [own | {"epochs": n} for n in EPOCHS[dataset]], seeded=True)
        for name, own in RECTOOLS.items()
        if dataset in EPOCHS
    ]
