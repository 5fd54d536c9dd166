"""Whatever people, items and categories are called: no answer or log line of a server acts."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="serving needs pip install 'llmrec[serve]'")

from fastapi.testclient import TestClient

from llmrec.serve.app import create_app
from llmrec.serve.live import LiveEngine
from llmrec.serve.server import LogFormatter
from llmrec.serve.store import EventStore
from tests.hostile.conftest import Count
from tests.hostile.hostile_texts import hostile_texts
from tests.hostile.test_hostile_rendering import (
    ALL,
    SOME,
    Structure,
    harmless,
    people,
    shown_plainly,
    world,
)

MAX_ID_LENGTH = 2_000  # characters of a person's id; a longer one fits no address


def answers(client: TestClient, user: str, item: str) -> list[tuple[str, str, str]]:
    """Give address, kind and text of what a server says of a person, an item, and nobody."""
    who, what = quote(user, safe="", errors="replace"), quote(item, safe="", errors="replace")
    addresses = (
        f"/people/{who}",
        f"/people?q={who[:200]}",
        f"/explanation?user={who}&item={what}",
        f"/compare?users={who}",
        f"/users/{who}/forecast",
        f"/users/{who}/recommendations?reasons=causes",
        f"/users/{who}/explain/{what}",
        f"/users/{who}/recommendations?edits={who[:200]}",
        f"/people/{who}%20nobody",
        f"/users/{who}%20nobody/forecast",
    )
    found = []
    for address in addresses:
        answer = client.get(address, headers={"accept": "text/html"})
        assert answer.status_code < 500
        found.append((address, answer.headers["content-type"], answer.text))
    return found


@pytest.mark.parametrize("n", [SOME, ALL])
def test_a_server_answers_with_hostile_texts_as_letters(
    n: int, tmp_path: Path, count: Count
) -> None:
    markup: set[tuple[str, str]] = set()
    broken: list[str] = []
    hostile = tuple(text[:MAX_ID_LENGTH] for text in hostile_texts(n).values())
    for texts in (harmless(5), hostile):
        engine = world(texts)
        store = EventStore(str(tmp_path / f"{len(texts)}.db"))
        with (
            LiveEngine(engine, store, refresh_seconds=0) as live,
            TestClient(create_app(live), base_url="http://127.0.0.1") as client,
        ):
            for user in people(engine):
                item = str(engine.session(user).recommend(1)[0].item_id)
                for address, kind, text in answers(client, user, item):
                    if not shown_plainly(text):
                        broken.append(address)
                    if kind.startswith("application/json"):
                        json.loads(text)
                    elif len(texts) == 5:
                        markup |= Structure(text).markup
                    elif extra := Structure(text).markup - markup:
                        broken.append(f"{address} {extra}")
    count("hostile texts are letters in answers of a server", n, len(broken))
    assert broken == []


@pytest.mark.parametrize("n", [SOME, ALL])
def test_a_log_line_holds_no_line_break_or_control_of_a_hostile_text(n: int, count: Count) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogFormatter("%(levelname)s: %(message)s"))
    broken = []
    for name, text in hostile_texts(n).items():
        handler.handle(logging.makeLogRecord({"msg": "not applied: %s", "args": (text,)}))
        shown = out.getvalue()
        if shown.count("\n") != 1 or not shown_plainly(shown):
            broken.append(name)
        out.seek(0)
        out.truncate()
    count("hostile texts are letters in a log", n, len(broken))
    assert broken == []
