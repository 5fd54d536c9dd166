"""A made-up log with hostile texts, an engine of it that knows what comes later, and its pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fastapi import FastAPI

from llmrec.data.dataset import Dataset
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from llmrec.evaluation import save_forecasts
from llmrec.ranking.edits import Edit
from llmrec.serve.access import Access, AccessMiddleware
from llmrec.serve.pages import PageSources, pages_router
from llmrec.session import UserSession
from llmrec.types import RepeatPolicy
from tests.worlds import CATEGORIES, START

SCRIPT = "<script>window.hostile = 1</script>"
IMAGE = '"><img src=x onerror="window.hostile = 1">'
PERSON, NEIGHBOUR, HOSTILE_PERSON = "u005", "u006", "a/b <script>"
PERIOD_DAYS, N_PERIODS, N_PEOPLE = 7, 10, 70
CUTOFF = np.datetime64("2020-02-26", "D")  # before the last two periods


@dataclass
class Live:
    """An engine as a live one is asked."""

    engine: InterestEngine

    def session(
        self,
        user_id: object,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        repeat: RepeatPolicy | None = None,
    ) -> UserSession:
        return self.engine.session(user_id, edits=edits, strength=strength, repeat=repeat)


def hostile_log() -> Dataset:
    """People with tastes of their own; every title is one that a page must not run."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(N_PEOPLE):
        taste = rng.dirichlet(np.ones(5))
        for _ in range(40):
            item = int(rng.choice(5, p=taste)) + 5 * int(rng.integers(8))
            seconds = int(rng.integers(N_PERIODS * PERIOD_DAYS * 24 * 3600))
            title = f"{SCRIPT if item % 2 else IMAGE} {item}"
            user_id = HOSTILE_PERSON if user == 7 else f"u{user:03d}"
            time = START + np.timedelta64(seconds, "s")
            rows.append((user_id, f"i/{item:03d}", time, title, CATEGORIES[item % 5]))
    columns = ["user_id", "item_id", "timestamp", "title", "categories"]
    return read_table(pd.DataFrame(rows, columns=columns), name="made up", period="7D")


@dataclass
class World:
    """What the pages are made of."""

    whole: Dataset
    engine: InterestEngine
    forecasts: Path

    @classmethod
    def make(cls, folder: Path) -> World:
        """Fit an engine before the cutoff, save it, and store two people's forecasts."""
        whole = hostile_log()
        engine = InterestEngine.from_pretrained(data=whole, model=None, cutoff=CUTOFF)
        engine.save_pretrained(folder / "engine")
        people = [engine.history(user) for user in (PERSON, NEIGHBOUR)]
        made = engine.forecast_many(people)
        save_forecasts(folder / "forecasts", engine.dataset, people, made)
        return cls(whole, engine, folder / "forecasts")

    def app(self, key: str = "", **changes: Any) -> FastAPI:
        """Give the pages alone, with other sources if wanted; with a key, behind the login."""
        access, app = Access(key), FastAPI()
        folder = str(self.forecasts.parent / "engine")
        sources = replace(PageSources(self.whole, self.forecasts, folder), **changes)
        app.include_router(pages_router(Live(self.engine), access, sources))
        app.add_middleware(AccessMiddleware, access=access)
        return app
