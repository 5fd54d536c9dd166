"""A small engine and its people's events, which all tests of batches share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec.batch import shards
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from tests.worlds import CATEGORIES, START

N_PEOPLE = 40


def make_events(n_people: int = N_PEOPLE, seed: int = 0) -> pd.DataFrame:
    """Make people who take 30 items of five categories, each with a taste that stays."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_people):
        taste = rng.dirichlet(np.ones(5))
        for _ in range(int(rng.integers(5, 40))):
            item = int(rng.choice(5, p=taste)) + 5 * int(rng.integers(6))
            time = START + np.timedelta64(int(rng.integers(98 * 24 * 3600)), "s")
            rows.append((f"u{user:03d}", f"i{item:03d}", time))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


def labelled(events: pd.DataFrame) -> pd.DataFrame:
    """Give the events with titles and categories of their items."""
    numbers = events["item_id"].str[1:].astype(int)
    return events.assign(
        title="Title " + numbers.astype(str), categories=[CATEGORIES[n % 5] for n in numbers]
    )


@pytest.fixture(scope="session")
def events() -> pd.DataFrame:
    """Events of forty people."""
    return make_events()


@pytest.fixture(scope="session")
def engine_folder(events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that was fitted on them, saved."""
    dataset = read_table(labelled(events), name="small", period="14D")
    folder = tmp_path_factory.mktemp("engine") / "engine"
    engine = InterestEngine.from_pretrained(data=dataset, model=None, refit=True)
    engine.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of few people, so that small logs have several."""
    monkeypatch.setattr(shards, "EVENTS_PER_CELL", 150)
