"""The interface answers in the forms that it promises, and takes bad input for what it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from llmrec.engine import InterestEngine
from llmrec.errors import StoreError
from llmrec.serve.app import create_app
from llmrec.serve.live import LiveEngine
from llmrec.serve.settings import ServeSettings
from llmrec.serve.store import EventStore
from tests.serve.conftest import HOSTILE_TITLE

AT_HOME = "http://127.0.0.1"
LIMITS = ServeSettings(max_body_bytes=20_000, max_events=50, threads=1, max_waiting=2)


@pytest.fixture
def live(engine: InterestEngine, tmp_path: Path) -> Iterator[LiveEngine]:
    with LiveEngine(engine, EventStore(str(tmp_path / "events.db")), refresh_seconds=0) as started:
        yield started


@pytest.fixture
def client(live: LiveEngine) -> Iterator[TestClient]:
    with TestClient(create_app(live, LIMITS), base_url=AT_HOME) as client:
        yield client


def event(user: str = "u000", item: str = "i003", day: int = 12, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "time": f"2020-02-{day:02d}T10:00:00Z"} | more


def post(client: TestClient, *events: dict[str, Any]) -> Any:
    return client.post("/events", json={"events": list(events)})


def listed(client: TestClient, user: str = "u000", **params: Any) -> list[dict[str, Any]]:
    answer = client.get(f"/users/{user}/recommendations", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def test_a_list_is_that_of_the_engine(client: TestClient, live: LiveEngine) -> None:
    expected = live.engine.recommend("u000", 5, causes=False)
    found = listed(client, k=5)
    assert [item["item_id"] for item in found] == [one.item_id for one in expected]
    assert [item["why"] for item in found] == [one.why for one in expected]
    assert [item["score"] for item in found] == [one.score for one in expected]


def test_lists_without_words_have_the_same_items(client: TestClient) -> None:
    by_reasons = {kind: listed(client, k=5, reasons=kind) for kind in ("none", "short", "causes")}
    ids = {tuple(item["item_id"] for item in items) for items in by_reasons.values()}
    assert len(ids) == 1
    assert {item["why"] for item in by_reasons["none"]} == {None}
    assert all(item["why"] for item in by_reasons["causes"])


def test_an_event_changes_the_list_of_its_person_at_once(client: TestClient) -> None:
    before = client.get("/users/u000/forecast").json()
    wars = [event(item=f"i{5 * n + 4:03d}", day=12 + n) for n in range(5)]
    assert post(client, *wars).json()["accepted"] == 5
    after = client.get("/users/u000/forecast").json()
    assert after["category_weights"]["War"] > before["category_weights"]["War"] + 0.05
    assert after["cutoff"] > before["cutoff"]


def test_a_new_person_is_served_after_their_first_event(client: TestClient) -> None:
    assert client.get("/users/new/recommendations").status_code == 404
    assert post(client, event("new", "i004")).status_code == 202
    assert len(listed(client, "new", k=3)) == 3


def test_events_that_come_again_are_duplicates(client: TestClient) -> None:
    sent = [event(), event(item="i004", event_id="a")]
    assert post(client, *sent).json()["accepted"] == 2
    again = post(client, *sent).json()
    assert (again["accepted"], again["duplicates"]) == (0, 2)


def test_an_event_id_with_other_contents_is_a_conflict_and_stores_nothing(
    client: TestClient, live: LiveEngine
) -> None:
    post(client, event(event_id="a"))
    answer = post(client, event(day=13), event(item="i004", event_id="a"))
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("events 1: their event_id is stored with another")
    assert live.store.count() == 1


def test_events_are_rejected_one_by_one_with_the_reason(client: TestClient) -> None:
    ahead = str(np.datetime64("now") + np.timedelta64(2, "D"))
    sent = [
        event(),
        event(item="i0033"),
        event(time=ahead),
        event(time="1969-05-01"),
        event(time="1999-05-01"),
        event(item="new", categories=["Opera"]),
    ]
    answer = post(client, *sent)
    found = answer.json()
    assert (answer.status_code, found["accepted"]) == (202, 2)
    reasons = {one["index"]: one["reason"] for one in found["rejected"]}
    assert "'i0033' is not known" in reasons[1]
    assert "'i003'" in reasons[1]
    assert "ahead of this server's clock" in reasons[2]
    assert reasons[3] == "its time is before 1970"
    assert "none of its categories is known" in reasons[5]
    assert [one["index"] for one in found["notes"]] == [4]


def test_a_new_item_joins_by_its_categories(client: TestClient) -> None:
    new = event(item="i900", title="Ran", categories=["War"])
    assert (
        post(client, new, event("u001", "i900", title="Ran", categories=["War"])).json()["accepted"]
        == 2
    )
    explained = client.get("/users/u002/explain/i900")
    assert explained.status_code == 200
    assert "Ran" in explained.json()["text"]


def test_edits_are_shown_before_they_are_applied(client: TestClient) -> None:
    wish = {"text": "no horror, more drama, less quux"}
    answer = client.post("/users/u000/wishes", json=wish).json()
    assert [edit["category"] for edit in answer["edits"]] == ["Horror", "Drama"]
    assert len(answer["not_understood"]) == 1
    applied = client.get("/users/u000/recommendations", params={"edits": answer["sentences"]})
    assert applied.json()["edits"] == answer["sentences"]
    horror = {f"i{5 * n + 3:03d}" for n in range(5)}
    assert not horror & {item["item_id"] for item in applied.json()["items"]}


def test_options_of_a_list_are_those_of_a_session(client: TestClient, live: LiveEngine) -> None:
    session = live.engine.session("u000", strength=3.0, repeat="exclude")
    expected = [one.item_id for one in session.recommend(4, calibrate=0.5, causes=False)]
    found = listed(client, k=4, strength=3.0, repeat="exclude", calibrate=0.5)
    assert [item["item_id"] for item in found] == expected


def test_items_are_explained_and_missing_ones_too(client: TestClient) -> None:
    top, last = listed(client, k=20)[0]["item_id"], listed(client, k=20)[-1]["item_id"]
    assert "rank 1 of" in client.get(f"/users/u000/explain/{top}").json()["text"]
    missing = client.get(f"/users/u000/why-not/{last}", params={"k": 1}).json()
    assert missing["rank"] > 1
    assert missing["text"]


def test_a_deleted_person_is_unknown_everywhere(client: TestClient) -> None:
    post(client, event())
    answer = client.delete("/users/u000")
    assert answer.json() == {"user_id": "u000", "stored_events": 1}
    for path in ("forecast", "recommendations", "explain/i003", "why-not/i003"):
        assert client.get(f"/users/u000/{path}").status_code == 404
    assert client.delete("/users/u000").status_code == 404
    late = post(client, event()).json()
    assert late["accepted"] == 0
    assert "deleted" in late["rejected"][0]["reason"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/users/u0001/recommendations", "'u001'"),
        ("/users/u000/explain/i0003", "'i003'"),
        ("/users/u000/why-not/i0003", "'i003'"),
        ("/users/u0001/forecast", "'u001'"),
        ("/users/a%2Fb%00/forecast", "for example"),
    ],
)
def test_what_is_unknown_is_404_with_near_ids(client: TestClient, path: str, near: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert near in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"events": [', "JSON decode error"),
        (b"\xff\xfe", ""),
        (b"[1]", "valid dictionary"),
        (b'{"events": [{"user_id": 5}]}', "events.0"),
        (b'{"events": [{"user_id": "a\\u0000b", "item_id": "i", "time": "2020-01-01"}]}', "print"),
        (
            b'{"events": [{"user_id": "\\ud800", "item_id": "i", "time": "2020-01-01"}]}',
            "0.user_id",
        ),
        (b'{"events": [{"user_id": "u", "item_id": "i", "time": "soon"}]}', "0.time"),
        (b'{"events": [{"user_id": "u", "item_id": "i", "time": 1e300}]}', "0.time"),
        (b'{"events": [], "other": 1}', "other"),
        (b"[" * 9_000, ""),
    ],
)
def test_a_body_that_is_none_is_told_in_one_line(
    client: TestClient, body: bytes, said: str
) -> None:
    answer = client.post("/events", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    detail = answer.json()["detail"]
    assert said in detail
    assert "\n" not in detail
    assert len(detail) <= 500


def test_too_many_events_or_bytes_are_refused_with_the_limit(client: TestClient) -> None:
    many = post(client, *[event()] * 51)
    assert (many.status_code, many.json()["detail"]) == (
        413,
        "51 events: send 50 at most in a request",
    )
    large = client.post("/events", content=b"x" * 20_001)
    assert large.status_code == 413
    in_chunks = client.post("/events", content=(b"x" * 1_000 for _ in range(30)))
    assert in_chunks.status_code == 413
    assert "20,000 bytes" in in_chunks.json()["detail"]


@pytest.mark.parametrize(
    "params",
    [
        {"k": 0},
        {"k": 10**9},
        {"strength": "nan"},
        {"repeat": "x"},
        {"calibrate": 2},
        {"edits": "quux zork"},
        {"reasons": "all"},
    ],
)
def test_parameters_out_of_bounds_are_422(client: TestClient, params: dict[str, Any]) -> None:
    answer = client.get("/users/u000/recommendations", params=params)
    assert answer.status_code == 422
    assert "\n" not in answer.json()["detail"]


def test_a_title_with_a_script_is_data(client: TestClient) -> None:
    answer = client.get("/users/u000/recommendations", params={"k": 25, "repeat": "allow"})
    assert answer.headers["content-type"] == "application/json"
    assert HOSTILE_TITLE in {item["title"] for item in answer.json()["items"]}


def test_a_database_that_stops_is_503_until_it_is_back(
    client: TestClient, live: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise StoreError("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(live.store, "add", stopped)
        patch.setattr(live.store, "ping", stopped)
        answer = post(client, event())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        health = client.get("/healthz")
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert client.get("/users/u000/forecast").status_code == 200
    assert client.get("/healthz").json() == {"status": "ok", "database": "ok"}
    assert post(client, event()).json()["accepted"] == 1


def test_what_waits_too_long_is_504_and_too_many_are_503(
    live: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(threads=1, max_waiting=1, request_seconds=0.3)
    ask = live.session

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return ask(*arguments, **options)

    with TestClient(create_app(live, settings), base_url=AT_HOME) as client:
        monkeypatch.setattr(live, "session", slow)
        with ThreadPoolExecutor(6) as pool:
            paths = ["/users/u000/forecast"] * 6
            statuses = sorted(pool.map(lambda path: client.get(path).status_code, paths))
        assert statuses == [503] * 4 + [504] * 2
        time.sleep(1.0)
        monkeypatch.undo()
        assert client.get("/users/u000/forecast").status_code == 200


def test_metrics_name_routes_and_no_person(client: TestClient) -> None:
    post(client, event(), event(), event(item="nothing"))
    listed(client, "u001")
    client.get("/users/secret/recommendations")
    client.get("/nothing/here")
    text = client.get("/metrics").text
    route = "/users/{user_id:path}/recommendations"
    for status in ("200", "404"):
        labels = f'{{method="GET",route="{route}",status="{status}"}}'
        assert f"llmrec_requests_total{labels} 1.0" in text
    assert 'route="none",status="404"} 1' in text
    assert 'llmrec_events_total{outcome="accepted"} 1.0' in text
    assert 'llmrec_events_total{outcome="duplicate"} 1.0' in text
    assert 'llmrec_events_total{outcome="rejected"} 1.0' in text
    assert "llmrec_batches_waiting 0.0" in text
    assert "process_resident_memory_bytes" in text
    assert "secret" not in text


def test_no_series_is_made_of_what_a_client_makes_up(client: TestClient) -> None:
    for number in range(5):
        client.request(f"MADEUP{number}", "/healthz")
        client.get(f"/made/up/{number}")
    assert "MADEUP" not in client.get("/metrics").text


def test_words_for_a_missing_id_are_no_people(client: TestClient) -> None:
    answer = post(client, event("nan"), event(item="None"), event("fine")).json()
    assert [one["index"] for one in answer["rejected"]] == [0, 1]
    assert (answer["accepted"], "missing" in answer["rejected"][0]["reason"]) == (1, True)


def test_the_first_of_many_errors_is_told_at_once(client: TestClient) -> None:
    began = time.process_time()
    answer = client.post("/events", content='{"events": [' + "{}," * 5_000 + "{}]}")
    assert answer.status_code == 422
    assert time.process_time() - began < 1


def test_the_description_has_every_route_with_examples(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    person = "/users/{user_id}"
    assert set(found["paths"]) >= {
        *("/events", "/healthz", "/metrics", person),
        *(f"{person}/{end}" for end in ("forecast", "recommendations", "wishes")),
        *(f"{person}/{end}/{{item}}" for end in ("explain", "why-not")),
    }
    for name in ("Event", "EventsReport", "Recommendations", "Wish", "WishAnswer"):
        assert found["components"]["schemas"][name]["examples"], name
    assert json.dumps(found)


def test_events_sent_at_once_by_many_are_each_stored_once(
    client: TestClient, live: LiveEngine
) -> None:
    batches = [[event(f"u{n:03d}", f"i{m:03d}") for m in range(5)] for n in range(20)] * 2
    settings = ServeSettings(max_waiting=256)
    with TestClient(create_app(live, settings), base_url=AT_HOME) as client:
        with ThreadPoolExecutor(8) as pool:
            found = [one.json() for one in pool.map(lambda batch: post(client, *batch), batches)]
        assert sum(one["accepted"] for one in found) == 100
        assert sum(one["duplicates"] for one in found) == 100
        assert live.store.count() == 100


def test_a_session_that_was_opened_stays_as_it_is(live: LiveEngine) -> None:
    client = TestClient(create_app(live), base_url=AT_HOME)
    session = live.session("u000")
    before = [one.item_id for one in session.recommend(5, causes=False)]
    assert live.session("u000") is session
    post(client, *(event(item=f"i{5 * n + 4:03d}", day=12 + n) for n in range(5)))
    assert [one.item_id for one in session.recommend(5, causes=False)] == before
    assert live.session("u000") is not session
