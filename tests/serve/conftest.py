"""A small log, an engine of it, and both kinds of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

for _package in ("fastapi", "httpx", "prometheus_client", "sqlalchemy", "uvicorn"):
    pytest.importorskip(_package, reason="serving needs pip install 'llmrec[serve]'")

from llmrec.data.readers import load_dataset  # noqa: E402
from llmrec.engine import InterestEngine  # noqa: E402
from tests import worlds  # noqa: E402
from tests.serve.postgres import PostgresServer, find_programs  # noqa: E402

OpenEngine = Callable[[], InterestEngine]
HOSTILE_TITLE = "<script>alert(1)</script> \"quoted\" & 'more'"


@pytest.fixture(scope="session")
def saved_engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of an engine, and the log that it was fitted on, as a file."""
    folder = tmp_path_factory.mktemp("served")
    log, catalog = worlds.log(), worlds.catalog()
    titles = {item: catalog.titles[place] for place, item in enumerate(catalog.item_ids)}
    titles["i007"] = HOSTILE_TITLE
    items = log.item_ids[log.item_idx]
    frame = pd.DataFrame(
        {
            "user_id": log.user_ids[log.user_idx],
            "item_id": items,
            "timestamp": log.timestamp,
            "title": [titles[item] for item in items],
            "categories": [catalog.categories_of(catalog.item_index(item))[0] for item in items],
        }
    )
    frame.to_parquet(folder / "log.parquet")
    dataset = load_dataset(folder / "log.parquet", period="7D")
    engine = InterestEngine.from_pretrained(data=dataset, model=None, refit=True)
    engine.save_pretrained(folder / "engine")
    return folder / "engine", folder / "log.parquet"


@pytest.fixture(scope="session")
def open_engine(saved_engine: tuple[Path, Path]) -> OpenEngine:
    """Loads the engine with its log, again for each test, since events change it."""
    folder, log = saved_engine
    dataset = load_dataset(log, period="7D")
    return lambda: InterestEngine.from_pretrained(str(folder), data=dataset, model=None)


@pytest.fixture
def engine(open_engine: OpenEngine) -> InterestEngine:
    """An engine of the test's own."""
    return open_engine()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests; they are skipped where PostgreSQL is not installed."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb in /usr/lib/postgresql or on the PATH")
    pytest.importorskip("psycopg")
    server = PostgresServer(programs)
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "events.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database("events")
