"""Loads an engine from its folder, without the log, and ranks for people whose events are given.

`benchmarks.engines.whole` runs it in a process of its own: it times the import and the loading, so
that it imports nothing large before.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrec.data.periods import History
    from llmrec.engine import InterestEngine

EVENTS_FILE, LISTS_FILE, TIMES_FILE = "events.parquet", "lists.npz", "times.json"
K = 50


def main(folder: str, work: Path) -> None:
    """Load an engine, and rank for everybody in `EVENTS_FILE`; write `LISTS_FILE`, `TIMES_FILE`."""
    start = time.perf_counter()
    from llmrec import InterestEngine

    imported = time.perf_counter()
    engine = InterestEngine.from_pretrained(folder, model=None)
    loaded = time.perf_counter()
    import numpy as np
    import pandas as pd

    events = pd.read_parquet(work / EVENTS_FILE)
    histories = [
        engine.dataset.new_user_history(frame, engine.cutoff, is_clean=True)
        for _, frame in events.groupby("user_id", sort=False)
    ]
    np.savez(work / LISTS_FILE, **rank_people(engine, histories))
    times = {
        "seconds to load": loaded - imported,
        "seconds to import and load": loaded - start,
        "seconds of a list": _seconds_of_list(engine, histories[0]),
    }
    (work / TIMES_FILE).write_text(json.dumps(times), encoding="utf-8")


def rank_people(engine: InterestEngine, histories: Sequence[History]) -> dict[str, Any]:
    """Rank for people one by one: items and scores of all, one behind the other, and how many."""
    import numpy as np

    rankings = [engine.session(history).ranking(K) for history in histories]
    return {
        "items": np.concatenate([ranking.item_idx for ranking in rankings]),
        "scores": np.concatenate([ranking.scores for ranking in rankings]),
        "sizes": np.array([len(ranking.item_idx) for ranking in rankings]),
    }


def _seconds_of_list(engine: InterestEngine, history: History) -> float:
    start = time.perf_counter()
    engine.session(history).ranking(K)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
