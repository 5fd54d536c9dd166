"""How long the mixture and its members take to fit where categories are many.

2,000 made-up people of tastes of their own take about 15 of 4,000 categories in each of 12 weeks.
CPU seconds of one thread to fit each member and forecast the last week, then of choosing the
mixture; the whole process' peak memory.

Run: python -m benchmarks.speed.many_categories
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.harness.results import record_results
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.splits import past_windows
from llmrec.forecasters.registry import ForecasterRegistry, mixture_experts
from llmrec.forecasters.selection import select_mixture

N_CATEGORIES, N_USERS, N_WEEKS, N_EVENTS = 4_000, 2_000, 12, 15
N_TASTES, FAVOURITES = 40, 120  # groups of people, and the categories that a group likes
START = np.datetime64("2024-01-01", "ms")


def make_log() -> Dataset:
    """Make people who mostly take what their group likes, in weeks."""
    rng = np.random.default_rng(0)
    names = [f"i{item:04d}" for item in range(N_CATEGORIES)]
    items = Catalog.from_frame(
        pd.DataFrame({"item_id": names, "categories": [[f"kind {name}"] for name in names]})
    )
    liked = np.stack([rng.permutation(N_CATEGORIES)[:FAVOURITES] for _ in range(N_TASTES)])
    n = N_USERS * N_WEEKS * N_EVENTS
    users = np.repeat(np.arange(N_USERS), N_WEEKS * N_EVENTS)
    own = liked[users % N_TASTES, np.minimum(rng.geometric(0.03, n) - 1, FAVOURITES - 1)]
    taken = np.where(rng.random(n) < 0.7, own, rng.integers(N_CATEGORIES, size=n))
    minutes = np.tile(np.repeat(np.arange(N_WEEKS), N_EVENTS), N_USERS) * 7 * 24 * 60
    minutes += rng.integers(7 * 24 * 60, size=n)
    frame = pd.DataFrame(
        {
            "user_id": users.astype(str),
            "item_id": np.array(names)[taken],
            "timestamp": START + minutes.astype("timedelta64[m]"),
        }
    )
    log = Interactions.from_frame(frame).align_to(items)
    return Dataset("many categories", log, items, "7D", "items", "person", "allow")


def main() -> None:
    """Fit member by member, then the mixture, and record what each took."""
    torch.set_num_threads(1)
    folds = past_windows(make_log())
    validation = folds[0]
    training = [window for fold in folds[:0:-1] for window in fold]
    registry = ForecasterRegistry(training, validation)
    rows, experts = [], dict[str, Any]()
    histories = [window.history for window in validation]
    names = [name for name in mixture_experts(N_CATEGORIES) if name != "CellMLP"]
    start = time.process_time()
    for name in ("DecayedDirichlet", *names, "CellMLP"):
        before = time.process_time()
        expert = registry[name]
        expert.forecast(histories)
        experts |= {} if name == "DecayedDirichlet" else {name: expert}
        rows.append(make_row(name, "cpu_seconds", time.process_time() - before))
    before = time.process_time()
    selection = select_mixture(experts, validation, counting=registry["DecayedDirichlet"])
    rows.append(make_row("select_mixture", "cpu_seconds", time.process_time() - before))
    rows.append(make_row("all", "cpu_seconds", time.process_time() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(make_row("all", "peak_mib", peak))
    if selection.gain is not None:
        rows.append(make_row("select_mixture", "held_out_gain", selection.gain[0]))
    record_results("speed/many_categories", rows)


def make_row(model: str, metric: str, value: float) -> dict[str, object]:
    """Make a row of the results."""
    keys = {"dataset": "many categories", "split": "fit", "model": model, "metric": metric}
    return keys | {"value": value, "low": None, "high": None, "n": N_USERS, "seeds": [0]}


if __name__ == "__main__":
    main()
