"""Small worlds whose answers are known, made afresh for each test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.windows import make_windows

CATEGORIES = ("Action", "Comedy", "Drama", "Horror", "War")
START = np.datetime64("2020-01-01T12:00:00", "s")


def catalog(n_items: int = 25, titles: str = "Title") -> Catalog:
    """Items 0..n-1; item i belongs to category i mod 5 only."""
    return Catalog.from_frame(
        pd.DataFrame(
            {
                "item_id": [f"i{item:03d}" for item in range(n_items)],
                "title": [f"{titles} {item}" for item in range(n_items)],
                "categories": [[CATEGORIES[item % 5]] for item in range(n_items)],
            }
        )
    )


def log(n_users: int = 20, n_periods: int = 6, n_items: int = 25, seed: int = 0) -> Interactions:
    """Users with a favourite category that gives way to another one over 7-day periods."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        first, second = rng.permutation(5)[:2]
        for period in range(n_periods):
            share = period / max(1, n_periods - 1)
            for _ in range(int(rng.integers(6, 12))):
                favourite = second if rng.random() < share else first
                category = favourite if rng.random() < 0.8 else rng.integers(5)
                item = int(category) + 5 * int(rng.integers(n_items // 5))
                time = START + np.timedelta64(period * 7, "D")
                time += np.timedelta64(int(rng.integers(7 * 24 * 3600)), "s")
                rows.append((f"u{user:03d}", f"i{item:03d}", time))
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))


def without_log(histories: Sequence[History]) -> list[History]:
    """Make the histories again, of each person's events alone and of what everybody took."""
    first = histories[0]
    dataset = Dataset.without_log(
        "engine",
        first.catalog,
        first.population,
        period=str(first.period_length),
        noun="films",
        person="viewer",
        repeat="allow",
    )
    frames = [
        pd.DataFrame(
            {
                "user_id": history.user_id,
                "item_id": history.catalog.item_ids[history.item_idx],
                "timestamp": history.log.timestamp[history.event_ids],
            }
        )
        for history in histories
    ]
    return [
        dataset.new_user_history(frame, history.cutoff, is_clean=True, allow_empty=True)
        for frame, history in zip(frames, histories, strict=True)
    ]


def small_world(
    n_users: int = 20,
    n_periods: int = 6,
    *,
    titles: str = "Title",
    empty: bool = False,
    seed: int = 0,
) -> list[Window]:
    """Windows of 7-day periods whose target is the last one; ``empty``: histories hold nothing."""
    items = catalog(titles=titles)
    events = log(n_users, n_periods, seed=seed).align_to(items)
    cutoff = events.timestamp.min() + np.timedelta64(7 * (n_periods - 1), "D")
    windows = make_windows(events, items, "7D", cutoff)
    if not empty:
        return windows
    early = events.timestamp.min()
    histories = make_histories(events, items, "7D", early, [w.history.user_idx for w in windows])
    return [Window(h, w.target) for h, w in zip(histories, windows, strict=True)]
